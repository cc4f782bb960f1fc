//! One line of the Test Anything Protocol, versions 12 to 14 (<https://testanything.org>).

use super::text::number;

/// What a line of TAP says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// `ok 1 - description # SKIP reason`
    Point {
        /// Whether it says `ok`.
        ok: bool,
        /// What was tested, still with its escapes.
        description: &'a str,
        /// What follows the `#`.
        directive: Option<Directive>,
    },
    /// `1..N`
    Plan(u64),
    /// `Bail out! reason`
    BailOut(&'a str),
    /// `# Subtest: name`
    Subtest(&'a str),
    /// `# anything`, without the `#`
    Comment(&'a str),
    /// `---`
    YamlStart,
    /// `...`
    YamlEnd,
    /// Anything else.
    Other,
}

/// Why a test point does not count as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Directive {
    /// It did not run.
    Skip,
    /// It is not expected to pass yet.
    Todo,
}

/// The line's indentation, in characters, and what it says.
pub(super) fn read(line: &str) -> (usize, Line<'_>) {
    let text = line.trim_start_matches([' ', '\t']);
    let indent = line.len() - text.len();
    (indent, meaning(text.trim_end()))
}

fn meaning(text: &str) -> Line<'_> {
    if let Some(point) = point(text) {
        return point;
    }
    if let Some(rest) = text.strip_prefix('#') {
        let comment = rest.strip_prefix(' ').unwrap_or(rest);
        return comment.strip_prefix("Subtest: ").map_or(Line::Comment(comment), Line::Subtest);
    }
    if let Some(reason) = text.strip_prefix("Bail out!") {
        return Line::BailOut(reason.trim());
    }
    match text {
        "---" => Line::YamlStart,
        "..." => Line::YamlEnd,
        _ => plan(text).map_or(Line::Other, Line::Plan),
    }
}

fn plan(text: &str) -> Option<u64> {
    let rest = text.strip_prefix("1..")?;
    let count = rest.split(['#', ' ']).next()?;
    let after = rest[count.len()..].trim_start();
    (after.is_empty() || after.starts_with('#')).then(|| number(count))?
}

fn point(text: &str) -> Option<Line<'_>> {
    let (ok, rest) = match text.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok")?),
    };
    // `okay` and `ok:` are words of a program, `ok` and `ok 1` are points.
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start();
    let after_number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = if after_number.is_empty() || after_number.starts_with(' ') { after_number } else { rest };
    let (description, directive) = split_directive(rest.trim_start());
    let description = description.strip_prefix("- ").unwrap_or(description).trim();
    Some(Line::Point { ok, description, directive })
}

/// Separates `description # SKIP reason`; a `\#` belongs to the description.
fn split_directive(text: &str) -> (&str, Option<Directive>) {
    for (at, _) in text.match_indices('#') {
        if text[..at].ends_with('\\') {
            continue;
        }
        let word = text[at + 1..].trim_start().as_bytes();
        let is = |name: &[u8]| word.get(..4).is_some_and(|w| w.eq_ignore_ascii_case(name));
        if is(b"skip") {
            return (&text[..at], Some(Directive::Skip));
        }
        if is(b"todo") {
            return (&text[..at], Some(Directive::Todo));
        }
    }
    (text, None)
}

/// Whether only TAP looks like this.
pub(super) fn gives_away(line: &str) -> bool {
    if line.starts_with("TAP version ") {
        return true;
    }
    let numbered = |rest: &str| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && matches!(rest.as_bytes().get(digits), None | Some(b' '))
    };
    // Not a plan: `1..5` alone may be anything, and it is read again once a point follows.
    let rest = line.strip_prefix("not ").unwrap_or(line);
    rest.strip_prefix("ok ").is_some_and(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ok: bool, description: &str, directive: Option<Directive>) -> Line<'_> {
        Line::Point { ok, description, directive }
    }

    #[test]
    fn points_have_descriptions_and_directives() {
        assert_eq!(read("ok 1 - a b"), (0, point(true, "a b", None)));
        assert_eq!(read("    not ok 2 c"), (4, point(false, "c", None)));
        assert_eq!(read("ok"), (0, point(true, "", None)));
        assert_eq!(read("ok 3 # skip no network"), (0, point(true, "", Some(Directive::Skip))));
        assert_eq!(read("not ok 4 - x # TODO later"), (0, point(false, "x", Some(Directive::Todo))));
        assert_eq!(read(r"ok - issue \# skip"), (0, point(true, r"issue \# skip", None)));
        assert_eq!(read("ok - issue #12 # Skipped"), (0, point(true, "issue #12", Some(Directive::Skip))));
        assert_eq!(read("ok 12ab"), (0, point(true, "12ab", None)));
        assert_eq!(read("okay"), (0, Line::Other));
    }

    #[test]
    fn everything_else_is_told_apart() {
        assert_eq!(read("1..12"), (0, Line::Plan(12)));
        assert_eq!(read("  1..0 # SKIP why"), (2, Line::Plan(0)));
        assert_eq!(read("1..2x"), (0, Line::Other));
        assert_eq!(read("1..2 x"), (0, Line::Other));
        assert_eq!(read("Bail out! no disk"), (0, Line::BailOut("no disk")));
        assert_eq!(read("# Subtest: s"), (0, Line::Subtest("s")));
        assert_eq!(read("#   got: 1"), (0, Line::Comment("  got: 1")));
        assert_eq!(read("  ---"), (2, Line::YamlStart));
        assert_eq!(read("  ..."), (2, Line::YamlEnd));
    }
}

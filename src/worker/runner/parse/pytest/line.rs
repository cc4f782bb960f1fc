//! One line of pytest's output.

use super::super::text::{add, number};

/// Which part of the output follows a headline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Section {
    /// Tests run.
    #[default]
    Progress,
    /// The failures, one by one.
    Failures,
    /// The short test summary.
    Summary,
    /// Nothing about single tests.
    Other,
}

/// How a test case ended; expected failures count as skipped, errors as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Passed,
    Failed,
    Skipped,
}

/// The counts of the last line.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Summary {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Status {
    /// What a mark of the dotted output stands for.
    pub(super) fn of_mark(mark: char) -> Option<Self> {
        match mark {
            '.' | 'X' => Some(Self::Passed),
            'F' | 'E' => Some(Self::Failed),
            's' | 'x' => Some(Self::Skipped),
            _ => None,
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        match word {
            "PASSED" | "XPASS" => Some(Self::Passed),
            "FAILED" | "ERROR" => Some(Self::Failed),
            "SKIPPED" | "XFAIL" => Some(Self::Skipped),
            _ => None,
        }
    }
}

/// The part that begins after a headline such as `=== FAILURES ===`.
pub(super) fn section(line: &str) -> Option<Section> {
    let title = line.strip_prefix("==")?.strip_suffix("==")?.trim_matches('=').trim();
    Some(match title {
        "test session starts" => Section::Progress,
        "FAILURES" | "ERRORS" => Section::Failures,
        "short test summary info" => Section::Summary,
        _ => Section::Other,
    })
}

/// `==== 3 failed, 5 passed, 1 error in 0.03s ====`; `-q` leaves the signs out.
pub(super) fn summary(line: &str) -> Option<Summary> {
    let (counts, time) = line.trim_matches(['=', ' ']).rsplit_once(" in ")?;
    // `0.03s` or `61.02s (0:01:01)`.
    let seconds = time.split(' ').next()?.strip_suffix('s')?;
    seconds.parse::<f64>().ok()?;
    let mut summary = Summary::default();
    if counts == "no tests ran" {
        return Some(summary);
    }
    for part in counts.split(", ") {
        let (count, what) = part.split_once(' ')?;
        let count = number(count)?;
        let slot = match what {
            "passed" | "xpassed" => &mut summary.passed,
            "failed" | "error" | "errors" => &mut summary.failed,
            "skipped" | "xfailed" => &mut summary.skipped,
            "warning" | "warnings" | "deselected" | "rerun" | "subtests passed" => continue,
            _ => return None,
        };
        *slot = add(*slot, count);
    }
    Some(summary)
}

/// `collected 12 items / 2 deselected / 10 selected`, or `2 workers [12 items]` of xdist.
pub(super) fn collected(line: &str) -> Option<u64> {
    if let Some((_, rest)) = line.split_once(" workers [").or_else(|| line.split_once(" worker [")) {
        return number(rest.split_once(" item")?.0);
    }
    let rest = line.strip_prefix("collecting ... ").unwrap_or(line).strip_prefix("collected ")?;
    if let Some(selected) = rest.split(" / ").find_map(|part| part.trim().strip_suffix(" selected")) {
        return number(selected);
    }
    number(rest.split_once(" item")?.0)
}

/// `[gw0] [ 16%] PASSED test_a.py::test_ok` of xdist.
pub(super) fn worker_line(line: &str) -> Option<(&str, Status)> {
    let (_, rest) = line.strip_prefix("[gw")?.split_once("] ")?;
    let rest = if rest.starts_with('[') { rest.split_once("] ")?.1 } else { rest };
    let (word, id) = rest.split_once(' ')?;
    Some((id.trim(), Status::of_word(word)?))
}

/// `test_a.py::test_skipped SKIPPED (no network)   [ 25%]` of `-v`.
pub(super) fn verbose_line(line: &str) -> Option<(&str, Status)> {
    let file_ends = line.find("::")?;
    let words = ["PASSED", "FAILED", "SKIPPED", "ERROR", "XFAIL", "XPASS"];
    for (at, _) in line[file_ends..].match_indices(' ') {
        let at = file_ends + at;
        let rest = &line[at + 1..];
        let word = words.iter().find(|w| rest.strip_prefix(**w).is_some_and(|r| !continues_word(r)));
        if let Some(status) = word.and_then(|w| Status::of_word(w)) {
            return looks_like_id(&line[..at]).then_some((line[..at].trim(), status));
        }
    }
    None
}

fn continues_word(rest: &str) -> bool {
    !rest.is_empty() && !rest.starts_with(' ')
}

/// A node id has no space before its parameters.
fn looks_like_id(text: &str) -> bool {
    let head = text.split('[').next().unwrap_or(text).trim_end();
    head.contains("::") && !head.contains(' ')
}

/// `tests/test_a.py .F.s   [ 50%]`: the file, if the line names one, and the marks.
pub(super) fn dots(line: &str) -> Option<(Option<&str>, &str)> {
    let line = line.trim_end();
    let (head, has_percent) = match line.rsplit_once('[') {
        Some((head, tail)) if is_percent(tail) => (head.trim_end(), true),
        _ => (line, false),
    };
    let is_marks = |s: &str| !s.is_empty() && s.bytes().all(|b| b".FsxXER".contains(&b));
    if let Some((file, marks)) = head.split_once(' ') {
        let is_file = file.ends_with(".py") || file.ends_with(".txt") || file.ends_with(".rst");
        return (is_file && is_marks(marks.trim())).then(|| (Some(file), marks.trim()));
    }
    // Without the percentage it could be anything, such as an ellipsis.
    (has_percent && is_marks(head)).then_some((None, head))
}

/// What follows the `[` of `[ 50%]` or `[ 6/12]`.
fn is_percent(tail: &str) -> bool {
    let Some(inner) = tail.strip_suffix(']') else { return false };
    let is_number = |s: &str| number(s.trim()).is_some();
    inner.strip_suffix('%').is_some_and(is_number)
        || inner.split_once('/').is_some_and(|(a, b)| is_number(a) && is_number(b))
}

/// `test_a.py::test_ok ` and perhaps the beginning of what it prints: the test that runs now.
pub(super) fn started(line: &str) -> Option<&str> {
    let (file, _) = line.split_once("::")?;
    if !file.ends_with(".py") || file.contains(' ') {
        return None;
    }
    let end = if line.contains('[') { line.find("] ").map(|at| at + 1) } else { None };
    let end = end.or_else(|| line.find(' ')).unwrap_or(line.len());
    Some(&line[..end])
}

/// `PASSED`, perhaps behind what the test printed.
pub(super) fn status_alone(line: &str) -> Option<Status> {
    let line = match line.rsplit_once('[') {
        Some((head, tail)) if is_percent(tail) => head,
        _ => line,
    };
    let line = line.trim_end();
    ["PASSED", "FAILED", "SKIPPED", "ERROR", "XFAIL", "XPASS"]
        .iter()
        .find(|word| line.ends_with(*word))
        .and_then(|word| Status::of_word(word))
}

/// Whether only pytest prints this.
pub(crate) fn gives_away(line: &str) -> bool {
    matches!(section(line), Some(Section::Progress | Section::Failures | Section::Summary))
        || (line.starts_with("collecting ... ") || line.starts_with("collected "))
            && collected(line).is_some()
        || verbose_line(line).is_some_and(|(id, _)| id.contains(".py::"))
        || dots(line).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_tells_the_counts() {
        let of = |passed, failed, skipped| Some(Summary { passed, failed, skipped });
        let line = "== 3 failed, 5 passed, 1 skipped, 1 xfailed, 1 xpassed, 1 error in 0.03s ==";
        assert_eq!(summary(line), of(6, 4, 2));
        assert_eq!(summary("5 passed, 2 warnings in 61.02s (0:01:01)"), of(5, 0, 0));
        assert_eq!(summary("=== no tests ran in 0.01s ==="), of(0, 0, 0));
        assert_eq!(summary("5 apples in 3s"), None);
        assert_eq!(summary("once in 3s"), None);
    }

    #[test]
    fn the_total_is_what_was_selected() {
        assert_eq!(collected("collecting ... collected 12 items"), Some(12));
        assert_eq!(collected("collected 1 item"), Some(1));
        assert_eq!(collected("collected 12 items / 2 deselected / 10 selected"), Some(10));
        assert_eq!(collected("collected 12 items / 1 error"), Some(12));
        assert_eq!(collected("2 workers [12 items]"), Some(12));
        assert_eq!(collected("collected stamps"), None);
    }

    #[test]
    fn an_id_may_have_spaces_in_its_parameters() {
        assert_eq!(verbose_line("a.py::t[a b] PASSED  [ 66%]"), Some(("a.py::t[a b]", Status::Passed)));
        assert_eq!(verbose_line("a.py::t SKIPPED (it FAILED) [ 66%]"), Some(("a.py::t", Status::Skipped)));
        assert_eq!(verbose_line("some a.py::t FAILED"), None);
        assert_eq!(worker_line("[gw1] [ 58%] FAILED a.py::t[a b] "), Some(("a.py::t[a b]", Status::Failed)));
        assert_eq!(started("a.py::t[a b] "), Some("a.py::t[a b]"));
        assert_eq!(started("a.py::t printed"), Some("a.py::t"));
        assert_eq!(started("a.py:3: in t"), None);
    }

    #[test]
    fn marks_are_told_from_other_text() {
        assert_eq!(dots("t/a.py .F.s   [ 50%]"), Some((Some("t/a.py"), ".F.s")));
        assert_eq!(dots("t/a.py .."), Some((Some("t/a.py"), "..")));
        assert_eq!(dots("..F [100%]"), Some((None, "..F")));
        assert_eq!(dots(".. [ 6/12]"), Some((None, "..")));
        for line in ["...", "t/a.py", "a .F", "", "[", "] [", "[ 50%]"] {
            assert_eq!(dots(line), None, "{line}");
        }
    }
}

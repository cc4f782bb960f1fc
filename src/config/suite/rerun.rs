//! The command of a suite that runs single cases (`rerun`), and how their names get into it.
//!
//! Names of cases are what a test's author, or whoever wrote to the test's output, wanted them to be. They become whole
//! arguments, or parts of one regular expression; no shell ever sees them.

use regex::escape;

use super::InvalidSuite;

/// Each name as an argument of its own.
const CASES: &str = "{cases}";
/// The last word of each name as an argument of its own.
const TESTS: &str = "{tests}";
/// All names as one regular expression, anywhere in an argument.
const PATTERN: &str = "{pattern}";
/// The Go test functions of all names as one regular expression, anywhere in an argument.
const GO: &str = "{go}";
const PLACES: [&str; 4] = [CASES, TESTS, PATTERN, GO];
/// What our parsers put between the name of a test and those that it is below.
const BELOW: &str = " > ";
/// What the placeholders are called: no parameter may have such a name.
pub(super) const NAMES: [&str; 4] = ["cases", "tests", "pattern", "go"];

/// What is wrong with a name that would be taken for something else.
const SPECIAL: &str = "its beginning would make an option of it";

/// How many cases are run by their names at most.
pub const MAX_CASES: usize = 100;

/// Why cases cannot be run by their names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCases {
    /// The suite says nothing of it.
    #[error(
        "the suite cannot run single cases: it has no `rerun` in tidings.toml; run all of it again instead"
    )]
    NoTemplate,
    /// Nothing to run, or too much.
    #[error("1 to {MAX_CASES} cases can be run by their names, not {0}; run all of the suite instead")]
    Count(usize),
    /// A name that no runner could be given.
    #[error("the case {name:?} cannot be named on a command line: {why}; run all of the suite instead")]
    Name {
        /// The name, or its beginning.
        name: String,
        /// Why not.
        why: &'static str,
    },
}

/// What is wrong with a template.
pub(super) fn check(template: &[String]) -> Result<(), InvalidSuite> {
    let Some((program, arguments)) = template.split_first() else { return Ok(()) };
    let wrong = |message: String| Err(InvalidSuite::Rerun { message });
    if program.is_empty() || PLACES.iter().any(|place| program.contains(place)) {
        return wrong("the program comes first, then its arguments".to_owned());
    }
    if template.iter().any(|argument| argument.contains('\0')) {
        return Err(InvalidSuite::Nul { field: "rerun" });
    }
    for place in [CASES, TESTS] {
        if arguments.iter().any(|argument| argument.contains(place) && argument != place) {
            return wrong(format!("\"{place}\" is a whole argument: each name becomes one"));
        }
    }
    if !arguments.iter().any(|argument| PLACES.iter().any(|place| argument.contains(place))) {
        let known = PLACES.map(|place| format!("\"{place}\"")).join(", ");
        return wrong(format!("no argument says where the names of cases belong: one of {known}"));
    }
    Ok(())
}

/// The command that runs these cases.
pub(super) fn fill(template: &[String], cases: &[String]) -> Result<Vec<String>, InvalidCases> {
    if template.is_empty() {
        return Err(InvalidCases::NoTemplate);
    }
    if !(1..=MAX_CASES).contains(&cases.len()) {
        return Err(InvalidCases::Count(cases.len()));
    }
    let mut command = Vec::new();
    for argument in template {
        match argument.as_str() {
            CASES => command.extend(each(cases, |case| Some(case))?),
            TESTS => command.extend(each(cases, |case| case.split_whitespace().next_back())?),
            _ => command.push(with_pattern(argument, cases)?),
        }
    }
    Ok(command)
}

fn with_pattern(template: &str, cases: &[String]) -> Result<String, InvalidCases> {
    let mut argument = template.to_owned();
    if argument.contains(PATTERN) {
        let names = cases.iter().map(|case| usable(case).map(nested)).collect::<Result<Vec<_>, _>>()?;
        let names = names.join("|");
        // Some runners take an argument that begins so for a file of arguments, a pattern or not.
        let begins = argument.starts_with(PATTERN) && is_special(&names);
        argument = argument.replace(PATTERN, &if begins { format!("(?:{names})") } else { names });
    } else if argument.contains(GO) {
        let mut names = Vec::new();
        for case in cases {
            let name = go_function(usable(case)?).ok_or_else(|| refused(case, "it is no Go test"))?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        argument = argument.replace(GO, &names.join("|"));
    }
    // What the operator wrote may begin so.
    if is_special(&argument) && !is_special(template) {
        return Err(refused(&argument, SPECIAL));
    }
    Ok(argument)
}

/// A name as an expression. Of one below others, `outer > inner > test`, runners match the last part alone, or all of it
/// with spaces between.
fn nested(name: &str) -> String {
    let name = name.replace(" › ", BELOW);
    match name.rsplit_once(BELOW) {
        Some((outer, test)) => {
            let outer = outer.split(BELOW).map(escape).collect::<Vec<_>>().join("(?: [>›])? ");
            format!("(?:{outer}(?: [>›])? )?{}", escape(test))
        }
        None => escape(&name),
    }
}

/// Names as arguments.
fn each(cases: &[String], part: impl Fn(&str) -> Option<&str>) -> Result<Vec<String>, InvalidCases> {
    let argument = |case: &String| {
        let name = part(usable(case)?).ok_or_else(|| refused(case, "it is empty"))?;
        if is_special(name) {
            return Err(refused(case, SPECIAL));
        }
        Ok(name.to_owned())
    };
    cases.iter().map(argument).collect()
}

/// Whether some runners take the argument for an option, or for a file of arguments, whatever stands before it.
fn is_special(argument: &str) -> bool {
    argument.starts_with(['-', '@'])
}

fn usable(case: &str) -> Result<&str, InvalidCases> {
    if case.trim().is_empty() {
        return Err(refused(case, "it is empty"));
    }
    if case.chars().any(char::is_control) {
        return Err(refused(case, "it has control characters"));
    }
    Ok(case)
}

fn refused(case: &str, why: &'static str) -> InvalidCases {
    InvalidCases::Name { name: case.chars().take(200).collect(), why }
}

/// The function of `example.com/m/pkg.TestSum/of_two`; its subtests run with it.
fn go_function(case: &str) -> Option<&str> {
    const BEGINNINGS: [&str; 3] = [".Test", ".Example", ".Fuzz"];
    let at = BEGINNINGS.iter().filter_map(|beginning| case.find(beginning)).min()?;
    let name = case[at + 1..].split('/').next()?;
    name.chars().all(|c| c.is_alphanumeric() || c == '_').then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &[&str], cases: &[&str]) -> Result<Vec<String>, InvalidCases> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(check(&owned(template)), Ok(()));
        fill(&owned(template), &owned(cases))
    }

    #[test]
    fn names_become_whole_arguments_or_one_pattern() {
        let command = filled(&["cargo", "test", "--", "--exact", "{cases}"], &["a::b", "c d; rm -rf $(x)"]);
        assert_eq!(command.unwrap(), ["cargo", "test", "--", "--exact", "a::b", "c d; rm -rf $(x)"]);
        let command = filled(&["cargo", "nextest", "run", "--", "{tests}"], &["tiny tests::wrong", "a::b"]);
        assert_eq!(command.unwrap(), ["cargo", "nextest", "run", "--", "tests::wrong", "a::b"]);
        let command = filled(&["node", "--test-name-pattern=^({pattern})$"], &["--foo", "a|b", "(x)"]);
        assert_eq!(command.unwrap(), ["node", r"--test-name-pattern=^(\-\-foo|a\|b|\(x\))$"]);
        let command =
            filled(&["node", "^({pattern})$"], &["sum (x) > inner > adds", "sum › is wrong"]).unwrap();
        assert_eq!(
            command[1],
            r"^((?:sum \(x\)(?: [>›])? inner(?: [>›])? )?adds|(?:sum(?: [>›])? )?is wrong)$"
        );
        let regex = regex::Regex::new(&command[1]).unwrap();
        for named in ["adds", "sum (x) inner adds", "sum (x) > inner > adds", "sum is wrong", "is wrong"] {
            assert!(regex.is_match(named), "{named}");
        }
        assert!(!regex.is_match("inner adds") && !regex.is_match("adds more"));
        let cases =
            ["example.com/m/pkg.TestSum/of_two", "example.com/m/pkg.TestSum", "example.com/m.TestÜ/.Test x"];
        let command = filled(&["go", "test", "-run", "^({go})$", "./..."], &cases);
        assert_eq!(command.unwrap(), ["go", "test", "-run", "^(TestSum|TestÜ)$", "./..."]);
    }

    #[test]
    fn what_would_be_something_else_is_refused() {
        for name in ["--foo", "-x", "@file", "a\nb", "a\0b", " ", "", "\u{1b}[0m"] {
            let refused = filled(&["x", "{cases}"], &["good", name]).unwrap_err();
            assert!(matches!(refused, InvalidCases::Name { .. }), "{name:?}: {refused}");
        }
        assert!(filled(&["x", "{tests}"], &["crate --foo"]).is_err());
        assert_eq!(filled(&["x", "{pattern}"], &["@file", "a"]).unwrap(), ["x", "(?:@file|a)"]);
        assert!(filled(&["x", "{pattern}"], &["a", "@file"]).is_ok());
        assert!(filled(&["x", "@{pattern}"], &["file"]).is_ok());
        assert!(filled(&["x", "{go}"], &["pkg.Sum"]).is_err());
        assert!(filled(&["x", "{go}"], &["pkg.Test$(x)"]).is_err());
        assert_eq!(filled(&["x", "{cases}"], &[]), Err(InvalidCases::Count(0)));
        assert_eq!(filled(&["x", "{cases}"], &["a"; 101]), Err(InvalidCases::Count(101)));
        assert_eq!(fill(&[], &["a".to_owned()]), Err(InvalidCases::NoTemplate));
    }

    #[test]
    fn a_template_says_where_the_names_belong() {
        for (template, message) in [
            (["x", "y"], "where the names of cases belong"),
            (["{cases}", "y"], "the program comes first"),
            (["x", "--only={cases}"], "a whole argument"),
            (["", "{cases}"], "the program comes first"),
        ] {
            let wrong = check(&template.map(str::to_owned)).unwrap_err().to_string();
            assert!(wrong.contains(message), "{template:?}: {wrong}");
        }
    }
}

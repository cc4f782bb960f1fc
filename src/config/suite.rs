//! Suites: the commands that an operator lets people run as tests (`[suites.NAME]` in `tidings.toml`).

mod confine;
mod format;
mod rerun;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::nearest::did_you_mean;
pub use confine::{OutputLimits, Rlimits};
pub use format::Format;
pub use rerun::{InvalidCases, MAX_CASES};

/// The environment variables that tidings sets itself; a suite may not set them.
pub const RESERVED_ENV: [&str; 3] = ["TIDINGS_TEST_ID", "TIDINGS_JOB_ID", "TIDINGS_ATTEMPT"];

/// What the names of our own settings begin with. They hold secrets, so that no command gets them.
pub const OWN_PREFIX: &str = "TIDINGS_";

/// The variables of the server's environment that every command gets; `LC_*` beside them.
pub const PASSED_ENV: [&str; 9] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"];

/// One command that submitters may run by its suite's name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The program and its arguments; never a shell's command line.
    pub command: Vec<String>,
    /// The same for single cases, whose names belong where it says `{cases}`, `{tests}`, `{pattern}` or `{go}`.
    #[serde(default)]
    pub rerun: Vec<String>,
    /// Where it runs; the server's own directory if absent. The loader makes it absolute.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Environment variables on top of what every command gets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables of the server's own environment that are passed on beside the few that always are.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// How its output is to be read.
    #[serde(default)]
    pub format: Format,
    /// The longest time that an attempt may take, such as `30m`.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// How many of its attempts may run at once, over all nodes; as many as there are workers for if absent.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Environment variables that a submitter may set, and their allowed values.
    #[serde(default)]
    pub params: BTreeMap<String, Vec<String>>,
    /// Arguments that a submitter may choose, and their allowed values: one stands in for the whole element
    /// `{NAME}` of `command`, which is left out where the submitter chooses none.
    #[serde(default)]
    pub args: BTreeMap<String, Vec<String>>,
    /// The user that it runs as; the server's own if absent. The server has to be root.
    #[serde(default)]
    pub user: Option<String>,
    /// The group that it runs with, if not the user's own.
    #[serde(default)]
    pub group: Option<String>,
    /// What each of its processes may use up.
    #[serde(default)]
    pub rlimits: Rlimits,
    /// How much of its output the log takes.
    #[serde(default)]
    pub output: OutputLimits,
}

/// What is wrong with a suite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSuite {
    /// There is nothing to run.
    #[error("`command` is empty: give a program and its arguments, such as [\"cargo\", \"test\"]")]
    NoCommand,
    /// A string that no program can be given.
    #[error("`{field}` contains a NUL character")]
    Nul {
        /// The field.
        field: &'static str,
    },
    /// A name that no environment variable can have.
    #[error("`{field}`: `{name}` cannot be an environment variable's name")]
    VariableName {
        /// The field.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A variable that tidings sets itself.
    #[error("`{field}`: `{name}` cannot be set, tidings sets it itself")]
    Reserved {
        /// The field.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A parameter that nobody could ever give.
    #[error("`{field}`: `{name}` allows no value: list the allowed ones, or leave it out")]
    NoValues {
        /// The field.
        field: &'static str,
        /// The parameter.
        name: String,
    },
    /// A parameter that would have to be two things.
    #[error("`{name}` stands in `params` and in `args`: give one of them another name")]
    Twice {
        /// The parameter.
        name: String,
    },
    /// An argument without a place.
    #[error(
        "`args`: `{name}` has no place: `command` needs the element \"{{{name}}}\", once, after the program"
    )]
    NoPlace {
        /// The parameter.
        name: String,
    },
    /// A place without an argument.
    #[error("`command`: \"{{{name}}}\" is no parameter of `args`{hint}")]
    UnknownPlace {
        /// What stands between the braces.
        name: String,
        /// What was perhaps meant.
        hint: String,
    },
    /// A command for single cases that says nothing of them.
    #[error("`rerun`: {message}")]
    Rerun {
        /// What is wrong.
        message: String,
    },
    /// A variable that is never passed on.
    #[error(
        "`pass_env`: `{name}` is a setting of tidings itself, which no command gets; give the command a variable \
         of its own with `env`"
    )]
    OwnSetting {
        /// The variable.
        name: String,
    },
    /// A group for nobody.
    #[error("`group` without `user`: say who the command runs as")]
    GroupOnly,
    /// A bound that nothing could keep.
    #[error("`{field}` is {found}, expected {expected}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What was set.
        found: u64,
        /// What may be set.
        expected: String,
    },
    /// No attempt could end in time.
    #[error("`timeout` is zero: leave it out for no limit")]
    NoTime,
}

impl Suite {
    /// Whether the suite can be run at all; the first thing that is wrong with it.
    pub fn check(&self) -> Result<(), InvalidSuite> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(InvalidSuite::NoCommand);
        }
        if self.command.iter().any(|arg| arg.contains('\0')) {
            return Err(InvalidSuite::Nul { field: "command" });
        }
        for (name, value) in &self.env {
            variable("env", name, value)?;
        }
        for name in &self.pass_env {
            variable("pass_env", name, "")?;
            if name.starts_with(OWN_PREFIX) {
                return Err(InvalidSuite::OwnSetting { name: name.clone() });
            }
        }
        for (name, values) in &self.params {
            if values.is_empty() {
                return Err(InvalidSuite::NoValues { field: "params", name: name.clone() });
            }
            for value in values {
                variable("params", name, value)?;
            }
        }
        self.check_args()?;
        rerun::check(&self.rerun)?;
        if self.timeout.is_some_and(|t| t.is_zero()) {
            return Err(InvalidSuite::NoTime);
        }
        if self.group.is_some() && self.user.is_none() {
            return Err(InvalidSuite::GroupOnly);
        }
        if self.concurrency == Some(0) {
            let expected =
                "1 or more: pause the suite to run none of it, or leave it out for no limit".to_owned();
            return Err(InvalidSuite::OutOfRange { field: "concurrency", found: 0, expected });
        }
        self.rlimits.check()?;
        self.output.check()
    }

    fn check_args(&self) -> Result<(), InvalidSuite> {
        // Left out, it would make a program of what stands behind it.
        let program = self.rerun.first().and_then(|program| place(program));
        if let Some(name) = program.filter(|name| self.args.contains_key(*name)) {
            let message = format!("the program comes first: \"{{{name}}}\" of `args` belongs behind it");
            return Err(InvalidSuite::Rerun { message });
        }
        for (name, values) in &self.args {
            variable("args", name, "")?;
            if rerun::NAMES.contains(&name.as_str()) && !self.rerun.is_empty() {
                let message = format!(
                    "\"{{{name}}}\" stands for cases there: give the parameter of `args` another name"
                );
                return Err(InvalidSuite::Rerun { message });
            }
            if self.params.contains_key(name) {
                return Err(InvalidSuite::Twice { name: name.clone() });
            }
            if values.is_empty() {
                return Err(InvalidSuite::NoValues { field: "args", name: name.clone() });
            }
            if values.iter().any(|value| value.contains('\0')) {
                return Err(InvalidSuite::Nul { field: "args" });
            }
            let places = self.command.iter().skip(1).filter(|arg| place(arg) == Some(name));
            if places.count() != 1 {
                return Err(InvalidSuite::NoPlace { name: name.clone() });
            }
        }
        // Braces of a command that takes no arguments are its own business.
        let mut places = self.command.iter().filter(|_| !self.args.is_empty()).filter_map(|arg| place(arg));
        match places.find(|name| !self.args.contains_key(*name)) {
            Some(name) => {
                let hint = did_you_mean(name, self.args.keys().map(String::as_str));
                Err(InvalidSuite::UnknownPlace { name: name.to_owned(), hint })
            }
            None => Ok(()),
        }
    }

    /// The command with what a submitter chose: each element `{NAME}` of a parameter in `args` is replaced whole,
    /// or left out.
    #[must_use]
    pub fn command_with(&self, chosen: &BTreeMap<String, String>) -> Vec<String> {
        self.chosen(&self.command, chosen)
    }

    /// The command that runs these cases alone, with what a submitter chose.
    pub fn rerun_with(
        &self,
        chosen: &BTreeMap<String, String>,
        cases: &[String],
    ) -> Result<Vec<String>, InvalidCases> {
        rerun::fill(&self.chosen(&self.rerun, chosen), cases)
    }

    fn chosen(&self, command: &[String], chosen: &BTreeMap<String, String>) -> Vec<String> {
        let argument = |arg: &String| match place(arg).filter(|name| self.args.contains_key(*name)) {
            Some(name) => chosen.get(name).cloned(),
            None => Some(arg.clone()),
        };
        command.iter().filter_map(argument).collect()
    }
}

/// The name in `{NAME}`, as a whole element.
fn place(arg: &str) -> Option<&str> {
    let name = arg.strip_prefix('{')?.strip_suffix('}')?;
    let is_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    is_name.then_some(name)
}

fn variable(field: &'static str, name: &str, value: &str) -> Result<(), InvalidSuite> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(InvalidSuite::VariableName { field, name: name.to_owned() });
    }
    if RESERVED_ENV.contains(&name) {
        return Err(InvalidSuite::Reserved { field, name: name.to_owned() });
    }
    if value.contains('\0') {
        return Err(InvalidSuite::Nul { field });
    }
    Ok(())
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    let parsed = humantime::parse_duration(&text);
    parsed
        .map(Some)
        .map_err(|e| serde::de::Error::custom(format!("`{text}` is no duration such as 30m: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_contract_is_read() {
        let text = r#"
            command = ["cargo", "test", "--workspace"]
            cwd = "."
            env = { RUST_BACKTRACE = "1" }
            format = "cargo-test"
            timeout = "30m"
            params = { FILTER = ["fast", "all"] }
        "#;
        let suite: Suite = toml::from_str(text).unwrap();
        assert_eq!(suite.timeout, Some(Duration::from_secs(1800)));
        assert_eq!((suite.format, suite.params["FILTER"].len()), (Format::CargoTest, 2));
        assert_eq!(suite.check(), Ok(()));
    }

    #[test]
    fn every_format_has_the_name_that_configurations_use() {
        for format in Format::ALL {
            let read: Suite =
                toml::from_str(&format!("command = ['x']\nformat = '{}'", format.name())).unwrap();
            assert_eq!((read.format, format.name().parse()), (format, Ok(format)));
        }
        assert!("cargotest".parse::<Format>().unwrap_err().contains("`cargo-test`"));
    }

    #[test]
    fn a_mistake_is_named() {
        let unknown = toml::from_str::<Suite>("command = ['x']\ncomand = 1").unwrap_err().to_string();
        assert!(unknown.contains("comand"), "{unknown}");
        let time = toml::from_str::<Suite>("command = ['x']\ntimeout = 'soon'").unwrap_err().to_string();
        assert!(time.contains("`soon`"), "{time}");
        let suite = |text: &str| toml::from_str::<Suite>(text).unwrap().check().unwrap_err().to_string();
        assert!(suite("command = []").contains("`command` is empty"));
        assert!(suite("command = ['x']\nenv = { TIDINGS_JOB_ID = 'a' }").contains("sets it itself"));
        assert!(suite("command = ['x']\nenv = { 'a=b' = 'c' }").contains("`a=b`"));
        assert!(suite("command = ['x']\nparams = { A = [] }").contains("`A` allows no value"));
        assert!(suite("command = ['x']\ntimeout = '0s'").contains("zero"));
        assert!(suite("command = ['x']\npass_env = ['TIDINGS_REDIS']").contains("no command gets"));
        assert!(suite("command = ['x']\nconcurrency = 0").contains("`concurrency` is 0"));
        assert!(suite("command = ['x']\ngroup = 'g'").contains("`group` without `user`"));
        assert!(suite("command = ['x']\nrlimits = { nofile = 0 }").contains("`rlimits.nofile` is 0"));
        assert!(suite("command = ['x']\nrlimits = { cpu = '10ms' }").contains("`rlimits.cpu`"));
        assert!(suite("command = ['x']\noutput = { line_bytes = 1 }").contains("`output.line_bytes` is 1"));
        let unknown =
            toml::from_str::<Suite>("command = ['x']\nrlimits = { memory = 1 }").unwrap_err().to_string();
        assert!(unknown.contains("`memory`"), "{unknown}");
    }

    #[test]
    fn a_chosen_argument_stands_in_for_a_whole_element() {
        let suite: Suite =
            toml::from_str("command = ['x', '{A}', '-v', '{}', '{B}']\nargs = { A = ['--a b'], B = ['1'] }")
                .unwrap();
        assert_eq!(suite.check(), Ok(()));
        let chosen = BTreeMap::from([("A".to_owned(), "--a b".to_owned())]);
        assert_eq!(suite.command_with(&chosen), ["x", "--a b", "-v", "{}"]);
        let plain: Suite = toml::from_str("command = ['x', '{A}']").unwrap();
        assert_eq!(
            (plain.check(), plain.command_with(&chosen)),
            (Ok(()), vec!["x".to_owned(), "{A}".to_owned()])
        );
    }

    #[test]
    fn an_argument_without_a_place_and_a_place_without_an_argument_are_named() {
        let fault = |text: &str| toml::from_str::<Suite>(text).unwrap().check().unwrap_err().to_string();
        assert!(fault("command = ['x']\nargs = { A = ['1'] }").contains("needs the element \"{A}\""));
        assert!(fault("command = ['{A}']\nargs = { A = ['1'] }").contains("after the program"));
        let program = fault("command = ['x', '{A}']\nrerun = ['{A}', '{cases}']\nargs = { A = ['1'] }");
        assert!(program.contains("`rerun`: the program comes first"), "{program}");
        assert!(fault("command = ['x', '{A}', '{A}']\nargs = { A = ['1'] }").contains("once"));
        let typo = fault("command = ['x', '{SHARD}', '{SHART}']\nargs = { SHARD = ['1'] }");
        assert!(typo.contains("\"{SHART}\" is no parameter") && typo.contains("`SHARD`"), "{typo}");
        assert!(fault("command = ['x', '{A}']\nargs = { A = [] }").contains("`args`: `A` allows no value"));
        let twice = fault("command = ['x', '{A}']\nargs = { A = ['1'] }\nparams = { A = ['1'] }");
        assert!(twice.contains("in `params` and in `args`"), "{twice}");
    }
}

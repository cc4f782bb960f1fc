//! Suites: the commands that an operator lets people run as tests (`[suites.NAME]` in `tidings.toml`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// The environment variables that tidings sets itself; a suite may not set them.
pub const RESERVED_ENV: [&str; 3] = ["TIDINGS_TEST_ID", "TIDINGS_JOB_ID", "TIDINGS_ATTEMPT"];

/// How a suite's output is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Look at the output and decide.
    #[default]
    Auto,
    /// The Test Anything Protocol: `node --test --test-reporter=tap`, `prove -v`, bats, …
    Tap,
    /// What `cargo test` prints for people.
    CargoTest,
    /// `go test -json`.
    GoJson,
    /// What pytest prints, with and without `-v` and xdist.
    Pytest,
    /// No test cases; percentages and `[3/10]` are progress.
    Plain,
}

/// One command that submitters may run by its suite's name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The program and its arguments; never a shell's command line.
    pub command: Vec<String>,
    /// Where it runs; the server's own directory if absent. The loader makes it absolute.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Environment variables on top of the server's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How its output is to be read.
    #[serde(default)]
    pub format: Format,
    /// The longest time that an attempt may take, such as `30m`.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// Environment variables that a submitter may set, and their allowed values.
    #[serde(default)]
    pub params: BTreeMap<String, Vec<String>>,
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
    #[error("`params`: `{name}` allows no value: list the allowed ones, or leave it out")]
    NoValues {
        /// The parameter.
        name: String,
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
        for (name, values) in &self.params {
            if values.is_empty() {
                return Err(InvalidSuite::NoValues { name: name.clone() });
            }
            for value in values {
                variable("params", name, value)?;
            }
        }
        if self.timeout.is_some_and(|t| t.is_zero()) {
            return Err(InvalidSuite::NoTime);
        }
        Ok(())
    }
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
    }
}

//! The formats of output that are known, by name.

use std::str::FromStr;

use serde::Deserialize;

use crate::config::nearest::did_you_mean;

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
    /// What `cargo nextest run` prints for people.
    Nextest,
    /// JSON lines of libtest: `cargo nextest run --message-format libtest-json-plus`.
    LibtestJson,
    /// `node --test --test-reporter=spec`.
    NodeSpec,
    /// What Jest prints, with and without `--verbose`.
    Jest,
    /// What Vitest prints, also with `--reporter=verbose`.
    Vitest,
    /// Playwright Test with the reporters `list`, `line` and `dot`.
    Playwright,
    /// The JSON reporters of Jest and Vitest, which print one document at the end.
    JestJson,
    /// `playwright test --reporter=json`, which prints one document at the end.
    PlaywrightJson,
    /// What k6 prints, also with `--out json=-`: its thresholds are the tests.
    K6,
    /// No test cases; percentages and `[3/10]` are progress.
    Plain,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Auto,
        Self::CargoTest,
        Self::Nextest,
        Self::LibtestJson,
        Self::GoJson,
        Self::Pytest,
        Self::Tap,
        Self::NodeSpec,
        Self::Jest,
        Self::Vitest,
        Self::Playwright,
        Self::JestJson,
        Self::PlaywrightJson,
        Self::K6,
        Self::Plain,
    ];

    /// The name in configurations and on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tap => "tap",
            Self::CargoTest => "cargo-test",
            Self::GoJson => "go-json",
            Self::Pytest => "pytest",
            Self::Nextest => "nextest",
            Self::LibtestJson => "libtest-json",
            Self::NodeSpec => "node-spec",
            Self::Jest => "jest",
            Self::Vitest => "vitest",
            Self::Playwright => "playwright",
            Self::JestJson => "jest-json",
            Self::PlaywrightJson => "playwright-json",
            Self::K6 => "k6",
            Self::Plain => "plain",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let hint = did_you_mean(name, Self::ALL.map(Self::name));
            let known = Self::ALL.map(Self::name).join(", ");
            format!("there is no format `{name}`{hint}; there are: {known}")
        })
    }
}

//! Parsers: what the lines of a test command's output say about its progress.
//!
//! Each understands one format and knows nothing of processes: lines go in, and the progress state changes.
//! They take whatever comes: numbers saturate, and what they remember is bounded. [`Detector`] finds the
//! format by itself.

mod cargo_test;
mod detect;
pub(crate) mod events;
mod go_json;
mod jest;
pub(crate) mod junit;
mod k6;
mod libtest_json;
mod nextest;
mod node_spec;
mod panic;
mod pattern;
mod plain;
mod playwright;
mod pytest;
pub(crate) mod report;
mod tap;
mod tap_line;
mod text;
mod vitest;

pub use detect::Detector;
pub use events::EVENTS_ENV;
pub use pattern::InvalidPattern;
pub(crate) use text::MAX_NAME_BYTES;
pub use text::{Tail, cut, plain_text};

use crate::config::suite::Format;
use crate::worker::progress::ProgressState;

/// How many running test cases are named at once.
const MAX_CURRENT: usize = 16;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether the command says that all is well.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Reads one format of output.
pub trait LineParser: Send + 'static {
    /// Takes the next line, without its end, and shows in `state` what it says. Each failed test case is in
    /// `state.counts.failed`, and the first ones in `state.failures`.
    fn line(&mut self, line: &str, state: &mut ProgressState);

    /// Takes note that no line follows: what was still open is settled, and nothing is current any more.
    fn finish(&mut self, exit: Exit, state: &mut ProgressState);
}

/// The parser for `format`.
#[must_use]
pub fn parser(format: Format) -> Box<dyn LineParser> {
    match format {
        Format::Auto => Box::new(Detector::new()),
        Format::Tap => Box::new(tap::Tap::default()),
        Format::CargoTest => Box::new(cargo_test::CargoTest::default()),
        Format::GoJson => Box::new(go_json::GoJson::default()),
        Format::Pytest => Box::new(pytest::Pytest::default()),
        Format::Nextest => Box::new(nextest::Nextest::default()),
        Format::LibtestJson => Box::new(libtest_json::LibtestJson::default()),
        Format::NodeSpec => Box::new(node_spec::NodeSpec::default()),
        Format::Jest => Box::new(jest::Jest::default()),
        Format::Vitest => Box::new(vitest::Vitest::default()),
        Format::Playwright => Box::new(playwright::Playwright::default()),
        Format::JestJson | Format::PlaywrightJson => Box::new(report::JsonReport::default()),
        Format::K6 => Box::new(k6::K6::default()),
        Format::Plain => Box::new(plain::Plain),
    }
}

/// A parser that reads plain lines by a regular expression with named groups: `pass`, `fail` and `skip` count a test with
/// its `name`, `ms` and `message`; `done`, `total` and `percent` are the progress.
///
/// # Errors
/// [`InvalidPattern`] says what is wrong with it.
pub fn by_pattern(pattern: &str) -> Result<Box<dyn LineParser>, InvalidPattern> {
    Ok(Box::new(pattern::Pattern::new(pattern)?))
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;

//! The `failures:` part of libtest's output: `---- name stdout ----` and what the test printed.

use super::super::panic::RustOutput;
use super::super::text::name;
use crate::model::test::{Failure, MAX_FAILURES};
use crate::worker::progress::ProgressState;

/// Reads the blocks of one test binary.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    inside: bool,
    // The test, and what it printed.
    block: Option<(String, RustOutput)>,
}

impl Blocks {
    /// Whether what failed is being told.
    pub(super) fn are_inside(&self) -> bool {
        self.inside
    }

    /// Takes a line; false if it does not belong here. Where failures were `named`, the title of another one is output.
    pub(super) fn line(&mut self, line: &str, named: bool, state: &mut ProgressState) -> bool {
        if line == "failures:" {
            self.finish(state);
            self.inside = true;
        } else if let Some(title) =
            self.inside.then(|| title(line)).flatten().filter(|title| !named || is_known(title, state))
        {
            self.finish(state);
            self.block = Some((name(title), RustOutput::default()));
        } else if let Some((_, output)) = &mut self.block {
            output.line(line);
        }
        self.inside
    }

    /// Adds the open block to the failure that it belongs to.
    pub(super) fn finish(&mut self, state: &mut ProgressState) {
        let Some((test, output)) = self.block.take() else { return };
        let (text, output) = output.into_parts();
        match state.failures.iter_mut().rev().find(|f| f.name == test) {
            Some(failure) => (failure.message, failure.output) = (text, output),
            // `--quiet` did not name it before; the binary's result counts it.
            None => state.note_failure(Failure { name: test, message: text, output, history: None }),
        }
    }
}

fn is_known(title: &str, state: &ProgressState) -> bool {
    let title = name(title);
    // Of many only the first ones are known by their names.
    state.failures.len() >= MAX_FAILURES || state.failures.iter().any(|failure| failure.name == title)
}

/// The test of `---- name stdout ----`.
fn title(line: &str) -> Option<&str> {
    let inner = line.strip_prefix("---- ")?.strip_suffix(" ----")?;
    inner.strip_suffix(" stdout").or_else(|| inner.strip_suffix(" stderr"))
}

//! The `failures:` part of libtest's output: `---- name stdout ----` and what the test printed.

use super::super::text::{Tail, message, name};
use crate::model::test::Failure;
use crate::worker::progress::ProgressState;

/// One test's block.
#[derive(Debug)]
struct Block {
    name: String,
    message: Message,
    output: Tail,
    in_backtrace: bool,
}

/// The line of a block that says best why the test failed.
#[derive(Debug)]
enum Message {
    // Only the first line so far.
    First(Option<String>),
    // The next line is a panic's message.
    Next,
    Found(String),
}

/// Reads the blocks of one test binary.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    inside: bool,
    block: Option<Block>,
}

impl Blocks {
    /// Takes a line; false if it does not belong here.
    pub(super) fn line(&mut self, line: &str, state: &mut ProgressState) -> bool {
        if line == "failures:" {
            self.finish(state);
            self.inside = true;
        } else if let Some(title) = self.inside.then(|| title(line)).flatten() {
            self.finish(state);
            self.block = Some(Block {
                name: name(title),
                message: Message::First(None),
                output: Tail::default(),
                in_backtrace: false,
            });
        } else if let Some(block) = &mut self.block {
            block.line(line);
        }
        self.inside
    }

    /// Adds the open block to the failure that it belongs to.
    pub(super) fn finish(&mut self, state: &mut ProgressState) {
        let Some(block) = self.block.take() else { return };
        let text = match block.message {
            Message::Found(text) | Message::First(Some(text)) => text,
            Message::First(None) | Message::Next => String::new(),
        };
        let output = block.output.text();
        match state.failures.iter_mut().rev().find(|f| f.name == block.name) {
            Some(failure) => (failure.message, failure.output) = (text, output),
            // `--quiet` did not name it before; the binary's result counts it.
            None => state.note_failure(Failure { name: block.name, message: text, output }),
        }
    }
}

impl Block {
    fn line(&mut self, line: &str) {
        // A backtrace would push what the test printed out of the tail.
        self.in_backtrace = match line {
            "stack backtrace:" => true,
            _ => self.in_backtrace && !line.is_empty() && !line.starts_with("note:"),
        };
        if self.in_backtrace {
            return;
        }
        self.output.line(line);
        match &self.message {
            Message::Next if !line.trim().is_empty() => self.message = Message::Found(message(line)),
            Message::First(first) => {
                let panicked = line.starts_with("thread '") && line.contains("panicked at ");
                if panicked && line.ends_with(':') {
                    self.message = Message::Next;
                } else if panicked || line.starts_with("Error: ") {
                    self.message = Message::Found(message(line));
                } else if first.is_none() && !line.trim().is_empty() {
                    self.message = Message::First(Some(message(line)));
                }
            }
            Message::Next | Message::Found(_) => {}
        }
    }
}

/// The test of `---- name stdout ----`.
fn title(line: &str) -> Option<&str> {
    let inner = line.strip_prefix("---- ")?.strip_suffix(" ----")?;
    inner.strip_suffix(" stdout").or_else(|| inner.strip_suffix(" stderr"))
}

//! What a Rust test printed: the line that says best why it failed, and the end of the rest.

use super::text::{Tail, message};

/// The output of one failed test, line by line.
#[derive(Debug, Default)]
pub(super) struct RustOutput {
    message: Message,
    output: Tail,
    in_backtrace: bool,
}

/// The line that says best why the test failed.
#[derive(Debug)]
enum Message {
    // Only the first line so far.
    First(Option<String>),
    // The next line is a panic's message.
    Next,
    Found(String),
}

impl Default for Message {
    fn default() -> Self {
        Self::First(None)
    }
}

impl RustOutput {
    /// Takes the next line.
    pub(super) fn line(&mut self, line: &str) {
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

    /// The message, and the output.
    pub(super) fn into_parts(self) -> (String, Option<String>) {
        let text = match self.message {
            Message::Found(text) | Message::First(Some(text)) => text,
            Message::First(None) | Message::Next => String::new(),
        };
        (text, self.output.text())
    }
}

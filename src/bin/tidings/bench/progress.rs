//! Progress on a terminal; nothing where nobody looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that fills with the measured time.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// Draws on standard error, if that is a terminal.
    pub(super) fn new(duration: Duration) -> Self {
        let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {msg}") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self { bar }
    }

    /// What goes on, and how much of the time has passed.
    pub(super) fn show(&self, text: &str, at: Duration) {
        self.bar.set_position(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_message(text.to_owned());
    }

    /// Prints a line above the bar.
    pub(super) fn above(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What goes on, where nobody knows how long it takes.
#[derive(Debug)]
pub(super) struct Spinner {
    bar: ProgressBar,
}

impl Spinner {
    /// Draws on standard error, if that is a terminal.
    pub(super) fn new() -> Self {
        Self { bar: ProgressBar::new_spinner() }
    }

    pub(super) fn show(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.tick();
    }

    /// Prints a line above it.
    pub(super) fn above(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

//! Mistakes in `channels.toml`, with the place where each one stands.

use std::fmt;
use std::io;

use crate::config::place::line_and_column;

/// Why no rules could be made of a file.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// Which file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file has mistakes: all of them, in the order of their lines. `Display` prints one line for each,
    /// `file:line:column: message`.
    #[error("{}", Listing { file, diagnostics })]
    Mistakes {
        /// Which file.
        file: String,
        /// What is wrong with it; never empty.
        diagnostics: Vec<Diagnostic>,
    },
}

impl RulesError {
    /// The mistakes in the text; empty if the file could not be read.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Read { .. } => &[],
            Self::Mistakes { diagnostics, .. } => diagnostics,
        }
    }
}

/// One mistake and its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

struct Listing<'a> {
    file: &'a str,
    diagnostics: &'a [Diagnostic],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.diagnostics.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{diagnostic}", self.file)?;
        }
        Ok(())
    }
}

/// Collects mistakes by their byte offset in a text.
pub(super) struct Mistakes<'a> {
    text: &'a str,
    found: Vec<(usize, String)>,
    /// The lines that are not TOML.
    broken: Vec<usize>,
}

impl<'a> Mistakes<'a> {
    /// Starts with the syntax errors that the parser found in `text`.
    pub(super) fn new(text: &'a str, syntax: &[toml::de::Error]) -> Self {
        let mut mistakes = Self { text, found: Vec::new(), broken: Vec::new() };
        let mut errors: Vec<_> =
            syntax.iter().map(|error| (error.span().map_or(0, |span| span.start), error.message())).collect();
        errors.sort_unstable();
        for (at, message) in errors {
            mistakes.add(at, message);
            mistakes.broken.push(mistakes.line(at));
        }
        mistakes
    }

    /// Notes that the text at byte `at` is wrong, unless its line is no TOML anyway: there the first error tells
    /// all, and what follows from it would only confuse.
    pub(super) fn add(&mut self, at: usize, message: impl Into<String>) {
        if !self.broken.contains(&self.line(at)) {
            self.found.push((at, message.into()));
        }
    }

    /// Notes something that is only certain if the whole text could be read: what seems to be missing or out of
    /// place may stand in, or after, a line that could not.
    pub(super) fn add_if_whole(&mut self, at: usize, message: impl Into<String>) {
        if self.broken.is_empty() {
            self.add(at, message);
        }
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The line of byte `at`, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        line_and_column(self.text, at).0
    }

    /// All mistakes in the order of their places, each once.
    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut diagnostics: Vec<_> = self
            .found
            .iter()
            .map(|(at, message)| {
                let (line, column) = line_and_column(self.text, *at);
                Diagnostic { line, column, message: message.clone() }
            })
            .collect();
        diagnostics.sort();
        diagnostics.dedup();
        diagnostics
    }
}

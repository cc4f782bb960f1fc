//! Where the lines of a command go: to the parser, which changes the progress, and to the log, within its budget.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::budget::{Budget, LeftOut};
use super::lines::{End, Line};
use crate::config::suite::OutputLimits;
use crate::model::test::EtaMs;
use crate::worker::progress::Progress;
use crate::worker::progress::ProgressState;
use crate::worker::runner::parse::events::{Events, is_event};
use crate::worker::runner::parse::{Exit, LineParser, Tail, cut, plain_text};

/// How many lines a message quotes, and how many bytes of each.
const MAX_LAST_LINES: usize = 3;
const MAX_LAST_LINE_BYTES: usize = 300;

/// The end of what was printed.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    pub(crate) tail: Tail,
    pub(crate) last_lines: VecDeque<String>,
    /// What the log does not have of it.
    pub(crate) left_out: LeftOut,
}

/// Takes the lines of both pipes as they come.
pub(crate) struct Feed {
    parser: Box<dyn LineParser>,
    // What the runner tells beside its output; once it does, the output is for people only.
    told: Option<Events>,
    progress: Progress,
    budget: Budget,
    printed: Printed,
    started: Instant,
}

impl Feed {
    /// One for a command that begins now.
    pub(crate) fn new(parser: Box<dyn LineParser>, limits: OutputLimits, progress: Progress) -> Self {
        Self {
            parser,
            told: None,
            progress,
            budget: Budget::new(limits),
            printed: Printed::default(),
            started: Instant::now(),
        }
    }

    /// Takes the next lines.
    pub(crate) fn lines(&mut self, lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        let elapsed = self.started.elapsed().as_secs_f64();
        self.progress.update(|state| {
            for line in lines.iter().filter(|_| self.told.is_none()) {
                self.parser.line(&plain_text(&line.text), state);
            }
            state.eta_ms = eta(elapsed, state.progress);
        });
        for Line { text, end, cut } in lines {
            // A log of every step of a progress bar helps nobody.
            if end == End::Newline {
                let text = plain_text(&text);
                self.budget.line(&text, cut, |line| self.progress.log(line));
                self.printed.note(&text);
            }
        }
    }

    /// Takes what the runner tells beside its output.
    pub(crate) fn told(&mut self, lines: &[Line]) {
        let elapsed = self.started.elapsed().as_secs_f64();
        self.progress.update(|state| {
            for Line { text, .. } in lines {
                if self.told.is_none() && is_event(text) {
                    self.told = Some(Events::default());
                    // What the output seemed to say is told exactly from now on.
                    *state = ProgressState::default();
                }
                if let Some(told) = &mut self.told {
                    told.line(text, state);
                }
            }
            state.eta_ms = eta(elapsed, state.progress);
        });
    }

    /// Settles what is open: no line follows.
    pub(crate) fn finish(mut self, exit: Exit) -> Printed {
        self.progress.update(|state| {
            match &mut self.told {
                Some(told) => told.finish(exit, state),
                None => self.parser.finish(exit, state),
            }
            state.eta_ms = None;
        });
        self.printed.left_out = self.budget.finish(|line| self.progress.log(line));
        self.printed
    }
}

impl Printed {
    fn note(&mut self, line: &str) {
        self.tail.line(line);
        if !line.trim().is_empty() {
            if self.last_lines.len() == MAX_LAST_LINES {
                self.last_lines.pop_front();
            }
            self.last_lines.push_back(cut(line.trim(), MAX_LAST_LINE_BYTES).to_owned());
        }
    }
}

/// The rest of the time if the tests go on as fast as so far, give or take what such guesses are worth.
fn eta(elapsed_s: f64, progress: f64) -> Option<EtaMs> {
    if !(1.0..100.0).contains(&progress) {
        return None;
    }
    let rest_ms = elapsed_s * 1000.0 * (100.0 - progress) / progress;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither negative nor large")]
    let ms = |factor: f64| (rest_ms * factor) as u64;
    Some(EtaMs { low: ms(0.7), high: ms(1.5) })
}

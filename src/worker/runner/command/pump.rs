//! Reads what a command prints, as it comes, and passes it on to the log and the parser.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::time::Instant;

use super::budget::{Budget, LeftOut};
use super::lines::{End, Line, Lines};
use crate::config::suite::Suite;
use crate::model::test::EtaMs;
use crate::worker::progress::Progress;
use crate::worker::runner::parse::{Exit, LineParser, Tail, cut, parser, plain_text};

const BUFFER: usize = 32 * 1024;
/// How many lines a message quotes, and how many bytes of each.
const MAX_LAST_LINES: usize = 3;
const MAX_LAST_LINE_BYTES: usize = 300;

/// One of the two pipes.
struct Stream<R> {
    pipe: Option<R>,
    buffer: Box<[u8]>,
    lines: Lines,
}

impl<R: AsyncRead + Unpin> Stream<R> {
    fn new(pipe: Option<R>) -> Self {
        Self { pipe, buffer: vec![0; BUFFER].into_boxed_slice(), lines: Lines::default() }
    }

    /// The lines that the next bytes finish; waits for ever once the pipe is closed. May be given up at any
    /// time without losing bytes.
    async fn read(&mut self) -> Vec<Line> {
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        // An error of a pipe is its end, as far as we are concerned.
        let n = pipe.read(&mut self.buffer).await.unwrap_or(0);
        let mut found = Vec::new();
        self.lines.push(&self.buffer[..n], |line| found.push(line));
        if n == 0 {
            self.pipe = None;
            found.extend(self.rest());
        }
        found
    }

    fn rest(&mut self) -> Option<Line> {
        let mut rest = None;
        self.lines.finish(|line| rest = Some(line));
        rest
    }
}

/// The end of what was printed.
#[derive(Debug, Default)]
pub(super) struct Printed {
    pub(super) tail: Tail,
    pub(super) last_lines: VecDeque<String>,
    /// What the log does not have of it.
    pub(super) left_out: LeftOut,
}

/// Both pipes, and where their lines go.
pub(super) struct Pump {
    stdout: Stream<ChildStdout>,
    stderr: Stream<ChildStderr>,
    parser: Box<dyn LineParser>,
    progress: Progress,
    budget: Budget,
    printed: Printed,
    started: Instant,
}

impl Pump {
    pub(super) fn new(
        (stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>),
        suite: &Suite,
        progress: Progress,
    ) -> Self {
        Self {
            stdout: Stream::new(stdout),
            stderr: Stream::new(stderr),
            parser: parser(suite.format),
            progress,
            budget: Budget::new(suite.output),
            printed: Printed::default(),
            started: Instant::now(),
        }
    }

    /// Whether somebody may still write.
    pub(super) fn is_open(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }

    /// Reads once; may be given up at any time.
    pub(super) async fn step(&mut self) {
        let lines = tokio::select! {
            lines = self.stdout.read() => lines,
            lines = self.stderr.read() => lines,
        };
        self.pass_on(lines);
    }

    /// Reads until nobody can write any more; may be given up at any time.
    pub(super) async fn drain(&mut self) {
        while self.is_open() {
            self.step().await;
        }
    }

    /// Settles what is open: no line follows.
    pub(super) fn finish(mut self, exit: Exit) -> Printed {
        let rest = [self.stdout.rest(), self.stderr.rest()];
        self.pass_on(rest.into_iter().flatten().collect());
        self.progress.update(|state| {
            self.parser.finish(exit, state);
            state.eta_ms = None;
        });
        self.printed.left_out = self.budget.finish(|line| self.progress.log(line));
        self.printed
    }

    fn pass_on(&mut self, lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        let elapsed = self.started.elapsed().as_secs_f64();
        self.progress.update(|state| {
            for line in &lines {
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

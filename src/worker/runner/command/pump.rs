//! Reads what a command prints, as it comes, and passes it on to its feed.

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{ChildStderr, ChildStdout};

use super::feed::{Feed, Printed};
use super::lines::{Line, Lines};
use crate::config::suite::Suite;
use crate::worker::progress::Progress;
use crate::worker::runner::parse::{Exit, parser};

const BUFFER: usize = 32 * 1024;

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

/// Both pipes, and where their lines go.
pub(super) struct Pump {
    stdout: Stream<ChildStdout>,
    stderr: Stream<ChildStderr>,
    feed: Feed,
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
            feed: Feed::new(parser(suite.format), suite.output, progress),
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
        self.feed.lines(lines);
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
        self.feed.lines(rest.into_iter().flatten().collect());
        self.feed.finish(exit)
    }
}

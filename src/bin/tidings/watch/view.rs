//! The view of `tidings watch` on a terminal: draws the board, and listens to keys.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use console::{Key, Term};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::Value;
use tidings::client::room::Since;
use tidings::client::{ClientError, HttpClient};
use tokio::sync::mpsc;

use super::board::Board;
use crate::Failure;
use crate::client::Address;
use crate::follow::{Aside, Follower, News};
use crate::signals::StopSignals;

/// The screen is drawn at most so often.
const DRAW: Duration = Duration::from_millis(200);
/// The pause before the list of tests is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the board is told.
enum Told {
    News(News),
    /// The tests that run.
    Running(Value),
}

type Following = Aside<Result<Told, ClientError>>;

/// Shows running tests until somebody has seen enough.
pub(super) async fn view(server: &Address, test: Option<&str>) -> Result<ExitCode, Failure> {
    let term = Term::stdout();
    let mut board = Board::default();
    if let Some(test) = test {
        board.choose(test);
    }
    let mut signals = StopSignals::listen()?;
    let _as_it_was = AsItWas::save();
    let mut keys = keys(&term)?;
    let follower = server.follower(vec!["test-updates".to_owned()], Since::Now);
    let http = server.http()?;
    let mut all: Following = Aside::start("tests", |tell| follow(follower, Some(http), tell));
    let mut output: Option<(String, Following)> = None;
    let mut ticks = tokio::time::interval(DRAW);
    let mut drawn = Vec::new();
    loop {
        if board.chosen() != output.as_ref().map(|(test, _)| test.as_str()) {
            output = board.chosen().map(|test| {
                let follower = server.follower(vec![format!("test-progress-{test}")], Since::Start);
                (test.to_owned(), Aside::start("output", |tell| follow(follower, None, tell)))
            });
        }
        tokio::select! {
            Some(told) = all.next() => hear(&mut board, told?),
            Some(told) = next(&mut output) => hear(&mut board, told?),
            key = keys.recv() => match key {
                Some(Key::ArrowDown) => board.step(true),
                Some(Key::ArrowUp) => board.step(false),
                Some(key) if is_enough(&key) => break,
                // Nobody can press one any more; Ctrl-C still ends it.
                None => keys = mpsc::channel(1).1,
                _ => {}
            },
            () = signals.next() => break,
            _ = ticks.tick() => draw(&term, &board, &mut drawn)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn next(output: &mut Option<(String, Following)>) -> Option<Result<Told, ClientError>> {
    match output {
        Some((_, following)) => following.next().await,
        None => std::future::pending().await,
    }
}

/// Tells what a follower hears, and through `http` which tests run: once it listens, so that none is missed between, and
/// again where what it hears does not continue what came before.
async fn follow(
    mut follower: Follower,
    http: Option<HttpClient>,
    tell: mpsc::Sender<Result<Told, ClientError>>,
) {
    loop {
        let news = follower.next().await;
        let is_new = matches!(news, Ok(News::Joined(_) | News::Reset(_)));
        let is_over = news.is_err();
        if tell.send(news.map(Told::News)).await.is_err() || is_over {
            return;
        }
        let Some(http) = http.as_ref().filter(|_| is_new) else { continue };
        loop {
            let (told, has_list) = match http.get("/api/v1/tests?state=running").await {
                Ok(list) => (Ok(Told::Running(list)), true),
                Err(error @ ClientError::Problem { status: ..=428 | 430..=499, .. }) => (Err(error), false),
                Err(error) => (Ok(Told::News(News::Lost(error))), false),
            };
            let is_over = told.is_err();
            if tell.send(told).await.is_err() || is_over {
                return;
            }
            if has_list {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn hear(board: &mut Board, told: Told) {
    match told {
        Told::News(News::Message(message)) => board.hear(&message),
        Told::News(News::Joined(_)) => board.trouble(None),
        Told::News(News::Lost(error)) => board.trouble(Some(error.to_string())),
        Told::News(News::Reset(_)) => {}
        Told::Running(tests) => {
            board.trouble(None);
            board.begin(&tests);
        }
    }
}

/// Whether whoever pressed it has seen enough.
fn is_enough(key: &Key) -> bool {
    matches!(key, Key::Char('q') | Key::Escape | Key::CtrlC)
}

/// The terminal as it was before keys were read one by one; so it is again when this is dropped.
struct AsItWas(Option<(OwnedFd, Termios)>);

impl AsItWas {
    /// Of standard input, or of the terminal that keys are read from where that is none.
    fn save() -> Self {
        let stdin = rustix::io::dup(io::stdin()).ok();
        let of = |terminal: OwnedFd| tcgetattr(&terminal).ok().map(|was| (terminal, was));
        let terminal =
            || std::fs::File::options().read(true).write(true).open("/dev/tty").ok().map(OwnedFd::from);
        Self(stdin.and_then(of).or_else(|| terminal().and_then(of)))
    }
}

impl Drop for AsItWas {
    fn drop(&mut self) {
        if let Some((terminal, was)) = &self.0 {
            // Without draining: a terminal that takes no output would hold the end up.
            let _ = tcsetattr(terminal, OptionalActions::Now, was);
        }
        let _ = Term::stdout().show_cursor();
    }
}

/// Draws what changed, over what was drawn before.
fn draw(term: &Term, board: &Board, drawn: &mut Vec<String>) -> io::Result<()> {
    let (height, width) = term.size();
    let lines = board.lines(usize::from(width).saturating_sub(1), usize::from(height).saturating_sub(1));
    if lines == *drawn {
        return Ok(());
    }
    term.clear_last_lines(rows(drawn, usize::from(width)).min(usize::from(height).saturating_sub(1)))?;
    lines.iter().try_for_each(|line| term.write_line(line))?;
    *drawn = lines;
    Ok(())
}

/// How many rows these lines take where a terminal that has become narrower breaks them.
fn rows(lines: &[String], width: usize) -> usize {
    lines.iter().map(|line| line.chars().count().div_ceil(width.max(1)).max(1)).sum()
}

/// The keys that are pressed, read by a thread, because reading one waits.
fn keys(term: &Term) -> io::Result<mpsc::Receiver<Key>> {
    let (press, pressed) = mpsc::channel(16);
    let term = term.clone();
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(key) = term.read_key() {
            // Another one would leave the terminal raw behind whoever restores it.
            let is_last = is_enough(&key);
            if press.blocking_send(key).is_err() || is_last {
                break;
            }
        }
    })?;
    Ok(pressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_a_narrower_terminal_breaks_take_more_rows() {
        let lines = ["".to_owned(), "x".repeat(40), "x".repeat(41), "x".repeat(99)];
        assert_eq!((rows(&lines, 100), rows(&lines, 40), rows(&[], 40)), (4, 7, 0));
    }
}

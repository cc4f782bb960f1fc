//! The view of `tidings watch` on a terminal: draws the board, and listens to keys.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use console::{Key, Term};
use serde_json::Value;
use tidings::client::room::Since;
use tokio::sync::mpsc;

use super::board::Board;
use crate::Failure;
use crate::client::Address;
use crate::follow::{Follower, News};
use crate::signals::StopSignals;

/// The screen is drawn at most so often.
const DRAW: Duration = Duration::from_millis(200);

/// Shows running tests until somebody has seen enough.
pub(super) async fn view(server: &Address, test: Option<&str>) -> Result<ExitCode, Failure> {
    let term = Term::stdout();
    let mut board = Board::default();
    board.begin(&server.http()?.get::<Value>("/api/v1/tests?state=running").await?);
    if let Some(test) = test {
        board.choose(test);
    }
    let mut signals = StopSignals::listen()?;
    let mut keys = keys(&term)?;
    let mut all = server.follower(vec!["test-updates".to_owned()], Since::Now);
    let mut output: Option<(String, Follower)> = None;
    let mut ticks = tokio::time::interval(DRAW);
    let mut drawn = Vec::new();
    loop {
        if board.chosen() != output.as_ref().map(|(test, _)| test.as_str()) {
            output = board.chosen().map(|test| {
                let room = format!("test-progress-{test}");
                (test.to_owned(), server.follower(vec![room], Since::Start))
            });
        }
        tokio::select! {
            news = all.next() => hear(&mut board, news?),
            news = next(&mut output) => hear(&mut board, news?),
            key = keys.recv() => match key {
                Some(Key::ArrowDown) => board.step(true),
                Some(Key::ArrowUp) => board.step(false),
                Some(Key::Char('q') | Key::Escape) => break,
                // Nobody can press one any more; Ctrl-C still ends it.
                None => keys = mpsc::channel(1).1,
                _ => {}
            },
            () = signals.next() => break,
            _ = ticks.tick() => draw(&term, &board, &mut drawn)?,
        }
    }
    term.show_cursor()?;
    Ok(ExitCode::SUCCESS)
}

async fn next(output: &mut Option<(String, Follower)>) -> Result<News, tidings::client::ClientError> {
    match output {
        Some((_, follower)) => follower.next().await,
        None => std::future::pending().await,
    }
}

fn hear(board: &mut Board, news: News) {
    match news {
        News::Message(message) => board.hear(&message),
        News::Joined(_) => board.trouble(None),
        News::Lost(error) => board.trouble(Some(error.to_string())),
        News::Reset(_) => {}
    }
}

/// Draws what changed, over what was drawn before.
fn draw(term: &Term, board: &Board, drawn: &mut Vec<String>) -> io::Result<()> {
    let (height, width) = term.size();
    let lines = board.lines(usize::from(width).saturating_sub(1), usize::from(height).saturating_sub(1));
    if lines == *drawn {
        return Ok(());
    }
    term.clear_last_lines(drawn.len())?;
    lines.iter().try_for_each(|line| term.write_line(line))?;
    *drawn = lines;
    Ok(())
}

/// The keys that are pressed, read by a thread, because reading one waits.
fn keys(term: &Term) -> io::Result<mpsc::Receiver<Key>> {
    let (press, pressed) = mpsc::channel(16);
    let term = term.clone();
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(key) = term.read_key() {
            if key == Key::CtrlC || press.blocking_send(key).is_err() {
                break;
            }
        }
    })?;
    Ok(pressed)
}

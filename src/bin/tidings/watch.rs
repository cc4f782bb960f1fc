//! `tidings watch`: running tests on a terminal, messages as lines, or a prompt.

mod board;
mod prompt;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use tidings::client::room::Since;
use tidings::model::{Message, TestId};

use crate::Failure;
use crate::client::{Server, print_line};
use crate::follow::News;
use crate::plain::plain;
use crate::signals::StopSignals;

/// What is followed where nobody names a room.
const ROOMS: [&str; 2] = ["queue-updates", "test-updates"];

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rooms whose messages are printed as they come, e.g. queue-updates or test-progress-nightly. Without one a
    /// terminal shows the tests that run; elsewhere the news of all jobs and tests are printed.
    #[arg(value_name = "ROOM")]
    rooms: Vec<String>,
    /// Show the output of this test.
    #[arg(long, value_name = "ID", value_parser = TestId::parse, conflicts_with_all = ["rooms", "interactive"])]
    test: Option<TestId>,
    /// Begin with everything that history has.
    #[arg(long)]
    from_start: bool,
    /// Open a prompt: join, leave, publish, ping, history, who.
    #[arg(short, long, conflicts_with = "json")]
    interactive: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let Args { mut rooms, test, from_start, interactive, server } = args;
    let since = if from_start { Since::Start } else { Since::Now };
    if interactive {
        return prompt::prompt(&server.address, rooms, since).await;
    }
    let is_plain = server.json || !rooms.is_empty() || from_start || !std::io::stdout().is_terminal();
    if !is_plain {
        return view::view(&server.address, test.as_ref().map(TestId::as_str)).await;
    }
    match test {
        Some(test) => rooms.push(format!("test-progress-{test}")),
        None if rooms.is_empty() => rooms.extend(ROOMS.map(str::to_owned)),
        None => {}
    }
    lines(&server, rooms, since).await
}

/// Prints every message as it comes.
async fn lines(server: &Server, rooms: Vec<String>, since: Since) -> Result<ExitCode, Failure> {
    let mut signals = StopSignals::listen()?;
    let mut follower = server.address.follower(rooms, since);
    loop {
        let news = tokio::select! {
            news = follower.next() => news?,
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        match news {
            News::Message(message) if server.json => print_line(plain(&serde_json::to_string(&message)?))?,
            News::Message(message) => print_line(line(&message))?,
            News::Joined(joined) => eprintln!("joined {} at {}:{}", joined.room, joined.epoch, joined.offset),
            News::Reset(reset) => {
                eprintln!("what follows does not continue what came before: {}", plain(&reset.to_string()));
            }
            News::Lost(error) => eprintln!("{}; trying again", plain(&error.to_string())),
        }
    }
}

/// A message for people.
fn line(message: &Message) -> String {
    let Message { channel, epoch, offset, event, data, .. } = message;
    plain(&format!("{channel} {epoch}:{offset} {event} {data}")).into_owned()
}

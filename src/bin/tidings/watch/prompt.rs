//! The prompt of `tidings watch -i`: messages come in above the line that is being typed.

use std::process::ExitCode;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Context, Editor, ExternalPrinter, Helper, Highlighter, Hinter, Validator};
use serde_json::{Value, json};
use tidings::client::HttpClient;
use tidings::client::room::Since;
use tokio::sync::{mpsc, oneshot};

use super::line;
use crate::Failure;
use crate::client::{Address, print_line, text};
use crate::follow::{Follower, News};
use crate::plain::plain;

const HELP: &str = "\
join ROOM [start]             follow a room, from now on or from the beginning of its history
leave ROOM                    follow it no more
publish CHANNEL EVENT [JSON]  publish a message, e.g. publish test-progress-x custom:note {\"a\":1}
history CHANNEL [N]           print its newest messages (10)
who [ROOM]                    who is in a room, or online at all
ping                          how long the server takes to answer
help                          this
quit                          the end; Ctrl-D, too";

/// Each with the arguments that can be completed by a room.
const COMMANDS: [&str; 8] = ["join", "leave", "publish", "history", "who", "ping", "help", "quit"];
/// Rooms that every server has.
const ROOMS: [&str; 6] = [
    "queue-updates",
    "test-updates",
    "test-history-updates",
    "system-alerts",
    "test-progress-",
    "job-status-",
];
const MAX_HISTORY: u64 = 1000;

/// What was typed; the answer says that the next line may be asked for.
type Typed = (String, oneshot::Sender<()>);
type Print = Box<dyn FnMut(String) + Send>;

/// Runs the prompt until its user has enough.
pub(super) async fn prompt(server: &Address, rooms: Vec<String>, since: Since) -> Result<ExitCode, Failure> {
    let mut editor: Editor<Words, DefaultHistory> = Editor::new()?;
    editor.set_helper(Some(Words));
    // Where standard input is no terminal, there is no line to print above.
    let mut print: Print = match editor.create_external_printer() {
        Ok(mut printer) => Box::new(move |text| drop(printer.print(format!("{}\n", plain(&text))))),
        Err(_) => Box::new(|text| drop(print_line(plain(&text)))),
    };
    let (tell, mut typed) = mpsc::channel::<Typed>(1);
    std::thread::Builder::new().name("prompt".to_owned()).spawn(move || read(editor, &tell))?;
    let mut talk = Talk { http: server.http()?, follower: server.follower(rooms, since) };
    print(format!("talking to {}; `help` lists what there is", talk.http.url()));
    loop {
        tokio::select! {
            news = talk.follower.next() => print(told(news?)),
            line = typed.recv() => {
                let Some((line, next)) = line else { return Ok(ExitCode::SUCCESS) };
                if matches!(line.trim(), "quit" | "exit") {
                    return Ok(ExitCode::SUCCESS);
                }
                let answer = talk.obey(line.trim()).await.unwrap_or_else(|error| format!("{error:#}"));
                if !answer.is_empty() {
                    print(answer);
                }
                let _ = next.send(());
            }
        }
    }
}

/// Reads lines until the end of input; Ctrl-C only forgets the line.
fn read(mut editor: Editor<Words, DefaultHistory>, tell: &mpsc::Sender<Typed>) {
    loop {
        match editor.readline("tidings> ") {
            Ok(line) => {
                let _ = editor.add_history_entry(line.as_str());
                let (next, may_go_on) = oneshot::channel();
                if tell.blocking_send((line, next)).is_err() || may_go_on.blocking_recv().is_err() {
                    return;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(_) => return,
        }
    }
}

fn told(news: News) -> String {
    match news {
        News::Message(message) => line(&message),
        News::Joined(joined) => format!("joined {} at {}:{}", joined.room, joined.epoch, joined.offset),
        News::Reset(reset) => format!("what follows does not continue what came before: {reset}"),
        News::Lost(error) => format!("{error}; trying again"),
    }
}

struct Talk {
    http: HttpClient,
    follower: Follower,
}

impl Talk {
    /// Does what a line says; what there is to say about it.
    async fn obey(&mut self, line: &str) -> anyhow::Result<String> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let (first, second) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match command {
            "" => Ok(String::new()),
            "help" => Ok(HELP.to_owned()),
            "join" if !first.is_empty() => {
                let since = if second.trim() == "start" { Since::Start } else { Since::Now };
                self.follower.join(first, since).await?;
                Ok(String::new())
            }
            "leave" if !first.is_empty() => Ok(match self.follower.leave(first).await? {
                true => format!("left {first}"),
                false => format!("not in {first}; in: {}", self.follower.rooms().join(", ")),
            }),
            "publish" if !second.is_empty() => self.publish(first, second.trim()).await,
            "history" if !first.is_empty() => self.history(first, second.trim()).await,
            "who" => self.who(first).await,
            "ping" => Ok(match self.follower.ping().await? {
                Some(took) => format!("answered in {:.1} ms", took.as_secs_f64() * 1000.0),
                None => "there is no connection".to_owned(),
            }),
            command if COMMANDS.contains(&command) => {
                let usage = HELP.lines().find(|line| line.starts_with(command)).unwrap_or_default();
                Ok(format!("something is missing: {usage}"))
            }
            command => Ok(format!("there is no `{command}`; there are: {}", COMMANDS.join(", "))),
        }
    }

    async fn publish(&self, channel: &str, rest: &str) -> anyhow::Result<String> {
        let (event, data) = rest.split_once(char::is_whitespace).unwrap_or((rest, "{}"));
        let data: Value = serde_json::from_str(data)?;
        let message = json!({ "channel": channel, "event": event, "data": data });
        let answer: Value = self.http.post("/api/v1/events", &message).await?;
        Ok(format!("{} is {}:{}", text(&answer, "id"), text(&answer, "epoch"), answer["offset"]))
    }

    async fn history(&self, channel: &str, count: &str) -> anyhow::Result<String> {
        let count: u64 = if count.is_empty() { 10 } else { count.parse()? };
        let count = count.clamp(1, MAX_HISTORY);
        let path = format!("/api/v1/channels/{channel}/messages");
        let first: Value = self.http.get(&format!("{path}?limit=1")).await?;
        let after = first["top"].as_u64().unwrap_or(0).saturating_sub(count);
        let page: Value = self.http.get(&format!("{path}?offset={after}&limit={count}")).await?;
        let messages = page["messages"].as_array().into_iter().flatten();
        let lines =
            messages.filter_map(|message| serde_json::from_value(message.clone()).ok()).map(|m| line(&m));
        let lines: Vec<String> = lines.collect();
        Ok(if lines.is_empty() { format!("{channel} is empty") } else { lines.join("\n") })
    }

    async fn who(&self, room: &str) -> anyhow::Result<String> {
        let path = match room {
            "" => "/api/v1/users/online".to_owned(),
            room => format!("/api/v1/channels/{room}/presence"),
        };
        Ok(serde_json::to_string_pretty(&self.http.get::<Value>(&path).await?)?)
    }
}

/// Completes commands and rooms.
#[derive(Helper, Highlighter, Hinter, Validator)]
struct Words;

impl Completer for Words {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(completed(&line[..at]))
    }
}

fn completed(line: &str) -> (usize, Vec<Pair>) {
    let begin = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let words: &[&str] = if begin == 0 { &COMMANDS } else { &ROOMS };
    let fitting = words.iter().filter(|word| word.starts_with(&line[begin..]));
    let pair = |word: &&str| Pair { display: (*word).to_owned(), replacement: (*word).to_owned() };
    (begin, fitting.map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_rooms_are_completed() {
        let words = |line| {
            let (at, pairs) = completed(line);
            (at, pairs.into_iter().map(|pair| pair.replacement).collect::<Vec<_>>())
        };
        assert_eq!(words("pi"), (0, vec!["ping".to_owned()]));
        assert_eq!(words("join que"), (5, vec!["queue-updates".to_owned()]));
        assert_eq!(words("").1.len(), COMMANDS.len());
        assert_eq!(words("join x").1.len(), 0);
    }
}

//! Hostile inputs: what nobody means well with, byte by byte, against a running server.
//!
//! Each row of the tables below is an attack and the answer that `docs/protocol.md` promises. All the while a good
//! client is connected that has to notice nothing, and in the end the server has to be as large as it was.

#![expect(clippy::too_many_lines, reason = "the tables of attacks are functions, with a row for each")]

mod engine;
mod frames;
mod http;
mod packets;
mod raw;
mod tokens;
mod values;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use tokio::sync::watch;

use super::swarm::{Client, alone, message, publish_until_acknowledged, stories, tops};
use super::{Server, Site, wait_until};
use raw::{Outcome, Target};
use tokens::Forge;

/// How many rows are under way at once.
const AT_ONCE: usize = 16;
/// No answer takes longer, even where the server's patience is the answer.
const ROW_TAKES: Duration = Duration::from_secs(20);
/// What the server may have grown by in the end: allocators keep some.
const GROWTH_KIB: u64 = 24 * 1024;

const CONFIG: &str = r#"
[log]
level = "info"
format = "json"
[heartbeat]
interval = "1s"
timeout = "3s"
[http]
allowed_hosts = ["t"]
[suites.one]
command = ["true"]
params = { A = ["1"] }
[limits]
message_bytes = 8192
body_bytes = 65536
rooms_per_connection = 10
connect_timeout = "6s"
body_timeout = "2s"
"#;

/// One attack and its documented answer.
#[derive(Debug)]
struct Row {
    name: &'static str,
    attack: Attack,
    answer: Answer,
}

#[derive(Debug, Clone)]
enum Attack {
    /// Bytes on a connection of their own.
    Raw(Vec<u8>),
    /// Frames on a WebSocket that has not said `40` yet.
    Early(Vec<u8>),
    /// Frames on a WebSocket that was opened with more in its query and head, and has not said `40` yet.
    Opened { query: String, headers: String, frames: Vec<u8> },
    /// Frames on a WebSocket that is connected.
    Frames(Vec<u8>),
    /// The body of a POST to a connected polling session, and its content type.
    Post(&'static str, Vec<u8>),
    /// A request that is made with the id of a connected polling session.
    WithSid(fn(&str) -> Vec<u8>),
    /// Frames on a WebSocket to which a polling session wants to change.
    Upgrade(Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    /// One answer of HTTP with this status, in which this stands.
    Status(u16, &'static str),
    /// Several answers of HTTP, one after the other.
    Statuses(&'static [u16]),
    /// This is said, and the connection or session goes on.
    Says(&'static str),
    /// Nothing is said, and the connection or session goes on.
    Silence,
    /// The connection ends.
    Ends,
    /// The connection ends with a close frame of this code.
    Closes(u16),
    /// This status, and the session has ended.
    LastStatus(u16, &'static str),
}

impl Answer {
    /// What is wrong with `outcome`, if anything.
    fn misses(self, outcome: &Outcome) -> bool {
        let Outcome { statuses, text, ended, close } = outcome;
        match self {
            Self::Status(status, part) => *statuses != [status] || !text.contains(part),
            Self::LastStatus(status, part) => *statuses != [status] || !text.contains(part) || !ended,
            Self::Statuses(expected) => statuses != expected,
            Self::Says(part) => *ended || !text.contains(part),
            Self::Silence => *ended || !text.is_empty(),
            Self::Ends => !ended || !statuses.is_empty(),
            Self::Closes(code) => *close != Some(code),
        }
    }
}

fn rows() -> Vec<Row> {
    let tables = [http::rows(), engine::rows(), packets::rows(), frames::rows(), values::rows()];
    tables.into_iter().flatten().collect()
}

fn assert_well_named(rows: &[Row], least: usize) {
    let mut names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|two| two[0] == two[1]);
    assert_eq!(twice, None, "a name stands twice");
    assert!(rows.len() >= least, "{} rows", rows.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_input_gets_its_answer_and_nobody_else_notices() {
    let _alone = alone().await;
    let rows = rows();
    let site = site("");
    let server = tokio::task::block_in_place(|| start(&site));
    let document = server.get("/api/openapi.json").await;
    assert_eq!(
        http::without_rows(&document, &rows),
        [""; 0],
        "these routes have no hostile row of their own"
    );
    let mut rows = rows;
    rows.extend(http::swept::rows(&document));
    assert_well_named(&rows, 600);
    let target = Target::new(server.address(), None);
    // Once before the first look, so that what is made at the first use is there.
    target.run(&Attack::Frames(Vec::new()), Answer::Silence).await;
    target.run(&Attack::Post("text/plain", b"3".to_vec()), Answer::Says("ok")).await;
    withstands(&site, &server, &target, rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_believed_that_should_not_be_by_whichever_way_it_comes() {
    let _alone = alone().await;
    let forge = tokio::task::block_in_place(Forge::new);
    let site = site(&format!("connections_per_user = 0\n{}", Forge::config()));
    site.write("keys.json", &forge.keys());
    let admin = forge.sound("root", &["admin"]);
    let server = tokio::task::block_in_place(|| start(&site)).with_token(&admin);
    server.post(&format!("/api/v1/users/{}/block", tokens::BLOCKED), &json!({})).await;
    server.post(&format!("/api/v1/tokens/{}/revoke", tokens::REVOKED), &json!({})).await;
    let rows = tokio::task::block_in_place(|| tokens::rows(&forge));
    assert_well_named(&rows, 300);
    let target = Target::new(server.address(), Some(&forge.sound("ann", &[])));
    target.run(&Attack::Frames(Vec::new()), Answer::Silence).await;
    withstands(&site, &server, &target, rows).await;
    let log = std::fs::read_to_string(site.path("log")).expect("a log");
    assert!(!log.contains(&admin[..40]) && !log.contains(tokens::SECRET), "a token stands in the log");
}

/// A site with what the tables ask for, whose configuration ends with `more`.
fn site(more: &str) -> Site {
    let site = Site::new(&format!("{CONFIG}{more}"));
    site.write(
        "channels.toml",
        "[defaults]\nhistory = { size = 100000, ttl = \"1d\" }\n[channel.story]\npattern = \"story-{id}\"\n\
         events = [\"custom:*\"]\n[channel.test-progress]\npattern = \"test-progress-{testId}\"\n\
         events = [\"test:started\", \"test:progress\", \"test:completed\"]\nsnapshot = true\n\
         [channel.alerts]\npattern = \"alerts\"\nevents = [\"custom:*\"]\npublish = []\n",
    );
    site
}

/// Runs `rows` against the server while a good client follows a story, and sees that it is the same afterwards.
async fn withstands(site: &Site, server: &Server, target: &Target, rows: Vec<Row>) {
    let rooms = ["story-good".to_owned()];
    let (finish, finished) = watch::channel(None);
    let good = Client::new(&server.url, &rooms).with_token(server.token.as_deref());
    let good = tokio::spawn(listen(good, finished));
    wait_until("the good client has joined", async || server.metric("tidings_subscriptions").await == 1.0)
        .await;
    publish(server, 0..50).await;
    let before = Size::of(server).await;

    let on = AtomicBool::new(true);
    let count = rows.len();
    let attacks = async {
        let failures = attack_all(target, rows).await;
        on.store(false, Ordering::Release);
        failures
    };
    let story = async {
        let mut n = 50;
        while on.load(Ordering::Acquire) {
            publish(server, n..n + 1).await;
            n += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (failures, ()) = tokio::join!(attacks, story);
    assert!(failures.is_empty(), "{} of {count} rows:\n{}", failures.len(), failures.join("\n"));

    wait_until("only the good client is left", async || {
        let now = Size::of(server).await;
        now.connections <= 1 && now.tasks <= before.tasks && now.files <= before.files
    })
    .await;
    let after = Size::of(server).await;
    let stories = stories(server, &rooms).await;
    finish.send(Some(Arc::new(tops(&stories)))).expect("it listens");
    let good = good.await.expect("the good client noticed nothing");
    good.assert_complete(&stories);
    let p99 = good.latency_ms.value_at_quantile(0.99);
    println!(
        "{count} hostile inputs; a good client got its {} messages in order, p99 {p99} ms; {before:?} before, {after:?} after",
        stories["story-good"].len()
    );
    assert!(after.kib <= before.kib + GROWTH_KIB, "{before:?} grew to {after:?}");
    let log = std::fs::read_to_string(site.path("log")).expect("a log");
    let bad: Vec<&str> = log.lines().filter(|l| l.contains("panicked") || l.contains("\"ERROR\"")).collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// A server whose log is a file.
fn start(site: &Site) -> Server {
    let mut serve = site.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.arg("--channels").arg(site.path("channels.toml"));
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2> \"$0\""]).arg(site.path("log")).arg(serve.get_program());
    command.args(serve.get_args());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Server::spawn(&mut command)
}

/// Runs every row; tells of those that got another answer.
async fn attack_all(target: &Target, rows: Vec<Row>) -> Vec<String> {
    let only = std::env::var("HOSTILE_ROW").ok();
    let rows = rows.into_iter().filter(|row| only.as_deref().is_none_or(|part| row.name.contains(part)));
    let attacks = rows.map(|Row { name, attack, answer }| async move {
        match tokio::time::timeout(ROW_TAKES, target.run(&attack, answer)).await {
            Ok(outcome) if !answer.misses(&outcome) => None,
            Ok(outcome) => Some(format!("{name}: expected {answer:?}, got {outcome:?}")),
            Err(_) => Some(format!("{name}: expected {answer:?}, got nothing within {ROW_TAKES:?}")),
        }
    });
    futures_util::stream::iter(attacks)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

async fn publish(server: &Server, numbers: std::ops::Range<usize>) {
    let messages: Vec<_> = numbers.map(|n| message("story-good", 0, n, 100)).collect();
    publish_until_acknowledged(&server.http, &messages).await;
}

/// Receives in one connection until all is there.
async fn listen(
    mut client: Client,
    mut finished: watch::Receiver<Option<Arc<HashMap<String, u64>>>>,
) -> Client {
    let mut socket = client.reconnect().await;
    let tops = loop {
        tokio::select! {
            tops = finished.wait_for(Option::is_some) => break tops.expect("told").clone().expect("told"),
            event = socket.next() => {
                let event = event.expect("the connection stays").expect("the connection stays");
                assert!(client.hear(&event), "{:?}", client.faults);
            }
        }
    };
    assert!(client.read_to(&mut socket, &tops).await, "the connection stays: {:?}", client.faults);
    assert_eq!(client.connections, 1);
    client
}

/// How large the server is.
#[derive(Debug, Clone, Copy)]
struct Size {
    connections: u64,
    tasks: u64,
    files: usize,
    kib: u64,
}

impl Size {
    async fn of(server: &Server) -> Self {
        let stats = server.get("/api/v1/stats").await;
        let proc = format!("/proc/{}", server.child.id());
        let status = std::fs::read_to_string(Path::new(&proc).join("status")).expect("it runs");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        Self {
            connections: stats["connections"].as_u64().expect("connections"),
            tasks: stats["tasks"].as_u64().expect("tasks"),
            files: std::fs::read_dir(Path::new(&proc).join("fd")).expect("its files").count(),
            kib: rss.trim().trim_end_matches(" kB").parse().expect("a number"),
        }
    }
}

//! Crashes: a process that is killed has lost nothing that it acknowledged.
//!
//! The process is this test binary once more, told by an environment variable to run
//! [`the_process_that_is_killed_appends_until_then`] for real.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tidings::broker::Broker;
use tidings::store::{OpenError, Store, Synchronous};

use super::{broker, open};
use crate::support::{channel, history, id_of, message, rules, seed};

/// Where the process that is to be killed has its store.
const DIR: &str = "TIDINGS_TEST_CRASH_DIR";
const CHANNELS: [&str; 3] = ["plain-0", "plain-1", "short-0"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_is_killed_appends_until_then() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = open(Path::new(&dir));
    let broker = broker(&store);
    let mut appenders = Vec::new();
    for task in 0..6 {
        let (broker, store) = (broker.clone(), store.clone());
        appenders.push(tokio::spawn(async move {
            for n in 0..u64::MAX {
                let name = CHANNELS[(task + usize::from(n % 2 == 0)) % CHANNELS.len()];
                let id = format!("{}.{task}.{n}", std::process::id());
                if n % 50 == 49 {
                    store.write(|tx| tx.merge_places()).await.expect("places can be merged");
                    broker.retain().await.expect("retention works");
                }
                let answers = broker.append(vec![message(&rules(), name, &id)]).await.expect("an append");
                let place = &answers[0].as_ref().expect("accepted").position;
                // One write per line, so that a line is whole or not there.
                let line = format!("acknowledged {name} {} {} {id}\n", place.epoch, place.offset);
                std::io::stdout().write_all(line.as_bytes()).expect("somebody reads");
            }
        }));
    }
    for appender in appenders {
        appender.await.expect("an appender runs for ever");
    }
}

/// What was acknowledged: epoch and ids by offset, per channel.
type Acknowledged = HashMap<String, (String, HashMap<u64, String>)>;

/// Lets a process append until it has acknowledged `lines` messages, and a moment more; then kills it.
fn run_and_kill(dir: &Path, lines: usize, moment: Duration, acknowledged: &mut Acknowledged) {
    let exact = "store::crash::the_process_that_is_killed_appends_until_then";
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", exact, "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the process starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut seen = 0;
    while let Some(Ok(line)) = output.next() {
        // The test harness may have begun the line.
        let Some((_, news)) = line.split_once("acknowledged ") else { continue };
        let fields: Vec<_> = news.split(' ').collect();
        let [channel, epoch, offset, id] = fields[..] else { continue };
        let (known, ids) =
            acknowledged.entry(channel.to_owned()).or_insert_with(|| (epoch.to_owned(), HashMap::new()));
        assert_eq!(known, epoch, "the epoch of {channel} changed");
        let before = ids.insert(offset.parse().expect("an offset"), id.to_owned());
        assert_eq!(before, None, "{channel} {offset} was given twice");
        seen += 1;
        if seen == lines {
            std::thread::sleep(moment);
            child.kill().expect("SIGKILL");
        }
    }
    child.wait().expect("it ended");
    assert!(seen >= lines, "it ended by itself after {seen} messages");
}

async fn check(dir: &Path, acknowledged: &Acknowledged) {
    let store = open(dir);
    let broker = broker(&store);
    for (name, (epoch, ids)) in acknowledged {
        let top = broker.top(&channel(name)).await.expect("a top").position;
        assert_eq!(top.epoch.as_str(), epoch, "{name}");
        assert!(ids.keys().all(|offset| *offset <= top.offset), "{name}: acknowledged messages are gone");
        let kept = history(&*broker, name).await;
        let first = if name.starts_with("short") { top.offset.saturating_sub(9).max(1) } else { 1 };
        assert!(kept.iter().map(|m| m.position.offset).eq(first..=top.offset), "{name} has a gap");
        for message in kept {
            let expected = ids.get(&message.position.offset);
            // What was stored but not acknowledged any more may be there as well.
            assert!(expected.is_none_or(|id| *id == id_of(&message)), "{name} {}", message.position);
        }
    }
    store.close().await;
}

#[tokio::test]
async fn a_killed_process_has_lost_nothing_that_it_acknowledged() {
    let mut random = fastrand::Rng::with_seed(seed());
    let dir = TempDir::new().unwrap();
    let mut acknowledged = Acknowledged::new();
    for round in 0..6 {
        let (lines, moment) = (random.usize(1..400), Duration::from_micros(random.u64(0..20_000)));
        run_and_kill(dir.path(), lines, moment, &mut acknowledged);
        if round % 2 == 0 {
            // Else the next process finds it as it was left.
            check(dir.path(), &acknowledged).await;
        }
    }
    check(dir.path(), &acknowledged).await;
    assert_eq!(acknowledged.len(), CHANNELS.len());
}

#[tokio::test]
async fn a_process_that_runs_keeps_others_out_and_a_killed_one_does_not() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let refused = Store::open(dir.path(), Synchronous::Normal);
    assert!(matches!(refused, Err(OpenError::InUse { .. })));
    store.close().await;
    run_and_kill(dir.path(), 1, Duration::ZERO, &mut Acknowledged::new());
    open(dir.path()).close().await;
}

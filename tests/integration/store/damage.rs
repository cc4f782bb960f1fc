//! A damaged file: errors that say so, no panic, and whatever can still be read is read.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tidings::broker::{AppendGroup, Broker, BrokerError, PageLimit};
use tidings::model::now_ms;
use tidings::store::{Store, StoreError, Synchronous};

use super::{broker, file, open};
use crate::support::{ALL, append, channel, rules, seed, stored};

/// Two channels with enough messages for many pages each.
async fn fill(dir: &Path) {
    let store = open(dir);
    let broker = broker(&store);
    for name in ["plain-a", "plain-b"] {
        let groups = (0..400).map(|n| AppendGroup {
            first: append(&rules(), name, &n.to_string(), &json!("y".repeat(400)), now_ms()),
            mirrors: Vec::new(),
        });
        broker.append(groups.collect()).await.expect("an append");
    }
    store.close().await;
}

/// Overwrites what `pages` of the file hold.
fn damage(dir: &Path, pages: impl Iterator<Item = usize>, random: &mut fastrand::Rng) {
    let file = OpenOptions::new().write(true).open(dir.join("tidings.db")).expect("the file opens");
    for page in pages {
        let mut garbage = [0; 4096];
        random.fill(&mut garbage);
        file.write_all_at(&garbage, (page as u64 - 1) * 4096).expect("the file can be written");
    }
}

/// The pages of table or index `name`, leaves and inner ones.
fn pages_of(dir: &Path, name: &str) -> Vec<usize> {
    let conn = file(dir);
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let root = conn.query_row(sql, [name], |row| row.get(0)).expect("the table is there");
    let bytes = std::fs::read(dir.join("tidings.db")).expect("the file can be read");
    let mut found: Vec<usize> = vec![root];
    let mut at = 0;
    while at < found.len() {
        let page = &bytes[(found[at] - 1) * 4096..][..4096];
        let number =
            |at: usize, len: usize| page[at..at + len].iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
        // Of an inner page, each cell begins with the number of a child, and the header ends with the last one's.
        if matches!(page[0], 2 | 5) {
            found.extend((0..number(3, 2)).map(|cell| number(number(12 + 2 * cell, 2), 4)));
            found.push(number(8, 4));
        }
        at += 1;
    }
    found
}

#[tokio::test]
async fn a_damaged_page_costs_what_it_held_and_says_so() {
    let dir = TempDir::new().unwrap();
    fill(dir.path()).await;
    // Channel b was written after channel a; what is added comes behind the last page.
    let pages = pages_of(dir.path(), "pack");
    let of_b = pages[pages.len() - 2];
    damage(dir.path(), std::iter::once(of_b), &mut fastrand::Rng::with_seed(1));
    let store = open(dir.path());
    let broker = broker(&store);
    let broken = broker.history(&channel("plain-b"), 0, ALL).await.expect_err("a page is damaged");
    assert!(matches!(cause(&broken), Some(StoreError::Corrupt { .. })), "{broken}");
    assert!(broken.to_string().contains("damaged"), "{broken}");
    assert_eq!(stored(&*broker, "plain-a").await.len(), 400, "the other channel is whole");
    broker.top(&channel("plain-b")).await.expect("the top stands elsewhere");
    let added =
        AppendGroup { first: append(&rules(), "plain-a", "new", &json!(1), now_ms()), mirrors: Vec::new() };
    broker.append(vec![added]).await.expect("the other channel goes on");
    store.close().await;
}

#[tokio::test]
async fn a_damaged_page_in_the_middle_of_a_pack_is_noticed_and_costs_the_messages_on_it() {
    let dir = TempDir::new().unwrap();
    fill(dir.path()).await;
    // What SQLite has no structure of its own in: a page full of bodies, behind the first of its pack.
    let bytes = std::fs::read(dir.path().join("tidings.db")).unwrap();
    let of_a = |page: &[u8]| page.windows(19).any(|text| text == br#""channel":"plain-a""#);
    let page = bytes.chunks(4096).rposition(|page| page[0] == 0 && of_a(page)).expect("there is one") + 1;
    let file = OpenOptions::new().write(true).open(dir.path().join("tidings.db")).unwrap();
    file.write_all_at(b"z", (page as u64 - 1) * 4096 + 2_000).unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    let mut unreadable = Vec::new();
    for after in 0..400 {
        let one = PageLimit { messages: 1, ..ALL };
        match broker.history(&channel("plain-a"), after, one).await {
            Ok(page) => assert_eq!(page.messages[0].position.offset, after + 1),
            Err(error) => {
                assert!(matches!(cause(&error), Some(StoreError::Corrupt { .. })), "{error}");
                unreadable.push(after + 1);
            }
        }
    }
    assert_eq!(unreadable.len(), 1, "{unreadable:?}");
    assert_eq!(stored(&*broker, "plain-b").await.len(), 400, "the other channel is whole");
    store.close().await;
}

#[tokio::test]
async fn whatever_is_damaged_is_an_error_and_never_a_panic() {
    let mut random = fastrand::Rng::with_seed(seed());
    let dir = TempDir::new().unwrap();
    fill(dir.path()).await;
    let whole = std::fs::read(dir.path().join("tidings.db")).unwrap();
    let pages = whole.len() / 4096;
    let mut unreadable = 0;
    for round in 0..25 {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("tidings.db"), &whole).unwrap();
        let from = if round % 5 == 0 { 1 } else { 2 };
        let hit: Vec<_> = (0..random.u8(1..40)).map(|_| random.usize(from..=pages)).collect();
        damage(dir.path(), hit.into_iter(), &mut random);
        let Ok(store) = Store::open(dir.path(), Synchronous::Normal) else { continue };
        let broker = broker(&store);
        for name in ["plain-a", "plain-b", "plain-new"] {
            let group = AppendGroup {
                first: append(&rules(), name, "new", &json!(1), now_ms()),
                mirrors: Vec::new(),
            };
            let all = broker.history(&channel(name), 0, ALL).await;
            for message in all.iter().flat_map(|page| &page.messages) {
                // It may be a message that says that it is damaged, but it is JSON.
                serde_json::from_str::<serde_json::Value>(message.json().get()).expect("JSON");
            }
            let answers = [
                all.map(drop),
                broker.top(&channel(name)).await.map(drop),
                broker.append(vec![group]).await.map(drop),
                broker.tests(None, None, 10).await.map(drop),
                broker.retain().await.map(drop),
            ];
            for error in answers.into_iter().filter_map(Result::err) {
                assert!(!matches!(cause(&error), Some(StoreError::Closed)), "something panicked");
                unreadable += 1;
            }
        }
        store.close().await;
    }
    assert!(unreadable > 10, "nothing was damaged");
}

/// What the store said.
fn cause(error: &BrokerError) -> Option<&StoreError> {
    let (BrokerError::Full(cause) | BrokerError::Unavailable(cause)) = error;
    cause.downcast()
}

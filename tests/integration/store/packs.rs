//! Packs: whatever is appended, trimmed, written anew and cut short, channels are what a naive model says, and what is
//! gone gives its room back.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;
use tidings::broker::append::Append;
use tidings::broker::embedded::EmbeddedBroker;
use tidings::broker::{AppendGroup, Broker, PageLimit};
use tidings::model::{MessageId, now_ms};
use tidings::store::Store;

use super::{broker, open};
use crate::support::stored::{bounds, image, packs, runs};
use crate::support::{ALL, append, channel, id_of, rules, seed, stored};

const CHANNELS: [&str; 7] = ["plain-a", "plain-b", "plain-c", "short-a", "short-b", "brief-a", "lossy-a"];

/// What a channel is, said as plainly as possible.
#[derive(Debug, Clone, Default)]
struct Model {
    /// The ids of all messages; the offset of the first is 1.
    ids: Vec<String>,
    /// Those before this index are too old.
    fresh_from: usize,
}

impl Model {
    /// What can be read, of a channel with this name.
    fn readable(&self, name: &str) -> Vec<(u64, String)> {
        let from = match name.split_once('-') {
            Some(("short", _)) => self.ids.len().saturating_sub(10),
            Some(("brief", _)) => self.fresh_from,
            Some(("lossy", _)) => self.ids.len(),
            _ => 0,
        };
        self.ids.iter().enumerate().skip(from).map(|(n, id)| (n as u64 + 1, id.clone())).collect()
    }
}

struct World {
    dir: TempDir,
    store: Store,
    broker: Arc<EmbeddedBroker>,
    model: BTreeMap<&'static str, Model>,
    random: fastrand::Rng,
    ids: u64,
}

/// A message whose id is the server's own, or a sender's.
fn message(name: &str, id: &str, fresh: bool, size: usize, timestamp_ms: i64) -> AppendGroup {
    let first = append(&rules(), name, id, &json!("x".repeat(size)), timestamp_ms);
    AppendGroup { first: Append { fresh, ..first }, mirrors: Vec::new() }
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let store = open(dir.path());
        let broker = broker(&store);
        let model = CHANNELS.iter().map(|name| (*name, Model::default())).collect();
        Self { dir, store, broker, model, random: fastrand::Rng::with_seed(seed()), ids: 0 }
    }

    async fn append(&mut self) {
        let mut groups = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..self.random.usize(1..40) {
            let name = *self.random.choice(&CHANNELS).expect("a channel");
            let fresh = self.random.bool();
            self.ids += 1;
            let id = if fresh { MessageId::generate().to_string() } else { format!("m{}", self.ids) };
            let size = if self.random.u8(..) < 4 { 20_000 } else { self.random.usize(0..300) };
            let model = self.model.get_mut(name).expect("a model");
            // Old ones come in a row, as time does not go back.
            let old = model.fresh_from == model.ids.len() && self.random.u8(..) < 100;
            let timestamp_ms = if old { now_ms() - 3_600_000 } else { now_ms() };
            groups.push(message(name, &id, fresh, size, timestamp_ms));
            model.ids.push(id);
            model.fresh_from += usize::from(old);
            expected.push(model.ids.len() as u64);
        }
        let answers = self.broker.append(groups).await.expect("an append");
        let given: Vec<_> = answers.into_iter().map(|answer| answer.expect("accepted")).collect();
        assert!(given.iter().all(|answer| !answer.duplicate));
        assert_eq!(given.iter().map(|answer| answer.position.offset).collect::<Vec<_>>(), expected);
    }

    /// Sends messages again that are there, and one that is gone.
    async fn repeat(&mut self) {
        let name = *self.random.choice(&CHANNELS).expect("a channel");
        let readable = self.model[name].readable(name);
        let Some((offset, id)) = self.random.choice(&readable).cloned() else { return };
        let answers =
            self.broker.append(vec![message(name, &id, false, 3, now_ms())]).await.expect("an append");
        let answer = answers.into_iter().next().expect("an answer").expect("accepted");
        assert!(answer.duplicate, "{name}: {id} is known");
        assert_eq!(answer.position.offset, offset, "{name}: {id}");
    }

    async fn merge(&self) {
        self.store.write(|tx| tx.merge_places()).await.expect("a merge");
    }

    /// Two channels at a time, and not always all of them.
    async fn merge_some(&mut self) {
        for _ in 0..self.random.u8(0..5) {
            if !self.store.write(|tx| tx.merge_some(10)).await.expect("a merge") {
                break;
            }
        }
    }

    async fn retain(&self) {
        while self.broker.retain().await.expect("retention") {}
    }

    /// The process is killed before it has done what it does next.
    async fn die(&mut self) {
        let image = image(self.dir.path());
        if self.random.bool() {
            self.retain().await;
        }
        self.store.close().await;
        self.dir = image;
        self.store = open(self.dir.path());
        self.broker = broker(&self.store);
    }

    async fn check(&mut self) {
        for name in CHANNELS {
            let readable = self.model[name].readable(name);
            let top = self.broker.top(&channel(name)).await.expect("a top").position.offset;
            assert_eq!(top, self.model[name].ids.len() as u64, "{name}");
            assert_eq!(stored(&*self.broker, name).await, readable, "{name}");
            let after = self.random.u64(0..=top);
            let limit = PageLimit { messages: self.random.usize(1..30), bytes: self.random.usize(1..20_000) };
            let page = self.broker.history(&channel(name), after, limit).await.expect("a page");
            let read = page.messages.iter().map(|message| (message.position.offset, id_of(message)));
            let rest = readable.iter().filter(|(offset, _)| *offset > after).cloned();
            let n = page.messages.len();
            assert!(read.eq(rest.clone().take(n)), "{name} after {after}");
            assert!(n <= limit.messages && (n > 0 || rest.count() == 0), "{name} after {after}: {n}");
        }
    }
}

#[tokio::test]
async fn channels_are_what_a_naive_model_says_whatever_becomes_of_their_packs() {
    let mut world = World::new();
    for _ in 0..250 {
        match world.random.u8(0..20) {
            0..10 => world.append().await,
            10..13 => world.repeat().await,
            13 => world.merge().await,
            14 => world.merge_some().await,
            15..17 => world.retain().await,
            17 => world.die().await,
            _ => world.check().await,
        }
    }
    world.merge().await;
    world.retain().await;
    world.check().await;
    world.store.close().await;
    let conn = super::file(world.dir.path());
    is_sound(&conn).expect("the tables can be read");
}

/// Every message that counts has its place, and the waste that is noted is what there is.
fn is_sound(conn: &Connection) -> rusqlite::Result<()> {
    let bounds = bounds(conn)?;
    let packed = packs(conn)?;
    let counts =
        |channel: i64, offset: u64| bounds.get(&channel).is_some_and(|(oldest, _)| offset >= *oldest);
    let alive = packed.iter().filter(|of| of.body > 0 && counts(of.channel, of.offset)).count();
    let placed = runs(conn)?.iter().filter(|of| counts(of.channel, of.offset)).count();
    assert_eq!(alive, placed);
    let wasted: usize =
        conn.query_row("SELECT coalesce(sum(messages), 0) FROM pack_waste", [], |row| row.get(0))?;
    assert_eq!(wasted, packed.len() - alive, "the waste of packs");
    let half = "SELECT count(*) FROM pack_waste WHERE wasted * 2 >= bytes";
    assert_eq!(conn.query_row(half, [], |row| row.get::<_, u64>(0))?, 0, "packs to be written anew");
    let ids = "SELECT count(*) FROM given_id WHERE offset < (SELECT oldest FROM channel WHERE id = channel)";
    let gone: usize = conn.query_row(ids, [], |row| row.get(0))?;
    assert!(gone <= wasted, "{gone} ids of messages that are gone");
    Ok(())
}

/// The bytes of all packs, of their messages that can be read, and of the file as far as it is in use.
fn room(conn: &Connection) -> rusqlite::Result<(u64, u64, u64)> {
    let all = "SELECT sum(length(directory) + length(bodies)) FROM pack";
    let all = conn.query_row(all, [], |row| row.get(0))?;
    let bounds = bounds(conn)?;
    let alive = packs(conn)?
        .iter()
        .filter(|of| bounds.get(&of.channel).is_some_and(|(oldest, _)| of.offset >= *oldest))
        .map(|of| of.body as u64)
        .sum();
    let pages = "SELECT (page_count - freelist_count) * page_size
                 FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    Ok((all, alive, conn.query_row(pages, [], |row| row.get(0))?))
}

#[tokio::test]
async fn a_busy_channel_with_a_short_history_leaves_its_room_to_the_quiet_ones() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    let mut written = 0;
    for round in 0..300 {
        // In each pack the busy one has nine of ten, and the quiet one keeps all of its own.
        let groups = (0..100).map(|n| {
            let name = if n % 10 == 0 { "plain-quiet" } else { "short-busy" };
            message(name, MessageId::generate().as_str(), n % 3 == 0, 200, now_ms())
        });
        let groups: Vec<_> = groups.collect();
        written += groups.iter().map(|group| group.first.open.as_str().len() as u64).sum::<u64>();
        broker.append(groups).await.expect("an append");
        if round % 50 == 49 {
            while broker.retain().await.expect("retention") {}
            let (packs, alive, pages) = store.read(room).await.expect("the store can be read");
            println!("{written} bytes written, {alive} alive, {packs} in packs, {pages} in pages");
            assert!(packs < alive * 5 / 2, "{packs} bytes of packs for {alive} of messages");
            assert!(pages < alive * 4 + 300_000, "{pages} bytes of the file for {alive} of messages");
        }
    }
    let (_, alive, _) = store.read(room).await.expect("the store can be read");
    assert!(written > 8 * alive, "the busy one was busy");
    assert_eq!(broker.history(&channel("plain-quiet"), 0, ALL).await.unwrap().messages.len(), 3_000);
    store.close().await;
}

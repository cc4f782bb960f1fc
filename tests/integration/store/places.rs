//! Places: the newest are in memory, the others in the stored index, and nobody can tell which are where.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings::broker::append::{Append, Draft};
use tidings::broker::{AppendGroup, Broker, PageLimit, Survey};
use tidings::model::{EventName, MessageId, now_ms};
use tidings::store::Store;

use super::{broker, file, open};
use crate::support::stored::{bounds, image, packs, runs};
use crate::support::{ALL, append, channel, history, in_time, message, raw, rules, seed, stored};

/// A channel whose messages are conflated by `testId`, where they have one.
const KEYED: &str = "stress-test-keyed";

/// The `n`-th message of [`KEYED`].
fn keyed(n: u64, key: Option<&str>) -> AppendGroup {
    let data = key.map_or_else(|| json!({ "n": n }), |key| json!({ "n": n, "testId": key }));
    let draft = Draft {
        id: MessageId::parse(&format!("m{n}")).expect("a message id"),
        fresh: false,
        event: EventName::parse("test:progress").expect("an event"),
        priority: None,
        timestamp_ms: now_ms(),
        user_id: None,
        data: &raw(&data),
        extra: &[],
    };
    let first = Append::own(&rules(), KEYED, draft, None).expect("the rules have the channel");
    AppendGroup { first, mirrors: Vec::new() }
}

async fn add(broker: &dyn Broker, groups: Vec<AppendGroup>) {
    let answers = broker.append(groups).await.expect("the store takes messages");
    assert!(
        answers.iter().all(|answer| answer.as_ref().is_ok_and(|placed| !placed.duplicate)),
        "{answers:?}"
    );
}

async fn merge(store: &Store) {
    store.write(|tx| tx.merge_places()).await.expect("places can be merged");
}

/// How many messages the stored index has, and how many it has not; fails where index and packs contradict each other.
async fn indexed(store: &Store) -> (u64, u64) {
    let counts = store.read(|conn| {
        let mark: i64 = conn.query_row("SELECT seq FROM place_mark", [], |row| row.get(0))?;
        let bounds = bounds(conn)?;
        let is_kept =
            |channel: i64, offset| bounds.get(&channel).is_some_and(|(oldest, _)| *oldest <= offset);
        let mut places = runs(conn)?;
        places.retain(|place| is_kept(place.channel, place.offset));
        let (mut packed, recent): (Vec<_>, Vec<_>) =
            packs(conn)?.into_iter().partition(|message| message.seq <= mark);
        packed.retain(|message| message.body > 0 && is_kept(message.channel, message.offset));
        packed.sort_by_key(|message| (message.channel, message.offset));
        let packed = packed.into_iter().map(|of| (of.channel, of.offset, of.seq, of.key));
        let indexed = places.iter().map(|of| (of.channel, of.offset, of.seq, of.key.clone()));
        assert!(indexed.eq(packed), "messages without a place, or places without a message");
        Ok((places.len() as u64, recent.len() as u64))
    });
    counts.await.expect("the store can be read")
}

fn numbered(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, String)> {
    range.map(|n| (n, format!("m{n}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_amid_appends_merges_and_retention_see_every_message_once() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    let ended = Arc::new(AtomicBool::new(false));
    let mut random = fastrand::Rng::with_seed(seed());
    let mut readers = Vec::new();
    add(&*broker, vec![keyed(1, None), message(&rules(), "short-1", "m1")]).await;
    for _ in 0..3 {
        let (broker, ended, mut random) = (broker.clone(), ended.clone(), random.fork());
        readers.push(tokio::spawn(async move {
            let mut reads = 0;
            while !ended.load(Ordering::Acquire) {
                read_once(&*broker, &mut random).await;
                reads += 1;
            }
            reads
        }));
    }
    let merging = tokio::spawn({
        let (store, broker, ended) = (store.clone(), broker.clone(), ended.clone());
        async move {
            while !ended.load(Ordering::Acquire) {
                store.write(|tx| tx.merge_some(1)).await.expect("some places can be merged");
                tokio::task::yield_now().await;
                merge(&store).await;
                store.write(|tx| tx.merge_some(1)).await.expect("some places can be merged");
                broker.retain().await.expect("retention works");
            }
        }
    });
    let mut n = 2;
    while n < 3_000 {
        let batch = n..n + random.u64(1..20);
        n = batch.end;
        let keys = [None, Some("a"), Some("b"), Some("c")];
        let both = batch.flat_map(|n| {
            [keyed(n, *random.choice(&keys).unwrap()), message(&rules(), "short-1", &format!("m{n}"))]
        });
        add(&*broker, both.collect()).await;
    }
    ended.store(true, Ordering::Release);
    merging.await.unwrap();
    for reader in readers {
        assert!(reader.await.unwrap() > 20, "a reader hardly read");
    }
    assert_eq!(stored(&*broker, KEYED).await, numbered(1..=n - 1));
    assert_eq!(stored(&*broker, "short-1").await, numbered(n - 10..=n - 1));
    indexed(&store).await;
    store.close().await;
}

/// Reads from anywhere, and compares the page with itself and with a survey of the same stretch.
async fn read_once(broker: &dyn Broker, random: &mut fastrand::Rng) {
    let name = *random.choice(&[KEYED, "short-1"]).expect("two channels");
    let top = broker.top(&channel(name)).await.expect("a top").position.offset;
    let after = random.u64(0..=top);
    let limit = if random.bool() { ALL } else { PageLimit { messages: random.usize(1..50), ..ALL } };
    let page = broker.history(&channel(name), after, limit).await.expect("a page");
    assert!(page.top >= top, "{name}: the top went back from {top} to {}", page.top);
    let first = (after + 1).max(page.oldest);
    let last = page.top.min(first.saturating_add(limit.messages as u64 - 1));
    let offsets: Vec<_> = page.messages.iter().map(|m| m.position.offset).collect();
    assert!(offsets.iter().copied().eq(first..=last), "{name}: {first} to {last} were read as {offsets:?}");
    if name == KEYED {
        let survey = broker.survey(&channel(name), after, last).await.expect("a survey");
        assert_eq!(survey, naive(&page.messages), "{name} after {after} up to {last}");
    }
}

fn naive(messages: &[Arc<tidings::model::Published>]) -> Survey {
    let mut survey = Survey::default();
    for message in messages {
        match &message.conflation_key {
            Some(key) => {
                survey.newest.insert(key.clone(), message.position.offset);
            }
            None => survey.plain += 1,
        }
    }
    survey
}

#[tokio::test]
async fn a_survey_is_right_on_both_sides_of_the_border_and_across_it() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    let keys = [Some("a"), None, Some("b"), Some("a"), None, Some("b")];
    let groups = |range: std::ops::Range<u64>| range.map(|n| keyed(n, keys[n as usize % 6])).collect();
    add(&*broker, groups(1..8)).await;
    merge(&store).await;
    add(&*broker, groups(8..15)).await;
    assert_eq!(indexed(&store).await, (7, 7));
    let all = history(&*broker, KEYED).await;
    for after in 0..=14 {
        for upto in after..=14 {
            let survey = broker.survey(&channel(KEYED), after, upto).await.unwrap();
            assert_eq!(survey, naive(&all[after as usize..upto as usize]), "after {after} up to {upto}");
        }
    }
    store.close().await;
}

#[tokio::test]
async fn a_full_channel_keeps_its_bound_wherever_its_messages_stand() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    for n in 1..=300_u64 {
        add(&*broker, vec![message(&rules(), "short-1", &format!("m{n}"))]).await;
        if n % 70 == 0 {
            merge(&store).await;
            indexed(&store).await;
        }
        assert_eq!(stored(&*broker, "short-1").await, numbered(n.saturating_sub(9).max(1)..=n));
    }
    while broker.retain().await.unwrap() {}
    assert_eq!(indexed(&store).await, (10, 0), "what is out of reach is removed");
    store.close().await;
}

#[tokio::test]
async fn a_forgotten_channel_leaves_nothing_to_the_one_that_gets_its_number() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    let long_ago = now_ms() - 31 * 24 * 3600 * 1000;
    let old = |n: u64| {
        let first = append(&rules(), "brief-old", &format!("m{n}"), &Value::from(n), long_ago);
        AppendGroup { first, mirrors: Vec::new() }
    };
    add(&*broker, (1..=5).map(old).collect()).await;
    merge(&store).await;
    add(&*broker, (6..=9).map(old).collect()).await;
    while broker.retain().await.unwrap() {}
    let channels =
        store.read(|conn| conn.query_row("SELECT count(*) FROM channel", [], |row| row.get::<_, u64>(0)));
    assert_eq!(channels.await.unwrap(), 0, "the channel is forgotten");
    assert_eq!(indexed(&store).await, (0, 0));
    add(&*broker, vec![message(&rules(), "brief-new", "m1"), message(&rules(), "brief-new", "m2")]).await;
    assert_eq!(stored(&*broker, "brief-new").await, numbered(1..=2));
    assert_eq!(broker.survey(&channel("brief-new"), 0, 9).await.unwrap().count(), 2);
    store.close().await;
}

#[tokio::test]
async fn what_is_rolled_back_leaves_no_place() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    add(&*broker, vec![message(&rules(), "plain-1", "m1")]).await;
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON given_id WHEN NEW.id = 'bad'
                BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    store.write(move |tx| tx.conn().execute_batch(fail)).await.unwrap();
    for n in 2..40 {
        // Good ones beside it, in the same operation and in the same commit.
        let bad = [format!("lost{n}"), "bad".to_owned()].map(|id| message(&rules(), "plain-1", &id));
        let good = vec![message(&rules(), "plain-1", &format!("m{n}"))];
        let (bad, good) = tokio::join!(broker.append(bad.into()), broker.append(good));
        assert!(bad.is_err() && good.is_ok(), "{bad:?} {good:?}");
        if n % 10 == 0 {
            let merged = store.write(|tx| tx.merge_places().and(tx.conn().execute_batch("nonsense"))).await;
            assert!(merged.is_err(), "a merge that is rolled back");
        }
        assert_eq!(stored(&*broker, "plain-1").await, numbered(1..=n));
    }
    assert_eq!(indexed(&store).await, (0, 39));
    merge(&store).await;
    assert_eq!(indexed(&store).await, (39, 0));
    assert_eq!(stored(&*broker, "plain-1").await, numbered(1..=39));
    store.close().await;
}

#[tokio::test]
async fn what_another_operation_rolls_back_is_not_known_to_the_next_append() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    add(&*broker, vec![message(&rules(), "plain-1", "m1")]).await;
    for n in 2..6 {
        let release = super::group::hold(&store).await;
        // In one commit; the second fails before it changes anything.
        let (good, bad, ()) = tokio::join!(
            broker.append(vec![message(&rules(), "plain-1", &format!("m{n}"))]),
            store.write(|tx| tx.conn().execute_batch("nonsense")),
            async { drop(release) }
        );
        assert!(good.is_ok() && bad.is_err(), "{good:?} {bad:?}");
        assert_eq!(stored(&*broker, "plain-1").await, numbered(1..=n));
    }
    store.close().await;
}

#[tokio::test]
async fn a_merge_that_fails_stops_nobody() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let broker = broker(&store);
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON place_run BEGIN SELECT RAISE(ABORT, 'no'); END";
    store.write(move |tx| tx.conn().execute_batch(fail)).await.unwrap();
    // Keys so long that a few of them call for a merge.
    let key = "k".repeat(100_000);
    for n in 1..=50 {
        add(&*broker, vec![keyed(n, Some(&format!("{key}{n}")))]).await;
    }
    assert_eq!(indexed(&store).await, (0, 50));
    assert_eq!(broker.survey(&channel(KEYED), 0, 50).await.unwrap().count(), 50);
    store.write(|tx| tx.conn().execute_batch("DROP TRIGGER fail")).await.unwrap();
    for n in 51..=90 {
        add(&*broker, vec![keyed(n, Some(&format!("{key}{n}")))]).await;
    }
    let (places, recent) = indexed(&store).await;
    assert!(places > 50 && recent < 40, "places are merged again: {places}, {recent} not");
    assert_eq!(stored(&*broker, KEYED).await, numbered(1..=90));
    store.close().await;
}

#[tokio::test]
async fn a_clean_close_merges_and_an_open_merges_what_a_hard_end_left() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let many = (1..=2_000).map(|n| message(&rules(), &format!("plain-{}", n % 7), &format!("m{n}")));
    add(&*broker(&store), many.collect()).await;
    assert_eq!(indexed(&store).await, (0, 2_000));
    let before = stored(&*broker(&store), "plain-3").await;
    let killed = image(dir.path());
    store.close().await;
    drop(store);
    let mark = "SELECT seq FROM place_mark";
    assert_eq!(file(dir.path()).query_row(mark, [], |row| row.get::<_, u64>(0)).unwrap(), 2_000);
    // Neither did it when it was closed.
    let dir = killed;
    let store = in_time("the store opens", async { open(dir.path()) }).await;
    assert_eq!(indexed(&store).await, (2_000, 0));
    assert_eq!(stored(&*broker(&store), "plain-3").await, before);
    add(&*broker(&store), vec![message(&rules(), "plain-3", "next")]).await;
    assert_eq!(stored(&*broker(&store), "plain-3").await.len(), before.len() + 1);
    store.close().await;
}

//! Retention beside writers: what is removed does not hold up what is added.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::broker::{AppendGroup, Broker};
use tidings::config::channels::Rules;
use tidings::model::now_ms;
use tidings::store::{Store, Synchronous};

use crate::support::{Recorder, append, in_time, message, rules, stored};

/// Channels whose messages are all too old, and how many messages each of them has.
const OLD_CHANNELS: usize = 50;
const OLD_MESSAGES: usize = 1_000;
/// Who writes meanwhile, each to a channel of its own.
const WRITERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_go_on_while_fifty_thousand_old_messages_are_removed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path(), Synchronous::Normal).expect("the store opens");
    let (rules, live, heard) = (rules(), Live::default(), Arc::new(Recorder::default()));
    let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::new(store, rules.clone(), live.clone()));
    fill(&*broker, &rules).await;
    live.connect(heard.clone());

    let alone = write_until(&broker, &rules, "alone", tokio::time::sleep(Duration::from_secs(1))).await;
    let removal = {
        let broker = broker.clone();
        async move {
            let (started, mut rounds) = (Instant::now(), 1);
            while broker.retain().await.expect("retention works") {
                rounds += 1;
            }
            println!(
                "{} messages removed in {rounds} rounds, {:?}",
                OLD_CHANNELS * OLD_MESSAGES,
                started.elapsed()
            );
        }
    };
    let beside = in_time("retention", write_until(&broker, &rules, "beside", removal)).await;
    for channel in 0..OLD_CHANNELS {
        assert_eq!(stored(&*broker, &format!("brief-{channel}")).await, [], "what is old is gone");
    }
    for (name, written) in [("alone", alone), ("beside", beside)] {
        let mut times = Histogram::<u64>::new(3).expect("three digits");
        for (writer, (ids, own)) in written.into_iter().enumerate() {
            let expected: Vec<_> = ids.into_iter().enumerate().map(|(n, id)| (n as u64 + 1, id)).collect();
            let channel = format!("plain-{name}-{writer}");
            assert!(expected.len() > 20, "{channel} got {} messages only", expected.len());
            assert_eq!(heard.of(&channel), expected, "told in order, each once");
            assert_eq!(stored(&*broker, &channel).await, expected, "kept in order, each once");
            times.add(own).expect("the same bounds");
        }
        let us = |quantile| Duration::from_micros(times.value_at_quantile(quantile));
        println!("appends {name}: {}, p50 {:?}, p99 {:?}, max {:?}", times.len(), us(0.5), us(0.99), us(1.0));
    }
}

/// Fills the old channels with messages of an hour ago, for which their rules have a minute.
async fn fill(broker: &dyn Broker, rules: &Rules) {
    let long_ago = now_ms() - 3_600_000;
    for channel in 0..OLD_CHANNELS {
        let group = |n: usize| {
            let (name, id) = (format!("brief-{channel}"), format!("m{n}"));
            let first = append(rules, &name, &id, &Value::from("x".repeat(200)), long_ago);
            AppendGroup { first, mirrors: Vec::new() }
        };
        broker.append((0..OLD_MESSAGES).map(group).collect()).await.expect("appended");
    }
}

/// Appends one message after the other per writer until `end`: the ids in their order, and how long each took.
async fn write_until(
    broker: &Arc<dyn Broker>,
    rules: &Arc<Rules>,
    name: &str,
    end: impl Future<Output = ()>,
) -> Vec<(Vec<String>, Histogram<u64>)> {
    let ended = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let channel = format!("plain-{name}-{writer}");
            tokio::spawn(write(broker.clone(), rules.clone(), channel, ended.clone()))
        })
        .collect();
    end.await;
    ended.store(true, Ordering::Release);
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.expect("a writer ends"));
    }
    written
}

async fn write(
    broker: Arc<dyn Broker>,
    rules: Arc<Rules>,
    channel: String,
    ended: Arc<AtomicBool>,
) -> (Vec<String>, Histogram<u64>) {
    let (mut ids, mut times) = (Vec::new(), Histogram::new(3).expect("three digits"));
    while !ended.load(Ordering::Acquire) {
        let id = format!("m{}", ids.len());
        let started = Instant::now();
        let appended = broker.append(vec![message(&rules, &channel, &id)]).await.expect("appended");
        times.saturating_record(u64::try_from(started.elapsed().as_micros()).expect("a short time"));
        assert!(appended[0].is_ok(), "{appended:?}");
        ids.push(id);
    }
    (ids, times)
}

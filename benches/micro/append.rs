//! Appending: groups of messages over 100 channels go to the store, and the answer is awaited.
//!
//! Each call is one commit, on the file system of the temporary directory.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use tempfile::TempDir;
use tidings::broker::append::{Append, Draft};
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::broker::{AppendGroup, Broker};
use tidings::config::channels::Rules;
use tidings::model::{EventName, MessageId, now_ms};
use tidings::store::{Store, Synchronous};
use tokio::runtime::Builder;

use crate::sample::data;

/// Over how many channels the messages are spread.
const CHANNELS: usize = 100;

#[divan::bench(args = [1, 50, 1_000])]
fn group(bencher: Bencher<'_, '_>, messages: usize) {
    let dir = TempDir::new().expect("a directory");
    let store = Store::open(dir.path(), Synchronous::Normal).expect("the store opens");
    let rules = Arc::new(Rules::builtin());
    let broker = EmbeddedBroker::new(store.clone(), rules.clone(), Live::default());
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let mut next = 0;
    let append = |groups: Vec<AppendGroup>| {
        let answers = runtime.block_on(broker.append(groups)).expect("the store can be used");
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|a| !a.duplicate)));
    };
    // Every channel exists.
    append((0..CHANNELS).map(|n| one(&rules, n)).collect());
    bencher
        .counter(ItemsCount::new(messages))
        .with_inputs(|| {
            let numbers = next..next + messages;
            next += messages;
            numbers.map(|n| one(&rules, n)).collect::<Vec<_>>()
        })
        .bench_local_values(append);
    runtime.block_on(store.close());
}

/// A message for the `n`-th channel, with an id like the server's own.
fn one(rules: &Rules, n: usize) -> AppendGroup {
    let draft = Draft {
        fresh: true,
        id: MessageId::generate(),
        event: EventName::parse("test:progress").expect("an event"),
        priority: None,
        timestamp_ms: now_ms(),
        user_id: None,
        data: &data(),
        extra: &[],
    };
    let channel = format!("test-progress-stress_{}", n % CHANNELS);
    let first = Append::own(rules, &channel, draft, None).expect("a built-in channel");
    AppendGroup { first, mirrors: Vec::new() }
}

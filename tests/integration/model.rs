//! Delivery against a naive model: random publishes, joins, leaves, slow and broken connections, restarts, trims
//! and acknowledgements, several of them at the same time, and every receiver's view equals the model's.
//!
//! `ops` says what can happen and `run` does it, on the real store, broker, fan-out and sync state (`node`) with
//! transports in memory (`session`), which the reference receiver reads (`client`). `past` is a channel as a naive
//! reader understands the contract, `world` all that the model knows; `view` holds what a connection was sent
//! against it, `ack` the acknowledgements of joins, and `rest` everything once nothing moves any more.
//!
//! A failure prints the shortest list of operations that was found, and the seed with which the whole run can be
//! repeated; the order in which tasks run is the machine's, so that it may take a few runs.

mod ack;
mod client;
mod node;
mod ops;
mod past;
mod rest;
mod run;
mod session;
mod view;
mod world;

use std::sync::Arc;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use world::World;

/// How many stories are told; with `TIDINGS_TEST_LONG` many more.
const STORIES: u32 = 80;
const LONG: u32 = 1500;

/// What has to have happened, or the stories proved nothing.
const OFTEN: [&str; 10] = [
    "acknowledged",
    "acknowledgement refused",
    "conflated",
    "epoch_changed",
    "joined now",
    "known id",
    "recovered",
    "recovered nothing",
    "replayed less than was missed",
    "trimmed",
];
/// What has to have happened in many stories.
const SOMETIMES: [&str; 7] = [
    "ahead_of_top",
    "ended, because it lagged past history",
    "late save of an old connection",
    "late save of another epoch",
    "new epoch while it listened",
    "refused by the state of a test",
    "sent again to the next server",
];

#[test]
fn every_receivers_view_equals_the_models() {
    let mut bytes = [0; 32];
    fastrand::Rng::with_seed(crate::support::seed()).fill(&mut bytes);
    let long = std::env::var_os("TIDINGS_TEST_LONG").is_some();
    let config = Config {
        cases: if long { LONG } else { STORIES },
        failure_persistence: None,
        max_shrink_iters: 400,
        max_shrink_time: 120_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let worlds = std::cell::RefCell::new(Vec::new());
    let told = runner.run(&ops::story(), |story| {
        let world = Arc::new(World::default());
        worlds.borrow_mut().push(world.clone());
        runtime.block_on(async { run::Run::begin(&world).await.tell(&story.0).await })
    });
    if let Err(error) = told {
        panic!("{error}");
    }
    let mut tried = std::collections::BTreeMap::<_, u64>::new();
    for (what, n) in worlds.into_inner().iter().flat_map(|world| world.tried()) {
        *tried.entry(what).or_default() += n;
    }
    println!("{tried:#?}");
    let expected = OFTEN.into_iter().chain(SOMETIMES.into_iter().filter(|_| long));
    let never: Vec<_> = expected.filter(|what| !tried.contains_key(what)).collect();
    assert!(never.is_empty(), "never tried: {never:?}");
}

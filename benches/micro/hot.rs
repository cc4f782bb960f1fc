//! The hot parts for `benches/callgrind`, which counts the instructions of [`measured`] and nothing else.
//!
//! What runs in there depends neither on the time nor on chance.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use tidings::model::{Priority, Published};

use crate::encode::encode;
use crate::outbox::{Desk, messages};
use crate::owner::Room;
use crate::publish::Edge;
use crate::sample::{INTERVAL, Parts};

/// How many subscribers the owner's step is measured with.
const SUBSCRIBERS: usize = 1_000;

/// Messages of a request.
const MESSAGES: usize = 50;

/// A hot part.
struct Hot {
    name: &'static str,
    /// What one operation of it is.
    operation: &'static str,
    /// So many make what comes once small beside what comes each time, and still end in a few seconds.
    rounds: usize,
    /// Runs so many rounds; how many operations they were.
    run: fn(usize) -> usize,
}

const HOT: [Hot; 7] = [
    Hot { name: "encode", operation: "message", rounds: 1_000, run: encode_alone },
    Hot { name: "outbox", operation: "message", rounds: 1_000, run: |n| push_and_drain(n, false) },
    Hot { name: "outbox-batch", operation: "message", rounds: 1_000, run: |n| push_and_drain(n, true) },
    Hot {
        name: "owner-urgent",
        operation: "delivery",
        rounds: 20,
        run: |n| step(n, 1, Priority::High, false),
    },
    Hot { name: "owner", operation: "delivery", rounds: 5, run: |n| step(n, 10, Priority::Normal, false) },
    Hot {
        name: "owner-batch",
        operation: "delivery",
        rounds: 5,
        run: |n| step(n, 10, Priority::Normal, true),
    },
    Hot { name: "publish", operation: "message", rounds: 200, run: publish },
];

/// `--hot` lists the hot parts: name, operation, rounds. `--hot NAME ROUNDS` runs one, and prints how many
/// operations it was.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    if arguments.is_empty() {
        HOT.iter().for_each(|hot| println!("{} {} {}", hot.name, hot.operation, hot.rounds));
        return ExitCode::SUCCESS;
    }
    let named = arguments.first().and_then(|name| HOT.iter().find(|hot| hot.name == name));
    let rounds = arguments.get(1).and_then(|rounds| rounds.parse().ok()).filter(|rounds| *rounds > 0);
    let (Some(hot), Some(rounds)) = (named, rounds) else {
        eprintln!("--hot NAME ROUNDS, and --hot alone lists the names");
        return ExitCode::from(2);
    };
    println!("{}", (hot.run)(rounds));
    ExitCode::SUCCESS
}

/// What is counted.
#[inline(never)]
fn measured<R>(run: impl FnOnce() -> R) -> R {
    // Whatever comes after the call keeps this function on the stack during it.
    black_box(run())
}

fn encode_alone(rounds: usize) -> usize {
    let parts = Parts::of("test-progress-stress_123", "test:progress");
    // What is made at the first call of all is none of a message's cost.
    drop(encode(&parts, 1));
    let encoded = |offset| -> Published { encode(black_box(&parts), black_box(offset)) };
    measured(|| (0..rounds).for_each(|_| drop(encoded(42))));
    rounds
}

/// Requests of fifty messages, from the request to the answer, without a store.
fn publish(rounds: usize) -> usize {
    let edge = Edge::new();
    // What is made at the first request of all is none of a message's cost.
    edge.publish(edge.request(MESSAGES));
    let requests: Vec<_> = (0..rounds).map(|_| edge.request(MESSAGES)).collect();
    measured(|| requests.into_iter().for_each(|request| edge.publish(request)));
    rounds * MESSAGES
}

/// Ten messages within a window, as often as there are rounds.
fn push_and_drain(rounds: usize, batch: bool) -> usize {
    let messages = messages(10, "room-0", Priority::Normal);
    let mut desk = Desk::new(1, batch);
    messages.iter().for_each(|message| desk.push(message));
    desk.left();
    // The first one of all left alone; one more fills the window that is open now.
    desk.push(&messages[0]);
    assert_eq!(desk.left(), messages.len());
    measured(|| (0..rounds).for_each(|_| messages.iter().for_each(|message| desk.push(message))));
    let left = desk.left();
    assert_eq!(left, rounds * messages.len());
    left
}

/// `n` messages at once to all subscribers, as often as there are rounds.
fn step(rounds: usize, n: usize, priority: Priority, batch: bool) -> usize {
    let room = Room::new("window-room", SUBSCRIBERS, batch);
    let started = Instant::now();
    room.step(room.messages(n, priority));
    let steps: Vec<_> = (0..rounds).map(|_| room.messages(n, priority)).collect();
    measured(|| steps.into_iter().for_each(|messages| room.step(messages)));
    assert!(started.elapsed() < INTERVAL, "too slow: the windows ended by the time, choose fewer rounds");
    rounds * n * SUBSCRIBERS
}

//! Encoding: from the parts of a message to the JSON that all its receivers share.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use tidings::broker::append::{Append, Draft};
use tidings::config::channels::Rules;
use tidings::model::{Priority, Published};

use crate::sample::{ACCEPTED_MS, Parts, data};

/// The whole way: the envelope is written, gets its position and is closed.
pub(crate) fn encode(parts: &Parts, offset: u64) -> Published {
    let message = parts.place(parts.open(Priority::Normal), Priority::Normal, offset);
    // Encodes it; whoever asks later shares that.
    let _ = message.json();
    message
}

#[divan::bench]
fn whole(bencher: Bencher<'_, '_>) {
    let parts = Parts::of("test-progress-stress_123", "test:progress");
    let bytes = encode(&parts, 42).json().get().len();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| encode(black_box(&parts), 42));
}

#[divan::bench]
fn write_envelope(bencher: Bencher<'_, '_>) {
    let parts = Parts::of("test-progress-stress_123", "test:progress");
    bencher.bench_local(|| black_box(&parts).open(Priority::Normal));
}

/// What the first receiver pays for all.
#[divan::bench]
fn close(bencher: Bencher<'_, '_>) {
    let parts = Parts::of("test-progress-stress_123", "test:progress");
    let open = parts.open(Priority::Normal);
    bencher
        .with_inputs(|| parts.place(open.clone(), Priority::Normal, 42))
        .bench_local_refs(|message| message.json().get().len());
}

/// What every receiver pays who was spared messages.
#[divan::bench]
fn close_conflated(bencher: Bencher<'_, '_>) {
    let parts = Parts::of("test-progress-stress_123", "test:progress");
    let message = encode(&parts, 42);
    bencher.bench_local(|| black_box(&message).json_conflated(3));
}

/// A draft is made ready for the broker, conflation key included.
#[divan::bench]
fn make_append(bencher: Bencher<'_, '_>) {
    let parts = Parts::of("test-progress-stress_123", "test:progress");
    let namespace = Rules::builtin().resolve(parts.channel.as_str()).expect("a built-in channel").namespace;
    let data = data();
    bencher.bench_local(|| {
        let draft = Draft {
            fresh: true,
            id: parts.id.clone(),
            event: parts.event.clone(),
            priority: None,
            timestamp_ms: ACCEPTED_MS,
            user_id: None,
            data: &data,
            extra: &[],
        };
        Append::new(parts.channel.clone(), namespace.clone(), black_box(draft), None)
    });
}

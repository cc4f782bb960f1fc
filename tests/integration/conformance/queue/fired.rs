//! Which ticks of schedules were fired.

use tidings::model::now_ms;
use tidings::queue::{FIRED_KEPT, FIRED_KEPT_MS};

use crate::conformance::{Backend, for_each_backend};

for_each_backend!(a cluster too: the_newest_ticks_of_each_schedule_are_known,);

async fn the_newest_ticks_of_each_schedule_are_known(backend: &dyn Backend) {
    let node = backend.start().await;
    let fired = async |name: &str| node.queue.fired(name).await.expect("a look");
    assert!(fired("a").await.is_empty());
    let first = now_ms() - 1_000_000;
    for tick in [first + 2000, first, first + 1000, first] {
        node.queue.note_fired("a", tick).await.expect("a note");
    }
    node.queue.note_fired("b", first + 5000).await.expect("a note");
    assert_eq!(fired("a").await, [first, first + 1000, first + 2000]);
    assert_eq!(fired("b").await, [first + 5000]);
    node.queue.note_fired("b", first - FIRED_KEPT_MS).await.expect("a note");
    assert_eq!(fired("b").await, [first + 5000], "it is too old");
    // The newest one is known, however rarely the schedule fires.
    node.queue.note_fired("c", first - 2 * FIRED_KEPT_MS).await.expect("a note");
    node.queue.note_fired("c", first - FIRED_KEPT_MS).await.expect("a note");
    for n in 0..300 {
        node.queue.note_fired("a", first + n * 1000).await.expect("a note");
    }
    let known = fired("a").await;
    let expected: Vec<i64> = (300 - FIRED_KEPT as i64..300).map(|n| first + n * 1000).collect();
    assert_eq!(known, expected);
    assert_eq!(fired("c").await, [first - FIRED_KEPT_MS]);
    assert_eq!(fired("b").await, [first + 5000]);
}

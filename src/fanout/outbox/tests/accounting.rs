//! Accounting: whatever happens, a receiver knows what it got and what it was spared.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::{Desk, WINDOW};
use crate::model::Priority;

#[derive(Debug, Clone)]
enum Step {
    Push { channel: usize, priority: Priority, key: Option<&'static str>, batch: bool },
    Wait(u32),
    Capacity(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop::sample::select(vec![None, Some("k"), Some("l")]);
    let priority = prop::sample::select(Priority::ALL.to_vec());
    prop_oneof![
        8 => (0..3_usize, priority, key, any::<bool>())
            .prop_map(|(channel, priority, key, batch)| Step::Push { channel, priority, key, batch }),
        2 => (1..120_u32).prop_map(Step::Wait),
        2 => prop_oneof![0..3_usize, Just(usize::MAX)].prop_map(Step::Capacity),
    ]
}

/// Checks what a receiver checks, and that only superseded messages are missing.
fn check(desk: &Desk, pushed: &[(String, u64, Option<&'static str>)]) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    let mut received = HashSet::new();
    for frame in &desk.frames {
        assert!(frame.len() <= WINDOW.max, "{frame:?}");
        for (name, offset, spared) in frame {
            let last = last.entry(name).or_default();
            assert_eq!(*offset, *last + 1 + spared, "{name}: {:?}", desk.frames);
            *last = *offset;
            received.insert((name.clone(), *offset));
        }
    }
    for (at, (name, offset, key)) in pushed.iter().enumerate() {
        let superseded = pushed[at + 1..].iter().any(|(n, _, k)| n == name && k.is_some() && k == key);
        let got = received.contains(&(name.clone(), *offset));
        assert!(got || (superseded && desk.was_full), "{name}{offset} is missing: {:?}", desk.frames);
    }
}

proptest! {
    #[test]
    fn whatever_is_pushed_the_receiver_can_account_for_it(steps in prop::collection::vec(step(), 1..120)) {
        let time = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        time.block_on(async {
            let (mut desk, mut pushed) = (Desk::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Push { channel, priority, key, batch } => {
                        let name = ["a", "b", "c"][channel];
                        desk.push(name, priority, key, batch);
                        pushed.push((name.to_owned(), desk.offsets[name], key));
                    }
                    Step::Wait(ms) => desk.wait(ms).await,
                    Step::Capacity(frames) => desk.capacity = frames,
                }
            }
            desk.capacity = usize::MAX;
            desk.wait(200).await;
            check(&desk, &pushed);
        });
    }
}

//! The follower by itself: what it makes of what it hears.

use super::*;
use crate::model::Priority;
use crate::model::message::sample;

const LIFE: u64 = 7;

fn name() -> ChannelName {
    ChannelName::parse("test-progress-t").expect("a name")
}

/// Message `offset` of epoch `e`; it has the id `id`.
fn entry(offset: u64, id: &str) -> Entry {
    let message = sample("test-progress-t", "custom:x", Priority::Normal, offset, None, "1");
    (MessageId::parse(id).expect("an id"), message)
}

fn at(epoch: &str, offset: u64) -> Position {
    Position { epoch: Epoch::new(epoch), offset }
}

/// One channel that is followed from offset 10 of epoch `e`.
struct One(Followed);

impl One {
    fn new() -> Self {
        let mut followed = Followed::new(LIFE);
        followed.at = Some(at("e", 10));
        Self(followed)
    }

    fn take(&mut self, offset: u64) -> Output {
        let mut out = Output::default();
        self.0.take(&name(), entry(offset, &format!("m{offset}")), &mut out);
        out
    }
}

fn told(out: &Output) -> Vec<u64> {
    let messages = out.told.iter().flat_map(|told| match told {
        Told::Messages(messages) => messages.clone(),
        Told::Reset(..) => panic!("a reset"),
    });
    messages.map(|message| message.position.offset).collect()
}

#[test]
fn what_comes_next_is_told_and_what_is_known_is_not() {
    let mut one = One::new();
    assert_eq!(told(&one.take(11)), [11]);
    assert_eq!(told(&one.take(12)), [12]);
    for known in [11, 12] {
        let out = one.take(known);
        assert!(out.told.is_empty() && out.resync.is_empty(), "{known}: {out:?}");
    }
}

#[test]
fn a_gap_is_filled_by_what_was_on_its_way() {
    let mut one = One::new();
    let out = one.take(13);
    assert!(out.told.is_empty());
    assert_eq!(out.gaps.len(), 1, "it gets a moment");
    assert!(one.take(12).gaps.is_empty(), "once");
    assert_eq!(told(&one.take(11)), [11, 12, 13]);
}

#[test]
fn a_gap_that_stays_is_read_from_history() {
    let mut follower = Follower::default();
    let mut one = One::new();
    one.take(13);
    follower.channels.insert(name(), one.0);
    let mut out = Output::default();
    follower.with(&name(), LIFE, |followed| {
        followed.gap = false;
        followed.resync(&name(), &mut out);
    });
    let asked = out.resync.pop().expect("it is read");
    assert_eq!((asked.known.offset, asked.known.epoch), (10, Epoch::new("e")));
    assert!(asked.alive.upgrade().is_some());
    let mut out = Output::default();
    follower.with(&name(), LIFE, |followed| {
        for offset in 11..=12 {
            followed.take(&name(), entry(offset, &format!("m{offset}")), &mut out);
        }
    });
    assert_eq!(told(&out), [11, 12, 13]);
}

#[test]
fn another_message_at_a_known_place_says_that_the_store_went_back() {
    let mut one = One::new();
    one.take(11);
    let mut out = Output::default();
    one.0.take(&name(), entry(11, "other"), &mut out);
    assert!(out.told.is_empty());
    assert_eq!(out.resync[0].known.id, Some(MessageId::parse("m11").expect("an id")));
}

#[test]
fn a_place_long_gone_is_looked_at_too() {
    let mut one = One::new();
    assert_eq!(one.take(3).resync.len(), 1, "below all that was seen");
}

#[test]
fn another_epoch_is_looked_at_and_what_it_brings_is_told_after_the_reset() {
    let mut one = One::new();
    one.0.at = Some(at("before", 10));
    let out = one.take(3);
    assert_eq!(out.resync.len(), 1);
    let mut out = Output::default();
    one.0.jump(at("e", 2));
    one.0.drain(&name(), &mut out);
    assert_eq!(told(&out), [3]);
}

#[test]
fn whoever_waits_for_a_message_goes_on_when_it_was_told() {
    let mut follower = Follower::default();
    follower.channels.insert(name(), One::new().0);
    let (done, mut waiting) = Done::new();
    let mut out = Output::default();
    follower.own(vec![entry(12, "m12")], done, &mut out);
    drop(out);
    assert!(waiting.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
    let (done, mut both) = Done::new();
    let mut out = Output::default();
    follower.own(vec![entry(11, "m11")], done, &mut out);
    assert_eq!(told(&out), [11, 12]);
    drop(out);
    for waiting in [&mut waiting, &mut both] {
        assert!(waiting.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    }
}

#[test]
fn what_comes_while_history_is_read_is_bounded_and_read_again() {
    let mut one = One::new();
    one.0.reading = true;
    for offset in 12..12 + 2 * AHEAD as u64 {
        one.take(offset);
    }
    assert_eq!(one.0.ahead.len(), AHEAD);
    assert!(one.0.again);
}

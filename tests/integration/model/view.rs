//! What one connection was sent, held against the model: every message from its base on, once and in order, but
//! for those that a newer one of their key stands for.

use std::collections::HashMap;

use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidings::model::{Epoch, Message, Position, Snapshot};
use tidings::sync::{Basis, Place};

use super::ack::join;
use super::ops::Room;
use super::past::{Past, Span, Tick, same_state};
use super::session::{Entry, Wire};
use super::world::{Checked, World};

/// A room that is joined, as its receiver knows it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Up to where it knows the channel.
    pub(super) at: Position,
    /// Every place where it was since the join began, and the length of the log then.
    pub(super) handed: Vec<(usize, Position)>,
    /// What the acknowledgement promised: from where, up to where, and how many are still to come.
    pub(super) promised: Option<Promise>,
    /// The reset that has to come first.
    pub(super) reset: Option<(&'static str, Position)>,
    /// Messages that it was spared, and their keys: a newer one of each has to follow.
    pub(super) spared: Vec<(u64, String)>,
    pub(super) acked: Option<Position>,
}

#[derive(Debug, Clone)]
pub(super) struct Promise {
    pub(super) base: u64,
    pub(super) upto: u64,
    pub(super) left: u64,
}

/// `room:reset` as a client reads it.
#[derive(Debug, Deserialize)]
struct Reset {
    room: String,
    reason: String,
    epoch: Epoch,
    offset: u64,
    snapshot: Option<Snapshot>,
}

/// The checker of one connection's log.
#[derive(Debug, Default)]
pub(super) struct View {
    checked: usize,
    rooms: HashMap<Room, Member>,
    /// Joins that have begun, and the places that were saved since.
    joining: HashMap<Room, Vec<Position>>,
    /// Where it was in the rooms that were left since it ended.
    left_late: HashMap<Room, Position>,
    ended: bool,
}

impl View {
    /// Checks what has happened since the last call. No publisher waits for an answer.
    pub(super) fn advance(&mut self, wire: &Wire, world: &World) -> Checked {
        let log = wire.log();
        let from = self.checked;
        self.checked = log.len();
        for (index, entry) in log.iter().enumerate().skip(from) {
            self.take(index, entry, world).map_err(|error| {
                let story: Vec<_> = log[..=index].iter().rev().take(12).rev().collect();
                TestCaseError::fail(format!("{error}\nafter {story:#?}"))
            })?;
        }
        Ok(())
    }

    /// The rooms that are joined and where they are, as long as nothing is still to come that was promised.
    pub(super) fn rooms(&self) -> impl Iterator<Item = (Room, &Position, bool)> {
        self.rooms.iter().map(|(room, member)| {
            let waits = member.promised.is_some() || member.reset.is_some();
            (*room, &member.at, waits)
        })
    }

    /// At rest: whatever was spared, something newer stood for it.
    pub(super) fn rest(&self) -> Checked {
        for (room, member) in &self.rooms {
            prop_assert!(member.spared.is_empty(), "nothing newer came for {:?} {:?}", room, member.spared);
        }
        Ok(())
    }

    /// What has to be stored of the rooms now that their places were saved.
    pub(super) fn places(&self) -> impl Iterator<Item = (Room, Basis, &Position)> {
        self.rooms.iter().map(|(room, member)| match &member.acked {
            Some(acked) => (*room, Basis::Acknowledged, acked),
            None => (*room, Basis::Written, &member.at),
        })
    }

    /// Whether the server had a reason to end the connection: history no longer reached back to where it was, or
    /// to a new beginning of which it was to be told.
    fn may_be_ended(&self, world: &World, now: Tick) -> bool {
        let (pasts, span) = (world.pasts(), Span { begin: now, end: now });
        self.rooms.iter().filter(|(room, _)| !room.is_lossy()).any(|(room, member)| {
            let since = pasts[room].iter().skip_while(|past| past.epoch != member.at.epoch);
            since.filter(|past| past.begin < now).any(|past| {
                let known = if past.epoch == member.at.epoch { member.at.offset } else { 0 };
                past.oldest(span, past.tops(span).1).1 > known + 1
            })
        })
    }

    fn take(&mut self, index: usize, entry: &Entry, world: &World) -> Checked {
        match entry {
            // Until the server gets there, frames of the membership before may come.
            Entry::Joining(room) => {
                self.joining.insert(*room, Vec::new());
            }
            Entry::Joined { room, since, wants_snapshot, ack, span, .. } => {
                let mut member = join(*room, since, *wants_snapshot, ack, *span, world)?;
                member.handed.push((index, member.at.clone()));
                for early in self.joining.remove(room).unwrap_or_default() {
                    prop_assert_eq!(&early, &member.at, "a place of {:?} was saved amid its join", room);
                }
                // A second join makes nothing unsaid.
                member.acked = self.rooms.remove(room).and_then(|before| before.acked);
                self.rooms.insert(*room, member);
            }
            Entry::Left(room) => {
                let member = self.rooms.remove(room).filter(|_| self.ended);
                self.left_late.extend(member.map(|member| (*room, member.at)));
            }
            Entry::Ended => self.ended = true,
            Entry::Frame { event, data } => return self.frame(index, event, data, world),
            Entry::Acked { room, position, taken, from } => {
                let member = self.rooms.get_mut(room);
                // What was handed over while it came may count or not.
                let (some, all) = member.as_ref().map_or((false, false), |member| {
                    let mut covered = member.since(*from).map(|at| covers(at, position));
                    (covered.clone().any(|covered| covered), covered.all(|covered| covered))
                });
                let word = if *taken { "acknowledged" } else { "acknowledgement refused" };
                prop_assert!(
                    [some, all].contains(taken),
                    "{}: {} in {:?}, {:?}",
                    word,
                    position,
                    room,
                    member
                );
                world.try_one(word);
                if let (Some(member), true) = (member, *taken) {
                    member.acknowledge(position);
                }
            }
            Entry::Killed(now) => {
                prop_assert!(
                    self.may_be_ended(world, *now),
                    "it was ended without a reason: {:?}",
                    self.rooms
                );
                world.try_one("ended, because it lagged past history");
                self.ended = true;
            }
            Entry::Saved { room, place, from } => self.saved(*room, place, *from)?,
            Entry::Loaded { room, place, expected } => {
                prop_assert_eq!(place, expected, "the stored place in {:?}", room);
            }
        }
        Ok(())
    }

    fn saved(&mut self, room: Room, place: &Place, from: usize) -> Checked {
        let Place { position, basis } = place;
        let member = self.rooms.get(&room);
        match basis {
            Basis::Acknowledged => {
                prop_assert_eq!(Some(position), member.and_then(|m| m.acked.as_ref()), "saved of {:?}", room);
            }
            Basis::Written => {
                let known =
                    member.is_some_and(|m| m.acked.is_none() && m.since(from).any(|at| at == position));
                match self.joining.get_mut(&room) {
                    Some(early) if !known => early.push(position.clone()),
                    // A channel that has let go of an ended connection does not hear that it leaves.
                    _ if self.left_late.get(&room) == Some(position) => {}
                    _ => prop_assert!(known, "{} was saved of {:?}, which is {:?}", position, room, member),
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, index: usize, event: &str, data: &RawValue, world: &World) -> Checked {
        match event {
            "message:batch" => {
                let messages: Vec<Message> = serde_json::from_str(data.get()).expect("a batch");
                prop_assert!(messages.len() <= 4, "{} messages in one batch", messages.len());
                messages.iter().try_for_each(|message| self.message(index, message, world))
            }
            "room:reset" => self.reset(index, &serde_json::from_str(data.get()).expect("a reset"), world),
            event => {
                let message: Message = serde_json::from_str(data.get()).expect("a message");
                prop_assert_eq!(message.event.as_str(), event);
                self.message(index, &message, world)
            }
        }
    }

    fn message(&mut self, index: usize, message: &Message, world: &World) -> Checked {
        let room = Room::of(message.channel.as_str());
        let Some(member) = self.rooms.get_mut(&room) else {
            return Err(TestCaseError::fail(format!("{message:?} came without a membership")));
        };
        prop_assert!(member.reset.is_none(), "{:?} came before {:?}", message, member.reset);
        prop_assert_eq!(&message.epoch, &member.at.epoch, "{:?} did not say that it begins anew", room);
        let pasts = world.pasts();
        let past = pasts[&room].iter().find(|past| past.epoch == message.epoch).expect("a known epoch");
        let Message { offset, conflated, .. } = *message;
        if room.is_lossy() {
            prop_assert!(
                offset > member.at.offset && conflated == 0,
                "{:?} came after {}",
                message,
                member.at
            );
        } else {
            prop_assert_eq!(
                offset,
                member.at.offset + 1 + conflated,
                "{:?} came after {}",
                message,
                member.at
            );
        }
        if let Some(stored) = past.messages.get(&offset) {
            let serial = message.data["serial"].as_u64().expect("a number");
            let same = stored.sent.id == message.id.as_str()
                && stored.serials.contains(&serial)
                && [0, message.priority.number()].contains(&stored.sent.priority);
            prop_assert!(same, "{:?} came for {:?}", message, stored);
        } else {
            prop_assert!(room.is_lossy(), "{:?} was never sent", message);
        }
        if conflated > 0 {
            world.try_one("conflated");
        }
        member.spare(past, offset, conflated)?;
        member.keep_promise(past, offset)?;
        member.at.offset = offset;
        member.handed.push((index, member.at.clone()));
        Ok(())
    }

    fn reset(&mut self, index: usize, reset: &Reset, world: &World) -> Checked {
        let Reset { room, reason, epoch, offset, snapshot } = reset;
        let room = Room::of(room);
        let position = Position { epoch: epoch.clone(), offset: *offset };
        let Some(member) = self.rooms.get_mut(&room) else {
            return Err(TestCaseError::fail(format!("{reset:?} came without a membership")));
        };
        let pasts = world.pasts();
        let pasts = &pasts[&room];
        let place = |epoch: &Epoch| pasts.iter().position(|past| past.epoch == *epoch);
        let past = place(epoch).map(|at| &pasts[at]);
        let Some(past) = past else { return Err(TestCaseError::fail(format!("{reset:?} names no past"))) };
        // One that was not told yet is no more of interest in the next epoch.
        if let Some((expected, at)) = member.reset.take().filter(|(_, at)| at.epoch == *epoch) {
            prop_assert_eq!((reason.as_str(), &position), (expected, &at), "{:?}", room);
            let state = if room == Room::Test { past.test_at(*offset) } else { Ok(None) };
            prop_assert!(state.is_ok_and(|state| same_state(state, snapshot.as_ref())), "{:?}", reset);
        } else {
            prop_assert_eq!(reason, "epoch_changed", "{:?} of {}", room, member.at);
            prop_assert!(place(epoch) > place(&member.at.epoch), "{:?} came at {}", reset, member.at);
            prop_assert!(*offset <= past.top(), "{:?} lies beyond the top", reset);
            let state = past.test_at(*offset);
            let same = snapshot.is_none() || state.is_ok_and(|state| same_state(state, snapshot.as_ref()));
            prop_assert!(same, "{:?} against {:?}", reset, state);
            world.try_one("new epoch while it listened");
        }
        (member.promised, member.spared) = (None, Vec::new());
        member.at = position;
        member.handed.push((index, member.at.clone()));
        Ok(())
    }
}

fn covers(at: &Position, position: &Position) -> bool {
    at.epoch == position.epoch && at.offset >= position.offset
}

impl Member {
    /// Where it was since the log was `from` long.
    fn since(&self, from: usize) -> impl Iterator<Item = &Position> + Clone {
        let before = self.handed.iter().rposition(|(index, _)| *index < from).unwrap_or(0);
        self.handed[before..].iter().map(|(_, position)| position)
    }

    fn acknowledge(&mut self, position: &Position) {
        match &mut self.acked {
            Some(acked) if acked.epoch == position.epoch => acked.offset = acked.offset.max(position.offset),
            acked => *acked = Some(position.clone()),
        }
    }

    /// Only messages with a key may be spared; something newer has to come for each of them.
    fn spare(&mut self, past: &Past, offset: u64, conflated: u64) -> Checked {
        for (offset, left_out) in past.messages.range(offset - conflated..offset) {
            let Some(key) = left_out.sent.key.clone() else {
                return Err(TestCaseError::fail(format!("{offset} was left out, which nothing stands for")));
            };
            self.spared.push((*offset, key));
        }
        let key = past.messages.get(&offset).and_then(|message| message.sent.key.as_ref());
        self.spared.retain(|(_, spared)| Some(spared) != key);
        Ok(())
    }

    /// What the acknowledgement promised comes first, and as many as it said.
    fn keep_promise(&mut self, past: &Past, offset: u64) -> Checked {
        let Some(promise) = &mut self.promised else { return Ok(()) };
        prop_assert!(offset <= promise.upto, "{} came while {:?} was to come", offset, promise);
        let survey = past.survey(promise.base, promise.upto);
        prop_assert!(survey.contains(&offset), "{} came, which is none of {:?}", offset, survey);
        promise.left -= 1;
        if promise.left == 0 {
            prop_assert_eq!(offset, promise.upto, "all of {:?} came", promise);
            self.promised = None;
        }
        Ok(())
    }
}

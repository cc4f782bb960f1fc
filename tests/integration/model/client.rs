//! The program at the other end of a connection, and what it makes of the frames that it reads.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prop_assert;
use serde_json::value::RawValue;
use tidings::client::{Receiver, Verdict};
use tidings::fanout::Since;
use tidings::model::Position;

use super::ops::Room;
use super::session::{Entry, Wire};
use super::world::Checked;

/// A client with the receiver that every client is told to have.
#[derive(Debug, Default)]
pub(super) struct Client {
    receiver: Receiver,
    read: usize,
    joined: BTreeSet<Room>,
}

impl Client {
    /// Reads what the transport has taken, and moves on in `seen`.
    pub(super) fn read(&mut self, wire: &Wire, seen: &mut BTreeMap<Room, Position>) -> Checked {
        let log = wire.log();
        for entry in &log[self.read..] {
            match entry {
                Entry::Joined { room, since, stored, ack, .. } => {
                    let asked = match since {
                        _ if *stored => tidings::client::Since::Stored,
                        Since::Now => tidings::client::Since::Now,
                        Since::Start => tidings::client::Since::Start,
                        Since::At(position) => tidings::client::Since::After(position.clone()),
                    };
                    let ack = serde_json::to_value(ack).expect("an acknowledgement is JSON");
                    let ack = serde_json::from_value(ack).expect("the client reads it");
                    self.receiver.joined(&asked, &ack);
                    self.joined.insert(*room);
                }
                Entry::Left(room) => {
                    self.receiver.left(room.name());
                    self.joined.remove(room);
                }
                Entry::Frame { event, data } => self.frame(event, data)?,
                _ => {}
            }
        }
        self.read = log.len();
        for room in &self.joined {
            seen.extend(self.receiver.position(room.name()).map(|position| (*room, position.clone())));
        }
        Ok(())
    }

    fn frame(&mut self, event: &str, data: &RawValue) -> Checked {
        let mut gaps = Vec::new();
        for received in self.receiver.receive(event, data).expect("a frame of the contract") {
            let room = Room::of(&received.envelope.channel);
            match received.verdict {
                Verdict::Deliver => {}
                Verdict::Gap { .. } if room.is_lossy() => gaps.push(received.envelope),
                verdict => prop_assert!(false, "the receiver says {:?} of {}", verdict, received.message),
            }
        }
        for gap in gaps {
            let position = Position { epoch: tidings::model::Epoch::new(&gap.epoch), offset: gap.offset };
            self.receiver.skip_to(&gap.channel, position);
        }
        Ok(())
    }
}

//! Places: what the session of a device tells the sync state, and when.

use std::collections::HashMap;

use super::{Basis, Device, Place, Saved};
use crate::model::{ChannelName, Position};

/// The places of one session's device. Without a device nothing is kept.
#[derive(Debug, Default)]
pub struct Places {
    acknowledged: HashMap<ChannelName, Position>,
    saved: HashMap<ChannelName, Place>,
}

impl Places {
    /// Whether a client to whom everything up to `written` was handed may acknowledge everything up to
    /// `position`: nobody has processed what was never sent.
    #[must_use]
    pub fn may_acknowledge(written: &Position, position: &Position) -> bool {
        position.epoch == written.epoch && position.offset <= written.offset
    }

    /// Notes an acknowledgement; one that is behind an earlier one changes nothing.
    pub fn acknowledge(&mut self, channel: &ChannelName, position: Position) {
        let known = self.acknowledged.get(channel);
        if known.is_none_or(|known| known.epoch != position.epoch || known.offset < position.offset) {
            self.acknowledged.insert(channel.clone(), position);
        }
    }

    /// Forgets a room that was left. What was saved of it stays saved.
    pub fn forget(&mut self, channel: &ChannelName) {
        self.acknowledged.remove(channel);
        self.saved.remove(channel);
    }

    /// What has changed since the last call, given what was `written` to the transport.
    pub fn changed(&mut self, device: &Device, written: Vec<(ChannelName, Position)>) -> Vec<Saved> {
        let mut changed = Vec::new();
        for (channel, position) in written {
            let place = match self.acknowledged.get(&channel) {
                Some(acknowledged) => Place { position: acknowledged.clone(), basis: Basis::Acknowledged },
                None => Place { position, basis: Basis::Written },
            };
            if self.saved.get(&channel) != Some(&place) {
                self.saved.insert(channel.clone(), place.clone());
                changed.push(Saved { device: device.clone(), channel, place });
            }
        }
        changed
    }

    /// The last save failed, or may have: everything has to be saved again.
    pub fn unsaved(&mut self) {
        self.saved.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;

    fn at(offset: u64) -> Position {
        Position { epoch: Epoch::new("e"), offset }
    }

    #[test]
    fn only_what_changed_is_saved_and_acknowledgements_come_before_what_was_written() {
        let device = Device { user_id: None, client_id: "tablet".to_owned() };
        let room = ChannelName::parse("a").unwrap();
        let mut places = Places::default();
        let saved = places.changed(&device, vec![(room.clone(), at(5))]);
        assert_eq!((saved.len(), saved[0].place.basis), (1, Basis::Written));
        assert!(places.changed(&device, vec![(room.clone(), at(5))]).is_empty());

        places.acknowledge(&room, at(4));
        places.acknowledge(&room, at(3));
        let saved = places.changed(&device, vec![(room.clone(), at(9))]);
        assert_eq!(saved[0].place, Place { position: at(4), basis: Basis::Acknowledged });
        places.unsaved();
        assert_eq!(places.changed(&device, vec![(room, at(9))]).len(), 1);
    }
}

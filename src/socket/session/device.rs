//! The device of a session: where it was, and what it says that it has.

use super::super::Edge;
use super::super::protocol::Refusal;
use super::Session;
use crate::model::{ChannelName, Position};
use crate::sync::places::Places;
use crate::sync::{Device, Saved};

impl Session {
    /// Where the client's device is, if it named one and something is stored of it.
    pub(super) async fn stored_place(&self, edge: &Edge, room: &ChannelName) -> Option<Position> {
        let device = self.device.as_ref()?;
        edge.save_device(device).await;
        match edge.parts.sync.load(device, room).await {
            Ok(place) => place.map(|place| place.position),
            Err(error) => {
                // Live messages are worth more than none; the acknowledgement shows where they begin.
                tracing::warn!(%error, "the place of a device could not be read");
                None
            }
        }
    }

    /// Notes that the client processed everything of `room` up to `position`. In its user's inbox that confirms
    /// the notifications.
    pub(super) async fn acknowledge(
        &self,
        edge: &Edge,
        room: &ChannelName,
        position: Position,
    ) -> Result<(), Refusal> {
        let written = self.connection.written_of(room);
        let Some(written) = written else {
            return Err(Refusal::new("not_joined", format!("this connection is not in `{room}`")));
        };
        if !Places::may_acknowledge(&written, &position) {
            let text = format!("`{room}` was sent up to {written}, and {position} lies beyond that");
            return Err(Refusal::new("never_sent", text));
        }
        if let (Some(user), true) = (&self.user_id, self.is_inbox(room)) {
            edge.parts.notifier.inbox().acknowledge(user, &position).await?;
        }
        self.state().places.acknowledge(room, position);
        Ok(())
    }

    pub(in super::super) fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// The places of the device that have changed since they were last asked for.
    pub(in super::super) fn changed_places(&self) -> Vec<Saved> {
        let Some(device) = &self.device else { return Vec::new() };
        let written = self.connection.written();
        self.state().places.changed(device, written)
    }

    /// They could not be saved.
    pub(in super::super) fn places_unsaved(&self) {
        self.state().places.unsaved();
    }
}

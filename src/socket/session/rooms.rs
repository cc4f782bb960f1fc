//! The rooms of a session: those that its client asks for, and the inbox of its user.

use super::super::Edge;
use super::super::protocol::{Join, Refusal};
use super::super::reply::Reply;
use super::Session;
use crate::fanout::{JoinAck, JoinRequest, Since};
use crate::limits::{Reason, met};
use crate::model::{ChannelName, Position};
use crate::quota::Seat;

impl Session {
    pub(super) async fn join(&self, edge: &Edge, join: Join, reply: &Reply) -> Result<(), Refusal> {
        let Join { room, since, batch, snapshot } = join;
        edge.parts.rights.read(&self.identity(), &room).await?;
        self.count_room(edge, &room).await?;
        let (since, stored) = match since {
            Some(since) => (since, None),
            None => match self.stored_place(edge, &room).await {
                Some(place) => (Since::At(place.clone()), Some(place)),
                None => (Since::Now, None),
            },
        };
        let batch = batch.unwrap_or(self.batch);
        let request = JoinRequest { channel: room.clone(), since, batch, snapshot };
        let mut joined = match edge.parts.fanout.prepare_join(&self.connection, request).await {
            Ok(joined) => joined,
            Err(error) => {
                self.leave(edge, &room).await;
                return Err(error.into());
            }
        };
        joined.ack.since = stored.filter(|_| joined.ack.recovered);
        self.joined(edge, &joined.ack);
        // Before the first message of the room, which is handed over next.
        reply.send(&self.voice, &joined.ack).await;
        // A long replay must not keep this client's other requests waiting.
        edge.parts.fanout.finish_join(self.connection.clone(), joined);
        Ok(())
    }

    /// Joins the user's inbox, from the oldest message that waits there. There is nobody to tell of a failure:
    /// what waits is still there on the next connect.
    pub(super) async fn join_inbox(&self, edge: &Edge, channel: ChannelName) {
        let Some(user) = &self.user_id else { return };
        let since = match edge.parts.notifier.catch_up(user, &channel).await {
            Ok(since) => since,
            Err(error) => {
                tracing::warn!(sid = &*self.sid, %error, "what waits for a user is not known; only news follow");
                Since::Now
            }
        };
        self.state().enter(&channel);
        let request = JoinRequest { channel: channel.clone(), since, batch: self.batch, snapshot: false };
        match edge.parts.fanout.prepare_join(&self.connection, request).await {
            Ok(joined) => {
                self.joined(edge, &joined.ack);
                edge.parts.fanout.finish_join(self.connection.clone(), joined);
            }
            Err(error) => {
                tracing::warn!(sid = &*self.sid, %error, "an inbox could not be joined");
                self.leave(edge, &channel).await;
            }
        }
    }

    /// Before the first message of the room: it is in it.
    fn joined(&self, edge: &Edge, ack: &JoinAck) {
        edge.parts.presence.enter(&self.sid, &ack.room);
        if let Some(tap) = &self.tap {
            tap.joined(&ack.room, &Position { epoch: ack.epoch.clone(), offset: ack.offset });
        }
    }

    pub(super) async fn leave(&self, edge: &Edge, room: &ChannelName) {
        let was_there = {
            let mut state = self.state();
            let before = state.rooms.len();
            state.rooms.retain(|other| other != room);
            state.places.forget(room);
            state.rooms.len() < before
        };
        if was_there {
            self.give_back(room);
        }
        edge.parts.presence.leave(&self.sid, room);
        edge.parts.fanout.leave(room, self.connection.id()).await;
    }

    /// Whether `room` is the inbox of this client's user.
    pub(super) fn is_inbox(&self, room: &ChannelName) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.channels().contains(room))
    }

    /// Counts a room, of this connection and of its user. The inbox is there without being asked for, and takes
    /// nobody's room.
    async fn count_room(&self, edge: &Edge, room: &ChannelName) -> Result<(), Refusal> {
        if self.is_inbox(room) {
            self.state().enter(room);
            return Ok(());
        }
        let limit = edge.options.rooms_per_connection;
        {
            let state = self.state();
            if state.rooms.contains(room) {
                return Ok(());
            }
            let counted = state.rooms.iter().filter(|room| !self.is_inbox(room)).count();
            if counted >= limit {
                met(Reason::Rooms);
                let text = format!("a connection may be in {limit} rooms; leave one first");
                return Err(Refusal::new(Reason::Rooms.code(), text));
            }
        }
        if let Some(seat) = self.seat() {
            let most = Some(edge.parts.crowd.limits().rooms_per_user).filter(|most| *most > 0);
            if !seat.enter(room, most).await {
                met(Reason::Rooms);
                return Err(Refusal::new(Reason::Rooms.code(), Reason::Rooms.detail()));
            }
        }
        self.state().enter(room);
        Ok(())
    }

    /// The room counts no more for the user.
    pub(super) fn give_back(&self, room: &ChannelName) {
        if let Some(seat) = self.seat().filter(|_| !self.is_inbox(room)) {
            seat.leave(room);
        }
    }

    fn seat(&self) -> Option<&Seat> {
        self.admitted.as_ref()?.seat.as_ref()
    }
}

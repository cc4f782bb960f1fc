//! Who the client of a session is: a newer token in place of the one before, and the end when it may not stay.

use std::sync::Arc;

use serde_json::json;

use super::super::protocol::Refusal;
use super::super::reply::{self, Reply};
use super::super::{Edge, packet};
use super::Session;
use crate::auth::{AuthError, Denied, Identity};
use crate::config::secret::Secret;
use crate::metrics;
use crate::model::ChannelName;

impl Session {
    /// Who the client is now.
    pub(in super::super) fn identity(&self) -> Arc<Identity> {
        self.state().identity.clone()
    }

    /// Goes on with a newer token of the same user, and leaves the rooms that are not for it any more.
    pub(super) async fn refresh(
        self: &Arc<Self>,
        edge: &Edge,
        token: &Secret,
        reply: &Reply,
    ) -> Result<(), Refusal> {
        let identity = edge.parts.auth.identify(Some(token.reveal()), self.user_id.clone()).await;
        let identity = identity.inspect_err(|_| metrics::rejected("unauthorized"))?;
        if identity.user() != self.user_id.as_ref() {
            return Err(Refusal::new(
                "other_user",
                "the token is that of another user: connect anew with it",
            ));
        }
        let (lost, unknown) = self.lost_rooms(edge, &identity).await;
        if let Some(denied) = unknown {
            // The token before holds on.
            return Err(denied.into());
        }
        self.state().identity = identity.clone();
        edge.parts.auth.note(&identity);
        // Whoever was shut out meanwhile was looked at with the token before.
        if let Some(error) = edge.parts.auth.judge(&identity) {
            edge.dismiss(self.id, self, &error);
            return Err(error.into());
        }
        let lost: Vec<ChannelName> = lost.into_iter().map(|(room, _)| room).collect();
        for room in &lost {
            self.leave(edge, room).await;
        }
        let refreshed = json!({ "ok": true, "expiresAt": identity.expires_at_ms(), "left": lost });
        reply.send(&self.voice, &refreshed).await;
        Ok(())
    }

    /// Leaves the rooms that are not for its client any more, and tells it of each; whether that is known of all.
    pub(super) async fn leave_lost(&self, edge: &Edge) -> bool {
        let (lost, unknown) = self.lost_rooms(edge, &self.identity()).await;
        for (room, denied) in lost {
            self.leave(edge, &room).await;
            let Refusal { code, message } = denied.into();
            let notice = json!({ "code": code, "message": message, "event": "room:join", "room": room });
            let say = || self.voice.say_indirectly(|socket| socket.emit("error", &notice));
            reply::offer(self.id, say).await;
            reply::offer(self.id, || self.voice.flush()).await;
        }
        unknown.is_none()
    }

    /// Those of its rooms that `identity` may not read, and why; and why nothing is known of others, if so. Its inbox is
    /// its own, whatever its roles are.
    async fn lost_rooms(
        &self,
        edge: &Edge,
        identity: &Identity,
    ) -> (Vec<(ChannelName, Denied)>, Option<Denied>) {
        let rooms = self.state().rooms.clone();
        let (mut lost, mut unknown) = (Vec::new(), None);
        for room in rooms.into_iter().filter(|room| !self.is_inbox(room)) {
            match edge.parts.rights.read(identity, &room).await {
                Ok(_) => {}
                Err(denied @ Denied::Unknown(_)) => unknown = Some(denied),
                Err(denied) => lost.push((room, denied)),
            }
        }
        (lost, unknown)
    }

    /// Tells the client why it may not stay. Nothing follows.
    pub(in super::super) fn say_farewell(&self, error: &AuthError) {
        let notice = json!({ "code": error.code(), "message": error.to_string(), "event": "auth" });
        let said = self
            .voice
            .say(|| packet::event("error", &notice.to_string()), |socket| socket.emit("error", &notice));
        if let Err(error) = said.and_then(|()| self.voice.flush()) {
            tracing::debug!(sid = &*self.sid, ?error, "nobody could be told why their connection ends");
        }
    }
}

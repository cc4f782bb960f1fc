//! Who the client of a session is: a newer token in place of the one before, and the end when it may not stay.

use std::sync::Arc;

use serde_json::json;

use super::super::protocol::Refusal;
use super::super::reply::Reply;
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
    pub(super) async fn refresh(&self, edge: &Edge, token: &Secret, reply: &Reply) -> Result<(), Refusal> {
        let identity = edge.parts.auth.identify(Some(token.reveal()), self.user_id.clone()).await;
        let identity = identity.inspect_err(|_| metrics::rejected("unauthorized"))?;
        if identity.user() != self.user_id.as_ref() {
            return Err(Refusal::new(
                "other_user",
                "the token is that of another user: connect anew with it",
            ));
        }
        let lost = self.lost_rooms(edge, &identity).await?;
        self.state().identity = identity.clone();
        edge.parts.auth.note(&identity);
        for room in &lost {
            self.leave(edge, room).await;
        }
        let refreshed = json!({ "ok": true, "expiresAt": identity.expires_at_ms(), "left": lost });
        reply.send(&self.voice, &refreshed).await;
        Ok(())
    }

    /// Those of its rooms that `identity` may not read. Its inbox is its own, whatever its roles are.
    async fn lost_rooms(&self, edge: &Edge, identity: &Identity) -> Result<Vec<ChannelName>, Refusal> {
        let rooms = self.state().rooms.clone();
        let mut lost = Vec::new();
        for room in rooms.into_iter().filter(|room| !self.is_inbox(room)) {
            match edge.parts.rights.read(identity, &room).await {
                Ok(_) => {}
                // The token before holds on.
                Err(denied @ Denied::Unknown(_)) => return Err(denied.into()),
                Err(_) => lost.push(room),
            }
        }
        Ok(lost)
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

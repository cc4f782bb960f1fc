//! Replies: acknowledgements that wait for room instead of being dropped.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use socketioxide::SendError as SocketSendError;
use socketioxide::adapter::{Adapter, LocalAdapter};
use socketioxide::extract::AckSender;
use socketioxide::handler::FromMessageParts;
use socketioxide::socket::{Sid, Socket};
use socketioxide_core::Value;

use super::packet;
use super::protocol::Refusal;
use super::voice::Voice;
use crate::fanout::SendError;

/// How often a full socket is offered an acknowledgement again.
const RETRY: Duration = Duration::from_millis(10);
/// After this long the peer does not read, and its connection ends by other means.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says something to `sid`, and again while there is no room for it.
pub(super) async fn offer(sid: Sid, mut say: impl FnMut() -> Result<(), SendError>) {
    let patience = tokio::time::timeout(PATIENCE, async {
        // The library drops what finds no room, and takes the sender with it: offer it anew.
        while say() == Err(SendError::Full) {
            tokio::time::sleep(RETRY).await;
        }
    });
    if patience.await.is_err() {
        tracing::warn!(%sid, "a reply found no room for {PATIENCE:?} and was dropped");
    }
}

/// The way back to whoever sent an event.
pub(super) struct Reply<A: Adapter = LocalAdapter> {
    socket: Arc<Socket<A>>,
    ack_id: Option<i64>,
}

impl<A: Adapter> fmt::Debug for Reply<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("sid", &self.socket.id).field("ack_id", &self.ack_id).finish()
    }
}

impl<A: Adapter> FromMessageParts<A> for Reply<A> {
    type Error = Infallible;

    fn from_message_parts(
        socket: &Arc<Socket<A>>,
        _: &mut Value,
        ack_id: &Option<i64>,
    ) -> Result<Self, Infallible> {
        Ok(Self { socket: socket.clone(), ack_id: *ack_id })
    }
}

/// A reply that does not keep its socket, which may hold it.
#[derive(Debug)]
pub(super) struct WeakReply<A: Adapter = LocalAdapter> {
    socket: Weak<Socket<A>>,
    ack_id: Option<i64>,
}

impl<A: Adapter> WeakReply<A> {
    /// The reply, if its socket is still there.
    pub(super) fn upgrade(&self) -> Option<Reply<A>> {
        Some(Reply { socket: self.socket.upgrade()?, ack_id: self.ack_id })
    }
}

impl<A: Adapter> Reply<A> {
    /// The same, for places that the socket itself leads to.
    pub(super) fn downgrade(&self) -> WeakReply<A> {
        WeakReply { socket: Arc::downgrade(&self.socket), ack_id: self.ack_id }
    }

    /// Whose it is.
    pub(super) fn sid(&self) -> Sid {
        self.socket.id
    }

    /// Answers the callback, if there is one; after everything that `voice` said before.
    pub(super) async fn send(&self, voice: &Voice, data: &impl Serialize) {
        let Some(id) = self.ack_id else { return };
        // What cannot be written as JSON cannot be sent the other way either.
        let json = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
        let say = || voice.say(|| packet::acknowledgement(id, &json), |_| self.ack_sender().send(data));
        offer(self.sid(), say).await;
        // Nobody else may have a reason to.
        offer(self.sid(), || voice.flush()).await;
    }

    /// Refuses: to the callback, or as an `error` event where there is none. In the order of `voice`.
    pub(super) async fn refuse(&self, voice: &Voice, event: &str, refusal: &Refusal) {
        let say = || voice.say_indirectly(|_| self.try_refuse(event, refusal));
        offer(self.sid(), say).await;
    }

    /// Refuses at once; a full socket does without it.
    pub(super) fn refuse_now(&self, event: &str, refusal: &Refusal) {
        if let Err(error) = self.try_refuse(event, refusal) {
            tracing::debug!(sid = %self.socket.id, event, %error, "a refusal found no room and was dropped");
        }
    }

    fn try_refuse(&self, event: &str, refusal: &Refusal) -> Result<(), SocketSendError> {
        if self.ack_id.is_some() {
            return self.ack_sender().send(&serde_json::json!({ "ok": false, "error": refusal }));
        }
        let Refusal { code, message } = refusal;
        self.socket.emit("error", &serde_json::json!({ "code": code, "message": message, "event": event }))
    }

    /// Sends an event at once; a full socket does without it.
    pub(super) fn emit_now(&self, event: &str, data: &impl Serialize) {
        if let Err(error) = self.socket.emit(event, data) {
            tracing::debug!(sid = %self.socket.id, event, %error, "an event found no room and was dropped");
        }
    }

    fn ack_sender(&self) -> AckSender<A> {
        let mut no_data = Value::Bytes(bytes::Bytes::new());
        match AckSender::from_message_parts(&self.socket, &mut no_data, &self.ack_id) {
            Ok(sender) => sender,
            Err(never) => match never {},
        }
    }
}

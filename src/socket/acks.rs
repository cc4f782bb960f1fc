//! Acknowledged delivery: critical messages are sent again until the client says that it has them.
//!
//! Each one is the same message with the same id and offset, so that a receiver knows a repetition by
//! `offset <= last`. What is never acknowledged is still in its channel's history, where the client finds it on
//! its return.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use socketioxide::ack::AckStream;
use socketioxide::extract::SocketRef;
use socketioxide::{AckError, SendError};

use crate::model::EventName;

/// How many messages of one connection may wait for their acknowledgement; more wait in its outbox.
const WAITING: usize = 64;
/// How often a message is sent in all.
const TRIES: u32 = 5;
/// The pause after the first try whose acknowledgement did not come; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The messages of one connection that wait for their acknowledgement.
#[derive(Debug, Clone, Default)]
pub(super) struct Acks {
    waiting: Arc<AtomicUsize>,
}

impl Acks {
    /// Whether no more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Acquire) >= WAITING
    }

    /// Sends the message, and again until it is acknowledged, whereupon `then` is called, or the connection ends.
    pub(super) fn send(
        &self,
        socket: &SocketRef,
        event: &EventName,
        json: &Arc<RawValue>,
        then: Option<impl FnOnce() + Send + 'static>,
    ) -> Result<(), SendError> {
        let first: AckStream<Value> = socket.emit_with_ack(event.as_str(), &**json)?;
        let waiting = Waiting::new(&self.waiting);
        let (socket, event, json) = (socket.clone(), event.clone(), json.clone());
        tokio::spawn(async move {
            // Counted until the task ends, however it ends.
            let _waiting = waiting;
            if repeat(&socket, &event, &json, first).await
                && let Some(then) = then
            {
                then();
            }
        });
        Ok(())
    }
}

/// Sends again until the message is acknowledged; whether it was.
async fn repeat(socket: &SocketRef, event: &EventName, json: &RawValue, first: AckStream<Value>) -> bool {
    let (mut ack, mut pause) = (Some(first), FIRST_PAUSE);
    for _ in 1..TRIES {
        if let Some(ack) = ack.take()
            && is_acknowledged(&ack.await)
        {
            return true;
        }
        if !socket.connected() {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
        // A full queue is one more try that did not get through.
        ack = socket.emit_with_ack(event.as_str(), json).ok();
    }
    if let Some(ack) = ack
        && is_acknowledged(&ack.await)
    {
        return true;
    }
    tracing::warn!(sid = %socket.id, %event, "a critical message was never acknowledged; history keeps it");
    false
}

/// An answer that cannot be read is one all the same: clients often acknowledge with nothing.
fn is_acknowledged(answer: &Result<Value, AckError>) -> bool {
    matches!(answer, Ok(_) | Err(AckError::Decode(_)))
}

/// Counts one waiting message for as long as it lives.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

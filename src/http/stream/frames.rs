//! Frames as server-sent events, the queue where they wait, and the body that writes them.

use std::borrow::Cow;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use crate::fanout::{Frame, SendError, Transport};
use crate::listener::KillSwitch;
use crate::model::{Position, Published, Snapshot};

/// How many events wait for the body; what does not fit waits in the outbox, which can conflate it.
pub(super) const QUEUE: usize = 256;
/// A stream is not silent for longer, so that nobody on the way takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What an `EventSource` waits before it comes back, in ms.
const RETRY_MS: u32 = 2000;

/// The part of a frame that its id is made of.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    offset: u64,
}

/// Writes to one stream.
pub(super) struct StreamTransport {
    pub(super) events: mpsc::Sender<Bytes>,
    pub(super) ended: CancellationToken,
    // None where the request did not come through our listener.
    pub(super) kill: Option<KillSwitch>,
}

impl Transport for StreamTransport {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        // Reserved first: what finds no room is offered again, and need not be written for that.
        let permit = self.events.try_reserve().map_err(|error| match error {
            TrySendError::Full(()) => SendError::Full,
            TrySendError::Closed(()) => SendError::Closed,
        })?;
        let mut text = String::new();
        match frame {
            Frame::Message(message, conflated) => write_message(&mut text, message, conflated),
            // Streams ask for single messages; should an array come all the same, it is taken apart.
            Frame::Batch(messages) => {
                messages
                    .iter()
                    .for_each(|(message, conflated)| write_message(&mut text, message, *conflated));
            }
            Frame::Reset(notice) => write_event(&mut text, "room:reset", notice),
        }
        permit.send(text.into());
        Ok(())
    }

    fn kill(&self) {
        self.ended.cancel();
        // A body whose peer never reads is not asked for more, so that its end alone would not be seen.
        if let Some(switch) = &self.kill {
            switch.press();
        }
    }
}

/// What every stream begins with: when to come back, and, where nothing is replayed, the place and the state.
pub(super) fn opening(top: Option<&Position>, snapshot: Option<&Snapshot>) -> Bytes {
    let mut text = format!("retry: {RETRY_MS}\n");
    if let Some(Position { epoch, offset }) = top {
        // An id without data is remembered, and is no event.
        text.push_str(&format!("id: {epoch}:{offset}\n"));
    }
    text.push('\n');
    // A snapshot always serialises.
    if let Some(json) = snapshot.and_then(|snapshot| to_raw_value(snapshot).ok()) {
        write_event(&mut text, "snapshot", &json);
    }
    text.into()
}

fn write_message(text: &mut String, message: &Published, conflated: u64) {
    write_event(text, message.event.as_str(), &message.json_conflated(conflated));
}

fn write_event(text: &mut String, name: &str, json: &RawValue) {
    // What is sent to receivers always has its place; an event without an id would be read all the same.
    if let Ok(Place { epoch, offset }) = serde_json::from_str(json.get()) {
        text.push_str(&format!("id: {epoch}:{offset}\n"));
    }
    text.push_str(&format!("event: {name}\n"));
    // Payloads are as their senders wrote them, so that there may be line breaks between their parts.
    for line in json.get().split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
}

/// The body of a stream: what comes through `queue`, until `ended`.
pub(super) fn body(queue: mpsc::Receiver<Bytes>, ended: CancellationToken) -> Body {
    let events = stream::unfold((queue, ended), async |(mut queue, ended)| {
        let next = tokio::select! {
            biased;
            () = ended.cancelled() => None,
            next = tokio::time::timeout(KEEP_ALIVE, queue.recv()) => {
                next.unwrap_or(Some(Bytes::from_static(b": keep-alive\n\n")))
            }
        };
        next.map(|event| (Ok::<_, Infallible>(event), (queue, ended)))
    });
    Body::from_stream(events)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::model::Priority;
    use crate::model::message::sample;

    fn transport(queue: usize) -> (StreamTransport, mpsc::Receiver<Bytes>) {
        let (events, received) = mpsc::channel(queue);
        (StreamTransport { events, ended: CancellationToken::new(), kill: None }, received)
    }

    fn send(transport: &StreamTransport, data: &str) -> Result<(), SendError> {
        transport.send(Frame::Message(&sample("a", "test:log", Priority::Normal, 7, None, data), 0))
    }

    #[test]
    fn a_message_is_an_event_with_its_place_for_an_id() {
        let (transport, mut received) = transport(1);
        send(&transport, "{}").unwrap();
        let text = String::from_utf8(received.try_recv().unwrap().to_vec()).unwrap();
        assert!(text.starts_with("id: e:7\nevent: test:log\ndata: {\"id\":"), "{text}");
        assert!(text.ends_with("\"offset\":7}\n\n"), "{text}");
    }

    #[test]
    fn line_breaks_between_the_parts_of_a_payload_do_not_end_the_event() {
        let (transport, mut received) = transport(1);
        send(&transport, "[1,\r\n2]").unwrap();
        let text = String::from_utf8(received.try_recv().unwrap().to_vec()).unwrap();
        let data: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let value: serde_json::Value = serde_json::from_str(&data.join("\n")).unwrap();
        assert_eq!((&value["data"], &value["offset"]), (&serde_json::json!([1, 2]), &7.into()));
        assert_eq!(text.lines().filter(|line| line.is_empty()).count(), 1, "{text:?}");
    }

    #[test]
    fn a_full_queue_and_a_client_that_has_gone_are_told_apart() {
        let (transport, received) = transport(1);
        send(&transport, "{}").unwrap();
        assert_eq!(send(&transport, "{}"), Err(SendError::Full));
        drop(received);
        assert_eq!(send(&transport, "{}"), Err(SendError::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_kept_alive_and_ends_when_it_is_killed() {
        let (transport, received) = transport(1);
        let mut body = body(received, transport.ended.clone());
        let started = tokio::time::Instant::now();
        for _ in 0..2 {
            let comment = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(comment, ": keep-alive\n\n");
        }
        assert_eq!(started.elapsed(), 2 * KEEP_ALIVE);
        transport.kill();
        assert!(body.frame().await.is_none());
    }
}

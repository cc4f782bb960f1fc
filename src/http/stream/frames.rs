//! Frames as server-sent events, the queue where they wait, and the body that writes them.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::open::End;
use crate::fanout::{Frame, SendError, Transport};
use crate::listener::KillSwitch;
use crate::model::farewell::{GOING_AWAY, going_away};
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
    pub(super) ended: End,
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
        self.ended.end();
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

/// Why a reader may not stay, as the last event of its stream.
pub(super) fn dismissal(code: &str, why: &impl Display, event: &str) -> Bytes {
    let notice = json!({ "code": code, "message": why.to_string(), "event": event });
    format!("event: error\ndata: {notice}\n\n").into()
}

/// The body of a stream: what comes through `queue`, until `ended`. If that is because its reader may not stay, it is
/// told why; if it is because the server goes away, which `closing` says, what waits is written before it, and when to
/// come back.
pub(super) fn body(queue: mpsc::Receiver<Bytes>, ended: End, closing: CancellationToken) -> Body {
    let events = stream::unfold(Some((queue, ended, closing)), async |open| {
        let (mut queue, ended, closing) = open?;
        let next = tokio::select! {
            biased;
            () = ended.ended() => {
                let closing = || closing.is_cancelled().then(|| last_words(&mut queue));
                return ended.words().or_else(closing).map(|words| (Ok(words), None));
            }
            next = tokio::time::timeout(KEEP_ALIVE, queue.recv()) => {
                next.unwrap_or(Some(Bytes::from_static(b": keep-alive\n\n")))
            }
        };
        next.map(|event| (Ok::<_, Infallible>(event), Some((queue, ended, closing))))
    });
    Body::from_stream(events)
}

/// What waits, and that the server goes away. Readers come back at different times, so that nobody is overrun.
fn last_words(queue: &mut mpsc::Receiver<Bytes>) -> Bytes {
    let mut text = Vec::new();
    while let Ok(event) = queue.try_recv() {
        text.extend_from_slice(&event);
    }
    let retry_ms = RETRY_MS / 2 + fastrand::u32(..RETRY_MS);
    let mut last = format!("retry: {retry_ms}\n\n");
    write_event(&mut last, GOING_AWAY, &going_away());
    text.extend_from_slice(last.as_bytes());
    text.into()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::model::Priority;
    use crate::model::message::sample;

    fn transport(queue: usize) -> (StreamTransport, mpsc::Receiver<Bytes>) {
        let (events, received) = mpsc::channel(queue);
        (StreamTransport { events, ended: End::default(), kill: None }, received)
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
        let mut body = body(received, transport.ended.clone(), CancellationToken::new());
        let started = tokio::time::Instant::now();
        for _ in 0..2 {
            let comment = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(comment, ": keep-alive\n\n");
        }
        assert_eq!(started.elapsed(), 2 * KEEP_ALIVE);
        transport.kill();
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_ends_with_its_server_says_all_it_has_and_when_to_come_back() {
        let (transport, received) = transport(2);
        send(&transport, "1").unwrap();
        send(&transport, "2").unwrap();
        let closing = CancellationToken::new();
        let body = body(received, End::within(&closing), closing.clone());
        closing.cancel();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let blocks: Vec<_> = text.trim_end().split("\n\n").collect();
        assert_eq!(blocks.len(), 4, "{text}");
        assert!(blocks[0].starts_with("id: e:7\n") && blocks[1].starts_with("id: e:7\n"), "{text}");
        let retry: u32 = blocks[2].strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!((1000..3000).contains(&retry), "{retry}");
        // Without an id, so that the place stays the one of the last message.
        assert!(blocks[3].starts_with("event: system:maintenance:start\ndata: {"), "{text}");
    }
}

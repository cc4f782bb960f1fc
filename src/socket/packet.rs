//! Packets: Socket.IO packets of the main namespace as whole WebSocket frames, ready to be written.
//!
//! A frame is the text of Engine.IO's `4` (message), Socket.IO's packet type (`2` event, `3` acknowledgement) and its
//! array of arguments, in one frame of a server (RFC 6455, 5.2: final, text, not masked). The names of events are of
//! an alphabet that needs no escaping.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::Published;

/// The event of several messages at once.
pub(super) const BATCH: &str = "message:batch";

/// What the end of a WebSocket says for people.
const GOING_AWAY_REASON: &str = "this server goes away; connect again";

/// An event with one argument.
pub(super) fn event(name: &str, json: &str) -> Bytes {
    frame(&["42[\"", name, "\",", json, "]"])
}

/// One message; the frame is made once and shared by all who receive it.
pub(super) fn message(message: &Arc<Published>, conflated: u64) -> Bytes {
    let encode = |message: &Published| {
        let before = format!("42[\"{}\",", message.event);
        frame(&[&message.text_between(&before, conflated, "]")])
    };
    if conflated > 0 { encode(message) } else { message.frame(encode).clone() }
}

/// `message:batch`.
pub(super) fn batch(messages: &[(Arc<Published>, u64)]) -> Bytes {
    let mut parts = Vec::with_capacity(2 * messages.len() + 3);
    parts.extend(["42[\"", BATCH, "\",["]);
    let spared: Vec<_> =
        messages.iter().map(|(message, n)| (*n > 0).then(|| message.json_conflated(*n))).collect();
    for (n, ((message, _), spared)) in messages.iter().zip(&spared).enumerate() {
        if n > 0 {
            parts.push(",");
        }
        parts.push(spared.as_ref().map_or_else(|| message.json().get(), |json| json.get()));
    }
    parts.push("]]");
    frame(&parts)
}

/// The acknowledgement with this id.
pub(super) fn acknowledgement(id: i64, json: &str) -> Bytes {
    frame(&["43", &id.to_string(), "[", json, "]"])
}

/// The end of a WebSocket (RFC 6455, 5.5.1): 1001, its server goes away.
pub(super) fn going_away() -> Bytes {
    let code = 1001_u16.to_be_bytes();
    let mut frame = vec![0x88, 2 + GOING_AWAY_REASON.len() as u8];
    frame.extend(code);
    frame.extend(GOING_AWAY_REASON.as_bytes());
    frame.into()
}

fn frame(parts: &[&str]) -> Bytes {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(len + 10);
    frame.push(0x81);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(long)) => {
            frame.push(126);
            frame.extend(long.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    parts.iter().for_each(|part| frame.extend(part.as_bytes()));
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_frame_is_written_as_its_size_asks() {
        for (data, header) in [(0, 2), (117, 2), (118, 4), (65_527, 4), (65_528, 10)] {
            let frame = event("x", &"1".repeat(data));
            assert_eq!(frame.len(), header + data + 8, "{data}");
            assert_eq!(&frame[header..header + 7], b"42[\"x\",");
        }
        assert_eq!(&acknowledgement(12, "{}")[..], b"\x81\x084312[{}]");
    }
}

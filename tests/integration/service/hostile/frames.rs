//! WebSocket frames (RFC 6455): what is no frame, and frames that make no sense.

use super::Answer::{Closes, Ends, Says, Silence};
use super::Attack::Frames;
use super::raw::{frame, text};
use super::{Answer, Row};

const FIN_TEXT: u8 = 0x81;
const FIN_BINARY: u8 = 0x82;
const TEXT: u8 = 0x01;
const CONTINUATION: u8 = 0x00;
const FIN_CONTINUATION: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A head that promises `length` bytes, and none of them.
fn head(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first, 0x80 | 127];
    head.extend(length.to_be_bytes());
    head.extend([0; 4]);
    head
}

fn masked(payload: &str, mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![FIN_TEXT, 0x80 | u8::try_from(payload.len()).expect("short")];
    frame.extend(mask);
    frame.extend(payload.bytes().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub(super) fn rows() -> Vec<Row> {
    let ping = "42[\"heartbeat:ping\",{\"t\":1}]";
    let pong = Says("\"t\":1");
    let halves = ping.split_at(10);
    let bytes = |frames: &[&[u8]]| frames.concat();
    let every_byte: Vec<u8> = ping
        .bytes()
        .enumerate()
        .flat_map(|(n, byte)| {
            let first = if n == 0 {
                TEXT
            } else if n + 1 == ping.len() {
                FIN_CONTINUATION
            } else {
                CONTINUATION
            };
            frame(first, &[byte])
        })
        .collect();
    let empties = [
        frame(TEXT, b"").repeat(1),
        frame(CONTINUATION, b"").repeat(5000),
        frame(FIN_CONTINUATION, ping.as_bytes()),
    ]
    .concat();
    let endless = [frame(TEXT, &[b'4'; 4000]), frame(CONTINUATION, &[b'x'; 4000]).repeat(10)].concat();
    let long_way = {
        let mut frame = vec![FIN_TEXT, 0x80 | 127];
        frame.extend((ping.len() as u64).to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(ping.as_bytes());
        frame
    };
    let cells: Vec<(&'static str, Vec<u8>, Answer)> = vec![
        ("a frame as it should be", text(ping), pong),
        ("a mask that is not zero", masked(ping, [0xde, 0xad, 0xbe, 0xef]), pong),
        (
            "a message in two frames",
            bytes(&[&frame(TEXT, halves.0.as_bytes()), &frame(FIN_CONTINUATION, halves.1.as_bytes())]),
            pong,
        ),
        ("a frame for every byte", every_byte, pong),
        (
            "a ping amid a message",
            bytes(&[
                &frame(TEXT, halves.0.as_bytes()),
                &frame(PING, b"x"),
                &frame(FIN_CONTINUATION, halves.1.as_bytes()),
            ]),
            pong,
        ),
        ("5,000 frames without content", empties, pong),
        ("a length that takes the long way", long_way, pong),
        ("a frame without a mask", b"\x81\x0242".to_vec(), Ends),
        ("the first reserved bit", frame(0xc1, b"40"), Ends),
        ("the second reserved bit", frame(0xa1, b"40"), Ends),
        ("the third reserved bit", frame(0x91, b"40"), Ends),
        ("a reserved kind of data", frame(0x83, b"x"), Ends),
        ("a reserved kind of control", frame(0x8b, b"x"), Ends),
        ("a continuation of nothing", frame(FIN_CONTINUATION, b"x"), Ends),
        ("a message amid a message", bytes(&[&frame(TEXT, b"42["), &text(ping)]), Ends),
        ("a ping that is too long", frame(PING, &[b'x'; 126]), Ends),
        ("a ping in parts", frame(0x09, b"x"), Ends),
        ("a close that is too long", frame(CLOSE, &[b'x'; 200]), Ends),
        ("a close in parts", frame(0x08, b""), Ends),
        ("text that is no UTF-8", frame(FIN_TEXT, b"42[\"\xff\"]"), Ends),
        ("UTF-8 that is cut", frame(FIN_TEXT, b"42[\"\xe2\x82"), Ends),
        ("a surrogate as UTF-8", frame(FIN_TEXT, b"42[\"\xed\xa0\x80\"]"), Ends),
        ("UTF-8 that takes the long way", frame(FIN_TEXT, b"42[\"\xc0\xaf\"]"), Ends),
        (
            "a character in two frames",
            bytes(&[
                &frame(TEXT, b"42[\"heartbeat:ping\",{\"t\":\"\xe2"),
                &frame(FIN_CONTINUATION, b"\x82\xac\"}]"),
            ]),
            Says("\u{20ac}"),
        ),
        ("a frame that is too large", frame(FIN_TEXT, &[b'4'; 40_000]), Closes(1009)),
        ("a head of 16 EiB", head(FIN_TEXT, u64::MAX), Closes(1009)),
        ("a head of 1 GiB", head(FIN_TEXT, 1 << 30), Closes(1009)),
        ("a message that never ends", endless, Closes(1009)),
        ("half a head", vec![FIN_TEXT], Ends),
        ("half a frame", frame(FIN_TEXT, &[b'4'; 8000])[..4000].to_vec(), Ends),
        ("a close", frame(CLOSE, &1000_u16.to_be_bytes()), Closes(1000)),
        ("a close without a code", frame(CLOSE, b""), Ends),
        ("a close of one byte", frame(CLOSE, b"x"), Ends),
        ("a close with a code that is none", frame(CLOSE, &999_u16.to_be_bytes()), Closes(1002)),
        ("a close with a code that nobody sends", frame(CLOSE, &1006_u16.to_be_bytes()), Closes(1002)),
        ("a close whose reason is no UTF-8", frame(CLOSE, b"\x03\xe8\xff"), Ends),
        ("frames after a close", bytes(&[&frame(CLOSE, &1000_u16.to_be_bytes()), &text(ping)]), Closes(1000)),
        ("a pong that nobody asked for", frame(PONG, b"x"), Silence),
        ("a thousand pings", frame(PING, b"").repeat(1000), Silence),
        ("binary where none is taken", frame(FIN_BINARY, b"\x01\x02\x03"), Ends),
        ("no binary where none is taken", frame(FIN_BINARY, b""), Ends),
        ("a request of HTTP amid frames", b"GET / HTTP/1.1\r\nhost: t\r\n\r\n".to_vec(), Ends),
    ];
    cells.into_iter().map(|(name, frames, answer)| Row { name, attack: Frames(frames), answer }).collect()
}

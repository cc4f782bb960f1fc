//! HTTP/1.1 requests and responses, and WebSocket frames (RFC 6455), as bytes.

use std::io;

use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The longest body and the longest frame that are taken.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// The opcodes of frames that are written.
pub(crate) const TEXT: u8 = 1;
pub(crate) const PONG: u8 = 10;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const MAX_HEADERS: usize = 64;

/// A complete request.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) websocket_key: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Reads the request at the beginning of `bytes`, and how long it is; none while it is not complete. Bodies have
/// a `Content-Length`.
pub(crate) fn parse_request(bytes: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    if header("transfer-encoding").is_some() {
        return Err(malformed("bodies need a length"));
    }
    let length = header("content-length").map_or(Ok(0), str::parse::<usize>).map_err(io::Error::other)?;
    if length > MAX_BYTES {
        return Err(malformed("the body is too long"));
    }
    let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        websocket_key: header("sec-websocket-key").map(str::to_owned),
        body: body.to_owned(),
    };
    Ok(Some((request, start + length)))
}

pub(crate) fn response(status: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = "content-type: application/json\r\ncontent-length";
    format!("HTTP/1.1 {status}\r\n{head}: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The answer to a request with that `Sec-WebSocket-Key`.
pub(crate) fn upgrade(key: &str) -> Vec<u8> {
    let accept = derive_accept_key(key.as_bytes());
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket";
    format!("{head}\r\nsec-websocket-accept: {accept}\r\n\r\n").into_bytes()
}

/// A frame that a client sent.
pub(crate) enum Frame {
    Text(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// Reads the frame at the beginning of `bytes`, and how long it is; none while it is not complete. Nobody whom
/// this server meets sends fragments or binary frames.
pub(crate) fn parse_frame(bytes: &[u8]) -> io::Result<Option<(Frame, usize)>> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if second & MASKED == 0 {
        return Err(malformed("a client's frames are masked"));
    }
    let short = usize::from(second & !MASKED);
    let (length, at) = match short {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (usize::from(u16::from_be_bytes([high, low])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|long| <[u8; 8]>::try_from(long).ok()) {
            Some(long) => (usize::try_from(u64::from_be_bytes(long)).unwrap_or(usize::MAX), 10),
            None => return Ok(None),
        },
        short => (short, 2),
    };
    if length > MAX_BYTES {
        return Err(malformed("the frame is too long"));
    }
    let end = at + 4 + length;
    let Some((mask, masked)) = bytes.get(at..end).and_then(|rest| rest.split_at_checked(4)) else {
        return Ok(None);
    };
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let frame = match first {
        0x81 => Frame::Text(payload),
        0x88 => Frame::Close,
        0x89 => Frame::Ping(payload),
        0x8a => Frame::Pong,
        _ => return Err(malformed("a fragment, or a frame of unknown kind")),
    };
    Ok(Some((frame, end)))
}

/// A whole frame, as servers write it: not masked.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    out.push(FIN | opcode);
    match payload.len() {
        // The length is in range: the arms say so.
        n @ 0..=125 => out.push(n as u8),
        n @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

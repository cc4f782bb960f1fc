//! The words of the handshake: HTTP upgrade, Engine.IO v4 and Socket.IO v5 packets, as a plain client says them.

use serde_json::{Value, json};

/// How a connection introduces itself and what it joins.
#[derive(Debug, Clone)]
pub(super) struct Greeting {
    /// The whole HTTP request of the upgrade.
    pub(super) upgrade: Vec<u8>,
    /// The Socket.IO connect packet.
    pub(super) connect: Vec<u8>,
    /// Whether batches are asked for with each join.
    pub(super) batch: bool,
}

/// A packet of the server, as far as this client tells them apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Open,
    Ping,
    Connected,
    Refused(&'a [u8]),
    /// The name and arguments of an event, undecoded.
    Event(&'a [u8]),
    /// The arguments of an acknowledgement.
    Ack(&'a [u8]),
    Disconnected,
    Other,
}

/// What a join was answered with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) epoch: Option<String>,
    pub(super) offset: Option<u64>,
    /// Absent where the server does not speak of it.
    pub(super) recovered: Option<bool>,
}

impl Greeting {
    /// For the server at `authority` (`host:port`), whose paths begin with `base`.
    pub(super) fn new(authority: &str, base: &str, token: Option<&str>, batch: bool) -> Self {
        // The key's only use is to show that a server speaks WebSocket, which the next bytes show as well.
        let upgrade = format!(
            "GET {base}/socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: {authority}\r\n\
             upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGlkaW5ncyBiZW5jaCBrZQ==\r\n\r\n"
        );
        let connect =
            token.map_or_else(|| "40".to_owned(), |token| format!("40{}", json!({ "token": token })));
        Self { upgrade: upgrade.into_bytes(), connect: connect.into_bytes(), batch }
    }

    /// The packet that joins `room`, after `since` if there is one.
    pub(super) fn join(&self, room: &str, since: Option<(&str, u64)>) -> Vec<u8> {
        let mut request = json!({ "room": room });
        if let Some((epoch, offset)) = since {
            request["since"] = json!({ "epoch": epoch, "offset": offset });
        }
        if self.batch {
            request["batch"] = true.into();
        }
        let argument = if since.is_some() || self.batch { request } else { room.into() };
        format!("420{}", json!(["room:join", argument])).into_bytes()
    }
}

impl<'a> Packet<'a> {
    pub(super) fn read(text: &'a [u8]) -> Self {
        match text {
            [b'0', ..] => Self::Open,
            [b'2', ..] => Self::Ping,
            [b'1'] | [b'4', b'1', ..] => Self::Disconnected,
            [b'4', b'0', ..] => Self::Connected,
            [b'4', b'2', event @ ..] => Self::Event(event),
            [b'4', b'3', ack @ ..] => {
                let id = ack.iter().take_while(|byte| byte.is_ascii_digit()).count();
                Self::Ack(&ack[id..])
            }
            [b'4', b'4', reason @ ..] => Self::Refused(reason),
            _ => Self::Other,
        }
    }
}

/// Reads the server's answer to the upgrade: its length once it is whole.
pub(super) fn upgraded(bytes: &[u8]) -> Result<Option<usize>, String> {
    const HEAD_BYTES: usize = 16 * 1024;
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        let open = bytes.len() <= HEAD_BYTES;
        return if open { Ok(None) } else { Err("the server's answer to the upgrade has no end".to_owned()) };
    };
    let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    if line.split(' ').nth(1) == Some("101") {
        Ok(Some(end + 4))
    } else {
        Err(format!("the server did not upgrade to WebSocket: {line}"))
    }
}

/// Reads the acknowledgement of a join, or says why there is none.
pub(super) fn joined(arguments: &[u8]) -> Result<Joined, String> {
    let answer: Value =
        serde_json::from_slice(arguments).map_err(|e| format!("the answer to a join is no JSON: {e}"))?;
    let answer = &answer[0];
    if answer["ok"] != true {
        return Err(format!("a join was refused: {}", refusal(&answer["error"])));
    }
    Ok(Joined {
        epoch: answer["epoch"].as_str().map(str::to_owned),
        offset: answer["offset"].as_u64(),
        recovered: answer["recovered"].as_bool(),
    })
}

/// Why a connection was refused, from the text of a `connect_error`.
pub(super) fn refused(reason: &[u8]) -> String {
    format!("the server refused the connection: {}", String::from_utf8_lossy(reason))
}

fn refusal(error: &Value) -> String {
    error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_apart() {
        assert_eq!(Packet::read(b"0{\"sid\":\"x\"}"), Packet::Open);
        assert_eq!(Packet::read(b"2"), Packet::Ping);
        assert_eq!(Packet::read(b"40{\"sid\":\"x\"}"), Packet::Connected);
        assert_eq!(Packet::read(b"42[\"a\",{}]"), Packet::Event(b"[\"a\",{}]"));
        assert_eq!(Packet::read(b"4312[{}]"), Packet::Ack(b"[{}]"));
        assert_eq!(Packet::read(b"44{}"), Packet::Refused(b"{}"));
        assert_eq!(Packet::read(b"41"), Packet::Disconnected);
        assert_eq!(Packet::read(b"1"), Packet::Disconnected);
        assert_eq!(Packet::read(b"6"), Packet::Other);
        assert_eq!(Packet::read(b""), Packet::Other);
    }

    #[test]
    fn the_answer_to_an_upgrade_is_read_once_it_is_whole() {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n\x81\x00";
        for end in 0..answer.len() - 2 {
            assert_eq!(upgraded(&answer[..end]), Ok(None), "{end}");
        }
        assert_eq!(upgraded(answer), Ok(Some(answer.len() - 2)));
        let error = upgraded(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").expect_err("no upgrade");
        assert!(error.contains("503 Service Unavailable"), "{error}");
        assert!(upgraded(&vec![b'x'; 20_000]).is_err());
    }

    #[test]
    fn a_join_asks_for_no_more_than_it_needs() {
        let plain = Greeting::new("h:1", "", None, false);
        assert_eq!(plain.join("r", None), br#"420["room:join","r"]"#);
        let join = String::from_utf8(plain.join("r", Some(("e", 7)))).expect("text");
        assert_eq!(join, r#"420["room:join",{"room":"r","since":{"epoch":"e","offset":7}}]"#);
        let batch = Greeting::new("h:1", "", Some("t"), true);
        assert_eq!(batch.join("r", None), br#"420["room:join",{"batch":true,"room":"r"}]"#);
        assert_eq!(batch.connect, br#"40{"token":"t"}"#);
    }

    #[test]
    fn the_answer_to_a_join_is_a_position_or_a_reason() {
        let answer = joined(br#"[{"ok":true,"epoch":"e","offset":3,"recovered":true}]"#).expect("joined");
        assert_eq!(answer, Joined { epoch: Some("e".to_owned()), offset: Some(3), recovered: Some(true) });
        assert_eq!(joined(br#"[{"ok":true}]"#), Ok(Joined::default()));
        let error = joined(br#"[{"ok":false,"error":{"code":"c","message":"no such room"}}]"#);
        assert_eq!(error, Err("a join was refused: no such room".to_owned()));
    }
}

//! Engine.IO: handshakes, polling, and the change to a WebSocket.

use super::Answer::{Ends, LastStatus, Says, Status};
use super::Attack::{Early, Post, Raw, Upgrade, WithSid};
use super::Row;
use super::raw::{frame, request, text};

const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn get(query: &str) -> Vec<u8> {
    request(&format!("GET /socket.io/?{query}"), "", "")
}

fn upgrade(query: &str, headers: &str) -> Vec<u8> {
    format!("GET /socket.io/?{query} HTTP/1.1\r\nhost: t\r\n{headers}\r\n").into_bytes()
}

pub(super) fn rows() -> Vec<Row> {
    [handshakes(), sessions(), posts(), upgrades()].into_iter().flatten().collect()
}

fn handshakes() -> Vec<Row> {
    let unknown_version = Status(400, "Unsupported protocol version");
    let unknown_transport = Status(400, "Transport unknown");
    let unknown_session = Status(400, "Session ID unknown");
    let cells = [
        ("no query", request("GET /socket.io/", "", ""), unknown_transport),
        ("no version", get("transport=polling"), unknown_version),
        ("version 3", get("EIO=3&transport=polling"), unknown_version),
        ("version 5", get("EIO=5&transport=polling"), unknown_version),
        ("a version that is no number", get("EIO=%34&transport=polling"), unknown_version),
        ("no transport", get("EIO=4"), unknown_transport),
        ("a transport that is none", get("EIO=4&transport=carrier-pigeon"), unknown_transport),
        ("a session that is none", get("EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA"), unknown_session),
        ("a session's id that cannot be one", get("EIO=4&transport=polling&sid=../../x"), unknown_session),
        ("an empty session's id", get("EIO=4&transport=polling&sid="), unknown_session),
        ("a POST without a session", request("POST /socket.io/?EIO=4&transport=polling", "", "40"), Status(400, "Bad handshake method")),
        ("PUT", request("PUT /socket.io/?EIO=4&transport=polling", "", "40"), Status(400, "Bad handshake method")),
        ("another path below", request("GET /socket.io/../etc?EIO=4&transport=carrier", "", ""), unknown_transport),
        ("a path beside", request("GET /socket.iox/?EIO=4&transport=polling", "", ""), Status(404, "not_found")),
        ("a WebSocket without an upgrade", get("EIO=4&transport=websocket"), Status(400, "")),
        (
            "a WebSocket without a key",
            upgrade("EIO=4&transport=websocket", "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"),
            Status(400, ""),
        ),
        (
            "a WebSocket by POST",
            format!("POST /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: t\r\n{UPGRADE}content-length: 0\r\n\r\n").into_bytes(),
            Status(400, "Bad handshake method"),
        ),
    ];
    let row = |(name, bytes, answer)| Row { name, attack: Raw(bytes), answer };
    let mut rows: Vec<Row> = cells.into_iter().map(row).collect();
    rows.extend([
        Row {
            name: "a packet before the namespace",
            attack: Early(text("42[\"room:join\",\"story-good\"]")),
            answer: Ends,
        },
        Row { name: "an acknowledgement before the namespace", attack: Early(text("430[]")), answer: Ends },
        Row {
            name: "a namespace that is none, first",
            attack: Early(text("40/admin,")),
            answer: Says("44/admin,{\"message\":\"Invalid namespace\"}"),
        },
        Row {
            name: "a handshake that is no object",
            attack: Early(text("40[1]")),
            answer: Says("invalid_handshake"),
        },
        Row {
            name: "a handshake with a broken name",
            attack: Early(text("40{\"userId\":\"a b\"}")),
            answer: Says("invalid_handshake"),
        },
        Row {
            name: "a handshake with a long name",
            attack: Early(text(&format!("40{{\"clientId\":\"{}\"}}", "x".repeat(200)))),
            answer: Says("clientId has 1 to 128 bytes"),
        },
        Row { name: "a namespace that is never entered", attack: Early(text("3")), answer: Ends },
        Row {
            name: "a handshake that is a list",
            attack: Early(text("40[null,null,false,false,true]")),
            answer: Says("invalid_handshake"),
        },
        Row {
            name: "a handshake that is no JSON",
            attack: Early(text("40{\"userId\":")),
            answer: Says("invalid_handshake"),
        },
        Row { name: "a goodbye before the namespace", attack: Early(text("41")), answer: Ends },
    ]);
    rows
}

fn sessions() -> Vec<Row> {
    vec![
        Row {
            name: "a poll by another version",
            attack: WithSid(|sid| get(&format!("EIO=3&transport=polling&sid={sid}"))),
            answer: Says("Unsupported protocol version"),
        },
        Row {
            name: "DELETE of a session",
            attack: WithSid(|sid| {
                request(&format!("DELETE /socket.io/?EIO=4&transport=polling&sid={sid}"), "", "")
            }),
            answer: Says("HTTP/1.1 400"),
        },
        Row {
            name: "HEAD of a session",
            attack: WithSid(|sid| {
                request(&format!("HEAD /socket.io/?EIO=4&transport=polling&sid={sid}"), "", "")
            }),
            answer: Says("HTTP/1.1 400"),
        },
        Row {
            name: "two sessions in one query",
            attack: WithSid(|sid| get(&format!("EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA&sid={sid}"))),
            answer: Says("Session ID unknown"),
        },
        Row {
            name: "a WebSocket of a session without an upgrade",
            attack: WithSid(|sid| get(&format!("EIO=4&transport=websocket&sid={sid}"))),
            answer: Says("HTTP/1.1 400"),
        },
        Row {
            name: "a POST of a session without a body",
            attack: WithSid(|sid| {
                request(
                    &format!("POST /socket.io/?EIO=4&transport=polling&sid={sid}"),
                    "content-length: 0\r\n",
                    "",
                )
            }),
            answer: Says("HTTP/1.1 200"),
        },
    ]
}

fn posts() -> Vec<Row> {
    let plain = "text/plain;charset=UTF-8";
    let post = |name, body: Vec<u8>, answer| Row { name, attack: Post(plain, body), answer };
    let flood = vec!["42[\"heartbeat:ping\",{}]"; 200].join("\u{1e}");
    vec![
        post("a packet of no type", b"9x".to_vec(), LastStatus(400, "")),
        post(
            "an empty packet between",
            b"42[\"heartbeat:ping\",{}]\x1e\x1e42[\"heartbeat:ping\",{}]".to_vec(),
            LastStatus(400, ""),
        ),
        post("separators only", b"\x1e\x1e\x1e".to_vec(), LastStatus(400, "")),
        post("an open packet from a client", b"0{\"sid\":\"x\"}".to_vec(), LastStatus(400, "")),
        post("a no-op from a client", b"6".to_vec(), Says("HTTP/1.1 400")),
        post("an upgrade packet by polling", b"5".to_vec(), Says("HTTP/1.1 400")),
        post("a probe by polling", b"2probe".to_vec(), Says("HTTP/1.1 400")),
        post("a goodbye", b"1".to_vec(), LastStatus(200, "ok")),
        post("base64 that is none", b"b!!!!".to_vec(), LastStatus(400, "")),
        post("binary by polling", b"bAAECAw==".to_vec(), LastStatus(200, "")),
        post("a payload with the lengths of version 3", b"2:40".to_vec(), Says("HTTP/1.1 200")),
        post("a payload that is no UTF-8", b"4\xff\xfe".to_vec(), LastStatus(400, "")),
        post("a payload beyond the limit", vec![b'4'; 40_000], LastStatus(413, "")),
        post("200 pings at once", flood.into_bytes(), Says("heartbeat:pong")),
        Row {
            name: "a payload as bytes",
            attack: Post("application/octet-stream", b"\x00\x03\xff40".to_vec()),
            answer: LastStatus(400, ""),
        },
        Row {
            name: "a payload as JSON",
            attack: Post("application/json", b"42[\"heartbeat:ping\",{}]".to_vec()),
            answer: Says("heartbeat:pong"),
        },
    ]
}

fn upgrades() -> Vec<Row> {
    let up = |name, frames: Vec<u8>, answer| Row { name, attack: Upgrade(frames), answer };
    vec![
        up("an upgrade as it should be", [text("2probe"), text("5")].concat(), Says("3probe")),
        up("an upgrade without a probe", text("5"), Ends),
        up("a probe of another word", text("2prob"), Ends),
        up("a probe and no upgrade", [text("2probe"), text("4")].concat(), Ends),
        up("a message amid an upgrade", text("42[\"room:join\",\"story-good\"]"), Ends),
        up("binary amid an upgrade", frame(0x82, b"2probe"), Ends),
        up("a goodbye amid an upgrade", frame(0x88, &1000_u16.to_be_bytes()), Ends),
        up("two probes", [text("2probe"), text("2probe")].concat(), Ends),
        Row {
            name: "silence amid an upgrade",
            attack: WithSid(|sid| upgrade(&format!("EIO=4&transport=websocket&sid={sid}"), UPGRADE)),
            answer: LastStatus(101, ""),
        },
        Row {
            name: "an upgrade to a session that is none",
            attack: Raw(upgrade("EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAA", UPGRADE)),
            answer: LastStatus(101, ""),
        },
        Row {
            name: "a pong behind an upgrade",
            attack: Upgrade([text("2probe"), text("5"), text("3")].concat()),
            answer: Says("3probe"),
        },
    ]
}

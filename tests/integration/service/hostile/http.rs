//! Requests: malformed, oversized, ambiguous, and those that ask for what is not there.

use super::Answer::{Ends, Status, Statuses};
use super::Attack::Raw;
use super::raw::request;
use super::{Answer, Row};

fn get(path: &str) -> Vec<u8> {
    request(&format!("GET {path}"), "", "")
}

/// A request without the usual headers, as it stands.
fn plain(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    request(&format!("POST {path}"), headers, body)
}

pub(super) fn rows() -> Vec<Row> {
    let row =
        |(name, bytes, answer): (&'static str, Vec<u8>, Answer)| Row { name, attack: Raw(bytes), answer };
    let tables = [heads(), slow(), paths(), queries(), bodies(), injections()];
    tables.into_iter().flatten().map(row).collect()
}

type Cells = Vec<(&'static str, Vec<u8>, Answer)>;

/// Request lines, headers and framing.
fn heads() -> Cells {
    let long = "x".repeat(500_000);
    let many = (0..300).map(|n| format!("x-{n}: 1\n")).collect::<String>();
    vec![
        ("nothing that is HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Status(400, "")),
        ("the preface of HTTP/2", plain("PRI * HTTP/2.0\n\nSM\n\n"), Ends),
        ("a version that is not there", plain("GET /healthz HTTP/9.9\nhost: t\n\n"), Status(400, "")),
        ("HTTP/0.9", plain("GET /healthz\n\n"), Status(400, "")),
        ("a request without a host", plain("GET /healthz HTTP/1.1\nconnection: close\n\n"), Status(200, "")),
        (
            "another host",
            plain("GET /api/v1/stats HTTP/1.1\nhost: evil.example\nconnection: close\n\n"),
            Status(421, "host_not_allowed"),
        ),
        (
            "another host behind its own",
            plain("GET /api/v1/stats HTTP/1.1\nhost: t\nhost: evil.example\nconnection: close\n\n"),
            Status(421, "host_not_allowed"),
        ),
        (
            "another host in the line",
            plain("GET http://evil.example/api/v1/stats HTTP/1.1\nhost: t\nconnection: close\n\n"),
            Status(421, "host_not_allowed"),
        ),
        (
            "a host before an at sign",
            plain("GET /api/v1/stats HTTP/1.1\nhost: t@evil.example\nconnection: close\n\n"),
            Status(421, "host_not_allowed"),
        ),
        (
            "a host that is none",
            plain("GET /api/v1/stats HTTP/1.1\nhost: a b\nconnection: close\n\n"),
            Status(421, "host_not_allowed"),
        ),
        (
            "another host for a session",
            plain(
                "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\nhost: evil.example\nconnection: close\n\n",
            ),
            Status(421, "host_not_allowed"),
        ),
        ("a method that is not there", request("BREW /healthz", "", ""), Status(405, "method_not_allowed")),
        ("TRACE", request("TRACE /api/v1/stats", "", ""), Status(405, "method_not_allowed")),
        (
            "CONNECT",
            plain("CONNECT t:443 HTTP/1.1\nhost: t\nconnection: close\n\n"),
            Status(404, "not_found"),
        ),
        ("OPTIONS", request("OPTIONS /api/v1/stats", "", ""), Status(200, "")),
        (
            "OPTIONS of everything",
            plain("OPTIONS * HTTP/1.1\nhost: t\nconnection: close\n\n"),
            Status(200, ""),
        ),
        ("HEAD", request("HEAD /healthz", "", ""), Status(200, "\r\n\r\n")),
        ("a method in lower case", request("get /healthz", "", ""), Status(405, "method_not_allowed")),
        (
            "an override of the method",
            request("GET /api/v1/events", "x-http-method-override: POST\r\n", ""),
            Status(405, ""),
        ),
        ("DELETE of a list", request("DELETE /api/v1/jobs", "", ""), Status(405, "method_not_allowed")),
        (
            "a header that is too long",
            request("GET /healthz", &format!("x-long: {long}\r\n"), ""),
            Status(431, ""),
        ),
        ("too many headers", plain(&format!("GET /healthz HTTP/1.1\nhost: t\n{many}\n")), Status(431, "")),
        ("a header without a colon", plain("GET /healthz HTTP/1.1\nhost: t\nnonsense\n\n"), Status(400, "")),
        (
            "a header with a space in its name",
            plain("GET /healthz HTTP/1.1\nhost: t\nx y: 1\n\n"),
            Status(400, ""),
        ),
        ("a space before the colon", plain("GET /healthz HTTP/1.1\nhost : t\n\n"), Status(400, "")),
        ("a folded header", plain("GET /healthz HTTP/1.1\nhost: t\nx-a: 1\n 2\n\n"), Status(400, "")),
        ("NUL in a header", plain("GET /healthz HTTP/1.1\nhost: t\nx-a: \0\n\n"), Status(400, "")),
        (
            "a bare return in a header",
            plain("GET /healthz HTTP/1.1\nhost: t\nx-a: 1\r2\n\n"),
            Status(400, ""),
        ),
        (
            "two lengths that differ",
            plain("POST /api/v1/events HTTP/1.1\nhost: t\ncontent-length: 2\ncontent-length: 3\n\n{}"),
            Status(400, ""),
        ),
        (
            "two lengths in one",
            plain("POST /api/v1/events HTTP/1.1\nhost: t\ncontent-length: 2, 3\n\n{}"),
            Status(400, ""),
        ),
        (
            "a negative length",
            plain("POST /api/v1/events HTTP/1.1\nhost: t\ncontent-length: -1\n\n"),
            Status(400, ""),
        ),
        (
            "a length with a sign",
            plain("POST /api/v1/events HTTP/1.1\nhost: t\ncontent-length: +2\n\n{}"),
            Status(400, ""),
        ),
        (
            "a length beyond 64 bits",
            plain("POST /api/v1/events HTTP/1.1\nhost: t\ncontent-length: 99999999999999999999\n\n{}"),
            Status(400, ""),
        ),
        (
            "a length and chunks, with a request hidden behind",
            plain(
                "POST /api/v1/events HTTP/1.1\nhost: t\ncontent-type: application/json\ncontent-length: 4\ntransfer-encoding: chunked\n\n0\n\nDELETE /api/v1/connections/x HTTP/1.1\nhost: t\n\n",
            ),
            Status(400, ""),
        ),
        (
            "an encoding that is none",
            plain("POST /api/v1/events HTTP/1.1\nhost: t\ntransfer-encoding: xchunked\n\n0\n\n"),
            Status(400, ""),
        ),
        (
            "chunks and something on top",
            plain("POST /api/v1/events HTTP/1.1\nhost: t\ntransfer-encoding: chunked, gzip\n\n0\n\n"),
            Status(400, ""),
        ),
        (
            "a chunk whose size is no number",
            plain(
                "POST /api/v1/events HTTP/1.1\nhost: t\ncontent-type: application/json\ntransfer-encoding: chunked\n\nxyz\n{}\n0\n\n",
            ),
            Status(400, "unreadable_body"),
        ),
        (
            "a chunk beyond 64 bits",
            plain(
                "POST /api/v1/events HTTP/1.1\nhost: t\ncontent-type: application/json\ntransfer-encoding: chunked\n\nfffffffffffffffff\n{}\n0\n\n",
            ),
            Status(400, "unreadable_body"),
        ),
        (
            "a chunk longer than it says",
            plain(
                "POST /api/v1/events HTTP/1.1\nhost: t\ncontent-type: application/json\ntransfer-encoding: chunked\n\n1\n{}}}\n0\n\n",
            ),
            Status(400, "unreadable_body"),
        ),
        (
            "two requests at once",
            plain("GET /healthz HTTP/1.1\nhost: t\n\nGET /nothing HTTP/1.1\nhost: t\nconnection: close\n\n"),
            Statuses(&[200, 404]),
        ),
        (
            "an expectation that is none",
            request("POST /api/v1/events", "expect: a miracle\r\n", "{}"),
            Status(415, ""),
        ),
        ("an upgrade to something else", request("GET /healthz", "upgrade: h2c\r\n", ""), Status(200, "")),
    ]
}

/// What begins and does not go on.
fn slow() -> Cells {
    let post = "POST /api/v1/events HTTP/1.1\nhost: t\ncontent-type: application/json\n";
    vec![
        ("nothing at all", Vec::new(), Ends),
        ("half a method", plain("GE"), Ends),
        ("a head that does not end", plain("GET /healthz HTTP/1.1\nhost: t\n"), Ends),
        (
            "a body that does not come",
            plain(&format!("{post}content-length: 10\n\n{{}}")),
            Status(408, "request_timeout"),
        ),
        (
            "chunks that do not end",
            plain(&format!("{post}transfer-encoding: chunked\n\n2\n{{}}\n")),
            Status(408, "request_timeout"),
        ),
    ]
}

/// Paths that want to lead elsewhere.
fn paths() -> Cells {
    let long = format!("/{}", "a/".repeat(4000));
    let name = "a".repeat(300);
    vec![
        ("a path upwards", get("/../../etc/passwd"), Status(404, "not_found")),
        ("a path upwards, encoded", get("/api/v1/tests/..%2f..%2fetc%2fpasswd"), Status(400, "invalid_path")),
        ("a path upwards, encoded twice", get("/api/v1/tests/%252e%252e%252f"), Status(400, "invalid_path")),
        ("a backslash", get("/api/v1/tests/..%5c"), Status(400, "invalid_path")),
        ("NUL in a path", get("/api/v1/tests/a%00b"), Status(400, "invalid_path")),
        ("a path that is no UTF-8", get("/api/v1/tests/%ff%fe"), Status(400, "invalid_path")),
        ("an escape that is cut off", get("/api/v1/tests/%"), Status(400, "invalid_path")),
        (
            "raw bytes in a path",
            [b"GET /\xff\xfe HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n".to_vec()].concat(),
            Status(400, ""),
        ),
        ("a very long path", get(&long), Status(404, "not_found")),
        ("a very long name", get(&format!("/api/v1/tests/{name}")), Status(400, "at most 128")),
        ("slashes", get("//api//v1//stats"), Status(404, "not_found")),
        ("a slash behind", get("/api/v1/stats/"), Status(404, "not_found")),
        ("a dot", get("/api/v1/./stats"), Status(404, "not_found")),
        ("other letters", get("/API/V1/STATS"), Status(404, "not_found")),
        ("the absolute form", get("http://t/api/v1/stats"), Status(200, "\"connections\"")),
        ("the absolute form of another scheme", get("file:///etc/passwd"), Status(400, "")),
        ("a path without a slash", get("t"), Status(404, "not_found")),
        ("a name in place of a path", get("healthz"), Status(421, "host_not_allowed")),
        ("a fragment", get("/healthz#/../x"), Status(200, "")),
        (
            "a channel that is none",
            get("/api/v1/channels/nothing-at-all/messages"),
            Status(404, "unknown_channel"),
        ),
        ("a channel with a star", get("/api/v1/channels/story-*/messages"), Status(400, "invalid_path")),
        ("a job that is none", get("/api/v1/jobs/job_x"), Status(404, "job_not_found")),
        ("a method in a path", get("/api/v1/jobs/job_x/cancel"), Status(405, "method_not_allowed")),
        (
            "a connection that is none",
            request("DELETE /api/v1/connections/%00%0d%0a", "", ""),
            Status(404, "connection_not_found"),
        ),
    ]
}

/// Queries, cursors and places.
fn queries() -> Cells {
    let history = "/api/v1/channels/story-good/messages";
    let stream = "/api/v1/channels/story-good/stream";
    let huge = "x=1&".repeat(5_000);
    vec![
        ("a query of 20 kB", get(&format!("/api/v1/stats?{huge}")), Status(200, "\"connections\"")),
        ("an offset that is none", get(&format!("{history}?offset=x")), Status(400, "invalid_query")),
        ("a negative offset", get(&format!("{history}?offset=-1")), Status(400, "invalid_query")),
        (
            "an offset beyond 64 bits",
            get(&format!("{history}?offset=18446744073709551616")),
            Status(400, "invalid_query"),
        ),
        (
            "the last offset there can be",
            get(&format!("{history}?offset=18446744073709551615")),
            Status(409, "ahead_of_top"),
        ),
        ("a fraction of an offset", get(&format!("{history}?offset=1.5")), Status(400, "invalid_query")),
        ("no limit", get(&format!("{history}?limit=0")), Status(400, "invalid_query")),
        ("a limit too high", get(&format!("{history}?limit=1001")), Status(400, "invalid_query")),
        (
            "another epoch",
            get(&format!("{history}?epoch='%20OR%201=1--&offset=1")),
            Status(409, "epoch_changed"),
        ),
        ("an epoch of NUL", get(&format!("{history}?epoch=%00")), Status(409, "epoch_changed")),
        ("a parameter twice", get(&format!("{history}?offset=1&offset=2")), Status(400, "invalid_query")),
        ("a query that is no UTF-8", get(&format!("{history}?offset=%ff")), Status(400, "invalid_query")),
        ("a cursor that is none", get("/api/v1/jobs?cursor=nonsense"), Status(400, "invalid_cursor")),
        ("the cursor of another list", get("/api/v1/jobs?cursor=t1"), Status(400, "invalid_cursor")),
        ("a negative cursor", get("/api/v1/jobs?cursor=j-1"), Status(400, "invalid_cursor")),
        (
            "a cursor with SQL",
            get("/api/v1/tests?cursor=t1;DROP%20TABLE%20tests"),
            Status(400, "invalid_cursor"),
        ),
        (
            "a very long cursor",
            get(&format!("/api/v1/users/online?cursor={}", "a".repeat(200))),
            Status(400, "invalid_cursor"),
        ),
        ("a state that is none", get("/api/v1/jobs?state=exploded"), Status(400, "invalid_query")),
        ("a stream from nowhere", get(&format!("{stream}?since=yesterday")), Status(400, "invalid")),
        (
            "a stream after what is no place",
            request(&format!("GET {stream}"), "last-event-id: x:y:z\r\n", ""),
            Status(400, "invalid"),
        ),
        (
            "a stream after a place beyond numbers",
            request(&format!("GET {stream}"), "last-event-id: e:99999999999999999999\r\n", ""),
            Status(400, "invalid"),
        ),
    ]
}

/// Bodies that are not what they say.
fn bodies() -> Cells {
    let json = "content-type: application/json\r\n";
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let keys = (0..5000).map(|n| format!("\"k{n}\":0")).collect::<Vec<_>>().join(",");
    vec![
        ("a body without a type", post("/api/v1/events", "", "{}"), Status(415, "unsupported_media_type")),
        (
            "a body of another type",
            post("/api/v1/events", "content-type: text/plain\r\n", "{}"),
            Status(415, "unsupported_media_type"),
        ),
        (
            "a form",
            post("/api/v1/jobs", "content-type: application/x-www-form-urlencoded\r\n", "a=b"),
            Status(415, "unsupported_media_type"),
        ),
        (
            "a type of two kinds",
            post("/api/v1/events", "content-type: text/plain;application/json\r\n", "{}"),
            Status(415, "unsupported_media_type"),
        ),
        ("no body", post("/api/v1/events", json, ""), Status(400, "invalid_json")),
        ("a body that ends early", post("/api/v1/events", json, "{\"event\":"), Status(400, "invalid_json")),
        (
            "a body that is no UTF-8",
            [post("/api/v1/events", &format!("{json}content-length: 4\r\n"), ""), b"\"\xff\xff\"".to_vec()]
                .concat(),
            Status(400, "invalid"),
        ),
        (
            "a body larger than is taken",
            post("/api/v1/events", json, &format!("\"{}\"", "x".repeat(70_000))),
            Status(413, "body_too_large"),
        ),
        (
            "a body that says it is larger",
            plain(
                "POST /api/v1/events HTTP/1.1\nhost: t\ncontent-type: application/json\ncontent-length: 70000\nconnection: close\n\n{}",
            ),
            Status(413, "body_too_large"),
        ),
        (
            "20,000 arrays in each other",
            post("/api/v1/events", json, &deep),
            Status(200, "\"code\":\"invalid\""),
        ),
        (
            "20,000 arrays as a config",
            post("/api/v1/jobs", json, &format!("{{\"testType\":\"command\",\"config\":{deep}}}")),
            Status(400, "invalid"),
        ),
        (
            "5,000 unknown fields",
            post("/api/v1/events", json, &format!("{{{keys}}}")),
            Status(400, "missing field"),
        ),
        (
            "a list where an object belongs",
            post("/api/v1/jobs", json, "[\"command\",{}]"),
            Status(400, "invalid"),
        ),
        ("a list of nothing", post("/api/v1/events", json, "[]"), Status(200, "\"results\":[]")),
        (
            "a list of everything",
            post("/api/v1/events", json, "[1,null,\"x\",{},[]]"),
            Status(200, "\"results\":[{\"error\""),
        ),
        (
            "more messages than are taken",
            post("/api/v1/events", json, &format!("[{}1]", "1,".repeat(1000))),
            Status(413, "batch_too_large"),
        ),
        (
            "two documents",
            post("/api/v1/events", json, "{\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1} {}"),
            Status(400, "invalid_json"),
        ),
        (
            "an event twice",
            post(
                "/api/v1/events",
                json,
                "{\"channel\":\"story-v\",\"event\":\"custom:a\",\"event\":\"custom:b\",\"data\":1}",
            ),
            Status(400, "`event` stands twice"),
        ),
        (
            "data twice",
            post(
                "/api/v1/events",
                json,
                "{\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1,\"data\":2}",
            ),
            Status(400, "`data` stands twice"),
        ),
        (
            "a channel twice, once as an escape",
            post(
                "/api/v1/events",
                json,
                "{\"channel\":\"story-v\",\"c\\u0068annel\":\"alerts\",\"event\":\"custom:a\",\"data\":1}",
            ),
            Status(400, "`channel` stands twice"),
        ),
        (
            "an unknown field twice",
            post(
                "/api/v1/events",
                json,
                "{\"channel\":\"story-v\",\"event\":\"custom:a\",\"data\":1,\"x\":1,\"x\":2}",
            ),
            Status(400, "`x` stands twice"),
        ),
        (
            "progress of a test as a list",
            post(
                "/api/v1/events",
                json,
                "{\"channel\":\"test-progress-v\",\"event\":\"test:progress\",\"data\":[null,null,null]}",
            ),
            Status(400, "an object"),
        ),
        ("a byte order mark", post("/api/v1/events", json, "\u{feff}{}"), Status(400, "invalid_json")),
        (
            "a type that is none",
            post("/api/v1/jobs", json, "{\"testType\":\"rm -rf\",\"config\":{}}"),
            Status(400, "invalid"),
        ),
        (
            "a suite that is none",
            post("/api/v1/jobs", json, "{\"testType\":\"command\",\"config\":{\"suite\":\"../../bin/sh\"}}"),
            Status(400, "there is no suite"),
        ),
        (
            "a command of the sender's own",
            post(
                "/api/v1/jobs",
                json,
                "{\"testType\":\"command\",\"config\":{\"suite\":\"one\",\"command\":[\"id\"]}}",
            ),
            Status(400, "unknown field `command`"),
        ),
        (
            "a parameter outside of its list",
            post(
                "/api/v1/jobs",
                json,
                "{\"testType\":\"command\",\"config\":{\"suite\":\"one\",\"params\":{\"A\":\"1; id\"}}}",
            ),
            Status(400, "is not allowed"),
        ),
        (
            "a parameter that loads a library",
            post(
                "/api/v1/jobs",
                json,
                "{\"testType\":\"command\",\"config\":{\"suite\":\"one\",\"params\":{\"LD_PRELOAD\":\"/x.so\"}}}",
            ),
            Status(400, "takes: A"),
        ),
        (
            "a load on somebody else",
            post(
                "/api/v1/jobs",
                json,
                "{\"testType\":\"stress\",\"config\":{\"url\":\"http://192.0.2.1/\",\"durationMs\":10}}",
            ),
            Status(400, "stress.allow"),
        ),
        (
            "a load on a host in disguise",
            post(
                "/api/v1/jobs",
                json,
                "{\"testType\":\"stress\",\"config\":{\"url\":\"http://localhost@192.0.2.1/\",\"durationMs\":10}}",
            ),
            Status(400, "url:"),
        ),
        (
            "a priority that is none",
            post(
                "/api/v1/jobs",
                json,
                "{\"testType\":\"command\",\"priority\":99,\"config\":{\"suite\":\"one\"}}",
            ),
            Status(400, "invalid"),
        ),
        (
            "a delay beyond all time",
            post(
                "/api/v1/jobs",
                json,
                "{\"testType\":\"command\",\"delayMs\":18446744073709551615,\"config\":{\"suite\":\"one\"}}",
            ),
            Status(400, "invalid"),
        ),
    ]
}

/// Values that we give back.
fn injections() -> Cells {
    let json = "content-type: application/json\r\n";
    vec![
        ("a line break in a path", get("/nothing%0d%0aset-cookie:%20a=b"), Status(404, "%0d%0aset-cookie")),
        ("a script in a path", get("/<script>alert(1)</script>"), Status(400, "")),
        (
            "a line break in a user's name",
            request("GET /api/v1/messages/offline", "x-user-id: a%0d%0ab\r\n", ""),
            Status(400, "invalid_user"),
        ),
        (
            "a user's name twice",
            request("GET /api/v1/messages/offline", "x-user-id: a\r\nx-user-id: b\r\n", ""),
            Status(400, "invalid_user"),
        ),
        (
            "a user's name that is no ASCII",
            request("GET /api/v1/messages/offline", "x-user-id: \u{e4}\r\n", ""),
            Status(400, "invalid_user"),
        ),
        (
            "a user's name of 200",
            request("GET /api/v1/messages/offline", &format!("x-user-id: {}\r\n", "a".repeat(200)), ""),
            Status(400, "invalid_user"),
        ),
        ("nobody's inbox", get("/api/v1/messages/offline"), Status(400, "user_required")),
        (
            "a line break in an id",
            post(
                "/api/v1/events",
                json,
                "{\"id\":\"a\\r\\nb\",\"channel\":\"story-x\",\"event\":\"custom:n\",\"data\":{}}",
            ),
            Status(400, "id"),
        ),
        (
            "a line break in a channel",
            post("/api/v1/events", json, "{\"channel\":\"story-\\n\",\"event\":\"custom:n\",\"data\":{}}"),
            Status(400, "channel"),
        ),
        (
            "a line break in an event",
            post(
                "/api/v1/events",
                json,
                "{\"channel\":\"story-x\",\"event\":\"custom:\\ndata: x\",\"data\":{}}",
            ),
            Status(400, "event"),
        ),
        (
            "too many ids to mark",
            post(
                "/api/v1/messages/mark-read",
                &format!("{json}x-user-id: u\r\n"),
                &format!("{{\"messageIds\":[{}\"a\"]}}", "\"a\",".repeat(1001)),
            ),
            Status(400, "invalid"),
        ),
        (
            "too many connections to end",
            post(
                "/api/v1/connections/cleanup",
                json,
                &format!("{{\"connectionIds\":[{}\"a\"]}}", "\"a\",".repeat(1001)),
            ),
            Status(400, "invalid"),
        ),
        (
            "another origin",
            request("GET /api/v1/stats", "origin: https://evil.example\r\n", ""),
            Status(403, "origin_not_allowed"),
        ),
        (
            "a preflight of another origin",
            request(
                "OPTIONS /api/v1/events",
                "origin: https://evil.example\r\naccess-control-request-method: POST\r\n",
                "",
            ),
            Status(200, ""),
        ),
    ]
}

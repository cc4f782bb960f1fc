//! Requests: malformed, oversized, ambiguous, and those that ask for what is not there.

mod bodies;
mod control;
mod heads;
mod outside;
mod people;
pub(super) mod swept;

use serde_json::Value;

use super::Answer::{Ends, Status};
use super::Attack::Raw;
use super::raw::request;
use super::{Answer, Attack, Row};

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
    let tables = [
        heads::rows(),
        slow(),
        paths(),
        queries(),
        bodies::rows(),
        injections(),
        control::rows(),
        outside::rows(),
        people::rows(),
    ];
    tables.into_iter().flatten().map(row).collect()
}

/// The operations of `document` that none of `rows` is about.
pub(super) fn without_rows(document: &Value, rows: &[Row]) -> Vec<String> {
    let lines: Vec<(&str, &str)> = rows.iter().filter_map(|row| request_line(&row.attack)).collect();
    let is_hit =
        |method: &str, path: &str| lines.iter().any(|(asked, line)| *asked == method && is_of(line, path));
    let all = swept::operations(document).into_iter();
    all.filter(|(method, path, _)| !is_hit(method, path))
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect()
}

/// The method and the path that an attack begins with.
fn request_line(attack: &Attack) -> Option<(&str, &str)> {
    let Raw(bytes) = attack else { return None };
    let line = std::str::from_utf8(bytes.split(|byte| *byte == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?.split('?').next()?))
}

/// Whether a request for `asked` goes to the route `path`.
fn is_of(asked: &str, path: &str) -> bool {
    let (mut asked, mut path) = (asked.split('/'), path.split('/'));
    loop {
        match (asked.next(), path.next()) {
            (None, None) => return true,
            (Some(given), Some(segment)) if segment.starts_with('{') || given == segment => {}
            _ => return false,
        }
    }
}

type Cells = Vec<(&'static str, Vec<u8>, Answer)>;

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

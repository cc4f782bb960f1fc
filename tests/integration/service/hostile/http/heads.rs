//! Request lines, headers and framing.

use super::super::Answer::{Ends, LastStatus, Status, Statuses};
use super::{Cells, plain, request};

pub(super) fn rows() -> Cells {
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
            LastStatus(400, "invalid_json"),
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

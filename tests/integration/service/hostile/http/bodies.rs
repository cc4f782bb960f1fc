//! Bodies that are not what they say.

use super::super::Answer::Status;
use super::{Cells, plain, post};

pub(super) fn rows() -> Cells {
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

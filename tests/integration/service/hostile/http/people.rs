//! Users, inboxes, tokens, connections and what the server tells of itself: names that are none, and too much of it.

use super::super::Answer::Status;
use super::{Cells, get, post, request};

const JSON: &str = "content-type: application/json\r\n";
const NOBODY: &str = "x-user-id: a/b\r\n";
const ANN: &str = "content-type: application/json\r\nx-user-id: ann\r\n";

pub(super) fn rows() -> Cells {
    let many = "\"a\",".repeat(1001);
    let put_level = |body: &str| request("PUT /api/v1/log-level", JSON, body);
    vec![
        ("a user who is a path", post("/api/v1/users/..%2fx/block", "", ""), Status(400, "invalid_path")),
        (
            "a user who is a line break",
            post("/api/v1/users/%0a/unblock", "", ""),
            Status(400, "invalid_path"),
        ),
        (
            "a message to everybody",
            post("/api/v1/users/*/messages", JSON, "{\"title\":\"x\"}"),
            Status(400, "invalid_path"),
        ),
        ("a message without a title", post("/api/v1/users/bob/messages", JSON, "{}"), Status(400, "`title`")),
        (
            "a message with a list for a title",
            post("/api/v1/users/bob/messages", JSON, "{\"title\":[]}"),
            Status(400, "`title`"),
        ),
        ("a broadcast of nothing", post("/api/v1/broadcast", JSON, "{}"), Status(400, "`level`")),
        (
            "a broadcast where no channel is for it",
            post("/api/v1/broadcast", JSON, "{\"level\":\"info\",\"message\":\"x\"}"),
            Status(404, "unknown_channel"),
        ),
        (
            "a token with a very long name",
            post(&format!("/api/v1/tokens/{}/revoke", "a".repeat(300)), "", ""),
            Status(400, "more than 256 bytes"),
        ),
        (
            "a token taken back until soon",
            post("/api/v1/tokens/x/revoke", JSON, "{\"expiresAt\":\"soon\"}"),
            Status(400, "expiresAt"),
        ),
        ("a token that is read", get("/api/v1/tokens/x/revoke"), Status(405, "method_not_allowed")),
        (
            "an inbox from a place that is none",
            post("/api/v1/messages/unread", ANN, "{\"after\":\"nowhere\"}"),
            Status(400, "after"),
        ),
        (
            "an inbox without a limit",
            post("/api/v1/messages/unread", ANN, "{\"limit\":100000}"),
            Status(400, "limit"),
        ),
        (
            "too many ids to confirm",
            post("/api/v1/messages/offline/confirm", ANN, &format!("{{\"messageIds\":[{many}\"a\"]}}")),
            Status(400, "invalid"),
        ),
        (
            "an offline list from what is no UTF-8",
            request("GET /api/v1/messages/offline?after=%ff", ANN, ""),
            Status(400, "invalid_cursor"),
        ),
        ("a recall of a path", post("/api/v1/messages/..%2f/recall", ANN, ""), Status(400, "invalid_path")),
        ("a recall of nothing", post("/api/v1/messages/x/recall", ANN, ""), Status(404, "message_not_found")),
        (
            "users online beyond the limit",
            get("/api/v1/users/online?limit=1001"),
            Status(400, "invalid_query"),
        ),
        ("fewer connections than none", get("/api/v1/connections?limit=-1"), Status(400, "invalid_query")),
        ("the presence of all", get("/api/v1/channels/story-*/presence"), Status(400, "invalid_path")),
        (
            "the presence of no channel",
            get("/api/v1/channels/nothing/presence"),
            Status(404, "unknown_channel"),
        ),
        ("a log of everything of everybody", put_level("{\"level\":\"[x\"}"), Status(400, "level")),
        ("a log level as a list", put_level("[\"trace\"]"), Status(400, "has to be a JSON object")),
        ("a log level that is read elsewhere", get("/api/v1/log-level/..%2f"), Status(404, "not_found")),
        (
            "a page in parts that are none",
            request("GET /", "range: bytes=0-18446744073709551615,-1\r\n", ""),
            Status(200, "<!doctype html>"),
        ),
        (
            "a document for an encoding that is none",
            request("GET /api/openapi.json", "accept-encoding: gzip;q=9, br;q=-1\r\n", ""),
            Status(200, "\"openapi\""),
        ),
        ("a log level of nobody", request("GET /api/v1/log-level", NOBODY, ""), Status(400, "invalid_user")),
        ("numbers for nobody", request("GET /metrics", NOBODY, ""), Status(400, "invalid_user")),
        ("a readiness below itself", get("/readyz/../metrics"), Status(404, "not_found")),
        ("a readiness with quotes for a query", get(&format!("/readyz?{many}")), Status(400, "")),
        ("numbers that are written", post("/metrics", JSON, "{}"), Status(405, "method_not_allowed")),
        (
            "a document that is written",
            post("/api/openapi.json", JSON, "{}"),
            Status(405, "method_not_allowed"),
        ),
        ("a readiness that is written", post("/readyz", JSON, "{}"), Status(405, "method_not_allowed")),
        ("a page that is written", post("/", JSON, "{}"), Status(405, "method_not_allowed")),
    ]
}

//! What each route of the document is asked: the same nonsense, with the answer that holds for all of them.

use serde_json::{Map, Value};

use super::super::Answer::Status;
use super::super::Attack::Raw;
use super::{Row, request};

/// Parameters of a path that are any text.
const ANY_TEXT: [&str; 2] = ["connectionId", "tokenId"];
/// Lists whose cursor is any name: what comes after it.
const BY_NAME: [&str; 2] = ["/api/v1/connections", "/api/v1/users/online"];
const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

/// An operation of the document: its method, its path and what stands there of it.
pub(super) fn operations(document: &Value) -> Vec<(String, &str, &Map<String, Value>)> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        METHODS.into_iter().filter_map(move |method| {
            Some((method.to_uppercase(), path.as_str(), item.get(method)?.as_object()?))
        })
    });
    operations.collect()
}

/// The rows that each operation of `document` gets.
pub(in crate::service::hostile) fn rows(document: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    for (method, path, operation) in operations(document) {
        let mut row = |what: &str, line: String, headers: &str, body: &str, answer| {
            let name = format!("{what}: {method} {path}").leak();
            rows.push(Row { name, attack: Raw(request(&line, headers, body)), answer });
        };
        let plain = format!("{method} {}", path.replace(['{', '}'], ""));
        if operation.contains_key("requestBody") {
            let json = "x-user-id: ann\r\ncontent-type: application/json\r\n";
            let large = format!("{{\"x\":\"{}\"}}", "x".repeat(70_000));
            row("half a body", plain.clone(), json, "{", Status(400, "invalid_json"));
            row("a body of NUL", plain.clone(), json, "\0\0\0\0", Status(400, "invalid_json"));
            row("a body that is a text", plain.clone(), json, "\"x\"", Status(400, "\"invalid\""));
            row(
                "a body of fields that are none",
                plain.clone(),
                json,
                "{\"\\u0000\":1}",
                Status(400, "invalid"),
            );
            row("a large body", plain.clone(), json, &large, Status(413, "body_too_large"));
            let text = "x-user-id: ann\r\ncontent-type: text/plain\r\n";
            row("a body of text", plain.clone(), text, "{}", Status(415, "unsupported_media_type"));
        }
        for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            match parameter["in"].as_str() {
                Some("path") if !ANY_TEXT.contains(&name) => {
                    let long = "a".repeat(300);
                    for value in ["..%2f..%2fetc", "%00", "%ff%fe", "a%0d%0ab", "*", &long] {
                        let what = format!("{:.12} for {name}", value);
                        let line = format!("{method} {}", path.replace(&format!("{{{name}}}"), value));
                        row(
                            &what,
                            line,
                            "content-type: application/json\r\n",
                            "{}",
                            Status(400, "invalid_path"),
                        );
                    }
                }
                Some("query") if name == "cursor" && BY_NAME.contains(&path) => {}
                Some("query") if matches!(name, "limit" | "cursor" | "state") => {
                    for value in ["%ff", "%00", "'%20OR%201=1--", "-1", "99999999999999999999"] {
                        let what = format!("{value} for {name}");
                        row(
                            &what,
                            format!("{plain}?{name}={value}"),
                            "x-user-id: ann\r\n",
                            "",
                            Status(400, "\"invalid_"),
                        );
                    }
                }
                _ => {}
            }
        }
        let headers = "x-user-id: ann\r\n";
        let elsewhere = "x-user-id: ann\r\norigin: https://evil.example\r\n";
        row("another origin", plain.clone(), elsewhere, "", Status(403, "origin_not_allowed"));
        row(
            "a method that is none",
            plain.replacen(&method, "BREW", 1),
            headers,
            "",
            Status(405, "method_not_allowed"),
        );
    }
    rows
}

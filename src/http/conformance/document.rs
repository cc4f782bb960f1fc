//! The document that describes the API.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use super::Server;

/// The routes of the contract.
const ROUTES: [(&str, &str); 43] = [
    ("post", "/api/v1/jobs"),
    ("get", "/api/v1/jobs"),
    ("get", "/api/v1/jobs/{jobId}"),
    ("post", "/api/v1/jobs/{jobId}/cancel"),
    ("post", "/api/v1/jobs/{jobId}/retry"),
    ("post", "/api/v1/jobs/{jobId}/priority"),
    ("post", "/api/v1/jobs/{jobId}/rerun"),
    ("get", "/api/v1/schedules"),
    ("get", "/api/v1/queue"),
    ("post", "/api/v1/queue/pause"),
    ("post", "/api/v1/queue/resume"),
    ("get", "/api/v1/tests"),
    ("get", "/api/v1/tests/{testId}"),
    ("post", "/api/v1/tests"),
    ("post", "/api/v1/tests/{testId}/reports"),
    ("post", "/api/v1/tests/{testId}/end"),
    ("post", "/api/v1/events"),
    ("get", "/api/v1/channels/{channel}/messages"),
    ("get", "/api/v1/channels/{channel}/presence"),
    ("get", "/api/v1/users/online"),
    ("post", "/api/v1/users/{userId}/messages"),
    ("post", "/api/v1/broadcast"),
    ("get", "/api/v1/connections"),
    ("delete", "/api/v1/connections/{connectionId}"),
    ("post", "/api/v1/connections/cleanup"),
    ("get", "/api/v1/stats"),
    ("post", "/api/v1/messages/unread"),
    ("post", "/api/v1/messages/mark-read"),
    ("post", "/api/v1/messages/{messageId}/recall"),
    ("get", "/api/v1/messages/offline"),
    ("post", "/api/v1/messages/offline/confirm"),
    ("get", "/api/v1/channels/{channel}/stream"),
    ("post", "/api/v1/users/{userId}/block"),
    ("post", "/api/v1/users/{userId}/unblock"),
    ("post", "/api/v1/tokens/{tokenId}/revoke"),
    ("get", "/api/v1/log-level"),
    ("put", "/api/v1/log-level"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/api/openapi.json"),
    ("get", "/"),
    ("head", "/"),
];

async fn document(server: &Server) -> Value {
    let answer = server.get("/api/openapi.json").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    answer.json()
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(|(method, operation)| (method.as_str(), path.as_str(), operation))
    })
}

#[tokio::test]
async fn the_document_holds_the_routes_of_the_contract_and_no_others() {
    let server = Server::start().await;
    let document = document(&server).await;
    let described: BTreeSet<_> = operations(&document).map(|(method, path, _)| (method, path)).collect();
    // axum answers HEAD wherever it answers GET; the document does not say it again.
    let contract: BTreeSet<_> = ROUTES.into_iter().filter(|(method, _)| *method != "head").collect();
    assert_eq!(described, contract);
    // Or the stream would have no end.
    server.ready.close();
    for (method, path) in ROUTES {
        let path = path.replace("{channel}", "test-updates").replace(['{', '}'], "");
        let request = Request::builder().method(method.to_ascii_uppercase().as_str()).uri(&path);
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        let code =
            serde_json::from_str::<Value>(&answer.text).map_or(Value::Null, |body| body["code"].clone());
        assert!(code != "not_found" && code != "method_not_allowed", "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn every_operation_says_what_it_does_what_it_takes_and_what_it_answers() {
    let server = Server::start().await;
    let document = document(&server).await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["title"], "tidings");
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} stands twice");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
        let placeholders = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let declared = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path: Vec<_> =
            declared.iter().filter(|p| p["in"] == "path").map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(placeholders.collect::<Vec<_>>(), in_path, "{method} {path}");
        for parameter in &declared {
            assert!(parameter["description"].as_str().is_some_and(|text| !text.is_empty()), "{parameter}");
            assert_eq!(
                parameter["required"].as_bool().unwrap_or(false),
                parameter["in"] == "path",
                "{parameter}"
            );
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{path} {status}");
            let content = response["content"].as_object().unwrap();
            let problem = content.keys().any(|kind| kind == "application/problem+json");
            assert_eq!(problem, path.starts_with("/api/v1") && status.as_str() >= "400", "{path} {status}");
        }
    }
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let server = Server::start().await;
    let document = document(&server).await;
    let mut seen = 0;
    let mut rest = vec![&document];
    while let Some(value) = rest.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    seen += 1;
                }
                rest.extend(fields.values());
            }
            Value::Array(elements) => rest.extend(elements),
            _ => {}
        }
    }
    assert!(seen > 20, "{seen} references");
}

#[tokio::test]
async fn the_shapes_in_the_document_are_those_on_the_wire() {
    let server = Server::start().await;
    let document = document(&server).await;
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["SubmitJob"]["additionalProperties"], false);
    let job = serde_json::json!({"testType": "command", "config": {"suite": "s"}, "testId": "t"});
    let id = server.submit(job).await;
    for (path, schema) in [
        (format!("/api/v1/jobs/{id}"), "Job"),
        ("/api/v1/tests/t".to_owned(), "Snapshot"),
        ("/api/v1/channels/queue-updates/messages".to_owned(), "Stretch"),
        ("/api/v1/stats".to_owned(), "Stats"),
        ("/api/v1/users/online".to_owned(), "UsersOnline"),
        ("/api/v1/connections".to_owned(), "Connections"),
        ("/api/v1/channels/queue-updates/presence".to_owned(), "RoomPresence"),
        ("/api/v1/jobs/none".to_owned(), "Problem"),
    ] {
        let body = server.get(&path).await.json();
        let body = body.as_object().unwrap();
        let parts = parts(&document, &schemas[schema]);
        let described =
            |field: &String| parts.iter().any(|part| part["properties"].get(field.as_str()).is_some());
        assert!(!parts.is_empty(), "{schema}");
        for field in body.keys() {
            assert!(described(field), "`{field}` of {schema} is not described");
        }
        for field in parts.iter().flat_map(|part| part["required"].as_array().unwrap()) {
            assert!(body.contains_key(field.as_str().unwrap()), "{schema} lacks {field}");
        }
    }
}

/// A schema, or those that it is put together of.
fn parts<'a>(document: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let Some(all) = schema["allOf"].as_array() else { return vec![schema] };
    let resolved = all.iter().map(|part| match part["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => part,
    });
    resolved.collect()
}

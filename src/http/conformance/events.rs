//! Publishing messages.

use serde_json::{Value, json};

use super::{MESSAGE_BYTES, PUBLISH_BATCH, Server};

const EVENTS: &str = "/api/v1/events";

fn message(channel: &str, event: &str, data: impl Into<Value>) -> Value {
    let data = data.into();
    json!({"channel": channel, "event": event, "data": data})
}

fn custom(data: impl Into<Value>) -> Value {
    message("test-progress-t", "custom:note", data)
}

#[tokio::test]
async fn one_message_is_answered_with_its_place() {
    let server = Server::start().await;
    let first = server.post(EVENTS, custom(1)).await;
    let second = server.post(EVENTS, custom(2)).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201));
    let (first, second) = (first.json(), second.json());
    assert_eq!((&first["offset"], &second["offset"]), (&json!(1), &json!(2)));
    assert_eq!(first["epoch"], second["epoch"]);
    assert!(first["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(first.as_object().unwrap().len(), 3);
}

#[tokio::test]
async fn a_message_that_is_sent_again_returns_its_first_place_with_200() {
    let server = Server::start().await;
    let mut sent = custom(1);
    sent["id"] = json!("mine");
    let first = server.post(EVENTS, &sent).await;
    server.post(EVENTS, custom(2)).await;
    let again = server.post(EVENTS, &sent).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 200));
    assert_eq!(first.json(), again.json());
}

#[tokio::test]
async fn the_user_of_the_header_sends_what_names_no_user() {
    let server = Server::start().await;
    let mut named = custom(1);
    named["userId"] = json!("bob");
    server.post_as(Some("ann"), EVENTS, json!([custom(1), named])).await;
    server.post(EVENTS, custom(1)).await;
    let told = server.get("/api/v1/channels/test-progress-t/messages").await.json();
    let users: Vec<_> = told["messages"].as_array().unwrap().iter().map(|m| m["userId"].clone()).collect();
    assert_eq!(users, [json!("ann"), json!("bob"), Value::Null]);
}

#[tokio::test]
async fn each_refusal_of_one_message_has_its_status_and_its_code() {
    let server = Server::start().await;
    for (sent, status, code, part) in [
        (message("nowhere", "custom:x", json!(1)), 404, "unknown_channel", "`nowhere`"),
        (
            message("user-presence", "user:online", json!({"userId": "ann"})),
            403,
            "forbidden",
            "`user-presence`",
        ),
        (message("test-updates", "custom:x", json!(1)), 400, "unknown_event", "`test:started`"),
        (custom("x".repeat(MESSAGE_BYTES)), 413, "too_large", "message_bytes"),
        (message("test-progress-t", "test:progress", json!({"progress": 101})), 400, "invalid", "0 and 100"),
        (json!({"channel": "test-progress-t", "event": "custom:x"}), 400, "invalid", "`data`"),
        (
            json!({"channel": "a b", "event": "custom:x", "data": 1}),
            400,
            "invalid",
            "channel: a channel name",
        ),
        (json!(7), 400, "invalid", "expected a message"),
    ] {
        server.post(EVENTS, sent).await.problem_saying(status, code, part);
    }
    server.post(EVENTS, "{\"event\": \n oops}").await.problem_saying(400, "invalid_json", "line 2 column 2");
    server.post(EVENTS, "").await.problem(400, "invalid_json");
    server.post_as(Some(""), EVENTS, custom(1)).await.problem(400, "invalid_user");
}

#[tokio::test]
async fn what_does_not_fit_the_story_of_a_test_is_refused_with_409() {
    let server = Server::start().await;
    let told = |event: &str, data: Value| message("test-progress-t", event, data);
    for (event, attempt) in [("test:started", 2), ("test:completed", 2)] {
        assert_eq!(server.post(EVENTS, told(event, json!({"attempt": attempt}))).await.status, 201);
    }
    let late = server.post(EVENTS, told("test:progress", json!({"attempt": 1, "progress": 3}))).await;
    late.problem(409, "stale_attempt");
    let ended = server.post(EVENTS, told("test:progress", json!({"attempt": 2, "progress": 3}))).await;
    ended.problem(409, "test_ended");
    server.submit(json!({"testType": "command", "config": {"suite": "s"}, "testId": "u"})).await;
    let owned = server.post(EVENTS, message("test-progress-u", "test:started", json!({"attempt": 1}))).await;
    owned.problem(409, "test_owned");
}

#[tokio::test]
async fn the_messages_of_an_array_succeed_and_fail_each_by_itself() {
    let server = Server::start().await;
    let sent = format!(
        "[{}, {}, {{\"event\": 7}}, 42, {}, {}]",
        custom(1),
        message("nowhere", "custom:x", json!(1)),
        message("test-progress-t", "custom:x", json!("x".repeat(MESSAGE_BYTES))),
        custom(2),
    );
    let answer = server.post(EVENTS, sent).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    let seen: Vec<_> = results.iter().map(|r| (r["offset"].clone(), r["error"]["code"].clone())).collect();
    assert_eq!(
        seen,
        [
            (json!(1), Value::Null),
            (Value::Null, json!("unknown_channel")),
            (Value::Null, json!("invalid")),
            (Value::Null, json!("invalid")),
            (Value::Null, json!("too_large")),
            (json!(2), Value::Null),
        ]
    );
    let wrong = results[2]["error"]["message"].as_str().unwrap();
    assert!(wrong.contains("event: invalid type: integer"), "{wrong}");
}

#[tokio::test]
async fn a_second_look_at_a_wrong_message_reads_its_data_as_the_first_did() {
    let server = Server::start().await;
    let sent = json!([{"data": {"deep": [1.50, {}]}, "x": null, "channel": "test-progress-t",
        "event": "custom:x", "priority": "high"}]);
    let results = server.post(EVENTS, sent).await.json();
    let message = results["results"][0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("priority: invalid type: string"), "{message}");
}

#[tokio::test]
async fn an_empty_array_has_no_results() {
    let server = Server::start().await;
    let answer = server.post(EVENTS, " \n[]").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"results": []})));
}

#[tokio::test]
async fn an_array_of_too_many_messages_is_refused_as_a_whole() {
    let server = Server::start().await;
    let all = server.post(EVENTS, Value::from(vec![custom(1); PUBLISH_BATCH])).await;
    assert_eq!(all.json()["results"].as_array().unwrap().len(), PUBLISH_BATCH);
    let more = server.post(EVENTS, Value::from(vec![custom(1); PUBLISH_BATCH + 1])).await;
    more.problem_saying(413, "batch_too_large", "101 messages, more than the 100");
    let history = server.get("/api/v1/channels/test-progress-t/messages").await.json();
    assert_eq!(history["top"], PUBLISH_BATCH);
}

#[tokio::test]
async fn an_array_that_is_no_json_is_refused_as_a_whole() {
    let server = Server::start().await;
    for text in ["[", "[1", "[1,]", "[] x", "[{]"] {
        server.post(EVENTS, text).await.problem(400, "invalid_json");
    }
}

#[tokio::test]
async fn without_room_publishing_and_submitting_end_with_507_and_reading_goes_on() {
    let server = Server::start().await;
    server.post(EVENTS, custom(1)).await;
    server.fill_the_disk().await;
    let large = "x".repeat(MESSAGE_BYTES - 8);
    // The last page may still have some room.
    let mut answer = server.post(EVENTS, custom(large.clone())).await;
    for _ in 0..100 {
        if answer.status != 201 {
            break;
        }
        answer = server.post(EVENTS, custom(large.clone())).await;
    }
    answer.problem(507, "storage_full");
    server.post(EVENTS, json!([custom(large.clone()), 7])).await.problem(507, "storage_full");
    let job = json!({"testType": "command", "config": {"suite": large}});
    server.post("/api/v1/jobs", job).await.problem(507, "storage_full");
    assert_eq!(server.get("/api/v1/channels/test-progress-t/messages").await.status, 200);
}

#[tokio::test]
async fn without_a_store_every_route_that_needs_it_ends_with_503_and_says_when_to_come_back() {
    let server = Server::start().await;
    server.store.close().await;
    let job = json!({"testType": "command", "config": {"suite": "s"}});
    for answer in [
        server.post(EVENTS, custom(1)).await,
        server.post(EVENTS, json!([custom(1), 7])).await,
        server.post("/api/v1/jobs", job).await,
        server.get("/api/v1/jobs").await,
        server.get("/api/v1/jobs/j").await,
        server.post_nothing("/api/v1/jobs/j/cancel").await,
        server.post_nothing("/api/v1/jobs/j/retry").await,
        server.get("/api/v1/tests").await,
        server.get("/api/v1/tests/t").await,
        server.get("/api/v1/channels/test-updates/messages").await,
    ] {
        answer.problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
}

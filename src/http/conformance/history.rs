//! The history of channels.

use serde_json::{Value, json};

use super::Server;

const PATH: &str = "/api/v1/channels/test-progress-t/messages";

/// A server with `n` messages in one channel, and the channel's epoch.
async fn server_with(n: usize) -> (Server, String) {
    let server = Server::start().await;
    let message = |n| json!({"channel": "test-progress-t", "event": "custom:n", "data": n});
    let sent: Vec<Value> = (1..=n).map(message).collect();
    let answer = server.post("/api/v1/events", Value::from(sent)).await.json();
    let epoch = answer["results"][0]["epoch"].as_str().unwrap().to_owned();
    (server, epoch)
}

fn offsets(page: &Value) -> Vec<u64> {
    page["messages"].as_array().unwrap().iter().map(|m| m["offset"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn history_is_read_page_by_page_without_a_hole() {
    let (server, epoch) = server_with(5).await;
    let page = server.get(&format!("{PATH}?limit=2")).await.json();
    assert_eq!(offsets(&page), [1, 2]);
    assert_eq!(page["epoch"], epoch.as_str());
    assert_eq!((&page["top"], &page["oldest"], &page["next"]), (&json!(5), &json!(1), &json!(2)));
    let page = server.get(&format!("{PATH}?epoch={epoch}&offset=2&limit=2")).await.json();
    assert_eq!((offsets(&page), &page["next"]), (vec![3, 4], &json!(4)));
    let page = server.get(&format!("{PATH}?epoch={epoch}&offset=4&limit=")).await.json();
    assert_eq!((offsets(&page), page.get("next")), (vec![5], None));
    let page = server.get(&format!("{PATH}?epoch={epoch}&offset=5")).await.json();
    assert_eq!((offsets(&page), page.get("next")), (vec![], None));
}

#[tokio::test]
async fn messages_are_written_as_they_were_published() {
    let server = Server::start().await;
    let sent = r#"{"channel":"test-progress-t","event":"custom:n","data":{"n":1.50,"big":123456789012345678901},"trace":[1e2]}"#;
    server.post("/api/v1/events", sent).await;
    let text = server.get(PATH).await.text;
    assert!(text.contains(r#""data":{"n":1.50,"big":123456789012345678901},"trace":[1e2]"#), "{text}");
}

#[tokio::test]
async fn a_channel_that_nothing_was_sent_to_is_empty_and_has_an_epoch() {
    let server = Server::start().await;
    let page = server.get(PATH).await.json();
    assert_eq!((&page["top"], &page["oldest"], &page["messages"]), (&json!(0), &json!(1), &json!([])));
    assert_eq!(server.get(PATH).await.json()["epoch"], page["epoch"]);
}

#[tokio::test]
async fn another_epoch_is_refused_with_where_the_channel_is_now() {
    let (server, epoch) = server_with(3).await;
    let problem = server.get(&format!("{PATH}?epoch=old&offset=1")).await.problem(409, "epoch_changed");
    assert_eq!((&problem["epoch"], &problem["top"]), (&json!(epoch), &json!(3)));
}

#[tokio::test]
async fn an_offset_beyond_the_top_is_refused_with_where_the_channel_is_now() {
    let (server, epoch) = server_with(3).await;
    let problem = server.get(&format!("{PATH}?epoch={epoch}&offset=4")).await.problem(409, "ahead_of_top");
    assert_eq!((&problem["epoch"], &problem["top"]), (&json!(epoch), &json!(3)));
    let far = format!("{PATH}?offset={}", u64::MAX);
    server.get(&far).await.problem(409, "ahead_of_top");
}

#[tokio::test]
async fn messages_that_are_gone_show_in_oldest() {
    let server = Server::start().await;
    let channel = "/api/v1/channels/system-alerts/messages";
    let alert = json!({"channel": "system-alerts", "event": "system:alert", "data": {}});
    for _ in 0..11 {
        let sent = Value::from(vec![alert.clone(); super::PUBLISH_BATCH]);
        assert_eq!(server.post("/api/v1/events", sent).await.status, 200);
    }
    let page = server.get(&format!("{channel}?offset=10&limit=1")).await.json();
    assert_eq!((&page["oldest"], &page["top"], offsets(&page)), (&json!(101), &json!(1100), vec![101]));
}

#[tokio::test]
async fn an_answer_holds_a_mebibyte_of_messages_at_most() {
    let server = Server::start().await;
    let message = json!({"channel": "test-progress-t", "event": "custom:n", "data": "x".repeat(4000)});
    for _ in 0..30 {
        let sent = Value::from(vec![message.clone(); 10]);
        assert_eq!(server.post("/api/v1/events", sent).await.status, 200);
    }
    let answer = server.get(&format!("{PATH}?limit=1000")).await;
    assert!((900_000..=1_100_000).contains(&answer.text.len()), "{} bytes", answer.text.len());
    let page = answer.json();
    assert_eq!(page["next"], offsets(&page).last().copied().unwrap());
}

#[tokio::test]
async fn a_channel_that_no_rule_knows_is_answered_with_404() {
    let server = Server::start().await;
    server.get("/api/v1/channels/nowhere/messages").await.problem_saying(404, "unknown_channel", "`nowhere`");
    server.get("/api/v1/channels/a%2Fb/messages").await.problem(400, "invalid_path");
}

#[tokio::test]
async fn a_wrong_question_is_refused_with_the_parameter_that_is_wrong() {
    let server = Server::start().await;
    for (query, part) in [
        ("limit=0", "limit is a whole number from 1 to 1000"),
        ("limit=1001", "limit is a whole number from 1 to 1000"),
        ("offset=-1", "offset is a whole number"),
        ("offset=x", "offset is a whole number"),
        ("offset=1&offset=2", "offset"),
    ] {
        server.get(&format!("{PATH}?{query}")).await.problem_saying(400, "invalid_query", part);
    }
}

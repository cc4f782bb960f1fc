//! Lists of jobs and tests, and one test.

use serde_json::{Value, json};

use super::Server;

async fn server_with(n: usize) -> Server {
    let server = Server::start().await;
    for n in 1..=n {
        let job = json!({"testType": "command", "config": {"suite": "s"}, "testId": format!("t{n}")});
        server.submit(job).await;
    }
    server
}

fn names(page: &Value, list: &str) -> Vec<String> {
    page[list].as_array().unwrap().iter().map(|e| e["testId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn lists_are_read_page_by_page_newest_first() {
    let server = server_with(5).await;
    for list in ["jobs", "tests"] {
        let first = server.get(&format!("/api/v1/{list}?limit=2")).await.json();
        assert_eq!(names(&first, list), ["t5", "t4"]);
        let next = first["next"].as_str().unwrap();
        let second = server.get(&format!("/api/v1/{list}?limit=2&cursor={next}")).await.json();
        assert_eq!(names(&second, list), ["t3", "t2"]);
        let next = second["next"].as_str().unwrap();
        let last = server.get(&format!("/api/v1/{list}?limit=2&cursor={next}")).await.json();
        assert_eq!((names(&last, list), last.get("next")), (vec!["t1".to_owned()], None));
    }
}

#[tokio::test]
async fn lists_hold_only_what_is_in_the_state_that_was_asked_for() {
    let server = server_with(3).await;
    server.claim().await;
    for list in ["jobs", "tests"] {
        let running = server.get(&format!("/api/v1/{list}?state=running")).await.json();
        assert_eq!(names(&running, list), ["t1"]);
        let queued = server.get(&format!("/api/v1/{list}?state=queued&cursor=&limit=")).await.json();
        assert_eq!(names(&queued, list), ["t3", "t2"]);
        assert_eq!(server.get(&format!("/api/v1/{list}?state=failed")).await.json()[list], json!([]));
    }
}

#[tokio::test]
async fn a_wrong_question_for_a_list_is_refused() {
    let server = server_with(1).await;
    for list in ["jobs", "tests"] {
        for (query, code, part) in [
            ("state=done", "invalid_query", "state is one of scheduled, queued"),
            ("limit=0", "invalid_query", "from 1 to 500"),
            ("limit=501", "invalid_query", "from 1 to 500"),
            ("limit=x", "invalid_query", "from 1 to 500"),
            ("limit=1&limit=1", "invalid_query", "limit"),
            ("cursor=x1", "invalid_cursor", "leave it out"),
        ] {
            let answer = server.get(&format!("/api/v1/{list}?{query}")).await;
            answer.problem_saying(400, code, part);
        }
    }
    server.get("/api/v1/tests?cursor=j1").await.problem(400, "invalid_cursor");
    server.get("/api/v1/jobs?cursor=t1").await.problem(400, "invalid_cursor");
}

#[tokio::test]
async fn a_test_that_reports_from_outside_is_listed_and_read() {
    let server = Server::start().await;
    let told = json!({"channel": "test-progress-ext", "event": "test:progress",
        "data": {"testType": "load", "attempt": 1, "progress": 50, "metrics": {"rps": 7}}});
    assert_eq!(server.post("/api/v1/events", told).await.status, 201);
    let test = server.get("/api/v1/tests/ext").await.json();
    assert_eq!((&test["state"], &test["progress"]), (&json!("running"), &json!(50.0)));
    assert_eq!((&test["offset"], &test["metrics"]), (&json!(1), &json!({"rps": 7})));
    assert_eq!(server.get("/api/v1/tests").await.json()["tests"], json!([test]));
}

#[tokio::test]
async fn a_test_that_does_not_exist_is_answered_with_404() {
    let server = Server::start().await;
    server.get("/api/v1/tests/none").await.problem(404, "test_not_found");
    server.get("/api/v1/tests/a%20b").await.problem_saying(400, "invalid_path", "a test id");
}

//! What browsers and operators meet: origins, headers, listeners of their own, and logs without secrets.

use serde_json::{Value, json};

use super::{SECRET, Server, Site, ask, code, connect, head, http, token, token_of, wait_until, with_secret};
use crate::support::redis::free_port;

#[tokio::test]
async fn pages_of_other_origins_are_refused_and_listed_ones_are_not() {
    let site =
        Site::new(&format!("{}[http]\nallowed_origins = [\"https://dash.example.org\"]\n", with_secret("")));
    let server = site.start();
    let mine = format!("Bearer {}", token_of("ann", &[]));
    let own = server.url.clone();
    let socket = "/socket.io/?EIO=4&transport=polling";
    let upgrade = "/socket.io/?EIO=4&transport=websocket";
    for (origin, path, status) in [
        ("https://dash.example.org", "/api/v1/stats", 200),
        (own.as_str(), "/api/v1/stats", 200),
        ("http://evil.example", "/api/v1/stats", 403),
        ("null", "/api/v1/stats", 403),
        ("https://dash.example.org", socket, 200),
        (own.as_str(), socket, 200),
        ("http://evil.example", socket, 403),
        ("http://evil.example", upgrade, 403),
        ("null", upgrade, 403),
    ] {
        let mut headers = vec![("origin", origin), ("authorization", mine.as_str())];
        if path == upgrade {
            headers.extend([
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ]);
        }
        let answer = ask(&server, "GET", path, &headers).await;
        assert_eq!(answer.status, status, "{origin} {path}: {answer:?}");
        let allowed = answer.header("access-control-allow-origin");
        let listed = (origin == "https://dash.example.org").then_some(origin);
        assert_eq!(allowed, listed, "{origin} {path}");
        if status == 403 {
            assert_eq!(answer.code(), "origin_not_allowed");
        }
    }
    let asked = [
        ("origin", "https://dash.example.org"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let answer = ask(&server, "OPTIONS", "/api/v1/jobs", &asked).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("access-control-allow-headers").is_some_and(|h| h.contains("authorization")));
}

#[tokio::test]
async fn a_server_that_believes_everybody_answers_only_to_its_own_names() {
    let site = Site::new("[http]\nallowed_hosts = [\"dash.example.org\"]\n");
    let server = site.start();
    let port = server.address().rsplit(':').next().expect("a port");
    let evil = format!("evil.example:{port}");
    let local = format!("localhost:{port}");
    let socket = "/socket.io/?EIO=4&transport=polling";
    for (host, path, status) in [
        (local.as_str(), "/api/v1/stats", 200),
        (local.as_str(), socket, 200),
        ("dash.example.org", "/api/v1/stats", 200),
        ("dash.example.org", socket, 200),
        (evil.as_str(), "/api/v1/stats", 421),
        (evil.as_str(), "/", 421),
        (evil.as_str(), "/metrics", 421),
        (evil.as_str(), socket, 421),
        // What balancers ask.
        (evil.as_str(), "/healthz", 200),
        (evil.as_str(), "/readyz", 200),
    ] {
        // A page of that very name asks: it is of the same origin.
        let origin = format!("http://{host}");
        let answer = ask(&server, "GET", path, &[("host", host), ("origin", &origin)]).await;
        assert_eq!(answer.status, status, "{host} {path}: {answer:?}");
        if status == 421 {
            assert_eq!(answer.code(), "host_not_allowed");
            assert!(answer.body.contains("http.allowed_hosts"), "{answer:?}");
        }
    }
    let counted = ask(&server, "GET", "/metrics", &[]).await.body;
    assert!(counted.contains("tidings_rejected_total{reason=\"host\"} 4"), "{counted}");
    // Where tokens are asked for, a page that is not known has none.
    let site = Site::new(&with_secret(""));
    let server = site.start();
    let token = format!("Bearer {}", token_of("ann", &[]));
    let headers = [("host", "evil.example"), ("authorization", token.as_str())];
    assert_eq!(ask(&server, "GET", "/api/v1/stats", &headers).await.status, 200);
}

#[tokio::test]
async fn every_answer_carries_headers_that_keep_it_what_it_is() {
    let metrics_port = free_port();
    let site = Site::new(&format!("[metrics]\nlisten = \"127.0.0.1:{metrics_port}\"\n"));
    let server = site.start();
    let closed_site = Site::new(&with_secret(""));
    let closed = closed_site.start();
    let (own, foreign) = ([].as_slice(), [("host", "evil.example")].as_slice());
    let at_metrics = format!("127.0.0.1:{metrics_port}");
    for (address, path, headers, status) in [
        (server.address(), "/", own, None),
        (server.address(), "/healthz", own, Some(200)),
        (server.address(), "/api/v1/stats", own, Some(200)),
        (server.address(), "/nowhere", own, Some(404)),
        (server.address(), "/api/v1/stats", foreign, Some(421)),
        (server.address(), "/socket.io/?EIO=4&transport=polling", own, Some(200)),
        (server.address(), "/socket.io/?EIO=3&transport=polling", own, Some(400)),
        (closed.address(), "/api/v1/stats", own, Some(401)),
        (&at_metrics, "/metrics", own, Some(200)),
    ] {
        let answer = super::ask_at(address, "GET", path, headers).await;
        assert!(status.is_none_or(|status| answer.status == status), "{path}: {answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
    }
}

#[tokio::test]
async fn metrics_and_administration_may_have_listeners_of_their_own() {
    let (admin_port, metrics_port) = (free_port(), free_port());
    let site = Site::new(&format!(
        "{}[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n[metrics]\nlisten = \"127.0.0.1:{metrics_port}\"\n",
        with_secret("")
    ));
    let server = site.start();
    let admin = token_of("root", &["admin"]);
    assert_eq!(head(&server, "/api/v1/connections", Some(&admin)).await.code(), "not_found");
    assert_eq!(head(&server, "/metrics", None).await.code(), "token_required");
    let there = |port: u16| format!("127.0.0.1:{port}");
    let metrics = super::ask_at(&there(metrics_port), "GET", "/metrics", &[]).await;
    assert!(metrics.status == 200 && metrics.body.contains("tidings_connections "), "{metrics:?}");
    assert_eq!(super::ask_at(&there(metrics_port), "GET", "/api/v1/jobs", &[]).await.status, 404);
    let at_admin =
        tidings::client::http::HttpClient::new(&there(admin_port), Some(&admin)).expect("a client");
    let mut socket = connect(&server, Some(&token_of("ann", &[]))).await.expect("let in");
    let answer: Value = at_admin.get("/api/v1/connections").await.expect("listed");
    assert_eq!(answer["connections"][0]["userId"], "ann", "{answer}");
    at_admin.post::<_, Value>("/api/v1/users/ann/block", &json!({})).await.expect("blocked");
    while let Some(Ok(_)) = socket.next().await {}
    let ann = tidings::client::http::HttpClient::new(&there(admin_port), Some(&token_of("bob", &[])));
    assert_eq!(code(ann.expect("a client").get::<Value>("/api/v1/connections").await), "forbidden");
}

#[tokio::test]
async fn no_secret_is_ever_written_down() {
    let site = Site::new(&with_secret("issuer = \"dev\"\n"));
    let mut command = site.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("TIDINGS_LOG__LEVEL", "trace").env("TIDINGS_LOG__FORMAT", "json");
    let server = Server::spawn(&mut command);
    let good = token(json!({ "sub": "ann", "iss": "dev", "roles": ["admin"] }));
    let bad = token(json!({ "sub": "ann", "iss": "other" }));
    let mut seen = String::new();
    for token in [&good, &bad] {
        for path in ["/api/v1/stats", "/metrics", "/nowhere", "/socket.io/?EIO=4&transport=polling"] {
            let mark = if path.contains('?') { '&' } else { '?' };
            let answer = head(&server, &format!("{path}{mark}token={token}"), None).await;
            seen.push_str(&answer.head);
            seen.push_str(&answer.body);
            let answer = head(&server, path, Some(token)).await;
            seen.push_str(&answer.head);
            seen.push_str(&answer.body);
        }
    }
    assert_eq!(code(connect(&server, Some(&bad)).await), "invalid_token");
    let mut socket = connect(&server, Some(&good)).await.expect("let in");
    socket.ping().await.expect("it lives");
    assert_eq!(code(http(&server, &bad).get::<Value>("/api/v1/stats").await), "invalid_token");
    seen.push_str(&server.log());
    assert!(seen.contains("tidings_rejected_total"), "the metrics were looked at");
    let signature = |token: &str| token.rsplit('.').next().expect("a signature").to_owned();
    for secret in [SECRET.to_owned(), signature(&good), signature(&bad)] {
        let line = seen.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "a secret was written down");
    }
    // And what is wrong with a secret is told without it.
    let site = Site::new("[auth]\nhs256_secret = 1234567\n[nonsense]\n");
    let output = super::super::tidings(&["check", "--config"])
        .arg(site.path("tidings.toml"))
        .output()
        .expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("tidings.toml:2:") && said.contains("auth.hs256_secret"), "{said}");
    assert!(!said.contains("1234567"), "{said}");
}

#[tokio::test]
async fn an_administrator_changes_what_is_logged_and_nobody_else() {
    let site = Site::new(&with_secret("[log]\nlevel = \"info\"\nformat = \"json\"\n"));
    let server = site.start().with_token(&token_of("root", &["admin"]));
    let path = "/api/v1/log-level";
    let put = async |token: &str, body: &Value| put(&server, path, token, body).await;
    let (root, ann) = (token_of("root", &["admin"]), token_of("ann", &["submit", "worker", "metrics"]));
    assert_eq!(server.get(path).await, json!({ "level": "info" }));
    assert_eq!(put(&ann, &json!({ "level": "trace" })).await.code(), "forbidden");
    assert_eq!(head(&server, path, Some(&ann)).await.code(), "forbidden");
    assert_eq!(head(&server, path, None).await.code(), "token_required");
    for (wrong, part) in [
        (json!({ "level": "inof" }), "did you mean `info`?"),
        (json!({ "level": "" }), "level"),
        (json!({}), "level"),
        (json!({ "level": "info", "more": 1 }), "more"),
    ] {
        let answer = put(&root, &wrong).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid"), "{answer:?}");
        assert!(answer.body.contains(part), "{answer:?}");
    }
    assert_eq!(server.get(path).await["level"], "info");

    // That somebody is shut out is told as `INFO`.
    let shut_out = async |user: &str| {
        let mut socket = connect(&server, Some(&token_of(user, &[]))).await.expect("let in");
        server.post(&format!("/api/v1/users/{user}/block"), &json!({})).await;
        while socket.next().await.is_some_and(|event| event.is_ok()) {}
    };
    let told = || server.log().lines().filter(|line| line.contains("a connection ends")).count();
    for (level, user, expected) in [("warn,tidings=debug", "a", 1), ("error", "b", 1), ("info", "c", 2)] {
        assert_eq!(put(&root, &json!({ "level": level })).await.status, 200);
        assert_eq!(server.get(path).await["level"], level);
        shut_out(user).await;
        wait_until("it is told", async || told() >= expected).await;
        assert_eq!(told(), expected, "at {level}");
    }
    // What the configuration says holds again once it is read.
    assert_eq!(put(&root, &json!({ "level": "error" })).await.status, 200);
    server.signal(rustix::process::Signal::HUP);
    wait_until("it is read again", async || server.get(path).await["level"] == "info").await;
}

async fn put(server: &Server, path: &str, token: &str, body: &Value) -> super::Bare {
    let body = body.to_string();
    let (bearer, length) = (format!("Bearer {token}"), body.len().to_string());
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("content-length", &length),
    ];
    super::ask_with(server.address(), "PUT", path, &headers, &body).await
}

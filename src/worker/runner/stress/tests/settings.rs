//! What the requests look like, and how they travel.

use super::server::{Certificates, serve_tls};
use super::*;

#[tokio::test]
async fn the_server_sees_the_method_the_headers_and_the_body() {
    let server = serve(Manner::Answers("201 Created")).await;
    let config = json!({"url": format!("{}?q=1", server.url), "durationMs": 50, "concurrency": 1, "method": "PATCH",
        "headers": {"X-Test": "yes", "Authorization": "Bearer t"}, "bodyBase64": "AAH/"});
    passed(run(config).await.1);
    let seen = server.seen();
    assert_eq!(
        (seen[0].head[0].as_str(), seen[0].body.as_slice()),
        ("PATCH /path?q=1 HTTP/1.1", &[0, 1, 255][..])
    );
    for header in ["x-test: yes", "authorization: Bearer t", "content-length: 3"] {
        assert!(seen[0].head.iter().any(|line| line.eq_ignore_ascii_case(header)), "{header}: {seen:?}");
    }
    let json =
        json!({"url": server.url, "durationMs": 50, "concurrency": 1, "method": "post", "body": {"a": [1]}});
    passed(run(json).await.1);
    let last = server.seen().pop().unwrap();
    assert_eq!(last.body, br#"{"a":[1]}"#);
    assert!(last.head.iter().any(|line| line.eq_ignore_ascii_case("content-type: application/json")));
}

#[tokio::test]
async fn an_expected_status_is_no_error_and_every_other_one_is() {
    let server = serve(Manner::Answers("404 Not Found")).await;
    let config = |expected: Value| {
        json!({"url": server.url, "durationMs": 100, "concurrency": 1, "expectStatus": expected,
            "thresholds": ["error_rate <= 0"]})
    };
    let results = passed(run(config(json!(["2xx", 404]))).await.1);
    assert_eq!(results["statuses"]["4xx"], results["requests"]);
    let (_, _, results) = failed(run(config(json!([200]))).await.1);
    assert_eq!(results["errors"], json!({"status": results["requests"]}));
    assert_eq!(results["firstErrors"]["status"], "status 404");
}

#[tokio::test]
async fn a_request_ends_with_its_time_limit() {
    let server = serve(Manner::Never).await;
    let config = json!({"url": server.url, "durationMs": 200, "rate": 20, "timeoutMs": 300});
    let (_, message, results) = failed(run(config).await.1);
    assert_eq!(message, "all 4 requests failed, the first one with: no answer within 300ms");
    assert_eq!(results["errors"], json!({"timeout": 4}));
}

#[tokio::test]
async fn without_keep_alive_each_request_has_its_connection() {
    let server = serve(Manner::Answers("200 OK")).await;
    let results =
        passed(run(json!({"url": server.url, "durationMs": 300, "rate": 50, "keepAlive": false})).await.1);
    assert_eq!((results["requests"].as_u64(), server.connections()), (Some(15), 15));
    assert!(server.seen().iter().all(|seen| seen.head.iter().any(|line| line == "connection: close")));
}

#[tokio::test]
async fn https_is_spoken_with_the_authority_that_the_config_trusts() {
    let certificates = Certificates::new("DNS:localhost");
    let server = serve_tls(Manner::Answers("200 OK"), &certificates).await;
    let tls = |tls: Value| run(json!({"url": server.url, "durationMs": 200, "rate": 50, "tls": tls}));
    let results = passed(tls(json!({"ca": certificates.authority()})).await.1);
    assert_eq!((results["requests"].as_u64(), &results["failed"]), (Some(10), &json!(0)));
    let seen = server.seen().len();
    let (code, message, _) = failed(tls(json!({"ca": Certificates::new("DNS:other").authority()})).await.1);
    assert_eq!(code, "tests_failed");
    assert!(message.contains("an authority that is not trusted here; tls.ca names"), "{message}");
    // 127.0.0.1 is in the list, and not in the certificate.
    let named = json!({"ca": certificates.authority(), "serverName": "127.0.0.1"});
    let (_, message, _) = failed(tls(named).await.1);
    assert!(message.contains("its certificate is for another name"), "{message}");
    assert_eq!(server.seen().len(), seen, "no request went out");
    passed(tls(json!({"insecure": true, "serverName": "127.0.0.1"})).await.1);
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_with_a_bad_certificate() {
    let server = serve(Manner::Answers("200 OK")).await;
    let url = server.url.replace("http://", "https://");
    let config =
        json!({"url": url, "durationMs": 100, "concurrency": 1, "timeoutMs": 500, "tls": {"insecure": true}});
    let (_, message, results) = failed(run(config).await.1);
    assert!(message.starts_with("all ") && results["errors"].get("certificate").is_none(), "{message}");
}

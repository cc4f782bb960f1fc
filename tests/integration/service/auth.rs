//! Who is let in, to what, and for how long: the real program with keys, asked through every door.

mod doors;
pub(super) mod forge;
mod keys;
mod life;
mod provider;
mod reload;
mod web;

use serde_json::{Map, Value, json};
use tidings::auth::mint::Signer;
use tidings::client::ClientError;
use tidings::client::http::HttpClient;
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};
use tidings::config::secret::Secret;
use tidings::model::now_ms;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Server, Site, wait_until};

const SECRET: &str = "the secret of the tests, which is long enough";

/// Settings with a secret, and without leeway, so that an end is an end.
fn with_secret(more: &str) -> String {
    format!("[auth]\nhs256_secret = \"{SECRET}\"\nleeway = \"0s\"\n{more}")
}

/// Signs with the secret of the tests.
fn signer() -> Signer {
    Signer::secret(&Secret::new(SECRET)).expect("a secret")
}

/// Claims that hold for a minute, and `more`.
fn claims(more: Value) -> Map<String, Value> {
    let mut claims = json!({ "exp": now_ms() / 1000 + 60 });
    let all = claims.as_object_mut().expect("an object");
    let Value::Object(more) = more else { panic!("{more} is no object") };
    all.extend(more);
    all.clone()
}

/// A token with these claims that holds for a minute.
fn token(more: Value) -> String {
    signer().sign(&claims(more)).expect("signed")
}

/// A token of `user` with `roles`.
fn token_of(user: &str, roles: &[&str]) -> String {
    token(json!({ "sub": user, "roles": roles }))
}

fn http(server: &Server, token: &str) -> HttpClient {
    HttpClient::new(&server.url, Some(token)).expect("a client")
}

async fn connect(server: &Server, token: Option<&str>) -> Result<SocketClient, ClientError> {
    let options = ConnectOptions { token: token.map(str::to_owned), ..ConnectOptions::default() };
    SocketClient::connect(&server.url, options).await
}

/// The stable code of a refusal, by whichever way it came.
fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(
            ClientError::Refused { code, .. }
            | ClientError::Rejected { code, .. }
            | ClientError::Problem { code, .. },
        ) => code,
        other => panic!("that is no refusal: {other:?}"),
    }
}

/// An answer to a bare request.
#[derive(Debug)]
struct Bare {
    status: u16,
    head: String,
    body: String,
}

impl Bare {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// `ok`, or the code of the problem.
    fn code(&self) -> String {
        if self.status == 200 {
            return "ok".to_owned();
        }
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        problem["code"].as_str().expect("a code").to_owned()
    }
}

/// Asks without a client between; of a stream only its head is read.
async fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Bare {
    ask_at(server.address(), method, path, headers).await
}

async fn ask_at(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Bare {
    ask_with(address, method, path, headers, "").await
}

async fn ask_with(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Bare {
    let mut socket = TcpStream::connect(address).await.expect("connected");
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {address}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    socket.write_all(request.as_bytes()).await.expect("asked");
    let mut text = Vec::new();
    let is_stream = |text: &[u8]| String::from_utf8_lossy(text).contains("text/event-stream");
    while !(is_stream(&text) && text.windows(4).any(|end| end == b"\r\n\r\n")) {
        let mut part = [0; 4096];
        match socket.read(&mut part).await.expect("answered") {
            0 => break,
            n => text.extend(&part[..n]),
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Bare { status, head: head.to_owned(), body: body.to_owned() }
}

/// A `GET` with a token.
async fn head(server: &Server, path: &str, token: Option<&str>) -> Bare {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    ask(server, "GET", path, &headers).await
}

#[tokio::test]
async fn who_has_a_token_is_let_in_as_whom_it_names() {
    let site = Site::new(&with_secret(""));
    let server = site.start();
    assert_eq!(code(connect(&server, None).await), "token_required");
    assert_eq!(code(server.http.get::<Value>("/api/v1/jobs").await), "token_required");
    assert_eq!(code(connect(&server, Some("a.b.c")).await), "invalid_token");
    let ann = token_of("ann", &["submit"]);
    let mut socket = connect(&server, Some(&ann)).await.expect("ann is let in");
    let greeting = socket.next().await.expect("a greeting").expect("a greeting");
    let greeting: Value = serde_json::from_str(greeting.data.get()).expect("JSON");
    assert_eq!(greeting["userId"], "ann", "{greeting}");
    socket.join("queue-updates", Since::Now).await.expect("anyone may");
    let other = socket.join("user-notifications-bob", Since::Start).await;
    assert_eq!(code(other), "forbidden");
    let job = json!({ "testType": "command", "config": { "suite": "none" } });
    let refused = http(&server, &token_of("bob", &[])).post::<_, Value>("/api/v1/jobs", &job).await;
    assert_eq!(code(refused), "forbidden");
    let refused = http(&server, &ann).post::<_, Value>("/api/v1/jobs", &job).await;
    assert_eq!(code(refused), "invalid_config", "she may, and the suite is not there");
    let message = json!({ "event": "custom:x", "channel": "test-progress-t", "data": {} });
    assert_eq!(code(http(&server, &ann).post::<_, Value>("/api/v1/events", &message).await), "forbidden");
    let worker = http(&server, &token_of("w1", &["worker"]));
    worker.post::<_, Value>("/api/v1/events", &message).await.expect("workers publish");
    let seen: Value =
        http(&server, &ann).get("/api/v1/channels/test-progress-t/messages").await.expect("seen");
    assert_eq!(seen["messages"][0]["userId"], "w1");
}

#[test]
fn without_a_key_the_server_stays_on_loopback_and_says_what_to_set() {
    let site = Site::new("");
    let output = site.command(&["serve", "--listen", "0.0.0.0:0"]).output().expect("it ran");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("auth.hs256_secret") && text.contains("127.0.0.1"), "{text}");
    let site = Site::new(&with_secret(""));
    let server = site.start_with("0.0.0.0:0", &[]);
    drop(server);
}

#[tokio::test]
async fn a_token_for_development_is_minted_by_the_program() {
    let site = Site::new(&with_secret("issuer = \"dev\"\naudience = \"tidings\"\n"));
    let server = site.start();
    let mint = |args: &[&str]| {
        let mut command = super::tidings(&["token"]);
        let output =
            command.args(args).arg("--config").arg(site.path("tidings.toml")).output().expect("it ran");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let ann = mint(&["--user", "ann", "--role", "submit", "--grant", "system-alerts=publish"]);
    let answer: Value = http(&server, &ann).get("/api/v1/jobs").await.expect("believed");
    assert_eq!(answer["jobs"], json!([]));
    let alert = json!({ "event": "system:alert", "channel": "system-alerts", "data": { "level": "info", "message": "hi" } });
    http(&server, &ann).post::<_, Value>("/api/v1/events", &alert).await.expect("granted");
    let old = mint(&["--user", "ann", "--claim", "exp=1000"]);
    assert_eq!(code(http(&server, &old).get::<Value>("/api/v1/jobs").await), "token_expired");
    let site = Site::new("");
    let output =
        super::tidings(&["token"]).arg("--config").arg(site.path("tidings.toml")).output().expect("it ran");
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("auth.hs256_secret"));
}

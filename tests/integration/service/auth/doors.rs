//! One table for all doors: every identity asks every rule through each of them, and gets the same answer.

use std::sync::Arc;

use serde_json::{Value, json};
use tidings::client::ClientError;
use tidings::client::http::HttpClient;
use tidings::client::room::Since;
use tidings::client::socket::SocketClient;

use super::{Server, Site, connect, head, http, token, with_secret};

/// Who asks: a name and the claims.
fn identities() -> Vec<(&'static str, Value)> {
    vec![
        ("nobody", json!({})),
        ("ann", json!({ "sub": "ann", "teams": ["t1"], "roles": ["submit"] })),
        ("bob", json!({ "sub": "bob", "teams": ["t2"], "roles": ["submit"] })),
        ("mate", json!({ "sub": "mate", "teams": ["t1"], "roles": ["submit"] })),
        ("auditor", json!({ "sub": "eve", "roles": ["auditor"] })),
        ("worker", json!({ "sub": "w1", "roles": ["worker"] })),
        ("metrics", json!({ "roles": ["metrics"] })),
        ("granted", json!({ "sub": "guest", "channels": { "role-*": ["join", "publish"] } })),
        ("admin", json!({ "sub": "root", "roles": ["admin"] })),
    ]
}

const CHANNELS: &str = r#"
[channel.open]
pattern = "open-{id}"
events = ["custom:*"]

[channel.named]
pattern = "named-{id}"
events = ["custom:*"]
join = "user"
publish = ["worker"]

[channel.own]
pattern = "own-{userId}"
events = ["custom:*"]
join = "owner"

[channel.team]
pattern = "team-{teamId}"
events = ["custom:*"]
join = "team"

[channel.role]
pattern = "role-{id}"
events = ["custom:*"]
join = "role:auditor"
publish = ["auditor"]

[channel.closed]
pattern = "closed-{id}"
events = ["custom:*"]
publish = []

[channel.user-notifications]
pattern = "user-notifications-{userId}"
events = ["user:notification", "user:notification:recalled"]
join = "owner"

[channel.user-presence]
pattern = "user-presence"
events = ["user:online", "user:offline"]
join = "user"
publish = []

[channel.test-progress]
pattern = "test-progress-{testId}"
events = ["test:started", "custom:*"]
join = "owner"
snapshot = true

[channel.stress-test]
pattern = "stress-test-{testId}"
events = ["custom:*"]
join = "team"

[channel.job-status]
pattern = "job-status-{jobId}"
events = ["queue:job:added", "queue:job:cancelled", "custom:*"]
join = "team"
"#;

const ALL: &[&str] = &["nobody", "ann", "bob", "mate", "auditor", "worker", "metrics", "granted", "admin"];
const NAMED: &[&str] = &["ann", "bob", "mate", "auditor", "worker", "granted", "admin"];

/// Who may read what. `T` and `J` stand for the test and the job that ann submitted for her team.
const READ: &[(&str, &[&str])] = &[
    ("open-1", ALL),
    ("named-1", NAMED),
    ("own-ann", &["ann", "admin"]),
    ("own-ann2", &["admin"]),
    ("team-t1", &["ann", "mate", "admin"]),
    ("role-1", &["auditor", "granted", "admin"]),
    ("closed-1", ALL),
    ("user-notifications-ann", &["ann", "admin"]),
    ("test-progress-T", &["ann", "admin"]),
    ("test-progress-unknown", &["admin"]),
    ("stress-test-T", &["ann", "mate", "admin"]),
    ("job-status-J", &["ann", "mate", "admin"]),
    ("job-status-unknown", &["admin"]),
];

/// Who may publish where.
const PUBLISH: &[(&str, &[&str])] = &[
    ("open-1", &["worker", "admin"]),
    ("named-1", &["worker", "admin"]),
    ("own-ann", &["worker", "admin"]),
    ("role-1", &["auditor", "granted", "admin"]),
    ("closed-1", &[]),
    ("test-progress-T", &["worker", "admin"]),
];

struct Stage {
    _site: Site,
    server: Arc<Server>,
    job: String,
}

impl Stage {
    async fn set() -> Self {
        let site = Site::new(&format!("channels = \"channels.toml\"\n{}", with_secret("")));
        site.write("channels.toml", CHANNELS);
        let server = Arc::new(site.start());
        let ann = token(identities()[1].1.clone());
        let job = json!({ "testType": "nobody-runs-this", "testId": "T", "teamId": "t1", "config": {} });
        let answer: Value = http(&server, &ann).post("/api/v1/jobs", &job).await.expect("ann submits");
        let job = answer["jobId"].as_str().expect("a job").to_owned();
        Self { _site: site, server, job }
    }

    fn channel(&self, channel: &str) -> String {
        channel.replace("status-J", &format!("status-{}", self.job))
    }
}

/// What came of asking: `ok`, or the code of the refusal.
fn outcome<T>(answer: Result<T, ClientError>) -> String {
    match answer {
        Ok(_) => "ok".to_owned(),
        Err(
            ClientError::Refused { code, .. }
            | ClientError::Rejected { code, .. }
            | ClientError::Problem { code, .. },
        ) => code,
        Err(other) => panic!("{other}"),
    }
}

/// Somebody before all doors.
struct Caller {
    name: &'static str,
    token: String,
    http: HttpClient,
    socket: SocketClient,
}

impl Caller {
    async fn all(server: &Server) -> Vec<Self> {
        let mut all = Vec::new();
        for (name, claims) in identities() {
            let token = token(claims);
            let socket = connect(server, Some(&token)).await.expect("let in");
            all.push(Self { name, http: http(server, &token), token, socket });
        }
        all
    }

    /// Asks to read `channel` through every door: each answer by its door.
    async fn read(&mut self, server: &Server, channel: &str) -> Vec<(&'static str, String)> {
        let path = |what: &str| format!("/api/v1/channels/{channel}/{what}");
        let stream = head(server, &path("stream"), Some(&self.token)).await;
        let mut answers = vec![
            ("join", outcome(self.socket.join(channel, Since::Start).await)),
            ("history", outcome(self.http.get::<Value>(&path("messages")).await)),
            ("presence", outcome(self.http.get::<Value>(&path("presence")).await)),
            ("stream", stream.code()),
        ];
        if let Some(test) = channel.strip_prefix("test-progress-") {
            let got = outcome(self.http.get::<Value>(&format!("/api/v1/tests/{test}")).await);
            answers.push(("snapshot", if got == "test_not_found" { "ok".to_owned() } else { got }));
        }
        if let Some(job) = channel.strip_prefix("job-status-") {
            let got = outcome(self.http.get::<Value>(&format!("/api/v1/jobs/{job}")).await);
            answers.push(("job", if got == "job_not_found" { "ok".to_owned() } else { got }));
        }
        answers
    }

    async fn publish(&mut self, channel: &str) -> Vec<(&'static str, String)> {
        let message = json!({ "event": "custom:x", "channel": channel, "data": {} });
        let batch: Result<Value, ClientError> =
            self.http.post("/api/v1/events", &json!([message, message])).await;
        let batch = batch.expect("a batch is answered item by item");
        let items: Vec<String> = (0..2)
            .map(|n| batch["results"][n]["error"]["code"].as_str().unwrap_or("ok").to_owned())
            .collect();
        assert_eq!(items[0], items[1]);
        vec![
            ("socket", outcome(self.socket.sender().request::<_, Value>("event:publish", &message).await)),
            ("http", outcome(self.http.post::<_, Value>("/api/v1/events", &message).await)),
            ("batch", items[0].clone()),
        ]
    }
}

#[tokio::test]
async fn every_door_gives_every_identity_the_same_answer() {
    let stage = Stage::set().await;
    let mut wrong = Vec::new();
    let mut asked = 0;
    let callers = Caller::all(&stage.server).await;
    assert_eq!(callers.iter().map(|caller| caller.name).collect::<Vec<_>>(), ALL);
    for mut caller in callers {
        for (channel, readers) in READ {
            let expected = if readers.contains(&caller.name) { "ok" } else { "forbidden" };
            for (door, got) in caller.read(&stage.server, &stage.channel(channel)).await {
                asked += 1;
                if got != expected {
                    wrong.push(format!("{} reads {channel} by {door}: {got}, not {expected}", caller.name));
                }
            }
        }
        for (channel, publishers) in PUBLISH {
            let expected = if publishers.contains(&caller.name) { "ok" } else { "forbidden" };
            for (door, got) in caller.publish(&stage.channel(channel)).await {
                asked += 1;
                if got != expected {
                    wrong.push(format!(
                        "{} publishes to {channel} by {door}: {got}, not {expected}",
                        caller.name
                    ));
                }
            }
        }
        for (door, got) in caller.read(&stage.server, "no-such-channel").await {
            asked += 1;
            if got != "unknown_channel" {
                wrong.push(format!("{} reads what does not exist by {door}: {got}", caller.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{asked} answers");
}

#[tokio::test]
async fn lists_hold_what_the_caller_may_see() {
    let stage = Stage::set().await;
    let mut wrong = Vec::new();
    for (name, claims) in identities() {
        let http = http(&stage.server, &token(claims));
        let tests: Value = http.get("/api/v1/tests").await.expect("a list");
        let jobs: Value = http.get("/api/v1/jobs").await.expect("a list");
        let listed = |list: &Value| list.as_array().expect("a list").len();
        let seen = (listed(&tests["tests"]), listed(&jobs["jobs"]));
        let owns = usize::from(["ann", "admin"].contains(&name));
        let expected = (owns, usize::from(TEAM.contains(&name)));
        if seen != expected {
            wrong.push(format!("{name} sees {seen:?} tests and jobs, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const ADMIN: &[&str] = &["admin"];
const SENDERS: &[&str] = &["worker", "admin"];
const OWNERS: &[&str] = &["ann", "admin"];
const TEAM: &[&str] = &["ann", "mate", "admin"];
const SUBMITTERS: &[&str] = &["ann", "bob", "mate", "admin"];

/// A route that asks for more than a token, what is posted there (else it is read), who may, and the answers to those
/// and to all others.
type Asked = (String, Option<Value>, &'static [&'static str], &'static str, &'static str);

fn asked(job: &str) -> Vec<Asked> {
    let new_job = |more: Value| {
        let mut job = json!({ "testType": "nobody-runs-this", "config": {} });
        job.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        Some(job)
    };
    let (nothing, jobs) = (Some(json!({})), "/api/v1/jobs".to_owned());
    let route = |path: &str| format!("/api/v1/{path}");
    vec![
        (route("connections"), None, ADMIN, "ok", "forbidden"),
        (route("connections/cleanup"), nothing.clone(), ADMIN, "ok", "forbidden"),
        (route("users/zoe/block"), nothing.clone(), ADMIN, "ok", "forbidden"),
        (route("users/zoe/unblock"), nothing.clone(), ADMIN, "ok", "forbidden"),
        (route("tokens/zoe/revoke"), nothing.clone(), ADMIN, "ok", "forbidden"),
        (route("stats"), None, ALL, "ok", "forbidden"),
        (route("users/online"), None, NAMED, "ok", "forbidden"),
        (route("messages/unread"), nothing.clone(), NAMED, "ok", "user_required"),
        (route("users/ann/messages"), Some(json!({ "title": "x" })), SENDERS, "ok", "forbidden"),
        (jobs.clone(), new_job(json!({})), SUBMITTERS, "ok", "forbidden"),
        (jobs.clone(), new_job(json!({ "teamId": "t1", "dedupeKey": "d" })), TEAM, "ok", "forbidden"),
        (jobs, new_job(json!({ "testId": "T" })), OWNERS, "test_active", "forbidden"),
        (route(&format!("jobs/{job}/retry")), nothing.clone(), TEAM, "job_not_ended", "forbidden"),
        (route(&format!("jobs/{job}/priority")), Some(json!({ "priority": 3 })), TEAM, "ok", "forbidden"),
        (route(&format!("jobs/{job}/rerun")), nothing.clone(), TEAM, "job_not_ended", "forbidden"),
        (route("schedules"), None, SUBMITTERS, "ok", "forbidden"),
        (route("queue"), None, ALL, "ok", "forbidden"),
        (route("queue/pause"), Some(json!({ "testType": "doors" })), ADMIN, "ok", "forbidden"),
        (route("queue/resume"), Some(json!({ "testType": "doors" })), ADMIN, "ok", "forbidden"),
        (route("tests"), Some(json!({ "leaseMs": 300_000 })), SENDERS, "ok", "forbidden"),
        (
            route("tests/none/reports"),
            Some(json!({ "attempt": 1, "lease": "", "events": [] })),
            SENDERS,
            "test_not_found",
            "forbidden",
        ),
        (
            route("tests/none/end"),
            Some(json!({ "attempt": 1, "lease": "", "outcome": "passed" })),
            SENDERS,
            "test_not_found",
            "forbidden",
        ),
        (route("jobs/job_none/retry"), nothing, ADMIN, "job_not_found", "forbidden"),
    ]
}

#[tokio::test]
async fn routes_ask_for_their_roles() {
    let stage = Stage::set().await;
    let mut wrong = Vec::new();
    for (name, claims) in identities() {
        let token = token(claims);
        let http = http(&stage.server, &token);
        for (path, body, allowed, good, bad) in asked(&stage.job) {
            let got = match &body {
                Some(body) => outcome(http.post::<_, Value>(&path, body).await),
                None => outcome(http.get::<Value>(&path).await),
            };
            let expected = if allowed.contains(&name) { good } else { bad };
            if got != expected {
                wrong.push(format!("{name}: {path} {body:?}: {got}, not {expected}"));
            }
        }
        let metrics = head(&stage.server, "/metrics", Some(&token)).await.status;
        let expected = if ["metrics", "admin"].contains(&name) { 200 } else { 403 };
        if metrics != expected {
            wrong.push(format!("{name}: metrics: {metrics}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn no_route_is_open_but_those_that_were_meant_to_be() {
    let stage = Stage::set().await;
    let admin = token(identities().pop().expect("admin").1);
    let document: Value = http(&stage.server, &admin).get("/api/openapi.json").await.expect("the document");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 20, "{paths:?}");
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            let path = path.replace(['{', '}'], "");
            let answer = super::ask(&stage.server, &method.to_uppercase(), &path, &[]).await;
            if ["/", "/healthz", "/readyz"].contains(&path.as_str()) {
                assert_eq!(answer.status, 200, "{path}");
                continue;
            }
            assert_eq!((answer.status, answer.code().as_str()), (401, "token_required"), "{method} {path}");
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer realm=\"tidings\""),
                "{method} {path}"
            );
        }
    }
    let answer = head(&stage.server, "/api/v1/stats", Some("a.b.c")).await;
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    let header = ("x-user-id", "ann");
    let answer = super::ask(&stage.server, "POST", "/api/v1/messages/unread", &[header]).await;
    assert_eq!(answer.code(), "token_required", "nobody is believed any more");
    let by_query = head(&stage.server, &format!("/api/v1/stats?token={admin}"), None).await;
    assert_eq!(by_query.status, 200);
}

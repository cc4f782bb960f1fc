//! A server that is killed in the middle of a test, and started again on what it left.

use serde_json::{Value, json};
use tidings::client::receiver::{Receiver, Verdict};
use tidings::client::room::Since;
use tidings::client::socket::{ConnectOptions, SocketClient};
use tidings::model::{Epoch, Position};

use super::{DEADLINE, Server, Site, pids, runs, wait_until};

const CONFIG: &str = "[shutdown]\nattempts = \"0s\"\n\n[queue]\nbackoff_base = \"100ms\"\n\n[suites.slow]\ncommand = [\"sh\", \"slow.sh\"]\ncwd = \".\"\nformat = \"tap\"\n";
/// Twenty test cases in two seconds; notes each of its processes.
const SLOW: &str = "echo $$ >>pids\necho 1..20\nfor n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 0.1; echo \"ok $n\"; done\n";

#[tokio::test]
async fn after_kill_minus_nine_history_jobs_and_offsets_go_on_where_they_were() {
    let site = Site::new(CONFIG);
    site.write("slow.sh", SLOW);
    let server = site.start();
    let job = server.submit_suite("slow", "slow").await;
    let waiting = server.post("/api/v1/jobs", &later()).await["jobId"].as_str().expect("an id").to_owned();
    let noted = note(&server, 20).await;
    wait_until("some progress is told", async || {
        server.history("test-progress-slow").await.count("test:progress") >= 3
    })
    .await;
    let before = server.history("test-progress-slow").await;
    let status_before = server.history(&format!("job-status-{job}")).await;
    server.kill();
    let processes = pids(&site.path("pids"));
    wait_until("the command of the dead server is gone", async || !processes.iter().any(|pid| runs(*pid)))
        .await;

    let server = site.start();
    let notes = server.history("test-progress-noted").await;
    assert_eq!(notes.messages.len(), noted.len(), "every acknowledged message is there");
    for (message, answer) in notes.messages.iter().zip(&noted) {
        assert_eq!((&message["id"], &message["offset"]), (&answer["id"], &answer["offset"]));
    }
    assert_eq!(server.job(&waiting).await["state"], "scheduled", "who waited waits on");

    let ended = server.wait_for_job(&job, "completed").await;
    assert_eq!(ended["attempt"], 2, "the interrupted attempt counts: {ended}");
    let after = server.history("test-progress-slow").await;
    after.assert_unbroken();
    assert_eq!(after.epoch, before.epoch, "the past is still vouched for");
    assert_eq!(after.messages[..before.messages.len()], before.messages, "and nothing of it has changed");
    let lost = &after.messages[before.messages.len()..].iter().find(|m| m["event"] == "test:failed");
    let lost = &lost.expect("the lost attempt is told of")["data"];
    assert_eq!((&lost["error"]["code"], &lost["willRetry"]), (&json!("worker_lost"), &json!(true)));
    assert_eq!(after.count("test:completed"), 1);

    let status = server.history(&format!("job-status-{job}")).await;
    status.assert_unbroken();
    assert_eq!(status.messages[..status_before.messages.len()], status_before.messages);
    assert_eq!((status.count("queue:job:completed"), status.count("queue:job:failed")), (1, 0));
    assert_a_returning_client_recovers(&server, before.messages.len(), &after.epoch, after.messages.len())
        .await;
}

/// A client that saw `seen` messages before the crash gets exactly the rest.
async fn assert_a_returning_client_recovers(server: &Server, seen: usize, epoch: &str, top: usize) {
    let mut socket = SocketClient::connect(&server.url, ConnectOptions::default()).await.expect("connected");
    let since = Since::After(Position { epoch: Epoch::new(epoch), offset: seen as u64 });
    let joined = socket.join("test-progress-slow", since.clone()).await.expect("joined");
    assert!(joined.recovered, "{joined:?}");
    let mut receiver = Receiver::new();
    receiver.joined(&since, &joined);
    let mut last = seen as u64;
    while last < top as u64 {
        let event = tokio::time::timeout(DEADLINE, socket.next()).await.expect("in time");
        let event = event.expect("open").expect("an event");
        for received in receiver.receive(&event.name, &event.data).expect("well formed") {
            assert_eq!(received.verdict, Verdict::Deliver, "{}", received.message);
            last = received.envelope.offset;
        }
    }
    socket.close().await;
}

/// Publishes `n` messages; the acknowledgements.
async fn note(server: &Server, n: usize) -> Vec<Value> {
    let mut answers = Vec::new();
    for i in 0..n {
        let message = json!({ "channel": "test-progress-noted", "event": "custom:note", "data": { "n": i } });
        answers.push(server.post("/api/v1/events", &message).await);
    }
    answers
}

fn later() -> Value {
    json!({ "testType": "command", "config": { "suite": "slow" }, "delayMs": 3_600_000 })
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_gives_its_running_jobs_back() {
    let site = Site::new(CONFIG);
    site.write("slow.sh", SLOW);
    let server = site.start();
    let job = server.submit_suite("slow", "slow").await;
    server.wait_for_job(&job, "running").await;
    server.terminate();

    let server = site.start();
    let ended = server.wait_for_job(&job, "completed").await;
    assert_eq!(ended["attempt"], 2, "{ended}");
    let told = server.history("test-progress-slow").await;
    told.assert_unbroken();
    let given_back = told.messages.iter().find(|m| m["event"] == "test:failed").expect("told of");
    assert_eq!(given_back["data"]["error"]["code"], "worker_stopped");
}

//! `tidings watch` does not believe its server: where a message is missing it joins again and asks for it.

mod terminal;

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use tokio::net::TcpListener;

use super::{DEADLINE, tidings, wait_until};

const ROOM: &str = "test-progress-t";

/// What the server does after one join: how it acknowledges, and which messages (epoch, offset, conflated) follow.
struct Answer {
    recovered: bool,
    epoch: &'static str,
    top: u64,
    messages: Vec<(&'static str, u64, u64)>,
}

/// A server that gives these answers, one for each join, and the last one for ever. What each join asked for.
async fn serve(answers: Vec<Answer>) -> (String, Arc<Mutex<Vec<Value>>>) {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (noted, answers) = (asked.clone(), Arc::new(answers));
    let (layer, io) = SocketIo::new_layer();
    // As a middleware, because that runs before the client learns that it is connected: its first event must not
    // come before there is somebody to take it.
    let prepare = move |socket: SocketRef| {
        let (noted, answers) = (noted.clone(), answers.clone());
        socket.on("room:join", async move |socket: SocketRef, Data(join): Data<Value>, ack: AckSender| {
            while !socket.connected() {
                tokio::task::yield_now().await;
            }
            let turn = {
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.push(join["since"].clone());
                noted.len() - 1
            };
            let Answer { recovered, epoch, top, messages } = &answers[turn.min(answers.len() - 1)];
            let replayed = if *recovered { messages.len() } else { 0 };
            let _ = ack.send(&json!({ "ok": true, "room": ROOM, "epoch": epoch, "offset": top,
                "recovered": recovered, "replayed": replayed }));
            if !recovered {
                let reset = json!({ "room": ROOM, "reason": "epoch_changed", "epoch": epoch, "offset": top });
                let _ = socket.emit("room:reset", &reset);
            }
            for (epoch, offset, conflated) in messages {
                let message = json!({ "id": format!("m{offset}"), "event": "test:log", "channel": ROOM,
                    "priority": 1, "timestamp": 1, "data": {}, "epoch": epoch, "offset": offset,
                    "conflated": conflated });
                let _ = socket.emit("test:log", &message);
            }
        });
        std::future::ready(Ok::<(), Infallible>(()))
    };
    io.ns("/", (|_: SocketRef| std::future::ready(())).with(prepare));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().layer(layer)).await });
    (url, asked)
}

/// A running `tidings watch --json --from-start`.
struct Watch {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    fn start(url: &str) -> Self {
        let mut command = tidings(&["watch", "--json", "--from-start", "--server", url, ROOM]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, lines }
    }

    /// Epoch and offset of the next `n` messages that it shows.
    fn take(&self, n: usize) -> Vec<(String, u64)> {
        (0..n)
            .map(|_| {
                let line = self.lines.recv_timeout(DEADLINE).expect("a line");
                let message: Value = serde_json::from_str(&line).expect("JSON");
                let epoch = message["epoch"].as_str().expect("an epoch");
                (epoch.to_owned(), message["offset"].as_u64().expect("an offset"))
            })
            .collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn recovered(top: u64, messages: &[(u64, u64)]) -> Answer {
    let messages = messages.iter().map(|(offset, conflated)| ("e", *offset, *conflated)).collect();
    Answer { recovered: true, epoch: "e", top, messages }
}

fn shown(offsets: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
    offsets.into_iter().map(|offset| ("e".to_owned(), offset)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_that_was_skipped_is_asked_for() {
    let first = recovered(4, &[(1, 0), (2, 0), (4, 0), (5, 0)]);
    let second = recovered(5, &[(3, 0), (4, 0), (5, 0), (6, 0)]);
    let (url, asked) = serve(vec![first, second]).await;
    let watch = Watch::start(&url);
    assert_eq!(watch.take(6), shown(1..=6), "each message once and in order");
    let asked = asked.lock().expect("noted").clone();
    assert_eq!(asked, [json!("start"), json!({ "epoch": "e", "offset": 2 })]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_conflated_is_no_gap_unless_it_does_not_add_up() {
    let first = recovered(9, &[(1, 0), (4, 2), (9, 3)]);
    let second = recovered(9, &[(9, 4)]);
    let (url, asked) = serve(vec![first, second]).await;
    let watch = Watch::start(&url);
    assert_eq!(watch.take(3), shown([1, 4, 9]));
    assert_eq!(asked.lock().expect("noted")[1], json!({ "epoch": "e", "offset": 4 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_epoch_without_a_reset_leads_to_one() {
    let mut first = recovered(1, &[(1, 0)]);
    first.messages.push(("f", 2, 0));
    let second = Answer { recovered: false, epoch: "f", top: 2, messages: vec![("f", 3, 0)] };
    let (url, asked) = serve(vec![first, second]).await;
    let watch = Watch::start(&url);
    assert_eq!(watch.take(2), [("e".to_owned(), 1), ("f".to_owned(), 3)]);
    assert_eq!(asked.lock().expect("noted")[1], json!({ "epoch": "e", "offset": 1 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_skips_the_same_message_again_and_again_is_not_stormed() {
    let (url, asked) = serve(vec![recovered(3, &[(1, 0), (3, 0)]), recovered(3, &[(3, 0)])]).await;
    let watch = Watch::start(&url);
    assert_eq!(watch.take(1), shown([1]));
    let rejoined = async || asked.lock().expect("noted").len() >= 3;
    wait_until("it tries again", rejoined).await;
    let before = asked.lock().expect("noted").len();
    // Not a wait for a condition: what is counted is what happens in a while.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tries = asked.lock().expect("noted").len() - before;
    assert!((1..=8).contains(&tries), "{tries} tries in a second");
}

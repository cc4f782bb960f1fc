//! `tidings watch` does not believe its server: where a message is missing it joins again and asks for it.

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use tokio::net::TcpListener;

use super::{DEADLINE, Site, tidings, wait_until};

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

/// A running `tidings watch` on a terminal of its own.
struct OnTerminal {
    child: Child,
    // Our end, and its end.
    ours: File,
    theirs: File,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(url: &str) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("a terminal");
        let name = ptsname(&ours, Vec::new()).expect("a name");
        let theirs =
            File::options().read(true).write(true).open(name.to_str().expect("a path")).expect("open");
        let end = || Stdio::from(theirs.try_clone().expect("a copy"));
        let mut command = tidings(&["watch", "--server", url]);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        let (ours, screen) = (File::from(ours), Arc::<Mutex<String>>::default());
        let (mut shown, seen) = (ours.try_clone().expect("a copy"), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = shown.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..n]);
                seen.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { child, ours, theirs, screen }
    }

    async fn shows(&self, text: &str) {
        let seen = async || self.screen.lock().expect("seen").contains(text);
        wait_until(&format!("{text:?} is shown"), seen).await;
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.theirs).expect("a terminal").local_modes.contains(LocalModes::ICANON)
    }

    async fn ends(&mut self) {
        wait_until("it ends", async || self.child.try_wait().expect("its state").is_some()).await;
        assert!(!self.is_raw(), "the terminal is as it was");
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_as_it_was_however_the_view_ends() {
    let site = Site::new("");
    let server = site.start();
    server.post("/api/v1/tests", &json!({ "testId": "before", "leaseMs": 300_000 })).await;
    for way in ["q", "signal", "\u{3}"] {
        let mut view = OnTerminal::start(&server.url);
        view.shows("before").await;
        wait_until("keys are read", async || view.is_raw()).await;
        match way {
            "signal" => {
                let pid = i32::try_from(view.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
                kill_process(pid, Signal::TERM).expect("asked");
            }
            key => view.ours.write_all(key.as_bytes()).expect("pressed"),
        }
        view.ends().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_whose_server_comes_late_shows_what_runs() {
    let site = Site::new("");
    let first = site.start();
    let address = first.address().to_owned();
    let url = first.url.clone();
    first.terminate();
    let view = OnTerminal::start(&url);
    view.shows("cannot reach").await;
    let server = site.start_with(&address, &[]);
    server.post("/api/v1/tests", &json!({ "testId": "late" })).await;
    view.shows("late").await;
    drop(view);
}

/// Connections that take longer to be accepted than the screen takes to be drawn.
async fn slow_door(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                // Longer than the view waits between two drawings; it is what is tested.
                tokio::time::sleep(Duration::from_millis(700)).await;
                let mut far = tokio::net::TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_takes_longer_than_a_drawing_is_made() {
    let site = Site::new("");
    let server = site.start();
    let view = OnTerminal::start(&slow_door(server.address().to_owned()).await);
    view.shows("no test runs").await;
    server.post("/api/v1/tests", &json!({ "testId": "far" })).await;
    view.shows("far").await;
    drop(view);
}

//! `tidings watch` on a terminal: drawn, resized, typed into, and left as it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use tokio::net::TcpListener;

use super::super::{Site, tidings, wait_until};

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
        Self::start_with(url, &[])
    }

    fn start_with(url: &str, args: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("a terminal");
        let name = ptsname(&ours, Vec::new()).expect("a name");
        let theirs =
            File::options().read(true).write(true).open(name.to_str().expect("a path")).expect("open");
        let end = || Stdio::from(theirs.try_clone().expect("a copy"));
        let mut command = tidings(&["watch", "--server", url]);
        command.args(args).env("TERM", "xterm-256color");
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

    /// Forgets what was shown, so that nothing older is taken for new.
    fn forget(&self) {
        self.screen.lock().expect("seen").clear();
    }

    fn types(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).expect("typed");
    }

    /// As a terminal does whose window is drawn larger or smaller.
    fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: 30, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.theirs, size).expect("resized");
        kill_process(self.pid(), Signal::WINCH).expect("told");
    }

    fn pid(&self) -> Pid {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid")
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
                kill_process(view.pid(), Signal::TERM).expect("asked");
            }
            key => view.ours.write_all(key.as_bytes()).expect("pressed"),
        }
        view.ends().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_wrote_commands_no_terminal() {
    let site = Site::new("");
    let server = site.start();
    // A sequence as ESC begins it, one as its 8-bit twin does, and text that turns around.
    let wrote = "\u{1b}]0;title\u{7}\u{9b}2J\u{202e}end";
    let shown = "\\u001b]0;title\\u0007\\u009b2J\\u202eend";
    for args in [&["team-updates-1"][..], &["team-updates-1", "--json"], &["-i", "team-updates-1"]] {
        let view = OnTerminal::start_with(&server.url, args);
        wait_until("it listens", async || server.metric("tidings_subscriptions").await == 1.0).await;
        let message = json!({ "channel": "team-updates-1", "event": "team:update", "data": { "x": wrote } });
        server.post("/api/v1/events", &message).await;
        view.shows(shown).await;
        let screen = view.screen.lock().expect("seen").clone();
        assert!(
            !screen.contains(['\u{9b}', '\u{202e}', '\u{7}']) && !screen.contains("\u{1b}]0"),
            "{screen:?}"
        );
        drop(view);
        wait_until("it is gone", async || server.metric("tidings_subscriptions").await == 0.0).await;
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

/// The lines without what moves the cursor and colours.
fn lines(screen: &str) -> Vec<String> {
    let mut text = String::new();
    let mut chars = screen.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => drop(chars.by_ref().skip(1).find(|c| ('@'..='~').contains(c))),
            c => text.push(c),
        }
    }
    text.split(['\r', '\n']).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_that_becomes_narrower_is_drawn_anew() {
    let site = Site::new("");
    let server = site.start();
    let name = "n".repeat(90);
    let held = server.post("/api/v1/tests", &json!({ "testId": name, "leaseMs": 300_000 })).await;
    let mut view = OnTerminal::start(&server.url);
    view.resize(120);
    view.shows(&name).await;
    wait_until("keys are read", async || view.is_raw()).await;
    view.resize(40);
    view.forget();
    let report = json!({ "attempt": held["attempt"], "lease": held["lease"],
        "events": [{ "event": "progress", "data": { "progress": 50 } }] });
    server.post(&format!("/api/v1/tests/{name}/reports"), &report).await;
    view.shows(&"n".repeat(20)).await;
    let shown = view.screen.lock().expect("seen").clone();
    let longest = lines(&shown).iter().map(|line| line.chars().count()).max();
    assert!(longest < Some(40), "{longest:?}: {shown:?}");
    view.types("q");
    view.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_prompt_on_a_terminal_completes_bears_a_resize_and_leaves_it_as_it_was() {
    let site = Site::new("");
    let server = site.start();
    let mut prompt = OnTerminal::start_with(&server.url, &["-i"]);
    prompt.shows("tidings> ").await;
    wait_until("keys are read", async || prompt.is_raw()).await;
    prompt.types("hel\t");
    prompt.shows("help").await;
    prompt.types("\r");
    prompt.shows("join ROOM [start]").await;
    prompt.resize(60);
    prompt.types("join test-pro\t");
    prompt.shows("join test-progress-").await;
    prompt.types("x\r");
    prompt.shows("joined test-progress-x at").await;
    // What comes in stands above the line that is being typed.
    prompt.types("pin");
    server
        .post("/api/v1/events", &json!({ "channel": "test-progress-x", "event": "custom:note", "data": {} }))
        .await;
    prompt.shows("custom:note").await;
    prompt.forget();
    prompt.types("\t\r");
    prompt.shows("ping").await;
    // The newest line of the history.
    prompt.types("\u{1b}[A\u{15}quit\r");
    prompt.ends().await;
}

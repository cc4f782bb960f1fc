//! The real program as its users run it: started, talked to over HTTP and Socket.IO, killed and started again.

mod auth;
mod bench;
mod certificates;
mod chaos;
mod cluster;
mod control;
mod demo;
mod devices;
mod doctor;
mod external;
mod hostile;
mod inbox;
mod join_under_load;
mod kit;
mod limits;
mod never_reads;
mod people;
mod reconnect_storm;
mod redis;
mod reload;
mod rerun;
mod restart;
mod run;
mod schedules;
mod secrets;
mod shutdown;
mod startup;
mod stream;
mod stress;
mod swarm;
mod tls;
mod traces;
mod wait;
mod watch;
mod workers;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings::client::http::HttpClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Nothing that these tests wait for takes this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// A directory with a configuration, and servers that run in it one after the other.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// A site whose `tidings.toml` is `config`.
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("tidings.toml"), config).expect("the configuration is written");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file is written");
    }

    /// `tidings serve` on a free port; ready when this returns.
    fn start(&self) -> Server {
        self.start_with("127.0.0.1:0", &[])
    }

    /// `tidings serve ARGS…` on `address`.
    fn start_with(&self, address: &str, args: &[&str]) -> Server {
        Server::spawn(self.command(&["serve", "--listen", address]).args(args))
    }

    /// `tidings ARGS…` with this site's configuration and data.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = tidings(args);
        command.arg("--config").arg(self.path("tidings.toml"));
        command.arg("--data-dir").arg(self.path("data"));
        command
    }
}

/// The program under test, without the environment of whoever runs the tests.
fn tidings(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running server; killed when it is dropped.
struct Server {
    child: Child,
    url: String,
    http: HttpClient,
    // What it is asked with, where it wants a token.
    token: Option<String>,
    log: Arc<Mutex<String>>,
}

impl Server {
    fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        // Read to the end, or a full pipe would stop the server.
        let log = Arc::new(Mutex::new(String::new()));
        let written = log.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = written.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let (told, address) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("listening on ") {
                    let _ = told.send(url.to_owned());
                }
            }
        });
        let Ok(url) = address.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            let _ = child.wait();
            let _ = reader.join();
            panic!("the server did not start:\n{}", log.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let http = HttpClient::new(&url, None).expect("a URL");
        Self { child, url, http, token: None, log }
    }

    /// From now on it is asked with `token`.
    fn with_token(mut self, token: &str) -> Self {
        self.http = HttpClient::new(&self.url, Some(token)).expect("a URL");
        self.token = Some(token.to_owned());
        self
    }

    /// What it logged so far.
    fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signalled");
    }

    /// SIGKILL: no chance to put anything in order.
    fn kill(mut self) {
        self.child.kill().expect("the server is killed");
        self.child.wait().expect("the server is reaped");
    }

    /// SIGTERM: it stops in order.
    fn terminate(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().expect("the server is reaped");
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// Waits until it has ended; how.
    async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server ends", async || {
            status = self.child.try_wait().expect("it can be asked");
            status.is_some()
        })
        .await;
        status.expect("it ended")
    }

    async fn get(&self, path: &str) -> Value {
        self.http.get(path).await.unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        self.http.post(path, body).await.unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    /// Where it listens, as `host:port`.
    fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// What stands at `path`, whatever it is.
    async fn text(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.address()).await.expect("connected");
        let token = self.token.iter().map(|token| format!("authorization: Bearer {token}\r\n"));
        let token: String = token.collect();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{token}\r\n", self.address());
        socket.write_all(request.as_bytes()).await.expect("asked");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("answered");
        answer.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
    }

    /// A metric without labels.
    async fn metric(&self, name: &str) -> f64 {
        let text = self.text("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is missing in:\n{text}"))
    }

    /// Submits a job of a suite; its id.
    async fn submit_suite(&self, suite: &str, test: &str) -> String {
        let job = json!({ "testType": "command", "testId": test, "config": { "suite": suite } });
        let answer = self.post("/api/v1/jobs", &job).await;
        answer["jobId"].as_str().expect("a job id").to_owned()
    }

    /// The whole history of a channel.
    async fn history(&self, channel: &str) -> History {
        let (mut messages, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/api/v1/channels/{channel}/messages?offset={after}&limit=1000");
            let page = self.get(&path).await;
            let part = page["messages"].as_array().expect("messages").clone();
            let epoch = page["epoch"].as_str().expect("an epoch").to_owned();
            let Some(last) = part.last() else { return History { epoch, messages } };
            after = last["offset"].as_u64().expect("an offset");
            messages.extend(part);
            if after == page["top"].as_u64().expect("a top") {
                return History { epoch, messages };
            }
        }
    }

    async fn job(&self, job: &str) -> Value {
        self.get(&format!("/api/v1/jobs/{job}")).await
    }

    /// Waits until the job is in `state`.
    async fn wait_for_job(&self, job: &str, state: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.job(job).await;
            if found["state"] == state {
                return found;
            }
            assert!(Instant::now() < deadline, "{job} is not {state} within {DEADLINE:?}: {found}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a channel holds.
#[derive(Debug, Clone, PartialEq)]
struct History {
    epoch: String,
    messages: Vec<Value>,
}

impl History {
    /// Offsets begin at 1, rise by one, and are all of one epoch.
    fn assert_unbroken(&self) {
        for (index, message) in self.messages.iter().enumerate() {
            assert_eq!(message["offset"], index as u64 + 1, "{message}");
            assert_eq!(message["epoch"], self.epoch.as_str(), "{message}");
        }
    }

    fn count(&self, event: &str) -> usize {
        self.messages.iter().filter(|m| m["event"] == event).count()
    }
}

/// Waits until `ready` holds.
async fn wait_until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !ready().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The process ids that a script wrote to a file, one a line.
fn pids(file: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Whether a process runs: it exists, and is no zombie that only waits to be reaped.
fn runs(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which stands in parentheses and may hold anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

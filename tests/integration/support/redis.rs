//! Real Redis servers for tests: on free ports, in temporary directories, ended by their process ids.

mod several;

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tidings::redis::{Redis, RedisOptions, RedisUrl};
use tidings::tasks::Tasks;

pub(crate) use several::{Cluster, Watched};

/// A server that is not ready by then will not be.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a server is set up beside its port and directory. What it acknowledged is with the kernel, so that it survives the
/// server's death; with `everysec` it may not be, while the file is being written to the disk.
const SETTINGS: [&str; 10] = [
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "no",
    "--bind",
    "127.0.0.1",
    "--enable-debug-command",
    "yes",
];

/// One `redis-server`. It is killed when this is dropped, also by a test that panics.
#[derive(Debug)]
pub(crate) struct RedisServer {
    dir: TempDir,
    port: u16,
    extra: Vec<String>,
    /// What it is started by, if it has a network of its own.
    within: Vec<&'static str>,
    child: Option<Child>,
}

/// The program; another one that speaks the same language can be named, as `make valkey` does.
fn program() -> OsString {
    std::env::var_os("TIDINGS_TEST_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// Starts a program from a thread that lasts as long as this process: that of a test ends before others are done with
/// what it started.
fn spawn_for_good(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, started) in queue {
                let _ = started.send(command.spawn());
            }
        });
        orders
    });
    let (started, child) = mpsc::channel();
    SPAWNER.send((command, started)).expect("the spawner lasts");
    let child = child.recv().expect("the spawner lasts");
    child.expect("setpriv starts; it belongs to util-linux")
}

impl RedisServer {
    /// A server that keeps its data when it is killed.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more settings, such as `--maxmemory 10mb`.
    pub(crate) fn start_with(extra: &[&str]) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let extra = extra.iter().map(|&text| text.to_owned()).collect();
        let mut server = Self { dir, port: free_port(), extra, within: Vec::new(), child: None };
        server.restart();
        server
    }

    /// A server in a network of its own, to which only [`super::network`] leads. The network ends with it.
    pub(crate) fn start_apart() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let extra = ["--bind", "*", "--protected-mode", "no"].map(str::to_owned).into();
        let within = vec![
            "unshare",
            "--net",
            "--",
            "sh",
            "-c",
            r#"PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && exec "$@""#,
            "sh",
        ];
        let mut server = Self { dir, port: free_port(), extra, within, child: None };
        server.restart();
        server
    }

    /// The process whose network it is in.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// A Sentinel with these lines of configuration.
    fn sentinel(lines: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        std::fs::write(dir.path().join("sentinel.conf"), lines).expect("the configuration is written");
        let mut server = Self { dir, port: free_port(), extra: Vec::new(), within: Vec::new(), child: None };
        let conf = server.dir().join("sentinel.conf").into_os_string();
        server.spawn([conf, "--sentinel".into()]);
        server
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it again on the same port with what is in its directory; ready when this returns.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let settings: Vec<OsString> =
            SETTINGS.iter().map(OsString::from).chain(self.extra.iter().map(OsString::from)).collect();
        self.spawn(settings);
    }

    fn spawn(&mut self, args: impl IntoIterator<Item = OsString>) {
        // Ended by the kernel when the thread that started it ends, so that a killed test leaves nothing running.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.within).arg(program()).args(args);
        command.arg("--port").arg(self.port.to_string()).arg("--dir").arg(self.dir.path());
        command.arg("--logfile").arg(self.log());
        // A Ctrl-C in the terminal is for the tests, which then end their servers themselves.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        self.child = Some(spawn_for_good(command));
        let began = Instant::now();
        while self.cli(&["PING"]) != "PONG" {
            assert!(began.elapsed() < PATIENCE, "redis-server is not ready:\n{}", self.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Forgets all data and starts again.
    pub(crate) fn restart_empty(&mut self) {
        self.forget();
        self.restart();
    }

    /// Removes the data of a server that does not run.
    pub(crate) fn forget(&self) {
        assert!(self.child.is_none(), "it still runs");
        if self.data().exists() {
            std::fs::remove_dir_all(self.data()).expect("the data is removed");
        }
    }

    /// A copy of the data of a server that does not run.
    pub(crate) fn save(&self) -> TempDir {
        assert!(self.child.is_none(), "it still runs");
        let saved = TempDir::new().expect("a temporary directory");
        copy_files(&self.data(), saved.path());
        saved
    }

    /// Puts a copy in place of the data of a server that does not run.
    pub(crate) fn set_back(&self, saved: &TempDir) {
        self.forget();
        std::fs::create_dir(self.data()).expect("the directory is made");
        copy_files(saved.path(), &self.data());
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("appendonlydir")
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is killed");
        child.wait().expect("it is reaped");
    }

    /// Whether there is a process.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// SIGTERM: it ends in order.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.child.take().expect("it runs").wait().expect("it is reaped");
    }

    /// SIGSTOP: it stays connected and says nothing.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it is signalled");
    }

    /// What `redis-cli` answers to a command.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        if self.within.is_empty() {
            return cli(self.port, command);
        }
        let mut program = Command::new("nsenter");
        program.args(["--net", "--target", &self.pid().to_string(), "--", "redis-cli"]);
        answer_of(program, self.port, command)
    }

    /// Somebody who listens to a sharded publication of this very server.
    pub(crate) fn listen_to_shard(&self, name: &str) -> ShardEar {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let mut ear = ShardEar(BufReader::new(stream));
        ear.0.get_mut().write_all(format!("READONLY\r\nSSUBSCRIBE {name}\r\n").as_bytes()).expect("sent");
        ear.next_containing(name);
        ear
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("redis.log")
    }

    /// Something that removes its files when this process has ended.
    fn remove_with_this_process(&self) -> Child {
        Command::new("sh")
            .args(["-c", r#"read -r _; rm -rf "$1""#, "sh"])
            .arg(self.dir())
            // It ends when this process does, however that is.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell starts")
    }

    /// What it logged so far.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }
}

/// What a raw connection hears, line by line.
pub(crate) struct ShardEar(BufReader<TcpStream>);

impl ShardEar {
    /// What was heard up to and with the first line that contains `text`.
    pub(crate) fn next_containing(&mut self, text: &str) -> String {
        let mut heard = String::new();
        loop {
            let from = heard.len();
            let n = self.0.read_line(&mut heard).expect("it is heard in time");
            assert!(n > 0, "the connection ended:\n{heard}");
            if heard[from..].contains(text) {
                return heard;
            }
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a file is copied");
    }
}

/// What `redis-cli` answers to a command on `port`.
pub(crate) fn cli(port: u16, command: &[&str]) -> String {
    answer_of(Command::new("redis-cli"), port, command)
}

fn answer_of(mut cli: Command, port: u16, command: &[&str]) -> String {
    let output = cli
        .arg("-p")
        .arg(port.to_string())
        .args(command)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .expect("redis-cli runs; tests/setup installs it");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A port that nobody listens on, and that no other test of this process was given.
///
/// The kernel gives it to nobody else while its server is down: it takes ports from 32,768 on. Where to begin differs
/// from process to process.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    loop {
        let port = 10_240 + NEXT.fetch_add(1, Ordering::Relaxed) % 12_000;
        // The nodes of a cluster also listen 10000 above.
        if [port, port + 10_000].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
}

/// The one server that tests share which only need a place of their own: a prefix.
///
/// Nothing drops what is static: it ends with this process, and so does somebody who cleans up after it.
static SHARED: LazyLock<SharedRedis> = LazyLock::new(SharedRedis::start);

struct SharedRedis {
    url: String,
    _servers: Mutex<Vec<RedisServer>>,
    _cleaners: Vec<Child>,
}

impl SharedRedis {
    fn start() -> Self {
        let server = RedisServer::start();
        Self::of(server.url(), vec![server])
    }

    fn of(url: String, servers: Vec<RedisServer>) -> Self {
        let _cleaners = servers.iter().map(RedisServer::remove_with_this_process).collect();
        Self { url, _servers: Mutex::new(servers), _cleaners }
    }

    /// Its URL with a prefix that no other test has.
    fn url(&self) -> String {
        format!("{}?prefix=t{:016x}", self.url, fastrand::u64(..))
    }
}

/// The same as a cluster.
static SHARED_CLUSTER: LazyLock<SharedRedis> = LazyLock::new(|| {
    let cluster = Cluster::start();
    SharedRedis::of(cluster.url(), cluster.nodes)
});

/// A URL of the shared cluster with a prefix that no other test has.
pub(crate) fn shared_cluster_url() -> String {
    SHARED_CLUSTER.url()
}

/// A URL of the shared server with a prefix that no other test has.
pub(crate) fn shared_url() -> String {
    SHARED.url()
}

/// A connection to what is at `url`, and the tasks that keep it.
pub(crate) async fn connect(url: &str) -> (Redis, Tasks) {
    let tasks = Tasks::new();
    let options = RedisOptions::new(RedisUrl::parse(url).expect("a URL"));
    let redis = Redis::connect(options, &tasks).await.expect("Redis can be reached");
    (redis, tasks)
}

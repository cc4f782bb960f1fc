//! The server that is measured: one that runs already, or one that is started for the benchmark.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tidings::client::ServerUrl;

use super::process::{self, Process};

/// How long an own server may take to start, and to stop.
const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Which server, for the command line.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ServerArgs {
    /// A running server; without it, `tidings serve` is started in a temporary directory. Settings for that one come
    /// from the environment, e.g. TIDINGS_STORE__SYNCHRONOUS=full.
    #[arg(long, env = "TIDINGS_SERVER", value_name = "URL")]
    server: Option<String>,
    /// The token, where the server wants one.
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// The process whose CPU time and memory are measured; known by itself for a server that is started here.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// The server.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: String,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// `host:port`, as it stands in requests.
    pub(super) authority: String,
    /// What its paths begin with; mostly empty.
    pub(super) base: String,
    pub(super) token: Option<String>,
    /// The process, if its cost is to be measured.
    pub(super) process: Option<Process>,
    own: Mutex<Option<OwnServer>>,
}

impl Target {
    /// Finds the server, or starts one that takes `connections`.
    pub(super) fn open(args: &ServerArgs, connections: usize) -> anyhow::Result<Self> {
        let own = match &args.server {
            Some(_) => None,
            None => Some(OwnServer::start(connections)?),
        };
        let url = match (&args.server, &own) {
            (Some(url), _) => url,
            (None, Some(own)) => &own.url,
            (None, None) => bail!("there is no server"),
        };
        let url = ServerUrl::parse(url)?;
        if url.is_tls() {
            bail!("bench speaks no TLS; give it the http:// address behind the proxy");
        }
        let url = url.to_string();
        let place = url.trim_start_matches("http://");
        let (authority, base) = place.split_at(place.find('/').unwrap_or(place.len()));
        let with_port = if has_port(authority) { authority.to_owned() } else { format!("{authority}:80") };
        let address = with_port
            .to_socket_addrs()
            .with_context(|| format!("the address of {url} is not known"))?
            .next()
            .with_context(|| format!("the address of {url} is not known"))?;
        let pid = args.pid.or(own.as_ref().map(|own| own.pid));
        Ok(Self {
            address,
            authority: authority.to_owned(),
            base: base.to_owned(),
            token: args.token.clone(),
            process: pid.map(Process::new).transpose()?,
            url,
            own: Mutex::new(own),
        })
    }

    /// Ends a server that was started here, and waits for it; whoever still measures it fails.
    pub(super) fn close(&self) {
        drop(self.own().take());
    }

    fn own(&self) -> MutexGuard<'_, Option<OwnServer>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses more clients than there are ports for.
    pub(super) fn check_ports(&self, clients: usize) -> anyhow::Result<()> {
        let most = super::swarm::most_connections(self.address);
        if clients > most {
            bail!("{clients} clients of {} are more than this machine has ports for ({most})", self.url);
        }
        Ok(())
    }

    /// CPU time that the server has used, where that can be seen.
    pub(super) fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        let gone = || format!("the server ended during the benchmark{}", self.last_words());
        self.process.map(|process| process.cpu().with_context(gone)).transpose()
    }

    /// Its memory, where that can be seen.
    pub(super) fn memory(&self) -> anyhow::Result<Option<process::Memory>> {
        let gone = || format!("the server ended during the benchmark{}", self.last_words());
        self.process.map(|process| process.memory().with_context(gone)).transpose()
    }

    fn last_words(&self) -> String {
        self.own().as_ref().map(OwnServer::last_words).unwrap_or_default()
    }
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// A server for the time of the benchmark, in a process of its own so that its cost can be told apart.
#[derive(Debug)]
struct OwnServer {
    /// A guard, which takes the server with it however this process ends.
    guard: Child,
    pid: u32,
    url: String,
    // Removed with its contents when the benchmark ends.
    dir: tempfile::TempDir,
}

impl OwnServer {
    fn start(connections: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("no temporary directory could be made")?;
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let log = std::fs::File::create(dir.path().join("log")).context("the server's log cannot be made")?;
        let mut command = Command::new(&program);
        command.args(["guard", "--"]).arg(&program).args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        // Elsewhere, so that no tidings.toml that happens to lie here changes the figures.
        command.arg(dir.path().join("data")).current_dir(dir.path());
        for (name, value) in [
            ("TIDINGS_LOG__LEVEL", "error".to_owned()),
            ("TIDINGS_LIMITS__CONNECTIONS", (connections + 100).max(10_000).to_string()),
        ] {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        let mut guard = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("the server could not be started")?;
        let (tell, told) = channel();
        let stdout = guard.stdout.take().context("the server's output is not there")?;
        std::thread::spawn(move || {
            // To its end, or a full pipe would stop the server.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("listening on ") {
                    let _ = tell.send(url.to_owned());
                }
            }
        });
        let mut own = Self { guard, pid: 0, url: String::new(), dir };
        let Ok(url) = told.recv_timeout(START_DEADLINE) else {
            bail!("the server did not start{}", own.last_words());
        };
        own.url = url;
        own.pid = process::child_of(own.guard.id()).context("the server's process was not found")?;
        Ok(own)
    }

    /// What it complained of at last.
    fn last_words(&self) -> String {
        let words = last_line(&self.dir.path().join("log"));
        words.map(|line| format!(": {line}")).unwrap_or_default()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let end = Instant::now() + STOP_DEADLINE;
            while Instant::now() < end {
                if !matches!(self.guard.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // The guard takes its whole group along when its input closes.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn last_line(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned)
}

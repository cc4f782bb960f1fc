//! The service's configuration: defaults, then `tidings.toml`, then the environment, then the command line.
//!
//! `sources` reads it all, `layers` remembers what came from where, `check` holds the rules that types cannot say.
//!
//! | source | how a key such as `queue.lease` is written there |
//! |---|---|
//! | the file | `lease = "15s"` below `[queue]` |
//! | the environment | `TIDINGS_QUEUE__LEASE=15s` |
//! | the command line | a flag of its own, where there is one |
//!
//! Relative paths in the file are relative to the file, those of the other sources to the current directory.

mod auth;
mod check;
mod http;
mod layers;
mod limits;
mod sources;

pub use auth::Auth;
pub use check::check_level;
pub use http::{Http, Side};
pub use limits::Limits;
pub use sources::{DEFAULT_FILE, Mistake, SettingsError, Sources};

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::redis_url::RedisUrl;
use super::schedule::Schedule;
use super::suite::Suite;

/// How long Redis keeps an entry of an inbox at most.
pub const INBOX_RETENTION_ON_REDIS: Duration = Duration::from_hours(400 * 24);

/// Everything that an operator may set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the server listens.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Where the embedded store keeps its file.
    pub data_dir: PathBuf,
    /// Replaces the compiled-in `channels.toml`.
    pub channels: Option<PathBuf>,
    /// Whether the server runs jobs itself.
    pub worker: bool,
    /// `[workers]`
    pub workers: Workers,
    /// `[auth]`
    pub auth: Auth,
    /// `[http]`
    pub http: Http,
    /// `[admin]`
    pub admin: Side,
    /// `[log]`
    pub log: Log,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[traces]`
    pub traces: Traces,
    /// `[store]`
    pub store: Store,
    /// `[redis]`
    pub redis: Redis,
    /// `[queue]`
    pub queue: Queue,
    /// `[inbox]`
    pub inbox: Inbox,
    /// `[limits]`
    pub limits: Limits,
    /// `[heartbeat]`
    pub heartbeat: Heartbeat,
    /// `[sync]`
    pub sync: Sync,
    /// `[stress]`
    pub stress: Stress,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[suites.NAME]`: the commands that submitters may run.
    pub suites: BTreeMap<String, Suite>,
    /// `[schedules.NAME]`: the jobs that the clock submits.
    pub schedules: BTreeMap<String, Schedule>,
}

/// How jobs are run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// So many jobs at once in one process.
    pub concurrency: usize,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `info`, or directives such as `warn,tidings::queue=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object.
    Json,
    /// For people.
    Pretty,
}

/// Where metrics are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// A listener of their own; the only one of a worker process.
    #[serde(deserialize_with = "some_address")]
    pub listen: Option<SocketAddr>,
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// An OTLP/HTTP collector, without the path.
    pub endpoint: Option<String>,
}

/// The embedded store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// What an acknowledged message survives.
    pub synchronous: Synchronous,
}

/// What several servers share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Where it is; without it this server is the only one.
    pub url: Option<RedisUrl>,
    /// What all keys begin with, if not what the URL says, or `tidings`.
    pub prefix: Option<String>,
    /// The certificates, as PEM, that `rediss://` trusts in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// When a message counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// Once the operating system has it: it survives the end of the process, not that of the machine.
    #[default]
    Normal,
    /// Once the disk has it: it survives a power cut.
    Full,
}

/// What holds for jobs that do not say otherwise, and how long they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// A job fails for good after so many attempts.
    pub max_attempts: u32,
    /// A worker that has not been heard of for so long has lost its job.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub lease: Duration,
    /// The pause before the second attempt; it doubles with each one.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub backoff_base: Duration,
    /// The longest such pause.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub backoff_max: Duration,
    /// Jobs that ended so long ago are forgotten.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub retention: Duration,
    /// Beyond so many jobs those that ended first are forgotten earlier.
    pub max_jobs_kept: u64,
    /// How long an attempt may take.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub default_timeout: Duration,
}

/// What users are notified of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inbox {
    /// Notifications are kept for so long, read or not; over Redis for [`INBOX_RETENTION_ON_REDIS`] at most.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub retention: Duration,
}

/// How dead connections are found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heartbeat {
    /// The pause between two pings.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub interval: Duration,
    /// How long the answer may take.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub timeout: Duration,
}

/// How the places of devices are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sync {
    /// How often the places of connected devices are saved.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub save_every: Duration,
    /// How long a place is kept after it was last saved.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub retention: Duration,
}

/// What stress tests may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stress {
    /// Hosts that may be put under load besides this machine itself.
    pub allow: Vec<String>,
}

/// How a process ends that was asked to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// So long a server that says on `/readyz` that it goes away serves everybody as before, if somebody asks there.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub drain: Duration,
    /// So long running attempts may take to end by themselves; then they are handed back to the queue.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub attempts: Duration,
    /// After so long the process ends, whatever is left to do.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub deadline: Duration,
}

impl Settings {
    /// Reads and checks all sources. The error lists every mistake there is.
    pub fn load(sources: &Sources) -> Result<Self, SettingsError> {
        let (settings, mistakes) = sources.read();
        if mistakes.is_empty() { Ok(settings) } else { Err(SettingsError { mistakes }) }
    }

    /// The rules between keys, and the bounds of values; [`Settings::load`] has applied them already.
    pub fn check(&self) -> Result<(), SettingsError> {
        let mistakes: Vec<_> = check::faults(self)
            .into_iter()
            .map(|fault| Mistake { place: String::new(), key: fault.path.join("."), message: fault.message })
            .collect();
        if mistakes.is_empty() { Ok(()) } else { Err(SettingsError { mistakes }) }
    }
}

/// An address; the error of the standard library says neither what was found nor what would be right.
fn address<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(|_| {
        let expected = "expected an address and a port such as \"127.0.0.1:8080\"";
        serde::de::Error::custom(format_args!("{expected}, found {text:?}"))
    })
}

fn some_address<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    address(d).map(Some)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            data_dir: PathBuf::from("./tidings-data"),
            channels: None,
            worker: true,
            workers: Workers::default(),
            auth: Auth::default(),
            http: Http::default(),
            admin: Side::default(),
            log: Log::default(),
            metrics: Metrics::default(),
            traces: Traces::default(),
            store: Store::default(),
            redis: Redis::default(),
            queue: Queue::default(),
            inbox: Inbox::default(),
            limits: Limits::default(),
            heartbeat: Heartbeat::default(),
            sync: Sync::default(),
            stress: Stress::default(),
            shutdown: Shutdown::default(),
            suites: BTreeMap::new(),
            schedules: BTreeMap::new(),
        }
    }
}

impl Default for Workers {
    fn default() -> Self {
        // On one core a second job still gets on while the first one waits for its own network or disk.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { concurrency: cores.max(2) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            lease: Duration::from_secs(15),
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_mins(5),
            retention: Duration::from_hours(7 * 24),
            max_jobs_kept: 100_000,
            default_timeout: Duration::from_hours(1),
        }
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self { retention: Duration::from_hours(7 * 24) }
    }
}

impl Default for Sync {
    fn default() -> Self {
        Self { save_every: Duration::from_secs(5), retention: Duration::from_hours(30 * 24) }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        let (drain, attempts) = (Duration::from_secs(5), Duration::from_secs(5));
        Self { drain, attempts, deadline: Duration::from_secs(25) }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) }
    }
}

#[cfg(test)]
mod tests;

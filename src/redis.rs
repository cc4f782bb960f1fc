//! Redis: the ground that the back ends on Redis, Valkey, Sentinel and Cluster share.
//!
//! [`Redis`] is one pipelined connection for commands, which is made anew when it breaks; nothing that goes
//! through it waits for ever. [`script`] holds what runs inside of Redis, [`subscriber`] hears what is published,
//! [`fault`] sorts what may go wrong.

mod connection;
pub mod fault;
mod layout;
mod link;
pub mod script;
mod server;
pub mod subscriber;

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::ConnectionLike as _;
use ::redis::{Cmd, FromRedisValue, Value};
use tokio::sync::watch;

pub use connection::Connection;
pub use fault::RedisFault;
pub use script::{Call, Script};
pub use server::Incarnation;
pub use subscriber::{Heard, Listener, Subscriber};

pub use crate::config::redis_url::{RedisUrl, Topology};

use crate::tasks::Tasks;
use link::Link;

/// How long Redis may take to answer a command, unless it is said otherwise.
pub const RESPONSE: Duration = Duration::from_secs(2);
/// How long a server that starts waits for Redis.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Where Redis is and how to treat it.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Where.
    pub url: RedisUrl,
    /// What the names of all keys and publications begin with.
    pub prefix: String,
    /// The certificates, as PEM, to trust in place of the system's.
    pub ca: Option<Vec<u8>>,
    /// How long an answer may take.
    pub response: Duration,
}

impl RedisOptions {
    /// The usual treatment of what is at `url`; its own prefix, if it names one, else `tidings`.
    #[must_use]
    pub fn new(url: RedisUrl) -> Self {
        let prefix = url.prefix().unwrap_or("tidings").to_owned();
        Self { url, prefix, ca: None, response: RESPONSE }
    }
}

/// Whether Redis can be used.
#[derive(Debug, Clone)]
pub enum Status {
    /// It can; what is known of the server, which tells a restarted or promoted one from the one before.
    Up(Incarnation),
    /// It cannot; why.
    Down(RedisFault),
}

/// The way to Redis. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: RedisOptions,
    link: Link,
}

impl Redis {
    /// Connects, and checks that Redis is one that can be worked with. From then on the connection is watched, and
    /// made anew when it breaks, by a task.
    ///
    /// Gives up after a few seconds, so that a wrong address shows at start.
    pub async fn connect(options: RedisOptions, tasks: &Tasks) -> Result<Self, RedisFault> {
        let link = Link::start(&options, START_PATIENCE, tasks).await?;
        Ok(Self { shared: Arc::new(Shared { options, link }) })
    }

    /// Where Redis is, and how it is treated.
    #[must_use]
    pub fn options(&self) -> &RedisOptions {
        &self.shared.options
    }

    /// Whether keys with different hash tags may be on different servers, so that one script cannot have both.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.shared.options.url.is_cluster()
    }

    /// The key, or the name of a publication, that is called `name` below the hash tag `tag`.
    #[must_use]
    pub fn key(&self, tag: &str, name: &str) -> String {
        format!("{}{{{tag}}}{name}", self.shared.options.prefix)
    }

    /// Whether Redis can be used, now and whenever that changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.link.status()
    }

    /// Sends one command. After [`RedisFault::Away`] or [`RedisFault::Slow`] it may have been carried out.
    ///
    /// While Redis is away this fails after a short wait for its return.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFault> {
        let value = self.send(command).await?;
        ::redis::from_redis_value(value).map_err(|error| RedisFault::unreadable(&error))
    }

    /// Sends one command to the server of a cluster at this address, about itself.
    pub async fn query_at<T: FromRedisValue>(
        &self,
        host: &str,
        port: u16,
        command: &Cmd,
    ) -> Result<T, RedisFault> {
        let mut connection = self.shared.link.connection().await?;
        let answer = connection.ask(host, port, command).await.and_then(Value::extract_error);
        let value = answer.map_err(|error| RedisFault::of(&error))?;
        ::redis::from_redis_value(value).map_err(|error| RedisFault::unreadable(&error))
    }

    /// Runs a script; by its name where Redis knows it, else with its text.
    ///
    /// A script that was not known did nothing, so the second try does nothing twice. In a cluster, though, what was
    /// not answered is repeated by the library: scripts have to bear being run twice.
    pub async fn call<T: FromRedisValue>(&self, call: &Call<'_>) -> Result<T, RedisFault> {
        match self.query(call.by_name()).await {
            Err(RedisFault::UnknownScript) => self.query(&call.by_text()).await,
            answer => answer,
        }
    }

    async fn send(&self, command: &Cmd) -> Result<Value, RedisFault> {
        let mut connection = self.shared.link.connection().await?;
        let answer = connection.req_packed_command(command).await.and_then(Value::extract_error);
        answer.map_err(|error| {
            let fault = RedisFault::of(&error);
            if fault.is_about_connection() {
                self.shared.link.suspect();
            }
            fault
        })
    }
}

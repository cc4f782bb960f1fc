//! Making connections: to the server, to the primary that Sentinels name, to a cluster.

use std::time::Duration;

use ::redis::aio::{AsyncPushSender, ConnectionLike, MultiplexedConnection};
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use ::redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue as _,
    IntoConnectionInfo as _, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError,
    RedisFuture, RedisResult, TlsCertificates, TlsMode, Value, cmd,
};

use super::server::{Incarnation, Info};
use super::{RedisFault, RedisOptions, RedisUrl, Topology, layout};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// The same with everything around it: names, Sentinels, the nodes of a cluster.
const DIAL: Duration = Duration::from_secs(6);
/// How many commands may wait to be written; beyond it their senders wait.
const PIPELINE: usize = 1024;

/// An open connection. Clones share it.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    Single(MultiplexedConnection),
    /// To the nodes of a cluster.
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Single",
            Self::Cluster(_) => "Cluster",
        })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

impl Connection {
    /// Connects for commands and looks at what is there.
    pub(super) async fn dial(options: &RedisOptions) -> Result<(Self, Incarnation), RedisFault> {
        if options.url.tls() {
            // The library leaves it open who encrypts; whoever chose before has chosen.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let dialing = async {
            let mut connection = match options.url.topology() {
                Topology::Cluster => {
                    Self::Cluster(cluster(options, None::<fn(PushInfo) -> Result<(), ()>>).await?)
                }
                _ => Self::Single(single(options, configuration(options)).await?),
            };
            let text = connection.info().await?;
            let info = Info::parse(&text);
            let incarnation = info.check()?;
            layout::check(&mut connection, options).await?;
            if let Some(policy) = info.evicts() {
                tracing::warn!(
                    policy,
                    "this Redis throws keys away when its memory is full, which loses messages that were \
                     accepted; set maxmemory-policy to noeviction"
                );
            }
            Ok((connection, incarnation))
        };
        tokio::time::timeout(DIAL, dialing)
            .await
            .unwrap_or_else(|_| Err(RedisFault::Slow(format!("no connection within {} s", DIAL.as_secs()))))
    }

    /// What one server of a cluster answers to a command that is about itself.
    pub(super) async fn ask(&mut self, host: &str, port: u16, command: &Cmd) -> RedisResult<Value> {
        match self {
            // There is only one.
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => {
                let at = SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port };
                connection.route_command(command.clone(), RoutingInfo::SingleNode(at)).await
            }
        }
    }

    /// What any of its servers says about itself.
    async fn info(&mut self) -> Result<String, RedisFault> {
        let value = match self {
            Self::Single(connection) => connection.req_packed_command(&cmd("INFO")).await,
            Self::Cluster(connection) => {
                let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
                connection.route_command(cmd("INFO"), any).await
            }
        };
        let value = value.and_then(Value::extract_error).map_err(|error| RedisFault::of(&error))?;
        String::from_redis_value(value).map_err(|error| RedisFault::unreadable(&error))
    }
}

/// How connections for commands are made.
pub(super) fn configuration(options: &RedisOptions) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(options.response))
        .set_pipeline_buffer_size(PIPELINE)
}

/// Connects to the one server, or to the primary that the Sentinels name.
pub(super) async fn single(
    options: &RedisOptions,
    configuration: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, RedisFault> {
    let client = match (options.url.topology(), certificates(options)) {
        (Topology::Sentinel { primary }, _) => sentinel(options, primary).await,
        (_, Some(certificates)) => Client::build_with_tls(info(&options.url), certificates),
        (_, None) => Client::open(info(&options.url)),
    };
    let fault = |error: RedisError| RedisFault::of(&error);
    let connecting =
        client.map_err(fault)?.get_multiplexed_async_connection_with_config(&configuration).await;
    connecting.map_err(fault)
}

/// What to trust in place of the system's certificates.
fn certificates(options: &RedisOptions) -> Option<TlsCertificates> {
    let root_cert = options.ca.clone().filter(|_| options.url.tls());
    root_cert.map(|root_cert| TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
}

async fn sentinel(options: &RedisOptions, primary: &str) -> Result<Client, RedisError> {
    let url = &options.url;
    let mut builder = SentinelClientBuilder::new(addresses(url), primary, SentinelServerType::Master)?
        .set_client_to_redis_protocol(ProtocolVersion::RESP3)
        .set_client_to_redis_db(url.database());
    if url.tls() {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates(options) {
        let same = certificates.clone();
        builder = builder.set_client_to_redis_certificates(certificates);
        builder = builder.set_client_to_sentinel_certificates(same);
    }
    if let Some(user) = url.user() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = url.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    // Asked anew each time: they are the ones who know where the primary is now.
    builder.build()?.async_get_client().await
}

/// Connects to a cluster; what it says by itself goes to `push`.
pub(super) async fn cluster(
    options: &RedisOptions,
    push: Option<impl AsyncPushSender>,
) -> Result<ClusterConnection, RedisFault> {
    let url = &options.url;
    let nodes: Vec<_> = addresses(url).into_iter().map(|address| node(url, address)).collect();
    let mut builder = ClusterClient::builder(nodes)
        .use_protocol(ProtocolVersion::RESP3)
        .connection_timeout(CONNECT)
        .response_timeout(options.response)
        .overall_response_timeout(Some(options.response));
    if let Some(push) = push {
        builder = builder.push_sender(push);
    }
    if url.tls() {
        builder = builder.tls(TlsMode::Secure);
    }
    if let Some(certificates) = certificates(options) {
        builder = builder.certs(certificates);
    }
    if let Some(user) = url.user() {
        builder = builder.username(user);
    }
    if let Some(password) = url.password() {
        builder = builder.password(password);
    }
    let connecting = async { builder.build()?.get_async_connection().await };
    connecting.await.map_err(|error: RedisError| RedisFault::of(&error))
}

fn addresses(url: &RedisUrl) -> Vec<ConnectionAddr> {
    let address = |(host, port): &(String, u16)| match url.tls() {
        true => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host.clone(), *port),
    };
    url.hosts().iter().map(address).collect()
}

fn info(url: &RedisUrl) -> ConnectionInfo {
    // A URL has at least one host.
    let first = addresses(url).swap_remove(0);
    node(url, first)
}

/// How to talk to one server.
fn node(url: &RedisUrl, address: ConnectionAddr) -> ConnectionInfo {
    let mut settings =
        RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(url.database());
    if let Some(user) = url.user() {
        settings = settings.set_username(user);
    }
    if let Some(password) = url.password() {
        settings = settings.set_password(password);
    }
    address
        .into_connection_info()
        .expect("an address of a host and a port is one already")
        .set_redis_settings(settings)
}

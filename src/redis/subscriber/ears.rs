//! Ears: the connection that listens, to one server or to the nodes of a cluster.

use std::collections::BTreeSet;

use ::redis::aio::{ConnectionLike as _, MultiplexedConnection};
use ::redis::cluster_async::ClusterConnection;
use ::redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use ::redis::{Value, cmd};
use futures_util::StreamExt as _;

use super::TOGETHER;
use crate::redis::RedisFault;

pub(super) enum Ears {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Ears {
    /// Listens to `names`; the answer is those that cannot be listened to now.
    pub(super) async fn subscribe(&mut self, names: &[String]) -> Result<BTreeSet<String>, RedisFault> {
        let fault = |error| RedisFault::of(&error);
        match self {
            Self::Single(connection) => {
                for part in names.chunks(TOGETHER) {
                    connection.subscribe(part).await.map_err(fault)?;
                }
                Ok(BTreeSet::new())
            }
            Self::Cluster(connection) => {
                // Names of different slots do not go into one command.
                let asking = names.iter().cloned().map(|name| {
                    let mut connection = connection.clone();
                    async move { (connection.ssubscribe(&name).await, name) }
                });
                let asking: Vec<_> = asking.collect();
                let mut asking = futures_util::stream::iter(asking).buffer_unordered(TOGETHER);
                let mut failed = BTreeSet::new();
                while let Some((done, name)) = asking.next().await {
                    if let Err(error) = done {
                        tracing::debug!(name, %error, "it cannot be listened to now");
                        failed.insert(name);
                    }
                }
                Ok(failed)
            }
        }
    }

    pub(super) async fn unsubscribe(&mut self, names: &[String]) -> Result<(), RedisFault> {
        let fault = |error| RedisFault::of(&error);
        match self {
            Self::Single(connection) if !names.is_empty() => {
                connection.unsubscribe(names).await.map_err(fault)
            }
            Self::Single(_) => Ok(()),
            Self::Cluster(connection) => {
                for name in names {
                    connection.sunsubscribe(name).await.map_err(fault)?;
                }
                Ok(())
            }
        }
    }

    /// Whether whoever publishes can still reach this.
    pub(super) async fn look(&mut self) -> Result<(), RedisFault> {
        let answer = match self {
            Self::Single(connection) => connection.req_packed_command(&cmd("ROLE")).await,
            Self::Cluster(connection) => {
                // Those that were primaries when it was connected to them.
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                connection.route_command(cmd("ROLE"), all).await
            }
        };
        let value = answer.and_then(Value::extract_error).map_err(|error| RedisFault::of(&error))?;
        let heard = match &value {
            Value::Map(nodes) => nodes.iter().all(|(_, role)| is_primary(role)),
            role => is_primary(role),
        };
        if heard {
            return Ok(());
        }
        // A replica may hear what its primary publishes, but late, and not for long.
        Err(RedisFault::ReadOnly("the server has become a replica".to_owned()))
    }
}

/// Whether an answer to `ROLE` is that of a primary.
fn is_primary(role: &Value) -> bool {
    matches!(role, Value::Array(parts) if parts.first() == Some(&Value::BulkString(b"master".to_vec())))
}

//! `[http]`: from where the server may be asked.

use serde::Deserialize;

use crate::config::network::Network;

/// What stands between the server and those who ask.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Proxies whose word about whom they ask for (`X-Forwarded-For`) counts.
    pub trusted_proxies: Vec<Network>,
}

//! `[http]` and `[admin]`: from where the server may be asked, and for what.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::config::network::Network;

/// Who may ask, and what stands between.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Proxies whose word about whom they ask for (`X-Forwarded-For`) counts.
    pub trusted_proxies: Vec<Network>,
    /// Origins beside the server's own whose pages may ask it, such as `https://dash.example.org`; `*` for all.
    pub allowed_origins: Vec<String>,
    /// Names beside those of this machine under which the server answers; `*` for all. Without any, all count where
    /// tokens are asked for, and none otherwise.
    pub allowed_hosts: Vec<String>,
}

/// A part of the API that may have a listener of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Side {
    /// Where it is served; then it is served nowhere else.
    #[serde(deserialize_with = "super::some_address")]
    pub listen: Option<SocketAddr>,
}

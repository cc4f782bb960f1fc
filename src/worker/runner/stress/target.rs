//! Where the requests of a stress test go, and what their heads say.

use std::collections::BTreeMap;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// Where the requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) is_tls: bool,
    /// In lower case; an IPv6 address without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: PathAndQuery,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("url: `{url}` is not a URL: {e}"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("url: `{url}` has to begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("url: `{url}` names no host"))?;
        if authority.as_str().contains('@') {
            return Err("url: no user and password here; use the header Authorization".to_owned());
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        // `:` alone, or a number out of range, is not the default port.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => default_port(is_tls),
            _ => match authority.port_u16() {
                Some(port) if port > 0 => port,
                _ => return Err(format!("url: `{url}` has no valid port")),
            },
        };
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { is_tls, host: host.to_ascii_lowercase(), port, path })
    }

    /// As the header `Host` says it.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.is_tls) { host } else { format!("{host}:{}", self.port) }
    }

    /// Another host on the same kind of connection.
    pub(super) fn named(&self, authority: &str) -> Result<Self, String> {
        // A server may take another part of it for the host than we do.
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(format!("`{authority}` is more than a host"));
        }
        let scheme = if self.is_tls { "https" } else { "http" };
        Self::parse(&format!("{scheme}://{authority}/"))
    }
}

fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

/// The method of that name.
pub(super) fn method(name: Option<&str>) -> Result<Method, String> {
    let name = name.unwrap_or("GET");
    match Method::from_bytes(name.to_ascii_uppercase().as_bytes()) {
        Ok(Method::CONNECT) | Err(_) => Err(format!("method: `{name}` cannot be used")),
        Ok(method) => Ok(method),
    }
}

/// The headers that are given, and those that every request has.
pub(super) fn headers(
    given: &BTreeMap<String, String>,
    target: &Target,
    is_json: bool,
    keep_alive: bool,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let host = HeaderValue::from_str(&target.authority()).map_err(|e| format!("url: {e}"))?;
    headers.insert(HOST, host);
    let agent = concat!("tidings/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if is_json {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in given {
        let key: HeaderName = name.parse().map_err(|e| format!("headers.{name}: {e}"))?;
        if [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&key) {
            return Err(format!("headers.{name} is set by the connection; leave it out"));
        }
        // What is judged is what is sent.
        let value = if key == HOST {
            &target.named(value).map_err(|_| format!("headers.Host: `{value}` is no host"))?.authority()
        } else {
            value
        };
        let value = HeaderValue::from_str(value).map_err(|e| format!("headers.{name}: {e}"))?;
        headers.insert(key, value);
    }
    if !keep_alive {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(headers)
}

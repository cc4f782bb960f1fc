//! Where Redis is: `redis://`, `rediss://` (TLS), `redis+sentinel://` and `redis+cluster://`.
//!
//! | URL | what is there |
//! |---|---|
//! | `redis://[user:password@]host[:port][/database]` | one server |
//! | `redis+sentinel://[user:password@]host[:port],…/name[/database]` | Sentinels, and the name by which they know the primary |
//! | `redis+cluster://[user:password@]host[:port],…` | some nodes of a cluster |
//!
//! `rediss` in place of `redis` asks for TLS; `?prefix=` names what all keys begin with.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer};

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What runs at the addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// Sentinels that know where the primary of this name is.
    Sentinel {
        /// The name.
        primary: String,
    },
    /// Nodes of a cluster.
    Cluster,
}

/// Where Redis is, and as whom to talk to it. Its `Display` leaves out the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    topology: Topology,
    tls: bool,
    hosts: Vec<(String, u16)>,
    user: Option<String>,
    password: Option<String>,
    database: i64,
    prefix: Option<String>,
}

/// Why a text is no such URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}; expected redis://HOST[:PORT][/DATABASE], redis+sentinel://HOST,…/PRIMARY or redis+cluster://HOST,… (rediss for TLS)"
)]
pub struct InvalidUrl {
    what: String,
}

fn invalid(what: impl Into<String>) -> InvalidUrl {
    InvalidUrl { what: what.into() }
}

impl RedisUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("no scheme"))?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match base {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(invalid(format!("the scheme `{scheme}` is unknown"))),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut path = path.split('/').filter(|part| !part.is_empty());
        let (topology, port) = match kind {
            "" => (Topology::Single, REDIS_PORT),
            "cluster" => (Topology::Cluster, REDIS_PORT),
            "sentinel" => {
                let name = path.next().ok_or_else(|| invalid("the name of the primary is missing"))?;
                (Topology::Sentinel { primary: decode(name)? }, SENTINEL_PORT)
            }
            _ => return Err(invalid(format!("the scheme `{scheme}` is unknown"))),
        };
        let database = match path.next() {
            Some(number) => {
                number.parse().map_err(|_| invalid(format!("`{number}` is no database number")))?
            }
            None => 0,
        };
        if database < 0 || path.next().is_some() {
            return Err(invalid("the path has too much"));
        }
        if database != 0 && topology == Topology::Cluster {
            return Err(invalid("a cluster has only database 0"));
        }
        let (login, hosts) = authority.rsplit_once('@').map_or((None, authority), |(l, h)| (Some(l), h));
        let (user, password) = credentials(login)?;
        let hosts = hosts.split(',').map(|host| address(host, port)).collect::<Result<Vec<_>, _>>()?;
        if hosts.len() > 1 && topology == Topology::Single {
            return Err(invalid("several hosts need redis+cluster:// or redis+sentinel://"));
        }
        Ok(Self { topology, tls, hosts, user, password, database, prefix: prefix(query)? })
    }

    /// What runs there.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Whether a cluster runs there.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.topology == Topology::Cluster
    }

    /// What the URL says that keys begin with.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// Whether to talk through TLS.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The hosts and their ports, at least one.
    #[must_use]
    pub fn hosts(&self) -> &[(String, u16)] {
        &self.hosts
    }

    /// As whom.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// With which password.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Which database.
    #[must_use]
    pub fn database(&self) -> i64 {
        self.database
    }
}

impl std::str::FromStr for RedisUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for RedisUrl {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(de::Error::custom)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match self.topology {
            Topology::Single => "",
            Topology::Sentinel { .. } => "+sentinel",
            Topology::Cluster => "+cluster",
        })?;
        f.write_str("://")?;
        for (n, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
            write!(f, "{comma}{open}{host}{close}:{port}")?;
        }
        if let Topology::Sentinel { primary } = &self.topology {
            write!(f, "/{primary}")?;
        }
        if self.database != 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn credentials(login: Option<&str>) -> Result<(Option<String>, Option<String>), InvalidUrl> {
    let Some(login) = login else { return Ok((None, None)) };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let some = |text: &str| if text.is_empty() { Ok(None) } else { decode(text).map(Some) };
    Ok((some(user)?, some(password)?))
}

fn address(host: &str, default_port: u16) -> Result<(String, u16), InvalidUrl> {
    // An IPv6 address stands in brackets, or its colons would be those of the port.
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    if name.is_empty() {
        return Err(invalid("a host is missing"));
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| invalid(format!("`{port}` is no port")))?,
        None => default_port,
    };
    Ok((name.to_owned(), port))
}

fn prefix(query: &str) -> Result<Option<String>, InvalidUrl> {
    let mut prefix = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("prefix", value)) => prefix = Some(decode(value)?),
            _ => return Err(invalid(format!("`?{pair}` is unknown, only `?prefix=` is not"))),
        }
    }
    if let Some(prefix) = &prefix {
        check_prefix(prefix).map_err(invalid)?;
    }
    Ok(prefix)
}

/// Whether keys may begin with `prefix`; if not, what is wrong with it.
pub fn check_prefix(prefix: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_graphic() && !matches!(c, '{' | '}' | '*' | '?' | '[' | ']' | '\\');
    if prefix.is_empty() || prefix.len() > 64 || !prefix.chars().all(fine) {
        // A brace would move the hash tag; the others are patterns in the rules of users.
        return Err(format!(
            "a prefix is 1 to 64 printable ASCII characters without {{ }} * ? [ ] \\, not {prefix:?}"
        ));
    }
    Ok(())
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, InvalidUrl> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(invalid("a `%` is not followed by two hexadecimal digits"));
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| invalid("a part is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_url_is_read_and_shown_without_its_password() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("rediss://:p%40ss@h:1/3", "rediss://h:1/3"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            ("redis+cluster://u:secret@a,b:2,c", "redis+cluster://a:6379,b:2,c:6379"),
            ("redis+sentinel://a,b:2/main/4?prefix=x", "redis+sentinel://a:26379,b:2/main/4"),
        ] {
            let url = RedisUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
        let url = RedisUrl::parse("rediss://a%3Ab:p%40s%2Fs@h?prefix=ci.7").unwrap();
        assert_eq!((url.user(), url.password()), (Some("a:b"), Some("p@s/s")));
        assert_eq!((url.prefix(), url.tls()), (Some("ci.7"), true));
    }

    #[test]
    fn what_is_no_url_is_refused_with_its_reason() {
        for (text, part) in [
            ("localhost:6379", "no scheme"),
            ("http://h", "`http`"),
            ("redis+ring://h", "`redis+ring`"),
            ("redis://", "a host is missing"),
            ("redis://h:x", "`x` is no port"),
            ("redis://h/x", "`x` is no database"),
            ("redis://h/1/2", "too much"),
            ("redis://a,b", "several hosts"),
            ("redis+cluster://a/1", "only database 0"),
            ("redis+sentinel://a", "name of the primary"),
            ("redis://h?timeout=1", "`?timeout=1`"),
            ("redis://h?prefix=a{b", "a prefix is"),
            ("redis://u:%4@h", "hexadecimal"),
        ] {
            let message = RedisUrl::parse(text).expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}

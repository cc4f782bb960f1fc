//! Which hosts may be put under load: the setting `stress.allow`.
//!
//! A load tool that takes orders over the network is a weapon; without the operator's word it only aims at
//! its own machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::target::Target;
use crate::config::network::Network;

/// What is allowed where the operator says nothing.
const DEFAULT_ALLOW: [&str; 3] = ["localhost", "127.0.0.0/8", "::1"];

/// Where Amazon's machines are told their secrets over IPv6 (`fd00:ec2::254`): no link-local address.
const AMAZON: [u16; 2] = [0xfd00, 0xec2];
/// What stands before an IPv4 address that a NAT64 translates.
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// An entry that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "stress.allow: `{0}` is none of: a host, host:port, *.example.org, an address, a network such as 10.0.0.0/8"
)]
pub struct InvalidAllow(String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    /// `example.org` stands for `*.example.org`.
    Below(String),
    Network(Network),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    host: Host,
    port: Option<u16>,
}

/// The hosts that may be put under load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allow(Vec<Entry>);

impl Allow {
    /// Reads the operator's entries; what holds where there are none.
    pub(super) fn parse(entries: &[String]) -> Result<Self, InvalidAllow> {
        let default = DEFAULT_ALLOW.map(str::to_owned);
        let entries = if entries.is_empty() { &default } else { entries };
        let parsed = entries.iter().map(|e| entry(e.trim()).ok_or_else(|| InvalidAllow(e.clone())));
        parsed.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn permits(&self, target: &Target) -> bool {
        self.0
            .iter()
            .any(|entry| entry.port.is_none_or(|port| port == target.port) && entry.host.covers(&target.host))
    }
}

impl Allow {
    /// Whether an address that an allowed name was resolved to may be put under load.
    ///
    /// The operator named names, but whoever runs their DNS says where they lead, and may change it at any time. A
    /// name does not lead to this machine, to a neighbour of its link (where clouds keep their secrets) or to
    /// everybody, unless an address or a network of the list says so.
    pub(super) fn permits_address(&self, host: &str, port: u16, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let leads_to = behind(address);
        if address.is_loopback() && host == "localhost" {
            return true;
        }
        let is_special = match leads_to {
            IpAddr::V4(a) => {
                a.is_loopback()
                    || a.is_link_local()
                    || a.is_unspecified()
                    || a.is_multicast()
                    || a.is_broadcast()
            }
            IpAddr::V6(a) => {
                a.is_loopback()
                    || a.is_unicast_link_local()
                    || a.is_unspecified()
                    || a.is_multicast()
                    || a.segments()[..2] == AMAZON
            }
        };
        let named = |entry: &Entry| {
            matches!(entry.host, Host::Network(network) if network.contains(address) || network.contains(leads_to))
                && entry.port.is_none_or(|allowed| allowed == port)
        };
        !is_special || self.0.iter().any(named)
    }
}

impl Host {
    /// By the text of the host, not by what it resolves to: the operator named names.
    fn covers(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name == host,
            Self::Below(domain) => host.strip_suffix(domain.as_str()).is_some_and(|h| h.ends_with('.')),
            Self::Network(network) => host.parse().is_ok_and(|address| network.contains(address)),
        }
    }
}

/// The address that a NAT64 makes of this one.
fn behind(address: IpAddr) -> IpAddr {
    let is_translated = |a: &Ipv6Addr| a.segments()[..6] == NAT64;
    match address {
        IpAddr::V6(a) if is_translated(&a) => {
            let [.., a, b, c, d] = a.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        other => other,
    }
}

fn entry(text: &str) -> Option<Entry> {
    if let Some(network) = network(text) {
        return Some(Entry { host: network, port: None });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|p| *p > 0)?)),
        None => (text, None),
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Some(host) = network(bare) {
        return Some(Entry { host, port });
    }
    let (name, is_wildcard) = host.strip_prefix("*.").map_or((host, false), |name| (name, true));
    let is_name = !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        && !name.starts_with('.');
    let name = name.to_ascii_lowercase();
    is_name.then_some(Entry { host: if is_wildcard { Host::Below(name) } else { Host::Name(name) }, port })
}

fn network(text: &str) -> Option<Host> {
    text.parse().ok().map(Host::Network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allow: &[&str], host: &str, port: u16) -> bool {
        let entries: Vec<String> = allow.iter().map(|&s| s.to_owned()).collect();
        let path = http::uri::PathAndQuery::from_static("/");
        let target = Target { is_tls: false, host: host.to_owned(), port, path };
        Allow::parse(&entries).unwrap().permits(&target)
    }

    #[test]
    fn only_the_loopback_is_allowed_by_default() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(permits(&DEFAULT_ALLOW, host, 80), "{host}");
        }
        for host in
            ["example.org", "128.0.0.1", "0.0.0.0", "::", "localhost.example.org", "127.1", "10.0.0.1"]
        {
            assert!(!permits(&DEFAULT_ALLOW, host, 80), "{host}");
        }
    }

    #[test]
    fn a_name_does_not_lead_to_this_machine_or_its_link_unless_the_list_says_so() {
        let leads = |allow: &[&str], host: &str, to: &str| {
            let entries: Vec<String> = allow.iter().map(|&s| s.to_owned()).collect();
            Allow::parse(&entries).unwrap().permits_address(host, 80, to.parse().unwrap())
        };
        for inside in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::7f00:1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            assert!(!leads(&["*.example.org"], "a.example.org", inside), "{inside}");
            assert!(leads(&["*.example.org", "0.0.0.0/0", "::/0"], "a.example.org", inside), "{inside}");
        }
        for outside in ["10.0.0.1", "192.0.2.1", "2001:db8::1", "64:ff9b::a00:1", "fd00:ec3::1"] {
            assert!(leads(&["*.example.org"], "a.example.org", outside), "{outside}");
        }
        assert!(leads(&["localhost"], "localhost", "127.0.0.1"));
        assert!(!leads(&["localhost"], "localhost", "169.254.169.254"));
        assert!(!leads(&["h", "127.0.0.1:81"], "h", "127.0.0.1"));
    }

    #[test]
    fn names_ports_domains_and_networks_can_be_allowed() {
        assert!(permits(&["Staging.example.org"], "staging.example.org", 1));
        assert!(permits(&["host:8080"], "host", 8080) && !permits(&["host:8080"], "host", 80));
        assert!(permits(&["[::1]:8080"], "::1", 8080) && !permits(&["[::1]:8080"], "::1", 80));
        assert!(permits(&["*.example.org"], "a.b.example.org", 80));
        assert!(!permits(&["*.example.org"], "example.org", 80));
        assert!(!permits(&["*.example.org"], "badexample.org", 80));
        assert!(permits(&["10.0.0.0/8"], "10.255.0.1", 80) && !permits(&["10.0.0.0/8"], "11.0.0.1", 80));
        assert!(permits(&["0.0.0.0/0"], "9.9.9.9", 80));
        assert!(permits(&[], "localhost", 80) && !permits(&[], "example.org", 80));
    }

    #[test]
    fn an_entry_that_means_nothing_is_named() {
        for entry in ["", "*", "http://host", "host:0", "host:x", "10.0.0.0/33", "a b", "*.*.org"] {
            let message = Allow::parse(&[entry.to_owned()]).unwrap_err().to_string();
            assert!(message.contains(&format!("`{entry}`")), "{message}");
        }
    }
}

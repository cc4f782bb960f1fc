//! Addresses: who comes over the network, as far as that can be told.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;

use crate::config::network::Network;

/// The header in which proxies say for whom they ask.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// How many of the addresses of a header are looked at: proxies that trust each other are few.
const HOPS: usize = 16;

/// Who counts as one: an address of IPv4, or a /64 of IPv6, which is what one customer has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Address {
    /// One address.
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6(u64),
}

impl Address {
    /// Whether it is this machine.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        matches!(self, Self::V4(address) if address.is_loopback())
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => Self::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(first) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*first) << 64)),
        }
    }
}

/// Whose word about their clients counts.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Vec<Network>);

impl Proxies {
    /// These proxies.
    #[must_use]
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Whether `peer` is one of them.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(peer))
    }

    /// For whom `peer` asks: the nearest address that is not a trusted proxy's. What stands before it in the header is
    /// what that party claims, and may be anything. Where the header ends early or cannot be read, the last proxy
    /// answers for it.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer;
        if !self.trusts(peer) {
            return nearest;
        }
        let values = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok());
        for hop in values.flat_map(|value| value.rsplit(',')).take(HOPS) {
            let Some(address) = hop_address(hop.trim()) else { return nearest };
            nearest = address;
            if !self.trusts(address) {
                return nearest;
            }
        }
        nearest
    }

    /// Whether somebody who is not trusted says for whom it asks: a proxy that was forgotten, or a lie.
    #[must_use]
    pub fn is_unheard(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        headers.contains_key(FORWARDED_FOR) && !self.trusts(peer)
    }
}

/// An address, which some proxies write with a port.
fn hop_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address);
    bare.unwrap_or(text)
        .parse()
        .or_else(|_| {
            text.rsplit_once(':').map_or("", |(address, _)| address).parse::<Ipv4Addr>().map(IpAddr::V4)
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let proxies = Proxies::new(trusted.iter().map(|network| network.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        proxies.client(ip(peer), &headers).to_string()
    }

    #[test]
    fn the_client_is_the_nearest_address_that_is_no_trusted_proxys() {
        let trusted = ["10.0.0.0/8", "127.0.0.1"];
        for (peer, forwarded, expected) in [
            ("203.0.113.9", &["198.51.100.1"] as &[_], "203.0.113.9"),
            ("10.1.1.1", &[], "10.1.1.1"),
            ("10.1.1.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.1.1.1", &["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
            ("10.1.1.1", &["1.2.3.4, 198.51.100.1,10.2.2.2"], "198.51.100.1"),
            ("10.1.1.1", &["1.2.3.4", "198.51.100.1", "10.2.2.2"], "198.51.100.1"),
            ("10.1.1.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("127.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("127.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.1.1.1", &["198.51.100.1, unknown, 10.2.2.2"], "10.2.2.2"),
            ("10.1.1.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            ("::ffff:10.1.1.1", &["198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(client(&trusted, peer, forwarded), expected, "{peer} {forwarded:?}");
        }
        assert_eq!(client(&[], "127.0.0.1", &["198.51.100.1"]), "127.0.0.1");
    }

    #[test]
    fn addresses_of_one_customer_count_as_one() {
        let address = |text: &str| Address::from(ip(text));
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::7"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert!(address("127.9.9.9").is_loopback() && address("::1").is_loopback());
        assert!(!address("2001:db8::1").is_loopback());
        assert_eq!(address("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }
}

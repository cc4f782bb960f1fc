//! Origins: which web pages may ask the server from somebody's browser. Values, without I/O.
//!
//! Browsers say of a request where the page comes from; programs do not. A foreign page could otherwise open a
//! WebSocket to this server with the network access of whoever looks at it.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// The origins that are let in beside the server's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins {
    any: bool,
    allowed: Box<[Box<str>]>,
}

impl Origins {
    /// These; `*` stands for all.
    #[must_use]
    pub fn new(allowed: &[String]) -> Self {
        let any = allowed.iter().any(|origin| origin == "*");
        Self { any, allowed: allowed.iter().map(|origin| origin.as_str().into()).collect() }
    }

    /// Whether pages of other origins may ask at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty()
    }

    /// Whether all of them may.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.any
    }

    /// Whether `origin` is one of them.
    #[must_use]
    pub fn lists(&self, origin: &str) -> bool {
        self.any || self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// Whether a request may go on: it does not come from a page, or from one of the server's own or a listed origin.
    #[must_use]
    pub fn admits(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let mut named = headers.get_all(ORIGIN).iter();
        let Some(origin) = named.next() else { return true };
        let Some(origin) = origin.to_str().ok().filter(|_| named.next().is_none()) else { return false };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        self.lists(origin)
            || host.or(uri.authority().map(Authority::as_str)).is_some_and(|host| same(origin, host))
    }
}

/// Whether `origin` is that of the server that was asked as `host`. A missing port is the usual one of the scheme.
fn same(origin: &str, host: &str) -> bool {
    let Some((scheme, place)) = origin.split_once("://") else { return false };
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let (Ok(place), Ok(host)) = (place.parse::<Authority>(), host.parse::<Authority>()) else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(usual);
    place.host().eq_ignore_ascii_case(host.host()) && port(&place) == port(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(origins: &Origins, origin: &str, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().expect("a header"));
        headers.insert(HOST, host.parse().expect("a header"));
        origins.admits(&headers, &Uri::from_static("/"))
    }

    #[test]
    fn a_page_of_the_server_itself_is_let_in_and_a_foreign_one_is_not() {
        let none = Origins::default();
        assert!(none.admits(&HeaderMap::new(), &Uri::from_static("/")), "a program");
        for (origin, host) in [
            ("http://localhost:8080", "localhost:8080"),
            ("https://Dash.example.org", "dash.example.org"),
            ("https://dash.example.org", "dash.example.org:443"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert!(admits(&none, origin, host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("http://evil.example", "localhost:8080"),
            ("http://localhost:3000", "localhost:8080"),
            ("http://dash.example.org", "dash.example.org:443"),
            ("http://dash.example.org.evil.example", "dash.example.org"),
            ("null", "localhost:8080"),
            ("file://", "localhost:8080"),
            ("", "localhost:8080"),
        ] {
            assert!(!admits(&none, origin, host), "{origin} at {host}");
        }
    }

    #[test]
    fn listed_origins_are_let_in() {
        let some = Origins::new(&["https://dash.example.org".to_owned()]);
        assert!(admits(&some, "https://dash.example.org", "localhost:8080"));
        assert!(!admits(&some, "https://other.example.org", "localhost:8080"));
        assert!(admits(&Origins::new(&["*".to_owned()]), "null", "localhost:8080"));
        let mut twice = HeaderMap::new();
        twice.append(ORIGIN, "https://dash.example.org".parse().expect("a header"));
        twice.append(ORIGIN, "https://evil.example".parse().expect("a header"));
        assert!(!some.admits(&twice, &Uri::from_static("/")), "two origins are none");
    }
}

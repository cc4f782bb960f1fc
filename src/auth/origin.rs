//! Origins: which web pages may ask the server from somebody's browser, and under which names. Values, without I/O.
//!
//! Browsers say of a request where the page comes from; programs do not. A foreign page could otherwise open a
//! WebSocket to this server with the network access of whoever looks at it.
//!
//! A page may also have its own name lead to this machine once it is loaded (DNS rebinding): then it is of one origin
//! with whatever answers there. What tells the two apart is the name that the browser asked for, so that a server which
//! believes everybody answers only to names that lead nowhere else.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

use crate::config::settings::Settings;

/// What is answered to under any name: it tells nothing, and balancers ask for it by names of their own.
const UNDER_ANY_NAME: [&str; 2] = ["/healthz", "/readyz"];

/// The origins that are let in beside the server's own, and the server's own names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins {
    any: bool,
    allowed: Box<[Box<str>]>,
    // None where any will do.
    hosts: Option<Box<[Box<str>]>>,
}

/// What about a request is not of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// The page that asks.
    Origin,
    /// The name under which the server was asked.
    Host,
}

impl Origins {
    /// As the settings say: names count where they are listed, and while authentication is off.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let (http, names) = (&settings.http, &settings.http.allowed_hosts);
        let any = names.iter().any(|name| name == "*");
        let counts = !any && (!names.is_empty() || !settings.auth.is_on());
        let hosts = counts.then(|| names.iter().map(|name| undotted(name).into()).collect());
        Self { hosts, ..Self::new(&http.allowed_origins) }
    }

    /// These, under any name; `*` stands for all.
    #[must_use]
    pub fn new(allowed: &[String]) -> Self {
        let any = allowed.iter().any(|origin| origin == "*");
        Self { any, allowed: allowed.iter().map(|origin| origin.as_str().into()).collect(), hosts: None }
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

    /// Whether a request may go on: it asks for this server, and does not come from a page, or from one of the server's
    /// own or a listed origin.
    ///
    /// # Errors
    /// What is foreign about it.
    pub fn admits(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Foreign> {
        if !self.answers_to(headers, uri) {
            return Err(Foreign::Host);
        }
        let mut named = headers.get_all(ORIGIN).iter();
        let Some(origin) = named.next() else { return Ok(()) };
        let origin = origin.to_str().ok().filter(|_| named.next().is_none()).ok_or(Foreign::Origin)?;
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_own = host.or(uri.authority().map(Authority::as_str)).is_some_and(|host| same(origin, host));
        if is_own || self.lists(origin) { Ok(()) } else { Err(Foreign::Origin) }
    }

    /// Whether every name under which a request asks is one of the server's. Who names none is no browser.
    fn answers_to(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        if UNDER_ANY_NAME.contains(&uri.path()) {
            return true;
        }
        let is_own = |host: &str| {
            let Ok(place) = host.parse::<Authority>() else { return false };
            let name = undotted(place.host());
            is_this_machine(name) || hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
        };
        headers.get_all(HOST).iter().all(|host| host.to_str().is_ok_and(is_own))
            && uri.authority().is_none_or(|authority| is_own(authority.as_str()))
    }
}

/// A name that ends with a dot is the same one.
fn undotted(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether `name` leads to this machine wherever it is asked for, so that no page can be loaded from elsewhere by it.
fn is_this_machine(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let lower = name.to_ascii_lowercase();
    lower == "localhost"
        || lower.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
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
        origins.admits(&headers, &Uri::from_static("/")).is_ok()
    }

    #[test]
    fn a_page_of_the_server_itself_is_let_in_and_a_foreign_one_is_not() {
        let none = Origins::default();
        assert_eq!(none.admits(&HeaderMap::new(), &Uri::from_static("/")), Ok(()), "a program");
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
        assert_eq!(some.admits(&twice, &Uri::from_static("/")), Err(Foreign::Origin), "two origins are none");
    }

    fn named(settings: &Settings, hosts: &[&str], uri: &str) -> Result<(), Foreign> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().expect("a header"));
        }
        Origins::of(settings).admits(&headers, &uri.parse().expect("a URI"))
    }

    #[test]
    fn who_believes_everybody_answers_only_to_names_of_this_machine_and_listed_ones() {
        let mut settings = Settings::default();
        for own in [
            "localhost:8080",
            "LocalHost",
            "localhost.",
            "dash.localhost:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:80",
        ] {
            assert_eq!(named(&settings, &[own], "/"), Ok(()), "{own}");
        }
        for foreign in [
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil-localhost",
            "192.0.2.1:8080",
            "[2001:db8::1]",
            "0.0.0.0:8080",
            "localhost@evil.example",
            "localhost, evil.example",
            "a b",
            "",
        ] {
            assert_eq!(named(&settings, &[foreign], "/"), Err(Foreign::Host), "{foreign}");
        }
        assert_eq!(named(&settings, &["localhost", "evil.example"], "/"), Err(Foreign::Host), "both");
        assert_eq!(
            named(&settings, &["localhost"], "http://evil.example/"),
            Err(Foreign::Host),
            "the line counts"
        );
        assert_eq!(named(&settings, &[], "/"), Ok(()), "no browser");
        assert_eq!(named(&settings, &["evil.example"], "/readyz"), Ok(()));
        settings.http.allowed_hosts = vec!["Dash.example.org".to_owned()];
        assert_eq!(named(&settings, &["dash.example.org:443"], "/"), Ok(()));
        assert_eq!(named(&settings, &["other.example.org"], "/"), Err(Foreign::Host));
        settings.http.allowed_hosts.push("*".to_owned());
        assert_eq!(named(&settings, &["other.example.org"], "/"), Ok(()));
    }

    #[test]
    fn who_wants_tokens_answers_to_any_name_unless_names_are_listed() {
        let mut settings = Settings::default();
        settings.auth.jwks_file = Some("keys.json".into());
        assert_eq!(named(&settings, &["dash.example.org"], "/"), Ok(()));
        settings.http.allowed_hosts = vec!["dash.example.org.".to_owned()];
        assert_eq!(named(&settings, &["dash.example.org"], "/"), Ok(()));
        assert_eq!(named(&settings, &["dash.example.org."], "/"), Ok(()), "a dot at the end changes nothing");
        assert_eq!(named(&settings, &["evil.example"], "/"), Err(Foreign::Host));
    }
}

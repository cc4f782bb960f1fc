//! Clients of a tidings server, for the commands that talk to one (`watch`, `submit`, `publish`), the load tool
//! and the tests.
//!
//! [`packet`] is the wire format and [`receiver`] the reference for checking positions, both without I/O;
//! [`socket`] speaks Socket.IO over WebSocket, [`sender`] is its sending half and [`room`] its words for joining;
//! [`http`] speaks the JSON API. Only [`crate::model`] lies below.

pub mod http;
pub mod packet;
pub mod receiver;
pub mod room;
pub mod sender;
pub mod socket;

mod authority;
mod connection;
mod handshake;

use std::fmt;
use std::io;
use std::time::Duration;

use serde::Deserialize;

pub use self::authority::Authority;
pub use self::http::HttpClient;
pub use self::receiver::{Receiver, Verdict};
pub use self::room::{JoinRequest, Joined, Since};
pub use self::sender::SocketSender;
pub use self::socket::{ConnectOptions, Event, SocketClient};

use self::packet::PacketError;

/// Why a client did not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address makes no sense, or needs what this client does not speak.
    #[error("`{url}` is not the address of a server: {reason}")]
    Url {
        /// The address as it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there.
    #[error("cannot reach {url}: {reason}; is `tidings serve` running?")]
    Unreachable {
        /// The server's address.
        url: String,
        /// What the network said.
        reason: String,
    },
    /// Somebody answers there who may be anybody.
    #[error(
        "{url} is not to be trusted: {reason}; `--ca FILE` names the authority that signed its certificate"
    )]
    Distrusted {
        /// The server's address.
        url: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// A file of certificates cannot be used.
    #[error("{file}: {reason}")]
    Authority {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody answers there who does not speak as a tidings server does.
    #[error("{url} does not answer like a tidings server: {reason}")]
    NotTidings {
        /// The server's address.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The server refused the Socket.IO connection.
    #[error("the server refused the connection: {message} ({code})")]
    Refused {
        /// Stable, for programs.
        code: String,
        /// For people.
        message: String,
    },
    /// The server refused an event; the connection stays.
    #[error("{event} was refused: {message} ({code})")]
    Rejected {
        /// The event that was sent.
        event: String,
        /// Stable, for programs.
        code: String,
        /// For people.
        message: String,
    },
    /// The server refused an HTTP request with a problem document (RFC 9457).
    #[error("{detail} (HTTP {status}, {code})")]
    Problem {
        /// The HTTP status.
        status: u16,
        /// Stable, for programs; `http_<status>` where the answer has none.
        code: String,
        /// For people.
        detail: String,
    },
    /// The answer did not come in time. The request may have been carried out.
    #[error("no answer to {what} within {after:?}")]
    Timeout {
        /// What was asked.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server was not heard of for longer than it promised; the connection is given up.
    #[error("the server was silent for {after:?}")]
    Silent {
        /// Its ping interval and timeout together.
        after: Duration,
    },
    /// The server, or the network between, ended the connection.
    #[error("the connection ended: {reason}")]
    Ended {
        /// What was said or seen.
        reason: String,
    },
    /// The connection had been closed before.
    #[error("the connection is closed")]
    Closed,
    /// The server sent what is no packet.
    #[error("the server sent {0}")]
    Packet(#[from] PacketError),
    /// An answer that is not as the contract says, or a request that cannot be written as JSON.
    #[error("{what}: {reason}")]
    Json {
        /// Which answer or request.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    fn json(what: impl Into<String>, error: &serde_json::Error) -> Self {
        Self::Json { what: what.into(), reason: error.to_string() }
    }

    /// The server's refusal as `{"code", "message"}`, or `text` itself where it is something else.
    fn refused(text: &str) -> Self {
        let Told { code, message } = serde_json::from_str(text)
            .unwrap_or_else(|_| Told { code: "connect_error".to_owned(), message: text.to_owned() });
        Self::Refused { code, message }
    }
}

/// How the server puts an error into words.
#[derive(Debug, Deserialize)]
struct Told {
    code: String,
    message: String,
}

/// The address of a server, such as `http://127.0.0.1:8080` or `https://tidings.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    is_tls: bool,
    /// `host:port` and the path that everything lies under, without a slash at its end.
    place: String,
}

impl ServerUrl {
    /// Reads an address. `http://` and `ws://` mean the same server, and so do `https://` and `wss://`; without a scheme it
    /// is `http://`.
    ///
    /// # Errors
    /// [`ClientError::Url`]
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = |reason: &str| ClientError::Url { url: without_user(url), reason: reason.to_owned() };
        let uri: ::http::Uri =
            url.trim().parse().map_err(|e: ::http::uri::InvalidUri| wrong(&e.to_string()))?;
        let is_tls = match uri.scheme_str() {
            None | Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            Some(_) => return Err(wrong("it begins with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has no user and no password; a token stands in TIDINGS_TOKEN"));
        }
        if uri.query().is_some() {
            return Err(wrong("it has no query"));
        }
        let path = uri.path().trim_end_matches('/');
        Ok(Self { is_tls, place: format!("{authority}{path}") })
    }

    /// The address of `path`, which begins with a slash.
    fn http(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// Whether what is said there is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The address of the Socket.IO endpoint.
    fn socket(&self) -> String {
        let scheme = if self.is_tls { "wss" } else { "ws" };
        format!("{scheme}://{}/socket.io/?EIO=4&transport=websocket", self.place)
    }

    fn distrusted(&self, reason: String) -> ClientError {
        ClientError::Distrusted { url: self.to_string(), reason }
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable { url: self.to_string(), reason }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.place)
    }
}

/// An address as it may be shown: what stands before its host may be a password.
fn without_user(url: &str) -> String {
    let (scheme, rest) =
        url.split_once("://").map_or(("", url), |(scheme, rest)| (&url[..scheme.len() + 3], rest));
    format!("{scheme}{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
}

/// What went wrong with the network, without the operating system's numbers.
fn io_reason(error: &io::Error) -> String {
    // `Other` and what std does not name yet say nothing by their kind; a failed name look-up is one of these.
    if error.raw_os_error().is_some() { error.kind().to_string() } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_ws_and_a_bare_host_mean_the_same_server() {
        for url in ["http://127.0.0.1:80", "ws://127.0.0.1:80/", "127.0.0.1:80", " http://127.0.0.1:80/ "] {
            let url = ServerUrl::parse(url).expect(url);
            assert_eq!(url.to_string(), "http://127.0.0.1:80");
            assert_eq!(url.socket(), "ws://127.0.0.1:80/socket.io/?EIO=4&transport=websocket");
            assert_eq!(url.http("/healthz"), "http://127.0.0.1:80/healthz");
        }
        for url in ["https://host/", "wss://host"] {
            let url = ServerUrl::parse(url).expect(url);
            assert_eq!(url.to_string(), "https://host");
            assert_eq!(url.socket(), "wss://host/socket.io/?EIO=4&transport=websocket");
        }
        for url in [
            "http://ann:secret@host:80",
            "ann:secret@host",
            "https://secret@host/x",
            "http://a:secret@host:x",
        ] {
            let error = ServerUrl::parse(url).expect_err(url).to_string();
            assert!(!error.contains("secret") && error.contains("host"), "{error}");
        }
        let under = ServerUrl::parse("http://host/tidings/").expect("a path");
        assert_eq!(under.http("/healthz"), "http://host/tidings/healthz");
    }

    #[test]
    fn an_address_that_cannot_be_used_says_why() {
        for (url, reason) in [
            ("ftp://host", "begins with http://"),
            ("/path", "host is missing"),
            ("http://host/?a=1", "no query"),
            ("http://", "not the address"),
        ] {
            let error = ServerUrl::parse(url).expect_err(url).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_refusal_is_read_from_its_json_and_else_kept_as_it_is() {
        let error = ClientError::refused(r#"{"code":"unauthorized","message":"the token is expired"}"#);
        assert_eq!(
            error.to_string(),
            "the server refused the connection: the token is expired (unauthorized)"
        );
        assert!(
            matches!(ClientError::refused("no"), ClientError::Refused { message, .. } if message == "no")
        );
    }
}

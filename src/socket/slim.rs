//! Slim requests: what a socket keeps of its handshake for the rest of its life.
//!
//! The header values of a request are slices of the server's 16 KiB read buffer, and the socket keeps the
//! request: one long-lived WebSocket would hold the whole buffer. The parts that matter are copied, and the
//! rest is let go.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, HeaderMap, HeaderValue, Request, Uri, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use tower::Service;

use super::carriers::Carriers;
use crate::listener::KillSwitch;

/// The headers that the library and `carriers` read. A socket's own request has one of them at most.
const KEPT: [header::HeaderName; 2] = [header::CONTENT_TYPE, header::SEC_WEBSOCKET_KEY];
/// How clients that begin with a WebSocket ask for it: a text that need not be kept for each of them.
const USUAL: &str = "/socket.io/?EIO=4&transport=websocket";

/// Gives `inner` slim requests for `/socket.io/` and everything else as it is.
#[derive(Debug, Clone)]
pub struct SlimService<S> {
    inner: S,
    carriers: Arc<Carriers>,
}

impl<S> SlimService<S> {
    pub(super) fn new(inner: S, carriers: Arc<Carriers>) -> Self {
        Self { inner, carriers }
    }
}

impl<S, B> Service<Request<B>> for SlimService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if !request.uri().path().starts_with("/socket.io/") {
            return self.inner.call(request);
        }
        self.carriers.note(&mut request);
        let (parts, body) = request.into_parts();
        self.inner.call(Request::from_parts(slim(parts), body))
    }
}

fn slim(mut parts: Parts) -> Parts {
    let count = KEPT.iter().map(|name| parts.headers.get_all(name).iter().count()).sum();
    // Exactly: a map that grows by itself begins with room for six.
    let mut headers = HeaderMap::with_capacity(count);
    for name in KEPT {
        for value in parts.headers.get_all(&name) {
            if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
                copy.set_sensitive(value.is_sensitive());
                headers.append(name.clone(), copy);
            }
        }
    }
    let mut extensions = Extensions::new();
    if let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() {
        extensions.insert(upgrade);
    }
    if let Some(switch) = parts.extensions.remove::<KillSwitch>() {
        extensions.insert(switch);
    }
    // The text of a URI is a slice of the same buffer.
    if parts.uri == USUAL {
        parts.uri = Uri::from_static(USUAL);
    } else if let Ok(copy) = Uri::try_from(parts.uri.to_string()) {
        parts.uri = copy;
    }
    parts.headers = headers;
    parts.extensions = extensions;
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slim_request_keeps_what_the_handshake_reads_and_nothing_else() {
        let request = Request::builder()
            .uri("/socket.io/?EIO=4&transport=websocket")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "abc")
            .header("cookie", "x".repeat(4000))
            .extension(7_u8)
            .body(())
            .expect("a request");
        let slim = slim(request.into_parts().0);
        assert_eq!(slim.uri, USUAL);
        assert_eq!(slim.headers.len(), 1);
        assert_eq!(slim.headers[header::SEC_WEBSOCKET_KEY], "abc");
        assert!(slim.extensions.is_empty());
    }

    #[test]
    fn a_slim_request_is_for_what_the_client_asked_for() {
        for uri in [USUAL, "/socket.io/?EIO=4&transport=polling&sid=a", "/socket.io/"] {
            let request = Request::builder().uri(uri).body(()).expect("a request");
            assert_eq!(slim(request.into_parts().0).uri, uri);
        }
    }
}

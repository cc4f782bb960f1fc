//! Slim requests: what a socket keeps of its handshake for the rest of its life.
//!
//! The header values of a request are slices of the server's 16 KiB read buffer, and the socket keeps the
//! request: one long-lived WebSocket would hold the whole buffer. The parts that matter are copied, and the
//! rest is let go.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{self, Map, Ready};
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts};
use http_body_util::{Either, Full};
use hyper::upgrade::OnUpgrade;
use socketioxide::extract::SocketRef;
use tower::Service;

use super::carriers::{self, Carriers};
use crate::auth::bearer;
use crate::auth::origin::Origins;
use crate::config::live::Live;
use crate::config::secret::Secret;
use crate::limits::crowd::{Begun, Crowd};
use crate::limits::{Notice, Reason, met, retry_after_s};
use crate::listener::KillSwitch;
use crate::listener::serve::Origin;

/// The headers that the library and `carriers` read. A socket's own request has one of them at most.
const KEPT: [header::HeaderName; 2] = [header::CONTENT_TYPE, header::SEC_WEBSOCKET_KEY];
/// How clients that begin with a WebSocket ask for it: a text that need not be kept for each of them.
const USUAL: &str = "/socket.io/?EIO=4&transport=websocket";

static NOTICE: Notice = Notice::new();

/// Gives `inner` slim requests for `/socket.io/` and everything else as it is. A request that would begin a session too
/// many is answered here.
#[derive(Debug, Clone)]
pub struct SlimService<S> {
    inner: S,
    carriers: Arc<Carriers>,
    crowd: Arc<Crowd>,
    origins: Live<Origins>,
}

impl<S> SlimService<S> {
    pub(super) fn new(inner: S, carriers: Arc<Carriers>, crowd: Arc<Crowd>, origins: Live<Origins>) -> Self {
        Self { inner, carriers, crowd, origins }
    }

    /// Counts the session that a request begins.
    fn begin<B>(&self, request: &Request<B>) -> Result<Option<Arc<Begun>>, (Reason, Duration)> {
        let origin = request.extensions().get::<Origin>();
        let Some(origin) = origin.filter(|_| carriers::sid(request.uri()).is_none()) else { return Ok(None) };
        self.crowd.begin(origin.address).map(|begun| Some(Arc::new(begun)))
    }
}

/// The token that a handshake came with, in its header or its query. It is kept only until it is looked at.
#[derive(Debug, Clone)]
pub(super) struct Presented(Arc<Mutex<Option<Secret>>>);

impl Presented {
    /// Takes the token of the request that opened `socket`.
    pub(super) fn of(socket: &SocketRef) -> Option<Secret> {
        let Self(token) = socket.req_parts().extensions.get::<Self>()?;
        token.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the library answers, or a refusal.
type Answer<B> = Response<Either<B, Full<Bytes>>>;
type Unify<B, E> = fn(Result<Response<B>, E>) -> Result<Answer<B>, E>;

impl<S, B, R> Service<Request<B>> for SlimService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Answer<R>;
    type Error = S::Error;
    type Future = future::Either<Map<S::Future, Unify<R, S::Error>>, Ready<Result<Answer<R>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let unify: Unify<R, S::Error> = |answer| answer.map(|response| response.map(Either::Left));
        if !request.uri().path().starts_with("/socket.io/") {
            return future::Either::Left(self.inner.call(request).map(unify));
        }
        if self.origins.read().admits(request.headers(), request.uri()).is_err() {
            // Behind no socket there is the one who answers such requests.
            *request.uri_mut() = elsewhere(request.uri());
            return future::Either::Left(self.inner.call(request).map(unify));
        }
        let begun = match self.begin(&request) {
            Ok(begun) => begun,
            Err((reason, wait)) => return future::Either::Right(future::ready(Ok(refusal(reason, wait)))),
        };
        self.carriers.note(&mut request);
        let (mut parts, body) = request.into_parts();
        // Before the library, which may log what it is asked for.
        let token = bearer::take(&mut parts.headers, &mut parts.uri);
        if let Some(token) = token.filter(|_| carriers::sid(&parts.uri).is_none()) {
            parts.extensions.insert(Presented(Arc::new(Mutex::new(Some(token)))));
        }
        let slim = slim(parts, begun);
        let count: Unify<R, S::Error> = |answer| answer.map(counted);
        future::Either::Left(self.inner.call(Request::from_parts(slim, body)).map(count))
    }
}

/// The page of the server that `uri` asks for: who judges it has to see the same name.
fn elsewhere(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).unwrap_or_default()
}

fn refusal<B>(reason: Reason, wait: Duration) -> Answer<B> {
    met(reason);
    if let Some(times) = NOTICE.due() {
        tracing::warn!(reason = reason.label(), times, "a session was refused: a limit is reached");
    }
    let mut response = Response::new(Either::Right(Full::from(reason.problem())));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s(wait)));
    response
}

/// An answer of the library, which refuses what is too long by itself.
fn counted<B>(response: Response<B>) -> Answer<B> {
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        met(Reason::TooLarge);
    }
    response.map(Either::Left)
}

fn slim(mut parts: Parts, begun: Option<Arc<Begun>>) -> Parts {
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
    if let Some(token) = parts.extensions.remove::<Presented>() {
        extensions.insert(token);
    }
    if let Some(begun) = begun {
        extensions.insert(begun);
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
        let slim = slim(request.into_parts().0, None);
        assert_eq!(slim.uri, USUAL);
        assert_eq!(slim.headers.len(), 1);
        assert_eq!(slim.headers[header::SEC_WEBSOCKET_KEY], "abc");
        assert!(slim.extensions.is_empty());
    }

    #[test]
    fn a_slim_request_is_for_what_the_client_asked_for() {
        for uri in [USUAL, "/socket.io/?EIO=4&transport=polling&sid=a", "/socket.io/"] {
            let request = Request::builder().uri(uri).body(()).expect("a request");
            assert_eq!(slim(request.into_parts().0, None).uri, uri);
        }
    }
}

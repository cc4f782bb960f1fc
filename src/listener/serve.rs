//! Serving: each connection's requests, with that connection's kill switch and the address that they come from.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Map;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::Oneshot;
use tower::{Service, ServiceExt as _};

use super::deadline;
use super::door::Door;
use super::{Connection, KillSwitch, Listener};
use crate::config::settings::Limits;
use crate::limits::address::Address;
use crate::limits::{Notice, Reason, met};
use crate::metrics;

/// What hyper has room for without being told; more or fewer cost an allocation for each request.
const USUAL_HEADERS: usize = 100;

/// From where a request comes: the client's address, as far as proxies can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Who it is.
    pub address: Address,
    /// Whether a proxy brought it, so that its connection is not the client's own.
    pub is_proxied: bool,
}

/// Serves `service` until `stop` is cancelled and the requests that were open then are answered.
pub async fn serve<S, B>(listener: Listener, service: S, stop: CancellationToken)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let connections = TaskTracker::new();
    let notice = Arc::new(Notice::default());
    loop {
        let (connection, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let service = OneConnection {
            service: service.clone(),
            kill: connection.kill_switch(),
            peer,
            door: listener.door.clone(),
            notice: notice.clone(),
        };
        connections.spawn(serve_one(http(&listener.door.limits()), connection, service, stop.clone()));
    }
    // Nobody is to wait for being accepted by a server that goes away.
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // The first request has a deadline of its own, at the door.
    http.timer(TokioTimer::new()).header_read_timeout(limits.keep_alive.max(limits.connect_timeout));
    http.max_header_size(limits.header_bytes);
    if limits.headers != USUAL_HEADERS {
        http.max_headers(limits.headers);
    }
    http
}

async fn serve_one<S, B>(
    http: http1::Builder,
    connection: Connection,
    service: OneConnection<S>,
    stop: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let (peer, kill) = (service.peer, service.kill.clone());
    let mut served = pin!(http.serve_connection(TokioIo::new(connection), service).with_upgrades());
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        count(&error, &kill);
        tracing::trace!(%peer, %error, "a connection ended");
    }
}

/// Counts what hyper refuses by itself, before there is a request. Whoever ended the connection has counted why.
fn count(error: &hyper::Error, kill: &KillSwitch) {
    if error.is_parse_too_large() {
        met(Reason::TooLarge);
    } else if error.is_parse() {
        metrics::rejected("invalid");
    } else if error.is_timeout() {
        // A head that began and does not end, or none at all.
        met(if kill.is_spoken_to() { Reason::Timeout } else { Reason::KeepAlive });
    }
}

/// The service of one connection.
#[derive(Debug, Clone)]
struct OneConnection<S> {
    service: S,
    kill: KillSwitch,
    peer: SocketAddr,
    door: Arc<Door>,
    notice: Arc<Notice>,
}

impl<S> OneConnection<S> {
    fn origin<B>(&self, request: &Request<B>) -> Origin {
        let (peer, proxies) = (self.peer.ip(), self.door.proxies());
        if proxies.is_unheard(peer, request.headers())
            && let Some(times) = self.notice.due()
        {
            tracing::warn!(
                %peer,
                times,
                "requests came through a proxy that http.trusted_proxies does not name: its clients count as one"
            );
        }
        let client = proxies.client(peer, request.headers());
        Origin { address: client.into(), is_proxied: client != peer }
    }
}

type Unify<B> = fn(Result<Response<B>, Infallible>) -> Result<Response, Infallible>;

impl<S, B> hyper::service::Service<Request<Incoming>> for OneConnection<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Map<Oneshot<S, Request<Body>>, Unify<B>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.kill.begin_request();
        let origin = self.origin(&request);
        let timeout = self.door.limits().body_timeout;
        let mut request = request.map(|body| deadline::within(body, timeout));
        request.extensions_mut().insert(self.kill.clone());
        request.extensions_mut().insert(origin);
        let unify: Unify<B> = |answer| answer.map(|response| response.map(Body::new));
        self.service.clone().oneshot(request).map(unify)
    }
}

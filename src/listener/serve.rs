//! Serving: gives every request of a connection that connection's kill switch and address.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use axum::response::Response;
use axum::serve::IncomingStream;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Map;
use http::Request;
use tower::Service;

use super::{KillSwitch, Listener};

/// Makes a service for each connection out of one for all.
#[derive(Debug, Clone)]
pub struct PerConnection<S>(S);

impl<S> PerConnection<S> {
    /// Requests go to `service`.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: Clone> Service<IncomingStream<'_, Listener>> for PerConnection<S> {
    type Response = OneConnection<S>;
    type Error = Infallible;
    type Future = Ready<Result<OneConnection<S>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, Listener>) -> Self::Future {
        let (kill, peer) = (stream.io().kill_switch(), *stream.remote_addr());
        ready(Ok(OneConnection { service: self.0.clone(), kill, peer }))
    }
}

/// The service of one connection.
#[derive(Debug, Clone)]
pub struct OneConnection<S> {
    service: S,
    kill: KillSwitch,
    peer: SocketAddr,
}

type Unify<B> = fn(Result<Response<B>, Infallible>) -> Result<Response, Infallible>;

impl<S, B> Service<Request<Body>> for OneConnection<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Map<S::Future, Unify<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        self.kill.begin_request();
        request.extensions_mut().insert(self.kill.clone());
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let unify: Unify<B> = |answer| answer.map(|response| response.map(Body::new));
        self.service.call(request).map(unify)
    }
}

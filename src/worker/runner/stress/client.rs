//! The connections of a stress test: HTTP/1.1, kept alive, the last used one first.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::allow::Allow;
use super::config::{Config, Expected};
use super::metrics::{Ended, Metrics};
use super::target::Target;
use crate::tls::distrust;

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

/// Sends requests and measures them.
pub(super) struct Client {
    request: Request<Full<Bytes>>,
    addresses: Vec<SocketAddr>,
    encryption: Option<(TlsConnector, ServerName<'static>)>,
    expected: Expected,
    keep_alive: bool,
    /// A request takes this long at most.
    pub(super) timeout: Duration,
    // The last used one is the first to be used again, so that no more are open than needed.
    idle: Mutex<Vec<Connection>>,
    pub(super) metrics: Metrics,
}

/// Why a request had no answer.
struct Failed {
    ended: Ended,
    reason: String,
}

impl Failed {
    fn broken(e: &hyper::Error) -> Self {
        Self { ended: Ended::Broken, reason: e.to_string() }
    }
}

/// Finds the addresses of the target that `allow` lets it have; `localhost` has only those of this machine. They hold
/// for the whole test: a name that leads elsewhere meanwhile is not followed.
pub(super) async fn resolve(target: &Target, allow: &Allow) -> io::Result<Vec<SocketAddr>> {
    let found = lookup_host((target.host.as_str(), target.port)).await?;
    let only_loopback = target.host == "localhost";
    let found: Vec<_> = found.filter(|a| !only_loopback || a.ip().is_loopback()).collect();
    let Some(first) = found.first() else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no address for it"));
    };
    let permitted = |a: &&SocketAddr| allow.permits_address(&target.host, target.port, a.ip());
    let addresses: Vec<_> = found.iter().filter(permitted).copied().collect();
    if addresses.is_empty() {
        let text = format!("it leads to {}, which stress.allow does not name", first.ip());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(addresses)
}

impl Client {
    /// A client that sends what `config` says to `addresses`, in a test that begins at `start`.
    pub(super) fn new(config: &Config, addresses: Vec<SocketAddr>, start: Instant) -> Arc<Self> {
        let mut request = Request::new(Full::new(config.body.clone()));
        *request.method_mut() = config.method.clone();
        *request.uri_mut() = Uri::from(config.target.path.clone());
        *request.headers_mut() = config.headers.clone();
        let encryption = config.encryption.clone();
        Arc::new(Self {
            request,
            addresses,
            encryption: encryption.map(|e| (TlsConnector::from(Arc::new(e.client)), e.name)),
            expected: config.expected.clone(),
            keep_alive: config.keep_alive,
            timeout: config.timeout,
            idle: Mutex::default(),
            metrics: Metrics::new(start + config.warm_up, start + config.load.schedule().duration()),
        })
    }

    /// Says what is wrong with the server's certificate, if anything is: no load would ever tell more.
    pub(super) async fn distrusts(&self) -> Option<String> {
        self.encryption.as_ref()?;
        match timeout(self.timeout, self.open()).await {
            Ok(Err(Failed { ended: Ended::Distrusted, reason })) => Some(reason),
            Ok(Ok(connection)) => {
                self.keep(connection);
                None
            }
            // The load will tell.
            _ => None,
        }
    }

    /// Sends one request that is due at `intended` and has begun in the metrics; how it ended is there, too.
    pub(super) async fn request(&self, intended: Instant) -> Ended {
        let sent = Instant::now();
        let (ended, reason) = match timeout(self.timeout, self.exchange()).await {
            Ok(Ok(answered @ Ended::Answered { status, .. })) => (answered, Some(format!("status {status}"))),
            Ok(Ok(ended)) => (ended, None),
            Ok(Err(failed)) => (failed.ended, Some(failed.reason)),
            Err(_) => (Ended::TimedOut, Some(format!("no answer within {:?}", self.timeout))),
        };
        self.metrics.end(intended, sent, ended, reason);
        ended
    }

    async fn exchange(&self) -> Result<Ended, Failed> {
        loop {
            let (mut connection, is_fresh) = self.connection().await?;
            let answer = match connection.sender.try_send_request(self.request.clone()).await {
                Ok(answer) => answer,
                Err(mut e) => {
                    // The server closed a connection that was idle, and never saw the request.
                    if e.take_message().is_some() && !is_fresh {
                        continue;
                    }
                    return Err(Failed::broken(e.error()));
                }
            };
            let status = answer.status().as_u16();
            let mut body = answer.into_body();
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| Failed::broken(&e))?;
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            if self.keep_alive {
                self.keep(connection);
            }
            return Ok(Ended::Answered { status, bytes, as_expected: self.expected.covers(status) });
        }
    }

    fn keep(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// A connection that is ready, and whether it was opened just now.
    async fn connection(&self) -> Result<(Connection, bool), Failed> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = idle else { break };
            if connection.sender.ready().await.is_ok() {
                return Ok((connection, false));
            }
        }
        Ok((self.open().await?, true))
    }

    async fn open(&self) -> Result<Connection, Failed> {
        let not_connected = |e: io::Error| Failed { ended: Ended::NotConnected, reason: e.to_string() };
        let stream = dial(&self.addresses).await.map_err(not_connected)?;
        let Some((connector, name)) = &self.encryption else { return speak(stream).await };
        let stream = connector.connect(name.clone(), stream).await.map_err(|e| match distrust(&e) {
            Some(reason) => Failed { ended: Ended::Distrusted, reason },
            None => Failed { ended: Ended::NotEncrypted, reason: e.to_string() },
        })?;
        speak(stream).await
    }
}

/// A connection that sends what it is given at once: else the kernel holds a request back until the last one's bytes were
/// acknowledged, 40 ms where the other side delays that.
async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addresses).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// HTTP on `stream`.
async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Connection, Failed> {
    let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|e| Failed::broken(&e))?;
    // How a connection ends, its request tells.
    let driver = tokio::spawn(async move { drop(driver.await) });
    Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_request_waits_for_the_bytes_of_the_last_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = dial(&[listener.local_addr().unwrap()]).await.unwrap();
        assert!(stream.nodelay().unwrap());
    }
}

//! Keys that an identity provider publishes: fetched, kept, and fetched anew when they are old, or when a token names
//! one that is not among them.
//!
//! The keys that were fetched last hold for as long as newer ones cannot be had. One task asks the provider; whoever
//! sends tokens with made-up names of keys, and whoever hangs up meanwhile, only wakes it, and cannot have the provider
//! asked more often than once in [`AGAIN_AFTER`].

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::keys::{Key, KeyError, set};
use crate::config::settings;
use crate::tls::{Trust, TrustError};

/// The longest set that is read.
const MAX_BYTES: usize = 1024 * 1024;
/// How long the provider may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to be connected.
const CONNECT: Duration = Duration::from_secs(3);
/// The setting that names certificates.
const CA_FILE: &str = "jwks_ca_file";
/// The least pause between two questions.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The keys of one address.
pub(super) struct Remote {
    uri: Uri,
    refresh: Duration,
    // The certificates that it is trusted by, as PEM, if they are named.
    trusted: Option<Vec<u8>>,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    keys: RwLock<Option<Arc<[Key]>>>,
    begun: AtomicBool,
    // Somebody wants newer keys.
    wanted: Arc<Notify>,
    asked: watch::Sender<Asked>,
}

/// When the provider was asked last, and why there was no answer.
#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    fault: Option<String>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Remote {
    /// The keys at the address of `settings`, if it names one. Nothing is asked yet.
    pub(super) fn of(settings: &settings::Auth) -> Result<Option<Arc<Self>>, KeyError> {
        let Some(url) = &settings.jwks_url else { return Ok(None) };
        let wrong = |reason: String| KeyError::Content { key: "jwks_url", place: url.clone(), reason };
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
        let trusted = settings.jwks_ca_file.as_deref().map(read).transpose()?;
        let tls = match (&settings.jwks_ca_file, &trusted) {
            (Some(file), Some(pem)) => Trust::Pem(pem).client().map_err(|error| {
                let place = file.display().to_string();
                KeyError::Content { key: CA_FILE, place, reason: error.to_string() }
            })?,
            _ if uri.scheme_str() == Some("https") => {
                Trust::System.client().map_err(|error| match error {
                    TrustError::NoRoots => wrong(format!("{error}; name some with auth.jwks_ca_file")),
                    error => wrong(error.to_string()),
                })?
            }
            _ => Trust::Nobody.client().map_err(|error| wrong(error.to_string()))?,
        };
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Some(Arc::new(Self {
            uri,
            refresh: settings.jwks_refresh,
            trusted,
            client: Client::builder(TokioExecutor::new()).build(connector),
            keys: RwLock::default(),
            begun: AtomicBool::new(false),
            wanted: Arc::default(),
            asked: watch::Sender::default(),
        })))
    }

    /// The one that is to be asked from now on: `before`, where nothing about it has changed; else this one, and what was
    /// fetched from the same address holds until it has answered itself.
    pub(super) fn in_place_of(self: Arc<Self>, before: &Arc<Self>) -> Arc<Self> {
        let has_moved = self.uri != before.uri;
        if !has_moved && self.refresh == before.refresh && self.trusted == before.trusted {
            return before.clone();
        }
        if !has_moved {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = before.keys();
        }
        self
    }

    /// The keys that were fetched last; none if there never were any.
    pub(super) fn keys(&self) -> Option<Arc<[Key]>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the keys fetched, unless that was just done; the fault of the last try, if it failed.
    pub(super) async fn look_again(&self) -> Option<String> {
        let (began, mut asked) = (Instant::now(), self.asked.subscribe());
        let is_new = asked.borrow_and_update().at.is_some_and(|at| at.elapsed() < AGAIN_AFTER);
        if !is_new {
            self.wanted.notify_one();
            // Whoever comes while it is asked takes that answer.
            let answered = asked.wait_for(|asked| asked.at.is_some_and(|at| at >= began));
            if timeout(PATIENCE + CONNECT, answered).await.is_err() {
                return Some("nobody has fetched them yet".to_owned());
            }
        }
        self.asked.borrow().fault.clone()
    }

    /// Asks the provider.
    async fn ask(&self) {
        let fetched = timeout(PATIENCE, self.fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
        let fault = match fetched {
            Ok(keys) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.into());
                None
            }
            Err(fault) => Some(fault),
        };
        // Each fault once, not each time.
        let is_told = self.asked.borrow().fault == fault;
        if let Some(fault) = fault.as_ref().filter(|_| !is_told) {
            tracing::warn!(url = %self.uri, fault, "the keys of tokens could not be fetched; the last ones hold");
        }
        self.asked.send_replace(Asked { at: Some(Instant::now()), fault });
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let mut request = Request::new(Empty::new());
        request.uri_mut().clone_from(&self.uri);
        let json = HeaderValue::from_static("application/jwk-set+json, application/json");
        request.headers_mut().insert(ACCEPT, json);
        let response = self.client.request(request).await.map_err(|error| reason(&error))?;
        if !response.status().is_success() {
            return Err(format!("it answered with {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(|error| format!("its answer cannot be read: {error}"))?;
        set(&body.to_bytes())
    }

    /// Whether nobody keeps the keys fresh yet; from now on somebody does.
    pub(super) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::AcqRel)
    }

    /// Keeps the keys fresh for as long as somebody has them, and asks when somebody wants newer ones.
    pub(super) async fn run(remote: Weak<Self>) {
        while let Some(remote_now) = remote.upgrade() {
            remote_now.ask().await;
            let wanted = remote_now.wanted.clone();
            // Those who came meanwhile have their answer.
            let _ = wanted.notified().now_or_never();
            let is_fetched = remote_now.asked.borrow().fault.is_none();
            let until = Instant::now() + if is_fetched { remote_now.refresh } else { AGAIN_AFTER };
            drop(remote_now);
            sleep(AGAIN_AFTER).await;
            let _ = timeout_at(until, wanted.notified()).await;
        }
    }
}

/// The network's own words stand at the end of the chain.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn read(file: &Path) -> Result<Vec<u8>, KeyError> {
    let told = |error: std::io::Error| KeyError::File {
        key: CA_FILE,
        file: file.to_owned(),
        reason: error.to_string(),
    };
    std::fs::read(file).map_err(told)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn whoever_hangs_up_has_nobody_asked_again() {
        let provider = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/keys", provider.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        // It takes what is asked and never answers.
        let silent = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((socket, _)) = provider.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                open.push(socket);
            }
        });
        let settings = settings::Auth { jwks_url: Some(url), ..settings::Auth::default() };
        let remote = Remote::of(&settings).expect("an address").expect("it is named");
        let task = tokio::spawn(Remote::run(Arc::downgrade(&remote)));
        for _ in 0..40 {
            let left = timeout(Duration::from_millis(10), remote.look_again()).await;
            assert!(left.is_err(), "there is no answer");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let fault = remote.look_again().await.expect("there never was an answer");
        assert!(fault.contains("no answer"), "{fault}");
        task.abort();
        silent.abort();
    }
}

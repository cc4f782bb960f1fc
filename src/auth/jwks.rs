//! Keys that an identity provider publishes: fetched, kept, and fetched anew when they are old, or when a token names
//! one that is not among them.
//!
//! The keys that were fetched last hold for as long as newer ones cannot be had. Whoever sends tokens with made-up names
//! of keys cannot have the provider asked more often than once in [`AGAIN_AFTER`].

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

use super::keys::{Key, KeyError, set};
use crate::config::settings;

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
    // When it was asked last, and why there was no answer.
    asked: tokio::sync::Mutex<Asked>,
}

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
        let roots = match (&settings.jwks_ca_file, &trusted) {
            (Some(file), Some(pem)) => from_pem(file, pem)?,
            _ if uri.scheme_str() == Some("https") => of_the_system().map_err(wrong)?,
            _ => RootCertStore::empty(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
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
            asked: tokio::sync::Mutex::default(),
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

    /// Fetches the keys, unless that was just done; the fault of the last try, if it failed.
    pub(super) async fn look_again(&self) -> Option<String> {
        // Whoever comes while somebody asks waits for that answer.
        let mut asked = self.asked.lock().await;
        if asked.at.is_none_or(|at| at.elapsed() >= AGAIN_AFTER) {
            let fetched = tokio::time::timeout(PATIENCE, self.fetch()).await;
            let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
            let fault = match fetched {
                Ok(keys) => {
                    *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.into());
                    None
                }
                Err(fault) => Some(fault),
            };
            // Each fault once, not each time.
            if let Some(fault) = fault.as_ref().filter(|fault| asked.fault.as_ref() != Some(*fault)) {
                tracing::warn!(url = %self.uri, fault, "the keys of tokens could not be fetched; the last ones hold");
            }
            *asked = Asked { at: Some(Instant::now()), fault };
        }
        asked.fault.clone()
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

    /// Keeps the keys fresh for as long as somebody has them.
    pub(super) async fn run(remote: Weak<Self>) {
        while let Some(remote_now) = remote.upgrade() {
            let fault = remote_now.look_again().await;
            let pause = if fault.is_some() { AGAIN_AFTER } else { remote_now.refresh };
            drop(remote_now);
            tokio::time::sleep(pause).await;
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

fn from_pem(file: &Path, pem: &[u8]) -> Result<RootCertStore, KeyError> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    if roots.add_parsable_certificates(certificates).0 == 0 {
        let reason = "expected certificates as PEM".to_owned();
        return Err(KeyError::Content { key: CA_FILE, place: file.display().to_string(), reason });
    }
    Ok(roots)
}

fn of_the_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    if roots.add_parsable_certificates(found.certs).0 == 0 {
        return Err("this system has no certificates to trust; name some with auth.jwks_ca_file".to_owned());
    }
    Ok(roots)
}

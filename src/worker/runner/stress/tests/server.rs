//! A server of our own, which counts what it sees.

use std::future::pending;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

/// How the server treats a request.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    Answers(&'static str),
    /// Answers the first requests of a connection, then closes it without saying so.
    Closes,
    /// From so long after the first request on it does nothing at all for so long, then goes on.
    Stalls {
        after: Duration,
        time: Duration,
    },
    Never,
}

/// A request as it was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// When, after the first one.
    pub(super) at: Duration,
    /// The line and the headers.
    pub(super) head: Vec<String>,
    pub(super) body: Vec<u8>,
}

#[derive(Default)]
struct State {
    first: Option<Instant>,
    connections: usize,
    seen: Vec<Seen>,
}

pub(super) struct Server {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }
}

pub(super) async fn serve(manner: Manner) -> Server {
    start(manner, None).await
}

/// One that speaks TLS.
pub(super) async fn serve_tls(manner: Manner, certificates: &Certificates) -> Server {
    start(manner, Some(certificates.acceptor())).await
}

async fn start(manner: Manner, tls: Option<TlsAcceptor>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://localhost:{}/path", listener.local_addr().unwrap().port());
    let state = Arc::new(Mutex::new(State::default()));
    let shared = Arc::clone(&state);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let (state, tls) = (Arc::clone(&shared), tls.clone());
            state.lock().unwrap().connections += 1;
            tokio::spawn(async move {
                match tls {
                    None => answer(stream, manner, &state).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer(stream, manner, &state).await;
                        }
                    }
                }
            });
        }
    });
    Server { url, state }
}

async fn answer(stream: impl AsyncRead + AsyncWrite, manner: Manner, state: &Mutex<State>) {
    let (read, mut write) = tokio::io::split(stream);
    let mut read = Box::pin(BufReader::new(read));
    let (mut head, mut line) = (Vec::new(), String::new());
    let mut answered = 0;
    while read.read_line(&mut line).await.is_ok_and(|n| n > 0) {
        if !line.trim_end().is_empty() {
            head.push(std::mem::take(&mut line).trim_end().to_owned());
            continue;
        }
        line.clear();
        let mut length = head
            .iter()
            .filter_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.next().unwrap_or(0)];
        if read.read_exact(&mut body).await.is_err() {
            return;
        }
        let now = Instant::now();
        let first = {
            let mut state = state.lock().unwrap();
            let first = *state.first.get_or_insert(now);
            state.seen.push(Seen { at: now - first, head: std::mem::take(&mut head), body });
            first
        };
        let status = match manner {
            Manner::Never => pending().await,
            Manner::Answers(status) => status,
            Manner::Closes => "200 OK",
            Manner::Stalls { after, time } => {
                if now >= first + after {
                    sleep_until(first + after + time).await;
                }
                "200 OK"
            }
        };
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi");
        if write.write_all(text.as_bytes()).await.is_err() || write.flush().await.is_err() {
            return;
        }
        answered += 1;
        if matches!(manner, Manner::Closes) && answered == 3 {
            return;
        }
    }
}

/// An authority of our own, and a certificate that it signed.
pub(super) struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    /// For `name`, such as `DNS:localhost`.
    pub(super) fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |file: &str| directory.path().join(file).display().to_string();
        std::fs::write(at("ext"), format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n")).unwrap();
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(&format!(
            "req -x509 -days 2 -subj /CN=authority {new} -keyout {} -out {}",
            at("ca.key"),
            at("ca.pem")
        ));
        openssl(&format!("req -subj /CN=server {new} -keyout {} -out {}", at("key"), at("csr")));
        let (ca, key) = (at("ca.pem"), at("ca.key"));
        openssl(&format!(
            "x509 -req -days 2 -in {} -CA {ca} -CAkey {key} -CAcreateserial -extfile {} -out {}",
            at("csr"),
            at("ext"),
            at("pem")
        ));
        Self { directory }
    }

    /// The authority, as PEM.
    pub(super) fn authority(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("ca.pem")).unwrap()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_file(self.directory.path().join("pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.directory.path().join("key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn openssl(args: &str) {
    let output = Command::new("openssl").args(args.split(' ')).output().expect("openssl is there");
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
}

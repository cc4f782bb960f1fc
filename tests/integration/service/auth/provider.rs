//! Keys that an identity provider publishes, over http and https: fetched, rotated, and kept while it is away.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::super::certificates::Certificates;
use super::forge::{jwk, named, private_key, public_pem, signed};
use super::{Server, Site, code, http, token_of, wait_until, with_secret};

/// An identity provider: what it answers, and how often it was asked.
struct Provider {
    url: String,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    /// One that speaks plainly.
    fn start() -> Self {
        Self::serve("http", |socket| Some(Box::new(socket)))
    }

    /// One that speaks TLS with the certificate of `files`.
    fn start_tls(files: &Certificates) -> Self {
        let config = Arc::new(files.server());
        Self::serve("https", move |socket| {
            let session = ServerConnection::new(config.clone()).expect("a session");
            Some(Box::new(StreamOwned::new(session, socket)))
        })
    }

    fn serve(scheme: &str, wrap: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("{scheme}://{}/keys", listener.local_addr().expect("an address"));
        let (answer, asked) = (Arc::new(Mutex::new(None::<String>)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (answer.clone(), asked.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
                let Some(mut stream) = wrap(socket) else { continue };
                // Who does not trust the certificate asks nothing.
                if stream.read(&mut [0; 2048]).is_ok_and(|n| n > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(text(told.lock().expect("unbroken").as_deref()).as_bytes());
                    let _ = stream.flush();
                }
            }
        });
        Self { url, answer, asked }
    }

    fn publishes(&self, keys: &[Value]) {
        self.says(&json!({ "keys": keys }).to_string());
    }

    fn says(&self, answer: &str) {
        *self.answer.lock().expect("unbroken") = Some(answer.to_owned());
    }

    fn goes_down(&self) {
        *self.answer.lock().expect("unbroken") = None;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn text(answer: Option<&str>) -> String {
    match answer {
        Some(body) => format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ),
        None => {
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
    }
}

async fn ask(server: &Server, token: &str) -> Result<Value, tidings::client::ClientError> {
    http(server, token).get::<Value>("/api/v1/stats").await
}

#[tokio::test]
async fn keys_of_a_provider_are_fetched_rotated_and_outlive_its_outages() {
    let provider = Provider::start();
    let site = Site::new(&format!("[auth]\njwks_url = \"{}\"\n", provider.url));
    let server = site.start();
    let ask = async |token: &str| ask(&server, token).await;
    let (old, new) = (private_key("rsa"), private_key("ed"));
    assert_eq!(code(ask(&named(&old, "old")).await), "auth_unavailable", "nobody can be believed yet");
    provider.publishes(&[jwk(&old, "rsa", "old"), jwk(&private_key("ec"), "ec", "other")]);
    wait_until("the keys are there", async || ask(&named(&old, "old")).await.is_ok()).await;
    assert_eq!(code(ask(&named(&old, "other")).await), "invalid_token", "a name of another key");
    // The provider rotates: the first token that names the new key has it fetched.
    provider.publishes(&[jwk(&new, "ed", "new")]);
    wait_until("the new key is there", async || ask(&named(&new, "new")).await.is_ok()).await;
    assert_eq!(code(ask(&named(&old, "old")).await), "invalid_token", "the old one is gone");
    provider.goes_down();
    let before = provider.asked();
    for n in 0..200 {
        assert_eq!(code(ask(&named(&new, &format!("made-up-{n}"))).await), "invalid_token");
    }
    let asked = provider.asked() - before;
    println!("200 tokens with made-up names of keys had the provider asked {asked} times");
    assert!(asked <= 2, "{asked}");
    ask(&named(&new, "new")).await.expect("the last keys hold");
}

#[tokio::test]
async fn a_key_without_a_name_beside_them_keeps_nobody_from_the_newest_keys() {
    let provider = Provider::start();
    let (own, old, new) = (private_key("ec"), private_key("ec"), private_key("ec"));
    let site =
        Site::new(&format!("[auth]\npublic_key_file = \"own.pem\"\njwks_url = \"{}\"\n", provider.url));
    std::fs::write(site.path("own.pem"), public_pem(&own)).expect("written");
    let server = site.start();
    let ask = async |token: &str| ask(&server, token).await;
    // The provider is away: the key at hand is enough for its own tokens, and says nothing of others.
    assert!(ask(&signed(&own)).await.is_ok() && ask(&named(&own, "any")).await.is_ok());
    assert_eq!(code(ask(&named(&old, "old")).await), "auth_unavailable");
    for (key, name) in [(&old, "old"), (&new, "new")] {
        provider.publishes(&[jwk(key, "ec", name)]);
        wait_until("the key is there", async || ask(&named(key, name)).await.is_ok()).await;
        assert!(ask(&signed(&own)).await.is_ok());
    }
    assert_eq!(code(ask(&named(&old, "new")).await), "invalid_token", "under the name of another");
}

#[tokio::test]
async fn what_is_no_set_of_keys_changes_nothing() {
    let provider = Provider::start();
    let key = private_key("ec");
    provider.publishes(&[jwk(&key, "ec", "a")]);
    let site = Site::new(&format!("[auth]\njwks_url = \"{}\"\n", provider.url));
    let server = site.start();
    let ask = async |token: &str| ask(&server, token).await;
    wait_until("the keys are there", async || ask(&named(&key, "a")).await.is_ok()).await;
    let huge = json!({ "keys": [], "padding": "x".repeat(2 << 20) }).to_string();
    for answer in ["<html>", huge.as_str()] {
        provider.says(answer);
        let before = provider.asked();
        wait_until("it is asked again", async || {
            assert_eq!(code(ask(&named(&key, "b")).await), "invalid_token");
            provider.asked() > before
        })
        .await;
        ask(&named(&key, "a")).await.expect("the last keys hold");
    }
}

/// A server that fetches its keys from `provider`, which it trusts by `ca`.
fn trusting(provider: &Provider, ca: &Path) -> (Site, Server) {
    let site =
        Site::new(&with_secret(&format!("jwks_url = \"{}\"\njwks_ca_file = \"ca.pem\"\n", provider.url)));
    std::fs::copy(ca, site.path("ca.pem")).expect("copied");
    let server = site.start().with_token(&token_of("root", &["admin"]));
    (site, server)
}

#[tokio::test]
async fn keys_come_over_tls_from_a_provider_that_the_named_authority_vouches_for() {
    let files = Certificates::of("IP:127.0.0.1");
    let provider = Provider::start_tls(&files);
    let (old, new) = (private_key("ec"), private_key("ed"));
    provider.publishes(&[jwk(&old, "ec", "old")]);
    let (_site, server) = trusting(&provider, &files.path("ca.pem"));
    let ask = async |token: &str| ask(&server, token).await;
    wait_until("the keys are there", async || ask(&named(&old, "old")).await.is_ok()).await;
    provider.publishes(&[jwk(&new, "ed", "new")]);
    wait_until("the new key is there", async || ask(&named(&new, "new")).await.is_ok()).await;
    assert_eq!(code(ask(&named(&old, "old")).await), "invalid_token", "the old one is gone");
    provider.goes_down();
    let before = provider.asked();
    wait_until("it was asked in vain", async || {
        assert_eq!(code(ask(&named(&new, "other")).await), "invalid_token");
        provider.asked() > before
    })
    .await;
    ask(&named(&new, "new")).await.expect("the last keys hold");
}

#[tokio::test]
async fn a_provider_that_another_authority_vouches_for_is_not_asked() {
    let (files, others) = (Certificates::of("IP:127.0.0.1"), Certificates::of("IP:127.0.0.1"));
    let provider = Provider::start_tls(&files);
    let key = private_key("ec");
    provider.publishes(&[jwk(&key, "ec", "a")]);
    let (site, server) = trusting(&provider, &others.path("ca.pem"));
    assert_eq!(code(ask(&server, &named(&key, "a")).await), "auth_unavailable");
    wait_until("the log says why", async || server.log().contains("certificate")).await;
    assert_eq!(provider.asked(), 0, "nothing is asked of a stranger");
    // The right authority, and the keys are fetched anew at once.
    std::fs::copy(files.path("ca.pem"), site.path("ca.pem")).expect("copied");
    server.signal(Signal::HUP);
    wait_until("the keys are there", async || ask(&server, &named(&key, "a")).await.is_ok()).await;
}

#[tokio::test]
async fn a_provider_with_the_certificate_of_another_host_is_not_asked() {
    let files = Certificates::of("DNS:id.example.org");
    let provider = Provider::start_tls(&files);
    let key = private_key("ec");
    provider.publishes(&[jwk(&key, "ec", "a")]);
    let (_site, server) = trusting(&provider, &files.path("ca.pem"));
    assert_eq!(code(ask(&server, &named(&key, "a")).await), "auth_unavailable");
    wait_until("the log says why", async || server.log().contains("certificate")).await;
    assert_eq!(provider.asked(), 0);
}

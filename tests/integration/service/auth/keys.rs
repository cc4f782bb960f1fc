//! Keys of every kind, and tokens that try to choose another one.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tidings::auth::mint::Signer;
use tidings::config::secret::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Site, claims, code, http, wait_until};

fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is there");
    child.stdin.take().expect("piped").write_all(input).expect("written");
    let output = child.wait_with_output().expect("it ran");
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

/// A new private key, as PEM.
fn private_key(kind: &str) -> Vec<u8> {
    let args: &[&str] = match kind {
        "rsa" => &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        "ec" => &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "p384" => &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        _ => &["genpkey", "-algorithm", "ed25519"],
    };
    openssl(args, b"")
}

fn public_pem(private: &[u8]) -> Vec<u8> {
    openssl(&["pkey", "-pubout"], private)
}

/// Base64 for URLs, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let all = part.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for n in 0..=part.len() {
            text.push(char::from(ALPHABET[(all >> (18 - 6 * n) & 63) as usize]));
        }
    }
    text
}

/// The public half of a key as an entry of a set.
fn jwk(private: &[u8], kind: &str, id: &str) -> Value {
    let der = openssl(&["pkey", "-pubout", "-outform", "DER"], private);
    match kind {
        "ec" => {
            let point = &der[der.len() - 64..];
            json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": base64url(&point[..32]), "y": base64url(&point[32..]) })
        }
        "rsa" => {
            let text = openssl(&["rsa", "-noout", "-modulus"], private);
            let text = String::from_utf8(text).expect("text");
            let digits = text.trim().strip_prefix("Modulus=").expect("a modulus");
            let bytes =
                (0..digits.len()).step_by(2).map(|n| u8::from_str_radix(&digits[n..n + 2], 16).expect("hex"));
            let n: Vec<u8> = bytes.collect();
            json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": id, "n": base64url(&n), "e": "AQAB" })
        }
        _ => json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64url(&der[der.len() - 32..]) }),
    }
}

fn ann() -> serde_json::Map<String, Value> {
    claims(json!({ "sub": "ann" }))
}

fn signed(private: &[u8]) -> String {
    Signer::pem(private).expect("a key").sign(&ann()).expect("signed")
}

/// A token that says of itself what `header` says, with the signature `sign` makes of its rest.
fn crafted(header: &Value, signature: &str) -> String {
    let claims = Value::Object(ann());
    format!(
        "{}.{}.{signature}",
        base64url(header.to_string().as_bytes()),
        base64url(claims.to_string().as_bytes())
    )
}

#[tokio::test]
async fn a_public_key_of_each_kind_believes_its_own_tokens_and_no_others() {
    let keys: Vec<(&str, Vec<u8>)> = ["rsa", "ec", "ed"].map(|kind| (kind, private_key(kind))).into();
    for (kind, own) in &keys {
        let site = Site::new("[auth]\npublic_key_file = \"key.pem\"\n");
        let pem = public_pem(own);
        std::fs::write(site.path("key.pem"), &pem).expect("written");
        let server = site.start();
        let ask = async |token: &str| http(&server, token).get::<Value>("/api/v1/stats").await;
        ask(&signed(own)).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
        for (_, other) in keys.iter().filter(|(other, _)| other != kind) {
            assert_eq!(code(ask(&signed(other)).await), "invalid_token", "{kind}");
        }
        assert_eq!(code(ask(&signed(&private_key(kind))).await), "invalid_token", "{kind}: another key");
        // The public key as a secret: anybody has it.
        let confused =
            Signer::secret(&Secret::new(std::str::from_utf8(&pem).expect("text"))).expect("a secret");
        assert_eq!(
            code(ask(&confused.sign(&ann()).expect("signed")).await),
            "invalid_token",
            "{kind}: confusion"
        );
        for none in ["none", "None", "NONE", "HS256", "RS256", "ES256", "EdDSA", "ES384", "PS256"] {
            let token = crafted(&json!({ "alg": none, "typ": "JWT" }), "");
            assert_eq!(code(ask(&token).await), "invalid_token", "{kind}: {none} without a signature");
        }
        let own_jwk = jwk(own, kind, "x");
        let token = crafted(&json!({ "alg": "RS256", "jwk": own_jwk, "jku": "http://127.0.0.1:1/" }), "AAAA");
        assert_eq!(code(ask(&token).await), "invalid_token", "{kind}: a token brings no key");
        let huge = crafted(&json!({ "alg": "RS256", "x": "x".repeat(9000) }), "AAAA");
        assert_eq!(code(ask(&huge).await), "invalid_token", "{kind}: huge");
    }
}

#[test]
fn a_key_that_cannot_be_used_is_told_of_with_its_place() {
    let refused = |name: &str, text: &[u8], key: &str| {
        let site = Site::new(&format!("[auth]\n{key} = \"{name}\"\n"));
        if !text.is_empty() {
            std::fs::write(site.path(name), text).expect("written");
        }
        let output = site.command(&["serve", "--listen", "127.0.0.1:0"]).output().expect("it ran");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        let mut check = super::super::tidings(&["check"]);
        let checked = check.arg("--config").arg(site.path("tidings.toml")).output().expect("it ran");
        assert_eq!(checked.status.code(), Some(64), "check sees it too");
        said
    };
    let private = private_key("ec");
    for (name, text, key, part) in [
        ("none.pem", b"".to_vec(), "public_key_file", "none.pem cannot be read"),
        ("text.pem", b"hello".to_vec(), "public_key_file", "expected one public key"),
        ("private.pem", private, "public_key_file", "this is a private key"),
        ("p384.pem", public_pem(&private_key("p384")), "public_key_file", "P-256"),
        ("set.json", b"{\"keys\":[]}".to_vec(), "jwks_file", "it is empty"),
        (
            "secret.json",
            b"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}".to_vec(),
            "jwks_file",
            "belong into auth.hs256_secret",
        ),
    ] {
        let said = refused(name, &text, key);
        assert!(said.contains(part) && said.contains(&format!("auth.{key}")), "{said}");
        assert!(!said.contains("AAAA"), "{said}");
    }
}

/// An identity provider: what it answers, and how often it was asked.
struct Provider {
    url: String,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let (answer, asked) = (Arc::new(Mutex::new(None::<String>)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (answer.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = told.lock().expect("unbroken").clone();
                tokio::spawn(answer_once(socket, answer));
            }
        });
        Self { url, answer, asked }
    }

    fn publishes(&self, keys: &[Value]) {
        *self.answer.lock().expect("unbroken") = Some(json!({ "keys": keys }).to_string());
    }

    fn goes_down(&self) {
        *self.answer.lock().expect("unbroken") = None;
    }
}

async fn answer_once(mut socket: TcpStream, answer: Option<String>) {
    let mut request = [0; 2048];
    let _ = socket.read(&mut request).await;
    let text = match answer {
        Some(body) => format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ),
        None => {
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
    };
    let _ = socket.write_all(text.as_bytes()).await;
}

fn named(private: &[u8], id: &str) -> String {
    Signer::pem(private).expect("a key").with_key_id(id).sign(&ann()).expect("signed")
}

#[tokio::test]
async fn keys_of_a_provider_are_fetched_rotated_and_outlive_its_outages() {
    let provider = Provider::start().await;
    let site = Site::new(&format!("[auth]\njwks_url = \"{}\"\n", provider.url));
    let server = site.start();
    let ask = async |token: &str| http(&server, token).get::<Value>("/api/v1/stats").await;
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
    let before = provider.asked.load(Ordering::SeqCst);
    for n in 0..200 {
        assert_eq!(code(ask(&named(&new, &format!("made-up-{n}"))).await), "invalid_token");
    }
    let asked = provider.asked.load(Ordering::SeqCst) - before;
    println!("200 tokens with made-up names of keys had the provider asked {asked} times");
    assert!(asked <= 2, "{asked}");
    ask(&named(&new, "new")).await.expect("the last keys hold");
}

#[tokio::test]
async fn what_is_no_set_of_keys_changes_nothing() {
    let provider = Provider::start().await;
    let key = private_key("ec");
    provider.publishes(&[jwk(&key, "ec", "a")]);
    let site = Site::new(&format!("[auth]\njwks_url = \"{}\"\n", provider.url));
    let server = site.start();
    let ask = async |token: &str| http(&server, token).get::<Value>("/api/v1/stats").await;
    wait_until("the keys are there", async || ask(&named(&key, "a")).await.is_ok()).await;
    let huge = json!({ "keys": [], "padding": "x".repeat(2 << 20) }).to_string();
    for answer in ["<html>", huge.as_str()] {
        *provider.answer.lock().expect("unbroken") = Some(answer.to_owned());
        let before = provider.asked.load(Ordering::SeqCst);
        wait_until("it is asked again", async || {
            assert_eq!(code(ask(&named(&key, "b")).await), "invalid_token");
            provider.asked.load(Ordering::SeqCst) > before
        })
        .await;
        ask(&named(&key, "a")).await.expect("the last keys hold");
    }
}

#[tokio::test]
async fn a_set_in_a_file_works_like_one_of_a_provider() {
    let (one, two) = (private_key("ec"), private_key("ed"));
    let site = Site::new(
        "[auth]\njwks_file = \"keys.json\"\nissuer = \"https://id.example.org\"\naudience = \"tidings\"\n",
    );
    let other = json!({ "kty": "RSA", "use": "enc", "kid": "one", "n": "AQAB", "e": "AQAB" });
    write(
        &site.path("keys.json"),
        &json!({ "keys": [other, jwk(&one, "ec", "one"), jwk(&two, "ed", "two")] }),
    );
    let server = site.start();
    let ask = async |claims: Value| {
        let token = Signer::pem(&one)
            .expect("a key")
            .with_key_id("one")
            .sign(&super::claims(claims))
            .expect("signed");
        http(&server, &token).get::<Value>("/api/v1/stats").await
    };
    let good = json!({ "iss": "https://id.example.org", "aud": ["other", "tidings"] });
    ask(good.clone()).await.expect("believed");
    let now = tidings::model::now_ms() / 1000;
    for (wrong, expected) in [
        (json!({ "iss": "https://evil.example" }), "invalid_token"),
        (json!({ "iss": null }), "invalid_token"),
        (json!({ "aud": "other" }), "invalid_token"),
        (json!({ "aud": null }), "invalid_token"),
        (json!({ "aud": 7 }), "invalid_token"),
        (json!({ "exp": null }), "invalid_token"),
        (json!({ "exp": "tomorrow" }), "invalid_token"),
        (json!({ "exp": -1 }), "invalid_token"),
        (json!({ "exp": now - 60 }), "token_expired"),
        (json!({ "nbf": now + 120 }), "token_not_yet_valid"),
        (json!({ "nbf": "later" }), "invalid_token"),
        (json!({ "sub": "a b" }), "invalid_token"),
    ] {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
        assert_eq!(code(ask(claims).await), expected, "{wrong}");
    }
    let within =
        json!({ "iss": "https://id.example.org", "aud": "tidings", "exp": now - 10, "nbf": now + 10 });
    ask(within).await.expect("within the leeway");
}

fn write(path: &Path, set: &Value) {
    std::fs::write(path, set.to_string()).expect("written");
}

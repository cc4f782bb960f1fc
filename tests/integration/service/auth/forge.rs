//! Keys made by OpenSSL, and tokens signed with them: sound ones, and ones that lie about themselves.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidings::auth::mint::Signer;

use super::claims;

pub(crate) fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
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
pub(crate) fn private_key(kind: &str) -> Vec<u8> {
    let args: &[&str] = match kind {
        "rsa" => &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        "ec" => &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "p384" => &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        _ => &["genpkey", "-algorithm", "ed25519"],
    };
    openssl(args, b"")
}

pub(crate) fn public_pem(private: &[u8]) -> Vec<u8> {
    openssl(&["pkey", "-pubout"], private)
}

/// Base64 for URLs, without padding.
pub(crate) fn base64url(bytes: &[u8]) -> String {
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
pub(crate) fn jwk(private: &[u8], kind: &str, id: &str) -> Value {
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

pub(crate) fn ann() -> serde_json::Map<String, Value> {
    claims(json!({ "sub": "ann" }))
}

pub(crate) fn signed(private: &[u8]) -> String {
    Signer::pem(private).expect("a key").sign(&ann()).expect("signed")
}

/// A token that says of itself what `header` says, with the signature `sign` makes of its rest.
pub(crate) fn crafted(header: &Value, signature: &str) -> String {
    let claims = Value::Object(ann());
    format!(
        "{}.{}.{signature}",
        base64url(header.to_string().as_bytes()),
        base64url(claims.to_string().as_bytes())
    )
}

pub(crate) fn named(private: &[u8], id: &str) -> String {
    Signer::pem(private).expect("a key").with_key_id(id).sign(&ann()).expect("signed")
}

/// A token with this head and these claims, signed by RS256 whatever the head says.
pub(crate) fn forged(private: &[u8], header: &str, claims: &Value) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let key = dir.path().join("key.pem");
    std::fs::write(&key, private).expect("written");
    let parts = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.to_string().as_bytes()));
    let args = ["dgst", "-sha256", "-sign", key.to_str().expect("a path in UTF-8")];
    format!("{parts}.{}", base64url(&openssl(&args, parts.as_bytes())))
}

//! Keys: which tokens are believed. Each key has one algorithm; what a token says of its own never chooses another.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::crypto;
use crate::config::secret::Secret;
use crate::config::settings;

type ReadPem = fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>;

/// The keys of one set; more are passed over.
const MAX_KEYS: usize = 100;

/// Why there are no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read.
    #[error("auth.{key}: {} cannot be read: {reason}", file.display())]
    File {
        /// The setting.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// It does not hold such keys.
    #[error("auth.{key}: {place}: {reason}")]
    Content {
        /// The setting.
        key: &'static str,
        /// Where: a file or an address.
        place: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// A key that signatures are checked with.
#[derive(Clone)]
pub(super) struct Key {
    /// Its name in a set; a key without one is tried for every token of its algorithm.
    pub(super) id: Option<Box<str>>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The keys that stand in the settings and in files.
pub(super) fn fixed(settings: &settings::Auth) -> Result<Arc<[Key]>, KeyError> {
    crypto::install();
    let mut keys = Vec::new();
    if let Some(secret) = &settings.hs256_secret {
        keys.push(of_secret(secret)?);
    }
    if let Some(file) = &settings.public_key_file {
        keys.push(of_pem(file)?);
    }
    if let Some(file) = &settings.jwks_file {
        let text = read("jwks_file", file)?;
        let content =
            |reason| KeyError::Content { key: "jwks_file", place: file.display().to_string(), reason };
        keys.extend(set(&text).map_err(content)?);
    }
    Ok(keys.into())
}

fn of_secret(secret: &Secret) -> Result<Key, KeyError> {
    let decoding = DecodingKey::from_secret(secret.reveal().as_bytes()).map_err(|_| KeyError::Content {
        key: "hs256_secret",
        place: "the settings".to_owned(),
        reason: "the secret is empty".to_owned(),
    })?;
    Ok(Key { id: None, algorithm: Algorithm::HS256, decoding })
}

fn of_pem(file: &Path) -> Result<Key, KeyError> {
    let pem = read("public_key_file", file)?;
    let wrong = |reason: &str| KeyError::Content {
        key: "public_key_file",
        place: file.display().to_string(),
        reason: reason.to_owned(),
    };
    if String::from_utf8_lossy(&pem).contains("PRIVATE KEY") {
        return Err(wrong("this is a private key, which belongs to the issuer alone: give its public half"));
    }
    let kinds: [(Algorithm, ReadPem); 3] = [
        (Algorithm::RS256, DecodingKey::from_rsa_pem),
        (Algorithm::ES256, DecodingKey::from_ec_pem),
        (Algorithm::EdDSA, DecodingKey::from_ed_pem),
    ];
    let found = kinds.into_iter().find_map(|(algorithm, read)| Some((algorithm, read(&pem).ok()?)));
    let (algorithm, decoding) =
        found.ok_or_else(|| wrong("expected one public key as PEM: RSA, EC on P-256, or Ed25519"))?;
    // Curves are told apart by the length of their points.
    if algorithm == Algorithm::ES256 && decoding.try_get_as_bytes().map_or(0, <[u8]>::len) != 65 {
        return Err(wrong("an EC key has to be one on the curve P-256 (prime256v1)"));
    }
    Ok(Key { id: None, algorithm, decoding })
}

/// Reads a set of keys (RFC 7517). Those that are for other uses or of other kinds are passed over; an error says
/// why none is left.
pub(super) fn set(text: &[u8]) -> Result<Vec<Key>, String> {
    crypto::install();
    let set: Value = serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no list `keys`")?;
    let mut passed = Vec::new();
    let mut taken = Vec::new();
    for key in keys.iter().take(MAX_KEYS) {
        match of_jwk(key) {
            Ok(key) => taken.push(key),
            Err(reason) => passed.push(reason),
        }
    }
    if taken.is_empty() {
        passed.dedup();
        let why = if passed.is_empty() { "it is empty".to_owned() } else { passed.join("; ") };
        return Err(format!("it has no key for RS256, ES256 or EdDSA: {why}"));
    }
    Ok(taken)
}

fn of_jwk(key: &Value) -> Result<Key, String> {
    let jwk: Jwk =
        serde_json::from_value(key.clone()).map_err(|error| format!("a key cannot be read: {error}"))?;
    let id = jwk.common.key_id.as_deref();
    let wrong = |what: &str| format!("key `{}` {what}", id.unwrap_or("without a name"));
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        // A secret in a set that others can read is none.
        AlgorithmParameters::OctetKey(_) => {
            return Err(wrong("is a secret: those belong into auth.hs256_secret"));
        }
        _ => return Err(wrong("is of another kind")),
    };
    if jwk.common.key_algorithm.is_some_and(|own| own != named) {
        return Err(wrong("is for another algorithm"));
    }
    let is_for_signatures = !matches!(&jwk.common.public_key_use, Some(other) if *other != PublicKeyUse::Signature)
        && jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    if !is_for_signatures {
        return Err(wrong("is not for signatures"));
    }
    let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| wrong("has a part that is no number"))?;
    Ok(Key { id: id.map(Into::into), algorithm, decoding })
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(file).map_err(|e| KeyError::File { key, file: file.to_owned(), reason: e.to_string() })
}

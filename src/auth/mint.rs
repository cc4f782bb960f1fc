//! Minting: makes tokens, for development and for tests. In production an identity provider does.

use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value};

use super::crypto;
use crate::config::secret::Secret;

type ReadPem = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The private key cannot be read.
    #[error("{} cannot be read: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is none.
    #[error("{} is no private key as PEM in PKCS #8: RSA, EC on P-256, or Ed25519", .0.display())]
    Key(PathBuf),
    /// The library refused.
    #[error("the token cannot be signed")]
    Sign,
}

/// A key that signs.
pub struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    key_id: Option<String>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs with HS256.
    pub fn secret(secret: &Secret) -> Result<Self, MintError> {
        crypto::install();
        let key = EncodingKey::from_secret(secret.reveal().as_bytes()).map_err(|_| MintError::Sign)?;
        Ok(Self { algorithm: Algorithm::HS256, key, key_id: None })
    }

    /// Signs with the private key in `file`, by the algorithm of its kind.
    pub fn private_key(file: &Path) -> Result<Self, MintError> {
        let pem = std::fs::read(file).map_err(|source| MintError::File { file: file.to_owned(), source })?;
        Self::pem(&pem).ok_or_else(|| MintError::Key(file.to_owned()))
    }

    /// Signs with the private key in `pem`.
    #[must_use]
    pub fn pem(pem: &[u8]) -> Option<Self> {
        crypto::install();
        let kinds: [(Algorithm, ReadPem); 3] = [
            (Algorithm::RS256, EncodingKey::from_rsa_pem),
            (Algorithm::ES256, EncodingKey::from_ec_pem),
            (Algorithm::EdDSA, EncodingKey::from_ed_pem),
        ];
        let found = kinds.into_iter().find_map(|(algorithm, read)| Some((algorithm, read(pem).ok()?)));
        found.map(|(algorithm, key)| Self { algorithm, key, key_id: None })
    }

    /// Tokens name the key `id` (`kid`).
    #[must_use]
    pub fn with_key_id(mut self, id: &str) -> Self {
        self.key_id = Some(id.to_owned());
        self
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, MintError> {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.key_id);
        encode(&header, claims, &self.key).map_err(|_| MintError::Sign)
    }
}

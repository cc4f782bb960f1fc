//! `[auth]`: which tokens are believed.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::config::secret::Secret;

/// Which tokens are believed. Without any key authentication is off.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// What both sides know: tokens are signed with HS256.
    pub hs256_secret: Option<Secret>,
    /// A PEM file with the public key: RSA (RS256), EC on P-256 (ES256) or Ed25519 (`EdDSA`).
    pub public_key_file: Option<PathBuf>,
    /// A file with a set of public keys.
    pub jwks_file: Option<PathBuf>,
    /// Where an identity provider publishes its set of public keys.
    pub jwks_url: Option<String>,
    /// The certificates, as PEM, that `jwks_url` trusts in place of the system's.
    pub jwks_ca_file: Option<PathBuf>,
    /// How old the keys of `jwks_url` may be before they are fetched anew.
    #[serde(deserialize_with = "crate::config::duration::deserialize")]
    pub jwks_refresh: Duration,
    /// Who has to have issued a token (`iss`), if that is asked.
    pub issuer: Option<String>,
    /// Whom a token has to be for (`aud`), if that is asked.
    pub audience: Option<String>,
    /// How far the clocks of this server and the issuer may be apart.
    #[serde(deserialize_with = "crate::config::duration::deserialize")]
    pub leeway: Duration,
    /// The claim that names the user; dots lead into objects.
    pub user_claim: String,
    /// The claim that lists roles.
    pub roles_claim: String,
    /// The claim that lists teams.
    pub teams_claim: String,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            hs256_secret: None,
            public_key_file: None,
            jwks_file: None,
            jwks_url: None,
            jwks_ca_file: None,
            jwks_refresh: Duration::from_mins(10),
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(30),
            user_claim: "sub".to_owned(),
            roles_claim: "roles".to_owned(),
            teams_claim: "teams".to_owned(),
        }
    }
}

impl Auth {
    /// Whether any key is set: then every caller needs a token.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let Self { hs256_secret, public_key_file, jwks_file, jwks_url, .. } = self;
        hs256_secret.is_some() || public_key_file.is_some() || jwks_file.is_some() || jwks_url.is_some()
    }
}

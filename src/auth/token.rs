//! Tokens: whether one is believed, by the keys at hand. No I/O: who fetches keys stands in `jwks`.

use std::collections::HashSet;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::AuthError;
use super::keys::Key;
use crate::config::settings;

/// The longest token, in bytes. Nobody needs more, and everybody may send one.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// What holds for every token, whatever its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    issuer: Option<String>,
    audience: Option<String>,
    leeway_s: u64,
}

/// What a token says of itself before it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl Expected {
    /// As the settings say.
    #[must_use]
    pub fn of(settings: &settings::Auth) -> Self {
        Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            leeway_s: settings.leeway.as_secs(),
        }
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway_s;
        validation.validate_nbf = true;
        let mut required = HashSet::from(["exp".to_owned()]);
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.insert("iss".to_owned());
        }
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        validation.required_spec_claims = required;
        validation
    }
}

impl Head {
    /// Reads the head of `token`, of which nothing is believed yet.
    pub fn read(token: &str) -> Result<Self, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid(format!("it has more than {MAX_TOKEN_BYTES} bytes")));
        }
        if token.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return Err(invalid("it is not three parts with dots between them"));
        }
        let header = decode_header(token).map_err(|_| {
            invalid(
                "its head cannot be read, or asks for an algorithm other than those of this server's keys",
            )
        })?;
        Ok(Self { algorithm: header.alg, key_id: header.kid })
    }

    /// The keys of `keys` that it may be signed with.
    fn candidates<'a>(&self, keys: &'a [Key]) -> impl Iterator<Item = &'a Key> {
        keys.iter().filter(|key| {
            let named = match (&self.key_id, &key.id) {
                (Some(asked), Some(own)) => **own == **asked,
                _ => true,
            };
            named && key.algorithm == self.algorithm
        })
    }

    /// Whether one of `keys` is the one that it names, or, where it names none, may have signed it.
    pub(super) fn names_one_of(&self, keys: &[Key]) -> bool {
        match &self.key_id {
            Some(asked) => keys.iter().any(|key| key.id.as_deref() == Some(asked)),
            None => self.candidates(keys).next().is_some(),
        }
    }
}

/// Why a token is not believed.
pub(super) enum Doubt {
    /// None of the keys signed it.
    Unsigned(AuthError),
    /// It is of one of the keys; another one changes nothing about that.
    Untrue(AuthError),
}

/// The claims of `token`, if one of `keys` signed it and it holds now.
pub(super) fn believe<'a>(
    token: &str,
    head: &Head,
    keys: impl Iterator<Item = &'a [Key]>,
    expected: &Expected,
) -> Result<Map<String, Value>, Doubt> {
    let mut refused =
        invalid("none of this server's keys signs with its algorithm, or has its key's name (kid)");
    for key in keys.flat_map(|keys| head.candidates(keys)) {
        match decode::<Map<String, Value>>(token, &key.decoding, &expected.validation(key.algorithm)) {
            Ok(data) => return Ok(data.claims),
            Err(error) if *error.kind() == ErrorKind::InvalidSignature => refused = refusal(error.kind()),
            Err(error) => return Err(Doubt::Untrue(refusal(error.kind()))),
        }
    }
    Err(Doubt::Unsigned(refused))
}

fn refusal(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::ExpiredSignature => AuthError::Expired,
        ErrorKind::ImmatureSignature => AuthError::NotYetValid,
        ErrorKind::InvalidSignature => invalid("its signature is not of this server's keys"),
        ErrorKind::InvalidIssuer => invalid("it is from another issuer (iss)"),
        ErrorKind::InvalidAudience => invalid("it is for another audience (aud)"),
        ErrorKind::InvalidAlgorithm => invalid("its algorithm is not that of its key"),
        ErrorKind::MissingRequiredClaim(claim) => invalid(format!("it lacks `{claim}`")),
        ErrorKind::InvalidClaimFormat(claim) => invalid(format!("its `{claim}` is not of its type")),
        // What the library says of other faults may quote the token.
        _ => invalid("it cannot be read"),
    }
}

fn invalid(what: impl Into<String>) -> AuthError {
    AuthError::Invalid(what.into())
}

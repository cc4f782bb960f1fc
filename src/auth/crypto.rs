//! The cryptography of tokens, done by ring: the library of tokens leaves the choice to its users.
//!
//! Four algorithms, one for each kind of key. What is not among them does not exist here.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::{hmac, signature as ring_signature};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // Nothing here makes key sets out of keys.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Has the library use this; again and again does no harm.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        if PROVIDER.install_default().is_err() {
            tracing::debug!("another program part chose the cryptography of tokens before");
        }
    });
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    fits(*algorithm, key.family())?;
    Ok(Box::new(Verify { algorithm: *algorithm, key: key.clone() }))
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    fits(*algorithm, key.family())?;
    Ok(Box::new(Sign { algorithm: *algorithm, key: key.clone() }))
}

fn fits(algorithm: Algorithm, family: AlgorithmFamily) -> Result<()> {
    use Algorithm::{ES256, EdDSA, HS256, RS256};
    match algorithm {
        HS256 | RS256 | ES256 | EdDSA if algorithm.family() == family => Ok(()),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

struct Verify {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for Verify {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let wrong = |_| Error::new();
        if let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() {
            let key = ring_signature::RsaPublicKeyComponents { n, e };
            return key
                .verify(&ring_signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
                .map_err(wrong);
        }
        let bytes = self.key.try_get_as_bytes().map_err(|_| Error::new())?;
        let with = |algorithm: &'static dyn ring_signature::VerificationAlgorithm| {
            ring_signature::UnparsedPublicKey::new(algorithm, bytes).verify(message, signature)
        };
        match self.algorithm {
            Algorithm::HS256 => hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, bytes), message, signature),
            Algorithm::RS256 => with(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::ES256 => with(&ring_signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::EdDSA => with(&ring_signature::ED25519),
            _ => Err(ring::error::Unspecified),
        }
        .map_err(wrong)
    }
}

impl JwtVerifier for Verify {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

struct Sign {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer<Vec<u8>> for Sign {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let (bytes, random) = (self.key.as_bytes(), SystemRandom::new());
        match self.algorithm {
            Algorithm::HS256 => {
                Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), message).as_ref().to_vec())
            }
            Algorithm::RS256 => {
                let pair = ring_signature::RsaKeyPair::from_der(bytes).map_err(|_| Error::new())?;
                let mut signature = vec![0; pair.public().modulus_len()];
                let signed = pair.sign(&ring_signature::RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.map_err(|_| Error::new())?;
                Ok(signature)
            }
            Algorithm::ES256 => {
                let algorithm = &ring_signature::ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair = ring_signature::EcdsaKeyPair::from_pkcs8(algorithm, bytes, &random)
                    .map_err(|_| Error::new())?;
                Ok(pair.sign(&random, message).map_err(|_| Error::new())?.as_ref().to_vec())
            }
            Algorithm::EdDSA => {
                // Keys as OpenSSL writes them have no public half to compare with.
                let pair = ring_signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes)
                    .map_err(|_| Error::new())?;
                Ok(pair.sign(message).as_ref().to_vec())
            }
            _ => Err(Error::new()),
        }
    }
}

impl JwtSigner for Sign {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

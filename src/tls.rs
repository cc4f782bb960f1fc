//! TLS of connections that we open: whom they trust, and what a refusal of theirs means.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust<'a> {
    /// Those that this system's authorities signed; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
    System,
    /// Those that one of these authorities signed: certificates as PEM.
    Pem(&'a [u8]),
    /// None at all.
    Nobody,
    /// Everybody's: encrypted, but nobody knows with whom.
    Anyone,
}

/// Why nobody can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("expected certificates as PEM")]
    NotPem,
    #[error("this system has no certificates to trust")]
    NoRoots,
    #[error("{0}")]
    Library(String),
}

impl Trust<'_> {
    /// How a client speaks that believes these.
    ///
    /// # Errors
    /// [`TrustError`], where there is no certificate to trust.
    pub(crate) fn client(self) -> Result<ClientConfig, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| TrustError::Library(e.to_string()))?;
        let roots = match self {
            Self::Anyone => {
                let verifier = Arc::new(BelievesAnyone(provider));
                return Ok(builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
                    .with_no_client_auth());
            }
            Self::Nobody => Arc::new(RootCertStore::empty()),
            Self::System => system_roots()?,
            Self::Pem(pem) => {
                let mut roots = RootCertStore::empty();
                let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
                if roots.add_parsable_certificates(certificates).0 == 0 {
                    return Err(TrustError::NotPem);
                }
                Arc::new(roots)
            }
        };
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// This system's authorities, read when they are first asked for and kept while this process lives: reading them takes
/// milliseconds, and whoever submits a test may ask for them.
fn system_roots() -> Result<Arc<RootCertStore>, TrustError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // What failed is tried again: they may come to be there.
    if roots.add_parsable_certificates(found.certs).0 == 0 {
        return Err(TrustError::NoRoots);
    }
    // Of two that ask at once the first one's stay.
    Ok(ROOTS.get_or_init(|| Arc::new(roots)).clone())
}

/// What is wrong with the other side's certificate, if that is why `error` came.
pub(crate) fn distrust(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(at) = cause {
        if let Some(rustls::Error::InvalidCertificate(why)) = at.downcast_ref() {
            return Some(match why {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    "its certificate was signed by an authority that is not trusted here".to_owned()
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "its certificate has expired".to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "its certificate is for another name".to_owned()
                }
                other => format!("its certificate is not valid: {other}"),
            });
        }
        // An I/O error shows what it wraps by another way than as its source.
        cause = match at.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => at.source(),
        };
    }
    None
}

/// Believes every certificate; the handshake has to be signed with its key all the same.
#[derive(Debug)]
struct BelievesAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for BelievesAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_systems_authorities_are_read_once() {
        match (system_roots(), system_roots()) {
            (Ok(first), Ok(second)) => assert!(Arc::ptr_eq(&first, &second)),
            // A machine without any says so each time.
            failed => assert_eq!(failed.0.err(), Some(TrustError::NoRoots)),
        }
    }
}

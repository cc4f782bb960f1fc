//! Certificates, made for a test.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::auth::forge::openssl;

/// An authority, and the certificate of a server that it vouches for.
pub(crate) struct Certificates(tempfile::TempDir);

impl Certificates {
    /// For a server of this name, as `IP:127.0.0.1` or `DNS:localhost`.
    pub(crate) fn of(name: &str) -> Self {
        let files = Self(tempfile::tempdir().expect("a temporary directory"));
        let at = |name: &str| files.path(name).to_str().expect("a path in UTF-8").to_owned();
        let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let ca = [
            "req",
            "-x509",
            "-days",
            "2",
            "-subj",
            "/CN=authority",
            "-keyout",
            &at("ca.key"),
            "-out",
            &at("ca.pem"),
        ];
        openssl(&[&ca[..], &new].concat(), b"");
        let request = ["req", "-subj", "/CN=server", "-keyout", &at("server.key"), "-out", &at("server.csr")];
        openssl(&[&request[..], &new].concat(), b"");
        std::fs::write(files.path("ext"), format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n"))
            .expect("written");
        let sign = [
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &at("server.csr"),
            "-CA",
            &at("ca.pem"),
            "-CAkey",
            &at("ca.key"),
        ];
        let more = ["-CAcreateserial", "-extfile", &at("ext"), "-out", &at("server.pem")];
        openssl(&[&sign[..], &more].concat(), b"");
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What a server with the certificate says.
    pub(crate) fn server(&self) -> ServerConfig {
        let certificates =
            vec![CertificateDer::from_pem_file(self.path("server.pem")).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).expect("a key");
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .expect("they belong together")
    }
}

//! Whom clients believe that they talk to their server.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;

use super::{ClientError, ServerUrl};
use crate::tls::Trust;

/// The authority that signed a server's certificate, where that is none that the system knows.
#[derive(Debug, Clone)]
pub struct Authority(Arc<ClientConfig>);

impl Authority {
    /// Reads certificates as PEM.
    ///
    /// # Errors
    /// [`ClientError::Authority`]
    pub fn read(file: &Path) -> Result<Self, ClientError> {
        let wrong = |reason: String| ClientError::Authority { file: file.display().to_string(), reason };
        let pem = std::fs::read(file).map_err(|e| wrong(e.to_string()))?;
        let config = Trust::Pem(&pem).client().map_err(|e| wrong(e.to_string()))?;
        Ok(Self(Arc::new(config)))
    }
}

/// How to speak to the server at `url`: as `authority` says, or as the system does.
pub(super) fn config(
    url: &ServerUrl,
    authority: Option<&Authority>,
) -> Result<Arc<ClientConfig>, ClientError> {
    if let Some(Authority(config)) = authority {
        if !url.is_tls() {
            // Else a token would go there for everybody to read, where somebody asked for more than that.
            let reason = "an authority (--ca, TIDINGS_CA) is for https:// only: write that, or leave it out";
            return Err(ClientError::Url { url: url.to_string(), reason: reason.to_owned() });
        }
        return Ok(Arc::clone(config));
    }
    let trust = if url.is_tls() { Trust::System } else { Trust::Nobody };
    let config = trust.client().map_err(|e| url.distrusted(e.to_string()))?;
    Ok(Arc::new(config))
}

//! JSON over HTTP/1.1 with connections that are kept.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::authority::{self, Authority};
use super::{ClientError, ServerUrl, io_reason};
use crate::model::UserId;
use crate::tls::distrust;

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// How long a request may take unless [`HttpClient::with_timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Asks a server's JSON API. Clones share their connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    url: ServerUrl,
    authorization: Option<HeaderValue>,
    user: Option<HeaderValue>,
    timeout: Duration,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpClient {
    /// A client of the server at `url` (see [`ServerUrl::parse`]). Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Url`]; also for a token that cannot stand in a header.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, ClientError> {
        Self::trusting(url, token, None)
    }

    /// The same, where `authority` signed the server's certificate.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn trusting(
        url: &str,
        token: Option<&str>,
        authority: Option<&Authority>,
    ) -> Result<Self, ClientError> {
        let url = ServerUrl::parse(url)?;
        let authorization = match token.map(|token| HeaderValue::try_from(format!("Bearer {token}"))) {
            None => None,
            Some(Ok(mut value)) => {
                value.set_sensitive(true);
                Some(value)
            }
            Some(Err(_)) => {
                let reason = "the token has characters that no token has".to_owned();
                return Err(ClientError::Url { url: url.to_string(), reason });
            }
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(authority::config(&url, authority)?.as_ref().clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { url, authorization, user: None, timeout: TIMEOUT, client })
    }

    /// The same client with another limit to how long a request may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same client in the name of `user`; believed by a server whose authentication is off.
    #[must_use]
    pub fn as_user(mut self, user: &UserId) -> Self {
        // The characters of an id may all stand in a header.
        self.user = HeaderValue::from_str(user.as_str()).ok();
        self
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Gets `path`, which begins with a slash and may have a query.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Timeout`], [`ClientError::Problem`] for every status but 2xx,
    /// [`ClientError::Json`] if the answer is not a `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None).await
    }

    /// Posts `body` as JSON. An empty answer reads as `null`.
    ///
    /// # Errors
    /// As [`Self::get`]. After [`ClientError::Timeout`] and [`ClientError::Ended`] it may have been carried out.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::json(format!("POST {path}"), &e))?;
        self.send(Method::POST, path, Some(body.into())).await
    }

    /// Deletes `path`. An empty answer reads as `null`.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::DELETE, path, None).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<T, ClientError> {
        let what = format!("{method} {path}");
        let exchange = self.exchange(method, path, body);
        let (status, body) = timeout(self.timeout, exchange)
            .await
            .map_err(|_| ClientError::Timeout { what: what.clone(), after: self.timeout })??;
        if !status.is_success() {
            return Err(problem(status, &body).unwrap_or_else(|| ClientError::Problem {
                status: status.as_u16(),
                code: format!("http_{}", status.as_u16()),
                detail: format!("{what} was answered with {status}"),
            }));
        }
        let body = if body.is_empty() { b"null" } else { &body[..] };
        serde_json::from_slice(body).map_err(|e| ClientError::json(format!("the answer to {what}"), &e))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let mut request = Request::builder().method(method).uri(self.url.http(path));
        request = request.header(ACCEPT, "application/json, application/problem+json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(user) = &self.user {
            request = request.header("x-user-id", user);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|e| ClientError::Url { url: self.url.http(path), reason: e.to_string() })?;
        let response = self.client.request(request).await.map_err(|error| self.lost(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|error| {
            let reason = if error.is::<LengthLimitError>() {
                format!("its answer is longer than {} MiB", MAX_ANSWER_BYTES >> 20)
            } else {
                error.to_string()
            };
            ClientError::Ended { reason }
        })?;
        Ok((status, body.to_bytes()))
    }

    fn lost(&self, error: &hyper_util::client::legacy::Error) -> ClientError {
        if let Some(reason) = distrust(error) {
            return self.url.distrusted(reason);
        }
        // The network's own words stand at the end of the chain.
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let reason = match cause.downcast_ref::<io::Error>() {
            Some(io) => io_reason(io),
            None => cause.to_string(),
        };
        if error.is_connect() { self.url.unreachable(reason) } else { ClientError::Ended { reason } }
    }
}

/// The problem document (RFC 9457) of a refusal; `None` if `body` is something else.
pub(super) fn problem(status: StatusCode, body: &[u8]) -> Option<ClientError> {
    #[derive(Deserialize)]
    struct Document {
        code: Option<String>,
        title: Option<String>,
        detail: Option<String>,
    }
    let document: Document = serde_json::from_slice(body).ok()?;
    let detail = document.detail.or(document.title)?;
    let code = document.code.unwrap_or_else(|| format!("http_{}", status.as_u16()));
    Some(ClientError::Problem { status: status.as_u16(), code, detail })
}

#[cfg(test)]
mod tests;

//! Request ids: each request has one, its caller's or ours, and it stands in the answer, in problems and in the log.

use axum::http::{HeaderMap, HeaderValue};
use serde::{Serialize, Serializer};
use ulid::Ulid;

use crate::model::id::is_id_char;

/// The header that carries it, both ways.
pub(super) const X_REQUEST_ID: &str = "x-request-id";
/// A longer one is replaced.
const LONGEST: usize = 128;

tokio::task_local! {
    /// That of the request which this task serves.
    static CURRENT: RequestId;
}

/// Names a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// What the caller calls it, if that is a name that may stand in logs, or else a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(X_REQUEST_ID).filter(|value| is_sane(value));
        // A ULID consists of letters and digits.
        let new = || HeaderValue::from_str(&format!("req_{}", Ulid::generate())).ok();
        Self(given.cloned().or_else(new).unwrap_or(HeaderValue::from_static("req_unknown")))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// Whatever `serve` does is done for this request.
    pub(super) async fn scope<T>(self, serve: impl Future<Output = T>) -> T {
        CURRENT.scope(self, serve).await
    }

    /// That of the request which is served now.
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn is_sane(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| (1..=LONGEST).contains(&text.len()) && text.chars().all(is_id_char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_harm_a_log_is_replaced() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_str(text).unwrap());
            RequestId::of(&headers).as_str().to_owned()
        };
        assert_eq!(of("a-1_b.c:2"), "a-1_b.c:2");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert!(of(bad).starts_with("req_"), "{bad}");
        }
        assert_ne!(of(""), of(""));
    }
}

//! The words of the routes for tests that others run (`POST /api/v1/tests` and below).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::model::test::TestError;
use crate::model::{JobId, TestId};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Register<'a> {
    /// The same again gets the same answer.
    pub(super) id: &'a str,
    pub(super) test_id: &'a TestId,
    pub(super) test_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    pub(super) lease_ms: u64,
    pub(super) started_at: i64,
    /// The attempt whose lease was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resume: Option<Registered>,
}

/// The right to speak for an attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registered {
    pub(super) job_id: JobId,
    pub(super) attempt: u32,
    pub(super) lease: String,
    #[serde(skip_serializing)]
    pub(super) lease_ms: u64,
}

/// An event as it waits in the spool and is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SpooledEvent {
    pub(super) id: String,
    pub(super) event: Cow<'static, str>,
    pub(super) data: Box<RawValue>,
}

#[derive(Debug, Serialize)]
pub(super) struct Reports<'a> {
    pub(super) attempt: u32,
    pub(super) lease: &'a str,
    pub(super) events: &'a [SpooledEvent],
}

#[derive(Debug, Deserialize)]
pub(super) struct Reported {
    #[serde(default)]
    pub(super) cancel: Option<Cancel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cancel {
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) cancelled_by: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndReport<'a> {
    pub(super) attempt: u32,
    pub(super) lease: &'a str,
    pub(super) outcome: &'static str,
    pub(super) results: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<&'a TestError>,
    pub(super) duration_ms: u64,
    pub(super) events: &'a [SpooledEvent],
}

#[derive(Debug, Deserialize)]
pub(super) struct Ended {
    pub(super) state: String,
}

//! Pauses: which part of the queue is held back, since when and by whom.

use serde::Serialize;

use super::UserId;
use super::id::{MAX_ID_LEN, check};
use super::job::{SUITE_TYPE, lane};

/// The longest name of a suite that can be paused or limited by itself, in bytes.
pub const MAX_SUITE_LEN: usize = 256;

/// A part of the queue: all of it, the jobs of one test type, or those of one suite.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Every job.
    All,
    /// The jobs of this test type, those of its suites too.
    TestType(String),
    /// The jobs of the test type `command` that run this suite.
    Suite(String),
}

impl Scope {
    /// The scope that a caller names; the error says what is wrong with it.
    pub fn named(test_type: Option<String>, suite: Option<String>) -> Result<Self, String> {
        match (test_type, suite) {
            (None, None) => Ok(Self::All),
            (Some(test_type), None) => {
                check("test type", &test_type, MAX_ID_LEN).map_err(|e| format!("testType: {e}"))?;
                Ok(Self::TestType(test_type))
            }
            (Some(test_type), Some(_)) if test_type != SUITE_TYPE => {
                Err(format!("suite: only jobs of the test type `{SUITE_TYPE}` have one"))
            }
            (_, Some(suite)) if suite.is_empty() || suite.len() > MAX_SUITE_LEN => {
                Err(format!("suite has 1 to {MAX_SUITE_LEN} bytes"))
            }
            (_, Some(suite)) => Ok(Self::Suite(suite)),
        }
    }

    /// The name under which it is stored: no test type is called `*`, and none has a slash.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::All => "*".to_owned(),
            Self::TestType(test_type) => test_type.clone(),
            Self::Suite(suite) => lane(suite),
        }
    }

    /// The scope that is stored under this name.
    #[must_use]
    pub fn from_key(key: &str) -> Self {
        match key.split_once('/') {
            Some((_, suite)) => Self::Suite(suite.to_owned()),
            None if key == "*" => Self::All,
            None => Self::TestType(key.to_owned()),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("the queue"),
            Self::TestType(test_type) => write!(f, "the test type `{test_type}`"),
            Self::Suite(suite) => write!(f, "the suite `{suite}`"),
        }
    }
}

/// A part of the queue that is held back. Neither `testType` nor `suite`: all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Only the jobs of this test type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_type: Option<String>,
    /// Only those that run this suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Since when, in ms since the Unix epoch.
    pub since: i64,
    /// Who paused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Pause {
    /// A pause of `scope`.
    #[must_use]
    pub fn new(scope: &Scope, since: i64, by: Option<UserId>, reason: Option<String>) -> Self {
        let (test_type, suite) = match scope {
            Scope::All => (None, None),
            Scope::TestType(test_type) => (Some(test_type.clone()), None),
            Scope::Suite(suite) => (Some(SUITE_TYPE.to_owned()), Some(suite.clone())),
        };
        Self { test_type, suite, since, by, reason }
    }

    /// What is held back.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match (&self.test_type, &self.suite) {
            (_, Some(suite)) => Scope::Suite(suite.clone()),
            (Some(test_type), None) => Scope::TestType(test_type.clone()),
            (None, None) => Scope::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_back_from_its_key() {
        for (test_type, suite) in
            [(None, None), (Some("stress"), None), (None, Some("a/b c")), (Some("command"), Some("unit"))]
        {
            let scope = Scope::named(test_type.map(str::to_owned), suite.map(str::to_owned)).unwrap();
            assert_eq!(Scope::from_key(&scope.key()), scope);
            assert_eq!(Pause::new(&scope, 1, None, None).scope(), scope);
        }
    }

    #[test]
    fn what_is_no_scope_is_told() {
        let named = |t: &str, s: Option<&str>| Scope::named(Some(t.to_owned()), s.map(str::to_owned));
        assert!(named("*", None).unwrap_err().contains("testType"));
        assert!(named("a/b", None).unwrap_err().contains("testType"));
        assert!(named("stress", Some("unit")).unwrap_err().contains("`command`"));
        assert!(named("command", Some("")).unwrap_err().contains("1 to 256"));
        assert!(named("command", Some(&"x".repeat(257))).unwrap_err().contains("1 to 256"));
    }
}

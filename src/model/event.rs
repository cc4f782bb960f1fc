//! Events: the names of what can happen, and where each is told.

use std::fmt;
use std::sync::Arc;

/// The longest event name in bytes.
pub const MAX_EVENT_LEN: usize = 128;

/// What happened: `test:progress`, `queue:job:added`, `custom:anything`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(value_type = String, example = "test:progress")]
pub struct EventName(Arc<str>);

super::id::text_type!(EventName);

/// Why a string is not the name of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event is 1 to {MAX_EVENT_LEN} of the characters A-Z a-z 0-9 _ . : - , not {0:?}")]
pub struct InvalidEvent(pub String);

impl EventName {
    /// Takes `s` as it is, or says what is wrong with it.
    pub fn parse(s: &str) -> Result<Self, InvalidEvent> {
        if s.is_empty() || s.len() > MAX_EVENT_LEN || !s.chars().all(super::id::is_id_char) {
            return Err(InvalidEvent(s.chars().take(MAX_EVENT_LEN).collect()));
        }
        Ok(Self(Arc::from(s)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<TestEvent> for EventName {
    fn from(event: TestEvent) -> Self {
        Self(Arc::from(event.name()))
    }
}

impl From<JobEvent> for EventName {
    fn from(event: JobEvent) -> Self {
        Self(Arc::from(event.name()))
    }
}

impl TryFrom<String> for EventName {
    type Error = InvalidEvent;
    fn try_from(s: String) -> Result<Self, InvalidEvent> {
        Self::parse(&s)
    }
}

impl From<EventName> for String {
    fn from(event: EventName) -> Self {
        event.0.to_string()
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The events of a test's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestEvent {
    /// An attempt began.
    Started,
    /// The whole state of the running attempt.
    Progress,
    /// Lines of output.
    Log,
    /// The end: passed.
    Completed,
    /// An attempt failed; the end only if it will not be retried.
    Failed,
    /// The end: somebody cancelled it.
    Cancelled,
}

impl TestEvent {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Started, Self::Progress, Self::Log, Self::Completed, Self::Failed, Self::Cancelled];

    /// The event's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "test:started",
            Self::Progress => "test:progress",
            Self::Log => "test:log",
            Self::Completed => "test:completed",
            Self::Failed => "test:failed",
            Self::Cancelled => "test:cancelled",
        }
    }

    /// The test event with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.name() == name)
    }

    /// Whether `test-updates` tells of it, and `test-history-updates` too if it ends the test.
    ///
    /// `will_retry` is what a `test:failed` says of itself.
    #[must_use]
    pub fn mirrors(self, will_retry: bool) -> &'static [&'static str] {
        match self {
            Self::Log => &[],
            Self::Started | Self::Progress => &[TEST_UPDATES],
            Self::Failed if will_retry => &[TEST_UPDATES],
            Self::Completed | Self::Failed | Self::Cancelled => &[TEST_UPDATES, TEST_HISTORY_UPDATES],
        }
    }
}

/// The events of a job's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEvent {
    /// It was submitted, or put back into the queue by hand.
    Added,
    /// A worker took it.
    Started,
    /// Its test told of its progress.
    Progress,
    /// The end: passed.
    Completed,
    /// The end: failed.
    Failed,
    /// The end: cancelled.
    Cancelled,
    /// An attempt failed and another will follow.
    Retrying,
    /// It waits as before, under another priority.
    Updated,
}

impl JobEvent {
    /// The event's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "queue:job:added",
            Self::Started => "queue:job:started",
            Self::Progress => "queue:job:progress",
            Self::Completed => "queue:job:completed",
            Self::Failed => "queue:job:failed",
            Self::Cancelled => "queue:job:cancelled",
            Self::Retrying => "queue:job:retrying",
            Self::Updated => "queue:job:updated",
        }
    }
}

/// A part of the queue is held back.
pub const QUEUE_PAUSED: &str = "queue:paused";
/// A part of the queue is not held back any more.
pub const QUEUE_RESUMED: &str = "queue:resumed";
/// The channel that carries every job event of all jobs.
pub const QUEUE_UPDATES: &str = "queue-updates";
/// The channel that carries start, progress and end of all tests.
pub const TEST_UPDATES: &str = "test-updates";
/// The channel that carries the ends of all tests.
pub const TEST_HISTORY_UPDATES: &str = "test-history-updates";

/// The channel of one test.
#[must_use]
pub fn test_progress_channel(test: &super::TestId) -> String {
    format!("test-progress-{test}")
}

/// The channel of one job.
#[must_use]
pub fn job_status_channel(job: &super::JobId) -> String {
    format!("job-status-{job}")
}

/// The channel of one stress test, with all of its metrics.
#[must_use]
pub fn stress_test_channel(test: &super::TestId) -> String {
    format!("stress-test-{test}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retried_failure_is_not_an_end() {
        assert_eq!(TestEvent::Failed.mirrors(true), [TEST_UPDATES]);
        assert_eq!(TestEvent::Failed.mirrors(false), [TEST_UPDATES, TEST_HISTORY_UPDATES]);
        assert!(TestEvent::Log.mirrors(false).is_empty());
    }

    #[test]
    fn every_test_event_is_found_by_its_name() {
        for event in TestEvent::ALL {
            assert_eq!(TestEvent::from_name(event.name()), Some(event));
        }
        assert_eq!(TestEvent::from_name("test:nonsense"), None);
    }
}

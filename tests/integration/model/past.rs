//! A channel as a naive reader understands the contract: lists, looked through from the beginning.
//!
//! Publishers, retention and joins run at the same time, so the list knows of each message and each trim when
//! it was begun and when it was answered, by a clock that only counts. What a join may have seen lies between.

use std::collections::{BTreeMap, HashMap};

use tidings::model::{Epoch, Snapshot};

use super::ops::Room;

/// A moment of the counting clock.
pub(super) type Tick = u64;

/// A stretch of time in which something happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) begin: Tick,
    pub(super) end: Tick,
}

/// What a message tells of its test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Started { attempt: u32 },
    Progress(u8),
    Log,
    Completed,
}

/// A message as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) id: String,
    /// Another one for each sending, also of the same id.
    pub(super) serial: u64,
    pub(super) key: Option<String>,
    pub(super) event: &'static str,
    pub(super) priority: u8,
    pub(super) large: bool,
    pub(super) news: Option<News>,
}

/// A message in its place.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) sent: Sent,
    /// The sendings of its id any of which may have been the first; one alone where its answer said so.
    pub(super) serials: Vec<u64>,
    pub(super) certain: bool,
    pub(super) span: Span,
}

/// The state of a test, as far as this model goes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct TestView {
    attempt: u32,
    progress: u8,
    completed: bool,
}

impl TestView {
    /// The state after `news`; none where they are refused.
    fn after(self, news: News) -> Option<Self> {
        let attempt = match news {
            News::Started { attempt } => attempt,
            _ => self.attempt.max(1),
        };
        if attempt < self.attempt || (attempt == self.attempt && self.completed) {
            return None;
        }
        let before = if attempt > self.attempt { Self { attempt, ..Self::default() } } else { self };
        Some(match news {
            News::Started { .. } | News::Log => before,
            News::Progress(progress) => Self { progress, ..before },
            News::Completed => Self { progress: 100, completed: true, ..before },
        })
    }
}

/// What a channel held under one epoch.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) room: Room,
    pub(super) epoch: Epoch,
    /// When it began.
    pub(super) begin: Tick,
    pub(super) messages: BTreeMap<u64, Stored>,
    /// Everything up to there became too old.
    pub(super) aged: Vec<(u64, Span)>,
    /// What was removed before this epoch began.
    pub(super) floor: u64,
    /// The test before the first message.
    pub(super) base: Option<TestView>,
}

impl Past {
    pub(super) fn new(room: Room, epoch: Epoch, begin: Tick, base: Option<TestView>) -> Self {
        Self { room, epoch, begin, messages: BTreeMap::new(), aged: Vec::new(), floor: 1, base }
    }

    pub(super) fn top(&self) -> u64 {
        self.messages.last_key_value().map_or(0, |(offset, _)| *offset)
    }

    /// A message that was stored although its id could still be read before it.
    pub(super) fn doubled(&self) -> Option<(u64, u64)> {
        let mut known: HashMap<&str, u64> = HashMap::new();
        self.messages.iter().find_map(|(offset, message)| {
            let first = known.insert(&message.sent.id, *offset)?;
            let oldest = self.oldest(message.span, offset - 1).1;
            (first >= oldest && !self.room.is_lossy()).then_some((first, *offset))
        })
    }

    /// The least and the greatest top that may have been read within `span`.
    pub(super) fn tops(&self, span: Span) -> (u64, u64) {
        let last = |held: &dyn Fn(&Stored) -> bool| {
            self.messages.iter().rev().find(|(_, m)| held(m)).map_or(0, |(offset, _)| *offset)
        };
        (last(&|m| m.span.end < span.begin), last(&|m| m.span.begin < span.end))
    }

    /// The least and the greatest answer to "which is the oldest message that can be read?" within `span`, in
    /// which the top was seen to be at least `top`.
    pub(super) fn oldest(&self, span: Span, top: u64) -> (u64, u64) {
        let by_size = |top: u64| (top + 1).saturating_sub(self.room.size());
        let aged = |held: &dyn Fn(Span) -> bool| {
            self.aged.iter().filter(|(_, span)| held(*span)).map(|(upto, _)| upto + 1).max().unwrap_or(1)
        };
        let top_high = self.tops(span).1.max(top);
        let low = by_size(top).max(aged(&|s| s.end < span.begin)).max(self.floor);
        let high = by_size(top_high).max(aged(&|s| s.begin < span.end)).max(self.floor);
        (low, high)
    }

    /// What has to be sent to whoever knows everything up to `after` and is to know it up to `upto`.
    pub(super) fn survey(&self, after: u64, upto: u64) -> Vec<u64> {
        let stretch: Vec<_> = self.messages.range(..=upto).filter(|(offset, _)| **offset > after).collect();
        let superseded = |at: usize| {
            let key = &stretch[at].1.sent.key;
            key.is_some() && stretch[at + 1..].iter().any(|(_, later)| later.sent.key == *key)
        };
        (0..stretch.len()).filter(|at| !superseded(*at)).map(|at| *stretch[at].0).collect()
    }

    /// The state of the test at `offset`; `None` within if nobody has told of it. An error names a message that
    /// should have been refused.
    pub(super) fn test_at(&self, offset: u64) -> Result<Option<TestView>, u64> {
        let mut view = self.base;
        for (offset, message) in self.messages.range(..=offset) {
            if let Some(news) = message.sent.news {
                view = Some(view.unwrap_or_default().after(news).ok_or(*offset)?);
            }
        }
        Ok(view)
    }

    /// Whether `news` could be refused by somebody who read the state within `span`.
    pub(super) fn may_refuse(&self, news: News, span: Span) -> Result<bool, u64> {
        let (low, high) = self.tops(span);
        for offset in low..=high {
            if self.test_at(offset)?.unwrap_or_default().after(news).is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a snapshot says what the model says.
pub(super) fn same_state(expected: Option<TestView>, snapshot: Option<&Snapshot>) -> bool {
    match (expected, snapshot) {
        (None, None) => true,
        (Some(view), Some(snapshot)) => {
            let completed = snapshot.state == tidings::model::TestState::Completed;
            (snapshot.attempt, snapshot.progress, completed)
                == (view.attempt, f64::from(view.progress), view.completed)
        }
        _ => false,
    }
}

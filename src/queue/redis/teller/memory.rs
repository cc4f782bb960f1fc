//! What was told already, to whoever is handed it once more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::model::JobId;
use crate::queue::redis::row::News;

/// How many changes are remembered. Those that are forgotten may be told twice.
const REMEMBERED: usize = 4096;

/// What a task told of.
///
/// Whoever asked Redis before a change was forgotten may be handed it again. Who asked later and is handed it, found it
/// there once more: whatever was told of it may be lost.
#[derive(Debug, Default)]
pub(super) struct Memory {
    forgot_at: HashMap<(JobId, i64), Instant>,
    order: VecDeque<(JobId, i64)>,
}

impl Memory {
    /// Whether `news`, asked for at `asked_at`, are told already.
    pub(super) fn has(&self, news: &News, asked_at: Instant) -> bool {
        !self.order.is_empty()
            && self.forgot_at.get(&news.id()).is_some_and(|forgot_at| asked_at <= *forgot_at)
    }

    /// That they may be forgotten has been sent.
    pub(super) fn add(&mut self, told: HashSet<(JobId, i64)>) {
        let now = Instant::now();
        for id in told {
            if self.forgot_at.insert(id.clone(), now).is_none() {
                self.order.push_back(id);
            }
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.forgot_at.remove(&oldest);
            }
        }
    }
}

//! Beginnings: the state of a test before its first message.
//!
//! Whether one is newer than what is stored is decided here, for the snapshot that was seen last; the script takes
//! it only if that is still the one. If not it tells what there is, and the decision is made again.

use std::sync::Arc;

use futures_util::future::join_all;

use super::append::parse;
use super::core::{BEGIN, Core, KEPT, Stored, ms};
use crate::broker::BrokerError;
use crate::model::event::test_progress_channel;
use crate::model::{ChannelName, Snapshot, now_ms};

/// How many tests begin in one call at most: others wait for no more than that.
const TOGETHER: usize = 64;

impl Core {
    pub(super) async fn begin(&self, tests: Vec<Snapshot>) -> Result<(), BrokerError> {
        let named = |test: Snapshot| {
            // A test whose channel would have too long a name has none.
            let channel = ChannelName::parse(&test_progress_channel(&test.test_id)).ok()?;
            Some((channel, Arc::new(test)))
        };
        let tests: Vec<_> = tests.into_iter().filter_map(named).collect();
        if self.redis.is_cluster() {
            // Their channels may be on different servers.
            let alone = tests.into_iter().map(|test| self.begin_in_turn(vec![test]));
            return join_all(alone).await.into_iter().collect();
        }
        self.begin_in_turn(tests).await
    }

    async fn begin_in_turn(&self, tests: Vec<(ChannelName, Arc<Snapshot>)>) -> Result<(), BrokerError> {
        let mut rest = tests;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(TOGETHER));
            let again = self.begin_together(rest).await?;
            rest = again.into_iter().chain(later).collect();
        }
        Ok(())
    }

    /// Which of them have to be decided again.
    async fn begin_together(
        &self,
        tests: Vec<(ChannelName, Arc<Snapshot>)>,
    ) -> Result<Vec<(ChannelName, Arc<Snapshot>)>, BrokerError> {
        let newer = |(channel, test): (ChannelName, Arc<Snapshot>)| {
            let known = self.snapshots.get(&channel).unwrap_or_default();
            let replaces = known.snapshot.as_ref().is_none_or(|known| test.replaces(known));
            replaces.then_some((channel, test, known.version))
        };
        let tests: Vec<_> = tests.into_iter().filter_map(newer).collect();
        if tests.is_empty() {
            return Ok(Vec::new());
        }
        let mut keys: Vec<_> = tests.iter().map(|(channel, ..)| self.key(channel, "m")).collect();
        if !self.redis.is_cluster() {
            keys.push(self.index());
        }
        let mut call = BEGIN.call(&keys);
        call.arg(now_ms()).arg(ms(KEPT)).arg(tests.len());
        for (_, test, version) in &tests {
            // A struct of strings, numbers and JSON always serialises.
            let text = serde_json::to_string(&**test).unwrap_or_default();
            call.arg(version).arg(text).arg(test.test_id.as_str()).arg(test.state.name());
        }
        let answer: Vec<(i64, String)> = self.redis.call(&call).await?;
        let mut again = Vec::new();
        for ((channel, test, before), (version, text)) in tests.into_iter().zip(answer) {
            let stored = match u64::try_from(version) {
                Err(_) => {
                    if self.redis.is_cluster() {
                        self.note(&test, before + 1, true).await?;
                    }
                    Stored { version: before + 1, snapshot: Some(test) }
                }
                Ok(version) => {
                    again.push((channel.clone(), test));
                    let snapshot = if version == 0 { None } else { Some(Arc::new(parse(&text)?)) };
                    Stored { version, snapshot }
                }
            };
            self.snapshots.put(channel, stored);
        }
        Ok(again)
    }
}

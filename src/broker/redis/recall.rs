//! Recalling: snapshots that this node has forgotten, or never knew, before messages are folded onto them.
//!
//! The script that appends stops at a snapshot that is another one than was thought, and the rest goes again. That
//! is cheap for one; of many messages for tests that were not heard of for long, each would stop it.

use std::sync::Arc;

use ::redis::cmd;
use futures_util::future::join_all;

use super::append::parse;
use super::core::{Core, Stored};
use crate::broker::{AppendGroup, BrokerError};
use crate::model::ChannelName;

impl Core {
    /// Reads what is not remembered of the tests of `groups`, if that is more than one.
    pub(super) async fn recall(&self, groups: &[AppendGroup]) -> Result<(), BrokerError> {
        let folded = groups.iter().filter(|group| group.first.fold.is_some());
        let mut unknown: Vec<&ChannelName> = folded
            .map(|group| &group.first.channel)
            .filter(|channel| self.snapshots.get(channel).is_none())
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.len() < 2 {
            return Ok(());
        }
        // One connection, so that they go together.
        let reads = unknown.iter().map(async |channel| {
            let mut command = cmd("HMGET");
            command.arg(self.key(channel, "m")).arg("version").arg("text");
            self.redis.query::<(Option<u64>, Option<String>)>(&command).await
        });
        for (channel, found) in unknown.iter().zip(join_all(reads).await) {
            if let (Some(version), Some(text)) = found? {
                let snapshot = Some(Arc::new(parse(&text)?));
                self.snapshots.put((*channel).clone(), Stored { version, snapshot });
            }
        }
        Ok(())
    }
}

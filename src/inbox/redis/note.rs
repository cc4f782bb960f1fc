//! Noting: what an appended message changes in an inbox, as a part of the script that appends it.

use serde_json::json;

use super::shard::Shards;
use crate::broker::append::Append;
use crate::config::settings::INBOX_RETENTION_ON_REDIS;
use crate::inbox::MAX_PER_USER;
use crate::inbox::news::News;
use crate::model::UserId;
use crate::redis::{Redis, RedisFault};

/// What the append script has to be told of the messages that inboxes are about. The text of the script has
/// `entry.lua` and `note.lua` before its own, and calls `inbox_note` after it gave the message its place.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    shards: Shards,
}

impl Notes {
    pub(crate) fn new(redis: Redis) -> Self {
        Self { shards: Shards::new(redis) }
    }

    /// What `append` changes in its inbox, in one word; an empty one if it is no message that inboxes are about.
    pub(crate) async fn word(&self, append: &Append) -> Result<String, RedisFault> {
        let Some(news) = News::of(append) else { return Ok(String::new()) };
        let shared = self.shards.key_for(&append.channel);
        let word = match news {
            News::Entry { user, sender } => {
                self.shards.enter(&append.channel).await?;
                let sender = sender.as_ref().map_or("", UserId::as_str);
                json!(["add", shared, user, sender, MAX_PER_USER, INBOX_RETENTION_ON_REDIS.as_millis()])
            }
            News::Recall(id) => json!(["recall", shared, id]),
        };
        Ok(word.to_string())
    }
}

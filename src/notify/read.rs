//! Reading is told: what one device of a user marked as read is so on the others at once.

use std::sync::Arc;

use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::broker::append::{Append, Draft};
use crate::broker::{AppendGroup, Broker};
use crate::config::channels::Rules;
use crate::inbox::{self, READ};
use crate::model::{ChannelName, EventName, MessageId, UserId, now_ms};

/// One message names so many at most: with the longest ids it is still far below `limits.message_bytes`.
const NAMED_AT_ONCE: usize = 100;

/// Tells in every inbox channel of `user` that carries the event that `ids` are read. Who is not told, because the
/// store is away or the server dies right now, finds it in the list of the unread.
pub(super) async fn tell(broker: &Arc<dyn Broker>, rules: &Rules, user: &UserId, ids: &[MessageId]) {
    let groups: Vec<_> = inbox::channels_of(rules, user)
        .iter()
        .flat_map(|channel| ids.chunks(NAMED_AT_ONCE).filter_map(|ids| group(rules, channel, user, ids)))
        .collect();
    if groups.is_empty() {
        return;
    }
    if let Err(error) = broker.append(groups).await {
        tracing::warn!(%error, "a user's other devices were not told what was read; they see it when they look");
    }
}

fn group(rules: &Rules, channel: &ChannelName, user: &UserId, ids: &[MessageId]) -> Option<AppendGroup> {
    let now = now_ms();
    let data: Box<RawValue> = to_raw_value(&json!({ "messageIds": ids, "readAt": now })).ok()?;
    let draft = Draft {
        id: MessageId::generate(),
        fresh: true,
        event: EventName::parse(READ).ok()?,
        priority: None,
        timestamp_ms: now,
        user_id: Some(user),
        data: &data,
        extra: &[],
    };
    let first = Append::own(rules, channel.as_str(), draft, None)?;
    Some(AppendGroup { first, mirrors: Vec::new() })
}

//! News: the messages that tell who comes and goes.

use serde_json::json;
use serde_json::value::to_raw_value;

use super::table::Change;
use crate::broker::AppendGroup;
use crate::broker::append::{Append, Draft};
use crate::config::channels::Rules;
use crate::model::{EventName, MessageId, now_ms};

/// The channel that tells who comes and goes.
pub(super) const USER_PRESENCE: &str = "user-presence";

/// The message of a change, with an id that may be `fresh`; `None` where the rules in force have no such channel.
pub(super) fn group(rules: &Rules, change: &Change, id: MessageId, fresh: bool) -> Option<AppendGroup> {
    let name = if change.online { "user:online" } else { "user:offline" };
    let data = json!({ "userId": change.user_id, "connections": change.connections });
    let data = to_raw_value(&data).ok()?;
    let draft = Draft {
        id,
        fresh,
        event: EventName::parse(name).ok()?,
        priority: None,
        timestamp_ms: now_ms(),
        user_id: Some(&change.user_id),
        data: &data,
        extra: &[],
    };
    let first = Append::own(rules, USER_PRESENCE, draft, None)?;
    Some(AppendGroup { first, mirrors: Vec::new() })
}

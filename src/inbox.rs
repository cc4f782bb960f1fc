//! The inbox: what users were notified of, and what became of it.
//!
//! This file holds the promises; [`embedded`] keeps them on one machine, [`redis`] on many. Three things about a message are kept
//! apart: whether the user has *read* it, on whatever device; whether it was *written* to a device of the user; and
//! whether a device *confirmed* that it has it.

pub mod embedded;
mod news;
pub mod redis;

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::channels::{Namespace, Rules};
use crate::fault::{Cause, Fault};
use crate::model::{ChannelName, MessageId, Position, UserId};

/// The event that becomes an entry of an inbox.
pub const NOTIFICATION: &str = "user:notification";
/// The event that takes a notification back; `data.messageId` names it.
pub const RECALLED: &str = "user:notification:recalled";
/// The event that tells what was read, on whatever device: `data.messageIds`. It changes nothing, and comes from the
/// server alone.
pub const READ: &str = "user:notification:read";
/// The placeholder of the patterns whose channels are inboxes.
pub const PLACEHOLDER: &str = "userId";
/// A user has at most so many entries; then the oldest go.
pub const MAX_PER_USER: usize = 1000;

/// Whether the channels of `namespace` are inboxes, each of the user that its name holds.
#[must_use]
pub fn is_inbox(namespace: &Namespace) -> bool {
    namespace.pattern.placeholder() == Some(PLACEHOLDER) && namespace.allows(NOTIFICATION)
}

/// The channels that are the inbox of `user` by `rules`; one, unless an operator added more.
#[must_use]
pub fn channels_of(rules: &Rules, user: &UserId) -> Vec<ChannelName> {
    let inboxes = rules.namespaces().into_iter().filter(|namespace| is_inbox(namespace));
    let placeholder = format!("{{{PLACEHOLDER}}}");
    let names = inboxes.map(|namespace| namespace.pattern.to_string().replace(&placeholder, user.as_str()));
    names.filter_map(|name| ChannelName::parse(&name).ok()).collect()
}

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The user has not read it.
    Unread,
    /// The user has read it, on some device.
    Read,
    /// Its sender took it back.
    Recalled,
}

impl Status {
    /// The status as text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Read => "read",
            Self::Recalled => "recalled",
        }
    }

    /// The status with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Unread, Self::Read, Self::Recalled].into_iter().find(|status| status.name() == name)
    }
}

/// One notification of a user.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose inbox it is in.
    pub user_id: UserId,
    /// Names the notification.
    pub id: MessageId,
    /// Where its message stands.
    pub channel: ChannelName,
    /// Its place there.
    pub position: Position,
    /// Who sent it, if the message says so.
    pub sender_id: Option<UserId>,
    /// What became of it.
    pub status: Status,
    /// The message with `status`, and `deliveredAt` and `readAt` where they are known, as JSON.
    pub json: Box<RawValue>,
}

/// A page of an inbox.
#[derive(Debug, Clone)]
pub struct InboxPage {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// How many the whole list has, exactly.
    pub total: u64,
    /// Where the next page begins, if there is more.
    pub next: Option<i64>,
}

/// Which page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageOf {
    /// Where it begins: `next` of the page before.
    pub after: Option<i64>,
    /// How many at most; at least one.
    pub limit: usize,
    /// How many bytes of messages at most, but at least one message.
    pub bytes: usize,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    /// How many were changed; the others were so already.
    pub changed: u64,
    /// How many the list still has: unread ones after reading, waiting ones after confirming.
    pub left: u64,
}

/// A message that was written to a device of its user, or was not after all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Whose inbox the message is in.
    pub user_id: UserId,
    /// Where it stands there.
    pub position: Position,
    /// It was written as it came, not later from history.
    pub live: bool,
    /// Names the device that took it: its connection, or what that became by an acknowledgement.
    pub taker: Arc<str>,
}

/// Why the inbox did not do what it was asked. Nothing was changed, unless said otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InboxError {
    /// The user has no such message.
    #[error("there is no message {0} in this inbox")]
    NotFound(MessageId),
    /// There is no room for more.
    #[error("no room for changes of the inbox: {0}")]
    Full(Cause),
    /// The store cannot be reached; it is unknown whether the change was made.
    #[error("the inbox is unavailable: {0}")]
    Unavailable(Cause),
}

impl From<Fault> for InboxError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full(cause) => Self::Full(cause),
            Fault::Unavailable(cause) => Self::Unavailable(cause),
        }
    }
}

/// The store of inboxes.
///
/// - Every [`NOTIFICATION`] that is appended to an inbox channel ([`is_inbox`]) is an unread entry from the moment
///   of the append, in one transaction with it, through whichever door it came. An id that the inbox knows is no
///   second entry, and does not become unread again.
/// - Every [`RECALLED`] makes the entry that it names recalled, in one transaction with its own append. What was
///   recalled stays so.
/// - An entry outlives the channel's history. It goes when it is older than the retention, or when its user has
///   more than [`MAX_PER_USER`].
/// - Counts are exact at the moment of the answer.
/// - An entry is *offline* while no device has taken it as it came, until it is confirmed or acknowledged. Reading
///   it or writing it to a device later does not change that.
#[async_trait]
pub trait Inbox: Send + Sync + 'static {
    /// The unread entries of `user`, oldest first.
    async fn unread(&self, user: &UserId, page: PageOf) -> Result<InboxPage, InboxError>;

    /// The offline entries of `user`, oldest first, recalled ones included. Those accepted after `on_the_way_ms`
    /// are left out: a device was there, and they may just be on their way to it.
    async fn offline(
        &self,
        user: &UserId,
        on_the_way_ms: Option<i64>,
        page: PageOf,
    ) -> Result<InboxPage, InboxError>;

    /// All entries with this id, of whichever users, at most `limit`.
    async fn find(&self, id: &MessageId, limit: usize) -> Result<Vec<Entry>, InboxError>;

    /// Marks entries of `user` as read, all or, after [`InboxError::NotFound`], none. One that was read or
    /// recalled before stays as it is.
    async fn mark_read(&self, user: &UserId, ids: Vec<MessageId>) -> Result<Marked, InboxError>;

    /// Confirms that a device of `user` has these entries, all or, after [`InboxError::NotFound`], none.
    async fn confirm(&self, user: &UserId, ids: Vec<MessageId>) -> Result<Marked, InboxError>;

    /// A device of `user` has processed everything up to and with this position of the user's inbox channel; how
    /// many entries that confirmed. A position of another epoch confirms nothing.
    async fn acknowledge(&self, user: &UserId, position: &Position) -> Result<u64, InboxError>;

    /// Messages were written to devices. Receipts for what is no entry are passed over.
    async fn delivered(&self, receipts: Vec<Receipt>) -> Result<(), InboxError>;

    /// Messages that counted as written live were not: their connection broke.
    async fn failed(&self, receipts: Vec<Receipt>) -> Result<(), InboxError>;

    /// Where the oldest entry stands that `user` has to be given on connecting, among those of `channel` that the
    /// channel's history may still have: unread ones, and offline ones that were not recalled.
    async fn waiting(&self, user: &UserId, channel: &ChannelName) -> Result<Option<Position>, InboxError>;

    /// How many entries of all users are unread.
    async fn unread_in_all(&self) -> Result<u64, InboxError>;

    /// Removes entries that are too old, a bounded amount per call; whether there is more to remove.
    async fn retain(&self) -> Result<bool, InboxError>;
}

//! Notifications: sends them, takes them back, and says where a returning device goes on.
//!
//! The inbox itself is kept by the broker's transactions ([`crate::inbox`]); what is decided here is decided for
//! HTTP and sockets alike. [`receipts`] notes what was written to whose device; `read` tells what was read.

mod read;
pub mod receipts;

use std::sync::Arc;

use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::auth::Identity;
use crate::broker::{Appended, Broker, BrokerError, PageLimit};
use crate::config::channels::Rules;
use crate::fanout::Since;
use crate::fault::Cause;
use crate::inbox::{self, Entry, Inbox, InboxError, Marked, NOTIFICATION, RECALLED};
use crate::model::{ChannelName, EventName, Incoming, MessageId, Position, Priority, UserId};
use crate::publish::{PublishError, Publisher};

/// One recall reaches so many users at most.
const RECALLED_AT_ONCE: usize = 1000;

/// A notification as its sender wants it.
#[derive(Debug, Clone)]
pub struct Notification {
    /// The sender's own id for it.
    pub id: Option<MessageId>,
    /// Its priority, if not the channel's own.
    pub priority: Option<Priority>,
    /// `title`, `body` and whatever else the receivers understand.
    pub data: Box<RawValue>,
}

/// What a recall did.
#[derive(Debug, Clone)]
pub struct Recalled {
    /// How many users' inboxes it is recalled in.
    pub inboxes: usize,
    /// Where the news of the last one stands.
    pub position: Position,
}

/// Why a notification was not recalled. Nothing was changed, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RecallError {
    /// There is no such notification, or none that the caller may know of.
    #[error("there is no message {0}")]
    NotFound(MessageId),
    /// The caller received it, and somebody else sent it.
    #[error("message {0} can be recalled by its sender or an administrator only")]
    NotSender(MessageId),
    /// The inboxes could not be read.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The news of it could not be published; some of the inboxes may have it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Sends notifications and takes them back.
#[derive(Clone)]
pub struct Notifier {
    inbox: Arc<dyn Inbox>,
    broker: Arc<dyn Broker>,
    publisher: Publisher,
    rules: Arc<Rules>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notifier")
    }
}

impl Notifier {
    /// Sends by `publisher`; what was sent is in `inbox` and in the history of `broker`.
    #[must_use]
    pub fn new(
        inbox: Arc<dyn Inbox>,
        broker: Arc<dyn Broker>,
        publisher: Publisher,
        rules: Arc<Rules>,
    ) -> Self {
        Self { inbox, broker, publisher, rules }
    }

    /// The inboxes.
    #[must_use]
    pub fn inbox(&self) -> &Arc<dyn Inbox> {
        &self.inbox
    }

    /// The channels that are the inbox of `user`.
    #[must_use]
    pub fn channels_of(&self, user: &UserId) -> Vec<ChannelName> {
        inbox::channels_of(&self.rules, user)
    }

    /// Notifies `user` in the name of `by`, who needs a role that may publish to its inbox; answered once it is durable.
    pub async fn send(
        &self,
        by: &Identity,
        user: &UserId,
        notification: Notification,
    ) -> Result<Appended, PublishError> {
        let Notification { id, priority, data } = notification;
        let channel = self.channels_of(user).into_iter().next();
        let channel =
            channel.ok_or_else(|| PublishError::UnknownChannel(format!("user-notifications-{user}")))?;
        let event = event(NOTIFICATION)?;
        let message = Incoming { id, event, channel, priority, user_id: None, data, extra: Vec::new() };
        self.publisher.publish_one(by, message).await
    }

    /// Marks messages of `user` as read, as [`Inbox::mark_read`] does, and tells it to the user's devices where
    /// that changed anything.
    pub async fn mark_read(&self, user: &UserId, ids: Vec<MessageId>) -> Result<Marked, InboxError> {
        let Self { inbox, broker, rules, .. } = self.clone();
        let user = user.clone();
        // A caller who goes away in between must not leave it untold: marked again, it changes nothing.
        let change = tokio::spawn(async move {
            let marked = inbox.mark_read(&user, ids.clone()).await?;
            if marked.changed > 0 {
                read::tell(&broker, &rules, &user, &ids).await;
            }
            Ok(marked)
        });
        change.await.unwrap_or_else(|error| Err(InboxError::Unavailable(Cause::new(error.to_string()))))
    }

    /// Takes the notification `id` back for `by`, its sender, or for an administrator if `by` is none: in every
    /// inbox that has it. A second recall changes nothing.
    pub async fn recall(&self, id: &MessageId, by: Option<&UserId>) -> Result<Recalled, RecallError> {
        let found = self.inbox.find(id, RECALLED_AT_ONCE).await?;
        let own: Vec<&Entry> =
            found.iter().filter(|entry| by.is_none() || entry.sender_id.as_ref() == by).collect();
        if own.is_empty() {
            let received = found.iter().any(|entry| Some(&entry.user_id) == by);
            return Err(if received {
                RecallError::NotSender(id.clone())
            } else {
                RecallError::NotFound(id.clone())
            });
        }
        let mut recalled = None;
        // One that is recalled already is told again under the same id, which is answered with its first place.
        for entry in &own {
            let appended = self.tell_recall(entry, by).await?;
            recalled = Some(appended.position);
        }
        let position = recalled.ok_or_else(|| RecallError::NotFound(id.clone()))?;
        Ok(Recalled { inboxes: own.len(), position })
    }

    async fn tell_recall(&self, entry: &Entry, by: Option<&UserId>) -> Result<Appended, PublishError> {
        let data = to_raw_value(&json!({ "messageId": entry.id }))
            .map_err(|error| PublishError::Invalid(error.to_string()))?;
        // An id that is too long to be extended gets a new one: then a second recall is told twice.
        let id = MessageId::parse(&format!("recall:{}", entry.id)).ok();
        let message = Incoming {
            id,
            event: event(RECALLED)?,
            channel: entry.channel.clone(),
            priority: None,
            user_id: by.cloned(),
            data,
            extra: Vec::new(),
        };
        // Who may recall is decided already, and need not be who may send.
        self.publisher.publish_one(Identity::server(), message).await
    }

    /// Where a device of `user` that connects goes on in `channel`, its inbox: before the oldest message that
    /// waits for the user and that history still has, or else with what comes after this call began.
    pub async fn catch_up(&self, user: &UserId, channel: &ChannelName) -> Result<Since, CatchUpError> {
        // Before the look at the inbox: what comes after this is sent in any case, joined or not yet.
        let top = self.broker.top(channel).await?.position;
        let Some(waiting) = self.inbox.waiting(user, channel).await? else { return Ok(Since::At(top)) };
        // History may keep less than the inbox: what it has lost waits in the lists of unread and offline messages.
        let limit = PageLimit { messages: 1, bytes: 1 };
        let page = self.broker.history(channel, waiting.offset.saturating_sub(1), limit).await?;
        let Some(first) = page.messages.first() else { return Ok(Since::At(top)) };
        let offset = first.position.offset.saturating_sub(1);
        Ok(Since::At(Position { epoch: page.epoch, offset }))
    }
}

/// Why it is not known where a device goes on.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The inbox could not be read.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// History could not be read.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

fn event(name: &str) -> Result<EventName, PublishError> {
    EventName::parse(name).map_err(|error| PublishError::Invalid(error.to_string()))
}

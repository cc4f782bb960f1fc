//! News: what an appended message is to an inbox, whoever keeps it.

use serde::Deserialize;

use super::{NOTIFICATION, PLACEHOLDER, RECALLED};
use crate::broker::append::Append;
use crate::model::{MessageId, UserId};

/// What a message changes in the inbox that its channel is.
#[derive(Debug)]
pub(crate) enum News<'a> {
    /// It is a new entry.
    Entry {
        /// Whose inbox it is.
        user: &'a str,
        /// Who sent it; if nobody is named, only an administrator can take it back.
        sender: Option<UserId>,
    },
    /// It takes the entry with this id back.
    Recall(MessageId),
}

impl<'a> News<'a> {
    /// What `append` changes, if it is a message that inboxes are about.
    pub(crate) fn of(append: &'a Append) -> Option<Self> {
        match append.event.as_str() {
            NOTIFICATION => {
                // A fault in the sender's part of the envelope was refused at the door.
                let sent: Option<Sent> = envelope(append);
                Some(Self::Entry { user: user_of(append)?, sender: sent.and_then(|sent| sent.user_id) })
            }
            RECALLED => {
                user_of(append)?;
                envelope(append).map(|Recall { data }| Self::Recall(data.message_id))
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    #[serde(default)]
    user_id: Option<UserId>,
}

#[derive(Deserialize)]
struct Recall {
    data: RecallData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecallData {
    message_id: MessageId,
}

/// The user whose inbox the message's channel is.
fn user_of(append: &Append) -> Option<&str> {
    let pattern = &append.namespace.pattern;
    if pattern.placeholder() != Some(PLACEHOLDER) {
        return None;
    }
    let channel = append.channel.as_str();
    channel.get(pattern.matches(channel)??)
}

/// Reads a part of the message's envelope, which lacks only its position and its end.
fn envelope<T: for<'de> Deserialize<'de>>(append: &Append) -> Option<T> {
    serde_json::from_str(&format!("{}}}", append.open.as_str())).ok()
}

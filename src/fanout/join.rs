//! Joining: from "register" to "live" without a gap or a duplicate.
//!
//! 1. The owner registers the subscriber, who does not listen yet. From here on the owner remembers what is
//!    published.
//! 2. The top of the channel, and the snapshot that belongs to it, are read from the store.
//! 3. The acknowledgement goes out; it names that top.
//! 4. What the receiver missed is read from history, page by page, and handed to its outbox.
//! 5. The owner lets the subscriber listen from there on, adding what it remembers of the meantime; if that is
//!    more than it remembers, step 4 goes on.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::to_raw_value;

use super::connection::Membership;
use super::owner::GoLive;
use super::{Connection, Fanout};
use crate::broker::{BrokerError, Page, PageLimit, Top};
use crate::config::channels::Batch;
use crate::metrics;
use crate::model::{ChannelName, Epoch, Position, Snapshot};

/// How much history is read at once.
const PAGE: PageLimit = PageLimit { messages: 500, bytes: 32 * 1024 };

/// What a receiver knows already.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Since {
    /// It wants only what comes.
    #[default]
    Now,
    /// Nothing: it wants everything that history has.
    Start,
    /// Everything up to here.
    At(Position),
}

/// A wish to join.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// Which channel.
    pub channel: ChannelName,
    /// What the receiver knows.
    pub since: Since,
    /// Whether it takes `message:batch`.
    pub batch: bool,
    /// Whether it wants the snapshot in any case.
    pub snapshot: bool,
}

/// The acknowledgement of a join.
#[derive(Debug, Clone, Serialize)]
pub struct JoinAck {
    /// Always true; refusals have a shape of their own.
    pub ok: bool,
    /// The channel.
    pub room: ChannelName,
    /// The epoch of the captured top.
    pub epoch: Epoch,
    /// The offset of the captured top.
    pub offset: u64,
    /// Whether everything that was missed follows.
    pub recovered: bool,
    /// How many missed messages follow.
    pub replayed: u64,
    /// The state of the test at the captured top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
}

/// Why a join failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JoinError {
    /// The store could not be read; the membership was not begun.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// A join that was acknowledged but does not listen yet.
#[derive(Debug)]
pub struct Joined {
    /// What to tell the receiver, before [`Fanout::complete_join`].
    pub ack: JoinAck,
    channel: ChannelName,
    member: Membership,
    batch: bool,
    // Everything after this is still to be handed over, up to `ack.offset`.
    cursor: Position,
    reset: Option<Reset>,
}

#[derive(Debug, Clone, Serialize)]
struct Reset {
    room: ChannelName,
    reason: &'static str,
    epoch: Epoch,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<Snapshot>,
}

impl Fanout {
    /// Steps 1 and 2. After an error the connection is no member.
    pub async fn prepare_join(
        &self,
        connection: &Arc<Connection>,
        request: JoinRequest,
    ) -> Result<Joined, JoinError> {
        let member = self.subscribe(&request.channel, connection, request.batch).await;
        match self.plan(&request, member).await {
            Ok(joined) => Ok(joined),
            Err(error) => {
                self.leave(&request.channel, connection.id()).await;
                Err(error.into())
            }
        }
    }

    async fn plan(&self, request: &JoinRequest, member: Membership) -> Result<Joined, BrokerError> {
        let JoinRequest { channel, since, batch, snapshot: wants_snapshot } = request;
        let Top { position: top, snapshot } = self.broker.top(channel).await?;
        let (cursor, lost) = match since {
            Since::Now => (top.clone(), None),
            Since::Start => self.check(channel, 0, &top).await?,
            Since::At(at) if at.epoch != top.epoch => (top.clone(), Some("epoch_changed")),
            Since::At(at) => self.check(channel, at.offset, &top).await?,
        };
        let replayed = top.offset - cursor.offset;
        let recovered = *since != Since::Now && lost.is_none();
        if *since != Since::Now {
            metrics::recovery(if recovered { "recovered" } else { "reset" }, replayed);
        }
        let shown = snapshot.clone().filter(|_| *wants_snapshot || replayed == 0);
        let reset = lost.map(|reason| Reset {
            room: channel.clone(),
            reason,
            epoch: top.epoch.clone(),
            offset: top.offset,
            snapshot,
        });
        let ack = JoinAck {
            ok: true,
            room: channel.clone(),
            epoch: top.epoch,
            offset: top.offset,
            recovered,
            replayed,
            snapshot: shown,
        };
        Ok(Joined { ack, channel: channel.clone(), member, batch: *batch, cursor, reset })
    }

    /// Whether history reaches from `offset` to `top` without a hole: the cursor to read on from, or why not.
    async fn check(
        &self,
        channel: &ChannelName,
        offset: u64,
        top: &Position,
    ) -> Result<(Position, Option<&'static str>), BrokerError> {
        if offset > top.offset {
            return Ok((top.clone(), Some("ahead_of_top")));
        }
        let cursor = Position { epoch: top.epoch.clone(), offset };
        if offset == top.offset {
            return Ok((cursor, None));
        }
        let page = self.broker.history(channel, offset, PageLimit { messages: 1, bytes: 1 }).await?;
        if continues(&page, &cursor) { Ok((cursor, None)) } else { Ok((top.clone(), Some("trimmed"))) }
    }

    /// Steps 4 and 5, after the acknowledgement was sent. Returns once the subscriber listens, or is gone: it
    /// left, its connection ended, or a later join of the channel replaced this one.
    pub async fn complete_join(
        &self,
        connection: &Arc<Connection>,
        mut joined: Joined,
    ) -> Result<(), JoinError> {
        if let Some(reset) = joined.reset.take() {
            send_reset(connection, &joined.member, &reset);
        }
        let mut target = joined.ack.offset;
        let mut confirmed = false;
        loop {
            while joined.cursor.offset < target {
                // Kept until the page was handed over.
                let _room = connection.room_for_page(&joined.member).await;
                if connection.is_closed() || joined.member.is_over() {
                    return Ok(());
                }
                self.hand_over_page(connection, &mut joined).await?;
            }
            let from = joined.cursor.clone();
            match self.go_live(&joined.channel, &joined.member, from, confirmed).await {
                GoLive::Live | GoLive::Gone => return Ok(()),
                GoLive::Behind => {}
            }
            let top = self.broker.top(&joined.channel).await?.position;
            confirmed = top.epoch == joined.cursor.epoch;
            target = top.offset.max(joined.cursor.offset);
            if !confirmed {
                self.start_over(connection, &mut joined, "epoch_changed").await?;
                target = joined.cursor.offset;
            }
        }
    }

    /// Hands the next page of history after the cursor to the outbox.
    async fn hand_over_page(
        &self,
        connection: &Arc<Connection>,
        joined: &mut Joined,
    ) -> Result<(), BrokerError> {
        let page = self.broker.history(&joined.channel, joined.cursor.offset, PAGE).await?;
        if !continues(&page, &joined.cursor) {
            // History went away under the reader.
            return self.start_over(connection, joined, "trimmed").await;
        }
        let window = self.window(&joined.channel);
        for message in &page.messages {
            connection.push(&joined.member, message, joined.batch, window);
            joined.cursor.offset = message.position.offset;
        }
        Ok(())
    }

    /// Tells the receiver to start over at the top.
    async fn start_over(
        &self,
        connection: &Arc<Connection>,
        joined: &mut Joined,
        reason: &'static str,
    ) -> Result<(), BrokerError> {
        let Top { position, snapshot } = self.broker.top(&joined.channel).await?;
        let Position { epoch, offset } = position.clone();
        let reset = Reset { room: joined.channel.clone(), reason, epoch, offset, snapshot };
        send_reset(connection, &joined.member, &reset);
        joined.cursor = position;
        Ok(())
    }

    fn window(&self, channel: &ChannelName) -> Batch {
        let resolved = self.rules.resolve(channel.as_str());
        resolved.map_or(Batch { max: 1, interval: std::time::Duration::ZERO }, |r| r.namespace.batch)
    }
}

fn send_reset(connection: &Connection, member: &Membership, reset: &Reset) {
    // A struct of strings and numbers always serialises.
    if let Ok(notice) = to_raw_value(reset) {
        connection.reset(member, &reset.room, &notice);
    }
}

/// Whether `page` goes on right after `cursor`.
fn continues(page: &Page, cursor: &Position) -> bool {
    page.epoch == cursor.epoch
        && page.messages.first().is_some_and(|first| first.position.offset == cursor.offset + 1)
}

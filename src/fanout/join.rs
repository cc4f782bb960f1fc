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
        self.subscribe(&request.channel, connection, request.batch).await;
        match self.plan(&request).await {
            Ok(joined) => Ok(joined),
            Err(error) => {
                self.leave(&request.channel, connection.id()).await;
                Err(error.into())
            }
        }
    }

    async fn plan(&self, request: &JoinRequest) -> Result<Joined, BrokerError> {
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
        Ok(Joined { ack, channel: channel.clone(), batch: *batch, cursor, reset })
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

    /// Steps 4 and 5, after the acknowledgement was sent. Returns once the subscriber listens, or is gone.
    pub async fn complete_join(&self, connection: &Arc<Connection>, joined: Joined) -> Result<(), JoinError> {
        let Joined { ack, channel, batch, mut cursor, reset } = joined;
        if let Some(reset) = reset {
            send_reset(connection, &reset);
        }
        let mut target = ack.offset;
        loop {
            while cursor.offset < target {
                connection.wait_for_room().await;
                if connection.is_closed() {
                    return Ok(());
                }
                self.hand_over_page(connection, &channel, batch, ack.offset, &mut cursor).await?;
            }
            match self.go_live(&channel, connection.id(), cursor.clone()).await {
                GoLive::Live | GoLive::Gone => return Ok(()),
                GoLive::Behind => {
                    target = self.broker.top(&channel).await?.position.offset.max(cursor.offset)
                }
            }
            self.follow_epoch(connection, &channel, &mut cursor, &mut target).await?;
        }
    }

    /// Hands the next page of history after `cursor` to the outbox. Up to `promised` the receiver was told how
    /// many come.
    async fn hand_over_page(
        &self,
        connection: &Arc<Connection>,
        channel: &ChannelName,
        batch: bool,
        promised: u64,
        cursor: &mut Position,
    ) -> Result<(), BrokerError> {
        let page = self.broker.history(channel, cursor.offset, PAGE).await?;
        if !continues(&page, cursor) {
            // History went away under the reader.
            self.start_over(connection, channel, "trimmed", cursor).await?;
            return Ok(());
        }
        let window = self.window(channel);
        for message in &page.messages {
            if message.position.offset <= promised {
                connection.replay(message, batch, window);
            } else {
                connection.push(message, batch, window);
            }
            cursor.offset = message.position.offset;
        }
        Ok(())
    }

    async fn follow_epoch(
        &self,
        connection: &Arc<Connection>,
        channel: &ChannelName,
        cursor: &mut Position,
        target: &mut u64,
    ) -> Result<(), BrokerError> {
        let top = self.broker.top(channel).await?.position;
        if top.epoch != cursor.epoch {
            self.start_over(connection, channel, "epoch_changed", cursor).await?;
            *target = cursor.offset;
        }
        Ok(())
    }

    /// Tells the receiver to start over at the top.
    async fn start_over(
        &self,
        connection: &Arc<Connection>,
        channel: &ChannelName,
        reason: &'static str,
        cursor: &mut Position,
    ) -> Result<(), BrokerError> {
        let Top { position, snapshot } = self.broker.top(channel).await?;
        let Position { epoch, offset } = position.clone();
        send_reset(connection, &Reset { room: channel.clone(), reason, epoch, offset, snapshot });
        *cursor = position;
        Ok(())
    }

    fn window(&self, channel: &ChannelName) -> Batch {
        let resolved = self.rules.resolve(channel.as_str());
        resolved.map_or(Batch { max: 1, interval: std::time::Duration::ZERO }, |r| r.namespace.batch)
    }
}

fn send_reset(connection: &Connection, reset: &Reset) {
    // A struct of strings and numbers always serialises.
    if let Ok(notice) = to_raw_value(reset) {
        connection.reset(&reset.room, &notice);
    }
}

/// Whether `page` goes on right after `cursor`.
fn continues(page: &Page, cursor: &Position) -> bool {
    page.epoch == cursor.epoch
        && page.messages.first().is_some_and(|first| first.position.offset == cursor.offset + 1)
}

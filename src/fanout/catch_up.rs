//! Catching up: brings a member from where it is to the live messages of its channel.
//!
//! The same way for a receiver that returns and for one that fell behind: history is read page by page, as
//! its outbox drains, up to a top; then the owner lets it go live, adding what it remembers of the meantime. If
//! more has happened than the owner remembers, the next round begins. Superseded messages are left out, and
//! counted for the receiver. Where history was trimmed before it was read, the connection ends: its client
//! comes back and is told to start over by the answer to its join.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::to_raw_value;

use super::channel::GoLive;
use super::outbox::Membership;
use super::{Connection, Fanout};
use crate::broker::{BrokerError, Page, Survey, Top};
use crate::config::channels::Batch;
use crate::model::{ChannelName, Epoch, Position, Snapshot};

/// A member on its way.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) connection: Arc<Connection>,
    pub(super) channel: ChannelName,
    pub(super) membership: Membership,
    /// Up to where it knows the channel.
    pub(super) cursor: Position,
}

/// `room:reset`: what follows does not continue what the receiver had.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Reset {
    /// The channel.
    pub(super) room: ChannelName,
    /// `trimmed`, `epoch_changed`, `ahead_of_top` or `gap`.
    pub(super) reason: &'static str,
    /// The epoch of what follows.
    pub(super) epoch: Epoch,
    /// What follows starts after this offset.
    pub(super) offset: u64,
    /// The state of the test at this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snapshot: Option<Snapshot>,
}

/// Why a stretch of history cannot be sent.
enum Broken {
    Broker(BrokerError),
    /// History does not reach back to the cursor any more.
    Trimmed,
    /// The channel's past is another one.
    OtherEpoch,
    /// The membership or the connection has ended.
    Gone,
}

impl From<BrokerError> for Broken {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl Fanout {
    /// Feeds a connection that fell behind in `channel` from history.
    pub(super) fn catch_up(
        self: &Arc<Self>,
        connection: Arc<Connection>,
        channel: ChannelName,
        membership: Membership,
    ) {
        let fanout = self.clone();
        self.tasks.spawn("catch-up", async move {
            let Some(cursor) = connection.known_of(&channel, membership) else { return };
            tracing::debug!(connection = ?connection.id(), %channel, %cursor, "a slow receiver reads on from history");
            let member = Member { connection: connection.clone(), channel, membership, cursor };
            if let Err(error) = fanout.bring_live(member, None).await {
                tracing::warn!(%error, "history cannot be read for a slow receiver");
                connection.give_up("history could not be read for it");
            }
        });
    }

    /// Brings a member to the live messages. `first` is the stretch that was promised to it already.
    pub(super) async fn bring_live(
        &self,
        mut member: Member,
        mut first: Option<(u64, Survey)>,
    ) -> Result<(), BrokerError> {
        let mut confirmed = false;
        loop {
            let (upto, survey) = match first.take() {
                Some(promised) => promised,
                None => {
                    let top = self.broker.top(&member.channel).await?.position;
                    if top.epoch != member.cursor.epoch {
                        self.start_over(&mut member).await?;
                        continue;
                    }
                    let survey =
                        self.broker.survey(&member.channel, member.cursor.offset, top.offset).await?;
                    (top.offset, survey)
                }
            };
            match self.send_history(&mut member, upto, &survey).await {
                Ok(()) => {}
                Err(Broken::Gone) => return Ok(()),
                Err(Broken::Broker(error)) => return Err(error),
                Err(Broken::OtherEpoch) => self.start_over(&mut member).await?,
                Err(Broken::Trimmed) if self.is_lossy(&member.channel) => {
                    // The gap in the offsets is all that is told.
                    let top = self.broker.top(&member.channel).await?.position;
                    if top.epoch == member.cursor.epoch {
                        member.cursor = top;
                    } else {
                        self.start_over(&mut member).await?;
                    }
                }
                Err(Broken::Trimmed) => {
                    // Not where it was left, or joined anew, while the page was read.
                    if member.connection.is_member(&member.channel, member.membership) {
                        member.connection.give_up("history was trimmed before it was read");
                    }
                    return Ok(());
                }
            }
            let Member { connection, channel, membership, cursor } = &member;
            // What is left of the replay has waited long enough.
            connection.hurry();
            match self.go_live(channel, connection.id(), *membership, cursor.clone(), confirmed).await {
                GoLive::Live | GoLive::Gone => return Ok(()),
                GoLive::Behind => confirmed = true,
            }
        }
    }

    /// Hands over what counts of the stretch up to offset `upto`.
    async fn send_history(&self, member: &mut Member, upto: u64, survey: &Survey) -> Result<(), Broken> {
        let window = self.window(&member.channel);
        let mut spared = 0;
        while member.cursor.offset < upto {
            let connection = member.connection.clone();
            let room = connection.room_for_page(&member.channel, member.membership).await;
            // Kept until the page was handed over.
            let Some(_room) = room else { return Err(Broken::Gone) };
            let page = self.history.page(&member.channel, &member.cursor, upto).await?;
            if page.epoch != member.cursor.epoch {
                return Err(Broken::OtherEpoch);
            }
            if !continues(&page, &member.cursor) {
                return Err(Broken::Trimmed);
            }
            for message in &page.messages {
                member.cursor.offset = message.position.offset;
                if !survey.keeps(message) {
                    spared += 1;
                    continue;
                }
                let conflated = std::mem::take(&mut spared);
                if !member.connection.resume(member.membership, message, conflated, window) {
                    return Err(Broken::Gone);
                }
            }
        }
        Ok(())
    }

    /// Tells the member to start over at the top, because its epoch has ended.
    async fn start_over(&self, member: &mut Member) -> Result<(), BrokerError> {
        let Top { position, snapshot } = self.broker.top(&member.channel).await?;
        let Position { epoch, offset } = position.clone();
        let room = member.channel.clone();
        let reset = Reset { room, reason: "epoch_changed", epoch, offset, snapshot };
        send_reset(&member.connection, member.membership, &reset);
        member.cursor = position;
        Ok(())
    }

    /// Whether the channel keeps no history, and so is lossy by declaration.
    fn is_lossy(&self, channel: &ChannelName) -> bool {
        self.rules.resolve(channel.as_str()).is_some_and(|r| r.namespace.history.size == 0)
    }

    pub(super) fn window(&self, channel: &ChannelName) -> Batch {
        let resolved = self.rules.resolve(channel.as_str());
        resolved.map_or(Batch { max: 1, interval: std::time::Duration::ZERO }, |r| r.namespace.batch)
    }
}

pub(super) fn send_reset(connection: &Arc<Connection>, membership: Membership, reset: &Reset) {
    // A struct of strings and numbers always serialises.
    if let Ok(notice) = to_raw_value(reset) {
        let position = Position { epoch: reset.epoch.clone(), offset: reset.offset };
        connection.reset(&reset.room, membership, notice, position);
    }
}

/// Whether `page` goes on right after `cursor`.
pub(super) fn continues(page: &Page, cursor: &Position) -> bool {
    page.epoch == cursor.epoch
        && page.messages.first().is_some_and(|first| first.position.offset == cursor.offset + 1)
}

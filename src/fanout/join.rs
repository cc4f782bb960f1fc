//! Joining: from "register" to "live" without a gap or a duplicate.
//!
//! 1. The owner registers the subscriber, who does not listen yet. From here on the owner remembers what is
//!    published.
//! 2. The broker is asked to tell of the channel. Then the top of the channel, and the snapshot that belongs to it, are read from the store.
//! 3. The acknowledgement goes out; it names that top.
//! 4. What the receiver missed is read from history, page by page, and handed to its outbox.
//! 5. The owner lets the subscriber listen from there on, adding what it remembers of the meantime; if that is
//!    more than it remembers, step 4 goes on.

use std::sync::Arc;

use serde::Serialize;

use super::catch_up::{Member, Reset, continues, send_reset};
use super::outbox::Membership;
use super::{Connection, Fanout};
use crate::broker::{BrokerError, PageLimit, Survey, Top};
use crate::metrics;
use crate::model::{ChannelName, Epoch, Position, Snapshot};

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
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
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
    /// After what they follow, where the receiver did not say it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Position>,
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
    membership: Membership,
    // Everything after this is still to be handed over, up to `ack.offset`, as far as `survey` keeps it.
    cursor: Position,
    survey: Survey,
    reset: Option<Reset>,
}

/// What a join amounts to, before anybody was told.
struct Plan {
    ack: JoinAck,
    cursor: Position,
    survey: Survey,
    reset: Option<Reset>,
}

impl Fanout {
    /// Steps 1 and 2. After an error the connection is no member.
    pub async fn prepare_join(
        &self,
        connection: &Arc<Connection>,
        request: JoinRequest,
    ) -> Result<Joined, JoinError> {
        let JoinRequest { channel, batch, .. } = &request;
        let membership = self.subscribe(channel, connection, *batch).await;
        let channel = channel.clone();
        let planned = match self.broker.follow(&channel).await {
            Ok(()) => self.plan(&request).await,
            Err(error) => Err(error),
        };
        match planned {
            Ok(Plan { ack, cursor, survey, reset }) => {
                connection.set_written(&channel, membership, cursor.clone());
                Ok(Joined { ack, channel, membership, cursor, survey, reset })
            }
            Err(error) => {
                self.leave(&channel, connection.id()).await;
                Err(error.into())
            }
        }
    }

    async fn plan(&self, request: &JoinRequest) -> Result<Plan, BrokerError> {
        let JoinRequest { channel, since, snapshot: wants_snapshot, .. } = request;
        let Top { position: top, snapshot } = self.broker.top(channel).await?;
        let reach = match since {
            Since::Now => Ok((top.clone(), Survey::default())),
            Since::Start => self.reach(channel, 0, &top).await?,
            Since::At(at) if at.epoch != top.epoch => Err("epoch_changed"),
            Since::At(at) => self.reach(channel, at.offset, &top).await?,
        };
        let lost = reach.as_ref().err().copied();
        let (cursor, survey) = reach.unwrap_or_else(|_| (top.clone(), Survey::default()));
        let replayed = survey.count();
        let recovered = *since != Since::Now && lost.is_none();
        if *since != Since::Now {
            metrics::recovery(recovered, replayed);
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
            since: None,
            snapshot: shown,
        };
        Ok(Plan { ack, cursor, survey, reset })
    }

    /// Whether history reaches from `offset` to `top` without a hole: the cursor to read on from and what is to
    /// be sent, or why not.
    async fn reach(
        &self,
        channel: &ChannelName,
        offset: u64,
        top: &Position,
    ) -> Result<Result<(Position, Survey), &'static str>, BrokerError> {
        if offset > top.offset {
            return Ok(Err("ahead_of_top"));
        }
        let cursor = Position { epoch: top.epoch.clone(), offset };
        if offset == top.offset {
            return Ok(Ok((cursor, Survey::default())));
        }
        // Surveyed before the look: history goes from its oldest end, so what is there now was there then, and
        // nothing of what is promised was left uncounted.
        let survey = self.broker.survey(channel, offset, top.offset).await?;
        let page = self.broker.history(channel, offset, PageLimit { messages: 1, bytes: 1 }).await?;
        Ok(if continues(&page, &cursor) { Ok((cursor, survey)) } else { Err("trimmed") })
    }

    /// [`Fanout::complete_join`] in the background. A connection whose join breaks off ends, so that its client
    /// comes back and joins again.
    pub fn finish_join(self: &Arc<Self>, connection: Arc<Connection>, joined: Joined) {
        let fanout = self.clone();
        self.tasks.spawn("join", async move {
            if let Err(error) = fanout.complete_join(&connection, joined).await {
                tracing::warn!(connection = ?connection.id(), %error, "a join broke off");
                connection.give_up("its join broke off");
            }
        });
    }

    /// Steps 4 and 5, after the acknowledgement was sent. Returns once the subscriber listens, or is gone.
    pub async fn complete_join(&self, connection: &Arc<Connection>, joined: Joined) -> Result<(), JoinError> {
        let Joined { ack, channel, membership, cursor, survey, reset } = joined;
        if let Some(reset) = reset {
            send_reset(connection, membership, &reset);
        }
        let connection = connection.clone();
        let member = Member { connection, channel, membership, cursor };
        Ok(self.bring_live(member, Some((ack.offset, survey))).await?)
    }
}

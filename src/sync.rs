//! Sync state: up to where each device of a user knows each channel.
//!
//! A device is what its user and the `clientId` that it chose name together. Its position in a channel is
//! either *acknowledged*, by `message:ack`: everything up to there was processed; or, for a device that never
//! acknowledged in that channel, *written*: everything up to there was handed to its transport, which says
//! nothing of what arrived. This file holds the promises; [`embedded`] keeps them on one machine, [`redis`] on
//! many, and [`places`] knows what a session has to save.

pub mod embedded;
pub mod places;
pub mod redis;

use async_trait::async_trait;

use crate::fault::Fault;
use crate::model::{ChannelName, Position, UserId};

/// A device: several of one user are independent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// Whose it is; none for somebody who gave no name.
    pub user_id: Option<UserId>,
    /// What it calls itself.
    pub client_id: String,
}

/// How a position came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The client said that it processed everything up to there.
    Acknowledged,
    /// Everything up to there was handed to its transport.
    Written,
}

/// The place of a device in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Up to where it knows the channel.
    pub position: Position,
    /// How that is known.
    pub basis: Basis,
}

/// A place to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Whose.
    pub device: Device,
    /// In which channel.
    pub channel: ChannelName,
    /// Where.
    pub place: Place,
}

/// The store of places.
///
/// - What was acknowledged and what was written are two places. Neither moves back within an epoch, in
///   whichever order its saves come.
/// - A place of another epoch than the channel's own, or beyond its top, is not stored: it comes from a
///   connection that outlived its channel's past.
/// - Where a device ever acknowledged in a channel, that is its place.
#[async_trait]
pub trait SyncState: Send + Sync + 'static {
    /// Where `device` is in `channel`.
    async fn load(&self, device: &Device, channel: &ChannelName) -> Result<Option<Place>, Fault>;

    /// Stores places. After an error it is unknown which were stored; the next save mends it.
    async fn save(&self, places: Vec<Saved>) -> Result<(), Fault>;

    /// Forgets places that were not saved for as long as they are kept, a bounded number per call; whether
    /// there are more.
    async fn retain(&self) -> Result<bool, Fault>;
}

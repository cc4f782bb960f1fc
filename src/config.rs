//! Configuration: what an operator decides, read and checked before anything starts.
//!
//! [`settings`] is `tidings.toml` with the environment and the command line, [`suite`] and [`schedule`] kinds of entries in it,
//! [`redis_url`], [`network`] and [`secret`] kinds of values,
//! [`channels`] is `channels.toml`, and [`report`] looks at all of it together. [`reload`] does so again while the process
//! runs, and exchanges what is [`live`].

pub mod channels;
mod duration;
pub mod live;
mod nearest;
pub mod network;
mod place;
pub mod redis_url;
pub mod reload;
pub mod report;
pub mod schedule;
pub mod secret;
pub mod settings;
pub mod suite;

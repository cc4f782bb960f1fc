//! Configuration: what an operator decides, read and checked before anything starts.
//!
//! [`settings`] is `tidings.toml` with the environment and the command line, [`suite`] one kind of entry in it, [`redis_url`] one kind of value,
//! [`channels`] is `channels.toml`, and [`report`] looks at all of it together.

pub mod channels;
mod duration;
mod nearest;
mod place;
pub mod redis_url;
pub mod report;
pub mod settings;
pub mod suite;

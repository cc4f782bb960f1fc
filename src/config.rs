//! Configuration: what an operator decides, read and checked before anything starts.
//!
//! [`settings`] is `tidings.toml` with the environment and the command line, [`suite`] one kind of entry in it,
//! [`channels`] is `channels.toml`.

pub mod channels;
mod duration;
mod nearest;
mod place;
pub mod settings;
pub mod suite;

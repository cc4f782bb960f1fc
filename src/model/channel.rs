//! Names of channels: the ordered sequences that clients subscribe to.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::id::{InvalidId, check, id_type};

/// The longest channel name in bytes: a pattern's fixed part and one placeholder.
pub const MAX_CHANNEL_LEN: usize = 256;

id_type!(
    /// Names a channel, such as `test-progress-stress_123`; the Socket.IO room has the same name.
    ChannelName,
    "channel name",
    MAX_CHANNEL_LEN
);

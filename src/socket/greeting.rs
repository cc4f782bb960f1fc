//! `connection:established`: what a client is told first.

use serde::Serialize;

use super::SocketOptions;
use crate::model::{UserId, now_ms};

/// Who the client is here, and what holds.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Greeting<'a> {
    /// Names the connection.
    connection_id: &'a str,
    /// The client's name for its device; the connection's where it gave none.
    client_id: &'a str,
    /// Who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a UserId>,
    /// When its token ends, and the connection with it, in ms since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    /// The node that holds the connection.
    node: &'a str,
    /// The server's clock, in ms since the Unix epoch.
    server_time: i64,
    /// When a silent connection ends.
    heartbeat: Heartbeat,
    /// How much the client may do.
    limits: Limits,
}

/// When a silent connection ends.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Heartbeat {
    /// How often the server asks.
    interval_ms: u64,
    /// How long it waits for the answer.
    timeout_ms: u64,
}

/// How much a connection may do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Limits {
    /// In so many rooms may it be.
    rooms_per_connection: usize,
    /// The most data that one message may carry.
    message_bytes: usize,
}

impl<'a> Greeting<'a> {
    pub(super) fn new(
        options: &'a SocketOptions,
        connection_id: &'a str,
        client_id: &'a str,
        user_id: Option<&'a UserId>,
        expires_at: Option<i64>,
    ) -> Self {
        let SocketOptions { heartbeat_interval, heartbeat_timeout, .. } = *options;
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            connection_id,
            client_id,
            user_id,
            expires_at,
            node: &options.node,
            server_time: now_ms(),
            heartbeat: Heartbeat { interval_ms: ms(heartbeat_interval), timeout_ms: ms(heartbeat_timeout) },
            limits: Limits {
                rooms_per_connection: options.rooms_per_connection,
                message_bytes: options.message_bytes,
            },
        }
    }
}

//! `connection:established`: what a client is told first.

use std::time::Duration;

use serde::Serialize;

use super::SocketOptions;
use crate::config::settings;
use crate::limits::address::Address;
use crate::limits::cap;
use crate::limits::pace::Act;
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
    /// After so long in no room and in silence it is ended.
    idle_timeout_ms: u64,
    /// In so many different rooms may all connections of the user be, where that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms_per_user: Option<u32>,
    /// So many connections may the user have, where that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_per_user: Option<u32>,
    /// So many events may it send in a second, where that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_per_second: Option<u32>,
    /// So many messages may its user, or its address, publish in a second, where that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    publishes_per_second: Option<u32>,
}

impl Limits {
    /// What holds for a client at `address`, who is a user or nobody in particular.
    pub(super) fn of(
        options: &SocketOptions,
        limits: &settings::Limits,
        address: Option<Address>,
        is_user: bool,
    ) -> Self {
        let of_user = |most: u32| Some(most).filter(|most| is_user && *most > 0);
        let usual = settings::Limits::EVENTS_PER_SECOND;
        let events = |address: Address| cap(limits.events_per_second, usual, address.is_loopback());
        Self {
            rooms_per_connection: options.rooms_per_connection,
            message_bytes: options.message_bytes,
            idle_timeout_ms: ms(limits.idle_timeout),
            rooms_per_user: of_user(limits.rooms_per_user),
            connections_per_user: of_user(limits.connections_per_user),
            events_per_second: address.and_then(events),
            publishes_per_second: address.and_then(|address| Act::Publish.most(limits, address)),
        }
    }
}

impl<'a> Greeting<'a> {
    pub(super) fn new(
        options: &'a SocketOptions,
        connection_id: &'a str,
        client_id: &'a str,
        user_id: Option<&'a UserId>,
        expires_at: Option<i64>,
        limits: Limits,
    ) -> Self {
        let SocketOptions { heartbeat_interval, heartbeat_timeout, .. } = *options;
        Self {
            connection_id,
            client_id,
            user_id,
            expires_at,
            node: &options.node,
            server_time: now_ms(),
            heartbeat: Heartbeat { interval_ms: ms(heartbeat_interval), timeout_ms: ms(heartbeat_timeout) },
            limits,
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

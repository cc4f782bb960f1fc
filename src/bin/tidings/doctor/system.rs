//! This machine: file descriptors, the backlog of the listener, clocks.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde::Deserialize;
use tidings::client::ClientError;
use tidings::client::socket::{ConnectOptions, SocketClient};
use tidings::config::settings::Settings;
use tidings::listener::BACKLOG;
use tidings::model::now_ms;

use super::Check;

/// Beside connections: the store, Redis, commands, logs.
const OTHER_DESCRIPTORS: u64 = 200;
/// A difference of clocks that shows in what people see.
const SKEW_WARNING: Duration = Duration::from_secs(2);
/// One beyond which leases and expiry go wrong.
const SKEW_FAILED: Duration = Duration::from_secs(30);
const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

pub(super) fn look(settings: &Settings) -> Vec<Check> {
    vec![descriptors(settings.limits.connections), backlog()]
}

fn descriptors(connections: usize) -> Check {
    const NAME: &str = "file descriptors";
    let needed = connections as u64 + OTHER_DESCRIPTORS;
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Check::ok(NAME, "unlimited");
    };
    let found = format!("{limit}, for limits.connections = {connections}");
    if limit >= needed {
        return Check::ok(NAME, found);
    }
    let advice = format!(
        "raise the limit to {needed} or more (LimitNOFILE= of systemd, or ulimit -n), or lower limits.connections: \
         otherwise connections fail before they are refused in good order"
    );
    Check::warning(NAME, found, advice)
}

fn backlog() -> Check {
    const NAME: &str = "listen backlog";
    let text = std::fs::read_to_string(SOMAXCONN);
    let Some(most) = text.ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
        return Check::skipped(NAME, format!("{SOMAXCONN} cannot be read"));
    };
    let found = format!("{most} (net.core.somaxconn), of which the server uses at most {BACKLOG}");
    if most >= BACKLOG {
        return Check::ok(NAME, found);
    }
    let advice = format!(
        "sysctl -w net.core.somaxconn={BACKLOG}: when everybody reconnects at once, those who find no place wait \
         seconds for the next try"
    );
    Check::warning(NAME, found, advice)
}

/// How far the clock of a running server is from this one.
pub(super) async fn clock_of(server: &str) -> Check {
    const NAME: &str = "clock of the server";
    match time_of(server).await {
        // It was read some time in between.
        Ok((asked, Some(theirs), heard)) => skew(NAME, (theirs - asked.midpoint(heard)).abs(), "the server"),
        Ok(_) => Check::skipped(NAME, "it does not say what time it has"),
        Err(error) => Check::failed(NAME, error.to_string(), "start it, or give --server its address"),
    }
}

/// When it was asked, what time it has, and when it answered, in ms since the Unix epoch.
async fn time_of(server: &str) -> Result<(i64, Option<i64>, i64), ClientError> {
    let options = ConnectOptions { token: std::env::var("TIDINGS_TOKEN").ok(), ..ConnectOptions::default() };
    let asked = now_ms();
    let mut socket = SocketClient::connect(server, options).await?;
    while let Some(event) = socket.next().await {
        let event = event?;
        if event.name == "connection:established" {
            let told = serde_json::from_str::<Established>(event.data.get()).ok();
            return Ok((asked, told.map(|told| told.server_time), now_ms()));
        }
    }
    Ok((asked, None, now_ms()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Established {
    server_time: i64,
}

/// What a difference of so many milliseconds means.
pub(super) fn skew(name: &'static str, ms: i64, other: &str) -> Check {
    let apart = Duration::from_millis(ms.unsigned_abs());
    let found = format!("{ms} ms apart from {other}");
    let advice =
        "run chrony or another NTP client on both: leases, expiry and the times that people see depend on it";
    if apart >= SKEW_FAILED {
        Check::failed(name, found, advice)
    } else if apart >= SKEW_WARNING {
        Check::warning(name, found, advice)
    } else {
        Check::ok(name, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn clocks_may_be_a_little_apart_but_not_much() {
        let health = |ms| skew("clock", ms, "it").health;
        assert_eq!((health(40), health(2500), health(60_000)), (Health::Ok, Health::Warning, Health::Failed));
    }

    #[test]
    fn connections_need_descriptors() {
        assert_eq!(descriptors(1).health, Health::Ok);
        assert_eq!(descriptors(usize::MAX >> 8).health, Health::Warning);
    }
}

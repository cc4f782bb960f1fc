//! The layout: a mark in Redis that says how what is stored there is laid out.
//!
//! A program that does not know a newer layout would read it wrongly, and write what the newer one reads wrongly: it is
//! refused, at the start and whenever the connection is made anew.

use ::redis::aio::ConnectionLike as _;
use ::redis::{Cmd, FromRedisValue, Value, cmd};

use super::{Connection, RedisFault, RedisOptions};

/// What this version writes, and the newest that it reads.
const LAYOUT: u32 = 3;
/// The mark outlives whatever is stored, from the last connection on; nothing here stays for ever.
const KEPT_S: u64 = 500 * 24 * 3600;

/// Checks the mark, and makes it where there is none.
pub(super) async fn check(connection: &mut Connection, options: &RedisOptions) -> Result<(), RedisFault> {
    let key = format!("{}{{meta}}layout", options.prefix);
    let found: Option<String> = ask(connection, cmd("GET").arg(&key)).await?;
    judge(found.as_deref(), &options.prefix)?;
    if found.as_deref().and_then(|found| found.parse().ok()).is_some_and(|found: u32| found < LAYOUT) {
        // Older ones are read as well; what is written from now on is not for older programs.
        let renew = cmd("SET").arg(&key).arg(LAYOUT).arg("EX").arg(KEPT_S).clone();
        return without_change(ask::<()>(connection, &renew).await);
    }
    if found.is_some() {
        return without_change(ask::<i64>(connection, cmd("EXPIRE").arg(&key).arg(KEPT_S)).await.map(drop));
    }
    let mark = cmd("SET").arg(&key).arg(LAYOUT).arg("NX").arg("GET").arg("EX").arg(KEPT_S).clone();
    match ask::<Option<String>>(connection, &mark).await {
        // Another program that started at the same time made it, and may be a newer one.
        Ok(found) => judge(found.as_deref(), &options.prefix),
        Err(fault) => without_change(Err(fault)),
    }
}

/// A Redis without room, or one that takes no changes now, can be read all the same.
fn without_change(changed: Result<(), RedisFault>) -> Result<(), RedisFault> {
    match changed {
        Err(RedisFault::Full(_) | RedisFault::ReadOnly(_)) => Ok(()),
        changed => changed,
    }
}

async fn ask<T: FromRedisValue>(connection: &mut Connection, command: &Cmd) -> Result<T, RedisFault> {
    let answer = connection.req_packed_command(command).await.and_then(Value::extract_error);
    let answer = answer.map_err(|error| RedisFault::of(&error))?;
    T::from_redis_value(answer).map_err(|error| RedisFault::unreadable(&error))
}

fn judge(found: Option<&str>, prefix: &str) -> Result<(), RedisFault> {
    let Some(found) = found else { return Ok(()) };
    match found.parse::<u32>() {
        Ok(layout) if layout <= LAYOUT => Ok(()),
        _ => Err(RedisFault::Unsuitable(format!(
            "what is stored under `{prefix}` in this Redis has the layout {found}, of a newer tidings: this version \
             knows {LAYOUT}. Run the newer one, or choose another `redis.prefix`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_layout_is_refused_and_what_to_do_is_said() {
        for known in [None, Some("3"), Some("2"), Some("1"), Some("0")] {
            assert_eq!(judge(known, "tidings"), Ok(()), "{known:?}");
        }
        for newer in ["4", "99999999999", "x"] {
            let message = judge(Some(newer), "tidings").unwrap_err().to_string();
            assert!(
                message.contains(&format!("layout {newer},")) && message.contains("redis.prefix"),
                "{message}"
            );
        }
    }
}

//! What runs there: whether it can be worked with, and how to recognise it.

use std::collections::HashMap;
use std::sync::Arc;

use super::RedisFault;

/// The oldest version that can be worked with: sharded publication, scripts that say what they need.
const OLDEST: u32 = 7;

/// One life of one primary. Another one after a reconnection says that the store may have gone back: the server
/// was started anew, or a replica took its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation(Arc<str>);

/// What `INFO` says.
pub(super) struct Info<'a>(HashMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.trim_end().split_once(':')).collect())
    }

    fn get(&self, name: &str) -> &'a str {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Checks the version, and that changes are taken.
    pub(super) fn check(&self) -> Result<Incarnation, RedisFault> {
        // Valkey says here with which Redis it is compatible.
        let version = self.get("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < OLDEST) {
            let found = if version.is_empty() { "an unknown one" } else { version };
            return Err(RedisFault::Unsuitable(format!(
                "Redis {OLDEST}.0 or newer is needed, or Valkey; this one is {found}"
            )));
        }
        if self.get("role") == "slave" {
            let text = "this one is a replica; name its primary, or use redis+sentinel://".to_owned();
            return Err(RedisFault::ReadOnly(text));
        }
        if self.get("loading") == "1" {
            return Err(RedisFault::Away("it is still loading its data".to_owned()));
        }
        Ok(Incarnation(format!("{}/{}", self.get("run_id"), self.get("master_replid")).into()))
    }

    /// The policy by which it throws keys away when its memory is full, if it does so.
    pub(super) fn evicts(&self) -> Option<&'a str> {
        let policy = self.get("maxmemory_policy");
        (self.get("maxmemory") != "0" && !policy.is_empty() && policy != "noeviction").then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Incarnation, RedisFault> {
        Info::parse(text).check()
    }

    #[test]
    fn an_old_or_unknown_version_is_refused_by_its_number() {
        assert!(check("redis_version:7.0.15\r\nrole:master\r\n").is_ok());
        assert!(check("redis_version:7.2.4\r\nvalkey_version:8.1.0\r\nrole:master\r\n").is_ok());
        for (text, part) in [("redis_version:6.2.14\r\n", "this one is 6.2.14"), ("", "an unknown one")] {
            let message = check(text).unwrap_err().to_string();
            assert!(message.contains("7.0 or newer") && message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_replica_is_none_to_write_to() {
        assert!(matches!(check("redis_version:7.0.1\r\nrole:slave\r\n"), Err(RedisFault::ReadOnly(_))));
    }

    #[test]
    fn another_run_or_another_replication_is_another_incarnation() {
        let of = |run: &str, repl: &str| {
            check(&format!("redis_version:7.0.1\r\nrun_id:{run}\r\nmaster_replid:{repl}\r\n")).unwrap()
        };
        assert_eq!(of("a", "b"), of("a", "b"));
        assert_ne!(of("a", "b"), of("a", "c"));
        assert_ne!(of("a", "b"), of("c", "b"));
    }

    #[test]
    fn a_server_that_throws_keys_away_says_so() {
        assert_eq!(Info::parse("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n").evicts(), None);
        assert_eq!(Info::parse("maxmemory:9\r\nmaxmemory_policy:noeviction\r\n").evicts(), None);
        assert_eq!(
            Info::parse("maxmemory:9\r\nmaxmemory_policy:allkeys-lru\r\n").evicts(),
            Some("allkeys-lru")
        );
    }
}

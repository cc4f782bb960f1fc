//! Redis: whether it answers, how fast, and whether its settings fit what is kept there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, cmd};
use tidings::config::settings::Settings;
use tidings::model::now_ms;
use tidings::redis::{Redis, RedisFault, RedisOptions, RedisUrl};
use tidings::tasks::Tasks;

use super::{Check, system};

/// The oldest version with all that our scripts use.
const OLDEST: (u32, u32) = (7, 0);
/// So often it is asked how fast it answers.
const PINGS: usize = 20;
/// Each publication waits for at least one answer.
const SLOW: Duration = Duration::from_millis(10);
/// A node that was busy for a moment must not be cut off.
const PUBSUB_BYTES: u64 = 8 << 20;
const STOPPING: Duration = Duration::from_secs(1);

pub(super) async fn look(url: &RedisUrl, settings: &Settings) -> Vec<Check> {
    let mut options = RedisOptions::new(url.clone());
    if let Some(file) = &settings.redis.ca_file {
        match std::fs::read(file) {
            Ok(ca) => options.ca = Some(ca),
            Err(error) => {
                let found = format!("{}: {error}", file.display());
                return vec![Check::failed("redis certificates", found, "mend redis.ca_file")];
            }
        }
    }
    let tasks = Tasks::new();
    let checks = match Redis::connect(options, &tasks).await {
        Ok(redis) => {
            let mut checks = vec![latency(&redis).await, clock(&redis).await];
            if redis.is_cluster() {
                checks.extend(of_cluster(&redis).await);
            } else {
                checks.extend(of_server(Server { redis: &redis, at: None }).await);
            }
            checks
        }
        Err(fault) => {
            let advice = "start it, or mend redis.url; a server would not start";
            vec![Check::failed("redis", fault.to_string(), advice)]
        }
    };
    tasks.stop(STOPPING).await;
    checks
}

/// One server: that of this address in a cluster, or the only one.
#[derive(Clone, Copy)]
struct Server<'a> {
    redis: &'a Redis,
    at: Option<(&'a str, u16)>,
}

impl Server<'_> {
    async fn query<T: FromRedisValue>(self, command: &Cmd) -> Result<T, RedisFault> {
        match self.at {
            Some((host, port)) => self.redis.query_at(host, port, command).await,
            None => self.redis.query(command).await,
        }
    }
}

/// Each primary of a cluster by itself: they are set one by one. Replicas should be set alike.
async fn of_cluster(redis: &Redis) -> Vec<Check> {
    const NAME: &str = "redis cluster";
    let nodes = match redis.query::<String>(cmd("CLUSTER").arg("NODES")).await {
        Ok(nodes) => nodes,
        Err(fault) => return vec![Check::skipped(NAME, fault.to_string())],
    };
    let primaries = primaries(&nodes);
    let mut checks = vec![Check::ok(NAME, format!("{} primaries", primaries.len()))];
    for (host, port) in primaries {
        let of_it = of_server(Server { redis, at: Some((host, port)) }).await;
        let at = |check: Check| Check { found: format!("{host}:{port}: {}", check.found), ..check };
        checks.extend(of_it.into_iter().map(at));
    }
    checks
}

/// The addresses of the primaries in the answer to `CLUSTER NODES`: `ID HOST:PORT@BUS[,NAME] FLAGS …`.
fn primaries(nodes: &str) -> Vec<(&str, u16)> {
    nodes.lines().filter_map(primary).collect()
}

fn primary(line: &str) -> Option<(&str, u16)> {
    let mut words = line.split_whitespace().skip(1);
    let (address, flags) = (words.next()?, words.next()?);
    let is = |flag| flags.split(',').any(|own| own == flag);
    let (host, port) = address.split('@').next()?.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (is("master") && !is("noaddr") && !is("handshake")).then_some((host, port))
}

async fn of_server(server: Server<'_>) -> Vec<Check> {
    let mut checks = vec![version(server).await];
    match settings(server).await {
        Ok(settings) => checks.extend(of_settings(&settings)),
        // Many who rent a Redis may not ask for its settings.
        Err(fault) => checks.push(Check::skipped("redis settings", fault.to_string())),
    }
    checks
}

async fn latency(redis: &Redis) -> Check {
    const NAME: &str = "redis latency";
    let mut took = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let asked = Instant::now();
        if let Err(fault) = redis.query::<String>(&cmd("PING")).await {
            return Check::failed(NAME, fault.to_string(), "look at Redis and the network between");
        }
        took.push(asked.elapsed());
    }
    took.sort_unstable();
    let (median, worst) = (took[PINGS / 2], took[PINGS - 1]);
    let found = format!("{:.1} ms, at worst {:.1} ms", ms(median), ms(worst));
    if median < SLOW {
        return Check::ok(NAME, found);
    }
    Check::warning(NAME, found, "bring Redis nearer: each publication waits for at least one answer")
}

async fn clock(redis: &Redis) -> Check {
    const NAME: &str = "clock of redis";
    let asked = now_ms();
    match redis.query::<(i64, i64)>(&cmd("TIME")).await {
        Ok((s, us)) => system::skew(NAME, (s * 1000 + us / 1000 - asked.midpoint(now_ms())).abs(), "Redis"),
        Err(fault) => Check::skipped(NAME, fault.to_string()),
    }
}

async fn version(server: Server<'_>) -> Check {
    const NAME: &str = "redis version";
    let told = match server.query::<String>(cmd("INFO").arg("server")).await {
        Ok(told) => told,
        Err(fault) => return Check::skipped(NAME, fault.to_string()),
    };
    let version =
        told.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default().trim();
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= OLDEST {
        return Check::ok(NAME, version);
    }
    Check::failed(NAME, version, format!("use {}.{} or newer", OLDEST.0, OLDEST.1))
}

async fn settings(server: Server<'_>) -> Result<HashMap<String, String>, RedisFault> {
    let mut command = cmd("CONFIG");
    command.arg("GET");
    for name in
        ["maxmemory", "maxmemory-policy", "client-output-buffer-limit", "appendonly", "appendfsync", "save"]
    {
        command.arg(name);
    }
    server.query(&command).await
}

fn of_settings(settings: &HashMap<String, String>) -> Vec<Check> {
    let of = |name: &str| settings.get(name).map_or("", String::as_str);
    vec![
        eviction(of("maxmemory"), of("maxmemory-policy")),
        pubsub(of("client-output-buffer-limit")),
        durability(of("appendonly"), of("appendfsync"), of("save")),
    ]
}

fn eviction(limit: &str, policy: &str) -> Check {
    const NAME: &str = "redis eviction";
    let found = match limit {
        "0" => format!("no maxmemory, maxmemory-policy {policy}"),
        limit => format!("maxmemory {limit}, maxmemory-policy {policy}"),
    };
    let advice =
        "set maxmemory-policy noeviction: when memory is full Redis would drop history, jobs and inboxes";
    match (limit, policy) {
        (_, "noeviction") => Check::ok(NAME, found),
        // Until somebody sets a limit.
        ("0", _) => Check::warning(NAME, found, advice),
        _ => Check::failed(NAME, found, advice),
    }
}

/// The setting has a class and three numbers for each class of clients: `normal 0 0 0 replica … pubsub 33554432 …`.
fn pubsub(limits: &str) -> Check {
    const NAME: &str = "redis output buffer";
    let words: Vec<_> = limits.split_whitespace().collect();
    let of = words.iter().position(|word| *word == "pubsub").map(|at| &words[at + 1..]);
    let Some([hard, soft, seconds, ..]) = of else {
        return Check::skipped(NAME, "Redis does not tell its limit for pub/sub");
    };
    let found = format!("pubsub {hard} {soft} {seconds}");
    let bytes = |text: &str| match text.parse() {
        Ok(0) | Err(_) => u64::MAX,
        Ok(bytes) => bytes,
    };
    if bytes(hard) >= PUBSUB_BYTES && bytes(soft) >= PUBSUB_BYTES / 4 {
        return Check::ok(NAME, found);
    }
    let advice = "set client-output-buffer-limit \"pubsub 32mb 8mb 60\": a node that is busy for a moment would be \
                  cut off, and read everything again";
    Check::warning(NAME, found, advice)
}

fn durability(append_only: &str, fsync: &str, save: &str) -> Check {
    const NAME: &str = "redis durability";
    let found = format!("appendonly {append_only}, appendfsync {fsync}, save \"{save}\"");
    match (append_only, fsync) {
        ("yes", "always") => Check::ok(NAME, found),
        ("yes", "everysec") => Check::ok(NAME, format!("{found}: a crash of Redis may cost its last second")),
        ("yes", _) => {
            let advice =
                "set appendfsync everysec or always: a loss of power costs what the system had not written";
            Check::warning(NAME, found, advice)
        }
        _ if save.is_empty() => Check::failed(
            NAME,
            found,
            "set appendonly yes: when Redis restarts, all messages and jobs are gone",
        ),
        _ => {
            let advice = "set appendonly yes: when Redis restarts, what came since its last snapshot is gone";
            Check::warning(NAME, found, advice)
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn the_primaries_of_a_cluster_are_read_from_its_nodes() {
        let nodes = "a1 10.0.0.1:7000@17000,one.example master - 0 0 1 connected 0-5460\n\
                     a2 10.0.0.2:7000@17000 myself,master - 0 0 2 connected 5461-10922\n\
                     a3 2001:db8::3:7000@17000 master,fail - 0 0 3 disconnected 10923-16383\n\
                     a4 10.0.0.4:7000@17000 slave a1 0 0 1 connected\n\
                     a5 :0@0 master,noaddr - 0 0 1 disconnected\n";
        assert_eq!(primaries(nodes), [("10.0.0.1", 7000), ("10.0.0.2", 7000), ("2001:db8::3", 7000)]);
    }

    #[test]
    fn only_a_redis_that_forgets_nothing_is_in_order() {
        let health = |limit, policy| eviction(limit, policy).health;
        assert_eq!(health("0", "noeviction"), Health::Ok);
        assert_eq!(health("100mb", "noeviction"), Health::Ok);
        assert_eq!(health("0", "allkeys-lru"), Health::Warning);
        assert_eq!(health("104857600", "volatile-ttl"), Health::Failed);
    }

    #[test]
    fn the_limit_of_pub_sub_is_found_among_the_others() {
        let health = |limits| pubsub(limits).health;
        assert_eq!(health("normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"), Health::Ok);
        assert_eq!(health("normal 0 0 0 pubsub 0 0 0"), Health::Ok);
        assert_eq!(health("pubsub 1048576 8388608 60 normal 0 0 0"), Health::Warning);
        assert_eq!(health("normal 0 0 0"), Health::Skipped);
    }

    #[test]
    fn what_a_restart_costs_is_told() {
        let health = |aof, fsync, save| durability(aof, fsync, save).health;
        assert_eq!(health("yes", "always", ""), Health::Ok);
        assert_eq!(health("yes", "no", ""), Health::Warning);
        assert_eq!(health("no", "everysec", "3600 1"), Health::Warning);
        assert_eq!(health("no", "everysec", ""), Health::Failed);
    }
}

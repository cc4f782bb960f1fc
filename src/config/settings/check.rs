//! The rules of the settings that types cannot say: bounds, and what one key means for another.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{INBOX_RETENTION_ON_REDIS, Settings};
use crate::config::nearest::did_you_mean;
use crate::config::redis_url::check_prefix;

/// A value that cannot stand.
pub(super) struct Fault {
    /// The key's names, from the outermost.
    pub(super) path: Vec<String>,
    /// The key that it does not go with, where that may be the one that was set.
    pub(super) with: Option<Vec<String>>,
    pub(super) message: String,
}

/// Everything that is wrong with `settings`.
pub(super) fn faults(settings: &Settings) -> Vec<Fault> {
    let mut faults = Faults(Vec::new());
    faults.listen(settings);
    faults.auth(settings);
    faults.queue(settings);
    faults.limits(settings);
    faults.shutdown(settings);
    faults.within("workers.concurrency", settings.workers.concurrency, 1..=1024);
    let day = Duration::from_hours(24);
    faults.inbox(settings);
    // Clients that take longer than an hour to be missed are not being watched.
    let pause = Duration::from_millis(100)..=Duration::from_hours(1);
    faults.lasts("heartbeat.interval", settings.heartbeat.interval, pause.clone());
    faults.lasts("heartbeat.timeout", settings.heartbeat.timeout, pause.clone());
    let limits = &settings.limits;
    faults.lasts("limits.write_deadline", limits.write_deadline, pause.clone());
    faults.lasts("limits.connect_timeout", limits.connect_timeout, pause.clone());
    faults.lasts("limits.body_timeout", limits.body_timeout, pause.clone());
    faults.lasts("limits.idle_timeout", limits.idle_timeout, Duration::from_millis(100)..=day * 30);
    faults.lasts("limits.keep_alive", limits.keep_alive, pause.clone());
    faults.lasts("sync.save_every", settings.sync.save_every, pause);
    let kept = Duration::from_secs(1)..=Duration::from_hours(3650 * 24);
    faults.lasts("sync.retention", settings.sync.retention, kept);
    if let Some(Err(message)) = settings.redis.prefix.as_deref().map(check_prefix) {
        faults.add("redis.prefix", message);
    }
    if settings.traces.endpoint.as_ref().is_some_and(|endpoint| !endpoint.starts_with("http://")) {
        let message = "expected the address of an OTLP/HTTP collector such as \"http://127.0.0.1:4318\"; \
                       one beside tidings can pass spans on through TLS";
        faults.add("traces.endpoint", message);
    }
    if let Err(message) = check_level(&settings.log.level) {
        faults.add("log.level", message);
    }
    for (name, suite) in &settings.suites {
        if let Err(e) = suite.check() {
            // A suite's name may have dots itself.
            let path = vec!["suites".to_owned(), name.clone()];
            faults.0.push(Fault { path, with: None, message: e.to_string() });
        }
    }
    faults.schedules(settings);
    faults.0
}

struct Faults(Vec<Fault>);

fn path(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

impl Faults {
    fn add(&mut self, key: &str, message: impl Into<String>) {
        self.0.push(Fault { path: path(key), with: None, message: message.into() });
    }

    fn add_pair(&mut self, key: &str, with: &str, message: String) {
        self.0.push(Fault { path: path(key), with: Some(path(with)), message });
    }

    fn schedules(&mut self, settings: &Settings) {
        for (name, schedule) in &settings.schedules {
            let mut path = vec!["schedules".to_owned(), name.clone()];
            let message = match schedule.timing(name) {
                Err(error) => {
                    path.extend(error.key.map(str::to_owned));
                    error.message
                }
                Ok(_) => {
                    let Some(suite) = schedule.runs().filter(|suite| !settings.suites.contains_key(*suite))
                    else {
                        continue;
                    };
                    path.push(if schedule.suite.is_some() { "suite" } else { "config" }.to_owned());
                    let hint = did_you_mean(suite, settings.suites.keys().map(String::as_str));
                    format!("there is no section [suites.{suite}] for it to run{hint}")
                }
            };
            self.0.push(Fault { path, with: None, message });
        }
    }

    fn listen(&mut self, settings: &Settings) {
        // Metrics name nobody, and are asked for by a machine of its own.
        for (key, address) in [("listen", Some(settings.listen)), ("admin.listen", settings.admin.listen)] {
            if let Some(address) = address {
                self.listen_at(key, address, settings.auth.is_on());
            }
        }
    }

    fn listen_at(&mut self, key: &str, address: SocketAddr, is_on: bool) {
        if address.ip().to_canonical().is_loopback() || is_on {
            return;
        }
        let message = format!(
            "{address} can be reached from other machines, where everybody would have every right while \
             authentication is off. Set one of auth.hs256_secret, auth.public_key_file, auth.jwks_file and \
             auth.jwks_url, or listen on 127.0.0.1 or [::1]"
        );
        self.add(key, message);
    }

    fn auth(&mut self, settings: &Settings) {
        let auth = &settings.auth;
        self.lasts("auth.leeway", auth.leeway, Duration::ZERO..=Duration::from_mins(10));
        let refresh = Duration::from_secs(10)..=Duration::from_hours(24);
        self.lasts("auth.jwks_refresh", auth.jwks_refresh, refresh);
        if auth.hs256_secret.as_ref().is_some_and(|secret| secret.reveal().len() < MIN_SECRET_BYTES) {
            let message = format!(
                "a secret of less than {MIN_SECRET_BYTES} bytes can be guessed; make one with \
                 `openssl rand -base64 48`"
            );
            self.add("auth.hs256_secret", message);
        }
        if let Some(url) = &auth.jwks_url
            && let Err(message) = check_web_address(url)
        {
            self.add("auth.jwks_url", message);
        }
        for (key, text) in [("auth.issuer", &auth.issuer), ("auth.audience", &auth.audience)] {
            if text.as_ref().is_some_and(String::is_empty) {
                self.add(key, "expected a text, or no such key: an empty one matches no token");
            }
        }
        for (key, path) in [
            ("auth.user_claim", &auth.user_claim),
            ("auth.roles_claim", &auth.roles_claim),
            ("auth.teams_claim", &auth.teams_claim),
        ] {
            if path.split('.').any(str::is_empty) {
                self.add(
                    key,
                    format!("expected the name of a claim such as `realm_access.roles`, found {path:?}"),
                );
            }
        }
        for origin in &settings.http.allowed_origins {
            if let Err(message) = check_origin(origin) {
                self.add("http.allowed_origins", message);
            }
        }
        for name in &settings.http.allowed_hosts {
            if let Err(message) = check_host(name) {
                self.add("http.allowed_hosts", message);
            }
        }
    }

    fn queue(&mut self, settings: &Settings) {
        let queue = &settings.queue;
        let (second, hour, year) =
            (Duration::from_secs(1), Duration::from_hours(1), Duration::from_hours(24 * 365));
        self.within("queue.max_attempts", queue.max_attempts, 1..=1000);
        self.lasts("queue.lease", queue.lease, second..=hour);
        self.lasts("queue.backoff_base", queue.backoff_base, Duration::ZERO..=hour * 24);
        self.lasts("queue.backoff_max", queue.backoff_max, Duration::ZERO..=hour * 24);
        self.lasts("queue.retention", queue.retention, second..=year * 10);
        self.lasts("queue.default_timeout", queue.default_timeout, second..=year);
        self.within("queue.max_jobs_kept", queue.max_jobs_kept, 1..=100_000_000);
        if queue.backoff_base > queue.backoff_max {
            let show = humantime::format_duration;
            let message = format!(
                "the first pause ({}) is longer than `queue.backoff_max`, the longest ({})",
                show(queue.backoff_base),
                show(queue.backoff_max)
            );
            self.add_pair("queue.backoff_base", "queue.backoff_max", message);
        }
    }

    fn inbox(&mut self, settings: &Settings) {
        let retention = settings.inbox.retention;
        let day = Duration::from_hours(24);
        self.lasts("inbox.retention", retention, Duration::from_secs(1)..=day * 3650);
        if settings.redis.url.is_some() && retention > INBOX_RETENTION_ON_REDIS {
            let show = humantime::format_duration;
            let message = format!(
                "over Redis (`redis.url`) entries of an inbox are kept for {} at most, found {}",
                show(INBOX_RETENTION_ON_REDIS),
                show(retention)
            );
            self.add_pair("inbox.retention", "redis.url", message);
        }
    }

    fn limits(&mut self, settings: &Settings) {
        let limits = &settings.limits;
        self.within("limits.message_bytes", limits.message_bytes, 1024..=64 * 1024 * 1024);
        self.within("limits.connections", limits.connections, 1..=10_000_000);
        self.within("limits.handshakes", limits.handshakes, 1..=10_000_000);
        // Below this a stock client's own headers do not fit; above it one head would be a message.
        self.within("limits.header_bytes", limits.header_bytes, 1024..=1024 * 1024);
        self.within("limits.headers", limits.headers, 16..=1000);
        self.within("limits.rooms_per_connection", limits.rooms_per_connection, 1..=1_000_000);
        // The contract promises no more.
        self.within("limits.publish_batch", limits.publish_batch, 1..=1000);
        self.within("limits.body_bytes", limits.body_bytes, 1024..=1024 * 1024 * 1024);
        if limits.message_bytes > limits.body_bytes {
            let message = format!(
                "a message of {} bytes does not fit into a request of `limits.body_bytes` ({})",
                limits.message_bytes, limits.body_bytes
            );
            self.add_pair("limits.message_bytes", "limits.body_bytes", message);
        }
    }

    fn shutdown(&mut self, settings: &Settings) {
        let shutdown = &settings.shutdown;
        let hour = Duration::from_hours(1);
        self.lasts("shutdown.deadline", shutdown.deadline, Duration::from_secs(1)..=hour * 24);
        for (key, grace) in [("shutdown.drain", shutdown.drain), ("shutdown.attempts", shutdown.attempts)] {
            if grace >= shutdown.deadline {
                let show = humantime::format_duration;
                let (grace, deadline) = (show(grace), show(shutdown.deadline));
                let message =
                    format!("{grace} leave nothing of `shutdown.deadline` ({deadline}) for the rest");
                self.add_pair(key, "shutdown.deadline", message);
            }
        }
    }

    fn within<T: PartialOrd + Display + Copy>(&mut self, key: &str, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            let (from, to) = range.into_inner();
            self.add(key, format!("expected {from} to {to}, found {value}"));
        }
    }

    fn lasts(&mut self, key: &str, value: Duration, range: RangeInclusive<Duration>) {
        let show = |duration: Duration| humantime::format_duration(duration).to_string();
        if !range.contains(&value) {
            let (from, to) = range.into_inner();
            self.add(key, format!("expected {} to {}, found {}", show(from), show(to), show(value)));
        }
    }
}

/// As long as what HMAC makes of it (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

fn check_web_address(url: &str) -> Result<(), String> {
    let expected = "expected an address such as \"https://id.example.org/jwks.json\"";
    let uri: http::Uri = url.parse().map_err(|error| format!("{expected}: {error}"))?;
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    match uri.scheme_str() {
        // It would stand in logs.
        _ if authority.contains('@') => Err(format!("{expected}, without a user or a password")),
        Some("http" | "https") if !authority.is_empty() => Ok(()),
        _ => Err(format!("{expected}, found {url:?}")),
    }
}

fn check_origin(origin: &str) -> Result<(), String> {
    let uri: Option<http::Uri> = origin.parse().ok();
    let is_origin = uri.is_some_and(|uri| {
        let written =
            format!("{}://{}", uri.scheme_str().unwrap_or(""), uri.authority().map_or("", |a| a.as_str()));
        matches!(uri.scheme_str(), Some("http" | "https")) && written == origin
    });
    if origin == "*" || is_origin {
        return Ok(());
    }
    Err(format!(
        "expected \"*\" or origins such as \"https://dash.example.org\", without a path, found {origin:?}"
    ))
}

fn check_host(name: &str) -> Result<(), String> {
    let authority: Option<http::uri::Authority> = name.parse().ok();
    if name == "*" || authority.is_some_and(|authority| authority.host() == name) {
        return Ok(());
    }
    Err(format!("expected \"*\" or names such as \"dash.example.org\", without a port, found {name:?}"))
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether `level` is a level or directives such as `warn,tidings::queue=debug`; if not, what is wrong.
///
/// A filter takes a bare word that is no level for the name of a module, so that a slip would silence the log.
pub fn check_level(level: &str) -> Result<(), String> {
    for directive in level.split(',').map(str::trim) {
        let word = directive.rsplit_once('=').map_or(directive, |(_, word)| word).trim();
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "expected one of {} or directives such as `warn,tidings::queue=debug`, found {directive:?}{}",
                LEVELS.join(", "),
                did_you_mean(word, LEVELS)
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::redis_url::RedisUrl;
    use crate::config::secret::Secret;

    #[test]
    fn the_server_stays_on_loopback_without_authentication() {
        let told = |listen: &str| {
            let settings = Settings { listen: listen.parse().unwrap(), ..Settings::default() };
            settings.check().map_err(|e| e.to_string())
        };
        for open in ["0.0.0.0:80", "[::]:80", "192.168.1.1:80", "[::ffff:10.0.0.1]:80"] {
            let message = told(open).unwrap_err();
            assert!(
                message.starts_with("`listen`: ") && message.contains("Set one of auth.hs256_secret"),
                "{message}"
            );
        }
        for closed in ["127.0.0.1:0", "127.1.2.3:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(told(closed), Ok(()), "{closed}");
        }
    }

    #[test]
    fn an_inbox_over_redis_keeps_nothing_for_longer_than_redis_does() {
        let told = |days: u64, redis: Option<&str>| {
            let mut settings = Settings::default();
            settings.inbox.retention = Duration::from_hours(24 * days);
            settings.redis.url = redis.map(|url| RedisUrl::parse(url).unwrap());
            settings.check().map_err(|e| e.to_string())
        };
        let redis = Some("redis://localhost");
        assert_eq!((told(401, None), told(400, redis)), (Ok(()), Ok(())));
        let message = told(401, redis).unwrap_err();
        assert!(
            message.contains("`inbox.retention`") && message.contains("1month 4days 7h 26m 24s at most"),
            "{message}"
        );
    }

    #[test]
    fn with_a_key_the_server_listens_anywhere() {
        let mut settings = Settings { listen: "0.0.0.0:80".parse().unwrap(), ..Settings::default() };
        settings.auth.hs256_secret = Some(Secret::new(&"k".repeat(32)));
        assert_eq!(settings.check(), Ok(()));
        settings.auth.hs256_secret = Some(Secret::new(&"k".repeat(31)));
        let message = settings.check().unwrap_err().to_string();
        assert!(message.starts_with("`auth.hs256_secret`: ") && !message.contains("kk"), "{message}");
    }

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_nothing_else() {
        for good in ["*", "http://localhost:3000", "https://dash.example.org"] {
            assert_eq!(check_origin(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "dash.example.org",
            "https://dash.example.org/",
            "https://a/b",
            "ftp://a",
            "https://",
            "null",
        ] {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_of_the_server_has_no_port_and_no_scheme() {
        for good in ["*", "dash.example.org", "192.0.2.1", "[2001:db8::1]"] {
            assert_eq!(check_host(good), Ok(()), "{good}");
        }
        for bad in ["", "dash.example.org:443", "https://dash.example.org", "a b", "me@dash.example.org"] {
            assert!(check_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_fetched_from_web_addresses() {
        for good in ["http://127.0.0.1:1/jwks", "https://id.example.org/realms/a/certs?x=1"] {
            assert_eq!(check_web_address(good), Ok(()), "{good}");
        }
        for bad in ["", "id.example.org", "file:///etc/passwd", "https://", "https://user:word@host/"] {
            let message = check_web_address(bad).expect_err(bad);
            assert!(!message.contains("user:word"), "{message}");
        }
    }

    #[test]
    fn a_log_level_is_a_level_or_directives() {
        for good in ["info", "OFF", "warn,tidings::queue=debug", "error, tidings[span]=trace"] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        for bad in ["", "loud", "info,", "tidings=", "tidings"] {
            assert!(check_level(bad).is_err(), "{bad}");
        }
        assert!(check_level("inof").unwrap_err().ends_with("did you mean `info`?"));
    }
}

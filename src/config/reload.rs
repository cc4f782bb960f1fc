//! Reload: the configuration is read again while the process runs, and all of it holds, or nothing.
//!
//! What may change comes in one of two ways. A part whose values are plain reads them through a [`Live`] view
//! ([`Reload::view`]). A part that has to make something of them first, and may refuse (keys that are read from files),
//! is a [`Follower`].

use std::sync::{Arc, Mutex, PoisonError};

use super::channels::Rules;
use super::live::Live;
use super::report::{self, Summary};
use super::settings::{Limits, Log, Settings, Sources};

/// Puts prepared settings in force. It cannot fail.
pub type PutInForce = Box<dyn FnOnce() + Send>;

/// A part of the process that follows the settings while it runs.
pub trait Follower: Send + Sync {
    /// Looks at settings that are to hold. Until what comes back is called, nothing has changed; if this or another
    /// part refuses, it is dropped. The error says what is wrong and with which key, in one line for each mistake.
    fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>>;
}

/// What a reload found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys that were changed, and are only read at the start: what they say now holds after a restart.
    pub need_restart: Vec<&'static str>,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<String>,
}

/// The configuration that holds, and all who follow it.
pub struct Reload {
    started: Settings,
    rules: Arc<Rules>,
    // Held during a reload, or two at once would leave some parts with the one and some with the other.
    followers: Mutex<Vec<Arc<dyn Follower>>>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

impl Reload {
    /// `settings` and `rules` hold from the start.
    #[must_use]
    pub fn new(settings: Settings, rules: Arc<Rules>) -> Self {
        Self { started: settings, rules, followers: Mutex::default() }
    }

    /// The rules that hold.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Has `follower` see every reload from now on.
    pub fn follow(&self, follower: Arc<dyn Follower>) {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(follower);
    }

    /// What `part` takes from the settings: those of the start, and after every reload from now on the new ones.
    pub fn view<T: Send + Sync + 'static>(
        &self,
        part: impl Fn(&Settings) -> T + Send + Sync + 'static,
    ) -> Live<T> {
        let live = Live::new(part(&self.started));
        self.follow(Arc::new(View { live: live.clone(), part }));
        live
    }

    /// Reads `sources` again. If anything in them is wrong, or a part refuses it, everything stays as it was, and the
    /// error lists every mistake, a line for each with its place.
    pub fn reload(&self, sources: &Sources) -> Result<Reloaded, Vec<String>> {
        let Summary { settings, rules, warnings, .. } = report::check(sources)?;
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut prepared, mut mistakes) = (Vec::new(), Vec::new());
        for follower in followers.iter() {
            match follower.prepare(&settings) {
                Ok(put_in_force) => prepared.push(put_in_force),
                Err(found) => mistakes.extend(found),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        self.rules.replace(&rules);
        prepared.into_iter().for_each(|put_in_force| put_in_force());
        Ok(Reloaded { need_restart: read_at_start(&self.started, &settings), warnings })
    }
}

/// The keys that differ and that nobody follows.
///
/// Everything is named, so that who adds a key has to decide on which side it stands.
fn read_at_start(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let Settings {
        channels: _,
        stress: _,
        suites: _,
        schedules: _,
        auth: _,
        http: _,
        admin,
        listen,
        data_dir,
        worker,
        workers,
        log: Log { level: _, format },
        metrics,
        traces,
        store,
        redis,
        queue,
        inbox,
        limits,
        heartbeat,
        sync,
        shutdown,
    } = old;
    let differs = [
        ("listen", *listen != new.listen),
        ("admin", *admin != new.admin),
        ("data_dir", *data_dir != new.data_dir),
        ("worker", *worker != new.worker),
        ("workers", *workers != new.workers),
        ("log.format", *format != new.log.format),
        ("metrics", *metrics != new.metrics),
        ("traces", *traces != new.traces),
        ("store", *store != new.store),
        ("redis", *redis != new.redis),
        ("queue", *queue != new.queue),
        ("inbox", *inbox != new.inbox),
        ("heartbeat", *heartbeat != new.heartbeat),
        ("sync", *sync != new.sync),
        ("shutdown", *shutdown != new.shutdown),
    ];
    let differs = differs.into_iter().chain(limits_read_at_start(limits, &new.limits));
    differs.filter_map(|(key, differs)| differs.then_some(key)).collect()
}

/// The same of the limits: each key, and whether it differs.
fn limits_read_at_start(old: &Limits, new: &Limits) -> [(&'static str, bool); 7] {
    let Limits {
        message_bytes,
        connections,
        connections_per_user: _,
        connections_per_address: _,
        connects_per_second: _,
        handshakes: _,
        rooms_per_connection,
        rooms_per_user: _,
        events_per_second: _,
        publishes_per_second: _,
        notifications_per_second: _,
        jobs_per_second: _,
        publish_batch,
        body_bytes,
        header_bytes: _,
        headers: _,
        connect_timeout,
        body_timeout: _,
        keep_alive: _,
        idle_timeout: _,
        write_deadline,
    } = old;
    [
        ("limits.message_bytes", *message_bytes != new.message_bytes),
        ("limits.connections", *connections != new.connections),
        ("limits.rooms_per_connection", *rooms_per_connection != new.rooms_per_connection),
        ("limits.publish_batch", *publish_batch != new.publish_batch),
        ("limits.body_bytes", *body_bytes != new.body_bytes),
        ("limits.connect_timeout", *connect_timeout != new.connect_timeout),
        ("limits.write_deadline", *write_deadline != new.write_deadline),
    ]
}

/// A view of the settings.
struct View<T, F> {
    live: Live<T>,
    part: F,
}

impl<T, F> Follower for View<T, F>
where
    T: Send + Sync + 'static,
    F: Fn(&Settings) -> T + Send + Sync,
{
    fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>> {
        let (live, value) = (self.live.clone(), (self.part)(settings));
        Ok(Box::new(move || live.replace(value)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A directory with a configuration that was read, and what follows it.
    struct Site {
        dir: tempfile::TempDir,
        sources: Sources,
        rules: Arc<Rules>,
        reload: Reload,
    }

    const TEAM: &str = "[channel.a]\npattern = 'a-{x}'\nevents = ['custom:*']\n";

    impl Site {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let sources = Sources::new(Some(&dir.path().join("t.toml")));
            std::fs::write(dir.path().join("c.toml"), TEAM).unwrap();
            std::fs::write(dir.path().join("t.toml"), "channels = 'c.toml'\n").unwrap();
            let Summary { settings, rules, .. } = report::check(&sources).unwrap();
            let rules = Arc::new(rules);
            Self { dir, sources, rules: rules.clone(), reload: Reload::new(settings, rules) }
        }

        fn write(&self, settings: &str, channels: &str) {
            std::fs::write(self.dir.path().join("c.toml"), channels).unwrap();
            let settings = format!("channels = 'c.toml'\n{settings}");
            std::fs::write(self.dir.path().join("t.toml"), settings).unwrap();
        }
    }

    #[test]
    fn all_of_it_holds_for_those_who_have_it_already() {
        let site = Site::new();
        let level = site.reload.view(|settings| settings.log.level.clone());
        let (before, kept) = (site.rules.resolve("a-1").unwrap(), level.get());
        site.write("[log]\nlevel = 'debug'\n", &TEAM.replace("'a-{x}'", "'b-{x}'"));
        let reloaded = site.reload.reload(&site.sources).unwrap();
        assert_eq!(reloaded.need_restart, [""; 0]);
        assert!(site.rules.resolve("a-1").is_none() && site.rules.resolve("b-1").is_some());
        assert_eq!(**level.read(), "debug");
        assert_eq!((before.namespace.pattern.to_string().as_str(), kept.as_str()), ("a-{x}", "info"));
    }

    #[test]
    fn nothing_holds_where_one_file_is_wrong_and_all_mistakes_are_told() {
        let site = Site::new();
        let level = site.reload.view(|settings| settings.log.level.clone());
        site.write("[log]\nlevel = 'debug'\n[queue]\nlease = 'soon'\n", "[channel.b]\n");
        let mistakes = site.reload.reload(&site.sources).unwrap_err();
        assert!(mistakes[0].contains("t.toml:5:9: `queue.lease`"), "{mistakes:?}");
        assert!(mistakes[1].contains("c.toml:1:"), "{mistakes:?}");
        assert!(site.rules.resolve("a-1").is_some());
        assert_eq!(**level.read(), "info");
    }

    #[test]
    fn nothing_holds_where_one_part_refuses() {
        struct Refuses;
        impl Follower for Refuses {
            fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>> {
                Err(vec![format!("`auth`: no key for {}", settings.log.level)])
            }
        }
        let site = Site::new();
        let level = site.reload.view(|settings| settings.log.level.clone());
        site.reload.follow(Arc::new(Refuses));
        site.write("[log]\nlevel = 'debug'\n", &TEAM.replace("'a-{x}'", "'b-{x}'"));
        assert_eq!(site.reload.reload(&site.sources).unwrap_err(), ["`auth`: no key for debug"]);
        assert!(site.rules.resolve("a-1").is_some());
        assert_eq!(**level.read(), "info");
    }

    #[test]
    fn what_takes_a_restart_is_told_each_time() {
        let site = Site::new();
        site.write("listen = '127.0.0.1:1'\n[queue]\nlease = '20s'\n", TEAM);
        for _ in 0..2 {
            let reloaded = site.reload.reload(&site.sources).unwrap();
            assert_eq!(reloaded.need_restart, ["listen", "queue"]);
        }
    }

    #[test]
    fn who_reads_while_it_is_exchanged_sees_the_one_or_the_other() {
        let live = Live::new((0_u64, 0_u64));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (end, mut seen) = (std::time::Instant::now() + Duration::from_millis(50), 0);
                while std::time::Instant::now() < end {
                    let (a, b) = **live.read();
                    assert_eq!(a, b);
                    assert!(a >= seen, "{a} after {seen}");
                    seen = a;
                }
            });
            let mut n = 0;
            while !reader.is_finished() {
                n += 1;
                live.replace((n, n));
            }
        });
    }
}

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

use super::sources::CLIENT_VARIABLES;
use super::*;

struct Dir(tempfile::TempDir);

impl Dir {
    fn with(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t.toml"), text).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn sources(&self) -> Sources {
        Sources::new(Some(&self.path().join("t.toml")))
    }

    /// The mistakes, without the directory.
    fn complaints(&self, sources: &Sources) -> Vec<String> {
        let here = format!("{}/", self.path().display());
        let text = Settings::load(sources).map_or_else(|e| e.to_string(), |_| String::new());
        text.lines().map(|line| line.replace(&here, "")).collect()
    }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Asserts that a file has exactly this mistake.
#[track_caller]
fn refused(text: &str, expected: &str) {
    let dir = Dir::with(text);
    let found = dir.complaints(&dir.sources());
    assert!(found.len() == 1 && found[0].starts_with(expected), "{found:#?}\nshould be\n{expected}");
}

/// Asserts that an environment has exactly this mistake.
#[track_caller]
fn refused_variable(name: &str, value: &str, expected: &str) {
    let dir = Dir::with("");
    let found = dir.complaints(&dir.sources().with_environment(variables(&[(name, value)])));
    assert!(found.len() == 1 && found[0].starts_with(expected), "{found:#?}\nshould be\n{expected}");
}

#[test]
fn nothing_has_to_be_set() {
    let settings = Settings::load(&Sources::new(None)).unwrap();
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.check(), Ok(()));
    assert!(settings.workers.concurrency >= 2);
}

#[test]
fn every_key_can_stand_in_the_file() {
    let dir = Dir::with(
        "listen = '[::1]:9'\ndata_dir = 'd'\nchannels = '/c.toml'\nworker = false\nworkers.concurrency = 7\n\
         log = { level = 'debug', format = 'json' }\nstore.synchronous = 'full'\nstress.allow = ['a.example']\n\
         heartbeat = { interval = '5s', timeout = '2s' }\n\
         [queue]\nmax_attempts = 1\nlease = '1m'\nbackoff_base = '0s'\nbackoff_max = '1h'\nretention = '1d'\n\
         max_jobs_kept = 5\ndefault_timeout = '2h 30m'\n\
         [limits]\nmessage_bytes = 2048\nconnections = 1\nrooms_per_connection = 2\npublish_batch = 3\n\
         body_bytes = 4096\nconnections_per_address = 4\nconnects_per_second = 0\nhandshakes = 5\nheader_bytes = 2048\n\
         headers = 20\nconnect_timeout = '1s'\nbody_timeout = '2s'\nkeep_alive = '3s'\nwrite_deadline = '4s'\n\
         [http]\ntrusted_proxies = ['10.0.0.0/8', '::1']\n[suites.unit]\ncommand = ['true']\ncwd = 'sub'\n[suites.other]\ncommand = ['true']\n",
    );
    let settings = Settings::load(&dir.sources()).unwrap();
    assert_eq!(settings.listen.to_string(), "[::1]:9");
    assert_eq!(
        (settings.data_dir, settings.channels),
        (dir.path().join("d"), Some(PathBuf::from("/c.toml")))
    );
    assert_eq!((settings.worker, settings.workers.concurrency), (false, 7));
    assert_eq!((settings.log.level.as_str(), settings.log.format), ("debug", LogFormat::Json));
    assert_eq!(settings.store.synchronous, Synchronous::Full);
    assert_eq!(settings.queue.default_timeout, Duration::from_secs(9000));
    assert_eq!((settings.limits.publish_batch, settings.heartbeat.timeout), (3, Duration::from_secs(2)));
    assert_eq!(settings.limits.connects_per_second, Some(0));
    assert_eq!(settings.http.trusted_proxies.len(), 2);
    assert_eq!(settings.stress.allow, ["a.example"]);
    assert_eq!(settings.suites["unit"].cwd, Some(dir.path().join("sub")));
    assert_eq!(settings.suites["other"].cwd, None);
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let dir = Dir::with("queue = { max_attempts = 1, lease = '2s', backoff_max = '3s' }");
    let sources = dir
        .sources()
        .with_environment(variables(&[("TIDINGS_QUEUE__LEASE", "4s"), ("TIDINGS_QUEUE__MAX_ATTEMPTS", "5")]))
        .with_flag("--max-attempts", "queue.max_attempts", Some(6))
        .with_flag("--listen", "listen", None::<String>);
    let queue = Settings::load(&sources).unwrap().queue;
    assert_eq!((queue.max_attempts, queue.lease), (6, Duration::from_secs(4)));
    assert_eq!((queue.backoff_max, queue.backoff_base), (Duration::from_secs(3), Duration::from_secs(1)));
}

#[test]
fn a_named_file_has_to_be_there() {
    let error = Settings::load(&Sources::new(Some(Path::new("no/such.toml")))).unwrap_err().to_string();
    assert!(error.starts_with("no/such.toml: cannot be read: "), "{error}");
}

#[test]
fn a_mistake_names_its_place_its_key_and_what_was_expected() {
    refused("\n[queue]\nleese = '1s'", "t.toml:3:1: `queue.leese`: unknown key; did you mean `lease`?");
    refused("[server]", "t.toml:1:2: `server`: unknown key; expected one of listen, ");
    refused(
        "queue.lease = 15",
        "t.toml:1:15: `queue.lease`: expected a duration such as \"15s\" or \"7d\", found ",
    );
    refused(
        "queue.lease = '15'",
        "t.toml:1:15: `queue.lease`: expected a duration such as \"15s\" or \"7d\", found \"15\": ",
    );
    refused(
        "listen = 'here'",
        "t.toml:1:10: `listen`: expected an address and a port such as \"127.0.0.1:8080\", found \"here\"",
    );
    refused("worker = 'yes'", "t.toml:1:10: `worker`: expected a boolean, found \"yes\"");
    refused(
        "log.format = 'jsn'",
        "t.toml:1:14: `log.format`: expected one of auto, json, pretty, found \"jsn\"; did you mean `json`?",
    );
    refused("stress.allow = ['a', 5]", "t.toml:1:22: `stress.allow.1`: expected a string, found ");
    refused(
        "limits.connections = -1",
        "t.toml:1:22: `limits.connections`: expected a whole number from 0, found -1",
    );
    refused("queue = 5", "t.toml:1:9: `queue`: expected a table, found 5");
    refused("[suites.unit]\ncwd = '.'", "t.toml:1:9: `suites.unit`: `command` is missing");
    refused("[suites.unit]\ncommand = []", "t.toml:1:9: `suites.unit`: `command` is empty");
    refused(
        "[suites.unit]\ncommand = ['x']\ntimeout = 'soon'",
        "t.toml:3:11: `suites.unit.timeout`: `soon` is no duration",
    );
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    refused_variable("TIDINGS_LISTN", "x", "TIDINGS_LISTN: `listn`: unknown key; did you mean `listen`?");
    refused_variable(
        "TIDINGS_QUEUE__LEESE",
        "1s",
        "TIDINGS_QUEUE__LEESE: `queue.leese`: unknown key; did you mean",
    );
    refused_variable(
        "TIDINGS_QUEUE__LEASE",
        "15",
        "TIDINGS_QUEUE__LEASE: `queue.lease`: expected a duration",
    );
    refused_variable("TIDINGS_WORKER", "5", "TIDINGS_WORKER: `worker`: expected a boolean, found ");
    refused_variable(
        "TIDINGS_QUEUE__MAX_ATTEMPTS",
        "0",
        "TIDINGS_QUEUE__MAX_ATTEMPTS: `queue.max_attempts`: expected 1 to 1000",
    );
    refused_variable("TIDINGS_", "", "TIDINGS_: ");
    refused_variable("TIDINGS_QUEUE__", "", "TIDINGS_QUEUE__: ");
}

#[test]
fn variables_of_clients_are_left_alone() {
    let named: Vec<_> = CLIENT_VARIABLES.iter().map(|name| (*name, "x")).chain([("OTHER", "1")]).collect();
    let settings = Settings::load(&Sources::new(None).with_environment(variables(&named)));
    assert_eq!(settings, Ok(Settings::default()));
}

#[test]
fn a_variable_that_looks_like_a_number_is_still_text_where_text_is_wanted() {
    let given = [
        ("TIDINGS_DATA_DIR", "007"),
        ("TIDINGS_STRESS__ALLOW", "[a.example, b.example]"),
        ("TIDINGS_LOG__LEVEL", "warn,tidings::queue=debug"),
    ];
    let settings = Settings::load(&Sources::new(None).with_environment(variables(&given))).unwrap();
    assert_eq!(settings.data_dir, Path::new("007"));
    assert_eq!(settings.log.level, "warn,tidings::queue=debug");
    assert_eq!(settings.stress.allow, ["a.example", "b.example"]);
}

#[test]
fn names_that_people_chose_keep_their_case_in_variables() {
    let given =
        [("TIDINGS_SUITES__Unit__COMMAND", "[true]"), ("TIDINGS_SUITES__Unit__ENV__RUST_LOG", "debug")];
    let settings = Settings::load(&Sources::new(None).with_environment(variables(&given)));
    // Figment reads `[true]` as an array of a boolean, so this command needs its quotes.
    assert!(settings.unwrap_err().to_string().contains("`suites.Unit.command.0`: expected a string"));
    let given = [("TIDINGS_SUITES__Unit__COMMAND", "[\"true\"]"), given[1]];
    let settings = Settings::load(&Sources::new(None).with_environment(variables(&given))).unwrap();
    assert_eq!(settings.suites["Unit"].env["RUST_LOG"], "debug");
}

#[test]
fn all_mistakes_are_told_at_once_lower_sources_first() {
    let dir = Dir::with(
        "worker = 1\nlistn = 2\n[queue]\nmax_attempts = 0\nlease = 5\n[limits]\nfoo = 1\nbar = 2\n",
    );
    let sources = dir.sources().with_environment(variables(&[("TIDINGS_X", "1")])).with_flag(
        "--listen",
        "listen",
        Some("nowhere"),
    );
    let found = dir.complaints(&sources);
    let places: Vec<_> = found.iter().map(|line| line.split(": ").next().unwrap()).collect();
    let expected =
        ["t.toml:1:10", "t.toml:2:1", "t.toml:5:9", "t.toml:7:1", "t.toml:8:1", "TIDINGS_X", "--listen"];
    assert_eq!(places[..7], expected, "{found:#?}");
    // What only values can break comes after what could not be read.
    assert_eq!(places[7..], ["t.toml:4:16"], "{found:#?}");
}

#[test]
fn a_wrong_value_does_not_hide_another_one_below_it() {
    let dir = Dir::with("queue.lease = 'soon'");
    let sources = dir.sources().with_environment(variables(&[("TIDINGS_QUEUE__LEASE", "never")]));
    let found = dir.complaints(&sources);
    assert!(
        found.len() == 2 && found[0].starts_with("t.toml:1:15") && found[1].starts_with("TIDINGS_"),
        "{found:?}"
    );
}

#[test]
fn what_follows_from_a_mistake_is_not_another_one() {
    refused("[suites.unit]\ncommand = 'cargo test'", "t.toml:2:11: `suites.unit.command`: expected an array");
    refused("queue = { backoff_base = '10m', backoff_max = 'x' }", "t.toml:1:47: `queue.backoff_max`: ");
    let dir = Dir::with("[suites.unit]\ncwd = '.'");
    let sources = dir.sources().with_environment(variables(&[("TIDINGS_SUITES__unit__TIMEOUT", "1s")]));
    assert_eq!(
        dir.complaints(&sources),
        ["TIDINGS_SUITES__unit__TIMEOUT: `suites.unit`: `command` is missing"]
    );
}

#[test]
fn a_bound_is_told_of_the_source_that_holds() {
    let dir = Dir::with("queue.lease = '0s'");
    let sources = dir.sources().with_environment(variables(&[("TIDINGS_QUEUE__MAX_ATTEMPTS", "0")]));
    let found = dir.complaints(&sources);
    let starts = ["TIDINGS_QUEUE__MAX_ATTEMPTS: ", "t.toml:1:15: "];
    assert!(found.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{found:?}");
}

#[test]
fn syntax_errors_are_told_with_their_lines() {
    let dir = Dir::with("worker = \nqueue = { lease = '1s'\n[log\n");
    let found = dir.complaints(&dir.sources());
    assert!(found.len() >= 2 && found[0].starts_with("t.toml:1:"), "{found:?}");
}

#[test]
fn values_keep_within_their_bounds_and_fit_together() {
    refused("queue.lease = '999ms'", "t.toml:1:15: `queue.lease`: expected 1s to 1h, found 999ms");
    refused(
        "queue.backoff_base = '10m'",
        "t.toml:1:22: `queue.backoff_base`: the first pause (10m) is longer",
    );
    refused(
        "queue.backoff_max = '0s'",
        "t.toml:1:21: `queue.backoff_base`: the first pause (1s) is longer than `queue.backoff_max`",
    );
    refused("workers.concurrency = 0", "t.toml:1:23: `workers.concurrency`: expected 1 to 1024, found 0");
    refused("limits.keep_alive = '0s'", "t.toml:1:21: `limits.keep_alive`: expected 100ms to 1h");
    refused(
        "http.trusted_proxies = ['nginx']",
        "t.toml:1:25: `http.trusted_proxies.0`: expected an address or a network such as",
    );
    refused("limits.publish_batch = 1001", "t.toml:1:24: `limits.publish_batch`: expected 1 to 1000");
    refused(
        "limits.body_bytes = 2048",
        "t.toml:1:21: `limits.message_bytes`: a message of 65536 bytes does not fit",
    );
    refused("heartbeat.timeout = '0s'", "t.toml:1:21: `heartbeat.timeout`: expected 100ms to 1h");
    refused("listen = '0.0.0.0:80'", "t.toml:1:10: `listen`: 0.0.0.0:80 can be reached");
    refused("log.level = 'inof'", "t.toml:1:13: `log.level`: expected one of off, error");
    let made = Settings {
        worker: false,
        log: Log { level: "loud".to_owned(), ..Log::default() },
        ..Settings::default()
    };
    assert!(made.check().unwrap_err().to_string().starts_with("`log.level`: "));
}

const EXAMPLE: &str = "listen = '[::1]:9'\nworker = false\nlog = { level = 'debug', format = 'json' }\n\
    stress.allow = ['a.example', 'b']\nstore.synchronous = 'full'\n[queue]\nmax_attempts = 1\nlease = '1m'\n\
    [limits]\nconnections = 1\n[suites.unit]\ncommand = ['true']\nenv = { A = 'b' }\nparams.B = ['1', '2']\n";

proptest! {
    #[test]
    fn whatever_stands_in_the_sources_is_reported_and_never_a_panic(
        changes in prop::collection::vec((any::<Index>(), 0_usize..12, "[-\\[\\]{}='\".,a-c0-1\\n]{0,3}"), 1..6),
        name in "TIDINGS_(QUEUE|SUITES|LISTEN|STRESS)(__([a-c]|LEASE|ALLOW|unit|ENV|COMMAND)){0,3}",
        value in "[-\\[\\]{}='\".,a-c0-1]{0,6}",
    ) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (place, removed, added) in changes {
            let from = place.index(text.len().max(1)).min(text.len());
            let to = (from + removed).min(text.len());
            text.splice(from..to, added.chars());
        }
        let dir = Dir::with(&text.into_iter().collect::<String>());
        if let Err(e) = Settings::load(&dir.sources().with_environment([(name, value)])) {
            prop_assert!(e.mistakes.iter().all(|mistake| !mistake.place.is_empty()), "{}", e);
        }
    }
}

//! One test per rule of the file, each by the message that a person would read.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::value::RawValue;

use super::*;
use crate::model::event::{JobEvent, TestEvent};

/// A file with one good channel; `more` goes into it.
fn with(more: &str) -> String {
    format!("[channel.a]\npattern = \"a-{{id}}\"\nevents = [\"x\", \"test:y\", \"custom:*\"]\n{more}\n")
}

fn complaints(text: &str) -> Vec<String> {
    match Rules::parse("f.toml", text) {
        Ok(_) => Vec::new(),
        Err(e) => e.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Asserts that `text` has exactly one mistake, at `place` ("line:column"), whose message has `part`.
#[track_caller]
fn refused(text: &str, place: &str, part: &str) {
    let found = complaints(text);
    let [only] = &found[..] else { panic!("{text}\nshould have one mistake: {found:#?}") };
    assert!(only.starts_with(&format!("f.toml:{place}: ")), "{only}\nshould be at {place}");
    assert!(only.contains(part), "{only}\nshould say {part}");
}

#[test]
fn the_compiled_in_rules_have_no_mistake_and_carry_what_the_queue_sends() {
    let rules = Rules::parse("channels.toml", BUILTIN).unwrap_or_else(|e| panic!("{e}"));
    for event in TestEvent::ALL {
        assert!(rules.resolve("test-progress-t").unwrap().namespace.allows(event.name()));
        for mirror in event.mirrors(false).iter().chain(event.mirrors(true)) {
            assert!(rules.resolve(mirror).unwrap().namespace.allows(event.name()), "{mirror} {event:?}");
        }
    }
    for channel in ["queue-updates", "job-status-j"] {
        let namespace = rules.resolve(channel).unwrap().namespace;
        assert!(namespace.allows(JobEvent::Added.name()) && namespace.allows(JobEvent::Retrying.name()));
        assert!(namespace.conflation_path(JobEvent::Progress.name()).is_some());
    }
    assert!(rules.resolve("stress-test-t").unwrap().namespace.allows("test:progress"));
    assert!(rules.namespaces().iter().filter(|n| n.snapshot).map(|n| &n.name).eq(["test-progress"]));
    assert_eq!(rules.resolve("user-notifications-u").unwrap().namespace.join, Join::Owner);
    assert_eq!(rules.resolve("team-updates-t").unwrap().namespace.join, Join::Team);
}

#[test]
fn the_compiled_in_priorities_are_those_of_the_contract() {
    for namespace in Rules::builtin().namespaces() {
        for event in &namespace.events {
            let (listed, priority) = namespace
                .priorities
                .iter()
                .find(|(listed, _)| listed == event)
                .unwrap_or_else(|| panic!("{} lacks the priority of {event}", namespace.name));
            assert_eq!(*priority, default_priority(&listed.to_string()), "{listed} in {}", namespace.name);
        }
    }
}

#[test]
fn a_channel_is_found_with_what_its_placeholder_stands_for() {
    let rules = Rules::builtin();
    let found = rules.resolve("test-progress-stress_1").unwrap();
    assert_eq!(
        (found.namespace.name.as_str(), found.value("test-progress-stress_1")),
        ("test-progress", Some("stress_1"))
    );
    let found = rules.resolve("test-updates").unwrap();
    assert_eq!((found.namespace.name.as_str(), found.value("test-updates")), ("test-updates", None));
    for none in ["", "test-progress-", "queue-update", "test-progress-a b", "nothing"] {
        assert!(rules.resolve(none).is_none(), "{none}");
    }
}

#[test]
fn what_a_channel_does_not_say_comes_from_the_defaults_of_the_file_and_then_of_the_contract() {
    let text = format!(
        "[defaults]\njoin = \"user\"\nhistory = {{ size = 5 }}\n{}",
        with("history = { ttl = \"1h\" }\nbatch = { interval = \"0s\" }")
    );
    let namespace = &Rules::parse("f", &text).unwrap().namespaces()[0].clone();
    assert_eq!(namespace.history, History { size: 5, ttl: Duration::from_secs(3600) });
    assert_eq!(namespace.batch, Batch { max: 10, interval: Duration::ZERO });
    assert_eq!(namespace.join, Join::User);
    assert_eq!(namespace.publish, ["worker", "admin"].map(|r| Role::parse(r).unwrap()));
}

#[test]
fn an_event_has_its_own_priority_then_its_wildcards_then_the_contracts() {
    let more = "[channel.a.priority]\n\"custom:*\" = \"low\"\n\"custom:a:*\" = \"high\"\n\"custom:a:b\" = \"critical\"";
    let namespace = &Rules::parse("f", &with(more)).unwrap().namespaces()[0].clone();
    let priorities = ["custom:x", "custom:a:x", "custom:a:b", "x"].map(|event| namespace.priority(event));
    assert_eq!(priorities, [Priority::Low, Priority::High, Priority::Critical, Priority::Normal]);
    assert_eq!(namespace.priority("system:alert"), Priority::Critical);
}

#[test]
fn a_conflation_path_leads_to_a_key() {
    let namespace =
        &Rules::parse("f", &with("conflate = { \"x\" = \"of.id\" }")).unwrap().namespaces()[0].clone();
    let data = RawValue::from_string(r#"{"of":{"id":"7"}}"#.to_owned()).unwrap();
    let key = namespace.conflation_path("x").unwrap().key("x", &data);
    assert_eq!(key.as_deref(), Some("x\0\"7"));
    assert!(namespace.conflation_path("test:y").is_none());
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    refused(&with("histroy = {}"), "4:1", "did you mean `history`?");
    refused(&with("history = { sise = 1 }"), "4:13", "did you mean `size`?");
    refused(&with("[channels]"), "4:2", "did you mean `channel`?");
    refused(&with("[defaults]\nevents = []"), "5:1", "unknown key `events` in [defaults]; the keys are join");
    refused(&with("[channel.a.batch]\nwindow = 1"), "5:1", "the keys are max, interval");
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    refused(&with("snapshot = \"yes\""), "4:12", "`snapshot` takes true or false, not a string");
    refused(&with("history = 5"), "4:11", "`history` takes a table, not an integer");
    refused(&with("history.ttl = 5"), "4:15", "a duration in quotes");
    refused(&with("history.size = 1.5"), "4:16", "a whole number, not a float");
    refused(&with("publish = \"admin\""), "4:11", "an array of roles");
    refused(&with("publish = [1]"), "4:12", "`publish` takes a string, not an integer");
    refused(&with("priority = { x = 2 }"), "4:18", "`priority`");
    refused("channel = 1", "1:11", "`channel` takes a table");
}

#[test]
fn impossible_values_are_refused() {
    refused(&with("history.size = 10000001"), "4:16", "between 0 and 10000000, not 10000001");
    refused(&with("history.size = -1"), "4:16", "not -1");
    refused(&with("history.ttl = \"999ms\""), "4:15", "between 1s and 10years");
    refused(&with("history.ttl = \"soon\""), "4:15", "such as \"7d\"");
    refused(&with("batch.max = 0"), "4:13", "between 1 and 1000");
    refused(&with("batch.max = 0x3e9"), "4:13", "not 0x3e9");
    refused(&with("batch.interval = \"11s\""), "4:18", "between 0s and 10s");
    refused(&with("priority = { x = \"urgent\" }"), "4:18", "not \"urgent\"");
    refused(&with("conflate = { x = \"a..b\" }"), "4:18", "joined by dots");
}

#[test]
fn join_and_roles_keep_to_their_words() {
    refused(&with("join = \"ownr\""), "4:8", "did you mean `owner`?");
    refused(&with("join = \"role:\""), "4:8", "a role is 1 to 64");
    refused(&with("publish = [\"a b\"]"), "4:12", "a role is 1 to 64");
    refused(&with("publish = [\"a\", \"a\"]"), "4:17", "stands twice");
    let namespace =
        &Rules::parse("f", &with("join = \"role:lead\"\npublish = []")).unwrap().namespaces()[0].clone();
    assert_eq!(namespace.join, Join::Role(Role::parse("lead").unwrap()));
    assert!(namespace.publish.is_empty());
}

#[test]
fn owner_and_team_need_somebody_to_ask_for() {
    let plain = "[channel.a]\npattern = \"a\"\nevents = [\"x\"]\n";
    refused(&format!("{plain}join = \"owner\""), "4:8", "`a` has none");
    refused(&format!("{plain}[defaults]\njoin = \"team\""), "2:11", "of [defaults] asks for the team");
}

#[test]
fn events_are_names_and_each_stands_once() {
    let events = |list: &str| format!("[channel.a]\npattern = \"a\"\nevents = [{list}]");
    refused(&events(""), "3:10", "`events` is empty");
    refused(&events("\"a b\""), "3:11", "not \"a b\"");
    refused(&events("\"*\""), "3:11", "`:*` at its end");
    refused(&events("\"x\", \"y\", \"x\""), "3:21", "`x` stands twice");
    refused(&events("1"), "3:11", "`events`");
}

#[test]
fn priorities_and_conflation_are_for_events_of_the_channel() {
    refused(&with("priority = { \"test:z\" = \"low\" }"), "4:14", "did you mean `test:y`?");
    refused(&with("conflate = { \"other\" = \"id\" }"), "4:14", "not among the events of `a`");
    assert_eq!(complaints(&with("priority = { \"test:*\" = \"low\", \"custom:b\" = \"low\" }")), [""; 0]);
}

#[test]
fn a_snapshot_is_of_a_test() {
    refused(&with("snapshot = true"), "4:12", "needs {testId}");
    assert_eq!(complaints(&with("snapshot = false")), [""; 0]);
}

#[test]
fn a_channel_has_a_pattern_and_events() {
    refused("[channel.a]\nevents = [\"x\"]", "1:10", "lacks `pattern`");
    refused("[channel.a]\npattern = \"a\"", "1:10", "lacks `events`");
    refused("", "1:1", "no channel is declared");
    refused("[channel.a]\npattern = \"{a}{b}\"\nevents = [\"x\"]", "2:11", "at most one {placeholder}");
    refused("[channel.\"a b\"]\npattern = \"a\"\nevents = [\"x\"]", "1:10", "the name of a channel's entry");
}

#[test]
fn patterns_that_share_a_name_are_refused_with_both_places() {
    let text = "[channel.b]\npattern = \"t-{x}\"\nevents = [\"x\"]\n[channel.a]\npattern = \"t-all\"\nevents = [\"x\"]";
    refused(text, "5:11", "`t-all` of `a` overlaps `t-{x}` of `b` (line 2): `t-all` would belong to both");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_lines() {
    let text = "[channel.a]\npattern = \"a b\"\nevents = [\"x\"\njoin = \"nobody\"\n[channel.b]\nbatch = { max = 0 }\n= 3\n";
    let lines: Vec<_> = Rules::parse("f", text).unwrap_err().diagnostics().iter().map(|d| d.line).collect();
    assert!(lines.is_sorted() && lines.len() >= 3, "{lines:?}");
    for line in [2, 6, 7] {
        assert_eq!(lines.iter().filter(|l| **l == line).count(), 1, "line {line} in {lines:?}");
    }
}

#[test]
fn columns_count_characters() {
    let found = complaints(&with("publish = ['ä', 1]"));
    assert!(
        found[0].starts_with("f.toml:4:12: a role") && found[1].starts_with("f.toml:4:17: `publish`"),
        "{found:?}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Rules::load(Path::new("no/such/file.toml")).unwrap_err();
    assert!(error.to_string().starts_with("no/such/file.toml: "), "{error}");
    assert!(error.diagnostics().is_empty());
}

proptest! {
    #[test]
    fn whatever_happens_to_the_file_is_reported_and_never_a_panic(
        changes in prop::collection::vec((any::<Index>(), 0_usize..40, "[ -~\\n\u{e9}]{0,4}"), 1..6),
    ) {
        let mut text: Vec<char> = BUILTIN.chars().collect();
        for (place, removed, added) in changes {
            let from = place.index(text.len().max(1)).min(text.len());
            let to = (from + removed).min(text.len());
            text.splice(from..to, added.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(e) = Rules::parse("f", &text) {
            let lines = text.lines().count().max(1) + 1;
            prop_assert!(!e.diagnostics().is_empty());
            prop_assert!(e.diagnostics().is_sorted());
            prop_assert!(e.diagnostics().iter().all(|d| (1..=lines).contains(&d.line) && d.column >= 1));
        }
    }
}

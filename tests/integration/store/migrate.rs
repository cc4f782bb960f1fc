//! Files of earlier versions, with what a server wrote into them.

use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;
use tidings::broker::append::{Append, Draft};
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::broker::{AppendGroup, Broker};
use tidings::config::channels::{BUILTIN, Rules};
use tidings::model::{ChannelName, EventName, MessageId, TestId, now_ms};

use super::{file, open};
use crate::support::stored::{bounds, packs, runs};
use crate::support::{ALL, channel, id_of, raw};

const SAMPLE: &str = include_str!("../../samples/store/schema_5.sql");

/// The file as an earlier version left it, before anything of this one has seen it.
fn before() -> Connection {
    let conn = Connection::open_in_memory().expect("a database");
    conn.execute_batch(SAMPLE).expect("the sample is a database");
    conn
}

/// The messages of a channel, as JSON, in the order of their offsets.
fn written(conn: &Connection, name: &str) -> Vec<String> {
    let sql = "SELECT body || ',\"epoch\":\"' || epoch || '\",\"offset\":' || offset || '}'
               FROM message JOIN channel ON channel.id = message.channel WHERE name = ?1 ORDER BY offset";
    let mut rows = conn.prepare(sql).expect("a query");
    rows.query_map([name], |row| row.get(0)).expect("messages").map(|row| row.expect("a message")).collect()
}

fn again(rules: &Rules, name: &str, id: &str) -> AppendGroup {
    let draft = Draft {
        id: MessageId::parse(id).expect("an id"),
        fresh: false,
        event: EventName::parse("custom:again").expect("an event"),
        priority: None,
        timestamp_ms: now_ms(),
        user_id: None,
        data: &raw(&serde_json::json!(1)),
        extra: &[],
    };
    let namespace = rules.resolve(name).expect("a channel").namespace;
    let first = Append::new(ChannelName::parse(name).expect("a name"), namespace, draft, None);
    AppendGroup { first, mirrors: Vec::new() }
}

#[tokio::test]
async fn a_store_of_the_fifth_version_keeps_its_messages_their_places_and_ids() {
    let dir = TempDir::new().unwrap();
    file(dir.path()).execute_batch(SAMPLE).unwrap();
    // The sample's messages are of one day.
    let rules = Arc::new(Rules::parse("channels.toml", &BUILTIN.replace("\"7d\"", "\"10years\"")).unwrap());
    let names = ["test-progress-a", "test-progress-b", "test-updates"];
    for round in 0..2 {
        let store = open(dir.path());
        let broker = EmbeddedBroker::new(store.clone(), rules.clone(), Live::default());
        for name in names {
            let page = broker.history(&channel(name), 0, ALL).await.unwrap();
            let json: Vec<_> = page.messages.iter().map(|message| message.json().get().to_owned()).collect();
            let written = written(&before(), name);
            assert_eq!(json.get(..written.len()).unwrap_or(&json), written, "{name}");
            assert_eq!((page.oldest, page.top), (1, 6 + round), "{name}");
            for message in &page.messages {
                let id = id_of(message);
                let answer = broker.append(vec![again(&rules, name, &id)]).await.unwrap().remove(0).unwrap();
                assert!(answer.duplicate, "{name}: {id} is known");
                assert_eq!(answer.position, message.position, "{name}: {id}");
            }
            let survey = broker.survey(&channel(name), 0, 6).await.unwrap();
            let expected = if name.ends_with("-a") { (6, None) } else { (0, Some(6)) };
            assert_eq!((survey.plain, survey.newest.get("test:progress").copied()), expected, "{name}");
            let next = again(&rules, name, &format!("next-{round}"));
            let answer = broker.append(vec![next]).await.unwrap().remove(0).unwrap();
            assert_eq!((answer.duplicate, answer.position.offset), (false, 7 + round), "{name}");
        }
        let test = broker.snapshot(&TestId::parse("b").unwrap()).await.unwrap().expect("a test");
        assert_eq!((test.progress, test.offset), (50.0, 7 + round));
        store.close().await;
    }
    let conn = file(dir.path());
    let (bounds, packs) = (bounds(&conn).unwrap(), packs(&conn).unwrap());
    assert_eq!(runs(&conn).unwrap().len(), packs.len());
    assert_eq!((packs.len(), bounds[&2]), (24, (1, 8)));
    let given: u64 = conn.query_row("SELECT count(*) FROM given_id", [], |row| row.get(0)).unwrap();
    assert_eq!(given, 18, "the server's own six are found by their time");
    let left = "SELECT count(*) FROM sqlite_schema WHERE name IN ('message', 'place', 'message_id')";
    assert_eq!(conn.query_row(left, [], |row| row.get::<_, u64>(0)).unwrap(), 0);
}

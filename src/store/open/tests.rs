//! Files as earlier versions left them, and as a host that went down did.

use super::super::{packs, runs};
use super::*;

/// A store as the first version left it: two channels and no inboxes.
fn first_version(dir: &Path) {
    let conn = Connection::open(dir.join("tidings.db")).unwrap();
    conn.execute_batch(MIGRATIONS[0]).unwrap();
    conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    let channel = "INSERT INTO channel (name, epoch, top, oldest, touched_at) VALUES (?1, 'first', 3, 1, 0)";
    for name in ["user-notifications-ann", "queue-updates"] {
        conn.execute(channel, [name]).unwrap();
    }
    let message = "INSERT INTO message VALUES (?1, ?2, 'm' || ?2, 'custom:x', 2, ?2, NULL, '{\"n\":' || ?2)";
    for (channel, offset) in [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3)] {
        conn.execute(message, [channel, offset]).unwrap();
    }
}

/// A store as the fourth version left it: two channels whose messages cross, some of them removed, some with a key.
fn fourth_version(dir: &Path) {
    let conn = Connection::open(dir.join("tidings.db")).unwrap();
    for step in &MIGRATIONS[..4] {
        conn.execute_batch(step).unwrap();
    }
    conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    conn.pragma_update(None, "user_version", 4).unwrap();
    for name in ["test-updates", "queue-updates"] {
        let channel =
            "INSERT INTO channel (name, epoch, top, oldest, touched_at) VALUES (?1, 'first', 5, 3, 0)";
        conn.execute(channel, [name]).unwrap();
    }
    for offset in 1..=5 {
        for channel in [2, 1] {
            let message =
                "INSERT INTO message (channel, offset, id, event, priority, timestamp, conflation_key, body)
                           VALUES (?1, ?2, 'm' || ?2, 'custom:x', 2, 0, iif(?2 = 4, 'key', NULL), '{')";
            conn.execute(message, [channel, offset]).unwrap();
        }
    }
    conn.execute("DELETE FROM message WHERE offset < 3", []).unwrap();
}

fn reopen(dir: &Path) -> Opened {
    loop {
        match open(dir, Synchronous::Normal) {
            // A process that another test is just starting has the lock for as long as it is its parent's copy.
            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn epochs(conn: &Connection, table: &str) -> Vec<String> {
    let mut statement = conn.prepare(&format!("SELECT epoch FROM {table} ORDER BY rowid")).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The offsets, keys and bodies of a channel, all of which is merged.
fn messages(conn: &Connection, channel: i64) -> Vec<(u64, Option<String>, String)> {
    let places = runs::read(conn, channel, &(0..=u64::MAX >> 1)).unwrap();
    let mut messages = Vec::new();
    let read = packs::messages(conn, channel, &places, |place, message| {
        let key = place.conflation_key.as_ref().map(ToString::to_string);
        messages.push((place.offset, key, message.body.to_owned()));
        Ok(true)
    });
    read.unwrap();
    messages
}

#[test]
fn a_store_of_the_first_version_gets_inboxes_and_keeps_its_channels_and_messages() {
    let dir = tempfile::tempdir().unwrap();
    first_version(dir.path());
    let opened = open(dir.path(), Synchronous::Normal).unwrap();
    assert_eq!(epochs(&opened.conn, "channel"), ["first", "first"]);
    assert_eq!(epochs(&opened.conn, "inbox"), Vec::<String>::new());
    let bodies: Vec<_> = messages(&opened.conn, 2).into_iter().map(|(_, _, body)| body).collect();
    assert_eq!(bodies, ["{\"n\":1", "{\"n\":2", "{\"n\":3"]);
    let ids = "SELECT group_concat(id || offset) FROM given_id WHERE channel = 2 ORDER BY offset";
    let ids: String = opened.conn.query_row(ids, [], |row| row.get(0)).unwrap();
    assert_eq!(ids, "m11,m22,m33");
    let version: i64 = opened.conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, i64::try_from(MIGRATIONS.len()).unwrap());
}

#[test]
fn when_the_host_went_down_hard_notifications_follow_their_channel_into_its_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    first_version(dir.path());
    let opened = open(dir.path(), Synchronous::Normal).unwrap();
    let entry = "INSERT INTO inbox (user, channel, id, epoch, offset, timestamp, body)
                 VALUES ('ann', 'user-notifications-ann', 'm', 'first', 3, 0, '{')";
    opened.conn.execute(entry, []).unwrap();
    opened.conn.execute("UPDATE run SET boot_id = 'another'", []).unwrap();
    drop(opened);
    let opened = reopen(dir.path());
    let channels = epochs(&opened.conn, "channel");
    assert_ne!(channels[0], "first");
    assert_eq!(epochs(&opened.conn, "inbox"), channels[..1]);
}

#[test]
fn a_store_of_the_fourth_version_gets_the_places_of_all_its_messages() {
    let dir = tempfile::tempdir().unwrap();
    fourth_version(dir.path());
    let opened = open(dir.path(), Synchronous::Normal).unwrap();
    assert_eq!(opened.mark, 10);
    for channel in [1, 2] {
        let key = |offset| (offset == 4).then(|| "key".to_owned());
        let expected = [3, 4, 5].map(|offset| (offset, key(offset), "{".to_owned()));
        assert_eq!(messages(&opened.conn, channel), expected);
    }
    let old = "SELECT count(*) FROM sqlite_schema WHERE name IN ('message_place', 'message', 'place')";
    assert_eq!(opened.conn.query_row(old, [], |row| row.get::<_, u64>(0)).unwrap(), 0);
}

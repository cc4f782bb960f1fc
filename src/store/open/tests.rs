//! Files as earlier versions left them, and as a host that went down did.

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

#[test]
fn a_store_of_the_first_version_gets_inboxes_and_keeps_its_channels_and_messages() {
    let dir = tempfile::tempdir().unwrap();
    first_version(dir.path());
    let opened = open(dir.path(), Synchronous::Normal).unwrap();
    assert_eq!(epochs(&opened.conn, "channel"), ["first", "first"]);
    assert_eq!(epochs(&opened.conn, "inbox"), Vec::<String>::new());
    let bodies = "SELECT group_concat(id || body) FROM message WHERE channel = 2 ORDER BY offset";
    let bodies: String = opened.conn.query_row(bodies, [], |row| row.get(0)).unwrap();
    assert_eq!(bodies, "m1{\"n\":1,m2{\"n\":2,m3{\"n\":3");
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
    let mut places = opened
        .conn
        .prepare(
            "SELECT place.channel, place.offset, place.conflation_key, message.id
             FROM place JOIN message USING (seq, channel, offset) ORDER BY place.channel, place.offset",
        )
        .unwrap();
    let places: Vec<(u64, u64, Option<String>, String)> = places
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = |offset| (offset == 4).then(|| "key".to_owned());
    let expected =
        [1, 2].map(|channel| [3, 4, 5].map(|offset| (channel, offset, key(offset), format!("m{offset}"))));
    assert_eq!(places, expected.concat());
    let old = "SELECT count(*) FROM sqlite_schema WHERE name = 'message_place'";
    assert_eq!(opened.conn.query_row(old, [], |row| row.get::<_, u64>(0)).unwrap(), 0);
}

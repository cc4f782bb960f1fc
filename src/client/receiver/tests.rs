use super::*;

const ROOM: &str = "test-progress-t";

fn ack(offset: u64, recovered: bool, replayed: u64) -> Joined {
    let epoch = Epoch::new("e1");
    Joined { room: ROOM.to_owned(), epoch, offset, recovered, replayed, since: None, snapshot: None }
}

fn after(offset: u64) -> Since {
    Since::After(Position { epoch: Epoch::new("e1"), offset })
}

fn joined(since: &Since, ack: &Joined) -> Receiver {
    let mut receiver = Receiver::new();
    receiver.joined(since, ack);
    receiver
}

fn envelope(epoch: &'static str, offset: u64, conflated: u64) -> Envelope<'static> {
    Envelope {
        channel: Cow::Borrowed(ROOM),
        event: Cow::Borrowed("test:progress"),
        epoch: Cow::Borrowed(epoch),
        offset,
        conflated,
        timestamp: 0,
    }
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

#[test]
fn a_room_without_replay_starts_after_the_acknowledgement() {
    let mut receiver = joined(&Since::Now, &ack(7, true, 0));
    assert_eq!(receiver.take(&envelope("e1", 8, 0)), Verdict::Deliver);
    assert_eq!(receiver.take(&envelope("e1", 9, 0)), Verdict::Deliver);
    assert_eq!(receiver.position(ROOM).map(|p| p.offset), Some(9));
}

#[test]
fn a_replay_starts_after_since() {
    let mut receiver = joined(&after(3), &ack(7, true, 2));
    assert_eq!(receiver.take(&envelope("e1", 4, 0)), Verdict::Deliver);
    assert_eq!(receiver.take(&envelope("e1", 7, 2)), Verdict::Deliver);
    let mut receiver = joined(&Since::Start, &ack(2, true, 1));
    assert_eq!(receiver.take(&envelope("e1", 2, 1)), Verdict::Deliver);
}

#[test]
fn a_room_that_could_not_recover_starts_after_the_acknowledgement() {
    let mut receiver = joined(&after(3), &ack(7, false, 0));
    assert_eq!(receiver.take(&envelope("e1", 8, 0)), Verdict::Deliver);
}

#[test]
fn where_only_the_server_knows_the_position_the_first_message_sets_it() {
    let mut receiver = joined(&Since::Stored, &ack(7, true, 3));
    assert_eq!(receiver.position(ROOM), None);
    assert_eq!(receiver.take(&envelope("e1", 5, 0)), Verdict::Deliver);
    assert_eq!(receiver.take(&envelope("e1", 7, 0)), Verdict::Gap { expected: 6, got: 7 });
}

#[test]
fn a_message_that_was_there_before_is_a_duplicate() {
    let mut receiver = joined(&Since::Now, &ack(7, true, 0));
    assert_eq!(receiver.take(&envelope("e1", 7, 0)), Verdict::Duplicate);
    assert_eq!(receiver.take(&envelope("e1", 2, 1)), Verdict::Duplicate);
    assert_eq!(receiver.take(&envelope("e1", 8, 0)), Verdict::Deliver);
}

#[test]
fn a_gap_stays_until_the_room_is_joined_again() {
    let mut receiver = joined(&Since::Now, &ack(7, true, 0));
    assert_eq!(receiver.take(&envelope("e1", 9, 0)), Verdict::Gap { expected: 8, got: 9 });
    assert_eq!(receiver.take(&envelope("e1", 10, 0)), Verdict::Gap { expected: 8, got: 10 });
    let since = Since::After(receiver.position(ROOM).expect("joined").clone());
    assert_eq!(since, after(7));
    receiver.joined(&since, &ack(10, true, 3));
    for offset in 8..=10 {
        assert_eq!(receiver.take(&envelope("e1", offset, 0)), Verdict::Deliver);
    }
}

#[test]
fn conflating_what_was_delivered_is_a_gap_too() {
    let mut receiver = joined(&Since::Now, &ack(7, true, 0));
    assert_eq!(receiver.take(&envelope("e1", 9, 4)), Verdict::Gap { expected: 12, got: 9 });
    assert_eq!(receiver.take(&envelope("e1", 9, 1)), Verdict::Deliver);
}

#[test]
fn another_epoch_without_a_reset_is_seen_and_a_reset_starts_over() {
    let mut receiver = joined(&Since::Now, &ack(7, true, 0));
    assert_eq!(receiver.take(&envelope("e2", 8, 0)), Verdict::OtherEpoch);
    let reset =
        raw(&format!(r#"{{"room":"{ROOM}","reason":"epoch","epoch":"e2","offset":2,"snapshot":{{}}}}"#));
    assert!(receiver.receive(ROOM_RESET, &reset).expect("a reset").is_empty());
    assert_eq!(receiver.take(&envelope("e2", 3, 0)), Verdict::Deliver);
    assert_eq!(receiver.take(&envelope("e1", 8, 0)), Verdict::OtherEpoch);
}

#[test]
fn a_room_that_was_left_is_not_brought_back_by_a_late_reset() {
    let mut receiver = joined(&Since::Now, &ack(7, true, 0));
    receiver.left(ROOM);
    let reset = raw(&format!(r#"{{"room":"{ROOM}","reason":"epoch","epoch":"e2","offset":2}}"#));
    receiver.receive(ROOM_RESET, &reset).expect("a reset");
    assert_eq!(receiver.take(&envelope("e2", 3, 0)), Verdict::NotJoined);
}

#[test]
fn a_batch_is_judged_message_by_message_in_its_order() {
    let mut receiver = joined(&Since::Now, &ack(7, true, 0));
    let message = |offset: u64| {
        format!(
            r#"{{"id":"m","event":"test:log","channel":"{ROOM}","data":{{}},"epoch":"e1","offset":{offset}}}"#
        )
    };
    let batch = raw(&format!("[{},{},{}]", message(8), message(8), message(9)));
    let received = receiver.receive(MESSAGE_BATCH, &batch).expect("a batch");
    let verdicts: Vec<_> = received.iter().map(|r| r.verdict).collect();
    assert_eq!(verdicts, [Verdict::Deliver, Verdict::Duplicate, Verdict::Deliver]);
    assert_eq!(received[2].message.get(), message(9));

    let single = raw(&message(10));
    let received = receiver.receive("test:log", &single).expect("a message");
    assert_eq!(received[0].verdict, Verdict::Deliver);
    assert!(receiver.receive(MESSAGE_BATCH, &raw("{}")).is_err());
}

#[test]
fn what_has_no_position_is_no_message() {
    let mut receiver = joined(&Since::Now, &ack(7, true, 0));
    for data in ["null", "[]", r#"{"connectionId":"c"}"#, r#"{"t":1,"serverTime":2}"#] {
        assert!(receiver.receive("connection:established", &raw(data)).expect("ignored").is_empty());
    }
}

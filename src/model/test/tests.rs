//! Lives of tests, told by their messages.

use super::*;
use serde_json::json;
use serde_json::value::RawValue;

fn snapshot() -> Snapshot {
    let id = TestId::parse("t").expect("an id");
    Snapshot::new(id, "command", TestState::Queued, Epoch::new("e"))
}

#[expect(clippy::needless_pass_by_value, reason = "a value that is written where it is passed reads better")]
fn fold(s: &mut Snapshot, event: TestEvent, data: Value) -> Result<(), Refused> {
    let raw = RawValue::from_string(data.to_string()).expect("JSON");
    s.fold(event, TestData::parse(event, &raw)?, 5)
}

#[test]
fn a_life_is_told_from_start_to_end() {
    let mut s = snapshot();
    fold(&mut s, TestEvent::Started, json!({"attempt": 1, "startedAt": 3, "jobId": "j"})).unwrap();
    let progress = json!({"attempt": 1, "progress": 40, "counts": {"passed": 2, "failed": 1, "skipped": 0},
        "failures": [{"name": "a", "message": "no"}]});
    fold(&mut s, TestEvent::Progress, progress).unwrap();
    assert_eq!((s.progress, s.counts.failed, s.failures.len()), (40.0, 1, 1));
    fold(&mut s, TestEvent::Completed, json!({"attempt": 1, "results": {"n": 1}})).unwrap();
    assert_eq!((s.state, s.progress, s.ended_at), (TestState::Completed, 100.0, Some(5)));
}

#[test]
fn late_words_of_an_old_attempt_change_nothing() {
    let mut s = snapshot();
    fold(&mut s, TestEvent::Started, json!({"attempt": 2})).unwrap();
    let before = s.clone();
    let refused = fold(&mut s, TestEvent::Progress, json!({"attempt": 1, "progress": 90}));
    assert_eq!(refused, Err(Refused::StaleAttempt { attempt: 1, current: 2 }));
    assert_eq!(s, before);
    fold(&mut s, TestEvent::Failed, json!({"attempt": 2, "willRetry": true})).unwrap();
    assert_eq!(s.state, TestState::Retrying);
    let refused = fold(&mut s, TestEvent::Progress, json!({"attempt": 2, "progress": 90}));
    assert!(matches!(refused, Err(Refused::Ended { attempt: 2, .. })));
}

#[test]
fn a_waiting_retry_can_be_cancelled_but_an_end_is_final() {
    let mut s = snapshot();
    fold(&mut s, TestEvent::Failed, json!({"attempt": 1, "willRetry": true})).unwrap();
    fold(&mut s, TestEvent::Cancelled, json!({"attempt": 1, "reason": "enough"})).unwrap();
    assert_eq!(s.state, TestState::Cancelled);
    assert!(fold(&mut s, TestEvent::Cancelled, json!({"attempt": 1})).is_err());
}

#[test]
fn wrong_types_are_named() {
    let mut s = snapshot();
    let err = fold(&mut s, TestEvent::Progress, json!({"attempt": 1, "progress": "half"}));
    assert!(matches!(err, Err(Refused::Data(m)) if m.contains("test:progress")));
    assert!(fold(&mut s, TestEvent::Progress, json!({"attempt": 1, "progress": 101})).is_err());
    assert!(fold(&mut s, TestEvent::Progress, json!({"attempt": 0})).is_err());
    for list in [json!([1]), json!([]), json!([null, null, null])] {
        let err = fold(&mut s, TestEvent::Progress, list);
        assert!(matches!(err, Err(Refused::Data(m)) if m.contains("is an object")));
    }
}

#[test]
fn a_beginning_that_comes_again_or_too_late_changes_nothing() {
    let begun = |job: &str, queued_at, state| {
        let job_id = Some(JobId::parse(job).expect("an id"));
        Snapshot { job_id, queued_at: Some(queued_at), state, ..snapshot() }
    };
    let first = begun("a", 5, TestState::Scheduled);
    assert!(first.replaces(&snapshot()), "a test that only reported from outside");
    assert!(!first.replaces(&first));
    let due = begun("a", 5, TestState::Queued);
    assert!(due.replaces(&first) && !due.replaces(&due) && !first.replaces(&due));
    let mut running = due.clone();
    fold(&mut running, TestEvent::Started, json!({"attempt": 1})).unwrap();
    for late in [&first, &due, &begun("z", 4, TestState::Queued)] {
        assert!(!late.replaces(&running), "{late:?}");
    }
    for newer in [begun("a", 6, TestState::Queued), begun("b", 5, TestState::Queued)] {
        assert!(newer.replaces(&running), "{newer:?}");
    }
}

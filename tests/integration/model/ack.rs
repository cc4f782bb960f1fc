//! The acknowledgement of a join against the model, which says what has to follow.

use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use tidings::fanout::{JoinAck, Since};
use tidings::model::Position;

use super::ops::Room;
use super::past::{Past, Span, same_state};
use super::view::{Member, Promise};
use super::world::World;

/// Checks an acknowledgement, and says what has to follow.
pub(super) fn join(
    room: Room,
    since: &Since,
    wants_snapshot: bool,
    ack: &JoinAck,
    span: Span,
    world: &World,
) -> Result<Member, TestCaseError> {
    let pasts = world.pasts();
    let past = pasts[&room].iter().rev().find(|past| past.begin < span.end).expect("a past");
    prop_assert_eq!((&ack.epoch, ack.room.as_str()), (&past.epoch, room.name()));
    let top = Position { epoch: ack.epoch.clone(), offset: ack.offset };
    let (low, high) = past.tops(span);
    prop_assert!(
        (low..=high).contains(&top.offset) || room.is_lossy(),
        "the top of {:?} was {}..={}, not {}",
        room,
        low,
        high,
        top
    );
    let lost = lost(past, since, ack, span)?;
    let recovered = *since != Since::Now && lost.is_none();
    prop_assert_eq!(ack.recovered, recovered, "{:?} since {:?}, which is {:?}", ack, since, lost);
    let base = match since {
        Since::At(at) if recovered => at.offset,
        Since::Start if recovered => 0,
        _ => top.offset,
    };
    let survey = past.survey(base, top.offset).len() as u64;
    prop_assert_eq!(ack.replayed, survey, "{:?} since {:?}", ack, since);
    let shown = room == Room::Test && (wants_snapshot || ack.replayed == 0);
    let state = if shown { past.test_at(top.offset) } else { Ok(None) };
    prop_assert!(
        state.is_ok_and(|state| same_state(state, ack.snapshot.as_ref())),
        "{:?} against {:?}",
        ack,
        state
    );
    world.try_one(match (lost, recovered, ack.replayed) {
        (Some(reason), ..) => reason,
        (None, true, 0) => "recovered nothing",
        (None, true, _) => "recovered",
        (None, false, _) => "joined now",
    });
    if ack.replayed < top.offset - base {
        world.try_one("replayed less than was missed");
    }
    let promised = Promise { base, upto: top.offset, left: ack.replayed };
    Ok(Member {
        at: Position { epoch: top.epoch.clone(), offset: base },
        handed: Vec::new(),
        promised: (ack.replayed > 0).then_some(promised),
        reset: lost.map(|reason| (reason, top)),
        spared: Vec::new(),
        acked: None,
    })
}

/// Why the past could not be recovered, if so. Where retention or publishers ran at the same time, the
/// acknowledgement says which it was.
fn lost(
    past: &Past,
    since: &Since,
    ack: &JoinAck,
    span: Span,
) -> Result<Option<&'static str>, TestCaseError> {
    let offset = match since {
        Since::Now => return Ok(None),
        Since::At(at) if at.epoch != ack.epoch => return Ok(Some("epoch_changed")),
        Since::At(at) => at.offset,
        Since::Start => 0,
    };
    if offset > ack.offset {
        return Ok(Some("ahead_of_top"));
    }
    if offset == ack.offset {
        return Ok(None);
    }
    if past.room.is_lossy() {
        return Ok(Some("trimmed"));
    }
    let (low, high) = past.oldest(span, ack.offset);
    Ok(match offset + 1 {
        next if next >= high => None,
        next if next < low => Some("trimmed"),
        _ if ack.recovered => None,
        _ => Some("trimmed"),
    })
}

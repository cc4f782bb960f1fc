//! Plans: what messages change in snapshots, worked out onto the states that were seen last.

use std::collections::HashMap;
use std::sync::Arc;

use crate::broker::append::{Append, Fold};
use crate::broker::redis::core::{Core, Stored};
use crate::model::test::Refused;
use crate::model::{ChannelName, Epoch, Snapshot, TestState};
use crate::redis::Call;

/// A change of a snapshot that the script is asked to make.
pub(super) struct Planned {
    pub(super) channel: ChannelName,
    pub(super) before: u64,
    pub(super) outcome: Result<(Arc<Snapshot>, bool), Refused>,
}

impl Planned {
    /// Adds what the script is told of it.
    pub(super) fn add_to<'c, 's>(&self, call: &'c mut Call<'s>) -> &'c mut Call<'s> {
        match &self.outcome {
            Ok((snapshot, indexed)) => {
                // A struct of strings, numbers and JSON always serialises.
                let text = serde_json::to_string(&**snapshot).unwrap_or_default();
                call.arg("write").arg(self.before).arg(text);
                call.arg(snapshot.test_id.as_str()).arg(snapshot.state.name()).arg(u8::from(*indexed))
            }
            Err(_) => call.arg("refuse").arg(self.before).arg("").arg("").arg("").arg(0),
        }
    }
}

/// Works out what messages change in snapshots, one after the other.
pub(super) fn plan<'a>(core: &Core, firsts: impl Iterator<Item = &'a Append>) -> Vec<Option<Planned>> {
    let mut states: HashMap<&ChannelName, Stored> = HashMap::new();
    let mut plans = Vec::new();
    for first in firsts {
        let Some(fold) = &first.fold else {
            plans.push(None);
            continue;
        };
        let channel = &first.channel;
        let known = states.get(channel).cloned().or_else(|| core.snapshots.get(channel));
        let Stored { version: before, snapshot } = known.unwrap_or_default();
        let outcome = folded(snapshot.as_deref(), fold, first.timestamp_ms);
        if let Ok((snapshot, _)) = &outcome {
            states.insert(channel, Stored { version: before + 1, snapshot: Some(snapshot.clone()) });
        }
        plans.push(Some(Planned { channel: channel.clone(), before, outcome }));
    }
    plans
}

/// The state after a message, and whether lists of tests have to know.
fn folded(
    before: Option<&Snapshot>,
    fold: &Fold,
    timestamp_ms: i64,
) -> Result<(Arc<Snapshot>, bool), Refused> {
    let mut snapshot = before.cloned().unwrap_or_else(|| unknown_test(fold));
    snapshot.admits(fold.event, fold.data.attempt, fold.job_id.as_ref())?;
    snapshot.fold(fold.event, fold.data.clone(), timestamp_ms)?;
    let indexed = before.is_none_or(|before| before.state != snapshot.state);
    Ok((Arc::new(snapshot), indexed))
}

/// A test that reports from outside begins with its first message. Its place is the channel's, which whoever reads
/// it fills in.
fn unknown_test(fold: &Fold) -> Snapshot {
    let test_type = fold.data.test_type.as_deref().unwrap_or("external");
    Snapshot::new(fold.test_id.clone(), test_type, TestState::Running, Epoch::new(""))
}

//! The promises of the sync state, for whoever keeps it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tidings::broker::append::{Append, Draft};
use tidings::broker::embedded::{EmbeddedBroker, Live};
use tidings::broker::{AppendGroup, Broker};
use tidings::model::{ChannelName, Epoch, EventName, MessageId, Position, UserId, now_ms};
use tidings::store::{Store, Synchronous};
use tidings::sync::embedded::EmbeddedSync;
use tidings::sync::{Basis, Device, Place, Saved, SyncState};

use crate::support::rules;

/// A back end with a broker beside it: places are of real channels.
struct Bench {
    sync: Arc<dyn SyncState>,
    broker: Arc<dyn Broker>,
    _dir: tempfile::TempDir,
}

fn embedded() -> Bench {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path(), Synchronous::Normal).expect("the store opens");
    let broker = Arc::new(EmbeddedBroker::new(store.clone(), rules(), Live::default()));
    let sync = Arc::new(EmbeddedSync::new(store, Duration::from_millis(50)));
    Bench { sync, broker, _dir: dir }
}

impl Bench {
    /// A channel with `n` messages; its epoch.
    async fn channel(&self, name: &str, n: usize) -> (ChannelName, Epoch) {
        let channel = ChannelName::parse(name).expect("a name");
        let data = RawValue::from_string("{}".to_owned()).expect("JSON");
        for _ in 0..n {
            let draft = Draft {
                id: MessageId::generate(),
                fresh: true,
                event: EventName::parse("custom:x").expect("an event"),
                priority: None,
                timestamp_ms: now_ms(),
                user_id: None,
                data: &data,
                extra: &[],
            };
            let first = Append::own(&rules(), name, draft, None).expect("a channel of the tests");
            let group = AppendGroup { first, mirrors: Vec::new() };
            self.broker.append(vec![group]).await.expect("appended");
        }
        let epoch = self.broker.top(&channel).await.expect("a top").position.epoch;
        (channel, epoch)
    }

    async fn save(&self, device: &Device, channel: &ChannelName, epoch: &Epoch, offset: u64, basis: Basis) {
        let place = Place { position: Position { epoch: epoch.clone(), offset }, basis };
        let saved = Saved { device: device.clone(), channel: channel.clone(), place };
        self.sync.save(vec![saved]).await.expect("saved");
    }

    async fn offset(&self, device: &Device, channel: &ChannelName) -> Option<(u64, Basis)> {
        let place = self.sync.load(device, channel).await.expect("loaded")?;
        Some((place.position.offset, place.basis))
    }
}

fn device(user: Option<&str>, client: &str) -> Device {
    let user_id = user.map(|user| UserId::parse(user).expect("a user"));
    Device { user_id, client_id: client.to_owned() }
}

#[tokio::test]
async fn a_place_never_moves_back_within_an_epoch_in_whichever_order_saves_come() {
    let bench = embedded();
    let (channel, epoch) = bench.channel("plain-a", 9).await;
    let tablet = device(Some("ada"), "tablet");
    assert_eq!(bench.offset(&tablet, &channel).await, None);
    for (offset, expected) in [(5, 5), (3, 5), (8, 8), (0, 8), (8, 8)] {
        bench.save(&tablet, &channel, &epoch, offset, Basis::Written).await;
        assert_eq!(bench.offset(&tablet, &channel).await, Some((expected, Basis::Written)));
    }
}

#[tokio::test]
async fn what_a_device_acknowledged_counts_more_than_what_was_written_to_it() {
    let bench = embedded();
    let (channel, epoch) = bench.channel("plain-a", 9).await;
    let tablet = device(Some("ada"), "tablet");
    bench.save(&tablet, &channel, &epoch, 9, Basis::Written).await;
    bench.save(&tablet, &channel, &epoch, 4, Basis::Acknowledged).await;
    assert_eq!(bench.offset(&tablet, &channel).await, Some((4, Basis::Acknowledged)));
    bench.save(&tablet, &channel, &epoch, 9, Basis::Written).await;
    bench.save(&tablet, &channel, &epoch, 2, Basis::Acknowledged).await;
    assert_eq!(bench.offset(&tablet, &channel).await, Some((4, Basis::Acknowledged)));
}

#[tokio::test]
async fn a_late_save_of_another_epoch_or_beyond_the_top_is_not_stored() {
    let bench = embedded();
    let (channel, epoch) = bench.channel("plain-a", 3).await;
    let tablet = device(None, "tablet");
    bench.save(&tablet, &channel, &epoch, 2, Basis::Written).await;
    bench.save(&tablet, &channel, &Epoch::new("of-old"), 3, Basis::Written).await;
    bench.save(&tablet, &channel, &epoch, 4, Basis::Written).await;
    assert_eq!(bench.offset(&tablet, &channel).await, Some((2, Basis::Written)));
}

#[tokio::test]
async fn devices_users_and_channels_are_independent() {
    let bench = embedded();
    let (a, epoch_a) = bench.channel("plain-a", 9).await;
    let (b, epoch_b) = bench.channel("plain-b", 9).await;
    let devices = [
        device(Some("ada"), "tablet"),
        device(Some("ada"), "phone"),
        device(Some("bob"), "tablet"),
        device(None, "tablet"),
    ];
    for (n, device) in (1..).zip(&devices) {
        bench.save(device, &a, &epoch_a, n, Basis::Written).await;
        bench.save(device, &b, &epoch_b, n + 4, Basis::Written).await;
    }
    for (n, device) in (1..).zip(&devices) {
        assert_eq!(bench.offset(device, &a).await, Some((n, Basis::Written)));
        assert_eq!(bench.offset(device, &b).await, Some((n + 4, Basis::Written)));
    }
}

#[tokio::test]
async fn places_that_are_not_saved_any_more_are_forgotten() {
    let bench = embedded();
    let (channel, epoch) = bench.channel("plain-a", 1).await;
    let tablet = device(None, "tablet");
    bench.save(&tablet, &channel, &epoch, 1, Basis::Written).await;
    crate::support::wait_until("the place is forgotten", async || {
        bench.sync.retain().await.expect("retained");
        bench.offset(&tablet, &channel).await.is_none()
    })
    .await;
}

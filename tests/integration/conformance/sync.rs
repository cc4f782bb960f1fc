//! The promises of the sync state, for whoever keeps it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tidings::broker::AppendGroup;
use tidings::broker::append::{Append, Draft};
use tidings::model::{ChannelName, Epoch, EventName, MessageId, Position, UserId, now_ms};
use tidings::sync::{Basis, Device, Place, Saved, SyncState};

use super::Node;
use crate::conformance::{Backend, for_each_backend};
use crate::support::rules;

for_each_backend!(a cluster too:
    a_place_never_moves_back_within_an_epoch_in_whichever_order_saves_come,
    what_a_device_acknowledged_counts_more_than_what_was_written_to_it,
    a_late_save_of_another_epoch_or_beyond_the_top_is_not_stored,
    devices_users_and_channels_are_independent,
    many_places_are_saved_at_once,
    places_that_are_not_saved_any_more_are_forgotten,
);

/// A back end with a broker beside it: places are of real channels.
struct Bench {
    sync: Arc<dyn SyncState>,
    node: Node,
}

async fn start(backend: &dyn Backend) -> Bench {
    keeping(backend, Duration::from_secs(60)).await
}

/// The same with places that are kept for `retention`.
async fn keeping(backend: &dyn Backend, retention: Duration) -> Bench {
    let node = backend.start().await;
    Bench { sync: backend.sync(&node, retention), node }
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
            self.node.broker.append(vec![group]).await.expect("appended");
        }
        let epoch = self.node.broker.top(&channel).await.expect("a top").position.epoch;
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

async fn a_place_never_moves_back_within_an_epoch_in_whichever_order_saves_come(backend: &dyn Backend) {
    let bench = start(backend).await;
    let (channel, epoch) = bench.channel("plain-a", 9).await;
    let tablet = device(Some("ada"), "tablet");
    assert_eq!(bench.offset(&tablet, &channel).await, None);
    for (offset, expected) in [(5, 5), (3, 5), (8, 8), (0, 8), (8, 8)] {
        bench.save(&tablet, &channel, &epoch, offset, Basis::Written).await;
        assert_eq!(bench.offset(&tablet, &channel).await, Some((expected, Basis::Written)));
    }
}

async fn what_a_device_acknowledged_counts_more_than_what_was_written_to_it(backend: &dyn Backend) {
    let bench = start(backend).await;
    let (channel, epoch) = bench.channel("plain-a", 9).await;
    let tablet = device(Some("ada"), "tablet");
    bench.save(&tablet, &channel, &epoch, 9, Basis::Written).await;
    bench.save(&tablet, &channel, &epoch, 4, Basis::Acknowledged).await;
    assert_eq!(bench.offset(&tablet, &channel).await, Some((4, Basis::Acknowledged)));
    bench.save(&tablet, &channel, &epoch, 9, Basis::Written).await;
    bench.save(&tablet, &channel, &epoch, 2, Basis::Acknowledged).await;
    assert_eq!(bench.offset(&tablet, &channel).await, Some((4, Basis::Acknowledged)));
}

async fn a_late_save_of_another_epoch_or_beyond_the_top_is_not_stored(backend: &dyn Backend) {
    let bench = start(backend).await;
    let (channel, epoch) = bench.channel("plain-a", 3).await;
    let tablet = device(None, "tablet");
    bench.save(&tablet, &channel, &epoch, 2, Basis::Written).await;
    bench.save(&tablet, &channel, &Epoch::new("of-old"), 3, Basis::Written).await;
    bench.save(&tablet, &channel, &epoch, 4, Basis::Written).await;
    assert_eq!(bench.offset(&tablet, &channel).await, Some((2, Basis::Written)));
}

async fn devices_users_and_channels_are_independent(backend: &dyn Backend) {
    let bench = start(backend).await;
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

async fn many_places_are_saved_at_once(backend: &dyn Backend) {
    let bench = start(backend).await;
    let (a, epoch_a) = bench.channel("plain-a", 2).await;
    let (b, epoch_b) = bench.channel("plain-b", 2).await;
    let devices: Vec<_> = (0..600).map(|n| device(Some("ada"), &format!("device {n} {{x}}"))).collect();
    let places = devices.iter().flat_map(|device| {
        [(&a, &epoch_a), (&b, &epoch_b)].map(|(channel, epoch)| {
            let position = Position { epoch: epoch.clone(), offset: 2 };
            let place = Place { position, basis: Basis::Acknowledged };
            Saved { device: device.clone(), channel: channel.clone(), place }
        })
    });
    bench.sync.save(places.collect()).await.expect("saved");
    for device in &devices {
        assert_eq!(bench.offset(device, &a).await, Some((2, Basis::Acknowledged)));
        assert_eq!(bench.offset(device, &b).await, Some((2, Basis::Acknowledged)));
    }
}

async fn places_that_are_not_saved_any_more_are_forgotten(backend: &dyn Backend) {
    let bench = keeping(backend, Duration::from_millis(50)).await;
    let (channel, epoch) = bench.channel("plain-a", 1).await;
    let tablet = device(None, "tablet");
    bench.save(&tablet, &channel, &epoch, 1, Basis::Written).await;
    crate::support::wait_until("the place is forgotten", async || {
        bench.sync.retain().await.expect("retained");
        bench.offset(&tablet, &channel).await.is_none()
    })
    .await;
}

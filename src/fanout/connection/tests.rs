//! Connections that keep up, and one that does not.

use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::model::message::OpenEnvelope;
use crate::model::{ChannelName, Epoch, Position, Priority};

/// Takes nothing, and notes that it was ended.
struct Stuck(mpsc::Sender<()>);

impl Transport for Stuck {
    fn send(&self, _: Frame<'_>) -> Result<(), SendError> {
        Err(SendError::Full)
    }

    fn kill(&self) {
        let _ = self.0.send(());
    }
}

/// Takes nothing until it is opened, then everything.
struct Gate {
    open: Arc<AtomicBool>,
    taken: mpsc::Sender<()>,
}

impl Transport for Gate {
    fn send(&self, _: Frame<'_>) -> Result<(), SendError> {
        if !self.open.load(Ordering::Acquire) {
            return Err(SendError::Full);
        }
        let _ = self.taken.send(());
        Ok(())
    }

    fn kill(&self) {}
}

#[tokio::test(start_paused = true)]
async fn of_what_a_receiver_was_told_of_nothing_is_conflated() {
    let (taken, frames) = mpsc::channel();
    let open = Arc::new(AtomicBool::new(false));
    let ticker = Ticker::new();
    tokio::spawn(ticker.clone().run());
    let gate = Gate { open: open.clone(), taken };
    let connection = Connection::new(Box::new(gate), ticker, Limits::default());
    let window = Batch { max: 10, interval: Duration::from_millis(100) };
    (1..=5).for_each(|offset| connection.replay(&message(offset, Some("k")), false, window));
    // Live ones of the same key: the newest of them stands for all.
    (6..=9).for_each(|offset| connection.push(&message(offset, Some("k")), false, window));
    open.store(true, Ordering::Release);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(frames.try_iter().count(), 5 + 1);
}

fn message(offset: u64, key: Option<&str>) -> Arc<Published> {
    let open = OpenEnvelope::from_stored(format!(r#"{{"data":"{}""#, "x".repeat(100)));
    let position = Position { epoch: Epoch::new("e"), offset };
    let (channel, event) = (ChannelName::parse("c").unwrap(), EventName::parse("custom:x").unwrap());
    Arc::new(Published::new(channel, position, event, Priority::Normal, 0, key.map(Arc::from), open))
}

/// Takes everything.
struct Open;

impl Transport for Open {
    fn send(&self, _: Frame<'_>) -> Result<(), SendError> {
        Ok(())
    }

    fn kill(&self) {}
}

#[tokio::test(start_paused = true)]
async fn history_does_not_wait_for_the_batch_window() {
    let limits = Limits { bytes: 10_000, room: 100 };
    let ticker = Ticker::new();
    tokio::spawn(ticker.clone().run());
    let connection = Connection::new(Box::new(Open), ticker, limits);
    let window = Batch { max: 10, interval: Duration::from_millis(100) };
    let began = Instant::now();
    for offset in 1..=20 {
        connection.wait_for_room().await;
        connection.push(&message(offset, None), false, window);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[test]
fn a_connection_beyond_its_bound_is_ended_without_holding_up_who_publishes() {
    let (killed, kills) = mpsc::channel();
    let limits = Limits { bytes: 1000, room: 100 };
    let connection = Connection::new(Box::new(Stuck(killed)), Ticker::new(), limits);
    let (done, ended) = mpsc::channel();
    // A thread of its own, so that a publisher who hangs fails the test instead of hanging it.
    std::thread::spawn(move || {
        let window = Batch { max: 10, interval: Duration::from_millis(100) };
        (1..=20).for_each(|offset| connection.push(&message(offset, None), false, window));
        let _ = done.send(connection.is_closed());
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(5)), Ok(true));
    assert_eq!(kills.try_iter().count(), 1);
}

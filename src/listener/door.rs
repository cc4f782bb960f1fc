//! The door: which connections are accepted, and which of the accepted ones end before they have asked for anything.
//!
//! Whoever is over a limit is answered without being served: a few hundred bytes are written and the connection is
//! closed. Connections that have not asked for anything yet stand in a line, the oldest first; those that stand there
//! for too long end, and where the line is too long the oldest end earlier, so that new ones still come in.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::connection::{KillSwitch, WeakKillSwitch};
use super::inbound::Inbound;
use super::turned_away::TurnedAway;
use crate::config::live::Live;
use crate::config::settings::Limits;
use crate::limits::address::{Address, Proxies};
use crate::limits::crowd::of_address;
use crate::limits::rate::Rate;
use crate::limits::table::{Over, Table};
use crate::limits::{Notice, Reason, cap, met};

/// TCP connections beside those that are sockets or streams: requests, probes, and those that have not asked yet.
const OTHERS: usize = 1024;
/// How many frames may come for one event.
const FRAMES_PER_EVENT: u32 = 10;
/// How often those are looked for that stand in the line for too long.
const LOOK: Duration = Duration::from_millis(500);

/// Who is let in.
#[derive(Debug)]
pub struct Door {
    limits: Live<Limits>,
    proxies: Live<Proxies>,
    addresses: Table<Address>,
    open: AtomicUsize,
    line: Mutex<Line>,
    frame_bytes: usize,
    turned_away: TurnedAway,
    notice: Notice,
}

/// Those that have not asked for anything yet, among others.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<(Instant, WeakKillSwitch)>,
    look_at: usize,
}

/// The right to be connected, for as long as it lives.
#[derive(Debug)]
pub(super) struct Admission {
    door: Arc<Door>,
    counted: Option<Address>,
}

impl Admission {
    /// Goes on listening to a connection that ends, for a moment: see [`TurnedAway::listen`].
    pub(super) fn listen_out(&self, stream: Arc<TcpStream>) {
        self.door.turned_away.listen(stream);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.door.open.fetch_sub(1, Ordering::AcqRel);
        if let Some(address) = self.counted {
            self.door.addresses.release(address);
        }
    }
}

impl Door {
    /// A door that lets in as many as `limits` says.
    #[must_use]
    pub fn new(limits: Live<Limits>, proxies: Live<Proxies>) -> Arc<Self> {
        // What the sockets were built with: the length of a message is read at the start.
        let frame_bytes = Limits::frame_bytes(limits.read().message_bytes);
        Arc::new(Self {
            limits,
            proxies,
            addresses: Table::default(),
            open: AtomicUsize::new(0),
            line: Mutex::default(),
            frame_bytes,
            turned_away: TurnedAway::default(),
            notice: Notice::default(),
        })
    }

    /// Whose word about their clients counts.
    pub(super) fn proxies(&self) -> Arc<Proxies> {
        self.proxies.get()
    }

    pub(super) fn limits(&self) -> Arc<Limits> {
        self.limits.get()
    }

    /// Lets `peer` in, or turns it away.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: SocketAddr,
        stream: TcpStream,
    ) -> Option<(TcpStream, Admission)> {
        match self.count(peer.ip()) {
            Ok(admission) => Some((stream, admission)),
            Err((reason, retry)) => {
                met(reason);
                if let Some(times) = self.notice.due() {
                    let reason = reason.label();
                    tracing::warn!(%peer, reason, times, "a connection was turned away: a limit is reached");
                }
                self.turned_away.answer(stream, reason, retry);
                None
            }
        }
    }

    fn count(self: &Arc<Self>, peer: IpAddr) -> Result<Admission, (Reason, Duration)> {
        let open = self.open.fetch_add(1, Ordering::AcqRel);
        // From here on its end is counted, whatever comes.
        let mut admission = Admission { door: self.clone(), counted: None };
        let limits = self.limits.get();
        if open >= limits.connections.saturating_mul(2).saturating_add(OTHERS) {
            return Err((Reason::Connections, Duration::from_secs(1)));
        }
        // A proxy has the connections of many; they are counted by their requests.
        if self.proxies.read().trusts(peer) {
            return Ok(admission);
        }
        let address = Address::from(peer);
        let (most, rate) = of_address(&limits, address);
        if most.is_some() || rate.is_some() {
            self.addresses.hold(address, most, rate).map_err(|over| match over {
                Over::Count => (Reason::ConnectionsOfAddress, Duration::from_secs(1)),
                Over::Rate(wait) => (Reason::ConnectRate, wait),
            })?;
            admission.counted = Some(address);
        }
        Ok(admission)
    }

    /// What a WebSocket of `peer` may send.
    pub(super) fn inbound(&self, peer: IpAddr) -> Inbound {
        Inbound::new(self.frames(peer), self.frame_bytes as u64)
    }

    /// How many frames of a WebSocket `peer` may send in a second: far more than events, because clients answer, too.
    fn frames(&self, peer: IpAddr) -> Option<Rate> {
        let configured = self.limits.read().events_per_second;
        // What a proxy passes on is not from this machine.
        let is_loopback = Address::from(peer).is_loopback() && !self.proxies.read().trusts(peer);
        let events = cap(configured, Limits::EVENTS_PER_SECOND, is_loopback)?;
        Some(Rate::per_second(events.saturating_mul(FRAMES_PER_EVENT)))
    }

    /// A connection was made: it stands in the line until it has asked for something.
    pub(super) fn entered(&self, switch: &KillSwitch) {
        let (now, handshakes) = (Instant::now(), self.limits.read().handshakes);
        let mut line = self.line();
        line.waiting.push_back((now, switch.downgrade()));
        if line.waiting.len() < line.look_at.max(handshakes) {
            return;
        }
        line.waiting.retain(|(_, switch)| waits(switch).is_some());
        while line.waiting.len() > handshakes {
            if let Some((_, switch)) = line.waiting.pop_front() {
                end(&switch, Reason::Handshakes);
            }
        }
        line.look_at = line.waiting.len() * 2;
    }

    /// Ends those that stand in the line for too long, for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let timeout = self.limits.read().connect_timeout;
            tokio::time::sleep(LOOK.min(timeout / 4)).await;
            let late = Instant::now().checked_sub(timeout);
            let mut line = self.line();
            while let Some((since, _)) = line.waiting.front()
                && late.is_some_and(|late| *since <= late)
            {
                if let Some((_, switch)) = line.waiting.pop_front() {
                    end(&switch, Reason::Timeout);
                }
            }
            if line.waiting.is_empty() {
                *line = Line::default();
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The switch of a connection that has not asked for anything yet.
fn waits(switch: &WeakKillSwitch) -> Option<KillSwitch> {
    switch.upgrade().filter(|switch| switch.request() == 0 && switch.check().is_ok())
}

fn end(switch: &WeakKillSwitch, reason: Reason) {
    if let Some(switch) = waits(switch) {
        met(reason);
        switch.press();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(limits: Limits) -> Arc<Door> {
        Door::new(Live::new(limits), Live::default())
    }

    #[test]
    fn only_so_many_are_let_in_and_each_that_goes_makes_room() {
        let door = door(Limits { connections: 1, ..Limits::default() });
        let peer = "192.0.2.1".parse().unwrap();
        let mut inside: Vec<_> = (0..OTHERS + 2)
            .map(|n| {
                door.count([10, 0, u8::try_from(n / 256).unwrap(), u8::try_from(n % 256).unwrap()].into())
            })
            .collect();
        assert!(inside.iter().all(Result::is_ok));
        assert!(matches!(door.count(peer), Err((Reason::Connections, _))));
        inside.pop();
        let admission = door.count(peer);
        assert!(admission.is_ok());
        assert!(matches!(door.count(peer), Err((Reason::Connections, _))));
    }

    #[test]
    fn an_address_has_its_share_and_this_machine_all_of_it() {
        let door = door(Limits::default());
        let (peer, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let burst = usize::try_from(2 * Limits::CONNECTS_PER_SECOND).unwrap();
        let inside: Vec<_> = (0..burst).map(|_| door.count(peer)).collect();
        assert!(inside.iter().all(Result::is_ok));
        assert!(matches!(door.count(peer), Err((Reason::ConnectRate, wait)) if wait > Duration::ZERO));
        assert!(door.count(other).is_ok());
        let local: Vec<_> = (0..5000).map(|_| door.count([127, 0, 0, 1].into())).collect();
        assert!(local.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_line_is_too_long_the_oldest_that_asked_for_nothing_end() {
        let door = door(Limits { handshakes: 3, ..Limits::default() });
        let switches: Vec<_> = (0..5).map(|_| KillSwitch::default()).collect();
        switches[1].begin_request();
        for switch in &switches {
            door.entered(switch);
        }
        let ended: Vec<_> = switches.iter().map(|switch| switch.check().is_err()).collect();
        assert_eq!(ended, [true, false, false, false, false]);
    }
}

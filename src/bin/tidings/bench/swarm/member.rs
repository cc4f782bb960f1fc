//! One subscriber: what it does with the bytes that its connection brings.

use std::time::Instant;

use hdrhistogram::Histogram;

use super::account::Account;
use super::frame;
use super::link::{Link, Stage};
use super::packet::{self, Packet};
use super::{Plan, microseconds};

/// One subscriber of one room, through all of its connections.
#[derive(Debug)]
pub(super) struct Member {
    /// Its number among all subscribers.
    pub(super) index: usize,
    pub(super) room: usize,
    pub(super) link: Option<Link>,
    pub(super) account: Account,
    /// The epoch of its room, where the server gives one.
    pub(super) epoch: Option<String>,
    /// Its connection failed: nobody waits for it any more.
    pub(super) failed: bool,
}

/// What a thread counts over all of its members.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Tally {
    /// From when a message was meant to leave until it was read, in µs.
    pub(in crate::bench) latency: Histogram<u64>,
    /// From when all were told to connect until a join was acknowledged, in µs.
    pub(in crate::bench) joins: Histogram<u64>,
    /// Different messages that came.
    pub(in crate::bench) delivered: u64,
    /// Bytes that were read for that.
    pub(in crate::bench) bytes: u64,
    /// Messages whose position was checked.
    pub(in crate::bench) positions: u64,
    /// Messages of a room that the subscriber is not in.
    pub(in crate::bench) astray: u64,
}

/// What the members of a thread share while they are served.
pub(super) struct Context<'a> {
    pub(super) plan: &'a Plan,
    pub(super) tally: &'a mut Tally,
    pub(super) rng: &'a mut fastrand::Rng,
    /// When the connections were told to come.
    pub(super) called: Instant,
    /// Whether they come back to where they were.
    pub(super) resume: bool,
    /// Set when a join is acknowledged.
    pub(super) joined: bool,
}

impl Member {
    pub(super) fn new(index: usize, room: usize) -> Self {
        Self { index, room, link: None, account: Account::default(), epoch: None, failed: false }
    }

    /// Writes on, once the socket takes it.
    pub(super) fn writable(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if link.stage == Stage::Connecting {
            if !link.is_connected().map_err(|e| format!("connecting: {e}"))? {
                return Ok(());
            }
            link.stage = Stage::Upgrading;
            let _ = link.stream.set_nodelay(true);
            return link.write(&cx.plan.greeting.upgrade).map_err(|e| e.to_string());
        }
        link.flush().map_err(|e| e.to_string())
    }

    /// Takes the whole frames at the beginning of `bytes`; how many bytes they were.
    pub(super) fn take(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, String> {
        let Some(link) = &mut self.link else { return Ok(bytes.len()) };
        let mut at = 0;
        if link.stage == Stage::Upgrading {
            let Some(head) = packet::upgraded(bytes)? else { return Ok(0) };
            link.stage = Stage::Opening;
            at = head;
        }
        // Once for all that one read brought.
        let now_ns = u64::try_from(cx.plan.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        while let Some(frame) = frame::first(&bytes[at..]).map_err(|e| e.to_string())? {
            at += frame.bytes;
            match frame.opcode {
                frame::TEXT => match Packet::read(frame.payload) {
                    Packet::Event(event) => self.event(event, now_ns, cx),
                    packet => self.answer(packet, cx)?,
                },
                frame::PING => self.send(frame::PONG, frame.payload, cx)?,
                frame::CLOSE => return Err("the server closed the connection".to_owned()),
                _ => {}
            }
        }
        Ok(at)
    }

    /// The hot path: counts the messages of an event.
    fn event(&mut self, event: &[u8], now_ns: u64, cx: &mut Context<'_>) {
        let Self { account, room, .. } = self;
        let tally = &mut *cx.tally;
        cx.plan.marker.scan(event, |stamp| {
            if stamp.room != *room {
                tally.astray += 1;
                return;
            }
            if let Some(offset) = stamp.offset {
                tally.positions += 1;
                account.take_offset(offset, stamp.conflated);
            }
            if account.take(stamp.seq) {
                tally.delivered += 1;
                tally.latency.saturating_record(now_ns.saturating_sub(stamp.at_ns) / 1_000);
            }
        });
    }

    /// Goes on with the handshake, and answers what the server asks.
    fn answer(&mut self, packet: Packet<'_>, cx: &mut Context<'_>) -> Result<(), String> {
        let Some(stage) = self.link.as_ref().map(|link| link.stage) else { return Ok(()) };
        let next = match (packet, stage) {
            (Packet::Ping, _) => {
                self.send(frame::TEXT, b"3", cx)?;
                stage
            }
            (Packet::Refused(reason), _) => return Err(packet::refused(reason)),
            (Packet::Disconnected, _) => return Err("the server ended the connection".to_owned()),
            (Packet::Open, Stage::Opening) => {
                self.send(frame::TEXT, &cx.plan.greeting.connect, cx)?;
                Stage::Greeting
            }
            (Packet::Connected, Stage::Greeting) => {
                let since = self.since(cx.resume)?;
                let join = cx.plan.greeting.join(&cx.plan.rooms[self.room], since);
                self.send(frame::TEXT, &join, cx)?;
                Stage::Joining
            }
            (Packet::Ack(answer), Stage::Joining) => {
                self.joined(answer, cx)?;
                Stage::Joined
            }
            _ => stage,
        };
        if let Some(link) = &mut self.link {
            link.stage = next;
        }
        Ok(())
    }

    /// After which position it wants to go on.
    fn since(&self, resume: bool) -> Result<Option<(&str, u64)>, String> {
        if !resume {
            return Ok(None);
        }
        match (&self.epoch, self.account.last_offset()) {
            (Some(epoch), Some(offset)) => Ok(Some((epoch, offset))),
            _ => Err("the server gave no position to come back to".to_owned()),
        }
    }

    fn joined(&mut self, answer: &[u8], cx: &mut Context<'_>) -> Result<(), String> {
        let joined = packet::joined(answer)?;
        if cx.resume && joined.recovered == Some(false) {
            return Err("what was missed could not be recovered".to_owned());
        }
        self.epoch = joined.epoch.or(self.epoch.take());
        if let Some(offset) = joined.offset {
            self.account.begin(offset);
        }
        cx.tally.joins.saturating_record(microseconds(cx.called.elapsed()));
        cx.joined = true;
        Ok(())
    }

    fn send(&mut self, opcode: u8, payload: &[u8], cx: &mut Context<'_>) -> Result<(), String> {
        match &mut self.link {
            Some(link) => link.send(opcode, payload, cx.rng).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }
}

impl Tally {
    pub(in crate::bench) fn new() -> Self {
        Self {
            latency: super::histogram(),
            joins: super::histogram(),
            delivered: 0,
            bytes: 0,
            positions: 0,
            astray: 0,
        }
    }

    pub(in crate::bench) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.latency.add(&other.latency);
        let _ = self.joins.add(&other.joins);
        self.delivered += other.delivered;
        self.bytes += other.bytes;
        self.positions += other.positions;
        self.astray += other.astray;
    }
}

//! One thread of the swarm: an event loop over its share of the subscribers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use super::floor::Floor;
use super::link::{Link, Stage};
use super::member::{Context, Member, Tally};
use super::{Plan, Shared, WAKER};
use crate::bench::pace::Pace;
use crate::bench::process;

/// How much is read at once; more would not fit the second-level cache beside the rest.
const READ_BYTES: usize = 128 * 1024;
/// Under full load, how long is waited until more can be read at once.
const GATHER: Duration = Duration::from_millis(1);
/// Full load is when so many messages come in twice that time.
const FULL_LOAD: u64 = 32;
/// Different reasons of failure that are told apart.
const MOST_REASONS: usize = 20;

/// What the swarm asks of its threads.
#[derive(Debug)]
pub(super) enum Command {
    /// Connect and join, at most `at_once` connections being on their way at a time.
    Connect { at_once: usize, resume: bool, called: Instant },
    /// Drop all connections.
    Disconnect,
    /// Tell, and begin to count anew.
    Tell(Sender<Told>),
    /// End; the members are told.
    Finish(Sender<Vec<(usize, super::Account)>>),
}

/// What a thread has to tell.
#[derive(Debug)]
pub(super) struct Told {
    /// Since the last time.
    pub(super) tally: Tally,
    /// What the thread has used in all.
    pub(super) cpu: Duration,
    /// Why connections failed, and how many did.
    pub(super) reasons: BTreeMap<String, u64>,
    /// How many connections are how far.
    pub(super) stages: BTreeMap<&'static str, u64>,
}

pub(super) struct Worker {
    thread: usize,
    poll: Poll,
    commands: Receiver<Command>,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    pace: Arc<Pace>,
    members: Vec<Member>,
    floors: Vec<Floor>,
    /// What every connection is read into.
    buffer: Vec<u8>,
    tally: Tally,
    /// What of the tally the other threads know already.
    published: u64,
    reasons: BTreeMap<String, u64>,
    rng: fastrand::Rng,
    /// The next member that is to connect.
    next: usize,
    on_their_way: usize,
    at_once: usize,
    resume: bool,
    called: Instant,
}

impl Worker {
    /// A thread with the members that are given, each as its number and room.
    pub(super) fn new(
        thread: usize,
        (poll, commands): (Poll, Receiver<Command>),
        members: impl Iterator<Item = (usize, usize)>,
        (plan, shared, pace): (Arc<Plan>, Arc<Shared>, Arc<Pace>),
    ) -> Self {
        let members: Vec<Member> = members.map(|(index, room)| Member::new(index, room)).collect();
        let mut floors: Vec<Floor> = plan.rooms.iter().map(|_| Floor::default()).collect();
        for (at, member) in members.iter().enumerate() {
            floors[member.room].members.push(at);
        }
        for (room, floor) in floors.iter_mut().enumerate() {
            pace.set(thread, room, floor.look(&members));
        }
        let next = members.len();
        let called = plan.origin;
        Self {
            thread,
            poll,
            commands,
            plan,
            shared,
            pace,
            members,
            floors,
            buffer: vec![0; READ_BYTES],
            tally: Tally::new(),
            published: 0,
            reasons: BTreeMap::new(),
            rng: fastrand::Rng::new(),
            next,
            on_their_way: 0,
            at_once: 0,
            resume: false,
            called,
        }
    }

    /// Runs until it is told to finish, or nobody is left who could.
    pub(super) fn run(mut self) -> std::io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        let (mut lately, mut since) = (0, Instant::now());
        loop {
            match self.poll.poll(&mut events, None) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            let mut moved = false;
            for event in &events {
                if event.token() != WAKER {
                    moved |= self.serve(event);
                }
            }
            self.connect_more();
            if moved {
                self.pace.wake();
            }
            let news = self.tally.delivered - self.published;
            if news > 0 {
                self.shared.delivered.fetch_add(news, Ordering::Relaxed);
                self.published = self.tally.delivered;
            }
            lately += news;
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Finish(answer)) => {
                        let accounts = self.members.into_iter().map(|m| (m.room, m.account)).collect();
                        let _ = answer.send(accounts);
                        return Ok(());
                    }
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            if self.plan.gather && lately >= FULL_LOAD {
                if since.elapsed() < 2 * GATHER {
                    std::thread::sleep(GATHER);
                }
                (lately, since) = (0, Instant::now());
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Connect { at_once, resume, called } => {
                (self.at_once, self.resume, self.called) = (at_once, resume, called);
                (self.next, self.on_their_way) = (0, 0);
                self.connect_more();
            }
            Command::Disconnect => {
                self.next = self.members.len();
                for member in &mut self.members {
                    member.link = None;
                }
            }
            Command::Tell(answer) => {
                let tally = std::mem::replace(&mut self.tally, Tally::new());
                // What was counted since the last round is in the tally that is given away.
                self.shared.delivered.fetch_add(tally.delivered - self.published, Ordering::Relaxed);
                self.published = 0;
                let mut stages = BTreeMap::new();
                for member in &self.members {
                    *stages.entry(stage(member)).or_default() += 1;
                }
                let reasons = self.reasons.clone();
                let _ = answer.send(Told { tally, cpu: process::thread_cpu(), reasons, stages });
            }
            Command::Finish(_) => {}
        }
    }

    /// Begins as many connections as may be on their way.
    fn connect_more(&mut self) {
        while self.on_their_way < self.at_once && self.next < self.members.len() {
            let at = self.next;
            self.next += 1;
            if self.members[at].failed {
                continue;
            }
            self.on_their_way += 1;
            let begun = Link::connect(self.plan.server, self.members[at].index).and_then(|mut link| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut link.stream, Token(at), interest)?;
                Ok(link)
            });
            match begun {
                Ok(link) => self.members[at].link = Some(link),
                Err(e) => self.fail(at, format!("connecting: {e}")),
            }
        }
    }

    /// Does what a socket is ready for; whether the floor of a room moved.
    fn serve(&mut self, event: &Event) -> bool {
        let Token(at) = event.token();
        let before = self.members[at].account.next();
        let mut joined = false;
        let mut done = Ok(());
        if event.is_writable() {
            done = self.with(at, &mut joined, |member, _, cx| member.writable(cx));
        }
        if event.is_readable() && done.is_ok() {
            // Of an end that came together with the last bytes there is no second event.
            let to_the_end = event.is_read_closed() || event.is_error();
            done = self.with(at, &mut joined, |member, buffer, cx| read(member, buffer, cx, to_the_end));
        }
        if joined {
            self.on_their_way = self.on_their_way.saturating_sub(1);
            self.shared.joined.fetch_add(1, Ordering::Relaxed);
        }
        let mut moved = false;
        let room = self.members[at].room;
        if self.members[at].account.next() != before
            && let Some(floor) = self.floors[room].moved(before, &self.members)
        {
            self.pace.set(self.thread, room, floor);
            moved = true;
        }
        if let Err(reason) = done {
            self.fail(at, reason);
            moved = true;
        }
        moved
    }

    fn with<T>(
        &mut self,
        at: usize,
        joined: &mut bool,
        serve: impl FnOnce(&mut Member, &mut Vec<u8>, &mut Context<'_>) -> T,
    ) -> T {
        let mut cx = Context {
            plan: &self.plan,
            tally: &mut self.tally,
            rng: &mut self.rng,
            called: self.called,
            resume: self.resume,
            joined: false,
        };
        let done = serve(&mut self.members[at], &mut self.buffer, &mut cx);
        *joined |= cx.joined;
        done
    }

    /// Gives a member up.
    fn fail(&mut self, at: usize, reason: String) {
        let member = &mut self.members[at];
        if member.link.take().is_none_or(|link| link.stage != Stage::Joined) {
            self.on_their_way = self.on_their_way.saturating_sub(1);
        }
        member.failed = true;
        let room = member.room;
        let floor = self.floors[room].look(&self.members);
        self.pace.set(self.thread, room, floor);
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        let known = self.reasons.contains_key(&reason) || self.reasons.len() < MOST_REASONS;
        *self.reasons.entry(if known { reason } else { "for other reasons".to_owned() }).or_default() += 1;
    }
}

/// Reads all that there is; `to_the_end`: and what follows, which may be the end.
fn read(
    member: &mut Member,
    buffer: &mut Vec<u8>,
    cx: &mut Context<'_>,
    to_the_end: bool,
) -> Result<(), String> {
    loop {
        let Some(link) = &mut member.link else { return Ok(()) };
        let Some((filled, more)) = link.read(buffer, READ_BYTES).map_err(|e| e.to_string())? else {
            return Ok(());
        };
        cx.tally.bytes += (filled - link.cut.len()) as u64;
        let taken = member.take(&buffer[..filled], cx)?;
        if let Some(link) = &mut member.link {
            link.keep(&buffer[taken..filled]);
        }
        // A short read took all there was; what comes later is told of again.
        if !more && !to_the_end {
            return Ok(());
        }
    }
}

fn stage(member: &Member) -> &'static str {
    match member.link.as_ref().map(|link| link.stage) {
        None if member.failed => "failed",
        None => "not connected",
        Some(Stage::Connecting) => "waiting for the TCP connection",
        Some(Stage::Upgrading) => "waiting for the upgrade to WebSocket",
        Some(Stage::Opening) => "waiting for the Engine.IO handshake",
        Some(Stage::Greeting) => "waiting for the Socket.IO connection",
        Some(Stage::Joining) => "waiting for the answer to room:join",
        Some(Stage::Joined) => "joined",
    }
}

//! The follower: makes of what is heard the one unbroken sequence that the [`LiveSink`] is promised.
//!
//! It never trusts the live path alone. Each message is compared with the place that comes next: the next one is
//! told; a known one is dropped; a later one waits, and what lies between is read from history; a known place with
//! another message, or another epoch, says that the store went back. This file only decides; [`super::follow`] runs
//! it in a thread of its own and reads what it asks for.
//!
//! [`LiveSink`]: crate::broker::LiveSink

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use super::core::{Core, Known};
use super::record::{Publication, Record};
use crate::broker::Top;
use crate::model::{ChannelName, Epoch, MessageId, Position, Published};

/// How many messages of a channel are remembered by their ids, and how many may wait for what comes before them.
const RECENT: usize = 256;
const AHEAD: usize = 1024;

/// Told when it is dropped: everything that it stood for was told.
#[derive(Debug)]
pub(super) struct Done {
    _told: oneshot::Sender<()>,
}

impl Done {
    pub(super) fn new() -> (Arc<Self>, oneshot::Receiver<()>) {
        let (told, done) = oneshot::channel();
        (Arc::new(Self { _told: told }), done)
    }
}

/// A message with its id.
pub(super) type Entry = (MessageId, Arc<Published>);

/// What the follower hears.
#[derive(Debug)]
pub(super) enum Input {
    /// A publication.
    Publication { name: Vec<u8>, payload: Vec<u8> },
    /// Publications may have been missed.
    Missed,
    /// What this node appended.
    Own { entries: Vec<Entry>, done: Arc<Done> },
    /// A channel is about to be followed, under a number that no other has.
    Open { channel: ChannelName, life: u64 },
    /// It is followed from this place on.
    Begin { channel: ChannelName, life: u64, from: Position },
    /// It is followed no longer.
    Close { channel: ChannelName, life: u64 },
    /// A gap has had its time to be filled by what was on the way.
    Overdue { channel: ChannelName, life: u64 },
    /// What was read of it.
    Page { channel: ChannelName, life: u64, entries: Vec<Entry> },
    /// It keeps no history: what was missed is lost by declaration.
    Skip { channel: ChannelName, life: u64, to: Position },
    /// It goes on after another top.
    Reset { channel: ChannelName, life: u64, top: Box<Top> },
    /// The reading ended.
    Settled { channel: ChannelName, life: u64 },
}

/// What is to be told, in this order.
#[derive(Debug)]
pub(super) enum Told {
    Messages(Vec<Arc<Published>>),
    Reset(ChannelName, Box<Top>),
}

/// What the follower wants read.
#[derive(Debug)]
pub(super) struct Resync {
    pub(super) channel: ChannelName,
    pub(super) life: u64,
    pub(super) known: Known,
    /// Gone when the channel is not followed any more.
    pub(super) alive: Weak<()>,
}

/// What follows from what was heard.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) told: Vec<Told>,
    /// Dropped after everything was told.
    pub(super) done: Vec<Arc<Done>>,
    pub(super) resync: Vec<Resync>,
    /// Gaps that get a moment.
    pub(super) gaps: Vec<(ChannelName, u64)>,
}

impl Output {
    fn message(&mut self, message: Arc<Published>) {
        match self.told.last_mut() {
            Some(Told::Messages(messages)) => messages.push(message),
            _ => self.told.push(Told::Messages(vec![message])),
        }
    }
}

#[derive(Debug)]
struct Followed {
    life: u64,
    alive: Arc<()>,
    /// Up to where it was told; nothing while it is being opened.
    at: Option<Position>,
    last_id: Option<MessageId>,
    /// Hashes of the ids of the last messages, the newest at the end.
    recent: VecDeque<u64>,
    /// What came before its time.
    ahead: BTreeMap<u64, Entry>,
    waiting: Vec<(u64, Arc<Done>)>,
    reading: bool,
    /// Something happened that the reading may not have seen.
    again: bool,
    gap: bool,
}

/// All channels that are followed.
#[derive(Debug, Default)]
pub(super) struct Follower {
    channels: HashMap<ChannelName, Followed>,
}

impl Follower {
    pub(super) fn hear(&mut self, core: &Core, input: Input, out: &mut Output) {
        match input {
            Input::Publication { name, payload } => self.publication(core, &name, &payload, out),
            Input::Missed => {
                for (channel, followed) in &mut self.channels {
                    followed.resync(channel, out);
                }
            }
            Input::Own { entries, done } => self.own(entries, done, out),
            Input::Open { channel, life } => {
                self.channels.insert(channel, Followed::new(life));
            }
            Input::Close { channel, life } => {
                if self.channels.get(&channel).is_some_and(|followed| followed.life == life) {
                    self.channels.remove(&channel);
                }
            }
            Input::Begin { channel, life, from } => self.with(&channel, life, |followed| {
                followed.at = Some(from);
                let again = followed.again;
                followed.drain(&channel, out);
                if again {
                    followed.resync(&channel, out);
                }
            }),
            Input::Overdue { channel, life } => self.with(&channel, life, |followed| {
                followed.gap = false;
                if !followed.ahead.is_empty() {
                    followed.resync(&channel, out);
                }
            }),
            Input::Page { channel, life, entries } => self.with(&channel, life, |followed| {
                for entry in entries {
                    followed.take(&channel, entry, out);
                }
            }),
            Input::Skip { channel, life, mut to } => self.with(&channel, life, |followed| {
                // What was heard meanwhile is not lost.
                let heard = followed.ahead.values().find(|(_, message)| message.position.epoch == to.epoch);
                if let Some((_, first)) = heard {
                    to.offset = to.offset.min(first.position.offset - 1);
                }
                followed.jump(to);
                followed.drain(&channel, out);
            }),
            Input::Reset { channel, life, top } => self.with(&channel, life, |followed| {
                followed.jump(top.position.clone());
                out.told.push(Told::Reset(channel.clone(), top));
                followed.drain(&channel, out);
            }),
            Input::Settled { channel, life } => self.with(&channel, life, |followed| {
                followed.reading = false;
                followed.drain(&channel, out);
                if followed.again {
                    followed.resync(&channel, out);
                }
            }),
        }
    }

    fn with(&mut self, channel: &ChannelName, life: u64, act: impl FnOnce(&mut Followed)) {
        if let Some(followed) = self.channels.get_mut(channel).filter(|followed| followed.life == life) {
            act(followed);
        }
    }

    fn publication(&mut self, core: &Core, name: &[u8], payload: &[u8], out: &mut Output) {
        let Some(channel) = core.channel_of(name) else { return };
        let Some(followed) = self.channels.get_mut(&channel) else { return };
        if followed.publication(&channel, payload, out).is_none() {
            tracing::warn!(%channel, "a publication cannot be read; history is read instead");
            followed.resync(&channel, out);
        }
    }

    fn own(&mut self, entries: Vec<Entry>, done: Arc<Done>, out: &mut Output) {
        for entry in entries {
            let channel = entry.1.channel.clone();
            let Some(followed) = self.channels.get_mut(&channel) else { continue };
            let place = entry.1.position.offset;
            followed.take(&channel, entry, out);
            if followed.at.as_ref().is_some_and(|at| at.offset < place) {
                followed.waiting.push((place, done.clone()));
            }
        }
        out.done.push(done);
    }
}

impl Followed {
    fn new(life: u64) -> Self {
        Self {
            life,
            alive: Arc::new(()),
            at: None,
            last_id: None,
            recent: VecDeque::new(),
            ahead: BTreeMap::new(),
            waiting: Vec::new(),
            reading: false,
            again: false,
            gap: false,
        }
    }

    /// Takes a publication; nothing if it cannot be read.
    fn publication(&mut self, channel: &ChannelName, payload: &[u8], out: &mut Output) -> Option<()> {
        let Publication { epoch, offset, records } = Publication::read(payload).ok()?;
        if records.is_empty() && self.at.as_ref().is_none_or(|at| at.epoch.as_str() != epoch) {
            self.resync(channel, out);
        }
        for (offset, record) in (offset..).zip(records) {
            self.record(channel, epoch, offset, record, out)?;
        }
        Some(())
    }

    /// Takes a message that was published; nothing if it cannot be read.
    fn record(
        &mut self,
        channel: &ChannelName,
        epoch: &str,
        offset: u64,
        record: &[u8],
        out: &mut Output,
    ) -> Option<()> {
        let record = Record::read(record).ok()?;
        let known = self.at.as_ref().filter(|at| at.epoch.as_str() == epoch);
        if let Some(at) = known
            && offset <= at.offset
        {
            // Most of them are this node's own, which it has told already: they are not worth being read.
            if !self.is_recent(offset, hash(record.id)) {
                self.resync(channel, out);
            }
            return Some(());
        }
        let epoch = known.map_or_else(|| Epoch::new(epoch), |at| at.epoch.clone());
        let message = record.publish(channel, Position { epoch, offset }).ok()?;
        self.take(channel, (record.message_id().ok()?, Arc::new(message)), out);
        Some(())
    }

    fn take(&mut self, channel: &ChannelName, entry: Entry, out: &mut Output) {
        let place = &entry.1.position;
        match &self.at {
            Some(at) if at.epoch != place.epoch => {
                self.wait(entry);
                self.resync(channel, out);
            }
            Some(at) if place.offset <= at.offset => {
                if !self.is_recent(place.offset, hash(entry.0.as_str())) {
                    self.resync(channel, out);
                }
            }
            Some(at) if place.offset == at.offset + 1 => {
                self.tell(entry, out);
                if !self.ahead.is_empty() {
                    self.drain(channel, out);
                }
            }
            Some(_) => {
                self.wait(entry);
                if !self.reading && !self.gap {
                    self.gap = true;
                    out.gaps.push((channel.clone(), self.life));
                }
            }
            None => self.wait(entry),
        }
    }

    /// Keeps what cannot be told yet. What there is no room for is read from history.
    fn wait(&mut self, entry: Entry) {
        if self.ahead.len() < AHEAD {
            self.ahead.insert(entry.1.position.offset, entry);
        } else {
            self.again = true;
        }
    }

    fn tell(&mut self, (id, message): Entry, out: &mut Output) {
        self.recent.push_back(hash(id.as_str()));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.at = Some(message.position.clone());
        self.last_id = Some(id);
        let offset = message.position.offset;
        out.message(message);
        self.release(offset, out);
    }

    /// Lets those go on who waited for `offset`.
    fn release(&mut self, offset: u64, out: &mut Output) {
        if !self.waiting.is_empty() {
            out.done.extend(self.waiting.extract_if(.., |(place, _)| *place <= offset).map(|(_, done)| done));
        }
    }

    /// Tells what has waited for this moment; what belongs to another past, or was told, goes.
    fn drain(&mut self, channel: &ChannelName, out: &mut Output) {
        while let Some(at) = self.at.clone()
            && let Some((_, entry)) = self.ahead.pop_first()
        {
            let place = entry.1.position.clone();
            if place.epoch != at.epoch {
                // It may also be of a past that is still to come.
                self.again |= self.reading;
            } else if place.offset == at.offset + 1 {
                self.tell(entry, out);
            } else if place.offset > at.offset {
                self.ahead.insert(place.offset, entry);
                if !self.reading && !self.gap {
                    self.gap = true;
                    out.gaps.push((channel.clone(), self.life));
                }
                break;
            }
        }
    }

    /// Goes on from `position`, to which nothing of what was told leads.
    fn jump(&mut self, position: Position) {
        self.recent.clear();
        self.last_id = None;
        // Nobody is told of what lies between.
        self.waiting.retain(|(place, _)| *place > position.offset);
        self.at = Some(position);
    }

    fn is_recent(&self, offset: u64, id: u64) -> bool {
        let Some(at) = &self.at else { return false };
        let back = usize::try_from(at.offset - offset).unwrap_or(usize::MAX);
        let index = self.recent.len().checked_sub(1).and_then(|last| last.checked_sub(back));
        index.and_then(|index| self.recent.get(index)) == Some(&id)
    }

    /// Has the channel looked at, now or once the look that goes on has ended.
    fn resync(&mut self, channel: &ChannelName, out: &mut Output) {
        self.again = true;
        let Some(at) = &self.at else { return };
        if self.reading {
            return;
        }
        (self.reading, self.again) = (true, false);
        let known = Known { epoch: at.epoch.clone(), offset: at.offset, id: self.last_id.clone() };
        let alive = Arc::downgrade(&self.alive);
        out.resync.push(Resync { channel: channel.clone(), life: self.life, known, alive });
    }
}

fn hash(id: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(id)
}

#[cfg(test)]
mod tests;

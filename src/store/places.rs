//! Recent places: where the newest messages of each channel stand, until the stored index has them.
//!
//! Packs lie in the order of their appends, so the messages of a channel are found by an index: the table `place_run`. Kept
//! up with every append, it would have a page to change for each channel of a commit, and so would the channels' own
//! rows, which say how far they are. So new places are held in memory at first, and merged into the tables many at once
//! ([`super::merge`]); the stored mark says up to which message that is done.
//!
//! Memory holds nothing that the packs behind the mark do not say as well. It is told of a commit after the commit,
//! so a transaction that is rolled back leaves no trace; and a reader does not rely on it to be of the same moment
//! as the state that it reads: see [`ReadTx`].

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};

use rusqlite::Connection;

use super::channels::{self, ChannelRow};
use super::packs::{self, StoredMessage};
use super::{lock, merge, runs};
use crate::model::ChannelName;

/// What a place is reckoned to take in memory beside its key.
const PLACE_BYTES: usize = 64;

/// Where a message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number in its channel.
    pub offset: u64,
    /// Its number among all messages.
    pub seq: i64,
    /// When it was accepted.
    pub timestamp_ms: i64,
    /// How many bytes it takes in its pack.
    pub size: u32,
    /// Its channel has history, so that it can be read.
    pub kept: bool,
    /// What a newer message with the same key makes superfluous.
    pub conflation_key: Option<Arc<str>>,
}

/// How far a channel is, beyond what its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) top: u64,
    /// What comes before cannot be read, because a message behind it was not kept; 0 if there is none.
    pub(super) begins: u64,
}

impl End {
    fn of<'p>(places: impl DoubleEndedIterator<Item = &'p Place> + Clone) -> Option<Self> {
        let top = places.clone().next_back()?.offset;
        let begins = places.rev().find(|place| !place.kept).map_or(0, |place| place.offset + 1);
        Some(Self { top, begins })
    }

    /// Moves on to the message at `place`.
    pub(super) fn go_on(&mut self, place: &Place) {
        self.top = place.offset;
        if !place.kept {
            self.begins = place.offset + 1;
        }
    }

    pub(super) fn add_to(self, row: &mut ChannelRow) {
        row.top = row.top.max(self.top);
        row.oldest = row.oldest.max(self.begins);
    }
}

/// A place that is new, in the channel with this number.
#[derive(Debug)]
pub(super) struct New {
    pub(super) channel: i64,
    /// How many messages the channel keeps.
    pub(super) keep: u64,
    pub(super) place: Place,
}

/// The recent places of a store.
#[derive(Debug, Clone)]
pub(super) struct Recent(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    tails: Tails,
    /// The channels of the sealed tail, and how many of them are merged.
    channels: Arc<[i64]>,
    merged: usize,
}

/// The recent places at one moment.
#[derive(Debug, Clone)]
pub(super) struct Tails {
    /// What is being merged, some channels at a time: nothing comes to it.
    pub(super) sealed: Option<Arc<Tail>>,
    /// What came behind it.
    pub(super) open: Arc<Tail>,
}

/// The places behind one mark. A merge that is done leaves it to the readers that still have it.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) mark: i64,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// All messages behind the mark up to this `seq` are here.
    upto: i64,
    bytes: usize,
    channels: HashMap<i64, Line>,
}

/// The recent places of one channel.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// How many messages the channel keeps.
    pub(super) keep: u64,
    /// Oldest first.
    pub(super) places: Vec<Place>,
}

impl Line {
    pub(super) fn push(&mut self, keep: u64, place: Place) {
        self.keep = keep;
        self.places.push(place);
    }

    /// Adds what came behind it.
    pub(super) fn go_on(&mut self, mut behind: Self) {
        self.keep = behind.keep;
        self.places.append(&mut behind.places);
    }
}

impl Recent {
    /// Nothing is recent: the stored index has all messages up to `mark`, and there are no more.
    pub(super) fn none_after(mark: i64) -> Self {
        let tails = Tails { sealed: None, open: Arc::new(Tail::new(mark)) };
        Self(Arc::new(Mutex::new(State { tails, channels: Arc::default(), merged: 0 })))
    }

    /// The places as they are; later ones come to the open tail until it is sealed.
    pub(super) fn tails(&self) -> Tails {
        lock(&self.0).tails.clone()
    }

    /// The channels that are still to be merged, of a tail that is sealed now if none was; `None` if nothing is recent.
    pub(super) fn seal(&self) -> Option<(Tails, Arc<[i64]>, usize)> {
        let mut state = lock(&self.0);
        if state.tails.sealed.is_none() {
            let full = &state.tails.open;
            let (channels, upto) = (full.channels(), full.upto());
            if channels.is_empty() {
                return None;
            }
            let open = Arc::new(Tail::new(upto));
            state.tails.sealed = Some(std::mem::replace(&mut state.tails.open, open));
            (state.channels, state.merged) = (channels.into(), 0);
        }
        Some((state.tails.clone(), state.channels.clone(), state.merged))
    }

    /// What was committed: first `merged`, if all was merged up to there, or so many channels of the sealed tail; then
    /// `added` behind it.
    pub(super) fn committed(&self, merged: Option<i64>, channels: usize, added: Vec<New>) {
        let mut state = lock(&self.0);
        if let Some(mark) = merged {
            state.tails = Tails { sealed: None, open: Arc::new(Tail::new(mark)) };
        } else if channels > 0 {
            state.merged += channels;
            if state.merged == state.channels.len() {
                state.tails.sealed = None;
            }
        }
        if !added.is_empty() {
            state.tails.open.add(added);
        }
    }
}

impl Tails {
    /// Both, the older one first.
    pub(super) fn each(&self) -> impl Iterator<Item = &Arc<Tail>> {
        self.sealed.iter().chain([&self.open])
    }

    /// How far `channel` is, as far as it was known when `upto` was; `None` if there was nothing recent.
    pub(super) fn end(&self, channel: i64, upto: i64) -> Option<End> {
        let ends = self.each().filter_map(|tail| tail.end(channel, upto));
        ends.reduce(|older, newer| End { top: newer.top, begins: newer.begins.max(older.begins) })
    }
}

impl Tail {
    fn new(mark: i64) -> Self {
        Self { mark, known: Mutex::new(Known { upto: mark, bytes: 0, channels: HashMap::new() }) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    fn add(&self, added: Vec<New>) {
        let mut known = self.known();
        for New { channel, keep, place } in added {
            known.upto = place.seq;
            known.bytes += PLACE_BYTES + place.conflation_key.as_ref().map_or(0, |key| key.len());
            known.channels.entry(channel).or_default().push(keep, place);
        }
    }

    /// The `seq` of the last message that it knows of.
    pub(super) fn upto(&self) -> i64 {
        self.known().upto
    }

    /// What the places take in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.known().bytes
    }

    /// The channels that have places here, sorted: they are merged one after the other.
    pub(super) fn channels(&self) -> Vec<i64> {
        let mut channels: Vec<_> = self.known().channels.keys().copied().collect();
        channels.sort_unstable();
        channels
    }

    /// All of a channel.
    pub(super) fn line(&self, channel: i64) -> Line {
        self.known().channels.get(&channel).cloned().unwrap_or_default()
    }

    fn end(&self, channel: i64, upto: i64) -> Option<End> {
        let known = self.known();
        let places = &known.channels.get(&channel)?.places;
        End::of(places[..places.partition_point(|place| place.seq <= upto)].iter())
    }

    /// The places of `channel` whose offsets are in `offsets`, oldest first, as far as they were known when
    /// `upto` was.
    fn of(&self, channel: i64, offsets: &RangeInclusive<u64>, upto: i64) -> Vec<Place> {
        let known = self.known();
        let Some(Line { places, .. }) = known.channels.get(&channel) else { return Vec::new() };
        let from = places.partition_point(|place| place.offset < *offsets.start());
        let found = places[from..].iter().take_while(|p| p.offset <= *offsets.end() && p.seq <= upto);
        found.cloned().collect()
    }
}

/// What a reader works with: one committed state, and the places that its index does not have yet.
///
/// The places in memory were taken before the state was, and may be behind it by some commits and a merge. The state
/// itself says what is missing: places of an older mark do not count, since the index has them; and what comes after
/// the last known one is read from the packs, which are seldom more than the commits of that moment. Memory may also
/// be ahead of the state; what it knows beyond the last message that it had when it was taken is left aside. Of a
/// channel that is merged before the mark has moved the index has places that memory has, too: they count once.
#[derive(Debug)]
pub struct ReadTx<'a> {
    conn: &'a Connection,
    /// What is known in memory and counts here, and up to where.
    told: Option<(Tails, i64)>,
    /// What memory had not been told of, in the order of appends.
    untold: Vec<(i64, Place)>,
}

impl<'a> ReadTx<'a> {
    /// Of the state of `conn`, with the tails that were taken before it when they were known up to `upto`.
    pub(super) fn new(conn: &'a Connection, tails: &Tails, upto: i64) -> rusqlite::Result<Self> {
        let mark = merge::stored_mark(conn)?;
        let Tails { sealed, open } = tails;
        let told = if sealed.as_ref().is_some_and(|tail| tail.mark == mark) {
            Some((tails.clone(), upto))
        } else if open.mark == mark {
            Some((Tails { sealed: None, open: open.clone() }, upto))
        } else {
            None
        };
        let untold = packs::places_after(conn, if told.is_some() { upto } else { mark })?;
        Ok(Self { conn, told, untold })
    }

    /// The connection, inside of the reader's transaction.
    #[must_use]
    pub fn conn(&self) -> &Connection {
        self.conn
    }

    /// How far the channel is.
    pub(crate) fn channel(&self, name: &ChannelName) -> rusqlite::Result<Option<ChannelRow>> {
        let Some(mut row) = channels::find(self.conn, name)? else { return Ok(None) };
        let told = self.told.as_ref().and_then(|(tails, upto)| tails.end(row.id, *upto));
        let untold = End::of(self.untold.iter().filter(|(of, _)| *of == row.id).map(|(_, place)| place));
        for end in told.into_iter().chain(untold) {
            end.add_to(&mut row);
        }
        Ok(Some(row))
    }

    /// The places of `channel`, oldest first. `offsets` may not reach beyond the channel's top, nor before its oldest
    /// message.
    pub fn places(&self, channel: i64, offsets: &RangeInclusive<u64>) -> rusqlite::Result<Vec<Place>> {
        let mut places = runs::read(self.conn, channel, offsets)?;
        let merged = places.last().map_or(0, |place| place.offset);
        if let Some((tails, upto)) = &self.told {
            let recent = tails.each().flat_map(|tail| tail.of(channel, offsets, *upto));
            places.extend(recent.filter(|place| place.offset > merged));
        }
        let untold = self
            .untold
            .iter()
            .filter(|(of, place)| *of == channel && offsets.contains(&place.offset) && place.offset > merged);
        places.extend(untold.map(|(_, place)| place.clone()));
        Ok(places)
    }

    /// Hands the messages of `channel` at `places` to `take`, one after the other, until it says that it is enough.
    pub fn messages(
        &self,
        channel: i64,
        places: &[Place],
        take: impl FnMut(&Place, StoredMessage<'_>) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<()> {
        packs::messages(self.conn, channel, places, take)
    }
}

//! Recent places: where the newest messages of each channel stand, until the stored index has them.
//!
//! The table `message` is in the order of its appends, so the messages of a channel are found by an index: the table
//! `place`. Kept up with every append, it would have a page to change for each channel of a commit. So new places are
//! held in memory at first, and merged into the table many at once ([`super::merge`]); the stored mark says up to
//! which message that is done.
//!
//! Memory holds nothing that the rows behind the mark do not say as well. It is told of a commit after the commit,
//! so a transaction that is rolled back leaves no trace; and a reader does not rely on it to be of the same moment
//! as the state that it reads: see [`ReadTx`].

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};

use rusqlite::Connection;

use super::{lock, merge};

/// What a place is reckoned to take in memory beside its key.
const PLACE_BYTES: usize = 64;

/// Where a message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number in its channel.
    pub offset: u64,
    /// Its number in the table `message`.
    pub seq: i64,
    /// What a newer message with the same key makes superfluous.
    pub conflation_key: Option<Arc<str>>,
}

/// The recent places of a store.
#[derive(Debug, Clone)]
pub(super) struct Recent(Arc<Mutex<Arc<Tail>>>);

/// The places behind one mark. A merge begins a new one and leaves this to the readers that still have it.
#[derive(Debug)]
pub(super) struct Tail {
    mark: i64,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// All messages behind the mark up to this `seq` are here.
    upto: i64,
    bytes: usize,
    /// By channel, oldest first.
    channels: HashMap<i64, Vec<Place>>,
}

impl Recent {
    /// Nothing is recent: the stored index has all messages up to `mark`, and there are no more.
    pub(super) fn none_after(mark: i64) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(Tail::new(mark)))))
    }

    /// The places as they are; later ones come to it until the next merge.
    pub(super) fn tail(&self) -> Arc<Tail> {
        lock(&self.0).clone()
    }

    /// What was committed: `merged` first, if there was a merge, and `added` behind it.
    pub(super) fn committed(&self, merged: Option<i64>, added: Vec<(i64, Place)>) {
        if let Some(mark) = merged {
            *lock(&self.0) = Arc::new(Tail::new(mark));
        }
        if !added.is_empty() {
            self.tail().add(added);
        }
    }
}

impl Tail {
    fn new(mark: i64) -> Self {
        Self { mark, known: Mutex::new(Known { upto: mark, bytes: 0, channels: HashMap::new() }) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    fn add(&self, added: Vec<(i64, Place)>) {
        let mut known = self.known();
        for (channel, place) in added {
            known.upto = place.seq;
            known.bytes += PLACE_BYTES + place.conflation_key.as_ref().map_or(0, |key| key.len());
            known.channels.entry(channel).or_default().push(place);
        }
    }

    /// What the places take in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.known().bytes
    }

    /// The channels that have recent places.
    pub(super) fn channels(&self) -> Vec<i64> {
        self.known().channels.keys().copied().collect()
    }

    /// The places of `channel` whose offsets are in `offsets`, oldest first, as far as they were known when
    /// `upto` was.
    pub(super) fn of(&self, channel: i64, offsets: &RangeInclusive<u64>, upto: i64) -> Vec<Place> {
        let known = self.known();
        let Some(places) = known.channels.get(&channel) else { return Vec::new() };
        let from = places.partition_point(|place| place.offset < *offsets.start());
        let found = places[from..].iter().take_while(|p| p.offset <= *offsets.end() && p.seq <= upto);
        found.cloned().collect()
    }
}

/// What a reader works with: one committed state, and the places that its index does not have yet.
///
/// The places in memory were taken before the state was, and may be behind it by some commits and a merge. The state
/// itself says what is missing: places of an older mark do not count, since the index has them; and what comes after
/// the last known one is read from the table `message`, which is seldom more than the commits of that moment. Memory
/// may also be ahead, which a reader does not notice, because it never asks for offsets beyond the top of its state.
#[derive(Debug)]
pub struct ReadTx<'a> {
    conn: &'a Connection,
    /// What is known in memory and counts here, and up to where.
    tail: Option<(&'a Tail, i64)>,
    /// What memory had not been told of, in the order of appends.
    untold: Vec<(i64, Place)>,
}

impl<'a> ReadTx<'a> {
    pub(super) fn new(conn: &'a Connection, tail: &'a Tail) -> rusqlite::Result<Self> {
        let mark = merge::stored_mark(conn)?;
        let tail = (tail.mark == mark).then(|| (tail, tail.known().upto));
        let untold = merge::places_after(conn, tail.map_or(mark, |(_, upto)| upto))?;
        Ok(Self { conn, tail, untold })
    }

    /// The connection, inside of the reader's transaction.
    #[must_use]
    pub fn conn(&self) -> &Connection {
        self.conn
    }

    /// The places of `channel` that the table `place` does not have, oldest first; all places that it has come
    /// before them. `offsets` may not reach beyond the channel's top, nor before its oldest message.
    #[must_use]
    pub fn recent(&self, channel: i64, offsets: &RangeInclusive<u64>) -> Vec<Place> {
        let mut places = self.tail.map_or_else(Vec::new, |(tail, upto)| tail.of(channel, offsets, upto));
        let untold =
            self.untold.iter().filter(|(of, place)| *of == channel && offsets.contains(&place.offset));
        places.extend(untold.map(|(_, place)| place.clone()));
        places
    }
}

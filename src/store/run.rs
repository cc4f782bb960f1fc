//! The format of a run: the places of messages of one channel that follow each other, as one row of the table `place_run`.
//!
//! ```text
//! run   = keys: n (text)*, (place)*
//! place = seq, less the one before · timestamp, less the one before · size · number of its key from 1, or 0
//! ```
//!
//! The offsets are not there: the first one is in the row, and each is one more than the one before.

use std::sync::Arc;

use super::bytes::{Bytes, put, put_signed, put_text};
use super::places::Place;

/// How many places a run has when no more come to it. Whoever asks for one place reads its run; at this size a run
/// without keys still fits into its row's page.
pub(super) const FULL: usize = 100;

/// The run of `places`, whose offsets rise by one.
pub(super) fn write(places: &[Place]) -> Vec<u8> {
    let mut keys: Vec<&str> = Vec::new();
    let mut out = Vec::with_capacity(places.len() * 8 + 16);
    let (mut seq, mut timestamp_ms) = (0, 0);
    for place in places {
        put_signed(&mut out, place.seq.wrapping_sub(seq));
        put_signed(&mut out, place.timestamp_ms.wrapping_sub(timestamp_ms));
        put(&mut out, place.size.into());
        let key = place.conflation_key.as_deref().map_or(0, |key| {
            // A channel has few keys, and mostly the one before again.
            1 + keys.iter().rposition(|known| *known == key).unwrap_or_else(|| {
                keys.push(key);
                keys.len() - 1
            })
        });
        put(&mut out, key as u64);
        (seq, timestamp_ms) = (place.seq, place.timestamp_ms);
    }
    let mut run = Vec::with_capacity(out.len() + 8);
    put(&mut run, keys.len() as u64);
    keys.iter().for_each(|key| put_text(&mut run, key));
    run.append(&mut out);
    run
}

/// The first `n` places of the run whose first offset is `first`; `None` if it is damaged.
pub(super) fn read(first: u64, n: usize, run: &[u8]) -> Option<Vec<Place>> {
    let mut bytes = Bytes::of(run);
    let keys = (0..bytes.count()?).map(|_| bytes.text().map(Arc::from)).collect::<Option<Vec<Arc<str>>>>()?;
    let mut places = Vec::with_capacity(n.min(FULL));
    let (mut offset, mut seq, mut timestamp_ms) = (first, 0_i64, 0_i64);
    for _ in 0..n {
        seq = seq.checked_add(bytes.signed()?)?;
        timestamp_ms = timestamp_ms.checked_add(bytes.signed()?)?;
        let size = u32::try_from(bytes.number()?).ok()?;
        let conflation_key = match bytes.number()? {
            0 => None,
            key => Some(keys.get(usize::try_from(key - 1).ok()?)?.clone()),
        };
        places.push(Place { offset, seq, timestamp_ms, size, kept: true, conflation_key });
        offset = offset.checked_add(1)?;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_as_they_were_written() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let first = random.u64(1..1 << 40);
            let keys = [None, Some("a"), Some("b"), Some("")];
            let places: Vec<_> = (0..random.u64(0..120))
                .map(|n| Place {
                    offset: first + n,
                    seq: random.i64(1..i64::MAX / 2),
                    timestamp_ms: random.i64(-5..1 << 42),
                    size: random.u32(..),
                    kept: true,
                    conflation_key: random.choice(keys).expect("a choice").map(Arc::from),
                })
                .collect();
            assert_eq!(read(first, places.len(), &write(&places)), Some(places));
        }
    }

    #[test]
    fn what_is_no_run_is_damage_or_places_but_never_a_panic() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut unreadable = 0;
        for _ in 0..5_000 {
            let mut garbage = vec![0; random.usize(0..100)];
            random.fill(&mut garbage);
            unreadable += usize::from(read(random.u64(..), random.usize(1..200), &garbage).is_none());
        }
        assert!(unreadable > 1_000);
    }
}

//! A table of parties: how much each has now, and how often each came. Those that have nothing and have not come for a
//! while are let go, so that the table grows with who is there and not with who ever was.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::rate::{Meter, Rate, now_ns};

/// Below so many nobody looks for those that can go.
const FEW: usize = 1024;
/// Beyond so many the rates of those that have nothing are forgotten, too: what they have counts on.
const MANY: usize = 128 * 1024;

/// Why a party gets no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It has as much as it may.
    Count,
    /// It came too often; it may come again after this.
    Rate(Duration),
}

/// What is counted for each party.
#[derive(Debug)]
pub struct Table<K>(Mutex<State<K>>);

#[derive(Debug)]
struct State<K> {
    parties: HashMap<K, Party>,
    look_at: usize,
}

#[derive(Debug, Default)]
struct Party {
    held: u32,
    meter: Meter,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(Mutex::new(State { parties: HashMap::new(), look_at: FEW }))
    }
}

impl<K: Eq + Hash> Table<K> {
    /// One more for `party`, if it has less than `most` and does not come more often than `rate`: until
    /// [`Table::release`] is called.
    ///
    /// # Errors
    /// Which of the two it is.
    pub fn hold(&self, party: K, most: Option<u32>, rate: Option<Rate>) -> Result<(), Over> {
        self.hold_at(party, most, rate, now_ns())
    }

    fn hold_at(&self, party: K, most: Option<u32>, rate: Option<Rate>, now: u64) -> Result<(), Over> {
        let mut state = self.state(now);
        let party = state.parties.entry(party).or_default();
        if most.is_some_and(|most| party.held >= most) {
            return Err(Over::Count);
        }
        if let Some(rate) = rate {
            party.meter.take(rate, 1, now).map_err(Over::Rate)?;
        }
        party.held += 1;
        Ok(())
    }

    /// One less for `party`.
    pub fn release(&self, party: K) {
        self.release_at(party, now_ns());
    }

    fn release_at(&self, party: K, now: u64) {
        if let Entry::Occupied(mut entry) = self.state(now).parties.entry(party) {
            let party = entry.get_mut();
            party.held = party.held.saturating_sub(1);
            if party.held == 0 && party.meter.is_free(now) {
                entry.remove();
            }
        }
    }

    /// Spends `n` of what `party` may do.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, party: K, rate: Rate, n: u32) -> Result<(), Duration> {
        let now = now_ns();
        self.state(now).parties.entry(party).or_default().meter.take(rate, n, now)
    }

    fn state(&self, now: u64) -> MutexGuard<'_, State<K>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.parties.len() >= state.look_at {
            state.parties.retain(|_, party| party.held > 0 || !party.meter.is_free(now));
            if state.parties.len() >= MANY {
                state.parties.retain(|_, party| party.held > 0);
            }
            state.parties.shrink_to(FEW);
            state.look_at = (state.parties.len() * 2).max(FEW);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn len(table: &Table<u32>) -> usize {
        table.0.lock().unwrap().parties.len()
    }

    #[test]
    fn each_party_has_its_own_count_and_its_own_rate() {
        let table = Table::default();
        let rate = Some(Rate::per_second(2));
        for party in [1, 2] {
            assert_eq!(table.hold_at(party, Some(3), rate, 0), Ok(()));
            assert_eq!(table.hold_at(party, Some(2), None, 0), Ok(()));
            assert_eq!(table.hold_at(party, Some(2), None, 0), Err(Over::Count));
        }
        table.release(1);
        assert_eq!(table.hold_at(1, Some(2), None, 0), Ok(()));
        assert_eq!(table.hold_at(2, Some(2), None, 0), Err(Over::Count));
        for _ in 0..3 {
            assert_eq!(table.hold_at(1, None, rate, 0), Ok(()));
        }
        let wait = Duration::from_millis(500);
        assert_eq!(table.hold_at(1, None, rate, 0), Err(Over::Rate(wait)));
        assert_eq!(table.hold_at(1, None, rate, SECOND), Ok(()));
    }

    #[test]
    fn those_who_have_nothing_and_do_not_come_are_let_go() {
        let table = Table::default();
        let rate = Some(Rate::per_second(1));
        table.hold_at(0, None, None, 0).unwrap();
        for party in 1..50_000 {
            let now = u64::from(party) * SECOND;
            table.hold_at(party, None, rate, now).unwrap();
            table.release_at(party, now);
        }
        assert!(len(&table) <= 2 * FEW, "{}", len(&table));
        assert_eq!(table.hold_at(0, Some(1), None, 0), Err(Over::Count));
    }

    #[test]
    fn many_at_once_do_not_fill_the_memory() {
        let table = Table::default();
        for party in 0..u32::try_from(5 * MANY).unwrap() {
            table.hold_at(party, None, Some(Rate::per_second(1)), 0).unwrap();
            table.state(0).parties.get_mut(&party).unwrap().held = 0;
        }
        assert!(len(&table) <= 2 * MANY, "{}", len(&table));
    }
}

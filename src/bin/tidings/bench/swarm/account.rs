//! What one subscriber received: every message exactly once and in order, or how far from it.

use std::ops::Range;

/// The account of a subscriber of one room, whose messages are numbered from 0.
#[derive(Debug, Clone, Default)]
pub(in crate::bench) struct Account {
    /// One beyond the highest number that came.
    next: u64,
    /// Numbers below `next` that have not come, ascending.
    missing: Vec<Range<u64>>,
    duplicated: u64,
    misordered: u64,
    /// The last position, where the server gives positions.
    last_offset: Option<u64>,
    offset_faults: u64,
}

/// The sums of many accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::bench) struct Totals {
    pub(in crate::bench) expected: u64,
    /// Different messages that came.
    pub(in crate::bench) delivered: u64,
    pub(in crate::bench) lost: u64,
    pub(in crate::bench) duplicated: u64,
    /// Came after a message that was published later.
    pub(in crate::bench) misordered: u64,
    /// Positions that did not continue the one before.
    pub(in crate::bench) offset_faults: u64,
    /// Messages that nobody had published yet when the account was closed, or of another room.
    pub(in crate::bench) foreign: u64,
}

impl Account {
    /// One beyond the highest number that came.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The last position that the server gave.
    pub(super) fn last_offset(&self) -> Option<u64> {
        self.last_offset
    }

    /// Where the positions begin: what a join acknowledged. One that is known already is not forgotten.
    pub(super) fn begin(&mut self, offset: u64) {
        self.last_offset.get_or_insert(offset);
    }

    /// Takes message `seq`; whether it came for the first time.
    #[inline]
    pub(super) fn take(&mut self, seq: u64) -> bool {
        if seq == self.next {
            self.next += 1;
            return true;
        }
        self.take_unexpected(seq)
    }

    #[cold]
    fn take_unexpected(&mut self, seq: u64) -> bool {
        if seq > self.next {
            self.missing.push(self.next..seq);
            self.next = seq + 1;
            return true;
        }
        let Some(at) = self.missing.iter().position(|range| range.contains(&seq)) else {
            self.duplicated += 1;
            return false;
        };
        self.misordered += 1;
        let gap = self.missing.remove(at);
        // What is left of the gap, before and behind.
        for rest in [seq + 1..gap.end, gap.start..seq] {
            if !rest.is_empty() {
                self.missing.insert(at, rest);
            }
        }
        true
    }

    /// Checks a position against the one before.
    #[inline]
    pub(super) fn take_offset(&mut self, offset: u64, conflated: u64) {
        if self.last_offset.is_some_and(|last| offset != last + 1 + conflated) {
            self.offset_faults += 1;
        }
        self.last_offset = Some(offset);
    }

    /// Adds this account to `totals`, `published` messages having been there to receive.
    pub(in crate::bench) fn close(&self, published: u64, totals: &mut Totals) {
        let gaps: u64 = self.missing.iter().map(|range| range.end - range.start).sum();
        totals.expected += published;
        totals.delivered += self.next - gaps;
        totals.lost += gaps + published.saturating_sub(self.next);
        totals.duplicated += self.duplicated;
        totals.misordered += self.misordered;
        totals.offset_faults += self.offset_faults;
        totals.foreign += self.next.saturating_sub(published);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn totals(received: &[u64], published: u64) -> Totals {
        let mut account = Account::default();
        for &seq in received {
            account.take(seq);
        }
        let mut totals = Totals::default();
        account.close(published, &mut totals);
        totals
    }

    #[test]
    fn all_once_and_in_order_is_exact() {
        let totals = totals(&[0, 1, 2, 3], 4);
        assert_eq!(totals, Totals { expected: 4, delivered: 4, ..Totals::default() });
    }

    #[test]
    fn a_lost_message_is_found_in_the_middle_and_at_the_end() {
        for received in [&[1, 2, 3][..], &[0, 2, 3], &[0, 1, 2]] {
            let totals = totals(received, 4);
            assert_eq!(
                totals,
                Totals { expected: 4, delivered: 3, lost: 1, ..Totals::default() },
                "{received:?}"
            );
        }
    }

    #[test]
    fn a_doubled_message_is_found_and_not_counted_as_delivered() {
        for received in [&[0, 0, 1][..], &[0, 1, 0], &[0, 1, 1]] {
            let totals = totals(received, 2);
            let doubled = Totals { expected: 2, delivered: 2, duplicated: 1, ..Totals::default() };
            assert_eq!(totals, doubled, "{received:?}");
        }
    }

    #[test]
    fn a_misordered_message_is_found_and_is_not_lost() {
        let totals = totals(&[0, 2, 1, 3], 4);
        assert_eq!(totals, Totals { expected: 4, delivered: 4, misordered: 1, ..Totals::default() });
    }

    #[test]
    fn a_message_that_nobody_published_is_found() {
        let totals = totals(&[0, 1, 2], 2);
        assert_eq!(totals, Totals { expected: 2, delivered: 3, foreign: 1, ..Totals::default() });
    }

    #[test]
    fn positions_have_to_continue_each_other() {
        let faults = |begin: Option<u64>, positions: &[(u64, u64)]| {
            let mut account = Account::default();
            if let Some(begin) = begin {
                account.begin(begin);
            }
            for &(offset, conflated) in positions {
                account.take_offset(offset, conflated);
            }
            account.offset_faults
        };
        assert_eq!(faults(Some(0), &[(1, 0), (2, 0), (5, 2)]), 0);
        assert_eq!(faults(None, &[(7, 0), (8, 0)]), 0);
        assert_eq!(faults(Some(0), &[(2, 0)]), 1);
        assert_eq!(faults(Some(3), &[(4, 0), (6, 0), (6, 0)]), 2);
    }

    proptest! {
        /// Against the plain meaning of the words: a set, and the highest so far.
        #[test]
        fn any_order_is_accounted_for(received in prop::collection::vec(0u64..40, 0..80)) {
            let (mut seen, mut highest) = (std::collections::BTreeSet::new(), None);
            let (mut duplicated, mut misordered) = (0, 0);
            for &seq in &received {
                if !seen.insert(seq) {
                    duplicated += 1;
                } else if highest.is_some_and(|highest| seq < highest) {
                    misordered += 1;
                }
                highest = highest.max(Some(seq));
            }
            let totals = totals(&received, 40);
            prop_assert_eq!(totals.delivered, seen.len() as u64);
            prop_assert_eq!(totals.lost, 40 - seen.len() as u64);
            prop_assert_eq!((totals.duplicated, totals.misordered), (duplicated, misordered));
        }
    }
}

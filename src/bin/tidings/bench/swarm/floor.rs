//! The slowest of a room's subscribers in one thread, found again only when the last of the slowest moves on.

use super::member::Member;
use crate::bench::pace::NOBODY;

/// The floor of one room.
#[derive(Debug, Default)]
pub(super) struct Floor {
    /// Members of the room, by their place in the thread.
    pub(super) members: Vec<usize>,
    floor: u64,
    /// How many members stand at the floor.
    slowest: usize,
}

impl Floor {
    /// A member has moved from `before`; the new floor, if that moved it.
    pub(super) fn moved(&mut self, before: u64, all: &[Member]) -> Option<u64> {
        if before > self.floor {
            return None;
        }
        self.slowest = self.slowest.saturating_sub(1);
        if self.slowest == 0 { Some(self.look(all)) } else { None }
    }

    /// Finds the floor among those whose connections have not failed.
    pub(super) fn look(&mut self, all: &[Member]) -> u64 {
        (self.floor, self.slowest) = (NOBODY, 0);
        for member in self.members.iter().map(|&member| &all[member]).filter(|member| !member.failed) {
            let next = member.account.next();
            if next < self.floor {
                (self.floor, self.slowest) = (next, 1);
            } else if next == self.floor {
                self.slowest += 1;
            }
        }
        self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_moves_only_when_the_slowest_does() {
        let mut all: Vec<Member> = (0..3).map(|index| Member::new(index, 0)).collect();
        let mut floor = Floor { members: vec![0, 1, 2], ..Floor::default() };
        assert_eq!(floor.look(&all), 0);
        let mut step = |all: &mut Vec<Member>, member: usize, seq| {
            let before = all[member].account.next();
            all[member].account.take(seq);
            floor.moved(before, all)
        };
        assert_eq!(step(&mut all, 0, 0), None);
        assert_eq!(step(&mut all, 0, 1), None);
        assert_eq!(step(&mut all, 1, 0), None);
        assert_eq!(step(&mut all, 2, 0), Some(1));
        assert_eq!(step(&mut all, 2, 1), None);
        assert_eq!(step(&mut all, 1, 1), Some(2));
        all[1].failed = true;
        assert_eq!(floor.look(&all), 2);
        all.iter_mut().for_each(|member| member.failed = true);
        assert_eq!(floor.look(&all), NOBODY);
    }
}

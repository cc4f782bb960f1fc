//! When which messages are published.
//!
//! At a rate, each message has a time at which it is meant to leave, whatever became of those before: whoever is late
//! is late by the schedule. Flat out, each room has at most so many messages that its slowest subscriber lacks.

use std::time::Duration;

/// At most so many requests leave in a second, as long as they may carry several messages.
const REQUESTS_PER_SECOND: f64 = 200.0;

/// How fast a publisher goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::bench) enum Speed {
    /// As fast as the slowest subscriber takes it.
    FlatOut {
        /// So many messages of a room may be lacked by its slowest subscriber.
        in_flight: u64,
        /// So many messages in each room, if there is an end.
        each: Option<u64>,
    },
    /// On time, whoever takes it.
    Rate {
        /// Messages, over all rooms.
        per_second: f64,
        /// The time that the schedule covers; what would be due later is not published.
        during: Duration,
    },
}

/// Messages of one room in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) room: usize,
    pub(super) count: u64,
    /// When they are meant to leave, since the schedule's start; `None`: now.
    pub(super) due: Option<Duration>,
}

/// What one connection publishes: some of the rooms, each in its order.
#[derive(Debug)]
pub(super) struct Schedule {
    speed: Speed,
    rooms: Vec<usize>,
    /// The largest request.
    batch: u64,
    /// Messages left for each of `rooms`.
    left: Vec<u64>,
    /// The next of `rooms`.
    cursor: usize,
    /// At a rate: messages that leave together, and the time between two such groups.
    group: u64,
    interval: Duration,
    /// Groups that have left.
    groups: u64,
}

impl Schedule {
    /// For the `rooms` of one connection, out of `all` rooms.
    pub(super) fn new(speed: Speed, rooms: Vec<usize>, all: usize, batch: u64) -> Self {
        let (mut interval, mut group, mut each) = (Duration::ZERO, 1, None);
        match speed {
            Speed::FlatOut { each: end, .. } => each = end,
            Speed::Rate { per_second: rate, .. } => {
                let size = (rate / REQUESTS_PER_SECOND).ceil().max(1.0);
                group = (size as u64).min(batch);
                let share = rate * rooms.len() as f64 / all as f64;
                interval = Duration::from_secs_f64(group as f64 / share);
            }
        }
        let left = vec![each.unwrap_or(u64::MAX); rooms.len()];
        Self { speed, rooms, batch, left, cursor: 0, group, interval, groups: 0 }
    }

    /// Whether everything was picked. A rate is kept until somebody says stop.
    pub(super) fn is_done(&self) -> bool {
        self.left.iter().all(|&left| left == 0)
    }

    /// What to publish, `now` after the start; `lacks` tells how many messages the slowest subscriber of a room
    /// lacks. Empty: nothing yet.
    pub(super) fn pick(&mut self, now: Duration, lacks: impl Fn(usize) -> u64) -> Vec<Pick> {
        match self.speed {
            Speed::Rate { during, .. } => self.pick_due(now, during),
            Speed::FlatOut { in_flight, .. } => self.pick_lacked(in_flight, lacks),
        }
    }

    /// How long there is nothing to do, if that is known.
    pub(super) fn rest(&self, now: Duration) -> Option<Duration> {
        match self.speed {
            Speed::Rate { during, .. } if self.due() >= during => Some(Duration::MAX),
            Speed::Rate { .. } => Some(self.due().saturating_sub(now)),
            Speed::FlatOut { .. } => None,
        }
    }

    fn due(&self) -> Duration {
        // From the count, not from the last one: rounding does not add up.
        self.interval.mul_f64(self.groups as f64)
    }

    fn pick_due(&mut self, now: Duration, during: Duration) -> Vec<Pick> {
        let mut picks: Vec<Pick> = Vec::new();
        // Whoever is late catches up with larger requests.
        while self.due() <= now
            && self.due() < during
            && (picks.is_empty() || picks.len() as u64 + self.group <= self.batch)
        {
            let due = Some(self.due());
            for _ in 0..self.group {
                picks.push(Pick { room: self.rooms[self.cursor], count: 1, due });
                self.cursor = (self.cursor + 1) % self.rooms.len();
            }
            self.groups += 1;
        }
        picks
    }

    fn pick_lacked(&mut self, in_flight: u64, lacks: impl Fn(usize) -> u64) -> Vec<Pick> {
        let rooms = self.rooms.len();
        let share = self.batch.div_ceil(rooms as u64);
        let (mut picks, mut size) = (Vec::new(), 0);
        let mut all_idle = true;
        let places = (0..rooms).map(|step| (self.cursor + step) % rooms);
        for place in places {
            let lacked = lacks(self.rooms[place]);
            all_idle &= lacked == 0;
            let free = in_flight.saturating_sub(lacked);
            let count = free.min(share).min(self.batch - size).min(self.left[place]);
            if count > 0 {
                picks.push((place, count));
                size += count;
            }
            if size == self.batch {
                break;
            }
        }
        // A request per message would be dear: wait until half a request is free, unless there is no more to come.
        let enough = self.batch.min(in_flight.saturating_mul(rooms as u64)).div_ceil(2);
        if size < enough && !all_idle && self.left.iter().any(|&left| left > size) {
            return Vec::new();
        }
        for &(place, count) in &picks {
            if self.left[place] != u64::MAX {
                self.left[place] -= count;
            }
            self.cursor = (place + 1) % rooms;
        }
        let pick = |(place, count): (usize, u64)| Pick { room: self.rooms[place], count, due: None };
        picks.into_iter().map(pick).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn rate(per_second: f64) -> Speed {
        Speed::Rate { per_second, during: Duration::from_secs(10) }
    }

    fn sizes(picks: &[Pick]) -> Vec<(usize, u64)> {
        picks.iter().map(|pick| (pick.room, pick.count)).collect()
    }

    #[test]
    fn a_low_rate_publishes_single_messages_at_their_times() {
        let mut schedule = Schedule::new(rate(100.0), vec![0], 1, 50);
        for n in 0..999 {
            assert_eq!(schedule.pick(MS * 10 * n, |_| 0).len(), 1, "{n}");
            assert_eq!(schedule.pick(MS * 10 * n + MS * 9, |_| 0), [], "{n}");
            assert_eq!(schedule.rest(MS * 10 * n + MS * 9), Some(MS));
        }
    }

    #[test]
    fn whoever_is_late_counts_from_the_schedule() {
        let mut schedule = Schedule::new(rate(100.0), vec![0], 1, 5);
        let due = |picks: Vec<Pick>| -> Vec<_> { picks.iter().filter_map(|pick| pick.due).collect() };
        assert_eq!(due(schedule.pick(MS * 65, |_| 0)), [Duration::ZERO, MS * 10, MS * 20, MS * 30, MS * 40]);
        assert_eq!(due(schedule.pick(MS * 66, |_| 0)), [MS * 50, MS * 60]);
        assert_eq!(due(schedule.pick(MS * 67, |_| 0)), [Duration::ZERO; 0]);
    }

    #[test]
    fn a_high_rate_leaves_in_groups_over_all_rooms() {
        let mut schedule = Schedule::new(rate(2_000.0), vec![0, 2], 4, 50);
        // Half of the rooms, so half of the rate: groups of 10, 100 times a second.
        let picks = schedule.pick(Duration::ZERO, |_| 0);
        assert_eq!(picks.len(), 10);
        assert_eq!(picks.iter().filter(|pick| pick.room == 2).count(), 5);
        assert_eq!(schedule.rest(Duration::ZERO), Some(MS * 10));
    }

    #[test]
    fn what_is_due_after_the_end_is_not_published_however_late_it_is() {
        let mut schedule = Schedule::new(rate(100.0), vec![0], 1, 50);
        let mut published = 0;
        for step in 0..50 {
            published += schedule.pick(Duration::from_secs(20) + MS * step, |_| 0).len();
        }
        assert_eq!(published, 1_000);
        assert_eq!(schedule.rest(Duration::from_secs(20)), Some(Duration::MAX));
    }

    #[test]
    fn flat_out_a_room_never_has_more_on_its_way_than_it_may() {
        let speed = Speed::FlatOut { in_flight: 100, each: None };
        let mut schedule = Schedule::new(speed, vec![7], 1, 50);
        assert_eq!(sizes(&schedule.pick(MS, |_| 0)), [(7, 50)]);
        assert_eq!(sizes(&schedule.pick(MS, |_| 50)), [(7, 50)]);
        assert_eq!(sizes(&schedule.pick(MS, |_| 100)), []);
        assert_eq!(sizes(&schedule.pick(MS, |_| 90)), [], "ten are not worth a request");
        assert_eq!(sizes(&schedule.pick(MS, |_| 70)), [(7, 30)]);
    }

    #[test]
    fn flat_out_all_rooms_have_their_turn() {
        let speed = Speed::FlatOut { in_flight: 2, each: None };
        let mut schedule = Schedule::new(speed, (0..10).collect(), 10, 4);
        let mut turns = [0; 10];
        for _ in 0..5 {
            schedule.pick(MS, |_| 0).iter().for_each(|pick| turns[pick.room] += pick.count);
        }
        assert_eq!(turns, [2; 10]);
    }

    #[test]
    fn flat_out_with_an_end_publishes_so_many_in_each_room() {
        let speed = Speed::FlatOut { in_flight: 1_000, each: Some(7) };
        let mut schedule = Schedule::new(speed, vec![0, 1, 2], 3, 10);
        let mut published = [0; 3];
        for _ in 0..20 {
            schedule.pick(MS, |_| 1).iter().for_each(|pick| published[pick.room] += pick.count);
        }
        assert_eq!(published, [7; 3]);
        assert!(schedule.is_done());
    }
}

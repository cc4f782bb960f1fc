//! How high the load is when: straight lines, one for each stage.

use std::time::Duration;

/// A stage: from one level to another in a straight line.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stage {
    seconds: f64,
    from: f64,
    to: f64,
}

/// The level of the load over time: requests per second, or users.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    stages: Vec<Stage>,
    duration: Duration,
}

impl Stage {
    /// The area below its line: how many requests are due in it.
    fn area(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// When the area below the line reaches `area`, which is less than the whole.
    fn when(&self, area: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        // The quadratic formula in the form that bears a slope of 0.
        let divisor = self.from + (self.from * self.from + 2.0 * slope * area).max(0.0).sqrt();
        if divisor > 0.0 { (2.0 * area / divisor).min(self.seconds) } else { 0.0 }
    }
}

impl Schedule {
    /// Always the same level.
    pub(super) fn steady(level: f64, duration: Duration) -> Self {
        Self::ramps(level, [(duration, level)])
    }

    /// From `start` to the level of each stage in turn; a stage without duration is a jump.
    pub(super) fn ramps(start: f64, stages: impl IntoIterator<Item = (Duration, f64)>) -> Self {
        let (mut from, mut duration) = (start, Duration::ZERO);
        let mut lines = Vec::new();
        for (time, to) in stages {
            if !time.is_zero() {
                lines.push(Stage { seconds: time.as_secs_f64(), from, to });
            }
            duration += time;
            from = to;
        }
        Self { stages: lines, duration }
    }

    /// How long it takes.
    pub(super) fn duration(&self) -> Duration {
        self.duration
    }

    /// Whether the level never changes.
    pub(super) fn is_steady(&self) -> bool {
        let first = self.stages.first().map_or(0.0, |stage| stage.from);
        #[expect(clippy::float_cmp, reason = "the same number, as it was given")]
        self.stages.iter().all(|stage| stage.from == first && stage.to == first)
    }

    /// The highest level.
    pub(super) fn peak(&self) -> f64 {
        self.stages.iter().fold(0.0, |peak, stage| peak.max(stage.from).max(stage.to))
    }

    /// The level after `elapsed`.
    pub(super) fn at(&self, elapsed: Duration) -> f64 {
        let mut left = elapsed.as_secs_f64();
        for stage in &self.stages {
            if left < stage.seconds {
                return stage.from + (stage.to - stage.from) * left / stage.seconds;
            }
            left -= stage.seconds;
        }
        self.stages.last().map_or(0.0, |stage| stage.to)
    }

    /// When each request is due, counted from the start. The first one is due as soon as the level rises above 0.
    pub(super) fn due(&self) -> impl Iterator<Item = Duration> + use<> {
        let (mut before, mut area) = (0.0, 0.0);
        let mut stages = self.stages.clone().into_iter().peekable();
        (0_u64..).map_while(move |n| {
            #[expect(clippy::cast_precision_loss, reason = "a day of requests fits into 53 bits")]
            let wanted = n as f64;
            loop {
                let stage = *stages.peek()?;
                if wanted < area + stage.area() {
                    return Some(Duration::from_secs_f64(before + stage.when((wanted - area).max(0.0))));
                }
                before += stage.seconds;
                area += stage.area();
                stages.next();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_steady_rate_has_even_steps() {
        let schedule = Schedule::steady(4.0, SECOND);
        let due: Vec<u128> = schedule.due().map(|at| at.as_millis()).collect();
        assert_eq!((due, schedule.is_steady(), schedule.peak()), (vec![0, 250, 500, 750], true, 4.0));
        assert_eq!(Schedule::steady(0.5, SECOND).due().count(), 1);
        assert_eq!(Schedule::steady(100_000.0, SECOND).due().count(), 100_000);
    }

    #[test]
    fn a_ramp_has_as_many_requests_as_the_area_below_it() {
        // 0 → 100 in 2 s, 100 for 1 s, a jump to 10, and down to nothing in 1 s.
        let stages = [(2 * SECOND, 100.0), (SECOND, 100.0), (Duration::ZERO, 10.0), (SECOND, 0.0)];
        let schedule = Schedule::ramps(0.0, stages);
        let due: Vec<Duration> = schedule.due().collect();
        let within = |from: u64, to: u64| {
            due.iter().filter(|at| (from..to).contains(&u64::try_from(at.as_millis()).unwrap())).count()
        };
        assert_eq!((within(0, 1000), within(1000, 2000), within(2000, 3000)), (25, 75, 100));
        assert_eq!((within(3000, 4000), due.len()), (5, 205));
        assert!(due.is_sorted() && !schedule.is_steady());
        assert_eq!(schedule.duration(), 4 * SECOND);
        for (ms, level) in [(0, 0.0), (1000, 50.0), (2500, 100.0), (3000, 10.0), (3500, 5.0), (9000, 0.0)] {
            assert!((schedule.at(Duration::from_millis(ms)) - level).abs() < 1e-9, "{ms}");
        }
    }

    #[test]
    fn nothing_is_due_while_the_level_is_0() {
        let schedule = Schedule::ramps(0.0, [(SECOND, 0.0), (Duration::ZERO, 2.0), (SECOND, 2.0)]);
        let due: Vec<u128> = schedule.due().map(|at| at.as_millis()).collect();
        assert_eq!(due, [1000, 1500]);
        assert_eq!(Schedule::ramps(0.0, [(SECOND, 0.0)]).due().count(), 0);
        assert_eq!(Schedule::ramps(1.0, []).due().count(), 0);
    }
}

//! Rates: so many a second, measured with one number for each party (the generic cell rate algorithm, which is a
//! token bucket whose level is told by the time at which it will be full again).

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time since this process first asked for it.
#[must_use]
pub fn now_ns() -> u64 {
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// So many a second, and what two seconds allow at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
}

/// How many seconds may be spent at once.
const BURST_S: u64 = 2;
const SECOND_NS: u64 = 1_000_000_000;

impl Rate {
    /// A rate of at least one a second.
    #[must_use]
    pub fn per_second(per_second: u32) -> Self {
        Self { per_second: per_second.max(1) }
    }

    /// How many there may be in a second.
    #[must_use]
    pub fn get(self) -> u32 {
        self.per_second
    }

    fn cost_ns(self, n: u32) -> u64 {
        u64::from(n) * SECOND_NS / u64::from(self.per_second)
    }
}

/// What one party has spent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    /// When nothing of it counts any more.
    free_ns: u64,
}

impl Meter {
    /// Spends `n` if anything is left, even if that is less: many at once are paid for afterwards. Else how long it
    /// takes until something is.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&mut self, rate: Rate, n: u32, now_ns: u64) -> Result<(), Duration> {
        let free = self.free_ns.max(now_ns);
        let (spent, most) = (free - now_ns, BURST_S * SECOND_NS - rate.cost_ns(1));
        if spent > most {
            return Err(Duration::from_nanos(spent - most));
        }
        self.free_ns = free.saturating_add(rate.cost_ns(n));
        Ok(())
    }

    /// Whether it is as if nothing had been spent.
    #[must_use]
    pub fn is_free(&self, now_ns: u64) -> bool {
        self.free_ns <= now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (rate, mut meter) = (Rate::per_second(10), Meter::default());
        let burst = (0..100).filter(|_| meter.take(rate, 1, 0).is_ok()).count();
        assert_eq!(burst, 20);
        let wait = meter.take(rate, 1, 0).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        let later: Vec<_> = (1..=50).filter(|n| meter.take(rate, 1, n * SECOND_NS / 50).is_ok()).collect();
        assert_eq!(later, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]);
        assert!(!meter.is_free(SECOND_NS) && meter.is_free(3 * SECOND_NS));
    }

    #[test]
    fn many_at_once_are_paid_for_afterwards() {
        let (rate, mut meter) = (Rate::per_second(100), Meter::default());
        assert_eq!(meter.take(rate, 1000, 0), Ok(()));
        let wait = meter.take(rate, 1, 0).unwrap_err();
        assert_eq!(wait, Duration::from_millis(8010));
        assert!(meter.take(rate, 1, 8_000_000_000).is_err());
        assert_eq!(meter.take(rate, 1, 8_010_000_000), Ok(()));
    }

    #[test]
    fn one_a_second_is_the_least() {
        let (rate, mut meter) = (Rate::per_second(0), Meter::default());
        assert!(meter.take(rate, 1, 0).is_ok() && meter.take(rate, 1, 0).is_ok());
        assert_eq!(meter.take(rate, 1, 0), Err(Duration::from_secs(1)));
    }
}

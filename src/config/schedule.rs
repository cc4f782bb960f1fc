//! Schedules: jobs that the clock submits (`[schedules.NAME]` in `tidings.toml`), and when each is due.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::model::job::SUITE_TYPE;
use crate::model::{Priority, id};

/// The longest name of a schedule: the names of its tests begin with it.
const MAX_NAME: usize = 64;
/// How late a missed tick may still be fired at most.
pub const MAX_CATCH_UP: Duration = Duration::from_hours(7 * 24);

/// A job that the clock submits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// When: minute, hour, day of month, month, day of week; a sixth field before them has seconds.
    pub cron: String,
    /// By which clock, such as `Europe/Berlin`; UTC if absent.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Which runner handles it; `command` if absent.
    #[serde(default)]
    pub test_type: Option<String>,
    /// The suite that a `command` runs.
    #[serde(default)]
    pub suite: Option<String>,
    /// What else the runner is told.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// How urgent it is, 1 to 4.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Attempts in all; the queue's default if absent.
    #[serde(default)]
    pub max_attempts: Option<u32>,
    /// How long an attempt may take; the runner's own limit if absent.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// How late the newest tick that was missed while no server ran may still be fired.
    #[serde(default, deserialize_with = "duration")]
    pub catch_up: Option<Duration>,
}

/// What is wrong with a schedule, and with which of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSchedule {
    /// The key; none for the schedule's name.
    pub key: Option<&'static str>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// When a schedule is due.
#[derive(Debug, Clone)]
pub struct Timing {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Which runner handles its jobs.
    #[must_use]
    pub fn test_type(&self) -> &str {
        self.test_type.as_deref().unwrap_or(SUITE_TYPE)
    }

    /// What its jobs are told.
    #[must_use]
    pub fn job_config(&self) -> Map<String, Value> {
        let mut config = self.config.clone();
        if let Some(suite) = &self.suite {
            config.insert("suite".to_owned(), suite.as_str().into());
        }
        config
    }

    /// How late the newest tick that was missed while no server ran may still be fired.
    #[must_use]
    pub fn catch_up(&self) -> Duration {
        self.catch_up.unwrap_or(Duration::from_mins(1))
    }

    /// The suite that its jobs run.
    #[must_use]
    pub fn runs(&self) -> Option<&str> {
        let named = self.suite.as_deref().or_else(|| self.config.get("suite").and_then(Value::as_str));
        named.filter(|_| self.test_type() == SUITE_TYPE)
    }

    /// When it is due; the first thing that is wrong with it.
    pub fn timing(&self, name: &str) -> Result<Timing, InvalidSchedule> {
        let wrong = |key, message: String| InvalidSchedule { key: Some(key), message };
        if let Err(error) = id::check("schedule", name, MAX_NAME) {
            return Err(InvalidSchedule { key: None, message: error.to_string() });
        }
        if let Err(error) = id::check("test type", self.test_type(), id::MAX_ID_LEN) {
            return Err(wrong("test_type", error.to_string()));
        }
        if self.suite.is_some() && self.test_type() != SUITE_TYPE {
            return Err(wrong("suite", format!("only the test type `{SUITE_TYPE}` runs suites")));
        }
        if self.suite.is_some() && self.config.contains_key("suite") {
            return Err(wrong("suite", "it stands in `config` as well: leave one of them out".to_owned()));
        }
        if self.max_attempts == Some(0) {
            return Err(wrong("max_attempts", "expected 1 or more".to_owned()));
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(wrong("timeout", "is zero: leave it out for the runner's own limit".to_owned()));
        }
        if self.catch_up() > MAX_CATCH_UP {
            return Err(wrong("catch_up", "expected at most 7days".to_owned()));
        }
        let zone = match &self.timezone {
            None => TimeZone::UTC,
            Some(zone) => TimeZone::get(zone).map_err(|_| {
                let hint = "expected a name of the IANA database such as \"Europe/Berlin\"";
                wrong("timezone", format!("there is no time zone {zone:?}; {hint}"))
            })?,
        };
        // With a year it would be over one day, and then no server would start.
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(&self.cron).map_err(|error| {
            let hint = "expected `minute hour day month weekday`, such as \"30 2 * * 1-5\"";
            wrong("cron", format!("{:?} is no cron expression ({error}); {hint}", self.cron))
        })?;
        let timing = Timing { cron, zone };
        if timing.next_after(crate::model::now_ms()).is_none() {
            return Err(wrong("cron", format!("{:?} names no time that will ever come", self.cron)));
        }
        Ok(timing)
    }
}

impl Timing {
    fn zoned(&self, at_ms: i64) -> Option<Zoned> {
        Some(Timestamp::from_millisecond(at_ms).ok()?.to_zoned(self.zone.clone()))
    }

    /// The first tick after a time, in ms since the Unix epoch.
    #[must_use]
    pub fn next_after(&self, at_ms: i64) -> Option<i64> {
        let next = self.cron.find_next_occurrence(&self.zoned(at_ms)?, false).ok()?;
        Some(next.timestamp().as_millisecond())
    }

    /// The last tick that is not after a time.
    #[must_use]
    pub fn latest_at(&self, at_ms: i64) -> Option<i64> {
        // Ticks are at whole seconds.
        let whole = at_ms - at_ms.rem_euclid(1000);
        let latest = self.cron.find_previous_occurrence(&self.zoned(whole)?, true).ok()?;
        Some(latest.timestamp().as_millisecond())
    }
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    let parsed = humantime::parse_duration(&text);
    parsed
        .map(Some)
        .map_err(|e| serde::de::Error::custom(format!("`{text}` is no duration such as 30m: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        toml::from_str(text).unwrap()
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn told(ms: Option<i64>) -> String {
        Timestamp::from_millisecond(ms.unwrap()).unwrap().to_string()
    }

    #[test]
    fn ticks_are_those_of_cron_in_the_zone_that_is_named() {
        for (text, after, next) in [
            ("cron = '30 2 * * *'", "2026-11-28T02:30:00Z", "2026-11-29T02:30:00Z"),
            ("cron = '30 2 * * *'", "2026-11-28T02:29:59.999Z", "2026-11-28T02:30:00Z"),
            ("cron = '0 9 * * 1-5'", "2026-11-28T21:00:00Z", "2026-11-30T09:00:00Z"),
            ("cron = '@daily'", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("cron = '*/2 * * * * *'", "2026-11-28T21:00:00.001Z", "2026-11-28T21:00:02Z"),
            // 13 o'clock in Berlin: in summer, and in winter.
            (
                "cron = '0 13 * * *'\ntimezone = 'Europe/Berlin'",
                "2026-07-01T00:00:00Z",
                "2026-07-01T11:00:00Z",
            ),
            (
                "cron = '0 13 * * *'\ntimezone = 'Europe/Berlin'",
                "2026-12-01T00:00:00Z",
                "2026-12-01T12:00:00Z",
            ),
            // The night without half past two: right after the gap.
            (
                "cron = '30 2 * * *'\ntimezone = 'Europe/Berlin'",
                "2027-03-27T12:00:00Z",
                "2027-03-28T01:00:00Z",
            ),
            // The night with two of them: the first.
            (
                "cron = '30 2 * * *'\ntimezone = 'Europe/Berlin'",
                "2026-10-24T12:00:00Z",
                "2026-10-25T00:30:00Z",
            ),
            (
                "cron = '30 2 * * *'\ntimezone = 'Europe/Berlin'",
                "2026-10-25T00:30:00Z",
                "2026-10-26T01:30:00Z",
            ),
            // More than one time a day goes by what the clock shows: none in the gap, both where it comes twice.
            (
                "cron = '0,30 2 * * *'\ntimezone = 'Europe/Berlin'",
                "2027-03-27T12:00:00Z",
                "2027-03-29T00:00:00Z",
            ),
            (
                "cron = '0,30 2 * * *'\ntimezone = 'Europe/Berlin'",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:00:00Z",
            ),
        ] {
            let timing = schedule(text).timing("nightly").unwrap();
            assert_eq!(told(timing.next_after(at(after))), next, "{text} after {after}");
            let next = at(next);
            for later in [0, 1, 999] {
                assert_eq!(told(timing.latest_at(next + later)), told(Some(next)), "{text}");
            }
            assert!(timing.latest_at(next - 1).unwrap() <= at(after), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_key() {
        for (text, key, message) in [
            ("cron = 'soon'", "cron", "\"soon\" is no cron expression"),
            ("cron = ''", "cron", "is no cron expression"),
            ("cron = '61 * * * *'", "cron", "is no cron expression"),
            ("cron = '0 0 2 1 1 * 2099'", "cron", "years are disallowed"),
            ("cron = '* * * *'", "cron", "`minute hour day month weekday`"),
            ("cron = '0 0 30 2 *'", "cron", "no time that will ever come"),
            ("cron = '* * * * *'\ntimezone = 'Berlin'", "timezone", "\"Europe/Berlin\""),
            ("cron = '* * * * *'\ntest_type = 'a b'", "test_type", "test type"),
            ("cron = '* * * * *'\ntest_type = 'stress'\nsuite = 'unit'", "suite", "runs suites"),
            (
                "cron = '* * * * *'\nsuite = 'unit'\nconfig = { suite = 'x' }",
                "suite",
                "leave one of them out",
            ),
            ("cron = '* * * * *'\nmax_attempts = 0", "max_attempts", "1 or more"),
            ("cron = '* * * * *'\ntimeout = '0s'", "timeout", "zero"),
            ("cron = '* * * * *'\ncatch_up = '8days'", "catch_up", "7days"),
        ] {
            let found = schedule(text).timing("nightly").unwrap_err();
            assert_eq!(found.key, Some(key), "{text}: {found:?}");
            assert!(found.message.contains(message), "{text}: {found:?}");
        }
        let unnamed = schedule("cron = '* * * * *'").timing("a b").unwrap_err();
        assert_eq!(unnamed.key, None, "{unnamed:?}");
        for text in ["cron = '* * * * *'\nmore = 1", "cron = '* * * * *'\npriority = 5", "suite = 'unit'"] {
            assert!(toml::from_str::<Schedule>(text).is_err(), "{text}");
        }
    }
}

//! Schedules: submits the jobs of `[schedules.NAME]` when they are due, each tick once over all nodes.
//!
//! Every server does this for itself, by its own clock. That a tick is fired once does not need them to agree on the time:
//! the job of a tick has a dedupe key made of the schedule and the tick, so that of two who submit it one finds the
//! other's; and the queue keeps which ticks were fired, for the time when that job is gone. A tick that nobody
//! could fire in time is fired later once: the newest one, if it is not too old.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::reload::{Follower, PutInForce, Reload};
use crate::config::schedule::{Schedule, Timing};
use crate::config::settings::Settings;
use crate::model::{Job, TestId, now_ms};
use crate::queue::{FIRED_KEPT, NewJob, Queue, QueueError};
use crate::tasks::Tasks;

/// The longest pause between two looks at the clock, which may be set.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The pause after a fault of the store.
const AFTER_FAULT: Duration = Duration::from_secs(1);
/// A tick that is older when it is seen was missed: this process, or the store, was away.
const LATE_MS: i64 = 10_000;
/// By how much clocks may differ. What was done later than that was done by one that was wrong.
const AHEAD_MS: i64 = 60_000;
/// What the dedupe keys of scheduled jobs begin with; nobody else may choose such a key.
pub const KEY_PREFIX: &str = "schedule:";

/// A schedule with its ticks.
#[derive(Debug, Clone)]
pub struct Planned {
    /// As it is configured.
    pub schedule: Schedule,
    /// When it is due.
    pub timing: Timing,
}

/// Schedules by their names.
type Plan = BTreeMap<String, Planned>;

/// The schedules that hold; clones share them.
#[derive(Debug, Clone)]
pub struct Schedules(watch::Receiver<Arc<Plan>>);

impl Schedules {
    /// Those of `settings`; they follow `reload`.
    #[must_use]
    pub fn of(settings: &Settings, reload: &Reload) -> Self {
        // They were checked when the settings were read.
        let (sender, plans) = watch::channel(Arc::new(plan(settings).unwrap_or_default()));
        reload.follow(Arc::new(Changes(sender)));
        Self(plans)
    }

    /// From now on what is due is submitted to `queue`.
    pub fn start(&self, queue: Arc<dyn Queue>, tasks: &Tasks) {
        tasks.spawn("schedules", run(queue, self.0.clone()));
    }

    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self(watch::channel(Arc::default()).1)
    }

    /// Those that hold now, by their names.
    #[must_use]
    pub fn now(&self) -> Arc<BTreeMap<String, Planned>> {
        self.0.borrow().clone()
    }
}

fn plan(settings: &Settings) -> Result<Plan, Vec<String>> {
    let (mut plan, mut mistakes) = (Plan::new(), Vec::new());
    for (name, schedule) in &settings.schedules {
        match schedule.timing(name) {
            Ok(timing) => drop(plan.insert(name.clone(), Planned { schedule: schedule.clone(), timing })),
            Err(error) => mistakes.push(format!("schedules.{name}: {}", error.message)),
        }
    }
    if mistakes.is_empty() { Ok(plan) } else { Err(mistakes) }
}

struct Changes(watch::Sender<Arc<Plan>>);

impl Follower for Changes {
    fn prepare(&self, settings: &Settings) -> Result<PutInForce, Vec<String>> {
        let (sender, plan) = (self.0.clone(), Arc::new(plan(settings)?));
        Ok(Box::new(move || drop(sender.send(plan))))
    }
}

async fn run(queue: Arc<dyn Queue>, mut plans: watch::Receiver<Arc<Plan>>) {
    // Up to when each schedule was looked after, as its expression was then.
    let mut seen: HashMap<String, (Schedule, i64)> = HashMap::new();
    let mut may_change = true;
    loop {
        let plan = plans.borrow_and_update().clone();
        for name in carry_over(&mut seen, &plan, now_ms()) {
            // Known to whoever begins later, too.
            if let Err(error) = queue.note_fired(&name, now_ms()).await {
                tracing::warn!(schedule = %name, %error, "that a schedule has changed could not be noted");
            }
        }
        let mut pause = LOOK_EVERY;
        for (name, planned) in &*plan {
            let since = seen.get(name).map(|(_, since)| *since);
            match look(&*queue, name, planned, since, now_ms()).await {
                Ok(upto) => {
                    seen.insert(name.clone(), (planned.schedule.clone(), upto));
                    let next = planned.timing.next_after(upto).map_or(LOOK_EVERY, until);
                    pause = pause.min(next);
                }
                Err(error) => {
                    tracing::warn!(schedule = %name, %error, "a scheduled job could not be submitted; trying again");
                    pause = pause.min(AFTER_FAULT);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = plans.changed(), if may_change => may_change = changed.is_ok(),
        }
    }
}

/// What holds after a reload of what was looked after: a schedule that has another expression or time zone begins anew,
/// and with nothing of the past, where that expression did not hold. Which ones do.
fn carry_over(seen: &mut HashMap<String, (Schedule, i64)>, plan: &Plan, now: i64) -> Vec<String> {
    let mut changed = Vec::new();
    seen.retain(|name, (known, since)| {
        let Some(Planned { schedule, .. }) = plan.get(name) else { return false };
        if (&schedule.cron, &schedule.timezone) != (&known.cron, &known.timezone) {
            (*known, *since) = (schedule.clone(), now);
            changed.push(name.clone());
        }
        schedule == known
    });
    changed
}

fn until(at_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms - now_ms()).unwrap_or(0))
}

/// Fires what is due; up to when that has been done.
async fn look(
    queue: &dyn Queue,
    name: &str,
    planned: &Planned,
    since: Option<i64>,
    now: i64,
) -> Result<i64, QueueError> {
    let Some(since) = since else {
        begin(queue, name, planned, now).await?;
        return Ok(now);
    };
    // A clock that was set back: those ticks were fired.
    if now <= since {
        let back_ms = since - now;
        if back_ms <= AHEAD_MS {
            return Ok(since);
        }
        // Which of them were is known.
        tracing::warn!(schedule = %name, back_ms, "the clock was set back: the schedule goes on by what it shows now");
        return Ok(now);
    }
    let late = now - LATE_MS;
    if since < late
        && let Some(missed) = planned.timing.latest_at(late).filter(|tick| *tick > since)
    {
        catch_up(queue, name, planned, missed, now).await?;
    }
    let mut tick = planned.timing.next_after(since.max(late));
    while let Some(due) = tick.filter(|due| *due <= now) {
        fire(queue, name, planned, due, now).await?;
        tick = planned.timing.next_after(due);
    }
    Ok(now)
}

/// Takes up a schedule, with the newest tick that was missed while nobody looked after it.
async fn begin(queue: &dyn Queue, name: &str, planned: &Planned, now: i64) -> Result<(), QueueError> {
    if !queue.fired(name).await?.iter().any(|tick| *tick <= now + AHEAD_MS) {
        // Nobody has ever looked after it, by a clock that was right: it begins now.
        return queue.note_fired(name, now).await;
    }
    match planned.timing.latest_at(now) {
        Some(missed) => catch_up(queue, name, planned, missed, now).await,
        None => Ok(()),
    }
}

/// Fires a tick that was missed, unless it is too old, or a newer one was fired.
async fn catch_up(
    queue: &dyn Queue,
    name: &str,
    planned: &Planned,
    missed: i64,
    now: i64,
) -> Result<(), QueueError> {
    let late_ms = now - missed;
    match judge(&planned.schedule, &queue.fired(name).await?, missed, now) {
        Missed::Done => Ok(()),
        Missed::TooOld => {
            let tick = jiff::Timestamp::from_millisecond(missed)
                .map_or_else(|_| missed.to_string(), |at| at.to_string());
            tracing::warn!(
                schedule = %name, %tick, late_ms,
                "a missed tick is given up, as it is older than `catch_up`: raise catch_up to have such ticks fired"
            );
            Ok(())
        }
        Missed::Due => {
            tracing::info!(schedule = %name, late_ms, "a missed tick is fired now");
            fire(queue, name, planned, missed, now).await
        }
    }
}

/// What becomes of a tick that was missed.
#[derive(Debug, PartialEq, Eq)]
enum Missed {
    /// It, or a newer one, was fired.
    Done,
    /// It is given up.
    TooOld,
    /// It is fired now.
    Due,
}

fn judge(schedule: &Schedule, fired: &[i64], missed: i64, now: i64) -> Missed {
    let patience = i64::try_from(schedule.catch_up().as_millis()).unwrap_or(i64::MAX);
    if fired.iter().any(|tick| (missed..=now + AHEAD_MS).contains(tick)) {
        Missed::Done
    } else if now - missed > patience {
        Missed::TooOld
    } else {
        Missed::Due
    }
}

/// Submits the job of a tick, unless that was done.
async fn fire(
    queue: &dyn Queue,
    name: &str,
    planned: &Planned,
    tick: i64,
    now: i64,
) -> Result<(), QueueError> {
    let fired = queue.fired(name).await?;
    // Those of a clock that was far ahead may be all that is kept; they say nothing of what went before.
    let oldest = fired.first().filter(|oldest| fired.len() >= FIRED_KEPT && **oldest <= now + AHEAD_MS);
    let forgotten = oldest.is_some_and(|oldest| tick < *oldest);
    if forgotten || fired.contains(&tick) {
        return Ok(());
    }
    match queue.submit(job(name, planned, tick)).await {
        Ok(submitted) if submitted.existing => {
            let job = &submitted.job;
            if !is_ours(job, name) {
                tracing::error!(schedule = %name, job = %job.job_id, user = ?job.user_id, "somebody else's job has the \
                    dedupe key of a scheduled job: it is left out");
            }
        }
        Ok(submitted) => {
            let job = &submitted.job;
            tracing::info!(schedule = %name, job = %job.job_id, test = %job.test_id, "a scheduled job was submitted");
        }
        Err(error @ QueueError::TestActive { .. }) => {
            tracing::error!(schedule = %name, %error, "somebody else has the test of a scheduled job: it is left out");
        }
        Err(error) => return Err(error),
    }
    queue.note_fired(name, tick).await
}

/// Whether it is a job that a server submitted for the schedule.
fn is_ours(job: &Job, name: &str) -> bool {
    job.name.as_deref() == Some(name) && job.user_id.is_none()
}

fn job(name: &str, planned: &Planned, tick: i64) -> NewJob {
    let schedule = &planned.schedule;
    let at = jiff::Timestamp::from_millisecond(tick).map(|at| at.strftime("%Y%m%dT%H%M%SZ").to_string());
    let test_id = at.ok().and_then(|at| TestId::parse(&format!("{name}-{at}")).ok());
    NewJob {
        test_type: schedule.test_type().to_owned(),
        name: Some(name.to_owned()),
        config: schedule.job_config(),
        test_id,
        priority: schedule.priority.unwrap_or_default(),
        run_at: None,
        max_attempts: schedule.max_attempts,
        timeout_ms: schedule.timeout.and_then(|timeout| u64::try_from(timeout.as_millis()).ok()),
        dedupe_key: Some(format!("{KEY_PREFIX}{name}:{tick}")),
        team_id: None,
        user_id: None,
        traceparent: None,
    }
}

#[cfg(test)]
mod tests;

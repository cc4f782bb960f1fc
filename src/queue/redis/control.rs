//! Control by people: what is held back, how many attempts of a suite may run, priorities.
//!
//! A pause is told like a change of a job: the script notes it, the node that called it tells it, and whoever sweeps tells
//! what was left.

use std::collections::BTreeMap;
use std::time::Instant;

use ::redis::Value;

use super::answer::{answer, parsed, state_of, unexpected};
use super::inner::Inner;
use super::link::KnownLimits;
use super::row::{Stored, Unreadable, list, number, text};
use super::{RedisQueue, UNTOLD_FOR_MS, UNTOLD_MAX, untold_of};
use crate::model::job::lane;
use crate::model::{Job, JobId, MessageId, Pause, Priority, Scope, UserId};
use crate::queue::events::pause_changed;
use crate::queue::{MAX_PAUSES, QueueError, Resumed, SuiteLimits, Waits};

/// News of a pause, as they lie in Redis.
struct News {
    number: i64,
    pause: Pause,
    /// Who resumed it, if it was resumed.
    resumed: Option<Option<UserId>>,
    at_ms: i64,
}

impl RedisQueue {
    pub(super) async fn hold_back(
        &self,
        scope: &Scope,
        reason: Option<String>,
        by: Option<UserId>,
    ) -> Result<(Pause, bool), QueueError> {
        let reason = reason.unwrap_or_default();
        let answered = self.inner.link.pause("pause", scope, by.as_ref(), reason, MAX_PAUSES).await?;
        let (word, mut rest) = answer(answered)?;
        let mut next = || rest.next().unwrap_or_default();
        match word.as_str() {
            "known" => Ok((pause(scope, &text(&next())?)?, false)),
            "full" => Err(QueueError::TooManyPauses),
            "done" => {
                let pause = pause(scope, &text(&next())?)?;
                let (at_ms, number) = (number(&next())?, number(&next())?);
                let news = News { number, pause: pause.clone(), resumed: None, at_ms };
                self.inner.tell_in_order(next(), news).await?;
                Ok((pause, true))
            }
            word => Err(unexpected(word)),
        }
    }

    pub(super) async fn let_go(
        &self,
        scope: &Scope,
        by: Option<UserId>,
    ) -> Result<Option<Resumed>, QueueError> {
        let answered = self.inner.link.pause("resume", scope, by.as_ref(), String::new(), MAX_PAUSES).await?;
        let (word, mut rest) = answer(answered)?;
        let mut next = || rest.next().unwrap_or_default();
        match word.as_str() {
            "known" => Ok(None),
            "done" => {
                let pause = pause(scope, &text(&next())?)?;
                let (at_ms, number) = (number(&next())?, number(&next())?);
                let news = News { number, pause: pause.clone(), resumed: Some(by.clone()), at_ms };
                self.inner.tell_in_order(next(), news).await?;
                Ok(Some(Resumed { pause, by }))
            }
            word => Err(unexpected(word)),
        }
    }

    pub(super) async fn held_back(&self) -> Result<Vec<Pause>, QueueError> {
        let mut pauses = self.inner.link.pauses().await?.into_iter().collect::<Vec<_>>();
        pauses.sort_unstable();
        pauses.iter().map(|(scope, entry)| Ok(pause(&Scope::from_key(scope), entry)?)).collect()
    }

    pub(super) async fn limit(&self, limits: &SuiteLimits) -> Result<(), QueueError> {
        self.inner.limits().extend(limits.clone());
        if limits.is_empty() {
            return Ok(());
        }
        let limited = number(&self.inner.link.limit(lanes(limits)).await?)?;
        self.inner.limited(limited);
        Ok(())
    }

    pub(super) async fn reorder(&self, job: &JobId, priority: Priority) -> Result<Job, QueueError> {
        let asked_at = Instant::now();
        let (word, mut rest) = answer(self.inner.link.prioritise(job, priority, UNTOLD_MAX).await?)?;
        let first = rest.next().unwrap_or_default();
        match word.as_str() {
            "ok" => Ok(self.inner.made(Stored::read(first)?, asked_at).await),
            "same" => Ok(Stored::read(first)?.job),
            "full" => Err(untold_of(job)),
            "missing" => Err(QueueError::NotFound(job.clone())),
            "busy" => Err(QueueError::NotWaiting { job: job.clone(), state: state_of(&first)? }),
            word => Err(unexpected(word)),
        }
    }
}

impl Inner {
    /// Lanes and limits for a Redis that may have lost them.
    pub(super) fn limits_known(&self) -> KnownLimits {
        let (born, limited_at) = self.seen();
        let limits = self.limits();
        let limited = limits.iter().filter(|(_, limit)| limit.is_some());
        let limits = lanes(&limited.map(|(suite, limit)| (suite.clone(), *limit)).collect());
        KnownLimits { born, limited_at, limits }
    }

    /// Tells what somebody has left untold of pauses.
    pub(super) async fn tell_pauses(&self, found: Value, now_ms: i64) -> Result<(), QueueError> {
        let patience = i64::try_from(UNTOLD_FOR_MS).unwrap_or(i64::MAX);
        for news in untold(found)?.into_iter().filter(|news| now_ms - news.at_ms > patience) {
            // What comes after it of the same scope waits for it.
            if !self.tell_pause(news).await {
                break;
            }
        }
        Ok(())
    }

    /// Tells `news` behind what somebody has left untold of the same scope; if that cannot be told, whoever sweeps tells all
    /// of it. Who is about to tell it as well does no harm: it has one id.
    async fn tell_in_order(&self, found: Value, news: News) -> Result<(), QueueError> {
        let scope = news.pause.scope();
        let before = untold(found)?.into_iter().filter(|before| before.pause.scope() == scope);
        for news in before.chain([news]) {
            if !self.tell_pause(news).await {
                break;
            }
        }
        Ok(())
    }

    /// Whether the broker has it.
    async fn tell_pause(&self, news: News) -> bool {
        let News { number, pause, resumed, at_ms } = news;
        let resumed = resumed.as_ref().map(Option::as_ref);
        let id = MessageId::parse(&format!("pause.{number}")).unwrap_or_else(|_| MessageId::generate());
        if let Some(group) = pause_changed(&self.rules, &pause, resumed, id, at_ms)
            && let Err(error) = self.broker.append(vec![group]).await
        {
            tracing::warn!(%error, "a pause could not be told; it will be when the broker is back");
            return false;
        }
        if let Err(error) = self.link.pause_told(number).await {
            // The sweep tells it again, and then it is forgotten.
            tracing::debug!(%error, "a told pause could not be forgotten");
        }
        true
    }
}

/// What is still to be told of pauses, the oldest first.
fn untold(found: Value) -> Result<Vec<News>, QueueError> {
    let mut entries = list(found)?.into_iter();
    let mut news = Vec::new();
    while let (Some(number), Some(entry)) = (entries.next(), entries.next()) {
        let number = self::number(&number)?;
        match parsed(&entry, |entry| read(number, entry)) {
            Ok(one) => news.push(one),
            Err(error) => tracing::error!(%error, "a pause cannot be told"),
        }
    }
    news.sort_by_key(|news| news.number);
    Ok(news)
}

/// What holds a job back, as the script for reading says it.
pub(super) fn waits(paused: Value, limited: Value) -> Result<Waits, QueueError> {
    let mut waits = Waits::default();
    let mut entries = list(paused)?.into_iter();
    while let (Some(scope), Some(entry)) = (entries.next(), entries.next()) {
        waits.pauses.push(pause(&Scope::from_key(&text(&scope)?), &text(&entry)?)?);
    }
    waits.pauses.sort_by_key(Pause::scope);
    let (mut entries, mut suites) = (list(limited)?.into_iter(), BTreeMap::new());
    while let (Some(lane), Some(running), Some(most)) = (entries.next(), entries.next(), entries.next()) {
        if let Scope::Suite(suite) = Scope::from_key(&text(&lane)?) {
            let count = |value| number(value).map(|n| u64::try_from(n).unwrap_or(0));
            suites.insert(suite, (count(&running)?, count(&most)?));
        }
    }
    waits.suites = suites;
    Ok(waits)
}

/// Each lane with its limit, or nothing, behind it.
fn lanes(limits: &SuiteLimits) -> Vec<String> {
    let limit = |limit: &Option<u32>| limit.map(|limit| limit.to_string()).unwrap_or_default();
    limits.iter().flat_map(|(suite, most)| [lane(suite), limit(most)]).collect()
}

/// Reads since when, by whom and why.
fn pause(scope: &Scope, entry: &str) -> Result<Pause, Unreadable> {
    let unreadable = |e: &dyn std::fmt::Display| Unreadable::answer(format!("a pause: {e}"));
    let [since, by, reason]: [String; 3] = serde_json::from_str(entry).map_err(|e| unreadable(&e))?;
    let since = since.parse().map_err(|e| unreadable(&e))?;
    let reason = Some(reason).filter(|reason| !reason.is_empty());
    Ok(Pause::new(scope, since, UserId::parse(&by).ok(), reason))
}

fn read(number: i64, entry: &str) -> Result<News, String> {
    let [word, scope, paused, by, now]: [String; 5] =
        serde_json::from_str(entry).map_err(|e| e.to_string())?;
    let pause = pause(&Scope::from_key(&scope), &paused).map_err(|e| e.to_string())?;
    let resumed = (word == "resume").then(|| UserId::parse(&by).ok());
    Ok(News { number, pause, resumed, at_ms: now.parse().map_err(|e| format!("{now:?}: {e}"))? })
}

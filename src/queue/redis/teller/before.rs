//! What is to be told before the beginning of a job: what is untold of the job that had its test before.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::memory::Memory;
use crate::model::JobId;
use crate::queue::redis::link::Link;
use crate::queue::redis::row::News;

/// How many jobs are looked at for the requests of one turn at most; what needs more is left to the sweep, which begins
/// with the oldest.
const JOBS: usize = 200;

/// What was found untold of the jobs that beginnings name, and of those before them.
#[derive(Debug, Default)]
pub(super) struct Before {
    found: HashMap<JobId, Vec<News>>,
    /// What was not looked at.
    left: HashSet<JobId>,
    asked_at: Option<Instant>,
}

impl Before {
    /// The jobs that have to be looked at for `news`, each of which Redis was asked for at the time beside it or later.
    pub(super) fn wanted<'a>(news: impl Iterator<Item = (&'a News, Instant)>, memory: &Memory) -> Vec<JobId> {
        let mut wanted = Vec::new();
        for (news, asked_at) in news {
            if let Some(before) = news.before()
                && !memory.has(news, asked_at)
                && !wanted.contains(&before)
            {
                wanted.push(before);
            }
        }
        wanted
    }

    /// Looks at them.
    pub(super) async fn read(link: &Link, wanted: Vec<JobId>) -> Self {
        if wanted.is_empty() {
            return Self::default();
        }
        let asked_at = Some(Instant::now());
        match link.untold(&wanted, JOBS).await {
            Ok((found, left)) => Self { found, left, asked_at },
            Err(error) => {
                tracing::warn!(%error, "what is to be told first could not be read; it will be when Redis is back");
                Self { left: wanted.into_iter().collect(), ..Self::default() }
            }
        }
    }

    /// The news in their order, and before each beginning what is untold of the job that it names; each with when Redis was
    /// asked for it. Nothing if that is not known.
    pub(super) fn in_order(
        &self,
        news: Vec<News>,
        asked_at: Instant,
        memory: &Memory,
    ) -> Option<Vec<(News, Instant)>> {
        let (mut all, mut looked_at) = (Vec::with_capacity(news.len()), HashSet::new());
        let mut rest: Vec<_> = news.into_iter().rev().map(|news| (news, asked_at)).collect();
        while let Some((next, asked_at)) = rest.pop() {
            let before = next.before().filter(|_| !memory.has(&next, asked_at));
            match before.filter(|_| looked_at.insert(next.id())) {
                Some(before) if !self.found.contains_key(&before) && self.left.contains(&before) => {
                    return None;
                }
                Some(before) => {
                    // One that is gone left nothing.
                    let untold = self.found.get(&before).into_iter().flatten().rev();
                    let until = next.seq;
                    let asked_first = self.asked_at.unwrap_or(asked_at);
                    rest.push((next, asked_at));
                    // What that job did later, when it had the test again, is not before this.
                    rest.extend(
                        untold.filter(|news| news.seq < until).map(|news| (news.clone(), asked_first)),
                    );
                }
                None => all.push((next, asked_at)),
            }
        }
        Some(all)
    }
}

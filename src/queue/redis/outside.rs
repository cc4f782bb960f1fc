//! Jobs that somebody outside of all workers holds: what the scripts say of them.

use std::time::Instant;

use ::redis::Value;

use super::answer::{answer, parsed, unexpected};
use super::row::Stored;
use super::{RedisQueue, lost};
use crate::model::{JobId, TestId};
use crate::queue::{Claim, Held, Holder, Lease, QueueError};

impl RedisQueue {
    /// The attempt as its holder gets it; `asked` is the lease that it asked with, and `asked_at` is when.
    pub(super) async fn held(
        &self,
        answered: Value,
        test: &TestId,
        asked: Option<&Lease>,
        asked_at: Instant,
    ) -> Result<Held, QueueError> {
        let (word, mut rest) = answer(answered)?;
        let first = rest.next().unwrap_or_default();
        let existing = match (word.as_str(), asked) {
            ("added", _) => false,
            ("existing" | "again", _) => true,
            ("active", _) => {
                return Err(QueueError::TestActive {
                    test: test.clone(),
                    job: parsed(&first, JobId::parse)?,
                });
            }
            ("lost", Some(lease)) => return Err(lost(lease)),
            (word, _) => return Err(unexpected(word)),
        };
        let mut stored = Stored::read(first)?;
        let (fence, secret) = (stored.fence, stored.secret.take());
        let secret = secret.ok_or_else(|| unexpected("a job without its secret"))?;
        // What another node has not told yet of an old one is that node's to tell; of one whose answer was lost, nobody's.
        let job = if word == "existing" { stored.job } else { self.inner.made(stored, asked_at).await };
        let holder = Some(Holder { test_id: job.test_id.clone(), secret });
        let lease = Lease { job_id: job.job_id.clone(), attempt: job.attempt, fence, holder };
        Ok(Held { claim: Claim { job, lease }, existing })
    }
}

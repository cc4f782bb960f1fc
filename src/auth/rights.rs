//! Rights: the decisions of [`super::access`] with what they have to know, which lies in the queue and the broker.

use std::fmt;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::access::{self, Asks, Subject};
use super::identity::{Identity, SUBMIT};
use crate::broker::{Broker, BrokerError};
use crate::config::channels::{Resolved, Rules};
use crate::fault::{Cause, Fault};
use crate::model::{ChannelName, Job, JobId, Snapshot, TestId};
use crate::queue::{Queue, QueueError};

/// So many owners are looked up at once.
const LOOKED_UP_AT_ONCE: usize = 16;

/// Why somebody may not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Denied {
    /// No rule knows the channel.
    #[error("no channel of this server is called `{0}`")]
    UnknownChannel(String),
    /// The caller lacks the right; whether there is such a thing is not said.
    #[error("{0}")]
    Forbidden(String),
    /// It is not known whether it has it.
    #[error(transparent)]
    Unknown(#[from] Fault),
}

impl Denied {
    /// The stable code that clients see.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownChannel(_) => "unknown_channel",
            Self::Forbidden(_) => "forbidden",
            Self::Unknown(Fault::Full(_)) => "storage_full",
            Self::Unknown(Fault::Unavailable(_)) => "unavailable",
        }
    }

    pub(crate) fn role(what: &str, roles: &[&str]) -> Self {
        Self::Forbidden(format!("{what} needs the role {}", roles.join(" or ")))
    }
}

impl From<BrokerError> for Denied {
    fn from(error: BrokerError) -> Self {
        Self::Unknown(Fault::Unavailable(Cause::new(error)))
    }
}

impl From<QueueError> for Denied {
    fn from(error: QueueError) -> Self {
        Self::Unknown(Fault::Unavailable(Cause::new(error)))
    }
}

/// Decides what callers may do.
#[derive(Clone)]
pub struct Rights {
    rules: Arc<Rules>,
    broker: Arc<dyn Broker>,
    queue: Arc<dyn Queue>,
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rights")
    }
}

impl Rights {
    /// By `rules`; whose tests and jobs are is in `broker` and `queue`.
    #[must_use]
    pub fn new(rules: Arc<Rules>, broker: Arc<dyn Broker>, queue: Arc<dyn Queue>) -> Self {
        Self { rules, broker, queue }
    }

    /// Whether `by` may read `channel`: join it, see its history and who is there.
    pub async fn read(&self, by: &Identity, channel: &ChannelName) -> Result<Resolved, Denied> {
        let name = channel.as_str();
        let resolved = self.rules.resolve(name).ok_or_else(|| Denied::UnknownChannel(name.to_owned()))?;
        if self.may_read(by, &resolved, name).await? {
            return Ok(resolved);
        }
        Err(Denied::Forbidden(format!("`{name}` is not for this caller (join in channels.toml)")))
    }

    /// Whether `by` may see the test `test`: as the channel that tells of it.
    pub async fn see_test(&self, by: &Identity, test: &TestId) -> Result<(), Denied> {
        let what = format!("test {test} is not for this caller");
        self.see(by, &format!("test-progress-{test}"), what).await
    }

    /// Whether `by` may see a job that is known, or not: as the channel that tells of it.
    pub fn see_job(&self, by: &Identity, id: &JobId, job: Option<&Job>) -> Result<(), Denied> {
        let what = format!("job {id} is not for this caller");
        let channel = format!("job-status-{id}");
        let Some(resolved) = self.rules.resolve(&channel) else {
            return if by.is_admin() { Ok(()) } else { Err(Denied::Forbidden(what)) };
        };
        let may = match access::may_read(by, &resolved, &channel) {
            Asks::Decided(may) => may,
            _ => access::may_read_of(by, &resolved.namespace.join, &job.map(subject).unwrap_or_default()),
        };
        if may { Ok(()) } else { Err(Denied::Forbidden(what)) }
    }

    /// Whether `by` may see who is online: as the channel that tells of it.
    pub async fn see_users(&self, by: &Identity) -> Result<(), Denied> {
        self.see(by, "user-presence", "who is online is not for this caller".to_owned()).await
    }

    /// Whether `by` may submit a job, for this test and this team if they are named.
    ///
    /// Who submits the newest job of a test owns it, so that nobody may submit one for a test of others.
    pub async fn submit(
        &self,
        by: &Identity,
        test: Option<&TestId>,
        team: Option<&str>,
    ) -> Result<(), Denied> {
        self.has_role(by, &[SUBMIT], "submitting jobs")?;
        if by.is_admin() {
            return Ok(());
        }
        if let Some(team) = team.filter(|team| !by.in_team(team)) {
            return Err(Denied::Forbidden(format!("the caller is not in team {team:?}")));
        }
        if let Some(test) = test
            && self.broker.snapshot(test).await?.is_some()
        {
            self.see_test(by, test).await?;
        }
        Ok(())
    }

    /// Whether `by` may cancel or retry a job that is known, or not.
    pub fn control(&self, by: &Identity, id: &JobId, job: Option<&Job>) -> Result<(), Denied> {
        if by.is_admin() || job.is_some_and(|job| access::may_control(by, &subject(job))) {
            return Ok(());
        }
        // Who may see jobs is told that there is none; others learn nothing.
        if job.is_none() && by.has_role(SUBMIT) && self.see_job(by, id, None).is_ok() {
            return Ok(());
        }
        let what = format!("job {id} is controlled by its submitter or their team, with the role {SUBMIT}");
        Err(Denied::Forbidden(what))
    }

    /// Whether `by` has one of `roles`, or is an administrator.
    pub fn has_role(&self, by: &Identity, roles: &[&str], what: &str) -> Result<(), Denied> {
        if by.is_admin() || roles.iter().any(|role| by.has_role(role)) {
            return Ok(());
        }
        let mut named: Vec<_> = roles.to_vec();
        named.push(super::identity::ADMIN);
        Err(Denied::role(what, &named))
    }

    /// Leaves those tests that `by` may see.
    pub async fn retain_tests(&self, by: &Identity, tests: &mut Vec<Snapshot>) -> Result<(), Denied> {
        let seen = stream::iter(std::mem::take(tests)).map(async |test| {
            let channel = format!("test-progress-{}", test.test_id);
            let may = match self.rules.resolve(&channel) {
                None => by.is_admin(),
                Some(resolved) => match (access::may_read(by, &resolved, &channel), &test.job_id) {
                    (Asks::Decided(may), _) => may,
                    (_, None) => false,
                    (_, Some(job)) => {
                        let job = self.queue.get(job).await?;
                        let subject = job.as_ref().map(subject).unwrap_or_default();
                        access::may_read_of(by, &resolved.namespace.join, &subject)
                    }
                },
            };
            Ok::<_, Denied>(may.then_some(test))
        });
        let seen: Vec<Option<Snapshot>> = seen.buffered(LOOKED_UP_AT_ONCE).try_collect().await?;
        tests.extend(seen.into_iter().flatten());
        Ok(())
    }

    async fn see(&self, by: &Identity, channel: &str, what: String) -> Result<(), Denied> {
        let may = match self.rules.resolve(channel) {
            Some(resolved) => self.may_read(by, &resolved, channel).await?,
            // Nobody was given a right to what no rule knows.
            None => by.is_admin(),
        };
        if may { Ok(()) } else { Err(Denied::Forbidden(what)) }
    }

    async fn may_read(&self, by: &Identity, resolved: &Resolved, channel: &str) -> Result<bool, Denied> {
        let job = match access::may_read(by, resolved, channel) {
            Asks::Decided(may) => return Ok(may),
            Asks::Test(test) => self.job_of_test(test).await?,
            Asks::Job(job) => self.job(job).await?,
        };
        let subject = job.as_ref().map(subject).unwrap_or_default();
        Ok(access::may_read_of(by, &resolved.namespace.join, &subject))
    }

    async fn job_of_test(&self, test: &str) -> Result<Option<Job>, Denied> {
        let Ok(test) = TestId::parse(test) else { return Ok(None) };
        let snapshot = self.broker.snapshot(&test).await?;
        match snapshot.and_then(|snapshot| snapshot.job_id) {
            Some(job) => Ok(self.queue.get(&job).await?),
            None => Ok(None),
        }
    }

    async fn job(&self, job: &str) -> Result<Option<Job>, Denied> {
        let Ok(job) = JobId::parse(job) else { return Ok(None) };
        Ok(self.queue.get(&job).await?)
    }
}

fn subject(job: &Job) -> Subject {
    Subject { owner: job.user_id.clone(), team: job.team_id.clone() }
}

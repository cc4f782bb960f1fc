//! Holds: attempts that run outside of all workers, in whichever program asked for one.

use std::time::Duration;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{Claim, Lease, NewJob};
use crate::fault::{Cause, Fault};
use crate::model::{TestId, UserId, WorkerId};

/// The code of the failure of an attempt whose worker, or holder, gave no sign of life.
pub const WORKER_LOST: &str = "worker_lost";

/// How much a secret has of what nobody guesses.
const SECRET_BYTES: usize = 20;

/// A test that somebody outside runs.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// Its job. It has one attempt, which begins at once; due time and timeout do not count.
    pub job: NewJob,
    /// What is shown as its worker.
    pub holder: WorkerId,
    /// How long the holder may be silent.
    pub lease: Duration,
    /// When it began, if that was before now.
    pub started_at: Option<i64>,
}

/// An attempt that somebody outside holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The job, and the right to speak for it.
    pub claim: Claim,
    /// It was held before: nothing began now.
    pub existing: bool,
}

/// What makes a lease that of somebody outside: numbers can be guessed.
#[derive(Clone, PartialEq, Eq)]
pub struct Holder {
    /// Which test.
    pub test_id: TestId,
    /// Known to the holder alone.
    pub secret: String,
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holder").field("test_id", &self.test_id).finish_non_exhaustive()
    }
}

/// That somebody wants a running attempt to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelWish {
    /// Why.
    pub reason: Option<String>,
    /// Who.
    pub by: Option<UserId>,
}

/// A secret that nobody guesses.
pub(super) fn new_secret() -> Result<String, Fault> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Fault::Unavailable(Cause::new("the system has no randomness for a secret")))?;
    Ok(hex(&bytes))
}

/// The secret of the attempt that a resumption with `lease` begins: always the same, so that whoever asks again
/// because the answer was lost gets that attempt. Who does not know the secret of `lease` cannot guess it.
pub(super) fn next_secret(lease: &Lease, holder: &Holder) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, holder.secret.as_bytes());
    let tag = hmac::sign(&key, format!("{}~{}~{}", lease.job_id, lease.attempt, lease.fence).as_bytes());
    hex(&tag.as_ref()[..SECRET_BYTES])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

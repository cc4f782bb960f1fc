//! Passes: leases as a text that goes over the wire. What it says counts for nothing without the secret in it.

use crate::model::{JobId, TestId};
use crate::queue::{Claim, Holder, Lease};

/// Stands between the parts; it is a part of none.
const BETWEEN: char = '~';

/// A lease of the test that a request names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) lease: Lease,
    pub(super) lease_ms: u64,
}

impl Pass {
    pub(super) fn write(claim: &Claim) -> String {
        let Claim { job, lease } = claim;
        let secret = lease.holder.as_ref().map_or("", |holder| holder.secret.as_str());
        let lease_ms = job.lease_ms.unwrap_or_default();
        let Lease { job_id, attempt, fence, .. } = lease;
        [job_id.as_str(), &attempt.to_string(), &fence.to_string(), &lease_ms.to_string(), secret]
            .join(&BETWEEN.to_string())
    }

    /// None for what no server gave out.
    pub(super) fn read(text: &str, test: &TestId) -> Option<Self> {
        let mut parts = text.splitn(5, BETWEEN);
        let job_id = JobId::parse(parts.next()?).ok()?;
        let (attempt, fence) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let lease_ms = parts.next()?.parse().ok()?;
        let secret = parts
            .next()
            .filter(|secret| secret.len() == 40 && secret.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let holder = Some(Holder { test_id: test.clone(), secret: secret.to_owned() });
        Some(Self { lease: Lease { job_id, attempt, fence, holder }, lease_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pass_is_none() {
        let test = TestId::parse("t").unwrap();
        let secret = "0123456789abcdef0123456789abcdef01234567";
        let text = format!("job_1~2~3~30000~{secret}");
        let pass = Pass::read(&text, &test).unwrap();
        assert_eq!((pass.lease.attempt, pass.lease.fence, pass.lease_ms), (2, 3, 30_000));
        for text in [
            "",
            "~",
            "~~~~",
            "job_1",
            "job_1~2~3~4~",
            "job_1~-2~3~4~x",
            "job_1~2~99999999999999999999~4~x",
            "a/b~2~3~4~x",
            &format!("job_1~2~3~4~{secret}~more"),
            &format!("job_1~2~3~4~{}", "ü".repeat(20)),
        ] {
            assert_eq!(Pass::read(text, &test), None, "{text:?}");
        }
    }
}

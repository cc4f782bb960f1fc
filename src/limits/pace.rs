//! The pace at which messages are published, users notified and jobs submitted: for each user, or for each address where
//! nobody in particular speaks.

use std::time::Duration;

use super::address::Address;
use super::rate::Rate;
use super::table::Table;
use super::{Reason, cap, met};
use crate::config::live::Live;
use crate::config::settings::Limits;
use crate::model::UserId;

/// What a party does; each has a pace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Publishes messages.
    Publish,
    /// Notifies users, everybody, or takes that back.
    Notify,
    /// Submits jobs, or has them run again.
    Submit,
}

impl Act {
    /// How often `limits` lets a party do it that comes from here or elsewhere, if that is limited.
    #[must_use]
    pub fn most(self, limits: &Limits, address: Address) -> Option<u32> {
        let (configured, usual) = match self {
            Self::Publish => (limits.publishes_per_second, Limits::PUBLISHES_PER_SECOND),
            Self::Notify => (limits.notifications_per_second, Limits::NOTIFICATIONS_PER_SECOND),
            Self::Submit => (limits.jobs_per_second, Limits::JOBS_PER_SECOND),
        };
        cap(configured, usual, address.is_loopback())
    }

    /// What is said to those who do it too often.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Publish => Reason::PublishRate,
            Self::Notify => Reason::NotificationRate,
            Self::Submit => Reason::JobRate,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Party {
    User(UserId),
    Address(Address),
}

/// How often each party does what, over sockets and over HTTP.
#[derive(Debug)]
pub struct Pace {
    limits: Live<Limits>,
    parties: Table<(Act, Party)>,
}

impl Pace {
    /// Nobody has done anything yet.
    #[must_use]
    pub fn new(limits: Live<Limits>) -> Self {
        Self { limits, parties: Table::default() }
    }

    /// `user`, or whoever is at `address`, does it `n` times.
    ///
    /// # Errors
    /// How long to wait with it.
    pub fn take(&self, act: Act, user: Option<&UserId>, address: Address, n: usize) -> Result<(), Duration> {
        let Some(most) = act.most(&self.limits.read(), address) else { return Ok(()) };
        let party = user.cloned().map_or(Party::Address(address), Party::User);
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.parties.take((act, party), Rate::per_second(most), n).inspect_err(|_| met(act.reason()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_the_same_everywhere_and_nobody_is_an_address() {
        let pace = Pace::new(Live::new(Limits { publishes_per_second: Some(1), ..Limits::default() }));
        let publish = |user, address, n| pace.take(Act::Publish, user, address, n);
        let (here, there) = (Address::V6(1), Address::V6(2));
        let ann = UserId::parse("ann").unwrap();
        assert_eq!(publish(Some(&ann), here, 5), Ok(()));
        assert!(publish(Some(&ann), there, 1).is_err());
        assert_eq!(publish(None, here, 5), Ok(()));
        assert!(publish(None, here, 1).is_err());
        assert_eq!(publish(None, there, 1), Ok(()));
    }

    #[test]
    fn who_publishes_too_much_may_submit_all_the_same() {
        let limits = Limits { publishes_per_second: Some(1), jobs_per_second: Some(1), ..Limits::default() };
        let (pace, here) = (Pace::new(Live::new(limits)), Address::V6(1));
        assert_eq!(pace.take(Act::Publish, None, here, 9), Ok(()));
        assert!(pace.take(Act::Publish, None, here, 1).is_err());
        assert_eq!(pace.take(Act::Submit, None, here, 9), Ok(()));
        assert!(pace.take(Act::Submit, None, here, 1).is_err());
        for _ in 0..2 * Limits::NOTIFICATIONS_PER_SECOND {
            assert_eq!(pace.take(Act::Notify, None, here, 1), Ok(()));
        }
        assert!(pace.take(Act::Notify, None, here, 1).is_err(), "the usual pace");
    }
}

//! The pace at which messages are published: for each user, or for each address where nobody in particular speaks.

use std::time::Duration;

use super::address::Address;
use super::rate::Rate;
use super::table::Table;
use super::{Reason, cap, met};
use crate::config::live::Live;
use crate::config::settings::Limits;
use crate::model::UserId;

#[derive(Debug, PartialEq, Eq, Hash)]
enum Party {
    User(UserId),
    Address(Address),
}

/// How often each party publishes, over sockets and over HTTP.
#[derive(Debug)]
pub struct Pace {
    limits: Live<Limits>,
    parties: Table<Party>,
}

impl Pace {
    /// Nobody has published yet.
    #[must_use]
    pub fn new(limits: Live<Limits>) -> Self {
        Self { limits, parties: Table::default() }
    }

    /// `user`, or whoever is at `address`, publishes `n` messages.
    ///
    /// # Errors
    /// How long to wait with them.
    pub fn publish(&self, user: Option<&UserId>, address: Address, n: usize) -> Result<(), Duration> {
        let configured = self.limits.read().publishes_per_second;
        let most = cap(configured, Limits::PUBLISHES_PER_SECOND, address.is_loopback());
        let Some(most) = most else { return Ok(()) };
        let party = user.cloned().map_or(Party::Address(address), Party::User);
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.parties.take(party, Rate::per_second(most), n).inspect_err(|_| met(Reason::PublishRate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_the_same_everywhere_and_nobody_is_an_address() {
        let pace = Pace::new(Live::new(Limits { publishes_per_second: Some(1), ..Limits::default() }));
        let (here, there) = (Address::V6(1), Address::V6(2));
        let ann = UserId::parse("ann").unwrap();
        assert_eq!(pace.publish(Some(&ann), here, 5), Ok(()));
        assert!(pace.publish(Some(&ann), there, 1).is_err());
        assert_eq!(pace.publish(None, here, 5), Ok(()));
        assert!(pace.publish(None, here, 1).is_err());
        assert_eq!(pace.publish(None, there, 1), Ok(()));
    }
}

//! The crowd: sessions and streams, which a client may have more of than it has TCP connections: how many there are, of
//! which address, and how many of them are no more than begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::address::Address;
use super::rate::Rate;
use super::table::{Over, Table};
use super::{Reason, cap};
use crate::config::live::Live;
use crate::config::settings::Limits;

/// What counts sessions and streams.
#[derive(Debug)]
pub struct Crowd {
    limits: Live<Limits>,
    begun: AtomicUsize,
    sessions: AtomicUsize,
    addresses: Table<Address>,
}

/// A session that has begun; counted until it is finished or gone.
#[derive(Debug)]
pub struct Begun {
    crowd: Arc<Crowd>,
    address: Address,
    is_finished: AtomicBool,
}

/// A session or a stream, counted for as long as it lives.
#[derive(Debug)]
pub struct Member {
    crowd: Arc<Crowd>,
    address: Option<Address>,
    is_session: bool,
}

/// What an address may have, and how often it may come.
#[must_use]
pub fn of_address(limits: &Limits, address: Address) -> (Option<u32>, Option<Rate>) {
    let is_loopback = address.is_loopback();
    let most = cap(limits.connections_per_address, Limits::CONNECTIONS_PER_ADDRESS, is_loopback);
    let rate = cap(limits.connects_per_second, Limits::CONNECTS_PER_SECOND, is_loopback);
    (most, rate.map(Rate::per_second))
}

impl Crowd {
    /// Nobody yet.
    #[must_use]
    pub fn new(limits: Live<Limits>) -> Arc<Self> {
        let (begun, sessions) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limits, begun, sessions, addresses: Table::default() })
    }

    /// What holds now.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.get()
    }

    /// A session begins.
    ///
    /// # Errors
    /// Which limit it would be beyond, and when to come again.
    pub fn begin(self: &Arc<Self>, address: Address) -> Result<Begun, (Reason, Duration)> {
        let limits = self.limits.get();
        let before = self.begun.fetch_add(1, Ordering::AcqRel);
        let begun = Begun { crowd: self.clone(), address, is_finished: AtomicBool::new(false) };
        if before >= limits.handshakes {
            return Err((Reason::Handshakes, Duration::from_secs(1)));
        }
        if let (_, Some(rate)) = of_address(&limits, address) {
            self.addresses.take(address, rate, 1).map_err(|wait| (Reason::ConnectRate, wait))?;
        }
        Ok(begun)
    }

    /// A session joins.
    ///
    /// # Errors
    /// Which limit it would be beyond.
    pub fn join(self: &Arc<Self>, address: Address) -> Result<Member, Reason> {
        let limits = self.limits.get();
        let before = self.sessions.fetch_add(1, Ordering::AcqRel);
        let mut member = Member { crowd: self.clone(), address: None, is_session: true };
        if before >= limits.connections {
            return Err(Reason::Connections);
        }
        self.hold(&limits, address, &mut member)?;
        Ok(member)
    }

    /// A stream joins; how many of them there may be in all is counted elsewhere.
    ///
    /// # Errors
    /// As [`Crowd::join`].
    pub fn stream(self: &Arc<Self>, address: Address) -> Result<Member, Reason> {
        let mut member = Member { crowd: self.clone(), address: None, is_session: false };
        self.hold(&self.limits.get(), address, &mut member)?;
        Ok(member)
    }

    fn hold(&self, limits: &Limits, address: Address, member: &mut Member) -> Result<(), Reason> {
        let (most, _) = of_address(limits, address);
        if most.is_some() {
            self.addresses.hold(address, most, None).map_err(|over| match over {
                Over::Count => Reason::ConnectionsOfAddress,
                Over::Rate(_) => Reason::ConnectRate,
            })?;
            member.address = Some(address);
        }
        Ok(())
    }
}

impl Begun {
    /// From where it comes.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// It has done what it had to.
    pub fn finish(&self) {
        if !self.is_finished.swap(true, Ordering::AcqRel) {
            self.crowd.begun.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.is_session {
            self.crowd.sessions.fetch_sub(1, Ordering::AcqRel);
        }
        if let Some(address) = self.address {
            self.crowd.addresses.release(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Address = Address::V6(7);

    fn crowd(limits: Limits) -> Arc<Crowd> {
        Crowd::new(Live::new(limits))
    }

    #[test]
    fn only_so_many_are_begun_at_once() {
        let crowd = crowd(Limits { handshakes: 2, ..Limits::default() });
        let (first, second) = (crowd.begin(ADDRESS).unwrap(), crowd.begin(ADDRESS).unwrap());
        assert!(matches!(crowd.begin(ADDRESS), Err((Reason::Handshakes, _))));
        first.finish();
        let third = crowd.begin(ADDRESS).unwrap();
        assert!(crowd.begin(ADDRESS).is_err());
        drop((first, second, third));
        assert_eq!(crowd.begun.load(Ordering::Acquire), 0);
    }

    #[test]
    fn sessions_and_streams_of_an_address_are_counted_together() {
        let crowd = crowd(Limits { connections_per_address: Some(2), ..Limits::default() });
        let session = crowd.join(ADDRESS).unwrap();
        let _stream = crowd.stream(ADDRESS).unwrap();
        assert!(matches!(crowd.stream(ADDRESS), Err(Reason::ConnectionsOfAddress)));
        assert!(crowd.join(Address::V6(8)).is_ok());
        drop(session);
        assert!(crowd.join(ADDRESS).is_ok());
    }

    #[test]
    fn there_are_only_so_many_sessions() {
        let crowd = crowd(Limits { connections: 1, ..Limits::default() });
        let session = crowd.join(ADDRESS).unwrap();
        assert!(matches!(crowd.join(ADDRESS), Err(Reason::Connections)));
        assert!(crowd.stream(ADDRESS).is_ok());
        drop(session);
        assert!(crowd.join(ADDRESS).is_ok());
    }
}

//! What callers share before anybody knows who they are: bounded in all, and by address, so that one address cannot take
//! what others need.
//!
//! A network of IPv6 (/64) counts as one address, since a household has one. What is shared (connections, bytes) is the
//! user's. The memory of this is bounded by what is shared out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why there is no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All of it is in use.
    All,
    /// This address has as much as one may have.
    Address,
}

#[derive(Default)]
struct State {
    taken: usize,
    by: HashMap<IpAddr, usize>,
}

/// So much in all, and so much for one address.
pub struct Shares {
    most: usize,
    most_each: usize,
    state: Mutex<State>,
}

/// A part of it; dropping it gives it back.
pub struct Share {
    of: Arc<Shares>,
    address: IpAddr,
    units: AtomicUsize,
}

impl Shares {
    pub fn new(most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_each,
            state: Mutex::default(),
        })
    }

    /// A share of so many units for who calls from there.
    pub fn take(self: &Arc<Self>, from: IpAddr, units: usize) -> Result<Share, Full> {
        let address = network(from);
        self.add(address, units)?;
        Ok(Share {
            of: self.clone(),
            address,
            units: units.into(),
        })
    }

    fn add(&self, address: IpAddr, units: usize) -> Result<(), Full> {
        let mut state = self.lock();
        if state.taken.saturating_add(units) > self.most {
            return Err(Full::All);
        }
        let has = state.by.get(&address).copied().unwrap_or_default();
        if has.saturating_add(units) > self.most_each {
            return Err(Full::Address);
        }
        state.taken += units;
        if units > 0 {
            state.by.insert(address, has + units);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes so many more.
    pub fn grow(&self, units: usize) -> Result<(), Full> {
        self.of.add(self.address, units)?;
        self.units.fetch_add(units, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let units = self.units.load(Ordering::Relaxed);
        let mut state = self.of.lock();
        state.taken = state.taken.saturating_sub(units);
        let left = state
            .by
            .get(&self.address)
            .map_or(0, |has| has.saturating_sub(units));
        if left == 0 {
            state.by.remove(&self.address);
        } else {
            state.by.insert(self.address, left);
        }
    }
}

/// A household has a /64 of IPv6 addresses: they count as one.
pub fn network(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_cannot_take_all_and_what_is_given_back_is_there_again() {
        let shares = Shares::new(5, 3);
        let first = shares.take(ip("192.0.2.1"), 2).expect("room");
        assert_eq!(first.grow(2).err(), Some(Full::Address));
        first.grow(1).expect("room");
        assert_eq!(shares.take(ip("192.0.2.1"), 1).err(), Some(Full::Address));
        let second = shares.take(ip("2001:db8::1"), 2).expect("room");
        assert_eq!(shares.take(ip("192.0.2.3"), 1).err(), Some(Full::All));
        drop(first);
        assert_eq!(
            shares.take(ip("2001:db8::ffff:2"), 2).err(),
            Some(Full::Address),
            "the same /64"
        );
        drop(second);
        let state = shares.lock();
        assert_eq!((state.taken, state.by.len()), (0, 0));
    }
}

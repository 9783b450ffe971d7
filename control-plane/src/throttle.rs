//! The brake on guessing passwords: failures are counted for each account and each address over a window.
//!
//! Its memory is bounded: when the table is full the entry whose window ends first goes. It reads no clock.

use std::collections::HashMap;
use std::net::IpAddr;

const WINDOW_MS: i64 = 5 * 60 * 1000;
const FAILURES_AN_ACCOUNT: u32 = 10;
/// An office behind one address has many people.
const FAILURES_AN_ADDRESS: u32 = 50;
const MAX_ENTRIES: usize = 10_000;

#[derive(Debug, PartialEq, Eq, Hash, Clone)]
enum Key {
    Account(String),
    Address(IpAddr),
}

#[derive(Debug)]
struct Entry {
    failures: u32,
    ends_ms: i64,
}

/// Failures that are remembered.
#[derive(Debug, Default)]
pub struct Throttle {
    entries: HashMap<Key, Entry>,
}

impl Throttle {
    /// Counts an attempt as failed until [`Throttle::succeeded`] says otherwise. `Err` holds the seconds to wait.
    pub fn attempt(&mut self, account: &str, from: IpAddr, now_ms: i64) -> Result<(), u64> {
        let limits = [
            (Key::Account(account.to_owned()), FAILURES_AN_ACCOUNT),
            (address(from), FAILURES_AN_ADDRESS),
        ];
        for (key, limit) in &limits {
            if let Some(entry) = self.entries.get(key)
                && entry.ends_ms > now_ms
                && entry.failures >= *limit
            {
                return Err(u64::try_from((entry.ends_ms - now_ms) / 1000 + 1).unwrap_or(1));
            }
        }
        for (key, _) in limits {
            self.make_room(now_ms);
            let entry = self.entries.entry(key).or_insert(Entry {
                failures: 0,
                ends_ms: now_ms + WINDOW_MS,
            });
            if entry.ends_ms <= now_ms {
                *entry = Entry {
                    failures: 0,
                    ends_ms: now_ms + WINDOW_MS,
                };
            }
            entry.failures += 1;
        }
        Ok(())
    }

    /// The attempt was a right one: the account starts anew, the address loses this attempt only.
    pub fn succeeded(&mut self, account: &str, from: IpAddr) {
        self.entries.remove(&Key::Account(account.to_owned()));
        if let Some(entry) = self.entries.get_mut(&address(from)) {
            entry.failures = entry.failures.saturating_sub(1);
        }
    }

    fn make_room(&mut self, now_ms: i64) {
        if self.entries.len() < MAX_ENTRIES {
            return;
        }
        self.entries.retain(|_, entry| entry.ends_ms > now_ms);
        if self.entries.len() >= MAX_ENTRIES {
            let first = self
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.ends_ms)
                .map(|(key, _)| key.clone());
            if let Some(key) = first {
                self.entries.remove(&key);
            }
        }
    }
}

/// A household has a /64 of IPv6 addresses: they count as one.
fn address(from: IpAddr) -> Key {
    Key::Address(match from {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other.to_canonical(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn an_account_is_braked_whatever_the_address_and_freed_after_the_window() {
        let mut throttle = Throttle::default();
        for i in 0..10 {
            assert_eq!(throttle.attempt("wang", ip(i), 0), Ok(()));
        }
        assert_eq!(throttle.attempt("wang", ip(99), 1000), Err(300));
        assert_eq!(throttle.attempt("li", ip(99), 1000), Ok(()));
        assert_eq!(throttle.attempt("wang", ip(99), WINDOW_MS), Ok(()));
    }

    #[test]
    fn an_address_is_braked_whatever_the_account() {
        let mut throttle = Throttle::default();
        for i in 0..50 {
            assert_eq!(throttle.attempt(&format!("a{i}"), ip(1), 0), Ok(()));
        }
        assert!(throttle.attempt("another", ip(1), 0).is_err());
        assert!(throttle.attempt("another", ip(2), 0).is_ok());
    }

    #[test]
    fn success_clears_the_account_but_not_the_guesses_of_its_address() {
        let mut throttle = Throttle::default();
        for _ in 0..9 {
            throttle.attempt("wang", ip(1), 0).expect("allowed");
        }
        throttle.attempt("wang", ip(1), 0).expect("allowed");
        throttle.succeeded("wang", ip(1));
        assert_eq!(throttle.entries[&address(ip(1))].failures, 9);
        assert_eq!(throttle.attempt("wang", ip(1), 0), Ok(()));
    }

    #[test]
    fn the_table_stays_bounded() {
        let mut throttle = Throttle::default();
        for i in 0..20_000_u32 {
            let from = IpAddr::from(i.to_be_bytes());
            throttle.attempt(&format!("a{i}"), from, 0).expect("allowed");
        }
        assert!(throttle.entries.len() <= MAX_ENTRIES);
    }
}

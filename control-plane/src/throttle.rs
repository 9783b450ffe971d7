//! The brake on guessing passwords: failures are counted over a window for each account at each address, each address,
//! and each account wherever they come from.
//!
//! Who guesses at an account from one address is stopped there. Guesses from many addresses never lock the account, since that
//! would be a way to keep its owner out: beyond a few, strangers are checked one by one, at a pace, who has tried least
//! first. A device that signed in before has a lane of its own, braked by its own failures alone; an address that signed in
//! rightly before is not held back by the guesses of others. Every try counts for its address, also one that is refused. All
//! memory is bounded: where a table is full, what ends first goes. It reads no clock.

use crate::shares::network;
use crate::turnstile::{Rank, Turnstile};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

const WINDOW_MS: i64 = 5 * 60 * 1000;
/// Of one account at one address.
const FAILURES_A_PAIR: u32 = 10;
/// An office behind one address has many people.
const FAILURES_AN_ADDRESS: u32 = 50;
/// Of one account wherever they come from: beyond, strangers go one by one.
const FREE_AN_ACCOUNT: u32 = 10;
/// Strangers that wait for one account at once.
const MAX_WAITING: usize = 16;
const MAX_ENTRIES: usize = 10_000;
/// Addresses from which somebody signed in rightly.
const MAX_KNOWN: usize = 10_000;
const KNOWN_MS: i64 = 30 * 24 * 3600 * 1000;

/// When an attempt may be checked, and its place among those that are.
#[derive(Debug)]
pub enum Verdict {
    Now(Rank),
    /// When its turn comes, at a pace.
    InTurn(Turnstile, Rank),
    /// Not at all; it may be tried again in so many seconds.
    Refused(u64),
}

#[derive(Debug)]
struct Failures {
    count: u32,
    ends_ms: i64,
    /// Of an account: where strangers wait.
    way: Option<Turnstile>,
}

/// Entries that end, in bounded number.
#[derive(Debug)]
struct Table<K, V> {
    entries: HashMap<K, V>,
    most: usize,
    ends: fn(&V) -> i64,
}

impl<K: Hash + Eq, V> Table<K, V> {
    fn new(most: usize, ends: fn(&V) -> i64) -> Self {
        let entries = HashMap::new();
        Self { entries, most, ends }
    }

    /// The entry if it has not ended.
    fn live(&self, key: &K, now_ms: i64) -> Option<&V> {
        self.entries.get(key).filter(|entry| (self.ends)(entry) > now_ms)
    }

    /// The entry; a new one in place of one that has ended. The one that ends first goes where there is no room.
    fn entry(&mut self, key: K, now_ms: i64, new: impl FnOnce() -> V) -> &mut V {
        let ends = self.ends;
        if self.entries.get(&key).is_some_and(|entry| ends(entry) <= now_ms) {
            self.entries.remove(&key);
        }
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            self.make_room(now_ms);
        }
        self.entries.entry(key).or_insert_with(new)
    }
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// Drops what has ended; where that is not enough, the eighth that ends first, so that not every attempt of a crowd looks
    /// through the whole table.
    fn make_room(&mut self, now_ms: i64) {
        let ends = self.ends;
        self.entries.retain(|_, entry| ends(entry) > now_ms);
        if self.entries.len() < self.most {
            return;
        }
        let mut all: Vec<i64> = self.entries.values().map(ends).collect();
        let eighth = all.len() / 8;
        let (_, last_ms, _) = all.select_nth_unstable(eighth);
        let (last_ms, mut left) = (*last_ms, eighth + 1);
        self.entries.retain(|_, entry| {
            let goes = left > 0 && ends(entry) <= last_ms;
            left -= usize::from(goes);
            !goes
        });
    }
}

type Pair = (String, IpAddr);

/// Failures that are remembered, and where they do not count.
#[derive(Debug)]
pub struct Throttle {
    pairs: Table<Pair, Failures>,
    addresses: Table<IpAddr, Failures>,
    accounts: Table<String, Failures>,
    devices: Table<String, Failures>,
    /// Addresses from which an account was signed in to, and until when that is remembered.
    known: Table<Pair, i64>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            pairs: Table::new(MAX_ENTRIES, |failures| failures.ends_ms),
            addresses: Table::new(MAX_ENTRIES, |failures| failures.ends_ms),
            accounts: Table::new(MAX_ENTRIES, |failures| failures.ends_ms),
            devices: Table::new(MAX_ENTRIES, |failures| failures.ends_ms),
            known: Table::new(MAX_KNOWN, |until_ms| *until_ms),
        }
    }
}

impl Throttle {
    /// Counts an attempt as failed until [`Throttle::succeeded`] says otherwise, and says when it may be checked. `device` is
    /// one that signed in to the account before.
    pub fn attempt(&mut self, account: &str, from: IpAddr, device: Option<&str>, now_ms: i64) -> Verdict {
        if let Some(device) = device {
            let failures = self.devices.entry(device.to_owned(), now_ms, || window(now_ms));
            return match failures.add(FAILURES_A_PAIR, now_ms) {
                Ok(()) => Verdict::Now(Rank {
                    stranger: false,
                    tries: failures.count,
                }),
                Err(wait) => Verdict::Refused(wait),
            };
        }
        let from = network(from);
        let at_address = self.addresses.entry(from, now_ms, || window(now_ms));
        if let Err(wait) = at_address.add(FAILURES_AN_ADDRESS, now_ms) {
            return Verdict::Refused(wait);
        }
        let tries = at_address.count;
        let pair = (account.to_owned(), from);
        let of_pair = self.pairs.entry(pair.clone(), now_ms, || window(now_ms));
        if let Err(wait) = of_pair.add(FAILURES_A_PAIR, now_ms) {
            return Verdict::Refused(wait);
        }
        let stranger = self.known.live(&pair, now_ms).is_none();
        let rank = Rank { stranger, tries };
        let of_account = self.accounts.entry(account.to_owned(), now_ms, || window(now_ms));
        let free = of_account.count < FREE_AN_ACCOUNT;
        of_account.count = of_account.count.saturating_add(1);
        // While somebody goes on guessing, nobody guesses freely.
        of_account.ends_ms = now_ms + WINDOW_MS;
        if free || !stranger {
            return Verdict::Now(rank);
        }
        let way = of_account
            .way
            .get_or_insert_with(|| Turnstile::new(1, MAX_WAITING));
        Verdict::InTurn(way.clone(), rank)
    }

    /// The attempt was not checked, for want of room: it was no guess at the account, but still a try of its address.
    pub fn not_checked(&mut self, account: &str, from: IpAddr, device: Option<&str>) {
        let lessen = |failures: Option<&mut Failures>| {
            if let Some(failures) = failures {
                failures.count = failures.count.saturating_sub(1);
            }
        };
        match device {
            Some(device) => lessen(self.devices.entries.get_mut(device)),
            None => {
                lessen(self.pairs.entries.get_mut(&(account.to_owned(), network(from))));
                lessen(self.accounts.entries.get_mut(account));
            }
        }
    }

    /// The attempt was a right one: this account starts anew at this address or device, which is known from now on; the address
    /// and the account lose this attempt only, since others may be guessing.
    pub fn succeeded(&mut self, account: &str, from: IpAddr, device: Option<&str>, now_ms: i64) {
        let from = network(from);
        let pair = (account.to_owned(), from);
        self.pairs.entries.remove(&pair);
        match device {
            Some(device) => {
                self.devices.entries.remove(device);
            }
            None => {
                if let Some(failures) = self.addresses.entries.get_mut(&from) {
                    failures.count = failures.count.saturating_sub(1);
                }
                if let Some(failures) = self.accounts.entries.get_mut(account) {
                    failures.count = failures.count.saturating_sub(1);
                }
            }
        }
        *self.known.entry(pair, now_ms, || 0) = now_ms + KNOWN_MS;
    }
}

impl Failures {
    /// One more; beyond so many it is braked for so many seconds.
    fn add(&mut self, most: u32, now_ms: i64) -> Result<(), u64> {
        if self.count >= most {
            return Err(seconds(self.ends_ms - now_ms));
        }
        self.count += 1;
        Ok(())
    }
}

fn window(now_ms: i64) -> Failures {
    Failures {
        count: 0,
        ends_ms: now_ms + WINDOW_MS,
        way: None,
    }
}

/// Rounded up, at least one.
fn seconds(ms: i64) -> u64 {
    u64::try_from(ms / 1000 + 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Told {
        Now,
        InTurn,
        Refused(u64),
    }

    fn attempt(throttle: &mut Throttle, account: &str, from: IpAddr, now_ms: i64) -> Told {
        told(throttle.attempt(account, from, None, now_ms))
    }

    fn told(verdict: Verdict) -> Told {
        match verdict {
            Verdict::Now(_) => Told::Now,
            Verdict::InTurn(..) => Told::InTurn,
            Verdict::Refused(wait) => Told::Refused(wait),
        }
    }

    /// So many wrong guesses from each of these addresses, at this instant.
    fn guess(throttle: &mut Throttle, account: &str, addresses: impl Iterator<Item = u8>, now_ms: i64) {
        for last in addresses {
            attempt(throttle, account, ip(last), now_ms);
        }
    }

    #[test]
    fn guesses_at_one_address_stop_there_and_nowhere_else() {
        let mut throttle = Throttle::default();
        for _ in 0..10 {
            assert_eq!(attempt(&mut throttle, "wang", ip(1), 0), Told::Now);
        }
        assert_eq!(attempt(&mut throttle, "wang", ip(1), 1000), Told::Refused(300));
        assert_eq!(attempt(&mut throttle, "li", ip(1), 1000), Told::Now);
        assert_eq!(attempt(&mut throttle, "wang", ip(1), WINDOW_MS), Told::Now);
    }

    #[test]
    fn the_owner_waits_for_a_turn_at_most_and_not_even_that_where_known() {
        let mut throttle = Throttle::default();
        throttle.succeeded("duty", ip(200), None, 0);
        for guess in 0..500_u32 {
            let from = IpAddr::from((0x0b00_0000 + guess).to_be_bytes());
            let told = attempt(&mut throttle, "duty", from, 1000);
            let expected = if guess < 10 { Told::Now } else { Told::InTurn };
            assert_eq!(told, expected, "{guess}");
        }
        assert_eq!(attempt(&mut throttle, "duty", ip(200), 1000), Told::Now, "known");
        assert_eq!(
            attempt(&mut throttle, "duty", ip(201), 1000),
            Told::InTurn,
            "elsewhere"
        );
        throttle.succeeded("duty", ip(201), None, 1000);
        assert_eq!(attempt(&mut throttle, "duty", ip(201), 1000), Told::Now);
        let later = 1000 + WINDOW_MS;
        assert_eq!(
            attempt(&mut throttle, "duty", ip(202), later),
            Told::Now,
            "when they end"
        );
    }

    #[test]
    fn who_has_tried_goes_after_who_has_not_and_a_refusal_is_a_try() {
        let mut throttle = Throttle::default();
        guess(&mut throttle, "duty", 0..40, 0);
        for _ in 0..20 {
            attempt(&mut throttle, "duty", ip(1), 0);
        }
        let mut rank = |last| match throttle.attempt("duty", ip(last), None, 0) {
            Verdict::InTurn(_, rank) => rank,
            other => panic!("{other:?}"),
        };
        assert!(rank(100) < rank(2));
        assert_eq!(rank(2).tries, 3);
        assert_eq!(throttle.addresses.entries[&ip(1)].count, 21);
    }

    #[test]
    fn a_device_has_a_lane_of_its_own_and_a_brake_of_its_own() {
        let mut throttle = Throttle::default();
        guess(
            &mut throttle,
            "duty",
            (0..40).chain(std::iter::repeat_n(1, 60)),
            0,
        );
        let mut by_device = |device| told(throttle.attempt("duty", ip(1), Some(device), 0));
        for _ in 0..10 {
            assert_eq!(by_device("tablet"), Told::Now);
        }
        assert_eq!(by_device("tablet"), Told::Refused(301));
        assert_eq!(by_device("desk"), Told::Now);
        throttle.succeeded("duty", ip(1), Some("tablet"), 0);
        assert_eq!(
            told(throttle.attempt("duty", ip(1), Some("tablet"), 0)),
            Told::Now
        );
    }

    #[test]
    fn an_address_is_braked_whatever_the_account() {
        let mut throttle = Throttle::default();
        for i in 0..50 {
            assert_eq!(attempt(&mut throttle, &format!("a{i}"), ip(1), 0), Told::Now);
        }
        assert_eq!(attempt(&mut throttle, "another", ip(1), 0), Told::Refused(301));
        assert_eq!(attempt(&mut throttle, "another", ip(2), 0), Told::Now);
    }

    #[test]
    fn success_clears_the_pair_but_not_the_guesses_of_its_address() {
        let mut throttle = Throttle::default();
        guess(&mut throttle, "wang", std::iter::repeat_n(1, 10), 0);
        throttle.succeeded("wang", ip(1), None, 0);
        assert_eq!(throttle.addresses.entries[&ip(1)].count, 9);
        assert_eq!(attempt(&mut throttle, "wang", ip(1), 0), Told::Now);
        throttle.not_checked("wang", ip(1), None);
        assert_eq!(throttle.addresses.entries[&ip(1)].count, 10, "still a try");
        assert_eq!(throttle.pairs.entries[&("wang".to_owned(), ip(1))].count, 0);
    }

    #[test]
    fn an_address_is_forgotten_after_a_month_and_a_network_of_ipv6_is_one() {
        let mut throttle = Throttle::default();
        let home: [IpAddr; 2] =
            ["2001:db8::1", "2001:db8::ffff:2"].map(|text| text.parse().expect("an address"));
        throttle.succeeded("duty", home[0], None, 0);
        guess(&mut throttle, "duty", 0..30, 1000);
        assert_eq!(attempt(&mut throttle, "duty", home[1], 1000), Told::Now);
        guess(&mut throttle, "duty", 0..30, KNOWN_MS);
        assert_eq!(
            attempt(&mut throttle, "duty", home[1], KNOWN_MS + 1000),
            Told::InTurn
        );
    }

    #[test]
    fn the_tables_stay_bounded() {
        let mut throttle = Throttle::default();
        for i in 0..20_000_u32 {
            let (from, name) = (IpAddr::from(i.to_be_bytes()), format!("a{i}"));
            throttle.attempt(&name, from, None, 0);
            throttle.attempt(&name, from, Some(&name), 0);
            throttle.succeeded(&name, from, None, 0);
        }
        let sizes = [
            throttle.pairs.entries.len(),
            throttle.known.entries.len(),
            throttle.accounts.entries.len(),
            throttle.devices.entries.len(),
        ];
        assert!(sizes.iter().all(|&size| size <= MAX_ENTRIES), "{sizes:?}");
    }
}

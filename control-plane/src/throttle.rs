//! The brake on guessing passwords: failures are counted over a window for each account at each address, each address,
//! and each account wherever they come from.
//!
//! Who guesses at an account from one address is stopped there. Guesses from many addresses never lock the account, since that
//! would be a way to keep its owner out: they are held back, longer with each, and then checked. An address that
//! signed in rightly before is not held back by the guesses of others. All memory is bounded: where a table is full, what
//! ends first goes. It reads no clock; this process's memory is all that it has.

use crate::shares::network;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;

const WINDOW_MS: i64 = 5 * 60 * 1000;
/// Of one account at one address.
const FAILURES_A_PAIR: u32 = 10;
/// An office behind one address has many people.
const FAILURES_AN_ADDRESS: u32 = 50;
/// Of one account wherever they come from: beyond, attempts are held back.
const FREE_AN_ACCOUNT: u32 = 10;
/// The first delay; it doubles with each further failure.
const FIRST_DELAY_MS: i64 = 1000;
const LONGEST_DELAY_MS: i64 = 15_000;
/// Attempts at one account that are held back at once: with the delay this bounds the guesses an hour.
const MAX_HELD: usize = 16;
const MAX_ENTRIES: usize = 10_000;
/// Addresses from which somebody signed in rightly.
const MAX_KNOWN: usize = 10_000;
const KNOWN_MS: i64 = 30 * 24 * 3600 * 1000;

/// When an attempt may be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Now,
    /// After so many milliseconds.
    After(i64),
    /// Not at all; it may be tried again in so many seconds.
    Refused(u64),
}

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    ends_ms: i64,
    /// Of an account: when the attempts that are held back are let go.
    held: VecDeque<i64>,
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
    /// Addresses from which an account was signed in to, and until when that is remembered.
    known: Table<Pair, i64>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            pairs: Table::new(MAX_ENTRIES, |failures| failures.ends_ms),
            addresses: Table::new(MAX_ENTRIES, |failures| failures.ends_ms),
            accounts: Table::new(MAX_ENTRIES, |failures| failures.ends_ms),
            known: Table::new(MAX_KNOWN, |until_ms| *until_ms),
        }
    }
}

impl Throttle {
    /// Counts an attempt as failed until [`Throttle::succeeded`] says otherwise, and says when it may be checked. One that
    /// is refused counts for nothing.
    pub fn attempt(&mut self, account: &str, from: IpAddr, now_ms: i64) -> Verdict {
        let from = network(from);
        let pair = (account.to_owned(), from);
        let braked = [
            self.pairs
                .live(&pair, now_ms)
                .filter(|failures| failures.count >= FAILURES_A_PAIR),
            self.addresses
                .live(&from, now_ms)
                .filter(|failures| failures.count >= FAILURES_AN_ADDRESS),
        ];
        if let Some(failures) = braked
            .into_iter()
            .flatten()
            .max_by_key(|failures| failures.ends_ms)
        {
            return Verdict::Refused(seconds(failures.ends_ms - now_ms));
        }
        let is_known = self.known.live(&pair, now_ms).is_some();
        let delay_ms = if is_known { 0 } else { self.delay(account, now_ms) };
        let of_account = self.accounts.entry(account.to_owned(), now_ms, || window(now_ms));
        if delay_ms > 0 {
            of_account.held.retain(|&let_go_ms| let_go_ms > now_ms);
            if of_account.held.len() >= MAX_HELD {
                let first_ms = of_account.held.iter().min().copied().unwrap_or(now_ms);
                return Verdict::Refused(seconds(first_ms - now_ms));
            }
            of_account.held.push_back(now_ms + delay_ms);
        }
        of_account.count = of_account.count.saturating_add(1);
        // While somebody goes on guessing, the delay does not start anew.
        of_account.ends_ms = now_ms + WINDOW_MS;
        self.pairs.entry(pair, now_ms, || window(now_ms)).count += 1;
        self.addresses.entry(from, now_ms, || window(now_ms)).count += 1;
        match delay_ms {
            0 => Verdict::Now,
            held => Verdict::After(held),
        }
    }

    /// How long an attempt from an unknown address is held back.
    fn delay(&self, account: &str, now_ms: i64) -> i64 {
        let failures = self
            .accounts
            .live(&account.to_owned(), now_ms)
            .map_or(0, |failures| failures.count);
        match failures.checked_sub(FREE_AN_ACCOUNT) {
            None => 0,
            Some(beyond) => FIRST_DELAY_MS.saturating_shl(beyond).min(LONGEST_DELAY_MS),
        }
    }

    /// The attempt was a right one: this account starts anew at this address, which is known from now on; the address and
    /// the account lose this attempt only, since others may be guessing.
    pub fn succeeded(&mut self, account: &str, from: IpAddr, now_ms: i64) {
        let from = network(from);
        let pair = (account.to_owned(), from);
        self.pairs.entries.remove(&pair);
        if let Some(failures) = self.addresses.entries.get_mut(&from) {
            failures.count = failures.count.saturating_sub(1);
        }
        if let Some(failures) = self.accounts.entries.get_mut(account) {
            failures.count = failures.count.saturating_sub(1);
        }
        *self.known.entry(pair, now_ms, || 0) = now_ms + KNOWN_MS;
    }
}

trait SaturatingShl {
    fn saturating_shl(self, by: u32) -> Self;
}

impl SaturatingShl for i64 {
    fn saturating_shl(self, by: u32) -> i64 {
        self.saturating_mul(1 << by.min(30))
    }
}

fn window(now_ms: i64) -> Failures {
    Failures {
        count: 0,
        ends_ms: now_ms + WINDOW_MS,
        held: VecDeque::new(),
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

    /// So many wrong guesses from each of these addresses, at this instant.
    fn guess(
        throttle: &mut Throttle,
        account: &str,
        addresses: impl Iterator<Item = u8>,
        now_ms: i64,
    ) -> Verdict {
        addresses
            .map(|last| throttle.attempt(account, ip(last), now_ms))
            .last()
            .expect("one")
    }

    #[test]
    fn guesses_at_one_address_stop_there_and_nowhere_else() {
        let mut throttle = Throttle::default();
        for _ in 0..10 {
            assert_eq!(throttle.attempt("wang", ip(1), 0), Verdict::Now);
        }
        assert_eq!(throttle.attempt("wang", ip(1), 1000), Verdict::Refused(300));
        assert_eq!(throttle.attempt("li", ip(1), 1000), Verdict::Now);
        assert_eq!(throttle.attempt("wang", ip(1), WINDOW_MS), Verdict::Now);
    }

    #[test]
    fn the_owner_is_never_locked_out_by_others_only_held_back_and_not_even_that_where_known() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.attempt("duty", ip(200), 0), Verdict::Now);
        throttle.succeeded("duty", ip(200), 0);
        // One guess after the other from ever new addresses, for half an hour.
        let (mut now_ms, mut guesses) = (1000, 0_u32);
        while now_ms < 30 * 60 * 1000 {
            let from = IpAddr::from((0x0b00_0000 + guesses).to_be_bytes());
            match throttle.attempt("duty", from, now_ms) {
                Verdict::Now => assert!(guesses < 11),
                Verdict::After(ms) => assert!(ms <= LONGEST_DELAY_MS, "{ms}"),
                Verdict::Refused(_) => panic!("one at a time is not refused"),
            }
            guesses += 1;
            now_ms += LONGEST_DELAY_MS;
        }
        assert_eq!(
            throttle.attempt("duty", ip(200), now_ms),
            Verdict::Now,
            "where it is known"
        );
        assert_eq!(
            throttle.attempt("duty", ip(201), now_ms),
            Verdict::After(LONGEST_DELAY_MS),
            "elsewhere"
        );
        throttle.succeeded("duty", ip(201), now_ms);
        assert_eq!(throttle.attempt("duty", ip(201), now_ms), Verdict::Now);
    }

    #[test]
    fn the_delay_grows_with_each_failure_and_ends_when_they_do() {
        let mut throttle = Throttle::default();
        assert_eq!(guess(&mut throttle, "wang", 0..10, 0), Verdict::Now);
        let delays: Vec<_> = (10..16)
            .map(|last| throttle.attempt("wang", ip(last), 0))
            .collect();
        assert_eq!(
            delays,
            [1000, 2000, 4000, 8000, 15_000, 15_000].map(Verdict::After)
        );
        assert_eq!(throttle.attempt("li", ip(10), 0), Verdict::Now);
        assert_eq!(throttle.attempt("wang", ip(20), WINDOW_MS), Verdict::Now);
    }

    #[test]
    fn a_crowd_of_guesses_at_one_instant_waits_in_bounded_number() {
        let mut throttle = Throttle::default();
        let verdicts: Vec<_> = (0..100)
            .map(|last| throttle.attempt("wang", ip(last), 0))
            .collect();
        let held = verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::After(_)))
            .count();
        let now = verdicts
            .iter()
            .filter(|&&verdict| verdict == Verdict::Now)
            .count();
        assert_eq!((now, held), (10, MAX_HELD));
        assert_eq!(
            verdicts[99],
            Verdict::Refused(2),
            "when the first of them is let go"
        );
        assert!(matches!(
            throttle.attempt("wang", ip(101), 1000),
            Verdict::After(_)
        ));
    }

    #[test]
    fn an_address_is_braked_whatever_the_account() {
        let mut throttle = Throttle::default();
        for i in 0..50 {
            assert_eq!(throttle.attempt(&format!("a{i}"), ip(1), 0), Verdict::Now);
        }
        assert_eq!(throttle.attempt("another", ip(1), 0), Verdict::Refused(301));
        assert_eq!(throttle.attempt("another", ip(2), 0), Verdict::Now);
    }

    #[test]
    fn success_clears_the_pair_but_not_the_guesses_of_its_address() {
        let mut throttle = Throttle::default();
        guess(&mut throttle, "wang", std::iter::repeat_n(1, 10), 0);
        throttle.succeeded("wang", ip(1), 0);
        assert_eq!(throttle.addresses.entries[&ip(1)].count, 9);
        assert_eq!(throttle.attempt("wang", ip(1), 0), Verdict::Now);
    }

    #[test]
    fn an_address_is_forgotten_after_a_month_and_a_network_of_ipv6_is_one() {
        let mut throttle = Throttle::default();
        let home: [IpAddr; 2] =
            ["2001:db8::1", "2001:db8::ffff:2"].map(|text| text.parse().expect("an address"));
        throttle.succeeded("duty", home[0], 0);
        guess(&mut throttle, "duty", 0..30, 1000);
        assert_eq!(throttle.attempt("duty", home[1], 1000), Verdict::Now);
        guess(&mut throttle, "duty", 0..30, KNOWN_MS);
        assert!(matches!(
            throttle.attempt("duty", home[1], KNOWN_MS + 1000),
            Verdict::After(_)
        ));
    }

    #[test]
    fn the_tables_stay_bounded() {
        let mut throttle = Throttle::default();
        for i in 0..20_000_u32 {
            let from = IpAddr::from(i.to_be_bytes());
            throttle.attempt(&format!("a{i}"), from, 0);
            throttle.succeeded(&format!("a{i}"), from, 0);
        }
        let sizes = [
            throttle.pairs.entries.len(),
            throttle.known.entries.len(),
            throttle.accounts.entries.len(),
        ];
        assert!(sizes.iter().all(|&size| size <= MAX_ENTRIES), "{sizes:?}");
    }
}

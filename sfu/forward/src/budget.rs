//! What a leg's link carries, how that has gone so far, and how sure it is.
//!
//! An estimate begins low and climbs, and wavers where a machine is busy. So less than was wished for is blamed on the link
//! only once the budget has fallen, or something was short for as long as a climb takes; and a slot's last picture is not
//! taken away for a moment's dip. Invariant: smallest pictures that do not fit are borne for [`CLIMB_US`] at most.
//! It shares nothing out.

use crate::types::Micros;

/// How long there must be room for more before it is given, in microseconds.
const HOLD_US: u64 = 1_000_000;
/// The same while nothing was ever taken back: an estimate that climbs for the first time.
const FIRST_HOLD_US: u64 = 200_000;
/// The same where it was taken back again and again.
const HOLD_MAX_US: u64 = 8_000_000;
/// What is taken back within this time of being given was given too early, in microseconds.
const TOO_EARLY_US: u64 = 5_000_000;
/// After this long the hold is short again, in microseconds.
const FORGIVEN_US: u64 = 15_000_000;
/// What is short for longer than this is no estimate that has yet to climb, in microseconds.
const CLIMB_US: u64 = 4_000_000;
/// A budget that falls below this share of what it was is a narrow link, in per cent.
const FALL_PERCENT: u64 = 90;
/// Smallest pictures of which less than the first share fits, in per cent, are not borne; less than the second, not for
/// longer than this, in microseconds.
const FAR_BELOW_PERCENT: u64 = 40;
const BELOW_PERCENT: u64 = 70;
const BELOW_US: u64 = 1_000_000;

#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// Bits a second; `None`: no limit is known.
    pub bps: Option<u64>,
    /// When to look again.
    pub look_at: Option<Micros>,
    /// How long there must be room; `None` before anything was taken back.
    hold_us: Option<u64>,
    given_at: Option<Micros>,
    too_early_at: Option<Micros>,
    /// The most that it was since nothing was short, and whether it fell from that.
    peak: u64,
    fell: bool,
    short_since: Option<Micros>,
    /// Since when the smallest pictures do not fit.
    pinched_since: Option<Micros>,
}

impl Budget {
    /// True if that is another than before.
    pub fn set(&mut self, bps: Option<u64>) -> bool {
        let now = bps.unwrap_or(u64::MAX);
        self.fell |= now < self.peak / 100 * FALL_PERCENT;
        self.peak = if bps.is_some() { self.peak.max(now) } else { 0 };
        self.fell &= bps.is_some();
        std::mem::replace(&mut self.bps, bps) != bps
    }

    /// Whether less is given than is wished for; what is borne is short as well.
    pub fn settle(&mut self, now: Micros, short: bool) {
        if short || self.pinched_since.is_some() {
            self.short_since.get_or_insert(now);
        } else {
            self.short_since = None;
            self.fell = false;
            self.peak = self.bps.unwrap_or(0);
        }
    }

    /// That the link carries no more is seen, not just not known better.
    pub fn is_narrow(&self, now: Micros) -> bool {
        self.fell || self.short_since.is_some_and(|at| now.since(at) >= CLIMB_US)
    }

    /// Whether pictures that need so much are borne where there is as much as `left`, bits a second.
    pub fn bears(&mut self, now: Micros, left: u64, need: u64) -> bool {
        if left >= need {
            self.pinched_since = None;
            return true;
        }
        let passed = now.since(*self.pinched_since.get_or_insert(now));
        let percent = left.saturating_mul(100) / need;
        let most = match () {
            () if !self.is_narrow(now) => CLIMB_US,
            () if percent < FAR_BELOW_PERCENT => 0,
            () if percent < BELOW_PERCENT => BELOW_US,
            () => CLIMB_US,
        };
        passed < most
    }

    pub fn hold_us(&self) -> u64 {
        self.hold_us.unwrap_or(FIRST_HOLD_US)
    }

    pub fn gave(&mut self, now: Micros) {
        if self.too_early_at.is_none_or(|at| now.since(at) > FORGIVEN_US) {
            self.hold_us = self.hold_us.map(|_| HOLD_US);
        }
        self.given_at = Some(now);
    }

    pub fn took(&mut self, now: Micros) {
        let hold_us = self.hold_us.unwrap_or(HOLD_US);
        self.hold_us = Some(hold_us);
        if self
            .given_at
            .take()
            .is_some_and(|at| now.since(at) < TOO_EARLY_US)
        {
            self.hold_us = Some((hold_us * 2).min(HOLD_MAX_US));
            self.too_early_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Micros = Micros::from_millis;

    #[test]
    fn a_link_is_narrow_once_it_fell_or_was_short_for_long() {
        let mut budget = Budget::default();
        assert!(budget.set(Some(700_000)) && !budget.set(Some(700_000)));
        budget.settle(MS(0), true);
        assert!(!budget.is_narrow(MS(3_999)) && budget.is_narrow(MS(4_000)));
        budget.set(Some(4_000_000));
        budget.settle(MS(1_000), false);
        assert!(!budget.is_narrow(MS(9_000)));
        budget.set(Some(3_700_000));
        assert!(!budget.is_narrow(MS(9_000)), "a dip");
        budget.set(Some(3_500_000));
        assert!(budget.is_narrow(MS(9_000)), "a fall");
        budget.settle(MS(9_000), true);
        budget.set(None);
        budget.settle(MS(9_100), false);
        assert!(!budget.is_narrow(MS(20_000)));
    }

    #[test]
    fn last_pictures_are_borne_the_longer_the_more_of_them_fits() {
        let fallen = || {
            let mut budget = Budget::default();
            budget.set(Some(10_000));
            budget.set(Some(1_000));
            budget
        };
        for (need, ms) in [
            (1_100, 4_000),
            (1_420, 4_000),
            (1_450, 1_000),
            (2_450, 1_000),
            (2_600, 0),
        ] {
            let mut budget = fallen();
            let borne = (0..6_000)
                .take_while(|&at| budget.bears(MS(at), 1_000, need))
                .count();
            assert_eq!(borne, ms, "{need}");
        }
        let mut climbing = Budget::default();
        climbing.set(Some(1_000));
        assert!(climbing.bears(MS(0), 1_000, 9_000) && !climbing.bears(MS(4_000), 1_000, 9_000));
    }
}

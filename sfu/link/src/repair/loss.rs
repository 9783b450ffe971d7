//! How much is lost, and how it clusters, measured from the fates of transmissions in their order.
//!
//! No model is fitted: the share that parity must cover is read from the windows that were, because a chain with long bad
//! states hides behind short runs of losses. Memory is a ring of fixed size.

use std::collections::VecDeque;

/// Fates remembered: at 400 datagrams a second some twenty seconds.
const MOST: usize = 8192;
/// Fates that the present loss is counted over.
const RECENT: usize = 400;
/// Loss before anything was measured.
const PRIOR: f64 = 0.05;
/// Fates that the prior weighs as much as.
const PRIOR_WEIGHT: f64 = 20.0;

/// The fates of the transmissions of one direction.
#[derive(Debug, Clone, Default)]
pub struct Loss {
    /// `true`: lost. Oldest first.
    fates: VecDeque<bool>,
    recent_lost: usize,
    lost: u64,
    runs: u64,
    smooth: Option<f64>,
}

impl Loss {
    /// Adds the fate of the next transmission.
    pub fn add(&mut self, lost: bool) {
        if lost {
            self.lost += 1;
            self.runs += u64::from(self.fates.back() != Some(&true));
        }
        self.fates.push_back(lost);
        self.recent_lost += usize::from(lost);
        if let Some(left) = self.fates.len().checked_sub(RECENT + 1) {
            self.recent_lost -= usize::from(self.fates[left]);
        }
        if self.fates.len() > MOST {
            self.fates.pop_front();
        }
        let value = if lost { 1.0 } else { 0.0 };
        let smooth = self.smooth.unwrap_or(PRIOR);
        self.smooth = Some(smooth + (value - smooth) / 200.0);
    }

    /// The share that is lost now, 0 to 1.
    pub fn share(&self) -> f64 {
        let counted = self.fates.len().min(RECENT) as f64;
        (self.recent_lost as f64 + PRIOR * PRIOR_WEIGHT) / (counted + PRIOR_WEIGHT)
    }

    /// Mean length of a run of losses; at least 1.
    pub fn burst(&self) -> f64 {
        if self.runs == 0 {
            1.0
        } else {
            self.lost as f64 / self.runs as f64
        }
    }

    /// Losses in a window of `length` transmissions that all but the share `over` of the remembered windows stay within.
    /// Before enough windows were seen it is twice the mean, and four.
    pub fn within(&self, length: usize, over: f64) -> usize {
        let step = (length / 8).max(1);
        let windows = self.fates.len().saturating_sub(length) / step;
        if length == 0 || windows < 64 {
            return (self.share() * length as f64 * 2.0).ceil() as usize + 4;
        }
        let mut sums = Vec::with_capacity(windows + 1);
        let mut sum = self.fates.iter().take(length).filter(|&&lost| lost).count();
        sums.push(sum);
        for window in 0..windows {
            let from = window * step;
            for offset in from..from + step {
                sum += usize::from(self.fates[offset + length]);
                sum -= usize::from(self.fates[offset]);
            }
            sums.push(sum);
        }
        sums.sort_unstable();
        let place = ((1.0 - over) * (sums.len() - 1) as f64).ceil() as usize;
        sums[place.min(sums.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_recent_and_the_burst_that_of_all() {
        let mut loss = Loss::default();
        for number in 0..4000 {
            loss.add(number % 10 < 3);
        }
        assert!((loss.share() - 0.3).abs() < 0.02, "{}", loss.share());
        assert!((loss.burst() - 3.0).abs() < 0.01);
        for _ in 0..RECENT {
            loss.add(false);
        }
        assert!(loss.share() < 0.01);
    }

    #[test]
    fn a_window_with_a_burst_is_seen_though_the_mean_is_small() {
        let mut loss = Loss::default();
        for number in 0..8000 {
            loss.add(number % 1000 < 30);
        }
        assert_eq!(loss.within(100, 0.0), 30);
        assert_eq!(loss.within(100, 0.5), 0);
        assert_eq!(Loss::default().within(0, 0.01), 4);
    }
}

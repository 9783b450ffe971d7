//! How much is lost, measured from the fates of transmissions in their order.
//!
//! No model is fitted: what parity must cover is read from the windows that were, because a chain with long bad states hides
//! behind short runs of losses. A long run in which nothing arrives is no loss but an outage, and says nothing of what a path
//! loses. Memory is a ring of fixed size.

use std::collections::VecDeque;

use super::Micros;

/// Fates remembered: at 400 datagrams a second some twenty seconds.
const MOST: usize = 8192;
/// Fates that the loss is counted over: the longer while they agree, the shorter when it has changed.
const LONG: usize = 2000;
const RECENT: usize = 400;
/// Loss before anything was measured.
const PRIOR: f64 = 0.03;
/// Fates that the prior weighs as much as.
const PRIOR_WEIGHT: f64 = 20.0;
/// Of what parity covers so much may stay lost: it falls on few frames, as losses cluster.
const RESIDUE: f64 = 0.001;
/// Until so many fates are remembered, bursts that were not seen yet are expected.
const CAREFUL_FOR: usize = 4000;
/// An outage is a run of at least so many losses over at least so long, µs.
const OUTAGE: (usize, Micros) = (24, 200_000);
/// What follows a loss is counted over about so many.
const FOLLOWING: f64 = 100.0;

/// The fates of the transmissions of one direction.
#[derive(Debug, Clone, Default)]
pub struct Loss {
    /// `true`: lost. Oldest first.
    fates: VecDeque<bool>,
    recent_lost: usize,
    long_lost: usize,
    /// Losses since the last arrival, and when the first of them was sent.
    run: usize,
    run_since: Micros,
    /// The share of what follows a loss that is lost.
    following: f64,
}

impl Loss {
    /// Adds the fate of the next transmission, which was sent at `at`.
    pub fn add(&mut self, at: Micros, lost: bool) {
        if lost {
            if self.run == 0 {
                self.run_since = at;
            }
            self.run += 1;
            if self.run >= OUTAGE.0 && at.saturating_sub(self.run_since) >= OUTAGE.1 {
                self.forget_run();
                return;
            }
        } else {
            self.run = 0;
        }
        if self.fates.back() == Some(&true) {
            self.following += (f64::from(u8::from(lost)) - self.following) / FOLLOWING;
        }
        self.fates.push_back(lost);
        if self.fates.len() > MOST {
            self.fates.pop_front();
        }
        self.recent_lost += usize::from(lost);
        self.long_lost += usize::from(lost);
        let left = |of: usize| self.fates.len().checked_sub(of + 1).map(|at| self.fates[at]);
        self.recent_lost -= usize::from(left(RECENT) == Some(true));
        self.long_lost -= usize::from(left(LONG) == Some(true));
    }

    /// Takes the losses of the present run back.
    fn forget_run(&mut self) {
        while self.fates.back() == Some(&true) {
            self.fates.pop_back();
        }
        self.count();
    }

    /// The transmission `back` before the last that was added did arrive.
    pub fn undo(&mut self, back: usize) {
        let place = self.fates.len().checked_sub(back + 1);
        if let Some(fate) = place.and_then(|place| self.fates.get_mut(place)) {
            *fate = false;
            self.run = 0;
            self.count();
        }
    }

    fn count(&mut self) {
        let last = |of: usize| self.fates.iter().rev().take(of).filter(|&&lost| lost).count();
        (self.recent_lost, self.long_lost) = (last(RECENT), last(LONG));
    }

    /// The share that is lost now, 0 to 1.
    pub fn share(&self) -> f64 {
        let share = |lost: usize, of: usize| {
            let counted = self.fates.len().min(of) as f64;
            let share = (lost as f64 + PRIOR * PRIOR_WEIGHT) / (counted + PRIOR_WEIGHT);
            (share, counted + PRIOR_WEIGHT)
        };
        let (recent, counted) = share(self.recent_lost, RECENT);
        let (long, _) = share(self.long_lost, LONG);
        let chance = (long * (1.0 - long) / counted).sqrt();
        if (recent - long).abs() > 2.5 * chance {
            recent
        } else {
            long
        }
    }

    /// Whether losses come together, so that copies are better sent apart.
    pub fn is_clustered(&self) -> bool {
        self.following > self.share() * 2.0 + 0.05
    }

    /// Parity shards for a block of `packets` that are sent among `among` transmissions, the shards among the `after` that
    /// follow: the fewest with which at most [`RESIDUE`] of the packets stay lost, had the remembered fates been theirs.
    /// At most `most`; while little is remembered, no fewer than half of the packets, then less and less.
    pub fn shards(&self, packets: usize, among: usize, after: usize, most: usize) -> usize {
        let careful = packets as f64 / 2.0 * (1.0 - self.fates.len() as f64 / CAREFUL_FOR as f64);
        let careful = careful.max(1.0) as usize;
        let windows = self.fates.len().saturating_sub(among + after);
        let step = (among / 4).max(1);
        // Where each such block begins after its packets, and how many of them it had lost.
        let blocks: Vec<(usize, usize)> = (0..windows)
            .step_by(step)
            .map(|from| (from + among, self.lost(from, packets, among)))
            .collect();
        let (mut least, mut enough) = (careful, most.max(careful));
        while least < enough {
            let shards = usize::midpoint(least, enough);
            let stayed: usize = blocks
                .iter()
                // Else most of the shards would have to be lost.
                .filter(|(_, missing)| missing * 3 > shards)
                .filter(|&&(from, missing)| missing + self.lost(from, shards, after) > shards)
                .map(|(_, missing)| missing)
                .sum();
            if stayed as f64 <= RESIDUE * (blocks.len() * packets) as f64 {
                enough = shards;
            } else {
                least = shards + 1;
            }
        }
        least.min(packets)
    }

    /// How many of so many transmissions, spread evenly over those from `from` on, were lost.
    fn lost(&self, from: usize, of: usize, within: usize) -> usize {
        (0..of)
            .filter(|place| self.fates.get(from + place * within / of) == Some(&true))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_recent_where_it_has_changed() {
        let mut loss = Loss::default();
        for number in 0..4000 {
            loss.add(number * 1000, number % 10 < 3);
        }
        assert!((loss.share() - 0.3).abs() < 0.02, "{}", loss.share());
        for number in 4000..4400 {
            loss.add(number * 1000, false);
        }
        assert!(loss.share() < 0.01);
    }

    #[test]
    fn an_outage_is_no_loss() {
        let mut loss = Loss::default();
        for number in 0..2000 {
            loss.add(number * 3000, false);
        }
        let before = loss.share();
        for number in 2000..2600 {
            loss.add(number * 3000, true);
        }
        loss.add(2600 * 3000, false);
        assert!(loss.share() <= before, "{} {before}", loss.share());
    }

    #[test]
    fn what_arrives_late_was_not_lost() {
        let mut loss = Loss::default();
        for number in 0..400 {
            loss.add(number * 3000, number == 390);
        }
        let before = loss.share();
        loss.undo(9);
        assert!(loss.share() < before);
    }

    #[test]
    fn bursts_are_covered_though_the_mean_is_small() {
        let mut loss = Loss::default();
        for number in 0..8000 {
            loss.add(number * 3000, number % 1000 < 20);
        }
        let shards = loss.shards(60, 90, 40, 60);
        assert!((10..=16).contains(&shards), "{shards}");
        let mut clean = Loss::default();
        for number in 0..8000 {
            clean.add(number * 3000, false);
        }
        assert_eq!(clean.shards(60, 90, 40, 60), 1);
        assert_eq!(Loss::default().shards(60, 90, 40, 60), 30);
        assert_eq!(Loss::default().shards(0, 0, 0, 0), 0);
    }
}

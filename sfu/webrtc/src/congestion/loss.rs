//! What loss says about the path: of itself, or because too much is sent.
//!
//! Congestion fills a queue before it drops, and drops more the more is sent. So loss with no queue,
//! at a rate that was sent before, is the path's own: it is learnt, and no reason to send less.
//! What goes beyond it, with a queue or after the rate rose, is congestion; so is all beyond
//! [`MOST_OWN`], for a path that drops at once what exceeds a contract (a policer) has no queue to
//! show. (The rules of draft-ietf-rmcat-gcc-02, 6, 2 % and 10 %, hold for that excess.)

/// Packets and time, in microseconds, of one look.
const LOOK_PACKETS: u32 = 20;
const LOOK_TIME: u64 = 200_000;
/// A queue of this many microseconds may be what drops.
const QUEUE: u64 = 30_000;
/// No path's own loss is taken for more.
const MOST_OWN: f64 = 0.4;
/// A rate is higher than the one that loss was learnt at, if by this.
const HIGHER: f64 = 1.15;
/// Excess: below the first all is well, above the second too much is sent.
const FINE: f64 = 0.02;
const TOO_MUCH: f64 = 0.10;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// No reason to send less.
    Fine,
    /// No reason to send more.
    Hold,
    /// This share of what was sent was too much.
    Excess(f64),
}

#[derive(Default)]
pub(crate) struct Loss {
    arrived: u32,
    lost: u32,
    since: u64,
    /// The most queue of the messages looked at.
    queue: u64,
    /// The path's own, and the rate that it was learnt at.
    own: f64,
    learnt_at: f64,
    /// Of the last look.
    latest: f64,
    smoothed: f64,
}

impl Loss {
    pub(crate) fn arrived(&mut self) {
        self.arrived += 1;
    }

    pub(crate) fn lost(&mut self) {
        self.lost += 1;
    }

    /// One that was counted lost came after all.
    pub(crate) fn came_late(&mut self) {
        self.arrived += 1;
        self.lost = self.lost.saturating_sub(1);
    }

    /// Looks, if there is enough to look at. `sent` in bits per second; `queue` in microseconds.
    pub(crate) fn look(&mut self, now: u64, sent: u64, queue: u64) -> Option<Verdict> {
        self.queue = self.queue.max(queue);
        let packets = self.arrived + self.lost;
        if packets < LOOK_PACKETS || now.saturating_sub(self.since) < LOOK_TIME {
            return None;
        }
        let ratio = f64::from(self.lost) / f64::from(packets);
        let queued = self.queue >= QUEUE;
        self.latest = ratio;
        self.smoothed += (ratio - self.smoothed) * 0.3;
        (self.arrived, self.lost, self.since, self.queue) = (0, 0, now, 0);
        let excess = ((ratio - self.own) / (1.0 - self.own)).max(0.0);
        let sent = sent as f64;
        let rose = sent > self.learnt_at * HIGHER && self.learnt_at > 0.0;
        // What chance may add to the path's own loss in a look of so few packets.
        let chance = 2.0 * (self.own.max(0.01) * (1.0 - self.own) / f64::from(packets)).sqrt();
        if !queued && (!rose || excess <= chance + FINE) {
            let own = ratio.min(MOST_OWN);
            self.own += (own - self.own) * if self.learnt_at == 0.0 { 1.0 } else { 0.2 };
            self.learnt_at = if rose {
                sent
            } else {
                self.learnt_at * 0.9 + sent * 0.1
            };
            let beyond = (ratio - MOST_OWN) / (1.0 - MOST_OWN);
            return Some(if beyond > TOO_MUCH {
                Verdict::Excess(beyond)
            } else {
                Verdict::Fine
            });
        }
        Some(match excess - chance {
            e if e <= FINE => Verdict::Fine,
            e if e <= TOO_MUCH => Verdict::Hold,
            _ => Verdict::Excess(excess),
        })
    }

    /// The path's own loss, 0.0 to 0.4.
    pub(crate) fn own(&self) -> f64 {
        self.own
    }

    /// All of it, smoothed over some looks.
    pub(crate) fn smoothed(&self) -> f64 {
        self.smoothed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks `times` at 100 packets of which `lost` are lost.
    fn looks(loss: &mut Loss, times: u64, lost: u32, sent: u64, queue: u64) -> Vec<Verdict> {
        (0..times)
            .filter_map(|_| {
                (lost..100).for_each(|_| loss.arrived());
                (0..lost).for_each(|_| loss.lost());
                let now = loss.since + LOOK_TIME;
                loss.look(now, sent, queue)
            })
            .collect()
    }

    #[test]
    fn loss_without_a_queue_is_the_paths_own() {
        let mut loss = Loss::default();
        assert_eq!(looks(&mut loss, 5, 0, 1_000_000, 0), [Verdict::Fine; 5]);
        assert_eq!(looks(&mut loss, 30, 20, 1_000_000, 5_000), [Verdict::Fine; 30]);
        assert!((loss.own() - 0.2).abs() < 0.01);
        // And a little more of it, as chance has it, is no congestion though there be a queue.
        assert_eq!(looks(&mut loss, 1, 24, 1_000_000, 50_000), [Verdict::Fine]);
        assert_eq!(looks(&mut loss, 1, 34, 1_000_000, 50_000), [Verdict::Hold]);
    }

    #[test]
    fn loss_with_a_queue_or_after_a_rise_is_congestion() {
        let mut loss = Loss::default();
        looks(&mut loss, 5, 0, 1_000_000, 0);
        assert_eq!(
            looks(&mut loss, 1, 30, 1_000_000, 100_000),
            [Verdict::Excess(0.3)]
        );
        let mut policed = Loss::default();
        looks(&mut policed, 5, 1, 1_000_000, 0);
        let verdicts = looks(&mut policed, 3, 50, 2_000_000, 0);
        assert!(
            verdicts
                .iter()
                .all(|v| matches!(v, Verdict::Excess(e) if *e > 0.45)),
            "{verdicts:?}"
        );
    }

    #[test]
    fn what_no_path_loses_of_itself_is_too_much_at_any_rate() {
        let mut loss = Loss::default();
        let verdicts = looks(&mut loss, 3, 70, 500_000, 0);
        assert!(
            verdicts
                .iter()
                .all(|v| matches!(v, Verdict::Excess(e) if (*e - 0.5).abs() < 1e-9)),
            "{verdicts:?}"
        );
    }

    #[test]
    fn one_that_came_late_was_not_lost() {
        let mut loss = Loss::default();
        (0..19).for_each(|_| loss.arrived());
        loss.lost();
        loss.came_late();
        assert_eq!(loss.look(LOOK_TIME, 1, 0), Some(Verdict::Fine));
        assert_eq!(loss.smoothed(), 0.0);
    }
}

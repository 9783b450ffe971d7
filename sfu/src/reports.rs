//! Reports on legs that wait for the control plane, coalesced: the newest state of each leg, in the order in which the
//! legs first had something to say.
//!
//! Bounded: beyond the bound the oldest goes and is counted; the hello of the next connection lists every leg, so what is
//! lost here is only a reason of a leg that left.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::Counter;
use muster_proto::command::v1::LegReport;
use tokio::sync::Notify;

const CAPACITY: usize = 8192;

#[derive(Default)]
struct Waiting {
    newest: HashMap<String, LegReport>,
    order: VecDeque<String>,
}

pub(crate) struct Reports {
    waiting: Mutex<Waiting>,
    changed: Notify,
    dropped: Counter,
    wanted: bool,
}

impl Reports {
    /// `wanted`: there is a control plane to take them; else none is kept.
    pub fn new(dropped: Counter, wanted: bool) -> Self {
        Self {
            waiting: Mutex::default(),
            changed: Notify::new(),
            dropped,
            wanted,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, report: LegReport) {
        if !self.wanted {
            return;
        }
        let mut waiting = self.waiting();
        let leg = report.leg.clone();
        if waiting.newest.insert(leg.clone(), report).is_none() {
            waiting.order.push_back(leg);
        }
        if waiting.order.len() > CAPACITY
            && let Some(oldest) = waiting.order.pop_front()
        {
            waiting.newest.remove(&oldest);
            self.dropped.increment(1);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Waits until something was pushed; then [`Self::take`] it.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn take(&self) -> Vec<LegReport> {
        let mut waiting = self.waiting();
        let Waiting { newest, order } = &mut *waiting;
        order.drain(..).filter_map(|leg| newest.remove(&leg)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(leg: usize, state: i32) -> LegReport {
        LegReport {
            leg: leg.to_string(),
            state,
            ..Default::default()
        }
    }

    #[test]
    fn the_newest_report_of_each_leg_waits_in_order() {
        let reports = Reports::new(Counter::noop(), true);
        reports.push(report(1, 1));
        reports.push(report(2, 1));
        reports.push(report(1, 2));
        assert_eq!(reports.take(), [report(1, 2), report(2, 1)]);
        assert!(reports.take().is_empty());
    }

    #[test]
    fn while_the_control_plane_is_away_memory_stays_bounded() {
        let reports = Reports::new(Counter::noop(), true);
        for leg in 0..3 * CAPACITY {
            reports.push(report(leg, 4));
        }
        let kept = reports.take();
        assert_eq!(kept.len(), CAPACITY);
        assert_eq!(
            kept.last().map(|r| r.leg.clone()),
            Some((3 * CAPACITY - 1).to_string())
        );
    }

    #[test]
    fn without_a_control_plane_nothing_is_kept() {
        let reports = Reports::new(Counter::noop(), false);
        reports.push(report(1, 1));
        assert!(reports.take().is_empty());
    }
}

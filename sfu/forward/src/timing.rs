//! What happens because time passes: key frames asked for again, pictures that become stale, layers given up, voices
//! that fall silent.
//!
//! `look_at` is never later than the earliest of these; it may be too early, and then the look finds nothing to do.

use crate::event::SlotStatus;
use crate::meeting::Meeting;
use crate::slot::{Feed, Slot};
use crate::source::SlotKey;
use crate::types::Micros;

/// How soon to look again at a picture that is late, in microseconds.
const LATE_LOOK_US: u64 = 200_000;

impl Meeting {
    /// When to call [`Meeting::handle_timeout`] at the latest; it may find nothing to do.
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.look_at
            .into_iter()
            .chain(self.budgets_at)
            .chain(self.selector.timeout())
            .chain(self.stage.timeout())
            .min()
    }

    pub fn handle_timeout(&mut self, now: Micros) {
        let now = self.advance(now);
        if self.selector.timeout().is_some_and(|at| at <= now) {
            self.select_voices(now);
        }
        if self.stage.timeout().is_some_and(|at| at <= now) {
            self.follow_voice(now);
        }
        self.look_at_budgets(now);
        self.finish(now);
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.look_at = None;
        for source in 0..self.sources.bound() {
            let layers = self.sources.get(source).map_or(0, |source| source.layers.len());
            for layer in 0..layers {
                self.ask_again(now, Feed { source, layer });
            }
        }
        for slot in 0..self.slots.bound() {
            self.look_at_slot(now, slot);
        }
    }

    pub(crate) fn look_by(&mut self, at: Micros) {
        self.look_at = Some(self.look_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn ask_again(&mut self, now: Micros, feed: Feed) {
        let Some(layer) = self
            .sources
            .get_mut(feed.source)
            .and_then(|s| s.layers.get_mut(feed.layer))
        else {
            return;
        };
        if layer.subscribers.is_empty() && !layer.delivers(now) {
            // Nobody watches it and it sends nothing: its first key frame can wait.
            layer.throttle.satisfy();
        }
        if layer.throttle.take(now) {
            layer.news.key_frame = true;
            self.tell_layer(feed);
        }
        let due = self
            .sources
            .get(feed.source)
            .and_then(|source| source.layers[feed.layer].throttle.due());
        if let Some(due) = due {
            self.look_by(due);
        }
    }

    fn look_at_slot(&mut self, now: Micros, key: SlotKey) {
        let Some(slot) = self.slots.get(key).filter(|slot| !slot.audio) else {
            return;
        };
        let Some(bound) = slot.bound else { return };
        let leg = slot.leg;
        if self.best_has_changed(now, key) {
            self.allocate(now, leg);
        }
        self.settle(now, key);
        let Some(slot) = self.slots.get(key) else { return };
        let (Some(source), lane) = (self.sources.get(bound.source), &self.lanes[key]) else {
            return;
        };
        let target = lane.target().filter(|feed| feed.source == bound.source);
        let silent_from = target.map_or(Micros(u64::MAX), |feed| source.layers[feed.layer].silent_from());
        let next = match slot.state.status {
            SlotStatus::Waiting => Some(silent_from),
            SlotStatus::Live => Slot::stale_from(lane, source).map(|at| at.min(silent_from.max(now))),
            SlotStatus::Stale => Some(slot.retell_at()),
            SlotStatus::Empty | SlotStatus::Absent | SlotStatus::Refused | SlotStatus::Paused => None,
        };
        if let Some(next) = next {
            let next = if next > now { next } else { now.plus(LATE_LOOK_US) };
            self.look_by(next);
        }
    }
}

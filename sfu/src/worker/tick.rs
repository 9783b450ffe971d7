//! What a worker does by the clock: timeouts of meetings (a leg has its own turns, see `backlog`), silence, bit rates, ends of meetings.

use std::time::{Duration, Instant};

use muster_forward::{LegId, SlotStatus, SourceKind};
use muster_proto::command::v1::LegState;

use crate::convert;

use super::state::{LegEntry, MeetingKey, Wire, Worker};

/// How often timeouts are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// How often silence is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Without any media for this long a leg is silent.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A link from which nothing at all was heard for this long is away: its leg counts as lost, and is kept for its return.
const AWAY_AFTER: Duration = Duration::from_secs(2);

impl Worker {
    pub fn tick(&mut self) {
        let now = Instant::now();
        self.tick_meetings(now);
        for (source, layer) in std::mem::take(&mut self.untold_wishes) {
            self.tell_wish(source, layer);
        }
        if now >= self.next_look {
            self.next_look = now + LOOK;
            self.look_for_silence(now);
            self.tell_wanted(now);
        }
        if now >= self.next_second {
            self.next_second = now + Duration::from_secs(1);
            self.tell_rates(now);
            self.load.look(now);
            self.tell_tables();
        }
        self.flush(now);
    }

    fn tick_meetings(&mut self, now: Instant) {
        let at = self.shared.micros(now);
        let mut due: Vec<MeetingKey> = Vec::new();
        let mut over: Vec<(LegId, &'static str)> = Vec::new();
        for (&key, meeting) in &mut self.meetings {
            if meeting.core.poll_timeout().is_some_and(|timeout| timeout <= at) {
                meeting.core.handle_timeout(at);
                due.push(key);
            }
            if let Some((_, reason)) = meeting.close_at.filter(|(at, _)| *at <= now) {
                over.extend(meeting.legs.iter().map(|&id| (id, reason)));
            }
        }
        due.into_iter().for_each(|key| self.drain_core(now, key));
        over.into_iter().for_each(|(id, reason)| self.close(id, reason));
    }

    /// Legs from which nothing comes although something should, and links that are away or back.
    fn look_for_silence(&mut self, now: Instant) {
        let mut changes = Vec::new();
        let mut budgets = Vec::new();
        for (id, leg) in self.legs.iter() {
            let silent = now.saturating_duration_since(leg.media_at) > SILENT_AFTER;
            let mut away = false;
            if let Wire::Link(wire) = &leg.wire {
                let health = wire.sender.health();
                away = health.silent_for > AWAY_AFTER;
                budgets.push((id, leg.meeting, health.limited.then_some(health.source_bps)));
            }
            match leg.state {
                LegState::Left if !away && silent => changes.push((id, LegState::Joining)),
                LegState::Left if !away => changes.push((id, LegState::OnAir)),
                LegState::Joining | LegState::OnAir | LegState::Silent if away => {
                    changes.push((id, LegState::Left));
                }
                LegState::OnAir if silent && self.is_expected(leg) => changes.push((id, LegState::Silent)),
                LegState::Silent if !silent => changes.push((id, LegState::OnAir)),
                _ => {}
            }
        }
        changes
            .into_iter()
            .for_each(|(id, state)| self.set_state(id, state));
        let at = self.shared.micros(now);
        for (id, key, bps) in budgets {
            if let Some(meeting) = self.meetings.get_mut(&key) {
                meeting.core.set_budget(at, id, bps);
                self.drain_core(now, key);
            }
        }
    }

    /// Tells each leg what its slots would use if there were room, so that it looks for no more.
    fn tell_wanted(&mut self, now: Instant) {
        for index in 0..self.legs.bound() {
            let Some(leg) = self.legs.at_mut(index) else {
                continue;
            };
            if let Wire::WebRtc(wire) = &mut leg.wire
                && let Some(meeting) = self.meetings.get(&leg.meeting)
            {
                wire.leg.set_wanted_bps(now, meeting.core.wanted_bps(leg.id));
                // A probe may be due.
                if !std::mem::replace(&mut leg.dirty, true) {
                    self.dirty.push(index);
                }
            }
        }
    }

    /// Whether any layer of the leg is not paused. Content comes when somebody shows some.
    pub(super) fn is_expected(&self, leg: &LegEntry) -> bool {
        let sources = leg.sources.iter().filter_map(|id| self.sources.get(id));
        sources
            .filter(|source| source.kind != SourceKind::Content)
            .flat_map(|source| &source.layers)
            .any(|layer| !layer.paused)
    }

    fn tell_tables(&self) {
        let sizes = [
            self.legs.iter().count(),
            self.meetings.len(),
            self.sources.len(),
            self.legs.iter().map(|(_, leg)| leg.slots.len()).sum(),
            self.by_address.len(),
            self.by_ufrag.len(),
            self.links.len(),
            self.neighbours.iter().flatten().count(),
        ];
        for (gauge, size) in self.table_gauges.iter().zip(sizes) {
            gauge.set(size as f64);
        }
    }

    fn tell_rates(&mut self, now: Instant) {
        let mut seconds = Vec::new();
        for (id, leg) in self.legs.iter_mut() {
            match &mut leg.wire {
                Wire::Link(wire) => {
                    let (lost, sent) = wire.sender.loss();
                    seconds.push((id, wire.counts.take(lost, sent, wire.sender.rtt())));
                }
                Wire::WebRtc(wire) => {
                    let dropped = (wire.leg.transmits_dropped(), wire.leg.media_dropped());
                    let before = std::mem::replace(&mut wire.drops_counted, dropped);
                    self.drops.leg_full.increment(dropped.0 - before.0);
                    self.drops.leg_behind.increment(dropped.1 - before.1);
                    for (index, slot) in leg.slots.iter_mut().enumerate() {
                        slot.bytes += wire.leg.take_slot_bytes(index);
                    }
                }
            }
            let core = self.meetings.get(&leg.meeting).map(|meeting| &meeting.core);
            for (index, slot) in leg.slots.iter_mut().enumerate() {
                let bitrate_bps = u32::try_from(std::mem::take(&mut slot.bytes) * 8).unwrap_or(u32::MAX);
                let changed = std::mem::replace(&mut slot.bitrate_bps, bitrate_bps) != bitrate_bps;
                let Some(state) = core.and_then(|core| core.slot_state(slot.id)) else {
                    continue;
                };
                let ageing = matches!(state.status, SlotStatus::Stale);
                if changed || ageing {
                    for post in &leg.posts {
                        post.slot(index, convert::slot_state(&slot.name, state, bitrate_bps));
                    }
                }
            }
        }
        for (id, second) in seconds {
            self.measured(now, id, second);
        }
    }
}

//! How each leg fares: once a second what was measured of it, whatever its wire, goes through its meter and is told to
//! those who watch the leg and, where it is news, to the control plane.
//!
//! Thresholds and hysteresis are the core's (`muster_forward::quality`).

use std::time::{Duration, Instant};

use muster_forward::quality::{Measured, Meter, PictureSize, View};
use muster_forward::{LegId, Meeting, SlotReason, SlotState, SlotStatus, SourceKind};
use muster_link::Transport;
use muster_proto::command::v1::{LegState, SiteQuality};
use muster_proto::media::v1::QualityMark;
use muster_webrtc::Quality;

use crate::convert;

use super::state::{LegEntry, LinkCounts, Wire, Worker};

impl Worker {
    /// Takes a second of a leg.
    pub fn measured(&mut self, now: Instant, id: LegId, second: Measured) {
        let at = self.shared.micros(now);
        let Some(second) = self.with_pictures(now, id, second) else {
            return;
        };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        // What comes before the leg is on air says nothing of how it fares in the meeting.
        let joining = leg.state == LegState::Joining;
        if joining {
            leg.meter = Meter::default();
        }
        let quality = leg.meter.measure(at, &second);
        let mut wire = convert::leg_quality(&quality);
        let mut another_way = false;
        if let Wire::Link(link) = &mut leg.wire {
            wire.set_rung(link.rung);
            wire.by_tcp = link.sender.transport() == Transport::Tcp;
            let rung = std::mem::replace(&mut link.rung_told, link.rung);
            let by_tcp = std::mem::replace(&mut link.by_tcp, wire.by_tcp);
            another_way = (rung, by_tcp) != (link.rung, wire.by_tcp);
        }
        if joining {
            wire.set_mark(QualityMark::Unspecified);
        } else if (leg.meter.is_news(at, &quality) || another_way)
            && let Some(meeting) = self.meetings.get(&leg.meeting)
        {
            let told = SiteQuality {
                meeting: meeting.name.to_string(),
                site: leg.site.to_string(),
                leg: leg.name.to_string(),
                quality: Some(wire),
            };
            self.shared.directory.qualities.put(id, told);
        }
        leg.posts.iter().for_each(|post| post.quality(wire));
    }

    /// Adds what the meeting's core knows: which layers come, which go, and why no larger ones.
    fn with_pictures(&self, now: Instant, id: LegId, second: Measured) -> Option<Measured> {
        let leg = self.legs.get(&id)?;
        let core = &self.meetings.get(&leg.meeting)?.core;
        let at = self.shared.micros(now);
        let camera = leg.sources.iter().find(|id| {
            self.sources
                .get(id)
                .is_some_and(|source| source.kind == SourceKind::Camera)
        });
        let published = camera.and_then(|&camera| core.published(at, camera));
        Some(Measured {
            silent: matches!(leg.state, LegState::Silent | LegState::Left)
                || camera.is_some_and(|&camera| core.is_missed(at, camera)),
            published: published.map(|published| published.size),
            publishes_less: published.is_some_and(|published| published.less),
            shown: shown(leg, core),
            view: view(leg, core),
            ..second
        })
    }
}

fn pictures<'a>(leg: &'a LegEntry, core: &'a Meeting) -> impl Iterator<Item = &'a SlotState> {
    let slots = leg.slots.iter().filter(|slot| !slot.audio);
    slots.filter_map(|slot| core.slot_state(slot.id))
}

fn shown(leg: &LegEntry, core: &Meeting) -> Option<PictureSize> {
    pictures(leg, core)
        .filter(|state| state.status == SlotStatus::Live)
        .map(|state| (state.width, state.height))
        .max_by_key(|&(width, height)| u32::from(width) * u32::from(height))
}

fn view(leg: &LegEntry, core: &Meeting) -> View {
    pictures(leg, core)
        .map(|state| match (state.status, state.reason) {
            (SlotStatus::Paused, _) => View::Paused,
            (_, Some(SlotReason::LimitedByYourLink)) => View::Smaller,
            _ => View::Whole,
        })
        .max()
        .unwrap_or_default()
}

/// A second of a browser's leg, and what its way is estimated to carry.
pub(super) fn of_webrtc(quality: &Quality, estimate_bps: Option<u64>) -> Measured {
    Measured {
        received: quality.received_packets,
        lost: quality.received_lost,
        up_bytes: quality.received_bytes,
        down_bytes: quality.sent_bytes,
        down_loss: (quality.sent_loss.clamp(0.0, 1.0) * 1000.0) as u32,
        round_trip: quality.round_trip.map(millis),
        jitter: millis(quality.jitter),
        estimate_bps,
        ..Measured::default()
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// `part` of `whole` in thousandths; 0 of nothing.
fn permille(part: u64, whole: u64) -> u32 {
    (part.min(whole) * 1000).checked_div(whole).unwrap_or(0) as u32
}

impl LinkCounts {
    /// A packet with `seq` came after the one with `last`.
    pub fn count(&mut self, last: Option<u16>, seq: u16, bytes: usize) {
        self.received += 1;
        self.up_bytes += bytes as u64;
        // Late ones were counted as expected when they were passed by.
        let step = last.map_or(1, |last| seq.wrapping_sub(last));
        self.expected += if step < 0x8000 { u64::from(step) } else { 0 };
    }

    /// The last second of a link; totals of the path come from QUIC.
    pub(super) fn take(&mut self, lost: u64, sent: u64, round_trip: Duration) -> Measured {
        let second = Measured {
            received: self.received,
            lost: self.expected.saturating_sub(self.received),
            up_bytes: self.up_bytes,
            down_bytes: self.down_bytes,
            down_loss: permille(lost.saturating_sub(self.lost), sent.saturating_sub(self.sent)),
            round_trip: Some(millis(round_trip)),
            ..Measured::default()
        };
        *self = Self {
            lost,
            sent,
            ..Self::default()
        };
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_on_a_link_is_counted_over_wraps_and_late_packets() {
        let mut counts = LinkCounts::default();
        let mut last = None;
        for seq in [65533u16, 65534, 1, 0, 2, 3] {
            counts.count(last, seq, 100);
            if last.is_none_or(|l: u16| seq.wrapping_sub(l) < 0x8000) {
                last = Some(seq);
            }
        }
        // 65535 is missing: 7 expected, 6 received.
        let second = counts.take(5, 100, Duration::from_millis(30));
        assert_eq!(
            (second.received, second.lost, second.down_loss, second.round_trip),
            (6, 1, 50, Some(30))
        );
        let nothing = Measured {
            round_trip: Some(0),
            ..Measured::default()
        };
        assert_eq!(counts.take(5, 100, Duration::ZERO), nothing);
    }
}

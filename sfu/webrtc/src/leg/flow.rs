//! What a leg's path takes: the congestion control of what it sends, joined from its parts.
//!
//! Whoever sends asks `pacer` whether it may and tells `side` of every RTP packet; audio asks
//! nobody. What the peer tells comes in here.

use std::time::{Duration, Instant};

use super::Leg;
use crate::congestion::{Bounds, Pacer, SendSide};
use crate::negotiate::SlotPlan;

/// Bits per second that a video slot adds to what is assumed of the path at first: a thumbnail. Who asks for a wall of
/// fifty has the link of a command centre.
const START_A_SLOT: u64 = 100_000;

pub(crate) struct Flow {
    pub side: SendSide,
    pub pacer: Pacer,
    /// Feedback messages that were refused.
    pub refused: u64,
}

impl Flow {
    pub(crate) fn new(now: Instant, slots: &[SlotPlan]) -> Self {
        let numbered = slots.iter().any(|s| s.twcc_extension.is_some());
        let padded = slots.iter().any(|s| s.codings.iter().any(|c| c.rtx_pt.is_some()));
        let pictures = slots.iter().filter(|s| !s.offered.audio).count() as u64;
        let usual = Bounds::default();
        let bounds = Bounds {
            start: usual.start + START_A_SLOT * pictures,
            ..usual
        };
        let mut side = SendSide::new(now, bounds, numbered);
        side.set_can_probe(padded);
        side.set_has_padding(false);
        Self {
            pacer: Pacer::new(now, side.pacing_bps()),
            side,
            refused: 0,
        }
    }

    pub(super) fn feedback(&mut self, now: Instant, fci: &[u8]) {
        if self.side.feedback(now, fci).is_err() {
            self.refused += 1;
        }
        self.pacer.set_rate(now, self.side.pacing_bps());
    }

    pub(super) fn reported(&mut self, now: Instant, fraction_lost: u8, round_trip: Option<Duration>) {
        if let Some(round_trip) = round_trip {
            self.side.reported_round_trip(round_trip);
        }
        self.side.reported_loss(now, f64::from(fraction_lost) / 256.0);
        self.pacer.set_rate(now, self.side.pacing_bps());
    }
}

impl Leg {
    /// Bits per second that the path to the peer takes, with all headers; None: nothing limits, as
    /// far as is known.
    pub fn estimate_bps(&self) -> Option<u64> {
        self.flow.side.estimate_bps()
    }

    /// What the slots would use if there were room, bits per second: probes look for as much.
    pub fn set_wanted_bps(&mut self, now: Instant, bps: u64) {
        self.flow.side.set_wanted_bps(now, Some(bps));
    }

    /// Transport-wide feedback that was refused since the start: malformed, or of packets that were
    /// never sent.
    pub fn feedback_refused(&self) -> u64 {
        self.flow.refused
    }
}

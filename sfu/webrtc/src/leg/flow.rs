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

/// A round trip from reports is newer than one from feedback for so long: they come every second.
const REPORTED: Duration = Duration::from_secs(3);
/// One from the handshake is worth nothing after this: it may have been slow for reasons of its own.
const SHAKEN: Duration = Duration::from_secs(10);

/// The leg's round trip, by the best that tells of it: the peer's receiver reports, else its
/// transport-wide feedback, else the handshake, which is there first.
#[derive(Default)]
pub(crate) struct RoundTrip {
    known: Option<Duration>,
    reported_at: Option<Instant>,
    /// When a flight of the handshake left that is not answered.
    flight: Option<Instant>,
    /// Nothing but the handshake has told of it, which ended then.
    shaken_at: Option<Instant>,
}

impl RoundTrip {
    /// A flight of the handshake leaves.
    pub(super) fn flight(&mut self, now: Instant) {
        self.flight = Some(now);
    }

    /// A datagram of the handshake came. The least counts: some answers take the peer some computing.
    pub(super) fn answered(&mut self, now: Instant) {
        if let Some(sent) = self.flight.take() {
            let took = now.saturating_duration_since(sent);
            self.known = Some(self.known.map_or(took, |known| known.min(took)));
            self.shaken_at = Some(now);
        }
    }

    pub(super) fn reported(&mut self, now: Instant, round_trip: Duration) {
        (self.known, self.reported_at, self.shaken_at) = (Some(round_trip), Some(now), None);
    }

    pub(super) fn fed_back(&mut self, now: Instant, round_trip: Duration) {
        let reported = |at: Instant| now.saturating_duration_since(at) < REPORTED;
        if !self.reported_at.is_some_and(reported) {
            (self.known, self.shaken_at) = (Some(round_trip), None);
        }
    }

    pub(super) fn get(&self, now: Instant) -> Option<Duration> {
        let old = |at: Instant| now.saturating_duration_since(at) >= SHAKEN;
        self.known.filter(|_| !self.shaken_at.is_some_and(old))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_handshake_tells_first_and_reports_tell_best() {
        let t0 = instant();
        let mut round_trip = RoundTrip::default();
        round_trip.answered(t0);
        assert_eq!(round_trip.get(t0), None, "it was no answer");
        for (flight, answer) in [(0, 40), (50, 130), (200, 245)] {
            round_trip.flight(t0 + MS * flight);
            round_trip.answered(t0 + MS * answer);
        }
        assert_eq!(round_trip.get(t0 + MS * 300), Some(MS * 40));
        assert_eq!(round_trip.get(t0 + MS * 11_000), None, "too long ago");
        round_trip.fed_back(t0 + MS * 400, MS * 55);
        assert_eq!(round_trip.get(t0 + MS * 11_000), Some(MS * 55));
        round_trip.reported(t0 + MS * 1_000, MS * 42);
        round_trip.fed_back(t0 + MS * 3_000, MS * 60);
        assert_eq!(round_trip.get(t0 + MS * 3_000), Some(MS * 42));
        round_trip.fed_back(t0 + MS * 4_000, MS * 60);
        assert_eq!(round_trip.get(t0 + MS * 4_000), Some(MS * 60));
    }
}

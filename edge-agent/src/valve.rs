//! Holds the sources to the ladder's rung: which layers rest, and which datagrams leave.
//!
//! Whole layers are rested at the source, so that nothing is encoded for nobody. Of stills one key frame of the smallest
//! layer leaves each [`STILL_EVERY`]: asked for where the source makes them on demand, taken from the stream where it does
//! not (a camera). Sequence numbers of what leaves have no holes, so that nobody asks for what was never sent.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use muster_link::framing::{put_flow, split_flow};
use muster_link::rtp::{LinkRtp, PT_H264, PT_OPUS, PT_VP8};

use crate::ladder::Rung;
use crate::publisher::CAMERA_FLOW;

/// Time between two stills.
const STILL_EVERY: Duration = Duration::from_secs(2);
/// Flows of the camera.
const CAMERA: std::ops::Range<u64> = CAMERA_FLOW..CAMERA_FLOW + 4;

/// The valve of one leg.
#[derive(Debug, Default)]
pub struct Valve {
    rung: Rung,
    /// Layers that the relay wants rested.
    rested: BTreeSet<u64>,
    /// What sequence numbers are ahead by, of the smallest layer.
    skipped: u16,
    /// The still that is leaving: its timestamp.
    still: Option<u32>,
    still_at: Option<Instant>,
}

impl Valve {
    /// The relay rests a layer, or wants it again. Says whether the source is to rest it.
    pub fn pause(&mut self, flow: u64, paused: bool) -> bool {
        if paused && CAMERA.contains(&flow) {
            self.rested.insert(flow);
        } else {
            self.rested.remove(&flow);
        }
        self.rests(flow)
    }

    fn rests(&self, flow: u64) -> bool {
        let by_rung = match self.rung {
            Rung::Full => false,
            Rung::Small | Rung::Stills => flow != CAMERA_FLOW,
            Rung::Audio | Rung::Text => true,
        };
        by_rung || self.rested.contains(&flow)
    }

    /// Another rung: for each camera flow whether it rests now.
    pub fn set(&mut self, rung: Rung) -> Vec<(u64, bool)> {
        self.rung = rung;
        self.still_at = None;
        CAMERA.map(|flow| (flow, self.rests(flow))).collect()
    }

    /// Whether a key frame of the smallest layer is to be asked for: the next still is due.
    pub fn wants_still(&self, now: Instant) -> bool {
        self.rung == Rung::Stills && self.is_due(now)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.still_at
            .is_none_or(|at| now.saturating_duration_since(at) >= STILL_EVERY)
    }

    /// What leaves of a datagram.
    pub fn pass(&mut self, now: Instant, datagram: Bytes) -> Option<Bytes> {
        let Some((flow, rtp)) = split_flow(datagram.clone()) else {
            return Some(datagram);
        };
        if !CAMERA.contains(&flow) {
            return (self.rung != Rung::Text).then_some(datagram);
        }
        match self.rung {
            Rung::Full if self.skipped == 0 || flow != CAMERA_FLOW => Some(datagram),
            Rung::Full | Rung::Small if flow == CAMERA_FLOW => Some(self.renumbered(flow, &rtp)),
            Rung::Stills if flow == CAMERA_FLOW => self.still(now, flow, &rtp),
            _ => {
                self.skipped = self.skipped.wrapping_add(u16::from(flow == CAMERA_FLOW));
                None
            }
        }
    }

    fn still(&mut self, now: Instant, flow: u64, rtp: &Bytes) -> Option<Bytes> {
        let parsed = LinkRtp::parse(rtp).ok()?;
        if self.still != Some(parsed.timestamp) {
            self.still = None;
            if self.is_due(now) && starts_key_frame(parsed.payload_type, parsed.payload) {
                self.still = Some(parsed.timestamp);
                self.still_at = Some(now);
            }
        }
        if self.still.is_some() {
            return Some(self.renumbered(flow, rtp));
        }
        self.skipped = self.skipped.wrapping_add(1);
        None
    }

    /// The same packet with a number that leaves no hole.
    fn renumbered(&self, flow: u64, rtp: &Bytes) -> Bytes {
        let mut out = BytesMut::with_capacity(rtp.len() + 8);
        put_flow(flow, &mut out);
        let at = out.len();
        out.extend_from_slice(rtp);
        if let Some(seq) = out.get(at + 2..at + 4) {
            let seq = u16::from_be_bytes([seq[0], seq[1]]).wrapping_sub(self.skipped);
            out[at + 2..at + 4].copy_from_slice(&seq.to_be_bytes());
        }
        out.freeze()
    }
}

/// Whether a payload begins a key frame. Of H.264 the parameter sets begin it (RFC 6184), of VP8 a first partition with the
/// key frame's bit clear (RFC 7741).
pub(crate) fn starts_key_frame(payload_type: u8, payload: &[u8]) -> bool {
    match payload_type {
        PT_VP8 => muster_testcard::rtp::parse(payload)
            .is_some_and(|part| part.starts && muster_testcard::vp8::is_key_frame(part.data)),
        PT_H264 => match payload.first().map(|first| first & 0x1f) {
            Some(5 | 7) => true,
            // A STAP-A by its first unit, an FU-A by its first fragment's type.
            Some(24) => payload.get(3).is_some_and(|unit| matches!(unit & 0x1f, 5 | 7)),
            Some(28) => payload
                .get(1)
                .is_some_and(|head| head & 0x80 != 0 && head & 0x1f == 5),
            _ => false,
        },
        PT_OPUS => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::AUDIO_FLOW;

    fn packet(flow: u64, seq: u16, timestamp: u32, payload: &[u8]) -> Bytes {
        let packet = LinkRtp {
            payload_type: if flow == AUDIO_FLOW { PT_OPUS } else { PT_H264 },
            marker: true,
            seq,
            timestamp,
            audio_level: None,
            payload,
        };
        packet.to_datagram(flow, &mut BytesMut::new())
    }

    fn seq(datagram: Option<Bytes>) -> Option<u16> {
        let (_, rtp) = split_flow(datagram?)?;
        Some(LinkRtp::parse(&rtp).ok()?.seq)
    }

    const KEY: &[u8] = &[0x65, 1, 2];
    const INTER: &[u8] = &[0x41, 1, 2];

    #[test]
    fn of_stills_a_key_frame_each_two_seconds_leaves_without_holes() {
        let mut valve = Valve::default();
        let start = Instant::now();
        assert_eq!(seq(valve.pass(start, packet(1, 7, 0, KEY))), Some(7));
        assert_eq!(
            valve.set(Rung::Stills),
            [(1, false), (2, true), (3, true), (4, true)]
        );
        let mut left = Vec::new();
        for number in 0..100u16 {
            let now = start + Duration::from_millis(100) * u32::from(number);
            let payload = if number % 10 == 0 { KEY } else { INTER };
            left.extend(seq(
                valve.pass(now, packet(1, 8 + number, u32::from(number), payload))
            ));
            assert!(valve.pass(now, packet(2, number, 0, KEY)).is_none());
            assert!(valve.pass(now, packet(AUDIO_FLOW, number, 0, &[1])).is_some());
        }
        assert_eq!(left, [8, 9, 10, 11, 12], "one in two seconds of ten");
        valve.set(Rung::Full);
        assert_eq!(seq(valve.pass(start, packet(1, 108, 0, INTER))), Some(13));
    }

    #[test]
    fn text_lets_nothing_out_and_audio_no_picture() {
        let (mut valve, now) = (Valve::default(), Instant::now());
        valve.set(Rung::Audio);
        assert!(valve.pass(now, packet(1, 0, 0, KEY)).is_none());
        assert!(valve.pass(now, packet(AUDIO_FLOW, 0, 0, &[1])).is_some());
        valve.set(Rung::Text);
        assert!(valve.pass(now, packet(AUDIO_FLOW, 1, 0, &[1])).is_none());
    }

    #[test]
    fn the_relay_and_the_rung_both_rest_a_layer() {
        let mut valve = Valve::default();
        assert!(valve.pause(2, true));
        assert!(valve.set(Rung::Small).contains(&(2, true)));
        assert!(valve.pause(2, false), "the rung still does");
        assert!(valve.set(Rung::Full).contains(&(2, false)));
        assert!(!valve.pause(99, true), "no layer of ours");
    }
}

//! The numbers that a viewer sees in one slot, unbroken whatever is switched in behind them.
//!
//! A *segment* is a stretch of one layer of one source. Inside a segment the numbers are the publisher's, shifted: so
//! gaps stay gaps, a late packet gets its own number, and the viewer's NACK means what it says. Only what is left out
//! on purpose (`thinning`) leaves no gap. At the start of a segment the shift is chosen anew: sequence number, picture
//! id (or the frame number of a dependency descriptor) and TL0PICIDX go on by one, the timestamp by the time that has passed (at least a frame). Invariant: no number
//! of a segment is at or before one of an earlier segment. Each incoming number must be given at most once (see
//! `sequence`).

use crate::frame::Picture;
use crate::thinning::{LeftOut, Neighbour, Thinning};
use crate::types::{Micros, Packet};
use crate::vp8::{PictureId, Vp8Patch, distance};

/// Longest step of the timestamp over a pause: an hour, well within half of the 32-bit range.
const MAX_STEP_US: u64 = 3_600_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub seq: u16,
    pub timestamp: u32,
    pub patch: Option<Vp8Patch>,
}

#[derive(Debug)]
pub(crate) struct Rewriter {
    /// The highest numbers given out so far.
    seq: u16,
    timestamp: u32,
    picture_id: u16,
    tl0: u8,
    /// When `timestamp` was first given out.
    at: Option<Micros>,
    segment: Segment,
    /// Of this segment, since something was left out of it.
    thinning: Option<Box<Thinning>>,
}

#[derive(Debug, Default)]
struct Segment {
    start: i64,
    newest: i64,
    /// Of the newest packet.
    marker: bool,
    seq_shift: u16,
    timestamp_shift: u32,
    /// Incoming picture id of the newest packet that had one, and what it would be if nothing were left out.
    picture: Option<(PictureId, u16)>,
    tl0: Option<(u8, u8)>,
}

impl Rewriter {
    pub fn new(seed: u64) -> Self {
        let seed = scatter(seed);
        Rewriter {
            // The lower half leaves a receiver no doubt about the rollover counter (RFC 3711 section 3.3.1).
            seq: (seed as u16 & 0x7fff).wrapping_sub(1),
            timestamp: (seed >> 16) as u32,
            picture_id: (seed >> 48) as u16 & 0x7fff,
            tl0: (seed >> 40) as u8,
            at: None,
            segment: Segment::default(),
            thinning: None,
        }
    }

    /// Starts a segment with the packet of this extended sequence number and timestamp; `rewrite` it next.
    pub fn begin(&mut self, now: Micros, clock_rate: u32, frame_us: u64, number: i64, timestamp: u32) {
        let first = match self.at {
            None => self.timestamp,
            Some(at) => {
                let step = now.since(at).clamp(frame_us, MAX_STEP_US) * u64::from(clock_rate) / 1_000_000;
                self.timestamp.wrapping_add(step as u32)
            }
        };
        self.segment = Segment {
            start: number,
            newest: number - 1,
            marker: false,
            seq_shift: self.seq.wrapping_add(1).wrapping_sub(number as u16),
            timestamp_shift: first.wrapping_sub(timestamp),
            picture: None,
            tl0: None,
        };
        self.thinning = None;
        if self.at.is_none() {
            self.timestamp = first;
        }
        self.at = Some(now);
    }

    /// Whether a segment has begun at or after this number of its layer.
    pub fn began_since(&self, number: i64) -> bool {
        self.segment.start >= number
    }

    /// Whether a packet of this timestamp is of the picture that the newest packet sent was of.
    pub fn within(&self, timestamp: u32) -> bool {
        timestamp.wrapping_add(self.segment.timestamp_shift) == self.timestamp
    }

    /// Whether anything was left out of this segment.
    pub fn has_left_out(&self) -> bool {
        self.thinning.is_some()
    }

    /// Leaves a packet out: what follows gets its numbers.
    pub fn leave_out(&mut self, number: i64, packet: &Packet<'_>, picture: &Picture) {
        if number < self.segment.start {
            return;
        }
        let thinning = self.thinning.get_or_insert_with(|| {
            let last = Neighbour {
                number: self.segment.newest,
                timestamp: self.timestamp.wrapping_sub(self.segment.timestamp_shift),
                marker: self.segment.marker,
                start: false,
                base: true,
                picture: self.segment.picture.map(|(id, _)| id),
            };
            Box::new(Thinning::new(last, self.segment.start))
        });
        thinning.leave_out(neighbour(number, packet, picture));
    }

    /// `None` for a packet of before the segment, and for one of a stretch that is left out.
    pub fn rewrite(
        &mut self,
        now: Micros,
        number: i64,
        packet: &Packet<'_>,
        picture: &Picture,
    ) -> Option<Numbers> {
        if number < self.segment.start {
            return None;
        }
        let left_out = match &mut self.thinning {
            None => LeftOut::default(),
            Some(thinning) => thinning.keep(neighbour(number, packet, picture))?,
        };
        let newest = number > self.segment.newest;
        let seq = (number as u16)
            .wrapping_add(self.segment.seq_shift)
            .wrapping_sub(left_out.packets);
        let timestamp = packet.timestamp.wrapping_add(self.segment.timestamp_shift);
        if newest {
            self.segment.newest = number;
            self.segment.marker = packet.marker;
            self.seq = seq;
            if timestamp.wrapping_sub(self.timestamp) as i32 > 0 {
                self.timestamp = timestamp;
                self.at = Some(now);
            }
        }
        Some(Numbers {
            seq,
            timestamp,
            patch: self.picture_numbers(picture, newest, left_out.pictures),
        })
    }

    fn picture_numbers(&mut self, picture: &Picture, newest: bool, left_out: u16) -> Option<Vp8Patch> {
        if picture.id.is_none() && picture.tl0.is_none() {
            return None;
        }
        let mut patch = Vp8Patch {
            picture_id: self.picture_id,
            tl0_pic_idx: self.tl0,
        };
        if let Some(id) = picture.id {
            // Frames are told apart by differences of their numbers, which say what a frame needs: they keep their gaps.
            let (left_out, most) = if picture.frame.is_some() {
                (0, u16::MAX)
            } else {
                (left_out, 0x7fff)
            };
            let out = match self.segment.picture {
                Some((anchor, out)) => out.wrapping_add_signed(distance(anchor, id)),
                None => self.picture_id.wrapping_add(1).wrapping_add(left_out),
            };
            patch.picture_id = out.wrapping_sub(left_out) & most;
            if newest || self.segment.picture.is_none() {
                self.segment.picture = Some((id, out & most));
                self.picture_id = patch.picture_id;
            }
        }
        if let Some(tl0) = picture.tl0 {
            patch.tl0_pic_idx = match self.segment.tl0 {
                Some((anchor, out)) => out.wrapping_add(tl0.wrapping_sub(anchor)),
                None => self.tl0.wrapping_add(1),
            };
            if newest || self.segment.tl0.is_none() {
                self.segment.tl0 = Some((tl0, patch.tl0_pic_idx));
                self.tl0 = patch.tl0_pic_idx;
            }
        }
        Some(patch)
    }
}

fn neighbour(number: i64, packet: &Packet<'_>, picture: &Picture) -> Neighbour {
    Neighbour {
        number,
        timestamp: packet.timestamp,
        marker: packet.marker,
        start: picture.start,
        base: picture.is_base(),
        picture: picture.id,
    }
}

/// Spreads a seed over all bits (the finaliser of SplitMix64), so that small seeds serve too.
fn scatter(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

//! What was left out of a viewer's numbers, so that the rest follows without a gap.
//!
//! Where pictures of upper temporal layers, or upper spatial layers of pictures, are dropped, every later number moves
//! down by as many. A late packet is
//! numbered by where it belongs: the stretches left out are remembered, the last 64 of them. What was lost on its way
//! here keeps its number, so that the viewer can ask for it, unless the packets on both sides prove that it belonged
//! to a picture that is left out.

use std::collections::VecDeque;

use crate::vp8::{PictureId, distance};

const REMEMBERED: usize = 64;

/// Packets and pictures left out before some number, modulo 2^16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub packets: u16,
    pub pictures: u16,
}

/// A packet as far as its neighbours matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour {
    pub number: i64,
    pub timestamp: u32,
    /// Last of its picture.
    pub marker: bool,
    /// First of its picture, or of its spatial layer.
    pub start: bool,
    /// Not of a spatial layer above the base of its picture.
    pub base: bool,
    pub picture: Option<PictureId>,
}

/// Numbers `start..end` were left out; `sum` counts to the end of it.
#[derive(Debug)]
struct Stretch {
    start: i64,
    end: i64,
    sum: LeftOut,
    /// The pictures at its ends: more of them, coming late, is left out too.
    first: Option<PictureId>,
    last: Option<PictureId>,
}

#[derive(Debug)]
pub(crate) struct Thinning {
    stretches: VecDeque<Stretch>,
    /// Up to the first stretch that is remembered.
    before: LeftOut,
    /// Numbers below this are no longer known.
    known_from: i64,
    last: Neighbour,
    last_left_out: bool,
}

impl Thinning {
    /// Starts after `last`, which went out.
    pub fn new(last: Neighbour, known_from: i64) -> Self {
        Thinning {
            stretches: VecDeque::with_capacity(REMEMBERED),
            before: LeftOut::default(),
            known_from,
            last,
            last_left_out: false,
        }
    }

    /// Takes a packet that goes out; what was left out before it, `None` if it is itself in a stretch left out or
    /// too old to know.
    pub fn keep(&mut self, packet: Neighbour) -> Option<LeftOut> {
        if packet.number > self.last.number {
            self.close_gap(&packet, false);
            self.last = packet;
            self.last_left_out = false;
        }
        self.before(&packet)
    }

    /// Takes a packet that is to be left out. One that came late has its number already.
    pub fn leave_out(&mut self, packet: Neighbour) {
        if packet.number <= self.last.number {
            return;
        }
        self.close_gap(&packet, true);
        // Of a picture that goes out without its upper layers nothing is left out but packets.
        let picture = packet.picture.filter(|_| packet.base);
        let new_picture = picture.is_some_and(|id| self.last.picture != Some(id));
        self.stretch(packet.number, packet.number + 1, u16::from(new_picture), picture);
        self.last = packet;
        self.last_left_out = true;
    }

    fn before(&self, packet: &Neighbour) -> Option<LeftOut> {
        let same = |other: Option<PictureId>| packet.picture.is_some() && packet.picture == other;
        let mut later_first = None;
        for stretch in self.stretches.iter().rev() {
            if packet.number >= stretch.end {
                return (!same(stretch.last) && !same(later_first)).then_some(stretch.sum);
            }
            if packet.number >= stretch.start {
                return None;
            }
            later_first = stretch.first;
        }
        (packet.number >= self.known_from && !same(later_first)).then_some(self.before)
    }

    /// What is missing before this packet is left out too, if it is of a picture that is.
    fn close_gap(&mut self, packet: &Neighbour, left_out: bool) {
        let missing = self.last.number + 1..packet.number;
        if missing.is_empty() {
            return;
        }
        let same_picture = packet.timestamp == self.last.timestamp;
        let next_picture = match (self.last.picture, packet.picture) {
            (Some(from), Some(to)) => distance(from, to) == 1,
            _ => false,
        };
        let gone = if same_picture {
            self.last_left_out && (left_out || packet.start)
        } else if !next_picture || !packet.base {
            false
        } else if packet.start {
            self.last_left_out
        } else if self.last.marker {
            left_out
        } else {
            self.last_left_out && left_out
        };
        if gone {
            let side = if self.last_left_out { &self.last } else { packet };
            let picture = side.picture.filter(|_| side.base);
            self.stretch(missing.start, missing.end, 0, picture);
        }
    }

    fn stretch(&mut self, start: i64, end: i64, pictures: u16, picture: Option<PictureId>) {
        let packets = (end - start) as u16;
        if let Some(last) = self.stretches.back_mut().filter(|last| last.end == start) {
            last.end = end;
            last.last = picture;
            last.sum.packets = last.sum.packets.wrapping_add(packets);
            last.sum.pictures = last.sum.pictures.wrapping_add(pictures);
            return;
        }
        let before = self.stretches.back().map_or(self.before, |last| last.sum);
        if self.stretches.len() == REMEMBERED
            && let Some(oldest) = self.stretches.pop_front()
        {
            self.before = oldest.sum;
            self.known_from = oldest.end;
        }
        let sum = LeftOut {
            packets: before.packets.wrapping_add(packets),
            pictures: before.pictures.wrapping_add(pictures),
        };
        self.stretches.push_back(Stretch {
            start,
            end,
            sum,
            first: picture,
            last: picture,
        });
    }
}

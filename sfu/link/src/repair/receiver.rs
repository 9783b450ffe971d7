//! The receiving end: each packet once, as soon as it is there, and feedback that says what is.
//!
//! Invariants: a number is handed out once; memory is a ring of [`KEPT`] numbers and [`BLOCKS`] parity blocks, whatever
//! arrives. Packets are handed out in the order of their arrival, not of their numbers: RTP has an order of its own.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::parity::{self, MOST_PACKETS};
use super::wire::{AGE_UNIT, BlockId, Datagram, Feedback, MAX_REPORTED, Malformed};
use super::{Micros, unwrap16};

/// A missing packet is reported for so long, µs: the longest deadline that a sender may hold it to.
const GIVE_UP: Micros = 1_000_000;
/// Numbers that are remembered with their packets, for parity.
const KEPT: u64 = 1024;
/// Parity blocks that are being collected.
const BLOCKS: usize = 8;
/// Feedback is sent at most so often, µs, and at least so often while datagrams come.
const FASTEST: Micros = 1_000;
/// Where not much is missing, and nothing new, it is sent at most so often: each wakes both ends, which costs them more than its bytes.
const USUAL: Micros = 10_000;
const SLOWEST: Micros = 40_000;
/// Bytes on the wire of a feedback with all headers, about.
const COST: u64 = 100;
/// Feedback goes on so long after the last arrival: what was lost at the end is noticed by its silence.
const TAIL: Micros = 60_000;
/// After that it is sent so often, as long as there was anything within [`QUIET_FOR`].
const QUIET: Micros = 100_000;
const QUIET_FOR: Micros = 30_000_000;

/// What was counted since the link was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Datagrams that carried a packet or parity.
    pub received: u64,
    /// Packets handed out, of them by parity.
    pub delivered: u64,
    pub restored: u64,
    /// Arrived a second time.
    pub duplicates: u64,
    /// Arrived after they were given up.
    pub late: u64,
    /// Given up.
    pub given_up: u64,
    pub malformed: u64,
}

#[derive(Debug, Clone, Default)]
enum Place {
    /// Missing since.
    Missing(Micros),
    Here(Bytes),
    #[default]
    GivenUp,
}

#[derive(Debug)]
struct Block {
    first: u64,
    id: BlockId,
    shards: Vec<(u8, Bytes)>,
}

/// The receiving end of one direction of a link.
#[derive(Debug)]
pub struct Receiver {
    /// The packets from `base` on.
    places: VecDeque<Place>,
    base: u64,
    /// The first number that is neither there nor given up.
    wanted: u64,
    blocks: VecDeque<Block>,
    newest: u64,
    newest_at: Micros,
    before: u64,
    /// Bytes that came, decaying: for the rate of feedback.
    rate: f64,
    rate_at: Micros,
    last_arrival: Option<Micros>,
    last_feedback: Option<Micros>,
    /// Feedback is urgent.
    gap: bool,
    stats: ReceiverStats,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    pub fn new() -> Self {
        Self {
            places: VecDeque::new(),
            base: 0,
            wanted: 0,
            blocks: VecDeque::new(),
            newest: 0,
            newest_at: 0,
            before: 0,
            rate: 0.0,
            rate_at: 0,
            last_arrival: None,
            last_feedback: None,
            gap: false,
            stats: ReceiverStats::default(),
        }
    }

    pub fn stats(&self) -> ReceiverStats {
        self.stats
    }

    /// Numbers and blocks that are remembered.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 2] {
        [
            self.places.len(),
            self.blocks.iter().map(|block| block.shards.len()).sum(),
        ]
    }

    /// Takes a packet or parity; packets that are there now go to `out`.
    ///
    /// # Errors
    /// [`Malformed`] for feedback, which is the sender's, as for bytes that are nothing.
    pub fn take(
        &mut self,
        now: Micros,
        datagram: Datagram,
        out: &mut impl FnMut(Bytes),
    ) -> Result<(), Malformed> {
        match datagram {
            Datagram::Packet {
                transmission,
                number,
                body,
            } => {
                self.arrived(now, transmission, body.len());
                let number = unwrap16(number, self.end());
                self.place(now, number, body, false, out);
                self.try_blocks(now, out);
            }
            Datagram::Parity {
                transmission,
                block,
                index,
                shard,
            } => {
                self.arrived(now, transmission, shard.len());
                if usize::from(block.packets) > MOST_PACKETS {
                    self.stats.malformed += 1;
                    return Err(Malformed::Block);
                }
                self.collect(now, block, index, shard);
                self.try_blocks(now, out);
            }
            Datagram::Bundle {
                transmission,
                packets,
            } => {
                self.arrived(
                    now,
                    transmission,
                    packets.iter().map(|(_, body)| body.len() + 4).sum(),
                );
                for (number, body) in packets {
                    let number = unwrap16(number, self.end());
                    self.place(now, number, body, false, out);
                }
                self.try_blocks(now, out);
            }
            Datagram::Filling { transmission, bytes } => {
                self.arrived(now, transmission, bytes);
                // Its time is what it is sent for.
                self.gap = true;
            }
            Datagram::Feedback(_) => return Err(Malformed::Kind(3)),
        }
        Ok(())
    }

    /// One after the highest number seen.
    fn end(&self) -> u64 {
        self.base + self.places.len() as u64
    }

    fn arrived(&mut self, now: Micros, transmission: u16, bytes: usize) {
        let number = if self.stats.received == 0 {
            u64::from(transmission)
        } else {
            unwrap16(transmission, self.newest)
        };
        if self.stats.received == 0 || number > self.newest {
            let moved = if self.stats.received == 0 {
                64
            } else {
                number - self.newest
            };
            self.gap |= moved > 1;
            self.before = match moved {
                1..64 => self.before << moved | 1 << (moved - 1),
                _ => 0,
            };
            self.newest = number;
            self.newest_at = now;
        } else if let Some(back @ 0..64) = self
            .newest
            .checked_sub(number)
            .and_then(|back| back.checked_sub(1))
        {
            self.before |= 1 << back;
        }
        self.stats.received += 1;
        let passed = now.saturating_sub(self.rate_at) as f64;
        // A mean over about 300 ms.
        self.rate = self.rate * (-passed / 300_000.0).exp() + bytes as f64 / 0.3;
        self.rate_at = now;
        self.last_arrival = Some(now);
    }

    fn place(&mut self, now: Micros, number: u64, body: Bytes, restored: bool, out: &mut impl FnMut(Bytes)) {
        if number < self.base {
            self.stats.late += 1;
            return;
        }
        if number >= self.end() + KEPT {
            // A jump over all that is remembered: begin anew there.
            self.stats.given_up += self
                .places
                .iter()
                .filter(|place| matches!(place, Place::Missing(_)))
                .count() as u64;
            self.places.clear();
            self.base = number;
            self.wanted = number;
        }
        while self.end() <= number {
            self.places.push_back(Place::Missing(now));
        }
        let index = (number - self.base) as usize;
        match &self.places[index] {
            Place::Here(_) => {
                self.stats.duplicates += 1;
                return;
            }
            Place::GivenUp => {
                // Late for the plan, not perhaps for who waits for it.
                self.stats.late += 1;
            }
            Place::Missing(_) => {}
        }
        self.places[index] = Place::Here(body.clone());
        self.stats.delivered += 1;
        self.stats.restored += u64::from(restored);
        out(body);
        self.trim();
        self.advance(now);
    }

    /// Forgets the oldest.
    fn trim(&mut self) {
        while self.places.len() as u64 > KEPT {
            self.places.pop_front();
            self.base += 1;
        }
        self.wanted = self.wanted.max(self.base);
    }

    /// Moves on over what is there and what is given up.
    fn advance(&mut self, now: Micros) {
        self.wanted = self.wanted.max(self.base);
        while self.wanted < self.end() {
            let place = &mut self.places[(self.wanted - self.base) as usize];
            if let Place::Missing(since) = place {
                if *since + GIVE_UP > now {
                    break;
                }
                *place = Place::GivenUp;
                self.stats.given_up += 1;
            }
            self.wanted += 1;
        }
    }

    fn collect(&mut self, now: Micros, id: BlockId, index: u8, shard: Bytes) {
        let first = unwrap16(id.first, self.end());
        let end = first + u64::from(id.packets);
        if end <= self.wanted || end > self.end() + KEPT {
            return;
        }
        // Packets of the block after the last that arrived are missing too.
        while self.end() < end {
            self.places.push_back(Place::Missing(now));
        }
        self.trim();
        if let Some(block) = self
            .blocks
            .iter_mut()
            .find(|block| block.first == first && block.id == id)
        {
            let known = block.shards.iter().any(|(known, _)| *known == index);
            let fits = block
                .shards
                .first()
                .is_none_or(|(_, other)| other.len() == shard.len());
            if !known && fits {
                block.shards.push((index, shard));
            }
            return;
        }
        if self.blocks.len() == BLOCKS {
            self.blocks.pop_front();
        }
        self.blocks.push_back(Block {
            first,
            id,
            shards: vec![(index, shard)],
        });
    }

    fn try_blocks(&mut self, now: Micros, out: &mut impl FnMut(Bytes)) {
        let mut place = 0;
        while let Some(block) = self.blocks.get(place) {
            let end = block.first + u64::from(block.id.packets);
            if end <= self.wanted || block.first < self.base {
                self.blocks.remove(place);
                continue;
            }
            let from = (block.first - self.base) as usize;
            let to = ((end - self.base) as usize).min(self.places.len());
            let here = self
                .places
                .range(from..to)
                .filter(|place| matches!(place, Place::Here(_)))
                .count();
            if here + block.shards.len() < usize::from(block.id.packets) {
                place += 1;
                continue;
            }
            let Some(block) = self.blocks.remove(place) else {
                break;
            };
            let packets: Vec<Option<Bytes>> = self
                .places
                .range(from..to)
                .map(|place| {
                    if let Place::Here(body) = place {
                        Some(body.clone())
                    } else {
                        None
                    }
                })
                .collect();
            for (offset, body) in parity::decode(&packets, &block.shards, block.id.shards) {
                self.place(now, block.first + offset as u64, body, true, out);
            }
        }
    }

    /// Feedback, if it is time for one.
    pub fn poll(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        let due = self.wake()?;
        if due > now {
            return None;
        }
        self.advance(now);
        self.last_feedback = Some(now);
        self.gap = false;
        let wanted = (self.wanted - self.base) as usize;
        let mut bitmap = Vec::with_capacity(32);
        for (offset, place) in self.places.iter().skip(wanted).take(MAX_REPORTED).enumerate() {
            if offset % 8 == 0 {
                bitmap.push(0u8);
            }
            if !matches!(place, Place::Missing(_)) {
                bitmap[offset / 8] |= 0x80 >> (offset % 8);
            }
        }
        let feedback = Feedback {
            clock: now as u32,
            newest: self.newest as u16,
            age: u16::try_from(now.saturating_sub(self.newest_at) / AGE_UNIT).unwrap_or(u16::MAX),
            received: self.stats.received as u16,
            before: self.before,
            first: self.wanted as u16,
            bitmap: bitmap.into(),
        };
        feedback.write(scratch);
        Some(scratch.split().freeze())
    }

    /// When [`Self::poll`] has something next, if nothing arrives.
    pub fn wake(&self) -> Option<Micros> {
        let arrival = self.last_arrival?;
        let Some(last) = self.last_feedback else {
            return Some(arrival);
        };
        if self.gap {
            return Some(last + FASTEST);
        }
        if arrival + TAIL > last {
            return Some(last + self.interval());
        }
        (arrival + QUIET_FOR > last).then_some(last + QUIET)
    }

    /// Between two feedbacks: a twentieth of what comes, a fifth where much is missing.
    fn interval(&self) -> Micros {
        let missing = 64 - self.before.count_ones();
        let (share, least) = match missing {
            0..=3 => (0.05, USUAL),
            4..=12 => (0.1, USUAL),
            _ => (0.3, FASTEST),
        };
        let micros = COST as f64 * 1e6 / (self.rate * share).max(1.0);
        (micros as Micros).clamp(least, SLOWEST)
    }
}

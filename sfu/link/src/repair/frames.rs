//! One frame's packets as a block of Reed-Solomon symbols: any so many of them give the frame.
//!
//! A symbol is a packet of the frame or a shard of parity over it. The ledger knows how many are there, on their way and
//! waiting; the shell of the sender decides how many more go out ([`super::plan::Planner`]).

use std::collections::VecDeque;

use bytes::Bytes;

use super::wire::BlockId;
use super::{Micros, parity};

/// Frames that are remembered.
const MOST_FRAMES: usize = 512;

#[derive(Debug)]
pub(super) struct Frame {
    pub first: u64,
    pub packets: u32,
    pub deadline: Micros,
    /// By when it is wanted: later it is in time, but seen as a stop.
    pub wanted: Micros,
    /// Symbols on their way, fate unknown.
    pub flying: u32,
    /// Of these, those of the first round.
    pub opening: u32,
    /// Symbols that wait to be sent.
    pub queued: u32,
    /// Packets that were lost and not sent again since.
    pub lost: VecDeque<u64>,
    shards: Vec<Bytes>,
    shards_sent: usize,
    pub shards_arrived: u32,
    /// Given up, or known to be whole.
    pub over: bool,
}

impl Frame {
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.packets)
    }

    /// Whether nothing of it is on its way or waits.
    pub fn is_idle(&self) -> bool {
        self.flying + self.queued == 0
    }

    /// Shards that are made for so many packets.
    pub fn shards_for(packets: u32) -> usize {
        packets.clamp(6, 64) as usize
    }

    /// The next shard that was never sent; they are made of `bodies` when the first is asked for.
    pub fn shard(&mut self, bodies: impl FnOnce() -> Vec<Bytes>) -> Option<(BlockId, u8, Bytes)> {
        if self.shards.is_empty() {
            self.shards = parity::encode(&bodies(), Self::shards_for(self.packets));
        }
        let shard = self.shards.get(self.shards_sent)?.clone();
        let index = u8::try_from(self.shards_sent).ok()?;
        self.shards_sent += 1;
        let block = BlockId {
            first: self.first as u16,
            packets: u8::try_from(self.packets).ok()?,
            shards: u8::try_from(self.shards.len()).ok()?,
        };
        Some((block, index, shard))
    }
}

/// The frames under way, in their order.
#[derive(Debug, Default)]
pub(super) struct Frames(VecDeque<Frame>);

impl Frames {
    pub fn add(&mut self, first: u64, packets: u32, deadline: Micros, wanted: Micros) {
        if self.0.len() == MOST_FRAMES {
            self.0.pop_front();
        }
        self.0.push_back(Frame {
            first,
            packets,
            deadline,
            wanted,
            flying: 0,
            opening: 0,
            queued: 0,
            lost: VecDeque::new(),
            shards: Vec::new(),
            shards_sent: 0,
            shards_arrived: 0,
            over: false,
        });
    }

    /// The frame that a packet belongs to.
    pub fn of(&mut self, number: u64) -> Option<&mut Frame> {
        let after = self.0.partition_point(|frame| frame.first <= number);
        let frame = self.0.get_mut(after.checked_sub(1)?)?;
        (number < frame.end()).then_some(frame)
    }

    /// Forgets frames long over.
    pub fn forget(&mut self, now: Micros, longest: Micros) {
        while self.0.front().is_some_and(|frame| frame.deadline + longest < now) {
            self.0.pop_front();
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn clear_queued(&mut self) {
        self.0.iter_mut().for_each(|frame| frame.queued = 0);
    }
}

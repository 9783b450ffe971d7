//! Parity over a window of packets, where no round trip fits the deadline.

use bytes::{Bytes, BytesMut};

use super::super::wire::{self, BlockId};
use super::super::{Micros, parity, plan};
use super::{Carried, Sender};

impl Sender {
    /// Ends the block of packets that parity covers, if its time is over.
    pub(super) fn close_block(&mut self, now: Micros) {
        let Some((first, since)) = self.block else { return };
        if self.rounds() >= 1 || self.fed.is_none() {
            self.block = None;
            self.parity_share = 0.0;
            return;
        }
        let room = self.terms.video_deadline.saturating_sub(self.reach() + 25_000);
        let count = (self.held_base + self.held.len() as u64 - first) as usize;
        // A frame more would be too long.
        if now.saturating_sub(since) + 33_000 < room * 6 / 10 && count < parity::MOST_PACKETS * 8 / 10 {
            return;
        }
        self.block = None;
        let from = first.saturating_sub(self.held_base) as usize;
        let bodies: Vec<Bytes> = self
            .held
            .range(from..)
            .map(|held| held.packet.body.clone())
            .collect();
        let bodies = &bodies[..bodies.len().min(parity::MOST_PACKETS)];
        let lost = self.loss.within(bodies.len() * 3 / 2, 0.004);
        let wanted = plan::parity(bodies.len(), lost);
        let shards = parity::encode(bodies, wanted);
        self.parity_share = shards.len() as f64 / bodies.len().max(1) as f64;
        let (Ok(packets), Ok(all)) = (u8::try_from(bodies.len()), u8::try_from(shards.len())) else {
            return;
        };
        let block = BlockId {
            first: first as u16,
            packets,
            shards: all,
        };
        let step = room * 4 / 10 / (u64::from(all).max(1) + 1);
        for (index, shard) in (0u8..).zip(shards) {
            self.parity
                .push_back((now + step * u64::from(index), block, index, shard));
        }
    }

    pub(super) fn next_parity(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        let &(due, ..) = self.parity.front()?;
        if due > now {
            return None;
        }
        let (_, block, index, shard) = self.parity.pop_front()?;
        let transmission = self.next_transmission();
        wire::write_parity(transmission as u16, block, index, &shard, scratch);
        self.stats.parity += 1;
        Some(self.note(now, Carried::Nothing, scratch))
    }
}

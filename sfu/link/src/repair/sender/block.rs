//! Parity over a window of packets, where no round trip fits the deadline.

use bytes::{Bytes, BytesMut};

use super::super::wire::{self, BlockId};
use super::super::{Micros, parity};
use super::{Carried, MOST_SHARDS, Sender, WIRE_OVERHEAD};

/// A block is filled for this many hundredths of the time there is, and its parity goes out in the rest.
const FILLING: u64 = 66;
/// Most parity, as a share of the bytes that it covers.
const MOST_PARITY: f64 = 0.52;

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
        if now.saturating_sub(since) + 33_000 < room * FILLING / 100 && count < parity::MOST_PACKETS * 8 / 10
        {
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
        let sent = self.next_transmission();
        let among =
            (sent.saturating_sub(self.block_since) as usize).clamp(bodies.len(), 4 * parity::MOST_PACKETS);
        self.block_since = sent;
        let after = among * (100 - FILLING as usize) / FILLING as usize;
        let size = |all: &[Bytes]| all.iter().map(|one| one.len() + WIRE_OVERHEAD).sum::<usize>() as f64;
        let longest = bodies.iter().map(Bytes::len).max().unwrap_or(0) + WIRE_OVERHEAD;
        let most = (size(bodies) * MOST_PARITY / longest as f64).ceil() as usize;
        let wanted = self.loss.shards(bodies.len(), among, after.max(1), most);
        let shards = parity::encode(bodies, wanted);
        self.parity_share = size(&shards) / size(bodies).max(1.0);
        let (Ok(packets), Ok(all)) = (u8::try_from(bodies.len()), u8::try_from(shards.len())) else {
            return;
        };
        let block = BlockId {
            first: first as u16,
            packets,
            shards: all,
        };
        let step = room * (100 - FILLING) / 100 / (u64::from(all).max(1) + 1);
        // What could not be sent in its time makes room.
        while self.parity.len() + shards.len() > MOST_SHARDS {
            self.parity.pop_front();
        }
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

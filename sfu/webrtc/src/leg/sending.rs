//! The sending half as the shell drives it: packets for slots are queued as they come, for all legs; then each leg in
//! its turn writes what it may send into the buffer that all of them share.

use std::net::SocketAddr;
use std::time::Instant;

use super::Leg;
use crate::event::LegEvent;
use crate::media::QueuedRtp;
use crate::send::{Pushed, SendBatch};
use crate::store::PacketStore;

impl Leg {
    /// Takes a packet for `slot`; it leaves by [`Leg::poll_media`]. False, and nothing is taken: not connected, no such
    /// slot, a codec that the slot does not take, too long a payload, or the rest of a picture whose beginning was dropped. Where
    /// the queue is full (512 packets of video, 64 of sound), the oldest sound goes, or all video of the slot that has waited longest, for
    /// which a [`LegEvent::KeyFrameRequested`] follows.
    pub fn queue_rtp(&mut self, now: Instant, slot: usize, packet: &QueuedRtp) -> bool {
        if self.closed || self.srtp.is_none() {
            return false;
        }
        match self.sender.push(now, slot, packet) {
            Pushed::Queued => true,
            Pushed::Refused => false,
            Pushed::Cut(cut) => {
                self.wants_key_frame(cut);
                true
            }
        }
    }

    /// Fills `batch` with protected datagrams, at most 48 and as many as the pacer lets, and says where they go; None: nothing
    /// is to be sent now. Call it until then. `store` is the one whose places were queued. No allocation once `batch` is warm.
    pub fn poll_media(
        &mut self,
        now: Instant,
        store: &PacketStore,
        batch: &mut SendBatch,
    ) -> Option<SocketAddr> {
        let srtp = self.srtp.as_mut().filter(|_| !self.closed)?;
        let to = self.ice.selected()?;
        batch.clear();
        self.sender.fill(now, store, srtp, &mut self.flow, batch);
        (batch.len() > 0).then_some(to)
    }

    /// When [`Leg::poll_media`] has more to send, if nothing comes meanwhile; None: nothing waits for the pacer.
    pub fn media_timeout(&self) -> Option<Instant> {
        self.sender.wake(&self.flow)
    }

    /// Packets that were taken by [`Leg::queue_rtp`] and dropped, since the start.
    pub fn media_dropped(&self) -> u64 {
        self.sender.dropped()
    }

    /// Payload bytes sent into a slot since the last call.
    pub fn take_slot_bytes(&mut self, slot: usize) -> u64 {
        self.sender.take_bytes(slot)
    }

    pub(super) fn wants_key_frame(&mut self, slot: usize) {
        let event = LegEvent::KeyFrameRequested { slot };
        if !self.events.contains(&event) {
            self.event(event);
        }
    }
}

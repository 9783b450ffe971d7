//! The sending half as the shell drives it: packets for slots are queued as they come, for all legs; then each leg in
//! its turn writes what it may send into the buffer that all of them share.

use std::net::SocketAddr;
use std::time::Instant;

use super::Leg;
use crate::event::LegEvent;
use crate::media::QueuedRtp;
use crate::send::{Pushed, SendBatch, Turn};
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
        let pushed = self.sender.push(now, slot, packet);
        self.pushed(pushed)
    }

    fn pushed(&mut self, pushed: Pushed) -> bool {
        if let Pushed::Cut(cut) = pushed {
            self.wants_key_frame(cut);
        }
        pushed != Pushed::Refused
    }

    /// Begins a turn of the leg: packets that are given to it are written into `batch`, whatever was in there, and leave before
    /// it ends. `store` is the one that their places are of.
    pub fn turn<'a>(
        &'a mut self,
        now: Instant,
        store: &'a PacketStore,
        batch: &'a mut SendBatch,
    ) -> LegTurn<'a> {
        batch.clear();
        let to = self.ice.selected().filter(|_| !self.closed);
        if to.is_some() {
            self.flow.pacer.set_rate(now, self.flow.side.pacing_bps());
        }
        LegTurn {
            leg: self,
            now,
            store,
            batch,
            to,
            handed_out: false,
        }
    }

    /// A turn of the leg with nothing but what was queued: fills `batch` with protected datagrams, at most 48 and as many as the
    /// pacer lets, and says where they go; None: nothing is to be sent now. Call it until then.
    pub fn poll_media(
        &mut self,
        now: Instant,
        store: &PacketStore,
        batch: &mut SendBatch,
    ) -> Option<SocketAddr> {
        self.turn(now, store, batch).next().map(|(to, _)| to)
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

/// A leg while it sends. No allocation once its batch is warm.
pub struct LegTurn<'a> {
    leg: &'a mut Leg,
    now: Instant,
    store: &'a PacketStore,
    batch: &'a mut SendBatch,
    /// None: it has nowhere to send to.
    to: Option<SocketAddr>,
    handed_out: bool,
}

impl LegTurn<'_> {
    /// As [`Leg::queue_rtp`], for a packet that came at `at`; one that nothing waits before is written at once. Not to be called
    /// after [`LegTurn::next`].
    pub fn take(&mut self, at: Instant, slot: usize, packet: &QueuedRtp) -> bool {
        let leg = &mut *self.leg;
        let Some(srtp) = leg.srtp.as_mut().filter(|_| self.to.is_some()) else {
            return leg.queue_rtp(at, slot, packet);
        };
        let mut turn = Turn {
            now: self.now,
            store: self.store,
            srtp,
            flow: &mut leg.flow,
            batch: self.batch,
        };
        let pushed = leg.sender.pass(at, slot, packet, &mut turn);
        leg.pushed(pushed)
    }

    /// Datagrams to be sent now, and where to, at most 48; None: no more. The batch is filled anew by each call.
    #[expect(clippy::should_implement_trait, reason = "it lends what it gives")]
    pub fn next(&mut self) -> Option<(SocketAddr, &SendBatch)> {
        if std::mem::replace(&mut self.handed_out, true) {
            self.batch.clear();
        }
        let to = self.to?;
        let leg = &mut *self.leg;
        let mut turn = Turn {
            now: self.now,
            store: self.store,
            srtp: leg.srtp.as_mut()?,
            flow: &mut leg.flow,
            batch: self.batch,
        };
        leg.sender.fill(&mut turn);
        (self.batch.len() > 0).then_some((to, &*self.batch))
    }
}

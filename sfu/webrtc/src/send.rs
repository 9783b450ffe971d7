//! The viewing side of a leg: slots, each with an SSRC of ours, what waits to be sent into them, and what the viewer
//! reports of them.
//!
//! Invariants: one SSRC a slot for the leg's whole life; what changes is the payload type, when a source of another codec is mapped
//! in. A packet that is sent again under its old index is written from the same record and the same payload, so it is the same bytes.

mod batch;
mod front;
mod queue;
mod sent;
mod slot;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use batch::SendBatch;
use queue::{Next, Queue, Queued};
#[cfg(test)]
pub(crate) use sent::MAX_KEPT;
use slot::Slot;
pub(crate) use slot::SlotReport;

use crate::MAX_PAYLOAD;
use crate::leg::Flow;
use crate::media::{Codec, OfferedSlot, QueuedRtp};
use crate::negotiate::SlotPlan;
use crate::srtp::Srtp;
use crate::store::PacketStore;

/// Assumed before the first receiver report.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(60);
/// Datagrams written in one turn of a leg: what one call with GSO takes.
const MAX_BATCH: usize = 48;

#[derive(Default)]
pub(crate) struct SendTotals {
    pub packets: u64,
    pub bytes: u64,
    pub resent: u64,
}

/// What became of a packet for a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Queued,
    Refused,
    /// The packets of this slot were dropped; it needs a key frame.
    Cut(usize),
}

pub(crate) struct Sender {
    started: Instant,
    slots: Vec<Slot>,
    queue: Queue,
    /// Slot and sequence number of the video sent last: a probe's padding is dated by it.
    newest: Option<(u16, u16)>,
    totals: SendTotals,
}

/// What all packets of a leg's turn are written with, and into.
pub(crate) struct Turn<'a> {
    pub now: Instant,
    pub store: &'a PacketStore,
    pub srtp: &'a mut Srtp,
    pub flow: &'a mut Flow,
    pub batch: &'a mut SendBatch,
}

impl Turn<'_> {
    /// Protects what was written from `start` on.
    fn seal(&mut self, start: usize, header: usize) -> Option<u64> {
        self.srtp.seal_rtp(&mut self.batch.bytes, start, header)
    }

    /// The datagram from `start` on is whole, or, if it is not, never was; its length.
    fn close(&mut self, start: usize, whole: bool, queued: Option<Instant>) -> usize {
        if !whole {
            self.batch.bytes.truncate(start);
            return 0;
        }
        let length = self.batch.bytes.len() - start;
        if let Some(at) = queued {
            let before = self.batch.queued_at.unwrap_or(at);
            self.batch.queued_at = Some(before.min(at));
        }
        self.batch.lengths.push(length);
        self.flow.pacer.sent(length);
        length
    }
}

impl Sender {
    pub(crate) fn new(started: Instant, plans: Vec<SlotPlan>, ssrcs: &[u32], rtx_ssrcs: &[u32]) -> Self {
        let ssrcs = ssrcs.iter().zip(rtx_ssrcs);
        let slots = plans.into_iter().zip(ssrcs);
        Self {
            started,
            slots: slots
                .map(|(plan, (ssrc, rtx))| Slot::new(plan, *ssrc, *rtx))
                .collect(),
            queue: Queue::default(),
            newest: None,
            totals: SendTotals::default(),
        }
    }

    pub(crate) fn offered(&self) -> impl Iterator<Item = &OfferedSlot> {
        self.slots.iter().map(|s| &s.plan.offered)
    }

    /// Takes a packet for a slot.
    pub(crate) fn push(&mut self, now: Instant, index: usize, rtp: &QueuedRtp) -> Pushed {
        if !self.takes(index, rtp) {
            return Pushed::Refused;
        }
        let queued = Queued {
            slot: index as u16, // at most as many as an offer has m-lines
            at: now,
            rtp: *rtp,
        };
        if rtp.codec == Codec::Opus {
            self.queue.push_audio(queued);
            return Pushed::Queued;
        }
        let Some(cut) = self.queue.push_video(queued).map(usize::from) else {
            return Pushed::Queued;
        };
        if let Some(slot) = self.slots.get_mut(cut) {
            slot.cut = cut != index || !rtp.starts_key_frame;
        }
        Pushed::Cut(cut)
    }

    /// As [`Sender::push`], but writes and protects it at once where nothing waits before it and the pacer lets it. `at` is when
    /// it came.
    pub(crate) fn pass(&mut self, at: Instant, index: usize, rtp: &QueuedRtp, turn: &mut Turn<'_>) -> Pushed {
        let free = match rtp.codec {
            Codec::Opus => self.queue.has_no_audio(),
            _ => self.queue.len() == 0 && turn.flow.pacer.may_send(),
        };
        if !free || turn.batch.len() >= MAX_BATCH {
            return self.push(at, index, rtp);
        }
        if !self.takes(index, rtp) {
            return Pushed::Refused;
        }
        let start = turn.batch.bytes.len();
        let written = self.send(at, index, rtp, turn);
        self.totals.bytes += turn.close(start, written.is_some(), Some(at)) as u64;
        if written.is_none() {
            self.queue.drop_one();
        }
        Pushed::Queued
    }

    /// Whether a packet fits its slot: the codec, the length, and not the rest of a picture that was cut.
    fn takes(&mut self, index: usize, rtp: &QueuedRtp) -> bool {
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        let refused = slot.cut && rtp.codec != Codec::Opus && !rtp.starts_key_frame;
        if refused
            || slot.fronts.types(rtp.codec).is_none()
            || rtp.place.len() > MAX_PAYLOAD + usize::from(rtp.descriptor)
        {
            return false;
        }
        slot.cut &= rtp.codec == Codec::Opus;
        true
    }

    /// Writes and protects what may leave now: sound, then as much as the pacer lets, then what a probe asks for.
    pub(crate) fn fill(&mut self, turn: &mut Turn<'_>) {
        while turn.batch.len() < MAX_BATCH {
            let start = turn.batch.bytes.len();
            let Some(next) = self.queue.pop(turn.flow.pacer.may_send()) else {
                let probe = turn.flow.side.poll_probe(turn.now).zip(self.newest);
                let Some((bytes, newest)) = probe else {
                    return;
                };
                let written = self.send_probe(bytes, newest, turn);
                self.totals.bytes += turn.close(start, written.is_some(), None) as u64;
                if written.is_none() {
                    self.newest = None;
                }
                continue;
            };
            let (written, queued) = match &next {
                Next::New(new) => (self.send(new.at, new.slot.into(), &new.rtp, turn), Some(new.at)),
                Next::Again(slot, seq) => (self.send_again(*slot, *seq, turn), None),
            };
            self.totals.bytes += turn.close(start, written.is_some(), queued) as u64;
            if written.is_none() {
                self.queue.drop_one();
            }
        }
    }

    fn send(&mut self, at: Instant, index: usize, rtp: &QueuedRtp, turn: &mut Turn<'_>) -> Option<()> {
        let slot = self.slots.get_mut(index)?;
        let start = turn.batch.bytes.len();
        let mut number = 0;
        let header = slot.write(rtp, turn.store, &mut turn.batch.bytes, |length| {
            number = turn.flow.side.sent(turn.now, length + turn.srtp.tag_length());
            number
        })?;
        let srtp_index = turn.seal(start, header)?;
        slot.count(at, millis(self.started, turn.now), rtp, srtp_index, number);
        if rtp.codec != Codec::Opus {
            if self.newest.is_none() {
                turn.flow.side.set_has_padding(true);
            }
            self.newest = Some((index as u16, rtp.seq));
        }
        self.totals.packets += 1;
        Some(())
    }

    /// By the slot's stream of retransmissions. Where the viewer has not agreed to one, it is the very same bytes under the same
    /// index, so that nothing new is said under a nonce that was used.
    fn send_again(&mut self, index: u16, seq: u16, turn: &mut Turn<'_>) -> Option<()> {
        let slot = self.slots.get_mut(usize::from(index))?;
        let start = turn.batch.bytes.len();
        if slot.rtx.is_some() {
            let header = slot.write_rtx(seq, turn.store, &mut turn.batch.bytes, |length| {
                turn.flow.side.sent(turn.now, length + turn.srtp.tag_length())
            })?;
            turn.seal(start, header)?;
        } else {
            let record = slot.sent.get(seq)?;
            let out = &mut turn.batch.bytes;
            let header = slot.write(&record.rtp, turn.store, out, |_| record.number)?;
            turn.srtp.seal_same_again(out, start, header, record.index)?;
        }
        self.totals.resent += 1;
        Some(())
    }

    /// Padding for a probe. Not a packet that was sent before: there are receivers that would give it to their decoder twice.
    fn send_probe(&mut self, bytes: usize, (index, seq): (u16, u16), turn: &mut Turn<'_>) -> Option<()> {
        let slot = self.slots.get_mut(usize::from(index))?;
        let start = turn.batch.bytes.len();
        let header = slot.write_padding(seq, bytes, &mut turn.batch.bytes, |length| {
            turn.flow.side.sent(turn.now, length + turn.srtp.tag_length())
        })?;
        turn.seal(start, header).map(|_| ())
    }

    /// When it is worth to ask for more to send; None: nothing waits.
    pub(crate) fn wake(&self, flow: &Flow) -> Option<Instant> {
        let waiting = self.queue.paced_bytes();
        (waiting > 0).then(|| flow.pacer.wake(waiting))
    }

    /// Packets that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Packets that were taken and dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// The viewer asks for a packet again.
    pub(crate) fn ask_again(&mut self, now: Instant, ssrc: u32, seq: u16, round_trip: Option<Duration>) {
        let now = millis(self.started, now);
        let round_trip = round_trip.unwrap_or(DEFAULT_ROUND_TRIP);
        if let Some(index) = self.slot_of(ssrc)
            && self.slots[index].sent.ask(now, seq, round_trip)
        {
            self.queue.push_again(index as u16, seq);
        }
    }

    /// The slot that has this SSRC, or repeats by it.
    pub(crate) fn slot_of(&self, ssrc: u32) -> Option<usize> {
        let has = |s: &Slot| s.ssrc == ssrc || s.rtx.is_some_and(|rtx| rtx.ssrc == ssrc);
        self.slots.iter().position(has)
    }

    /// Payload bytes sent into a slot since the last call.
    pub(crate) fn take_bytes(&mut self, slot: usize) -> u64 {
        let slot = self.slots.get_mut(slot);
        slot.map_or(0, |slot| std::mem::take(&mut slot.recent_bytes))
    }

    /// The viewer's report of a slot.
    pub(crate) fn reported(&mut self, ssrc: u32, fraction_lost: u8) -> bool {
        let slot = self.slots.iter_mut().find(|s| s.ssrc == ssrc);
        slot.map(|s| s.fraction_lost = fraction_lost).is_some()
    }

    /// Reports for the slots that sent since the last call; timestamps extrapolated to `now`.
    pub(crate) fn reports(&mut self, now: Instant) -> Vec<SlotReport> {
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.report(now))
            .collect()
    }

    /// The worst loss that the viewer reported, of 256.
    pub(crate) fn worst_loss(&self) -> u8 {
        self.slots.iter().map(|s| s.fraction_lost).max().unwrap_or(0)
    }

    pub(crate) fn totals(&self) -> &SendTotals {
        &self.totals
    }

    pub(crate) fn kept(&self) -> usize {
        self.slots.iter().map(|s| s.sent.len()).sum()
    }
}

fn millis(started: Instant, now: Instant) -> u32 {
    now.saturating_duration_since(started).as_millis() as u32
}

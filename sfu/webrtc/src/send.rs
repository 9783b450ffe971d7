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

/// What all packets of a turn are written with.
struct Turn<'a> {
    now: Instant,
    store: &'a PacketStore,
    srtp: &'a mut Srtp,
    flow: &'a mut Flow,
    out: &'a mut Vec<u8>,
    start: usize,
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
        let Some(slot) = self.slots.get_mut(index) else {
            return Pushed::Refused;
        };
        if slot.fronts.types(rtp.codec).is_none() || rtp.place.len() > MAX_PAYLOAD {
            return Pushed::Refused;
        }
        let queued = Queued {
            slot: index as u16, // at most as many as an offer has m-lines
            at: now,
            rtp: QueuedRtp {
                audio_level: rtp.audio_level.map(|level| level & 0x7f),
                ..*rtp
            },
        };
        if rtp.codec == Codec::Opus {
            self.queue.push_audio(queued);
            return Pushed::Queued;
        }
        if slot.cut && !rtp.starts_key_frame {
            return Pushed::Refused;
        }
        slot.cut = false;
        let Some(cut) = self.queue.push_video(queued).map(usize::from) else {
            return Pushed::Queued;
        };
        if let Some(slot) = self.slots.get_mut(cut) {
            slot.cut = cut != index || !rtp.starts_key_frame;
        }
        Pushed::Cut(cut)
    }

    /// Writes and protects what may leave now: sound, then as much as the pacer lets, then what a probe asks for.
    pub(crate) fn fill(
        &mut self,
        now: Instant,
        store: &PacketStore,
        srtp: &mut Srtp,
        flow: &mut Flow,
        batch: &mut SendBatch,
    ) {
        flow.pacer.set_rate(now, flow.side.pacing_bps());
        while batch.len() < MAX_BATCH {
            let next = self.queue.pop(flow.pacer.may_send());
            let probe = match next {
                None => flow.side.poll_probe(now).zip(self.newest),
                Some(_) => None,
            };
            let start = batch.bytes.len();
            let mut turn = Turn {
                now,
                store,
                srtp,
                flow,
                out: &mut batch.bytes,
                start,
            };
            let written = match (&next, probe) {
                (Some(Next::New(queued)), _) => self.send(queued, &mut turn),
                (Some(Next::Again(slot, seq)), _) => self.send_again(*slot, *seq, &mut turn),
                (None, Some((bytes, newest))) => self.send_probe(bytes, newest, &mut turn),
                (None, None) => return,
            };
            if written.is_some() {
                let length = batch.bytes.len() - start;
                if let Some(Next::New(queued)) = next {
                    let before = batch.queued_at.unwrap_or(queued.at);
                    batch.queued_at = Some(before.min(queued.at));
                }
                batch.lengths.push(length);
                flow.pacer.sent(length);
                self.totals.bytes += length as u64;
                continue;
            }
            batch.bytes.truncate(start);
            if probe.is_some() {
                self.newest = None;
            } else {
                self.queue.drop_one();
            }
        }
    }

    fn send(&mut self, queued: &Queued, turn: &mut Turn<'_>) -> Option<()> {
        let slot = self.slots.get_mut(usize::from(queued.slot))?;
        let rtp = &queued.rtp;
        let mut number = 0;
        let header = slot.write(rtp, turn.store, turn.out, |length| {
            number = turn.flow.side.sent(turn.now, length + turn.srtp.tag_length());
            number
        })?;
        let index = turn.srtp.seal_rtp(turn.out, turn.start, header)?;
        slot.count(queued.at, millis(self.started, turn.now), rtp, index, number);
        if rtp.codec != Codec::Opus {
            self.newest = Some((queued.slot, rtp.seq));
        }
        self.totals.packets += 1;
        Some(())
    }

    /// By the slot's stream of retransmissions. Where the viewer has not agreed to one, it is the very same bytes under the same
    /// index, so that nothing new is said under a nonce that was used.
    fn send_again(&mut self, index: u16, seq: u16, turn: &mut Turn<'_>) -> Option<()> {
        let slot = self.slots.get_mut(usize::from(index))?;
        if slot.rtx.is_some() {
            self.send_rtx(index, seq, turn)?;
        } else {
            let record = slot.sent.get(seq)?;
            let header = slot.write(&record.rtp, turn.store, turn.out, |_| record.number)?;
            turn.srtp
                .seal_same_again(turn.out, turn.start, header, record.index)?;
        }
        self.totals.resent += 1;
        Some(())
    }

    fn send_rtx(&mut self, index: u16, seq: u16, turn: &mut Turn<'_>) -> Option<()> {
        let slot = self.slots.get_mut(usize::from(index))?;
        let header = slot.write_rtx(seq, turn.store, turn.out, |length| {
            turn.flow.side.sent(turn.now, length + turn.srtp.tag_length())
        })?;
        turn.srtp.seal_rtp(turn.out, turn.start, header).map(|_| ())
    }

    /// Padding for a probe. Not a packet that was sent before: there are receivers that would give it to their decoder twice.
    fn send_probe(&mut self, bytes: usize, (index, seq): (u16, u16), turn: &mut Turn<'_>) -> Option<()> {
        let slot = self.slots.get_mut(usize::from(index))?;
        let header = slot.write_padding(seq, bytes, turn.out, |length| {
            turn.flow.side.sent(turn.now, length + turn.srtp.tag_length())
        })?;
        turn.srtp.seal_rtp(turn.out, turn.start, header).map(|_| ())
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

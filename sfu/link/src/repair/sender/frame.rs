//! Repair of frames where rounds fit: as many symbols as the plan wants, no more.

use bytes::{Bytes, BytesMut};

use super::super::{Micros, wire};
use super::demand::PACE;
use super::{Carried, Item, MOST_AGAIN, Sender, State};

/// A deadline that is nearer than this is all that counts, µs.
const SHORT: Micros = 250_000;
/// A frame that comes so much later than others is seen as a stop, µs.
const SMOOTH: Micros = 150_000;
/// A frame that is late is not given up for so long, µs: those that follow cannot be shown without it.
pub(super) const GRACE: Micros = 150_000;
/// Between copies where losses come together, µs; elsewhere less.
const APART: (Micros, Micros) = (2_000, 250);

impl Sender {
    /// Ends the frame that is being pushed: it is repaired as one where rounds fit, with parity ahead where that saves rounds.
    pub(super) fn close_frame(&mut self, now: Micros) {
        let Some((first, deadline)) = self.frame.take() else {
            return;
        };
        let Ok(packets) = u32::try_from(self.end() - first) else {
            return;
        };
        if self.rounds() == 0 {
            return;
        }
        let wanted = if deadline > now + SHORT {
            now + self.reach() + self.takes() + SMOOTH
        } else {
            deadline
        };
        self.frames.add(first, packets, deadline, wanted.min(deadline));
        if let Some(frame) = self.frames.of(first) {
            frame.queued = packets;
        }
        let more = self.lacking(now, first);
        if let Some(frame) = self.frames.of(first) {
            frame.queued += more;
        }
        for _ in 0..more {
            self.video.push_back((Item::Shard(first), 0));
        }
    }

    /// How long what waits takes to leave, µs.
    fn takes(&self) -> Micros {
        (self.video_bytes as f64 * 8e6 / PACE / self.rate.get().max(1) as f64) as Micros
    }

    /// Symbols of a frame that have to go out, beyond those that fly or wait.
    pub(super) fn lacking(&mut self, now: Micros, first: u64) -> u32 {
        let (reach, round, spread) = (self.reach(), self.round(), self.spread);
        let (loss, one_way) = (self.loss.share(), self.path.one_way());
        let Some(frame) = self.frames.of(first) else {
            return 0;
        };
        let opening = frame.opening;
        let (wanted, first_round_over) = (
            frame.wanted,
            frame.shards_arrived + frame.flying > 0 || !frame.lost.is_empty() || frame.queued < frame.packets,
        );
        let (packets, there, under_way, deadline) = (
            frame.packets,
            frame.shards_arrived,
            frame.flying + frame.queued,
            frame.deadline,
        );
        let from = first.saturating_sub(self.held_base) as usize;
        let to = (from + packets as usize).min(self.held.len());
        let done = self
            .held
            .range(from.min(to)..to)
            .filter(|held| held.state == State::Done)
            .count();
        let there = there as usize + done;
        let left = deadline.saturating_sub(now);
        if there >= packets as usize || left + GRACE < reach + now.saturating_sub(deadline) {
            if let Some(frame) = self.frames.of(first) {
                let abandoned = !frame.over && there < packets as usize && under_way == 0;
                frame.over = there >= packets as usize || under_way == 0;
                if abandoned {
                    self.stats.abandoned += 1;
                    self.given_up = Some(now);
                }
            }
            return 0;
        }
        let need = packets as usize - there;
        if left < reach {
            return (need as u32).saturating_sub(under_way);
        }
        // While the first round's fates come in, only what surely lacks goes out; the rest when they are known.
        if opening > 0 && left - reach > round {
            return (need as u32).saturating_sub(under_way);
        }
        let mut symbols = self.planner.symbols(loss, need, left - reach, round, spread);
        // The last that comes before it is seen as a stop has one to spare, or two where losses come together.
        // Where a packet takes long, what is spared would be the stop.
        let last_unseen = now + one_way <= wanted && wanted < now + one_way + round && !self.is_thrifty();
        if first_round_over && last_unseen {
            symbols = symbols.max(need + 2 + usize::from(self.loss.is_clustered()));
        }
        (symbols as u32).saturating_sub(under_way)
    }

    /// A symbol of a frame was lost: more go out where they are needed.
    pub(super) fn mend(&mut self, now: Micros, first: u64) {
        let more = self.lacking(now, first);
        let reach = self.reach();
        let clustered = self.loss.is_clustered();
        let held_base = self.held_base;
        let Some(frame) = self.frames.of(first) else {
            return;
        };
        let left = frame.deadline.saturating_sub(now).saturating_sub(reach);
        let apart = if clustered { APART.0 } else { APART.1 };
        let gap = (left / u64::from(more.max(1))).min(apart);
        for place in 0..more {
            let mut item = Item::Shard(first);
            while let Some(lost) = frame.lost.pop_front() {
                let waiting = lost
                    .checked_sub(held_base)
                    .and_then(|index| self.held.get(index as usize));
                if waiting.is_some_and(|held| held.state == State::Waiting) {
                    item = Item::Packet(lost);
                    break;
                }
            }
            if self.again.len() >= MOST_AGAIN {
                break;
            }
            frame.queued += 1;
            self.agains += 1;
            self.again
                .insert((now + gap * u64::from(place), self.agains), item);
        }
    }

    pub(super) fn lost_of_frame(&mut self, now: Micros, within: u64, packet: Option<u64>, opening: bool) {
        let Some(frame) = self.frames.of(within) else {
            return;
        };
        frame.flying = frame.flying.saturating_sub(1);
        frame.opening = frame.opening.saturating_sub(u32::from(opening));
        frame.lost.extend(packet);
        let (first, over) = (frame.first, frame.over);
        if !over {
            self.mend(now, first);
        }
    }

    /// Sends the next shard of a frame, or a packet of it once more when all shards are out.
    pub(super) fn send_shard(&mut self, now: Micros, first: u64, scratch: &mut BytesMut) -> Option<Bytes> {
        let (held, base) = (&self.held, self.held_base);
        let frame = self.frames.of(first)?;
        let from = first.checked_sub(base)? as usize;
        let to = from + frame.packets as usize;
        if to > held.len() {
            return None;
        }
        let bodies = || {
            held.range(from..to)
                .map(|held| held.packet.body.clone())
                .collect()
        };
        let Some((block, index, shard)) = frame.shard(bodies) else {
            let waiting = held
                .range(from..to)
                .position(|held| held.state == State::Waiting)?;
            self.stats.again += 1;
            return Some(self.send_one(now, first + waiting as u64, scratch));
        };
        frame.flying += 1;
        let transmission = self.next_transmission();
        wire::write_parity(transmission as u16, block, index, &shard, scratch);
        self.stats.parity += 1;
        Some(self.note(now, Carried::Shard(first), scratch))
    }
}

//! The sending end: numbers, paces, learns what arrived, and sends again what is missing while it is of use.
//!
//! Invariants: audio goes first, then what is sent again, then new video, then parity; nothing is sent that cannot arrive by
//! its deadline; every queue is bounded by the deadlines of what is in it and by [`MOST_HELD`] packets. Without feedback for a
//! while (*dark*) only audio, or one packet every [`PROBE`], is sent, so that the return of the path is seen at once.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::frames::Frames;
use super::loss::Loss;
use super::parity;
use super::path::Path;
use super::plan::{self, Planner};
use super::rate::{Bounds, Bps, Rate};
use super::wire::{self, BlockId, Feedback};
use super::{Class, Micros, Terms, unwrap16, unwrap32};

/// Packets held for sending again.
const MOST_HELD: usize = 4096;
/// Transmissions remembered.
const MOST_SENT: usize = 8192;
/// Bytes of UDP, IP, QUIC and its datagram frame on a packet.
pub const WIRE_OVERHEAD: usize = 28 + 29;
/// Room of one datagram for a bundle, bytes.
const BUNDLE_ROOM: usize = 1100;
/// Shares of audio that may be lost by the plan.
const AUDIO_MISS: f64 = 0.001;
/// Packets of audio that are looked at.
const MOST_SPEECH: usize = 64;
/// So many due ones are worth a datagram.
const FULL: usize = 8;
/// Packets that overtake each other are waited for so long at most, µs.
const MOST_REORDER: Micros = 20_000;
/// Below this rate packets of audio travel [`TOGETHER`] to a datagram, bits a second: headers cost as much as they do.
const THRIFTY: Bps = 300_000;
const TOGETHER: usize = 3;
/// They wait for each other so long at most, µs.
const HOLD: Micros = 60_000;
/// Between two sends of a packet of audio that goes out several times, µs.
const AUDIO_APART: (Micros, Micros) = (8_000, 120_000);
/// What is asked of the source then, bits a second: audio alone.
const SPEECH: Bps = 40_000;
/// Over this loss there is no picture: what is sent again would be most of all, and still miss.
const NO_PICTURE: f64 = 0.55;
/// Without feedback for so long, while something is sent, the path is dark, µs.
const DARK: Micros = 250_000;
const PROBE: Micros = 40_000;
/// Datagrams leave at this much of the rate: a frame is not spread over more time than it must.
const PACE: f64 = 1.25;

/// One packet to be sent.
#[derive(Debug, Clone)]
pub struct Packet {
    pub class: Class,
    /// When it was captured: deadlines count from here.
    pub captured: Micros,
    /// Packets of its frame, itself included.
    pub together: u16,
    /// Whether it is the last of its frame.
    pub end: bool,
    /// Flow id and RTP.
    pub body: Bytes,
}

/// What was counted since the link was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// Datagrams and their bytes on the wire, headers of all layers included.
    pub datagrams: u64,
    pub wire_bytes: u64,
    pub packets: u64,
    /// Sent again.
    pub again: u64,
    /// Parity shards.
    pub parity: u64,
    /// New packets that were never sent: too late.
    pub expired: u64,
    /// Packets that were lost and could not be sent again in time.
    pub abandoned: u64,
    pub feedback: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Done,
    Gone,
}

#[derive(Debug)]
struct Held {
    packet: Packet,
    deadline: Micros,
    state: State,
    sent: u32,
    /// Its newest transmission, and when.
    last: u64,
    last_at: Micros,
    /// Copies that wait to be sent.
    queued: u32,
}

#[derive(Debug, Clone)]
struct Sent {
    at: Micros,
    bytes: usize,
    /// Numbers it carried: one, or those of a bundle; none for parity.
    carried: Carried,
    arrived: bool,
    /// How long what we sent before keeps it waiting at a bottleneck of our rate, itself included, µs.
    ahead: Micros,
    /// Of a frame's first round.
    opening: bool,
    /// Of a packet that was sent before.
    again: bool,
}

#[derive(Debug, Clone)]
enum Carried {
    Nothing,
    /// A shard of the frame with this first number.
    Shard(u64),
    One(u64),
    Many(Box<[u64]>),
}

impl Carried {
    fn numbers(&self) -> &[u64] {
        match self {
            Self::Nothing | Self::Shard(_) => &[],
            Self::One(number) => std::slice::from_ref(number),
            Self::Many(numbers) => numbers,
        }
    }
}

/// What waits to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Packet(u64),
    /// The next shard of the frame with this first number.
    Shard(u64),
}

/// The sending end of one direction of a link.
#[derive(Debug)]
pub struct Sender {
    terms: Terms,
    held: VecDeque<Held>,
    held_base: u64,
    sent: VecDeque<Sent>,
    sent_base: u64,
    /// The first transmission whose fate is not known.
    undecided: u64,
    newest: Option<u64>,
    clock: Option<u64>,
    /// Packets of audio that may still be of use.
    speech: VecDeque<u64>,
    video: VecDeque<Item>,
    video_bytes: usize,
    /// By when, and a count.
    again: BTreeMap<(Micros, u64), Item>,
    agains: u64,
    frames: Frames,
    /// Frames whose first round is known now.
    opened: Vec<u64>,
    planner: Planner,
    /// The first number of the frame that is being pushed; `None` once something else came between.
    frame: Option<u64>,
    parity: VecDeque<(Micros, BlockId, u8, Bytes)>,
    /// The first number of the block that is being filled, and its first capture.
    block: Option<(u64, Micros)>,
    path: Path,
    loss: Loss,
    rate: Rate,
    /// From a send to the knowledge that it was lost, µs.
    round: Option<Micros>,
    /// How far that varies, µs.
    spread: Micros,
    tokens: f64,
    /// Bytes sent faster than the rate.
    ahead: f64,
    filled: Option<Micros>,
    fed: Option<Micros>,
    probed: Micros,
    /// The first send since the last feedback.
    unanswered: Option<Micros>,
    /// Thousandths of copies left over by rounding.
    dither: u32,
    /// The next transmission is of a frame's first round.
    opening: bool,
    /// How long packets that were overtaken are waited for, µs.
    reorder: Micros,
    parity_share: f64,
    stats: SenderStats,
}

impl Sender {
    pub fn new(terms: Terms, bounds: Bounds) -> Self {
        Self {
            terms,
            held: VecDeque::new(),
            held_base: 0,
            sent: VecDeque::new(),
            sent_base: 0,
            undecided: 0,
            newest: None,
            clock: None,
            speech: VecDeque::new(),
            video: VecDeque::new(),
            video_bytes: 0,
            again: BTreeMap::new(),
            agains: 0,
            frames: Frames::default(),
            opened: Vec::new(),
            planner: Planner::default(),
            frame: None,
            parity: VecDeque::new(),
            block: None,
            path: Path::default(),
            loss: Loss::default(),
            rate: Rate::new(bounds),
            round: None,
            spread: 4_000,
            tokens: 3000.0,
            ahead: 0.0,
            filled: None,
            fed: None,
            probed: 0,
            unanswered: None,
            dither: 0,
            opening: false,
            reorder: 0,
            parity_share: 0.0,
            stats: SenderStats::default(),
        }
    }

    pub fn stats(&self) -> SenderStats {
        self.stats
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn loss(&self) -> &Loss {
        &self.loss
    }

    /// Bits a second on the wire that the path is thought to take.
    pub fn rate(&self) -> Bps {
        self.rate.get()
    }

    /// Bits a second of RTP that a source should make now, audio included; 0 while the path is dark.
    pub fn source_rate(&self, now: Micros) -> Bps {
        if self.is_dark(now) {
            return 0;
        }
        let loss = self.loss.share().min(0.9);
        if loss > NO_PICTURE {
            return SPEECH;
        }
        let repair = if self.parity_share > 0.0 {
            self.parity_share
        } else {
            loss / (1.0 - loss) * 1.1
        };
        let backlog = self.video_bytes as f64 * 8.0 / 0.25;
        let rate = (self.rate.get() as f64 * 0.92 - backlog) / (1.06 + repair);
        rate.max(0.0) as Bps
    }

    /// Whether nothing was heard for so long that the path is thought to be down.
    pub fn is_dark(&self, now: Micros) -> bool {
        // Feedback is lost as well.
        let lost = (1.0 / (1.0 - self.loss.share().min(0.9)) * 1000.0) as u64;
        let patience = DARK.max(self.path.rtt() * 2 + 50_000) * lost / 1000;
        self.unanswered.is_some_and(|since| since + patience < now)
    }

    /// Takes a packet.
    pub fn push(&mut self, now: Micros, packet: Packet) {
        let number = self.held_base + self.held.len() as u64;
        let deadline = packet.captured + self.terms.deadline(packet.class);
        self.stats.packets += 1;
        match packet.class {
            Class::Audio => {
                self.frame = None;
                self.speech.push_back(number);
            }
            Class::Video => {
                self.video_bytes += packet.body.len();
                self.video.push_back(Item::Packet(number));
                self.frame.get_or_insert(number);
            }
        }
        let (end, captured) = (packet.end, packet.captured);
        self.held.push_back(Held {
            packet,
            deadline,
            state: State::Waiting,
            sent: 0,
            last: 0,
            last_at: 0,
            queued: 0,
        });
        self.block.get_or_insert((number, captured));
        if end {
            self.close_frame(now, deadline);
            self.close_block(now);
        }
        self.forget(now);
        self.frames.forget(now, self.terms.longest());
    }

    fn forget(&mut self, now: Micros) {
        let longest = self.terms.longest();
        while let Some(held) = self.held.front() {
            let over = held.deadline + longest < now && held.state != State::Waiting;
            if !over && held.deadline + 2 * longest >= now && self.held.len() <= MOST_HELD {
                break;
            }
            self.held.pop_front();
            self.held_base += 1;
        }
    }

    fn get(&mut self, number: u64) -> Option<&mut Held> {
        let index = number.checked_sub(self.held_base)?;
        self.held.get_mut(usize::try_from(index).ok()?)
    }

    /// One way with a margin for jitter, µs.
    fn reach(&self) -> Micros {
        self.path.one_way() + self.path.deviation().min(30_000) + 1_000
    }

    fn round(&self) -> Micros {
        let least = self.path.rtt() + 2_000;
        self.round.map_or(least + 10_000, |round| round.max(least))
    }

    /// Rounds after the first that a new packet of video has.
    fn rounds(&self) -> u32 {
        plan::rounds_after(self.terms.video_deadline, self.reach(), self.round())
    }

    /// Ends the frame that is being pushed: it is repaired as one where rounds fit, with parity ahead where that saves rounds.
    fn close_frame(&mut self, now: Micros, deadline: Micros) {
        let Some(first) = self.frame.take() else { return };
        let packets = self.held_base + self.held.len() as u64 - first;
        let Some(packets) = u32::try_from(packets).ok().filter(|&packets| packets <= 190) else {
            return;
        };
        if self.rounds() == 0 {
            return;
        }
        self.frames.add(first, packets, deadline);
        if let Some(frame) = self.frames.of(first) {
            frame.queued = packets;
        }
        let more = self.lacking(now, first);
        if let Some(frame) = self.frames.of(first) {
            frame.queued += more;
        }
        for _ in 0..more {
            self.video.push_back(Item::Shard(first));
        }
    }

    /// Symbols of a frame that have to go out, beyond those that fly or wait.
    fn lacking(&mut self, now: Micros, first: u64) -> u32 {
        let (reach, round, loss, spread) = (self.reach(), self.round(), self.loss.share(), self.spread);
        let Some(frame) = self.frames.of(first) else {
            return 0;
        };
        let opening = frame.opening;
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
        if there >= packets as usize || left < reach {
            if let Some(frame) = self.frames.of(first) {
                self.stats.abandoned += u64::from(!frame.over && there < packets as usize && under_way == 0);
                frame.over = there >= packets as usize || under_way == 0;
            }
            return 0;
        }
        let need = packets as usize - there;
        // While the first round's fates come in, only what surely lacks goes out; the rest when they are known.
        if opening > 0 && left - reach > round {
            return (need as u32).saturating_sub(under_way);
        }
        let wanted = self.planner.symbols(loss, need, left - reach, round, spread);
        (wanted as u32).saturating_sub(under_way)
    }

    /// A symbol of a frame was lost: more go out where they are needed.
    fn mend(&mut self, now: Micros, first: u64) {
        let more = self.lacking(now, first);
        let reach = self.reach();
        let held_base = self.held_base;
        let Some(frame) = self.frames.of(first) else {
            return;
        };
        let left = frame.deadline.saturating_sub(now).saturating_sub(reach);
        let gap = (left / u64::from(more.max(1))).min(1_000);
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
            frame.queued += 1;
            self.agains += 1;
            self.again
                .insert((now + gap * u64::from(place), self.agains), item);
        }
    }

    /// Ends the block of packets that parity covers, if its time is over.
    fn close_block(&mut self, now: Micros) {
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

    /// Takes feedback of the other end.
    pub fn feedback(&mut self, now: Micros, feedback: &Feedback) {
        let Some(newest) = self.known(feedback.newest) else {
            return;
        };
        let clock = self.clock.map_or(u64::from(feedback.clock) + (1 << 32), |near| {
            unwrap32(feedback.clock, near)
        });
        if self.clock.is_some_and(|last| clock <= last) {
            return;
        }
        self.clock = Some(clock);
        self.fed = Some(now);
        self.unanswered = None;
        self.stats.feedback += 1;
        let age = u64::from(feedback.age) * wire::AGE_UNIT;
        let arrival = clock.saturating_sub(age);
        if self.newest.is_none_or(|last| newest > last) {
            self.newest = Some(newest);
            let sent = &self.sent[(newest - self.sent_base) as usize];
            // An age that does not fit its field says nothing of when.
            if feedback.age < u16::MAX {
                self.path.sample(now, sent.at, arrival, age, sent.ahead);
            }
        }
        self.mark_arrived(newest, arrival, feedback.before);
        self.mark_done(feedback);
        self.decide(now, clock);
        while let Some(first) = self.opened.pop() {
            self.mend(now, first);
        }
        let queue = self.path.queue();
        let base = self.path.rtt().saturating_sub(queue);
        self.rate
            .update(now, queue, self.path.jitter(), base, self.loss.share());
    }

    /// The full number of a transmission that was made and is remembered.
    fn known(&self, low: u16) -> Option<u64> {
        let next = self.sent_base + self.sent.len() as u64;
        let full = unwrap16(low, self.newest.unwrap_or(next.saturating_sub(1)));
        (full >= self.sent_base && full < next).then_some(full)
    }

    fn mark_arrived(&mut self, newest: u64, arrival: Micros, before: u64) {
        for back in 0..=64u64 {
            let there = back == 0 || before & (1 << (back - 1)) != 0;
            let Some(index) = newest
                .checked_sub(back)
                .and_then(|number| number.checked_sub(self.sent_base))
            else {
                break;
            };
            let Some(sent) = self.sent.get_mut(index as usize) else {
                break;
            };
            if there && !sent.arrived {
                sent.arrived = true;
                self.rate.arrived(arrival, sent.bytes);
                let late = newest - back < self.undecided;
                let (number, shard) = match sent.carried {
                    Carried::One(number) => (number, 0),
                    Carried::Shard(first) => (first, 1),
                    Carried::Nothing | Carried::Many(_) => (u64::MAX, 0),
                };
                if let Some(frame) = self.frames.of(number) {
                    frame.flying = frame.flying.saturating_sub(u32::from(!late));
                    frame.opening = frame.opening.saturating_sub(u32::from(!late && sent.opening));
                    frame.shards_arrived += shard;
                    if sent.opening && !late && frame.opening == 0 && !frame.over {
                        self.opened.push(frame.first);
                    }
                }
                if newest - back < self.undecided && back > 0 {
                    // It was taken for lost: others overtook it.
                    self.reorder = (self.reorder * 2).clamp(2_000, MOST_REORDER);
                }
            }
        }
    }

    fn mark_done(&mut self, feedback: &Feedback) {
        let end = self.held_base + self.held.len() as u64;
        let first = unwrap16(feedback.first, end);
        for number in self.held_base..first.min(end) {
            if let Some(held) = self.get(number) {
                held.state = State::Done;
            }
        }
        for offset in 0..feedback.bitmap.len() * 8 {
            let number = first + offset as u64;
            if number >= end {
                break;
            }
            if feedback.has(offset) == Some(true)
                && let Some(held) = self.get(number)
            {
                held.state = State::Done;
            }
        }
    }

    /// Decides the fate of transmissions in their order, and plans what is missing.
    fn decide(&mut self, now: Micros, clock: Micros) {
        let Some(newest) = self.newest else { return };
        let Some(newest_at) = self
            .sent
            .get((newest - self.sent_base) as usize)
            .map(|sent| sent.at)
        else {
            return;
        };
        self.undecided = self.undecided.max(self.sent_base);
        while let Some(sent) = self.sent.get((self.undecided - self.sent_base) as usize).cloned() {
            let number = self.undecided;
            if !sent.arrived {
                let overtaken =
                    number < newest && sent.at + self.reorder <= newest_at || number + 64 < newest;
                let overdue = self
                    .path
                    .arrival(sent.at, sent.ahead)
                    .is_some_and(|expected| expected < clock);
                if !overtaken && !overdue {
                    break;
                }
            }
            self.undecided += 1;
            self.loss.add(!sent.arrived);
            if sent.arrived {
                continue;
            }
            self.learn_round(now.saturating_sub(sent.at), sent.again);
            match sent.carried {
                Carried::Shard(first) => self.lost_of_frame(now, first, None, sent.opening),
                Carried::One(packet) if self.frames.of(packet).is_some() => {
                    self.lost_of_frame(now, packet, Some(packet), sent.opening);
                }
                _ => {
                    for &packet in sent.carried.numbers() {
                        self.missing(now, packet, number);
                    }
                }
            }
        }
    }

    fn lost_of_frame(&mut self, now: Micros, within: u64, packet: Option<u64>, opening: bool) {
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

    /// So long it took to know that a transmission was lost. Those sent again count: they stand alone, not behind their frame.
    fn learn_round(&mut self, round: Micros, again: bool) {
        if !again || round > self.path.rtt() * 2 + 50_000 {
            return;
        }
        let old = self.round.unwrap_or(round);
        self.spread = (self.spread * 15 + old.abs_diff(round)) / 16;
        self.round = Some((old * 15 + round) / 16);
    }

    /// A transmission of a packet was lost: if it was its last, the packet is sent again, or given up.
    fn missing(&mut self, now: Micros, number: u64, transmission: u64) {
        let (reach, round, loss) = (self.reach(), self.round(), self.loss.share());
        let (dither, spread) = (self.dither, self.spread);
        let planned = self.redundancy().is_some();
        let Some(held) = self.get(number) else { return };
        if planned && held.packet.class == Class::Audio {
            return;
        }
        if held.state != State::Waiting || held.last != transmission || held.queued > 0 {
            return;
        }
        let left = held.deadline.saturating_sub(now);
        if left < reach {
            held.state = State::Gone;
            self.stats.abandoned += 1;
            return;
        }
        let thousandths = plan::copies(loss, left - reach, round, spread) + dither;
        self.dither = thousandths % 1000;
        let copies = thousandths / 1000;
        let gap = ((left - reach) / u64::from(copies)).min(4_000);
        let Some(held) = self.get(number) else { return };
        held.queued = copies;
        for copy in 0..copies {
            self.agains += 1;
            self.again
                .insert((now + gap * u64::from(copy), self.agains), Item::Packet(number));
        }
    }

    /// The next datagram to be sent now, if any.
    pub fn poll(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        self.fill(now);
        self.path.settle(now);
        let depth = self.depth();
        if self.is_dark(now) {
            return self.next_audio(now, scratch).or_else(|| self.probe(now, scratch));
        }
        if self.tokens > -depth {
            if let Some(sent) = self.next_audio(now, scratch) {
                return Some(sent);
            }
            if let Some(sent) = self.next_again(now, scratch) {
                return Some(sent);
            }
        }
        if self.tokens <= 0.0 {
            return None;
        }
        if let Some(sent) = self.next_video(now, scratch) {
            return Some(sent);
        }
        self.next_parity(now, scratch)
    }

    /// When [`Self::poll`] may have something next, if nothing is pushed and no feedback comes.
    pub fn wake(&self, now: Micros) -> Option<Micros> {
        if self.is_dark(now) {
            return Some(self.probed + PROBE);
        }
        let again = self.again.first_key_value().map(|(&(due, _), _)| due);
        let parity = self.parity.front().map(|&(due, ..)| due);
        let audio = self.speech.back().map(|_| now + 5_000);
        let ready = (!self.video.is_empty()).then_some(now).or(audio);
        let next = [again, parity, ready].into_iter().flatten().min()?;
        let lacking = (1.0 - self.tokens).max(0.0);
        let tokens = now + (lacking * 8e6 / self.rate.get().max(1) as f64) as Micros;
        Some(if lacking > 0.0 { next.max(tokens) } else { next })
    }

    fn depth(&self) -> f64 {
        // 4 ms at the rate, and no less than two packets.
        (self.rate.get() as f64 / 8.0 * 0.004).max(2_500.0)
    }

    fn fill(&mut self, now: Micros) {
        let passed = self.filled.map_or(0, |at| now.saturating_sub(at));
        self.filled = Some(now);
        let more = self.rate.get() as f64 / 8e6 * passed as f64;
        self.tokens = (self.tokens + more * PACE).min(self.depth());
        self.ahead = (self.ahead - more).max(0.0);
    }

    /// While the path is dark: what is too late goes, and the newest packet is sent now and then.
    fn probe(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        if now < self.probed + PROBE {
            return None;
        }
        self.probed = now;
        let reach = self.reach();
        let (held, base) = (&self.held, self.held_base);
        let of = |item: &Item| match item {
            Item::Packet(number) => number
                .checked_sub(base)
                .and_then(|index| held.get(index as usize)),
            Item::Shard(_) => None,
        };
        let before = self.video.len();
        self.video
            .retain(|item| of(item).is_some_and(|held| held.deadline >= now + reach));
        self.stats.expired += (before - self.video.len()) as u64;
        self.video_bytes = self
            .video
            .iter()
            .filter_map(of)
            .map(|held| held.packet.body.len())
            .sum();
        self.parity.clear();
        self.again.clear();
        self.frames.clear_queued();
        self.held.iter_mut().for_each(|held| held.queued = 0);
        let last = (self.held_base + self.held.len() as u64).checked_sub(1)?;
        Some(self.send_one(now, last, scratch))
    }

    /// How often a packet of audio goes out without being asked for, and how far apart, where rounds are too few.
    fn redundancy(&self) -> Option<(u32, Micros)> {
        let room = self.terms.audio_deadline.saturating_sub(self.reach());
        let rounds = plan::rounds_after(room, 0, self.round());
        let loss = self.loss.share().clamp(0.001, 0.95);
        let times = (AUDIO_MISS.ln() / loss.ln()).ceil() as u32;
        let apart = (room / u64::from(times + 1)).clamp(AUDIO_APART.0, AUDIO_APART.1);
        (times > rounds + 1).then_some((times.max(2), apart))
    }

    /// Sends audio: the next packet alone, or as many as are due in one datagram.
    fn next_audio(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        let redundancy = self.redundancy();
        let least = self.path.one_way();
        let base = self.held_base;
        let alive = |number: u64, held: &VecDeque<Held>| {
            let held = number
                .checked_sub(base)
                .and_then(|index| held.get(index as usize));
            held.is_some_and(|held| held.state == State::Waiting && held.deadline >= now + least)
        };
        while self
            .speech
            .front()
            .is_some_and(|&number| !alive(number, &self.held))
            || self.speech.len() > MOST_SPEECH
        {
            let Some(number) = self.speech.pop_front() else {
                break;
            };
            let Some(held) = self.get(number) else { continue };
            if held.sent == 0 && held.state == State::Waiting {
                held.state = State::Gone;
                self.stats.expired += 1;
            }
        }
        let mut due: Vec<(Micros, u64)> = Vec::new();
        let mut new = 0;
        let mut oldest = now;
        for &number in &self.speech {
            let Some(held) = number
                .checked_sub(base)
                .and_then(|index| self.held.get(index as usize))
            else {
                continue;
            };
            let again =
                redundancy.is_some_and(|(times, apart)| held.sent < times && held.last_at + apart <= now);
            if alive(number, &self.held) && (held.sent == 0 || again) {
                new += usize::from(held.sent == 0);
                let since = if held.sent == 0 {
                    held.packet.captured
                } else {
                    held.last_at
                };
                oldest = oldest.min(since);
                due.push((if held.sent == 0 { 0 } else { held.last_at }, number));
            }
        }
        let thrifty = self.is_thrifty();
        let worth = match redundancy {
            None if thrifty => new >= TOGETHER || !due.is_empty() && oldest + HOLD <= now,
            None => new > 0,
            Some(_) => new > 0 || due.len() >= FULL || !due.is_empty() && oldest + AUDIO_APART.1 <= now,
        };
        if !worth {
            return None;
        }
        due.sort_unstable();
        let mut room = BUNDLE_ROOM;
        let mut numbers = Vec::new();
        for (_, number) in due {
            let size = self
                .get(number)
                .map_or(usize::MAX, |held| held.packet.body.len() + 4);
            if size > room || numbers.len() == wire::MOST_BUNDLED {
                break;
            }
            room -= size;
            numbers.push(number);
            if redundancy.is_none() && !thrifty {
                break;
            }
        }
        match numbers[..] {
            [] => self
                .speech
                .pop_front()
                .map(|number| self.send_one(now, number, scratch)),
            [number] => Some(self.send_one(now, number, scratch)),
            _ => Some(self.send_bundle(now, &numbers, scratch)),
        }
    }

    fn send_bundle(&mut self, now: Micros, numbers: &[u64], scratch: &mut BytesMut) -> Bytes {
        let transmission = self.sent_base + self.sent.len() as u64;
        wire::begin_bundle(transmission as u16, scratch);
        for &number in numbers {
            if let Some(held) = self.get(number) {
                held.sent += 1;
                held.last = transmission;
                held.last_at = now;
                let body = held.packet.body.clone();
                wire::add_to_bundle(number as u16, &body, scratch);
            }
        }
        self.note(now, Carried::Many(numbers.into()), scratch)
    }

    fn is_thrifty(&self) -> bool {
        self.rate.get() < THRIFTY
    }

    fn next_again(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        let least = self.path.one_way();
        loop {
            let entry = self.again.first_entry().filter(|entry| entry.key().0 <= now)?;
            let item = entry.remove();
            let number = match item {
                Item::Packet(number) | Item::Shard(number) => number,
            };
            if let Some(frame) = self.frames.of(number) {
                frame.queued = frame.queued.saturating_sub(1);
                if frame.over || frame.deadline < now + least {
                    continue;
                }
            }
            match item {
                Item::Packet(number) => {
                    let Some(held) = self.get(number) else { continue };
                    held.queued = held.queued.saturating_sub(1);
                    if held.state == State::Waiting && held.deadline >= now + least {
                        self.stats.again += 1;
                        return Some(self.send_one(now, number, scratch));
                    }
                }
                Item::Shard(first) => {
                    if let Some(sent) = self.send_shard(now, first, scratch) {
                        return Some(sent);
                    }
                }
            }
        }
    }

    fn next_video(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        let reach = self.path.one_way();
        while let Some(item) = self.video.pop_front() {
            let number = match item {
                Item::Packet(number) | Item::Shard(number) => number,
            };
            if let Some(frame) = self.frames.of(number) {
                frame.queued = frame.queued.saturating_sub(1);
                frame.opening += 1;
                self.opening = true;
            }
            let Some(held) = self.get(number) else { continue };
            let (late, bytes) = (held.deadline < now + reach, held.packet.body.len());
            if let Item::Shard(first) = item {
                match self.send_shard(now, first, scratch).filter(|_| !late) {
                    Some(sent) => return Some(sent),
                    None => continue,
                }
            }
            if late {
                held.state = State::Gone;
                self.stats.expired += 1;
            }
            self.video_bytes = self.video_bytes.saturating_sub(bytes);
            if !late {
                return Some(self.send_one(now, number, scratch));
            }
        }
        None
    }

    /// Sends the next shard of a frame, or a packet of it once more when all shards are out.
    fn send_shard(&mut self, now: Micros, first: u64, scratch: &mut BytesMut) -> Option<Bytes> {
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
        let transmission = self.sent_base + self.sent.len() as u64;
        wire::write_parity(transmission as u16, block, index, &shard, scratch);
        self.stats.parity += 1;
        Some(self.note(now, Carried::Shard(first), scratch))
    }

    fn next_parity(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        let &(due, ..) = self.parity.front()?;
        if due > now {
            return None;
        }
        let (_, block, index, shard) = self.parity.pop_front()?;
        let transmission = self.sent_base + self.sent.len() as u64;
        wire::write_parity(transmission as u16, block, index, &shard, scratch);
        self.stats.parity += 1;
        Some(self.note(now, Carried::Nothing, scratch))
    }

    fn send_one(&mut self, now: Micros, number: u64, scratch: &mut BytesMut) -> Bytes {
        if let Some(frame) = self.frames.of(number) {
            frame.flying += 1;
        }
        let transmission = self.sent_base + self.sent.len() as u64;
        if let Some(held) = self.get(number) {
            held.sent += 1;
            held.last = transmission;
            held.last_at = now;
            let body = held.packet.body.clone();
            wire::write_packet(transmission as u16, number as u16, &body, scratch);
        }
        self.note(now, Carried::One(number), scratch)
    }

    /// Remembers a transmission and hands its datagram out.
    fn note(&mut self, now: Micros, carried: Carried, scratch: &mut BytesMut) -> Bytes {
        let datagram = scratch.split().freeze();
        let bytes = datagram.len() + WIRE_OVERHEAD;
        self.tokens -= bytes as f64;
        self.ahead += bytes as f64;
        self.stats.datagrams += 1;
        self.stats.wire_bytes += bytes as u64;
        self.unanswered.get_or_insert(now);
        let opening = std::mem::take(&mut self.opening);
        let again =
            matches!(carried, Carried::One(number) if self.get(number).is_some_and(|held| held.sent > 1));
        self.sent.push_back(Sent {
            at: now,
            bytes,
            carried,
            arrived: false,
            ahead: (self.ahead * 8e6 / self.rate.get().max(1) as f64) as Micros,
            opening,
            again,
        });
        if self.sent.len() > MOST_SENT {
            self.sent.pop_front();
            self.sent_base += 1;
        }
        datagram
    }
}

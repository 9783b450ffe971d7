//! The sending end: numbers, paces, learns what arrived, and sends again what is missing while it is of use.
//!
//! Invariants: audio goes first, then what is sent again, then new video, then parity; nothing is sent that cannot arrive by
//! its deadline; every queue is bounded by the deadlines of what is in it and by [`MOST_HELD`] packets. Without feedback for a
//! while (*dark*) only audio, or one packet every [`PROBE`], is sent, so that the return of the path is seen at once.

mod audio;
mod block;
mod demand;
mod explore;
mod fate;
mod frame;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::frames::Frames;
use super::loss::Loss;
use super::path::Path;
use super::plan::Planner;
use super::rate::{Bounds, Bps, Rate};
use super::wire::{self, BlockId};
use super::{Budget, Class, Micros, Terms};
use explore::Train;
use frame::GRACE;

/// Packets held for sending again.
const MOST_HELD: usize = 4096;
/// Transmissions remembered, and how long those are whose fate is known, µs.
const MOST_SENT: usize = 8192;
const REMEMBERED: Micros = 5_000_000;
/// Copies and shards that wait to be sent again, and shards of parity.
const MOST_AGAIN: usize = 4096;
const MOST_SHARDS: usize = 512;
/// Bytes of UDP, IP, QUIC and its datagram frame on a packet.
pub const WIRE_OVERHEAD: usize = 28 + 29;
/// Packets of a frame that are repaired together: with their shards they fit the code's 255 symbols.
const MOST_OF_FRAME: u64 = 160;
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
/// And those that are overdue, µs.
const MOST_PATIENCE: Micros = 40_000;
/// Below this rate packets of audio travel [`TOGETHER`] to a datagram, bits a second: headers cost as much as they do.
const THRIFTY: Bps = 300_000;
const TOGETHER: usize = 2;
/// They wait for each other so long at most, µs.
const HOLD: Micros = 40_000;
/// Audio may take this much of the rate with all its copies, and so much a time that each packet goes out, bits a second.
const MOST_OF_RATE: f64 = 0.6;
const EACH_TIME: f64 = 62_000.0;
/// Behind a longer queue than this, and a tenth of the round trip, what is lost did not fit a buffer, µs.
const FULL_BUFFER: Micros = 100_000;
/// Between two sends of a packet of audio that goes out several times, µs.
const AUDIO_APART: (Micros, Micros) = (8_000, 120_000);
/// Each packet of audio goes out so often until the path is known.
const TRAIN: u32 = 4;
/// One packet goes out so often while the path is dark, µs.
const PROBE: Micros = 40_000;
/// After so long in the dark the rate is not what it was, µs.
const LONG_DARK: Micros = 1_000_000;

/// One packet to be sent.
#[derive(Debug, Clone)]
pub struct Packet {
    pub class: Class,
    /// When it was captured: deadlines count from here.
    pub captured: Micros,
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
    /// Taken for lost as it was overdue.
    overdue: bool,
}

#[derive(Debug, Clone)]
enum Carried {
    Nothing,
    Filling,
    /// A shard of the frame with this first number.
    Shard(u64),
    One(u64),
    Many(Box<[u64]>),
}

impl Carried {
    fn numbers(&self) -> &[u64] {
        match self {
            Self::Nothing | Self::Filling | Self::Shard(_) => &[],
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
    budget: Budget,
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
    /// New video and its parity, and the bytes of each.
    video: VecDeque<(Item, usize)>,
    video_bytes: usize,
    /// By when, and a count.
    again: BTreeMap<(Micros, u64), Item>,
    agains: u64,
    frames: Frames,
    /// Frames to be looked at: their first round is known now, or nothing of them is on its way any more.
    touched: Vec<u64>,
    planner: Planner,
    /// The first number of the frame that is being pushed, and its deadline.
    frame: Option<(u64, Micros)>,
    parity: VecDeque<(Micros, BlockId, u8, Bytes)>,
    /// The first number of the block that is being filled, and its first capture.
    block: Option<(u64, Micros)>,
    /// The first transmission after the last block.
    block_since: u64,
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
    /// How long packets that were overtaken are waited for, and those that are overdue, µs: longer after each that came
    /// after all, shorter with each that came in time.
    reorder: Micros,
    patience: Micros,
    /// Transmissions that arrived, until the path is known.
    heard: u32,
    /// Since when there is audio.
    spoken: Option<Micros>,
    /// When the first picture came.
    began: Option<Micros>,
    /// When something of a picture was last given up.
    given_up: Option<Micros>,
    parity_share: f64,
    /// While the path is explored.
    train: Option<Train>,
    stats: SenderStats,
}

impl Sender {
    pub fn new(budget: Budget, bounds: Bounds) -> Self {
        Self {
            budget,
            terms: budget.begin(),
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
            touched: Vec::new(),
            planner: Planner::default(),
            frame: None,
            parity: VecDeque::new(),
            block: None,
            block_since: 0,
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
            patience: 2_000,
            heard: 0,
            spoken: None,
            given_up: None,
            began: None,
            parity_share: 0.0,
            train: None,
            stats: SenderStats::default(),
        }
    }

    /// What packets are held to now.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Chooses deadlines so from the next packet on.
    pub fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
        self.terms = budget.terms(self.path.least_rtt(), self.rate.get());
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

    /// For how long nothing has come back of what was sent, µs; `None` while nothing is awaited.
    pub fn unanswered_for(&self, now: Micros) -> Option<Micros> {
        self.unanswered.map(|since| now.saturating_sub(since))
    }

    /// Takes a packet; says whether an older one had to go.
    pub fn push(&mut self, now: Micros, packet: Packet) -> bool {
        let number = self.end();
        let deadline = packet.captured + self.terms.deadline(packet.class);
        let displaced = self.held.len() >= MOST_HELD;
        self.stats.packets += 1;
        let mut queued = 0;
        match packet.class {
            // Numbers of a frame are neighbours: what comes between ends it, and the rest is a frame of its own.
            Class::Audio => {
                self.close_frame(now);
                self.speech.push_back(number);
                self.spoken.get_or_insert(now);
                if self.is_probing(now) {
                    queued = TRAIN - 1;
                }
            }
            Class::Video => {
                self.began.get_or_insert(now);
                self.video_bytes += packet.body.len();
                self.video.push_back((Item::Packet(number), packet.body.len()));
                self.frame.get_or_insert((number, deadline));
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
            queued,
        });
        for _ in 0..queued {
            self.agains += 1;
            self.again.insert((now + 1, self.agains), Item::Packet(number));
        }
        self.block.get_or_insert((number, captured));
        if end
            || self
                .frame
                .is_some_and(|(first, _)| number - first + 1 >= MOST_OF_FRAME)
        {
            self.close_frame(now);
        }
        if end {
            self.close_block(now);
        }
        self.forget(now);
        self.expire(now);
        self.frames.forget(now, self.terms.longest());
        displaced
    }

    /// One after the number of the newest packet.
    fn end(&self) -> u64 {
        self.held_base + self.held.len() as u64
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
        let base = self.held_base;
        while let Some(&(Item::Packet(number) | Item::Shard(number), bytes)) = self.video.front()
            && number < base
        {
            self.video_bytes -= bytes;
            self.video.pop_front();
        }
    }

    fn get(&mut self, number: u64) -> Option<&mut Held> {
        let index = number.checked_sub(self.held_base)?;
        self.held.get_mut(usize::try_from(index).ok()?)
    }

    /// Packets held, transmissions, audio, video, what waits to go again, frames and parity.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 7] {
        [
            self.held.len(),
            self.sent.len(),
            self.speech.len(),
            self.video.len(),
            self.again.len(),
            self.frames.len(),
            self.parity.len(),
        ]
    }

    /// The next datagram to be sent now, if any.
    pub fn poll(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        self.fill(now);
        self.path.settle(now);
        self.end_train_in_time(now);
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
            .or_else(|| self.next_filling(now, scratch))
    }

    /// Video that cannot arrive in time is not sent.
    fn expire(&mut self, now: Micros) {
        let reach = self.path.one_way();
        while let Some(&(item, bytes)) = self.video.front() {
            let (Item::Packet(number) | Item::Shard(number)) = item;
            let Some(held) = self.get(number) else { break };
            if held.deadline >= now + reach {
                break;
            }
            if let Item::Packet(_) = item {
                held.state = State::Gone;
                self.stats.expired += 1;
                self.given_up = Some(now);
            }
            self.video.pop_front();
            self.video_bytes -= bytes;
            if let Some(frame) = self.frames.of(number) {
                frame.queued = frame.queued.saturating_sub(1);
            }
        }
    }

    /// While the path is dark: what is too late goes, and the newest packet is sent now and then.
    fn probe(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        if now < self.probed + PROBE {
            return None;
        }
        self.probed = now;
        self.expire(now);
        self.parity.clear();
        self.again.clear();
        self.frames.clear_queued();
        self.held.iter_mut().for_each(|held| held.queued = 0);
        let last = (self.held_base + self.held.len() as u64).checked_sub(1)?;
        Some(self.send_one(now, last, scratch))
    }

    fn next_again(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        let least = self.path.one_way();
        loop {
            let entry = self.again.first_entry().filter(|entry| entry.key().0 <= now)?;
            let item = entry.remove();
            let number = match item {
                Item::Packet(number) | Item::Shard(number) => number,
            };
            let mut grace = 0;
            if let Some(frame) = self.frames.of(number) {
                grace = GRACE;
                frame.queued = frame.queued.saturating_sub(1);
                if frame.over || frame.deadline + grace < now + least {
                    continue;
                }
            }
            match item {
                Item::Packet(number) => {
                    let Some(held) = self.get(number) else { continue };
                    held.queued = held.queued.saturating_sub(1);
                    if held.state == State::Waiting && held.deadline + grace >= now + least {
                        self.stats.again += 1;
                        return Some(self.send_one(now, number, scratch));
                    }
                    // It came after all; what else its frame lacks must not wait for it.
                    if let Some(first) = self
                        .frames
                        .of(number)
                        .filter(|frame| frame.is_idle())
                        .map(|frame| frame.first)
                    {
                        self.mend(now, first);
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
        self.expire(now);
        while let Some((item, bytes)) = self.video.pop_front() {
            self.video_bytes -= bytes;
            let (Item::Packet(number) | Item::Shard(number)) = item;
            if self.get(number).is_none() {
                continue;
            }
            if let Some(frame) = self.frames.of(number) {
                frame.queued = frame.queued.saturating_sub(1);
                frame.opening += 1;
                self.opening = true;
            }
            let Item::Shard(first) = item else {
                return Some(self.send_one(now, number, scratch));
            };
            if let Some(sent) = self.send_shard(now, first, scratch) {
                return Some(sent);
            }
            self.opening = false;
            if let Some(frame) = self.frames.of(number) {
                frame.opening -= 1;
            }
        }
        None
    }

    fn send_one(&mut self, now: Micros, number: u64, scratch: &mut BytesMut) -> Bytes {
        if let Some(frame) = self.frames.of(number) {
            frame.flying += 1;
        }
        let transmission = self.next_transmission();
        if let Some(held) = self.get(number) {
            held.sent += 1;
            held.last = transmission;
            held.last_at = now;
            let body = held.packet.body.clone();
            wire::write_packet(transmission as u16, number as u16, &body, scratch);
        }
        self.note(now, Carried::One(number), scratch)
    }

    fn next_transmission(&self) -> u64 {
        self.sent_base + self.sent.len() as u64
    }

    /// Remembers a transmission and hands its datagram out.
    fn note(&mut self, now: Micros, carried: Carried, scratch: &mut BytesMut) -> Bytes {
        let datagram = scratch.split().freeze();
        let bytes = datagram.len() + WIRE_OVERHEAD;
        if !matches!(carried, Carried::Filling) {
            self.tokens -= bytes as f64;
            self.ahead += bytes as f64;
            self.unanswered.get_or_insert(now);
        }
        self.stats.datagrams += 1;
        self.stats.wire_bytes += bytes as u64;
        let opening = std::mem::take(&mut self.opening);
        let again =
            matches!(carried, Carried::One(number) if self.get(number).is_some_and(|held| held.sent > 1));
        while self.sent.len() >= MOST_SENT
            || self.sent_base < self.undecided
                && self.sent.front().is_some_and(|first| first.at + REMEMBERED < now)
        {
            self.sent.pop_front();
            self.sent_base += 1;
        }
        self.sent.push_back(Sent {
            at: now,
            bytes,
            carried,
            arrived: false,
            ahead: (self.ahead * 8e6 / self.rate.get().max(1) as f64) as Micros,
            opening,
            again,
            overdue: false,
        });
        datagram
    }
}

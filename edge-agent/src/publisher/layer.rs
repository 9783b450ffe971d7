//! One layer of a camera's picture: what waits to be sent, what is kept for who comes late, and where its stream stands.
//!
//! The kept pictures before the last get timestamps a tick apart, so that a viewer decodes them and shows the last. Packets
//! leave in bursts of at most [`BURST`]; a queue that a slow link leaves too long is let go up to the next key frame, and
//! counted. Sequence numbers and timestamps never go back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use muster_link::rtp::{LinkRtp, PT_H264};

use super::clock::Clock;
use super::feed::Picture;
use super::gop::Gop;
use super::{CAMERA_FLOW, Fault, Seed, Send, Stream, h264};

/// Packets that leave at once, of each layer.
const BURST: usize = 24;
const BURST_GAP: Duration = Duration::from_millis(5);
/// A group of pictures is sent again at most this often.
const AGAIN_GAP: Duration = Duration::from_secs(1);
/// Bytes that wait to be sent in a layer, at most.
pub const LARGEST_QUEUE: usize = 3 * 1024 * 1024;

/// What cameras' streams take as a rule, bits a second.
const MAIN_BPS: u32 = 2_500_000;
const SUB_BPS: u32 = 400_000;
/// Ticks of 90 kHz below which a group of pictures says nothing of the rate: 0.2 s.
const SHORTEST_GROUP: u64 = 18_000;

/// A picture that waits, and when it is shown.
#[derive(Debug)]
struct Queued {
    data: Bytes,
    ticks: i64,
}

#[derive(Debug)]
pub struct Layer {
    pub flow: u64,
    pub size: (u32, u32),
    stream: Stream,
    pub clock: Clock,
    pub gop: Gop,
    queue: VecDeque<Queued>,
    /// Bytes in the queue.
    pub queued: usize,
    /// Packets of the picture under way.
    outgoing: VecDeque<Bytes>,
    /// Ticks of the last picture that was queued.
    last: Option<i64>,
    pub paused: bool,
    /// What depends on earlier pictures is of no use to anybody.
    needs_key: bool,
    /// When the group of pictures was sent again last.
    again: Option<Instant>,
    pub next: Option<Instant>,
    pub fault: Option<Fault>,
    /// A picture came since the last fault.
    pub seen: bool,
    /// What it takes while it is not measured, bits a second.
    nominal_bps: u32,
    /// As measured over the last group of pictures; 0 if it was not.
    bps: u32,
    /// When the present group began, and its bytes so far.
    group: Option<(i64, u64)>,
    /// Pictures let go since the queue was too long.
    pub dropped: u64,
}

impl Layer {
    /// Of this place among the layers, the smallest first; `main` is the last.
    pub fn new(index: usize, main: bool, seed: Seed) -> Self {
        Self {
            flow: CAMERA_FLOW + index as u64,
            size: (0, 0),
            stream: Stream {
                seq: seed[index & 1],
                timestamp: u32::from(seed[2]) << 8,
            },
            clock: Clock::new(90_000),
            gop: Gop::default(),
            queue: VecDeque::new(),
            queued: 0,
            outgoing: VecDeque::new(),
            last: None,
            paused: false,
            needs_key: true,
            again: None,
            next: None,
            fault: None,
            seen: false,
            nominal_bps: if main { MAIN_BPS } else { SUB_BPS },
            bps: 0,
            group: None,
            dropped: 0,
        }
    }

    /// Bits a second that the layer may take, a fifth over what was measured.
    pub fn most_bps(&self) -> u32 {
        match self.bps {
            0 => self.nominal_bps,
            bps => bps.saturating_add(bps / 5),
        }
    }

    /// Keeps a picture for who comes late, and counts it.
    pub fn keep(&mut self, picture: &Picture) {
        (self.fault, self.seen) = (None, true);
        self.gop.push(picture);
        if picture.key {
            if let Some((began, bytes)) = self.group {
                let ticks = picture.ticks.saturating_sub(began);
                if let Ok(ticks @ SHORTEST_GROUP..) = u64::try_from(ticks) {
                    self.bps = u32::try_from(bytes * 8 * 90_000 / ticks).unwrap_or(u32::MAX);
                }
            }
            self.group = Some((picture.ticks, 0));
        }
        if let Some((_, bytes)) = &mut self.group {
            *bytes += picture.data.len() as u64;
        }
    }

    pub fn enqueue(&mut self, now: Instant, since_start: Duration, picture: Picture) {
        if self.needs_key && !picture.key {
            return;
        }
        self.needs_key = false;
        let ticks = self.clock.map(since_start, picture.ticks).0;
        self.put(now, picture.data, ticks);
        if self.queued > LARGEST_QUEUE {
            self.dropped += self.queue.len() as u64;
            tracing::warn!(
                flow = self.flow,
                dropped = self.dropped,
                "the link is too slow: waiting for a key frame"
            );
            self.queue.clear();
            (self.queued, self.needs_key) = (0, true);
        }
    }

    fn put(&mut self, now: Instant, data: Bytes, ticks: i64) {
        self.queued += data.len();
        self.queue.push_back(Queued { data, ticks });
        self.last = Some(ticks);
        self.next.get_or_insert(now);
    }

    /// Somebody cannot go on without a key frame: sends the kept pictures, unless they have just been sent.
    pub fn begin_again(&mut self, now: Instant, since_start: Duration) {
        if self
            .again
            .is_some_and(|again| now.saturating_duration_since(again) < AGAIN_GAP)
        {
            return;
        }
        let pictures = self.gop.pictures();
        let Some(newest) = pictures.last() else {
            return;
        };
        let newest = self.clock.map(since_start, newest.ticks).0;
        let first = newest - (pictures.len() as i64 - 1);
        let first = self.last.map_or(first, |last| first.max(last + 1));
        let pictures: Vec<_> = pictures.iter().map(|picture| picture.data.clone()).collect();
        // What waits is among them.
        self.queue.clear();
        self.queued = 0;
        for (data, ticks) in pictures.into_iter().zip(first..) {
            self.put(now, data, ticks);
        }
        (self.again, self.needs_key) = (Some(now), false);
    }

    /// Nothing more is sent of what waits.
    pub fn stop(&mut self) {
        self.queue.clear();
        self.outgoing.clear();
        (self.queued, self.needs_key) = (0, true);
        (self.again, self.next) = (None, None);
    }

    /// Sends a burst; returns the number of pictures that were begun.
    pub fn run(&mut self, now: Instant, scratch: &mut BytesMut, send: Send<'_>) -> u64 {
        let mut pictures = 0;
        for _ in 0..BURST {
            if self.outgoing.is_empty() {
                let Some(picture) = self.queue.pop_front() else {
                    break;
                };
                self.queued -= picture.data.len();
                self.packetize(&picture, scratch);
                pictures += 1;
            }
            if let Some(packet) = self.outgoing.pop_front() {
                send(packet);
            }
        }
        let waits = !(self.outgoing.is_empty() && self.queue.is_empty());
        self.next = waits.then(|| now + BURST_GAP);
        pictures
    }

    fn packetize(&mut self, picture: &Queued, scratch: &mut BytesMut) {
        let timestamp = self.stream.timestamp.wrapping_add(picture.ticks as u32);
        let (flow, stream, outgoing) = (self.flow, &mut self.stream, &mut self.outgoing);
        h264::packetize(&picture.data, |payload, marker| {
            let packet = LinkRtp {
                payload_type: PT_H264,
                marker,
                seq: stream.seq,
                timestamp,
                audio_level: None,
                payload,
            };
            stream.seq = stream.seq.wrapping_add(1);
            outgoing.push_back(packet.to_datagram(flow, scratch));
        });
    }
}

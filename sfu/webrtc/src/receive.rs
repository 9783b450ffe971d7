//! The publishing side of a leg: which source and layer a packet belongs to, and what to tell the
//! publisher about it (NACK, PLI, receiver reports, transport-wide feedback).
//!
//! SSRCs are learnt from the packets' mid and rid (RFC 9143, 8852), from `a=ssrc` lines, or from a
//! payload type that only one m-line has. Invariant: every table is bounded, and a packet that
//! gets here is authentic. A packet comes out once, whether it came by itself or was repeated by
//! RTX; of a source's layer the newest SSRC counts.

mod clock;
mod nack;
mod padding;
mod place;
mod reception;
mod rtx;
mod stream;

use std::ops::Range;
use std::time::{Duration, Instant};

use clock::WallClock;
use nack::Arrival;
use place::{Extensions, Place};
pub(crate) use reception::Figures;
use stream::Stream;

use crate::congestion::FeedbackRecorder;
use crate::event::Ignored;
use crate::media::{Codec, OfferedSource};
use crate::negotiate::{Role, SourcePlan};
use crate::offer::Media;
use crate::red;
use crate::rtp::Rtp;
use crate::srtp::MAX_SSRCS;

/// Assumed where the peer receives nothing from us and so never reports.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(60);
/// An SSRC that was superseded takes over again when the newer is silent for this long.
const SILENT: Duration = Duration::from_millis(500);
/// An SSRC that is silent for this long gives its place to a new one when there is no other.
const UNUSED: Duration = Duration::from_secs(2);
/// REMB names the SSRCs that were heard within this.
const ACTIVE: Duration = Duration::from_secs(5);

/// Where a packet belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub source: usize,
    pub layer: usize,
    /// The original's, without the packets that were padding only.
    pub seq: u16,
    /// Of the original in the datagram.
    pub payload: Range<usize>,
    /// Of its dependency descriptor in the datagram; empty where it has none.
    pub descriptor: Range<usize>,
    /// Bytes in front of the primary encoding (RFC 2198); 0 unless it is RED.
    pub redundancy: u16,
    pub audio_level: Option<u8>,
    /// How long ago it was sampled, in microseconds; 0 where that is not known.
    pub age_us: i32,
    /// Feedback to send now: a PLI for this SSRC.
    pub ask_key_frame: Option<u32>,
}

/// One stream's part of a receiver report.
pub(crate) struct StreamReport {
    pub ssrc: u32,
    pub codec: Codec,
    pub repeats: bool,
    pub figures: Figures,
    pub last_report: Option<(u32, Instant)>,
}

/// What to ask the publisher for now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// SSRCs, and the sequence numbers to send again.
    pub nacks: Vec<(u32, Vec<u16>)>,
    /// SSRCs.
    pub key_frames: Vec<u32>,
}

pub(crate) struct Receiver {
    started: Instant,
    sources: Vec<SourcePlan>,
    extensions: Extensions,
    streams: Vec<Stream>,
    /// Key frames asked for before the layer's SSRC was known: (source, layer).
    wanted: Vec<(usize, usize)>,
    clock: WallClock,
    /// Of transport-wide sequence numbers; None where they are not negotiated.
    recorder: Option<FeedbackRecorder>,
    next_request: Option<Instant>,
    packets: u64,
    bytes: u64,
}

impl Receiver {
    pub(crate) fn new(now: Instant, media: &[Media], roles: &[Role], sources: Vec<SourcePlan>) -> Self {
        let extensions = Extensions::of(media, roles, &sources);
        Self {
            started: now,
            recorder: extensions.twcc.map(|_| FeedbackRecorder::new(now)),
            extensions,
            sources,
            streams: Vec::new(),
            wanted: Vec::new(),
            clock: WallClock::default(),
            next_request: None,
            packets: 0,
            bytes: 0,
        }
    }

    pub(crate) fn offered(&self) -> impl Iterator<Item = &OfferedSource> {
        self.sources.iter().map(|s| &s.offered)
    }

    /// Takes an authentic packet. None: it brought nothing new (padding only, or known already).
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        rtp: &Rtp,
        data: &[u8],
    ) -> Result<Option<Accepted>, Ignored> {
        if let (Some(recorder), Some(number)) = (&mut self.recorder, self.extensions.number(rtp, data)) {
            recorder.received(now, number);
            let due = recorder.poll_timeout();
            self.next_request = earliest(self.next_request, due);
        }
        let found = self.streams.iter().position(|s| s.ssrc == rtp.ssrc);
        let index = match found {
            Some(index) => index,
            None => match self.learn(now, rtp, data)? {
                Some(index) => index,
                None => return Ok(None),
            },
        };
        let stream = &mut self.streams[index];
        let coding = &self.sources[stream.source].coding;
        let expected = match stream.repeats {
            Some(_) => coding.rtx_pt == Some(rtp.pt),
            None => coding.carried_by(rtp.pt),
        };
        if !expected {
            return Err(Ignored::UnknownPayloadType);
        }
        self.packets += 1;
        self.bytes += rtp.payload.len() as u64;
        stream.used = now;
        stream.unreported = stream.unreported.saturating_add(1);
        let since_start = now.saturating_duration_since(self.started).as_micros();
        let ticks = since_start * u128::from(stream.codec.clock_rate()) / 1_000_000;
        let newest = stream.reception.record(rtp.seq, rtp.timestamp, ticks as u32);
        let Some(primary) = stream.repeats else {
            return self.original(now, index, rtp, data, (rtp.seq, rtp.payload.clone()), newest);
        };
        let of = |s: &Stream, seq| s.ssrc == primary && s.nack.as_ref().is_some_and(|n| n.may_repeat(seq));
        let Some(original) = rtx::original(rtp, data) else {
            return Ok(None);
        };
        match self.streams.iter().position(|s| of(s, original.0)) {
            Some(index) => self.original(now, index, rtp, data, original, false),
            None => Ok(None),
        }
    }

    /// An original packet of a stream, however it came: its sequence number and payload.
    fn original(
        &mut self,
        now: Instant,
        index: usize,
        rtp: &Rtp,
        data: &[u8],
        (seq, payload): (u16, Range<usize>),
        newest: bool,
    ) -> Result<Option<Accepted>, Ignored> {
        if self.streams[index].superseded && !self.revive(now, index) {
            return Ok(None);
        }
        let stream = &mut self.streams[index];
        let mut wants_key_frame = false;
        if let Some(nack) = &mut stream.nack {
            match nack.received(now, seq) {
                Arrival::Fine => {}
                Arrival::Duplicate => return Ok(None),
                Arrival::Hole => self.next_request = earliest(self.next_request, nack.next()),
                Arrival::TooLargeHole => wants_key_frame = true,
            }
        }
        if payload.is_empty() {
            stream.padding.dropped(seq, newest);
            return Ok(None);
        }
        let place = (stream.source, stream.layer);
        let coding = &self.sources[place.0].coding;
        let redundancy = match coding.red {
            Some(red) if red.pt == rtp.pt => {
                red::redundancy(&data[payload.clone()], coding.pt).ok_or(Ignored::RtpMalformed)?
            }
            _ => 0,
        };
        if let Some(at) = self.wanted.iter().position(|w| *w == place) {
            self.wanted.remove(at);
            wants_key_frame = true;
        }
        let ask = wants_key_frame && stream.ask_key_frame(now);
        self.next_request = earliest(self.next_request, stream.next_ask());
        let micros = now.saturating_duration_since(self.started).as_micros() as i64;
        let clock_rate = stream.codec.clock_rate();
        Ok(Some(Accepted {
            source: place.0,
            layer: place.1,
            seq: stream.padding.renumber(seq),
            payload,
            descriptor: self.extensions.descriptor(stream.codec, rtp, data),
            redundancy,
            audio_level: self.extensions.audio_level(stream.codec, rtp, data),
            age_us: self
                .clock
                .age(micros, stream.time_line, rtp.timestamp, clock_rate),
            ask_key_frame: ask.then_some(stream.ssrc),
        }))
    }

    /// Whether an SSRC that was superseded is the one that goes on after all.
    fn revive(&mut self, now: Instant, index: usize) -> bool {
        let place = (self.streams[index].source, self.streams[index].layer);
        let mut others = self.streams.iter_mut().filter(|s| s.carries(place.0, place.1));
        let current = others.find(|s| !s.superseded);
        if let Some(current) = current {
            if now.saturating_duration_since(current.used) < SILENT {
                return false;
            }
            current.superseded = true;
        }
        self.streams[index].superseded = false;
        true
    }

    /// A place for an SSRC that is not known yet. None: it repeats what nobody has heard of.
    fn learn(&mut self, now: Instant, rtp: &Rtp, data: &[u8]) -> Result<Option<usize>, Ignored> {
        let place = place::of(&self.sources, &self.extensions, &self.streams, rtp, data)?;
        let (source, layer, repeats) = match place {
            Place::Nowhere => return Ok(None),
            Place::Carries { source, layer } => (source, layer, None),
            Place::Repeats(primary) => {
                let of = self.streams.iter().find(|s| s.ssrc == primary);
                let Some(of) = of else { return Ok(None) };
                (of.source, of.layer, Some(primary))
            }
        };
        if self.streams.len() >= MAX_SSRCS {
            let oldest = self.streams.iter().enumerate().min_by_key(|(_, s)| s.used);
            let unused = oldest.filter(|(_, s)| now.saturating_duration_since(s.used) >= UNUSED);
            let (at, _) = unused.ok_or(Ignored::TooManySsrcs)?;
            self.streams.remove(at);
        }
        if repeats.is_none() {
            let before = self.streams.iter_mut().filter(|s| s.carries(source, layer));
            before.for_each(|s| s.superseded = true);
        }
        let codec = self.sources[source].offered.codec;
        self.streams
            .push(Stream::new(now, rtp.ssrc, (source, layer), codec, repeats));
        Ok(Some(self.streams.len() - 1))
    }

    /// The SSRC to ask for a key frame now; it is asked for later if it is not known yet, or was
    /// asked a moment ago.
    pub(crate) fn request_key_frame(&mut self, now: Instant, source: usize, layer: usize) -> Option<u32> {
        let plan = self.sources.get(source)?;
        if plan.offered.codec == Codec::Opus || layer >= plan.offered.layers() {
            return None;
        }
        let mut streams = self.streams.iter_mut();
        let Some(stream) = streams.find(|s| s.carries(source, layer) && !s.superseded) else {
            if !self.wanted.contains(&(source, layer)) {
                self.wanted.push((source, layer));
            }
            return None;
        };
        let ask = stream.ask_key_frame(now);
        self.next_request = earliest(self.next_request, stream.next_ask());
        ask.then_some(stream.ssrc)
    }

    pub(crate) fn sender_report(&mut self, now: Instant, ssrc: u32, ntp: u64, timestamp: u32) {
        let micros = now.saturating_duration_since(self.started).as_micros() as i64;
        if let Some(stream) = self.streams.iter_mut().find(|s| s.ssrc == ssrc) {
            stream.last_report = Some(((ntp >> 16) as u32, now));
            stream.time_line = self.clock.reported(micros, ntp, timestamp);
        }
    }

    /// What to ask for now.
    pub(crate) fn requests(&mut self, now: Instant, round_trip: Option<Duration>) -> Requests {
        let mut out = Requests::default();
        if self.next_request.is_none_or(|next| now < next) {
            return out;
        }
        let round_trip = round_trip.unwrap_or(DEFAULT_ROUND_TRIP);
        self.next_request = self.recorder.as_ref().and_then(FeedbackRecorder::poll_timeout);
        for stream in &mut self.streams {
            let Some(nack) = stream.nack.as_mut().filter(|_| !stream.superseded) else {
                continue;
            };
            let due = nack.due(now, round_trip);
            let next = nack.next();
            if !due.seqs.is_empty() {
                out.nacks.push((stream.ssrc, due.seqs));
            }
            let waited = stream.next_ask().is_some_and(|at| at <= now);
            if (due.given_up || waited) && stream.ask_key_frame(now) {
                out.key_frames.push(stream.ssrc);
            }
            let next = earliest(next, stream.next_ask());
            self.next_request = earliest(self.next_request, next);
        }
        out
    }

    /// Transport-wide feedback to send now: an SSRC of the publisher's, and the FCI. Drain it.
    pub(crate) fn transport_feedback(&mut self, now: Instant) -> Option<(u32, Vec<u8>)> {
        let recorder = self.recorder.as_mut()?;
        let fci = recorder.poll(now)?;
        // It is about all of them; the format wants one to be named.
        Some((self.streams.last().map_or(0, |s| s.ssrc), fci))
    }

    pub(crate) fn next_request(&self) -> Option<Instant> {
        self.next_request
    }

    /// The figures since the last call of every stream that was heard since.
    pub(crate) fn reports(&mut self) -> Vec<StreamReport> {
        let heard = self.streams.iter_mut().filter(|s| s.unreported > 0);
        heard
            .map(|s| {
                s.unreported = 0;
                StreamReport {
                    ssrc: s.ssrc,
                    codec: s.codec,
                    repeats: s.repeats.is_some(),
                    figures: s.reception.figures(),
                    last_report: s.last_report,
                }
            })
            .collect()
    }

    /// SSRCs of video that are heard, and how many video sources they are of.
    pub(crate) fn video(&self, now: Instant) -> (Vec<u32>, usize) {
        let active = |s: &&Stream| now.saturating_duration_since(s.used) < ACTIVE;
        let video = self.streams.iter().filter(|s| s.nack.is_some()).filter(active);
        let mut sources: Vec<usize> = video.clone().map(|s| s.source).collect();
        sources.sort_unstable();
        sources.dedup();
        (video.map(|s| s.ssrc).collect(), sources.len())
    }

    /// Packets and payload bytes since the start.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn missing(&self) -> usize {
        let nacks = self.streams.iter().filter_map(|s| s.nack.as_ref());
        nacks.map(nack::Nack::missing).sum()
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests;

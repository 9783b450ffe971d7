//! The publishing side of a leg: which source and layer a packet belongs to, and what to tell the
//! publisher about it (NACK, PLI, receiver reports).
//!
//! SSRCs are learnt from the packets' mid and rid (RFC 9143, 8852), from `a=ssrc` lines, or from a
//! payload type that only one m-line has. Invariant: every table is bounded, and a packet that
//! gets here is authentic.

mod nack;
mod padding;
mod reception;

use std::time::{Duration, Instant};

use nack::{Arrival, Nack};
use padding::Padding;
pub(crate) use reception::Figures;
use reception::Reception;

use crate::event::Ignored;
use crate::media::{Codec, OfferedSource};
use crate::negotiate::{Role, SourcePlan, URI_AUDIO_LEVEL, URI_MID, URI_RID, extension};
use crate::offer::Media;
use crate::rtp::Rtp;
use crate::srtp::MAX_SSRCS;

/// Assumed where the peer receives nothing from us and so never reports.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(60);

/// Header extension ids of the offerer.
#[derive(Default)]
struct Extensions {
    mid: Option<u8>,
    rid: Option<u8>,
    level: Option<u8>,
}

struct Stream {
    ssrc: u32,
    source: usize,
    layer: usize,
    codec: Codec,
    reception: Reception,
    nack: Option<Nack>,
    padding: Padding,
    /// Middle 32 bits of the last sender report's NTP time, and when it came.
    last_report: Option<(u32, Instant)>,
}

/// Where a packet belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub source: usize,
    pub layer: usize,
    /// Without the packets that were padding only.
    pub seq: u16,
    pub audio_level: Option<u8>,
    /// Feedback to send now: a PLI for this packet's SSRC.
    pub wants_key_frame: bool,
}

/// One stream's part of a receiver report.
pub(crate) struct StreamReport {
    pub ssrc: u32,
    pub codec: Codec,
    pub figures: Figures,
    pub last_report: Option<(u32, Instant)>,
}

pub(crate) struct Receiver {
    started: Instant,
    sources: Vec<SourcePlan>,
    extensions: Extensions,
    streams: Vec<Stream>,
    /// Key frames asked for before the layer's SSRC was known: (source, layer).
    wanted: Vec<(usize, usize)>,
    next_nack: Option<Instant>,
    packets: u64,
    bytes: u64,
}

impl Receiver {
    pub(crate) fn new(now: Instant, media: &[Media], roles: &[Role], sources: Vec<SourcePlan>) -> Self {
        let publishing: Vec<&Media> = media
            .iter()
            .zip(roles)
            .filter(|(_, role)| matches!(role, Role::Publishes(_)))
            .map(|(m, _)| m)
            .collect();
        // In a BUNDLE group an id means the same in every m-line (RFC 9143, 9.1).
        let find = |uri| publishing.iter().find_map(|m| extension(m, uri));
        Self {
            started: now,
            extensions: Extensions {
                mid: find(URI_MID),
                rid: find(URI_RID),
                level: find(URI_AUDIO_LEVEL),
            },
            sources,
            streams: Vec::new(),
            wanted: Vec::new(),
            next_nack: None,
            packets: 0,
            bytes: 0,
        }
    }

    pub(crate) fn offered(&self) -> impl Iterator<Item = &OfferedSource> {
        self.sources.iter().map(|s| &s.offered)
    }

    /// Takes an authentic packet. None: it was padding only.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        rtp: &Rtp,
        data: &[u8],
    ) -> Result<Option<Accepted>, Ignored> {
        let index = match self.streams.iter().position(|s| s.ssrc == rtp.ssrc) {
            Some(index) => index,
            None => self.learn(rtp, data)?,
        };
        let since_start = now.saturating_duration_since(self.started);
        let stream = &mut self.streams[index];
        if self.sources[stream.source].coding.pt != rtp.pt {
            return Err(Ignored::UnknownPayloadType);
        }
        self.packets += 1;
        self.bytes += rtp.payload.len() as u64;
        let ticks = since_start.as_micros() * u128::from(stream.codec.clock_rate()) / 1_000_000;
        let newest = stream.reception.record(rtp.seq, rtp.timestamp, ticks as u32);
        let mut wants_key_frame = false;
        if let Some(nack) = &mut stream.nack {
            match nack.received(now, rtp.seq) {
                Arrival::Fine => {}
                Arrival::Hole => {
                    let next = nack.next();
                    self.next_nack = self.next_nack.into_iter().chain(next).min();
                }
                Arrival::TooLargeHole => wants_key_frame = true,
            }
        }
        if rtp.payload.is_empty() {
            stream.padding.dropped(rtp.seq, newest);
            return Ok(None);
        }
        let seq = stream.padding.renumber(rtp.seq);
        let place = (stream.source, stream.layer);
        if let Some(at) = self.wanted.iter().position(|w| *w == place) {
            self.wanted.remove(at);
            wants_key_frame = true;
        }
        let level = self.extensions.level.filter(|_| stream.codec == Codec::Opus);
        Ok(Some(Accepted {
            source: place.0,
            layer: place.1,
            seq,
            audio_level: level
                .and_then(|id| rtp.extension(data, id))
                .and_then(|v| v.first())
                .map(|v| v & 0x7f),
            wants_key_frame,
        }))
    }

    fn learn(&mut self, rtp: &Rtp, data: &[u8]) -> Result<usize, Ignored> {
        let (source, layer) = self.place(rtp, data)?;
        if self.streams.len() >= MAX_SSRCS {
            return Err(Ignored::TooManySsrcs);
        }
        let codec = self.sources[source].offered.codec;
        self.streams.push(Stream {
            ssrc: rtp.ssrc,
            source,
            layer,
            codec,
            reception: Reception::default(),
            nack: (codec != Codec::Opus).then(Nack::default),
            padding: Padding::default(),
            last_report: None,
        });
        Ok(self.streams.len() - 1)
    }

    /// Source and layer of an SSRC that is not known yet.
    fn place(&self, rtp: &Rtp, data: &[u8]) -> Result<(usize, usize), Ignored> {
        let text = |id: Option<u8>| {
            id.and_then(|id| rtp.extension(data, id))
                .and_then(|v| std::str::from_utf8(v).ok())
        };
        let (mid, rid) = (text(self.extensions.mid), text(self.extensions.rid));
        let with_rid = |s: &SourcePlan| rid.is_some_and(|r| s.offered.rids.iter().any(|x| x == r));
        let only = |matches: &dyn Fn(&SourcePlan) -> bool| {
            let mut found = self.sources.iter().enumerate().filter(|(_, s)| matches(s));
            found.next().filter(|_| found.next().is_none())
        };
        let found = if let Some(mid) = mid {
            only(&|s| s.offered.mid == mid)
        } else {
            only(&|s| s.ssrcs.contains(&rtp.ssrc))
                .or_else(|| only(&with_rid))
                .or_else(|| only(&|s| s.coding.pt == rtp.pt))
        };
        let (index, source) = found.ok_or(Ignored::UnknownSource)?;
        if source.coding.pt != rtp.pt {
            return Err(Ignored::UnknownPayloadType);
        }
        if source.offered.rids.is_empty() {
            return Ok((index, 0));
        }
        let layer = source.offered.rids.iter().position(|r| Some(r.as_str()) == rid);
        layer.map(|l| (index, l)).ok_or(Ignored::UnknownSource)
    }

    /// The SSRC to ask for a key frame; remembered if it is not known yet.
    pub(crate) fn request_key_frame(&mut self, source: usize, layer: usize) -> Option<u32> {
        let plan = self.sources.get(source)?;
        if plan.offered.codec == Codec::Opus || layer >= plan.offered.layers() {
            return None;
        }
        let newest = self
            .streams
            .iter()
            .rev()
            .find(|s| (s.source, s.layer) == (source, layer));
        if newest.is_none() && !self.wanted.contains(&(source, layer)) {
            self.wanted.push((source, layer));
        }
        newest.map(|s| s.ssrc)
    }

    pub(crate) fn sender_report(&mut self, now: Instant, ssrc: u32, ntp_middle: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|s| s.ssrc == ssrc) {
            stream.last_report = Some((ntp_middle, now));
        }
    }

    /// NACKs to send now: (SSRC, sequence numbers).
    pub(crate) fn nacks(&mut self, now: Instant, round_trip: Option<Duration>) -> Vec<(u32, Vec<u16>)> {
        if self.next_nack.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let round_trip = round_trip.unwrap_or(DEFAULT_ROUND_TRIP);
        let mut out = Vec::new();
        self.next_nack = None;
        for stream in &mut self.streams {
            let Some(nack) = &mut stream.nack else {
                continue;
            };
            let due = nack.due(now, round_trip);
            if !due.is_empty() {
                out.push((stream.ssrc, due));
            }
            self.next_nack = self.next_nack.into_iter().chain(nack.next()).min();
        }
        out
    }

    pub(crate) fn next_nack(&self) -> Option<Instant> {
        self.next_nack
    }

    /// Every stream's figures since the last call.
    pub(crate) fn reports(&mut self) -> Vec<StreamReport> {
        self.streams
            .iter_mut()
            .map(|s| StreamReport {
                ssrc: s.ssrc,
                codec: s.codec,
                figures: s.reception.figures(),
                last_report: s.last_report,
            })
            .collect()
    }

    /// SSRCs of video, and how many video sources they are of.
    pub(crate) fn video(&self) -> (Vec<u32>, usize) {
        let video = self.streams.iter().filter(|s| s.codec != Codec::Opus);
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
        nacks.map(Nack::missing).sum()
    }
}

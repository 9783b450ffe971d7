//! A source, a link of a profile and the repair core of one direction, in virtual time; and what a viewer makes of it.
//!
//! The source is that of `muster-bench link`: pictures whose size follows the link's rate, a key frame at first, after the
//! dark and when the viewer asks, and Opus. Every run of a profile and a seed is the same. Time jumps from event to event by
//! the core's own `wake`, so one that sleeps too long is seen as misses.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use muster_link::repair::wire::Datagram;
use muster_link::repair::{Budget, Class, Micros, Packet, Receiver, Sender, Terms, rate::Bounds};
use muster_linkshape::{Direction, Network, Profile, Verdict};

/// QUIC's header, tag and datagram frame.
/// A link is there before its site is called, µs.
const JOIN: Micros = 1_000_000;
const QUIC: usize = 29;
/// A flow id and RTP's header; with the level of sound.
const HEADERS: usize = 13;
const SOUND: usize = 13 + 8 + 80;
const PAYLOAD: usize = 1100;
const SOUND_PERIOD: Micros = 20_000;
/// A picture this late after its deadline is given up by a viewer, who asks for a key frame, not more often than this.
const PATIENCE: Micros = 100_000;
const BETWEEN_KEYS: Micros = 300_000;
/// The receiver's clock less the sender's.
const STRANGE: Micros = 77_000_000;
/// After the last frame, for what is on its way.
const TAIL: Micros = 1_000_000;

struct Frame {
    video: bool,
    key: bool,
    captured: Micros,
    period: Micros,
    missing: usize,
    whole: Option<Micros>,
}

/// What a viewer makes of a run.
#[derive(Debug)]
pub struct Outcome {
    pub pictures: usize,
    /// Shares, 0 to 1.
    pub missed: f64,
    pub overhead: f64,
    /// Of audio captured while the link was up.
    pub kept: f64,
    pub p50: Micros,
    pub p95: Micros,
    /// Share of the time that the picture stood.
    pub frozen: f64,
    pub longest_gap: Micros,
    /// From the link's return to the first picture shown that is captured after it, by outage.
    pub back: Vec<Micros>,
    /// The longest time that each packet met more than 100 ms of queue.
    pub standing: Micros,
    /// RTP bits a second.
    pub rate: u64,
    pub sender: Sender,
    pub receiver: Receiver,
    /// Every 100 ms.
    pub trace: Vec<Look>,
}

/// The state of a run at a moment; rates in bits a second, the queue as it is, not as the sender thinks.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub at: Micros,
    pub rate: u64,
    pub source: u64,
    pub queue: Micros,
}

/// A run to be made.
pub struct Run {
    pub profile: Arc<Profile>,
    pub seed: u64,
    pub seconds: u64,
    pub terms: Terms,
    /// Most that the source makes, bits a second.
    pub most: u64,
}

struct Accounts {
    frames: BTreeMap<u32, Frame>,
    rtp_bytes: u64,
}

struct Source {
    next: u32,
    next_picture: Micros,
    next_sound: Micros,
    key: bool,
    most: u64,
}

impl Source {
    fn tick(&mut self, now: Micros, sender: &mut Sender, accounts: &mut Accounts) {
        if now >= self.next_sound {
            self.next_sound += SOUND_PERIOD;
            self.make(now, Class::Audio, false, SOUND, SOUND_PERIOD, sender, accounts);
        }
        if now < self.next_picture {
            return;
        }
        let rate = sender.source_rate(now).min(self.most).saturating_sub(40_000);
        let fps = match rate {
            300_000.. => 30,
            100_000.. => 10,
            20_000.. => 2,
            _ => 0,
        };
        if fps == 0 {
            self.next_picture = now + 33_000;
            self.key = true;
            return;
        }
        let period = 1_000_000 / fps;
        self.next_picture = now + period;
        let key = std::mem::take(&mut self.key);
        let bytes = (rate / fps / 8) as usize * if key { 3 } else { 1 };
        self.make(now, Class::Video, key, bytes, period, sender, accounts);
    }

    #[expect(clippy::too_many_arguments, reason = "a frame's parts, from one place")]
    fn make(
        &mut self,
        now: Micros,
        class: Class,
        key: bool,
        bytes: usize,
        period: Micros,
        sender: &mut Sender,
        accounts: &mut Accounts,
    ) {
        let number = self.next;
        self.next += 1;
        let video = class == Class::Video;
        let packets = if video { bytes.div_ceil(PAYLOAD).max(1) } else { 1 };
        let frame = Frame {
            video,
            key,
            captured: now,
            period,
            missing: packets,
            whole: None,
        };
        accounts.frames.insert(number, frame);
        for packet in 1..=packets {
            let size = bytes.div_ceil(packets) + if video { HEADERS } else { 0 };
            let mut body = BytesMut::with_capacity(size);
            body.put_u32(number);
            body.resize(size.max(4), 0);
            accounts.rtp_bytes += body.len() as u64 - 1;
            let packet = Packet {
                class,
                captured: now,
                end: video && packet == packets,
                body: body.freeze(),
            };
            sender.push(now, packet);
        }
    }
}

impl Accounts {
    fn came(&mut self, body: &Bytes, now: Micros) {
        let number = u32::from_be_bytes(*body.first_chunk().expect("a frame's number"));
        let frame = self.frames.get_mut(&number).expect("a frame that was made");
        frame.missing -= 1;
        if frame.missing == 0 {
            frame.whole = Some(now);
        }
    }

    /// Whether a picture that was due `late` ago is not whole, and no key frame came after it.
    fn wants_key(&self, now: Micros, late: Micros) -> bool {
        for frame in self.frames.values().rev().filter(|frame| frame.video) {
            if frame.captured + late > now {
                if frame.key {
                    return false;
                }
                continue;
            }
            match (frame.whole, frame.key) {
                (None, _) => return true,
                (Some(_), true) => return false,
                (Some(_), false) => {}
            }
        }
        false
    }

    /// When each picture was shown, when it was captured, and the period that it was made for.
    fn shown(&self) -> Vec<(Micros, Micros, Micros)> {
        let mut shown = Vec::new();
        let mut chain: Option<Micros> = None;
        for frame in self.frames.values().filter(|frame| frame.video) {
            chain = match (frame.whole, frame.key, chain) {
                (Some(whole), true, before) => Some(before.map_or(whole, |before| before.max(whole))),
                (Some(whole), false, Some(before)) => Some(before.max(whole)),
                _ => None,
            };
            shown.extend(chain.map(|at| (at, frame.captured, frame.period)));
        }
        shown
    }
}

/// When a profile is down, from and to.
fn outages(profile: &Profile, length: Micros) -> Vec<(Micros, Micros)> {
    let mut found = Vec::new();
    let mut gone = None;
    for at in (0..length).step_by(1000) {
        match (profile.at(at).up, gone) {
            (false, None) => gone = Some(at),
            (true, Some(since)) => {
                found.push((since, at));
                gone = None;
            }
            _ => {}
        }
    }
    found
}

/// The longest time over 100 ms of queue, measured packet by packet.
#[derive(Default)]
struct Standing {
    since: Option<Micros>,
    longest: Micros,
    now: Micros,
}

impl Standing {
    fn sent(&mut self, now: Micros, verdict: Verdict, profile: &Profile) {
        let Verdict::Deliver { at_us } = verdict else {
            return;
        };
        let row = profile.at(now);
        self.now = (at_us - now).saturating_sub(row.delay_us + row.jitter_us);
        if self.now > 100_000 {
            let since = *self.since.get_or_insert(now);
            self.longest = self.longest.max(now - since);
        } else {
            self.since = None;
        }
    }
}

impl Run {
    pub fn play(self) -> Outcome {
        let Self {
            profile,
            seed,
            seconds,
            terms,
            most,
        } = self;
        let mut network = Network::new(Arc::clone(&profile), seed);
        let mut sender = Sender::new(Budget::Fixed(terms), Bounds::default());
        sender.explore();
        let mut receiver = Receiver::new();
        let mut source = Source {
            next: 0,
            next_picture: JOIN,
            next_sound: JOIN,
            key: true,
            most,
        };
        let mut accounts = Accounts {
            frames: BTreeMap::new(),
            rtp_bytes: 0,
        };
        let mut scratch = BytesMut::new();
        let (mut standing, mut trace) = (Standing::default(), Vec::new());
        let (mut looked, mut asked) = (0, 0);
        let end = seconds * 1_000_000;
        let verbose = std::env::var("VERBOSE").is_ok();
        let mut now = 0;
        while now < end + TAIL {
            if now < end {
                source.tick(now, &mut sender, &mut accounts);
            }
            while let Some((direction, bytes)) = network.pop(now) {
                let datagram = Datagram::read(&bytes.slice(..bytes.len() - QUIC)).expect("one of ours");
                match (direction, datagram) {
                    (Direction::Down, Datagram::Feedback(feedback)) => sender.feedback(now, &feedback),
                    (Direction::Up, datagram) => receiver
                        .take(now + STRANGE, datagram, &mut |body: Bytes| {
                            accounts.came(&body, now)
                        })
                        .expect("one of ours"),
                    other => panic!("{other:?}"),
                }
            }
            let padded = |datagram: Bytes| {
                let mut out = BytesMut::from(&datagram[..]);
                out.resize(datagram.len() + QUIC, 0);
                out.freeze()
            };
            while let Some(feedback) = receiver.poll(now + STRANGE, &mut scratch) {
                network.send(now, Direction::Down, padded(feedback));
            }
            while let Some(datagram) = sender.poll(now, &mut scratch) {
                let verdict = network.send(now, Direction::Up, padded(datagram));
                standing.sent(now, verdict, &profile);
            }
            if now >= looked {
                looked = now + 20_000;
                let late = terms.video_deadline + PATIENCE;
                if now > asked + BETWEEN_KEYS && accounts.wants_key(now, late) {
                    asked = now;
                    source.key = true;
                }
                if trace.last().is_none_or(|look: &Look| look.at + 100_000 <= now) {
                    let look = Look {
                        at: now,
                        rate: sender.rate(),
                        source: sender.source_rate(now),
                        queue: standing.now,
                    };
                    trace.push(look);
                    if verbose {
                        tell(&look, &sender, &profile);
                    }
                }
            }
            let next = [
                network.next_at(),
                sender.wake(now),
                receiver.wake().map(|at| at.saturating_sub(STRANGE)),
                (now < end).then_some(source.next_picture.min(source.next_sound)),
                Some(looked),
            ];
            let next = next.into_iter().flatten().min().unwrap_or(looked);
            now = next.max(now + 200);
        }
        let mut outcome = accounts.outcome(&terms, &profile, end);
        outcome.overhead = sender.stats().wire_bytes as f64 / accounts.rtp_bytes as f64 - 1.0;
        outcome.rate = accounts.rtp_bytes * 8 / seconds;
        outcome.standing = standing.longest;
        Outcome {
            sender,
            receiver,
            trace,
            ..outcome
        }
    }
}

fn tell(look: &Look, sender: &Sender, profile: &Profile) {
    println!(
        "{:.1} s: link {} kbit/s, rate {}, source {}, round trip {} ms, queue {} (true {}), jitter {}, lost {:.3}, dark {}",
        look.at as f64 / 1e6,
        profile.at(look.at % profile.duration_us()).rate_kbps,
        look.rate / 1000,
        look.source / 1000,
        sender.path().rtt() / 1000,
        sender.path().queue() / 1000,
        look.queue / 1000,
        sender.path().jitter() / 1000,
        sender.loss().share(),
        sender.is_dark(look.at)
    );
}

impl Accounts {
    fn outcome(&self, terms: &Terms, profile: &Profile, end: Micros) -> Outcome {
        let outages = outages(profile, end);
        let up = |at: Micros| !outages.iter().any(|&(from, to)| (from..to).contains(&at));
        let of = |video: bool| self.frames.values().filter(move |frame| frame.video == video);
        let in_time =
            |frame: &&Frame, deadline| frame.whole.is_some_and(|at| at <= frame.captured + deadline);
        let pictures = of(true).count();
        let missed = pictures
            - of(true)
                .filter(|frame| in_time(frame, terms.video_deadline))
                .count();
        // What was on its way when the link went is lost with it.
        let sounds = || of(false).filter(|frame| up(frame.captured) && up(frame.captured + 100_000));
        let kept = sounds()
            .filter(|frame| in_time(frame, terms.audio_deadline))
            .count();
        let mut delays: Vec<Micros> = of(true)
            .filter_map(|frame| Some(frame.whole? - frame.captured))
            .collect();
        delays.sort_unstable();
        let at = |share: f64| {
            let place = (delays.len().saturating_sub(1) as f64 * share) as usize;
            delays.get(place).copied().unwrap_or(0)
        };
        let shown = self.shown();
        let (mut frozen, mut longest_gap) = (0, 0);
        for pair in shown.windows(2) {
            let (gap, period) = (pair[1].0.saturating_sub(pair[0].0), pair[0].2);
            longest_gap = longest_gap.max(gap);
            if gap > (period * 3).max(period + 150_000) {
                frozen += gap - period;
            }
        }
        let back = outages.iter().map(|&(_, returned)| {
            let next = shown.iter().find(|&&(_, captured, _)| captured >= returned);
            next.map_or(Micros::MAX, |&(at, ..)| at - returned)
        });
        Outcome {
            pictures,
            missed: missed as f64 / pictures.max(1) as f64,
            overhead: 0.0,
            kept: kept as f64 / sounds().count().max(1) as f64,
            p50: at(0.5),
            p95: at(0.95),
            frozen: frozen as f64 / end as f64,
            longest_gap,
            back: back.collect(),
            standing: 0,
            rate: 0,
            sender: Sender::new(Budget::Fixed(*terms), Bounds::default()),
            receiver: Receiver::new(),
            trace: Vec::new(),
        }
    }
}

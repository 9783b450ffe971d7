//! What came of it: which frames were whole when, and what a viewer would have seen.
//!
//! A picture can be shown when it is whole and so is every one since the last key frame. A *freeze* is a gap between pictures
//! shown that is longer than three of their periods and longer than a period and 150 ms (the rule of WebRTC's freezeCount);
//! what is over the period counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::source::Made;

#[derive(Debug)]
struct Frame {
    video: bool,
    key: bool,
    captured: Instant,
    period: Duration,
    missing: u16,
    whole: Option<Instant>,
}

/// The accounts of one run.
#[derive(Debug, Default)]
pub struct Accounts {
    frames: BTreeMap<u32, Frame>,
    /// RTP bytes of the source.
    pub rtp_bytes: u64,
}

/// What is told of a run.
#[derive(Debug)]
pub struct Sums {
    pub frames: usize,
    pub missed: usize,
    pub sounds: usize,
    pub kept: usize,
    pub delay_p50: Duration,
    pub delay_p95: Duration,
    pub freeze: Duration,
    /// The longest time between two pictures shown.
    pub longest_gap: Duration,
    /// From the return of the link to the next picture shown, for each outage.
    pub back: Vec<(Duration, Duration)>,
}

impl Accounts {
    /// A frame that the source made.
    pub fn made(&mut self, made: &Made) {
        // The flow's id is not RTP.
        self.rtp_bytes += made
            .datagrams
            .iter()
            .map(|datagram| datagram.len() as u64 - 1)
            .sum::<u64>();
        let frame = Frame {
            video: made.video,
            key: made.key,
            captured: made.captured,
            period: made.period,
            missing: made.packets,
            whole: None,
        };
        self.frames.insert(made.number, frame);
    }

    /// One more packet of a frame is there.
    pub fn came(&mut self, number: u32, now: Instant) {
        if let Some(frame) = self.frames.get_mut(&number) {
            frame.missing = frame.missing.saturating_sub(1);
            if frame.missing == 0 && frame.whole.is_none() {
                frame.whole = Some(now);
            }
        }
    }

    /// Whether a picture that was due `late` ago is not whole, and no key frame came after it: a decoder asks for one then.
    pub fn wants_key(&self, now: Instant, late: Duration) -> bool {
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

    /// `outages`: when the link went and when it returned.
    pub fn sums(&self, budget: Duration, sound_budget: Duration, outages: &[(Instant, Instant)]) -> Sums {
        let pictures = || self.frames.values().filter(|frame| frame.video);
        let sounds = || self.frames.values().filter(|frame| !frame.video);
        let in_time = |frame: &&Frame, budget| frame.whole.is_some_and(|at| at <= frame.captured + budget);
        let mut delays: Vec<Duration> = pictures()
            .filter_map(|frame| Some(frame.whole?.saturating_duration_since(frame.captured)))
            .collect();
        delays.sort_unstable();
        let at = |share: f64| {
            let place = (delays.len().saturating_sub(1) as f64 * share) as usize;
            delays.get(place).copied().unwrap_or_default()
        };
        let shown = self.shown();
        // A picture that stops for good stands until the end.
        let ends = |frame: Option<&Frame>| frame.map(|frame| (frame.captured, frame.period));
        let whole: Vec<_> = ends(pictures().next())
            .into_iter()
            .chain(shown.iter().copied())
            .chain(ends(pictures().next_back()))
            .collect();
        let (freeze, longest_gap) = gaps(&whole);
        let back = outages.iter().map(|&(gone, returned)| {
            let next = shown.iter().find(|(at, _)| *at >= returned);
            (returned - gone, next.map_or(NEVER, |(at, _)| *at - returned))
        });
        Sums {
            frames: pictures().count(),
            missed: pictures().filter(|frame| !in_time(frame, budget)).count(),
            sounds: sounds().count(),
            kept: sounds().filter(|frame| in_time(frame, sound_budget)).count(),
            delay_p50: at(0.5),
            delay_p95: at(0.95),
            freeze,
            longest_gap,
            back: back.collect(),
        }
    }

    /// When each picture was shown, and the period that it was made for.
    fn shown(&self) -> Vec<(Instant, Duration)> {
        let mut shown: Vec<(Instant, Duration)> = Vec::new();
        let mut chain: Option<Instant> = None;
        for frame in self.frames.values().filter(|frame| frame.video) {
            chain = match (frame.whole, frame.key, chain) {
                (Some(whole), true, before) => Some(before.map_or(whole, |before| before.max(whole))),
                (Some(whole), false, Some(before)) => Some(before.max(whole)),
                _ => None,
            };
            if let Some(at) = chain {
                shown.push((at, frame.period));
            }
        }
        shown
    }
}

/// No picture came back.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

fn gaps(shown: &[(Instant, Duration)]) -> (Duration, Duration) {
    let (mut freeze, mut longest) = (Duration::ZERO, Duration::ZERO);
    for pair in shown.windows(2) {
        let (gap, period) = (pair[1].0.saturating_duration_since(pair[0].0), pair[0].1);
        longest = longest.max(gap);
        if gap > (period * 3).max(period + Duration::from_millis(150)) {
            freeze += gap - period;
        }
    }
    (freeze, longest)
}

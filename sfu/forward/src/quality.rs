//! How a leg fares: what was measured each second becomes one mark with the worst reason.
//!
//! This is the one place that knows the thresholds (PROTOCOL.md has the table). Invariants: a mark worsens when two
//! seconds in a row say so and betters after 5 s without a break, with four fifths of the threshold to go below, so
//! that it does not flicker; what is told is told at most every 2 s and only when a person would notice. It measures
//! nothing itself.

use crate::types::Micros;

/// Loss from which a mark is fair and poor, in permille.
const LOSS: [u32; 2] = [30, 100];
/// Round trip from which a mark is fair and poor, in milliseconds.
const ROUND_TRIP: [u32; 2] = [300, 600];
/// Seconds in a row that must be worse than the mark.
const WORSE_AFTER: u32 = 2;
/// How long all must have been better than the mark. Microseconds.
const BETTER_AFTER_US: u64 = 5_000_000;
/// Between two times that a leg's quality is told. Microseconds, a little less than 2 s as seconds are not exact.
const TELL_EVERY_US: u64 = 1_900_000;
/// A mean forgets this share of what it knew each second.
const FORGET: f64 = 1.0 / 3.0;

/// In this order they worsen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    #[default]
    Good,
    Fair,
    Poor,
}

/// Why a mark is not good. The order decides between two that are equally bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing comes although something should, or no picture although a camera is published.
    NoMedia,
    LossUp,
    LossDown,
    Delay,
    /// The leg's link carries less than it wishes to see.
    LowBandwidth,
    /// The leg's link carries less than it would publish.
    SendersLink,
}

/// What a leg is shown, against what it wishes for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    #[default]
    Whole,
    /// Smaller layers, as its link carries no more.
    Smaller,
    /// Of something nothing fits.
    Paused,
}

/// Pixels; 0 by 0 is a picture of unknown size.
pub type PictureSize = (u16, u16);

/// One second of a leg.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Packets from the leg that came, and that should have come too.
    pub received: u64,
    pub lost: u64,
    pub up_bytes: u64,
    pub down_bytes: u64,
    /// Permille of what was sent to it.
    pub down_loss: u32,
    /// Milliseconds.
    pub round_trip: Option<u32>,
    /// Milliseconds.
    pub jitter: u32,
    /// What the way to it is estimated to carry, in bits a second.
    pub estimate_bps: Option<u64>,
    /// Something should come and has not for over a second, or its picture has not for four although its sound does.
    pub silent: bool,
    /// The largest layer of its camera that comes.
    pub published: Option<PictureSize>,
    /// A larger one came before.
    pub publishes_less: bool,
    /// The largest layer that goes to it.
    pub shown: Option<PictureSize>,
    pub view: View,
}

/// How a leg fares: means of about the last three seconds, and the mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Permille.
    pub up_loss: u32,
    pub down_loss: u32,
    /// Bits a second.
    pub up_bps: u64,
    pub down_bps: u64,
    /// Milliseconds.
    pub round_trip: Option<u32>,
    pub jitter: u32,
    pub estimate_bps: Option<u64>,
    pub published: Option<PictureSize>,
    pub shown: Option<PictureSize>,
    pub mark: Mark,
    pub cause: Option<Cause>,
}

/// A mean that forgets.
#[derive(Clone, Copy, Debug, Default)]
struct Mean(Option<f64>);

impl Mean {
    fn take(&mut self, value: f64) -> f64 {
        let mean = self.0.map_or(value, |mean| mean + (value - mean) * FORGET);
        self.0 = Some(mean);
        mean
    }
}

/// Follows one leg from its first second on air.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    lost: Mean,
    expected: Mean,
    down_loss: Mean,
    up: Mean,
    down: Mean,
    mark: Mark,
    cause: Option<Cause>,
    worse: u32,
    better_since: Option<Micros>,
    told: Option<(Micros, Quality)>,
}

impl Meter {
    /// Takes a second.
    pub fn measure(&mut self, now: Micros, second: &Measured) -> Quality {
        let lost = self.lost.take(second.lost as f64);
        let expected = self.expected.take((second.received + second.lost) as f64);
        let bps = |mean: &mut Mean, bytes: u64| mean.take(bytes as f64 * 8.0).round() as u64;
        let mut quality = Quality {
            up_loss: if expected < 0.5 {
                0
            } else {
                (lost * 1000.0 / expected).round() as u32
            },
            down_loss: self.down_loss.take(f64::from(second.down_loss)).round() as u32,
            up_bps: bps(&mut self.up, second.up_bytes),
            down_bps: bps(&mut self.down, second.down_bytes),
            round_trip: second.round_trip,
            jitter: second.jitter,
            estimate_bps: second.estimate_bps,
            published: second.published,
            shown: second.shown,
            ..Quality::default()
        };
        self.settle(now, &findings(&quality, second, self.mark));
        (quality.mark, quality.cause) = (self.mark, self.cause);
        quality
    }

    /// Whether this is to be told now; then it counts as told.
    pub fn is_news(&mut self, now: Micros, quality: &Quality) -> bool {
        let news = self
            .told
            .is_none_or(|(at, told)| now.since(at) >= TELL_EVERY_US && is_noticeable(&told, quality));
        if news {
            self.told = Some((now, *quality));
        }
        news
    }

    fn settle(&mut self, now: Micros, findings: &[(Mark, Cause)]) {
        let worst = findings.iter().map(|(mark, _)| *mark).max().unwrap_or_default();
        let cause = findings
            .iter()
            .find(|(mark, _)| *mark == worst)
            .map(|(_, cause)| *cause);
        if worst < self.mark {
            self.worse = 0;
            let since = *self.better_since.get_or_insert(now);
            if now.since(since) < BETTER_AFTER_US {
                return;
            }
        } else {
            self.better_since = None;
            if worst > self.mark {
                self.worse += 1;
                // Silence has lasted for a second already.
                if self.worse < WORSE_AFTER && cause != Some(Cause::NoMedia) {
                    return;
                }
            } else {
                self.worse = 0;
                // Of two that are equally bad the one that was told stays.
                if findings
                    .iter()
                    .any(|&(mark, cause)| mark == worst && self.cause == Some(cause))
                {
                    return;
                }
            }
        }
        (self.mark, self.cause) = (worst, cause);
        (self.worse, self.better_since) = (0, None);
    }
}

/// Everything that is not good, in the order of [`Cause`]; `held` is the mark that stands, and has lower thresholds.
fn findings(quality: &Quality, second: &Measured, held: Mark) -> Vec<(Mark, Cause)> {
    let over = |value: u32, [fair, poor]: [u32; 2]| {
        let reached = |threshold: u32, mark: Mark| {
            if held >= mark {
                value * 5 >= threshold * 4
            } else {
                value >= threshold
            }
        };
        match () {
            () if reached(poor, Mark::Poor) => Mark::Poor,
            () if reached(fair, Mark::Fair) => Mark::Fair,
            () => Mark::Good,
        }
    };
    let view = match second.view {
        View::Whole => Mark::Good,
        View::Smaller => Mark::Fair,
        View::Paused => Mark::Poor,
    };
    let if_so = |so: bool, mark: Mark| if so { mark } else { Mark::Good };
    let all = [
        (if_so(second.silent, Mark::Poor), Cause::NoMedia),
        (over(quality.up_loss, LOSS), Cause::LossUp),
        (over(quality.down_loss, LOSS), Cause::LossDown),
        (over(quality.round_trip.unwrap_or(0), ROUND_TRIP), Cause::Delay),
        (view, Cause::LowBandwidth),
        (if_so(second.publishes_less, Mark::Fair), Cause::SendersLink),
    ];
    all.into_iter().filter(|(mark, _)| *mark > Mark::Good).collect()
}

/// Whether somebody who reads the numbers would care.
fn is_noticeable(told: &Quality, now: &Quality) -> bool {
    let by = |a: u64, b: u64, least: u64| a.abs_diff(b) >= least.max(a / 5);
    let word = |q: &Quality| (q.mark, q.cause, q.published, q.shown);
    let small = |value: Option<u32>| u64::from(value.unwrap_or(0));
    word(told) != word(now)
        || told.up_loss.abs_diff(now.up_loss) >= 10
        || told.down_loss.abs_diff(now.down_loss) >= 10
        || by(told.up_bps, now.up_bps, 20_000)
        || by(told.down_bps, now.down_bps, 20_000)
        || by(
            told.estimate_bps.unwrap_or(0),
            now.estimate_bps.unwrap_or(0),
            50_000,
        )
        || by(small(told.round_trip), small(now.round_trip), 20)
        || by(told.jitter.into(), now.jitter.into(), 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Measured = Measured {
        received: 200,
        lost: 0,
        up_bytes: 100_000,
        down_bytes: 100_000,
        down_loss: 0,
        round_trip: Some(40),
        jitter: 3,
        estimate_bps: Some(4_000_000),
        silent: false,
        published: Some((1280, 720)),
        publishes_less: false,
        shown: Some((320, 180)),
        view: View::Whole,
    };

    fn lossy(permille: u64) -> Measured {
        Measured {
            received: 1000 - permille,
            lost: permille,
            ..GOOD
        }
    }

    /// Feeds seconds from the one after `from`, and gives the quality of the last.
    fn run(meter: &mut Meter, from: u64, seconds: u64, second: &Measured) -> Quality {
        (1..=seconds)
            .map(|s| meter.measure(Micros((from + s) * 1_000_000), second))
            .last()
            .expect("a second")
    }

    #[test]
    fn each_trouble_has_its_mark_and_reason() {
        let cases: &[(&str, Measured, Mark, Option<Cause>)] = &[
            ("all well", GOOD, Mark::Good, None),
            ("2.9 % up", lossy(29), Mark::Good, None),
            ("3 % up", lossy(30), Mark::Fair, Some(Cause::LossUp)),
            ("9.9 % up", lossy(99), Mark::Fair, Some(Cause::LossUp)),
            ("10 % up", lossy(100), Mark::Poor, Some(Cause::LossUp)),
            (
                "20 % down",
                Measured {
                    down_loss: 200,
                    ..GOOD
                },
                Mark::Poor,
                Some(Cause::LossDown),
            ),
            (
                "3 % down",
                Measured {
                    down_loss: 30,
                    ..GOOD
                },
                Mark::Fair,
                Some(Cause::LossDown),
            ),
            (
                "299 ms",
                Measured {
                    round_trip: Some(299),
                    ..GOOD
                },
                Mark::Good,
                None,
            ),
            (
                "300 ms",
                Measured {
                    round_trip: Some(300),
                    ..GOOD
                },
                Mark::Fair,
                Some(Cause::Delay),
            ),
            (
                "600 ms",
                Measured {
                    round_trip: Some(600),
                    ..GOOD
                },
                Mark::Poor,
                Some(Cause::Delay),
            ),
            (
                "no round trip known",
                Measured {
                    round_trip: None,
                    ..GOOD
                },
                Mark::Good,
                None,
            ),
            (
                "nothing comes",
                Measured { silent: true, ..GOOD },
                Mark::Poor,
                Some(Cause::NoMedia),
            ),
            (
                "smaller layers",
                Measured {
                    view: View::Smaller,
                    ..GOOD
                },
                Mark::Fair,
                Some(Cause::LowBandwidth),
            ),
            (
                "nothing fits",
                Measured {
                    view: View::Paused,
                    ..GOOD
                },
                Mark::Poor,
                Some(Cause::LowBandwidth),
            ),
            (
                "publishes less",
                Measured {
                    publishes_less: true,
                    ..GOOD
                },
                Mark::Fair,
                Some(Cause::SendersLink),
            ),
            (
                "the worst wins",
                Measured {
                    round_trip: Some(700),
                    ..lossy(40)
                },
                Mark::Poor,
                Some(Cause::Delay),
            ),
            (
                "loss before delay",
                Measured {
                    round_trip: Some(700),
                    ..lossy(150)
                },
                Mark::Poor,
                Some(Cause::LossUp),
            ),
        ];
        for (what, second, mark, cause) in cases {
            let mut meter = Meter::default();
            let quality = run(&mut meter, 0, 4, second);
            assert_eq!((quality.mark, quality.cause), (*mark, *cause), "{what}");
        }
    }

    #[test]
    fn one_bad_second_is_no_alarm_and_two_are() {
        let mut meter = Meter::default();
        run(&mut meter, 0, 5, &GOOD);
        let slow = Measured {
            round_trip: Some(650),
            ..GOOD
        };
        assert_eq!(run(&mut meter, 5, 1, &slow).mark, Mark::Good);
        assert_eq!(run(&mut meter, 6, 1, &GOOD).mark, Mark::Good);
        assert_eq!(run(&mut meter, 7, 2, &slow).mark, Mark::Poor);
    }

    #[test]
    fn silence_is_told_at_once() {
        let mut meter = Meter::default();
        run(&mut meter, 0, 5, &GOOD);
        let silent = Measured { silent: true, ..GOOD };
        assert_eq!(run(&mut meter, 5, 1, &silent).cause, Some(Cause::NoMedia));
    }

    #[test]
    fn a_mark_betters_after_five_good_seconds_without_a_break() {
        let mut meter = Meter::default();
        let slow = Measured {
            round_trip: Some(350),
            ..GOOD
        };
        assert_eq!(run(&mut meter, 0, 3, &slow).mark, Mark::Fair);
        assert_eq!(run(&mut meter, 3, 4, &GOOD).mark, Mark::Fair);
        assert_eq!(run(&mut meter, 7, 1, &slow).mark, Mark::Fair);
        assert_eq!(run(&mut meter, 8, 5, &GOOD).mark, Mark::Fair);
        assert_eq!(run(&mut meter, 13, 1, &GOOD).mark, Mark::Good);
    }

    #[test]
    fn around_a_threshold_the_mark_stands_still() {
        let mut meter = Meter::default();
        let mut marks = Vec::new();
        for second in 0..60 {
            let round_trip = Some(if second % 2 == 0 { 310 } else { 290 });
            marks.push(
                meter
                    .measure(Micros(second * 1_000_000), &Measured { round_trip, ..GOOD })
                    .mark,
            );
        }
        // A single second over it is none; with the mark once given, 290 ms keep it.
        assert!(
            marks.windows(2).filter(|pair| pair[0] != pair[1]).count() <= 1,
            "{marks:?}"
        );
        let slow = Measured {
            round_trip: Some(310),
            ..GOOD
        };
        assert_eq!(run(&mut meter, 60, 2, &slow).mark, Mark::Fair);
        let almost = Measured {
            round_trip: Some(241),
            ..GOOD
        };
        assert_eq!(run(&mut meter, 62, 30, &almost).mark, Mark::Fair);
        let below = Measured {
            round_trip: Some(239),
            ..GOOD
        };
        assert_eq!(run(&mut meter, 92, 7, &below).mark, Mark::Good);
    }

    #[test]
    fn the_reason_that_was_told_stays_while_it_holds() {
        let mut meter = Meter::default();
        let slow = Measured {
            round_trip: Some(400),
            ..GOOD
        };
        assert_eq!(run(&mut meter, 0, 3, &slow).cause, Some(Cause::Delay));
        let both = Measured {
            round_trip: Some(400),
            ..lossy(50)
        };
        assert_eq!(run(&mut meter, 3, 5, &both).cause, Some(Cause::Delay));
        assert_eq!(run(&mut meter, 8, 5, &lossy(50)).cause, Some(Cause::LossUp));
    }

    #[test]
    fn loss_of_a_quiet_second_is_a_mean_and_no_alarm() {
        let mut meter = Meter::default();
        let sound = Measured { received: 50, ..GOOD };
        run(&mut meter, 0, 5, &sound);
        let one = Measured {
            received: 48,
            lost: 2,
            ..GOOD
        };
        let quality = run(&mut meter, 5, 1, &one);
        assert_eq!((quality.up_loss, quality.mark), (13, Mark::Good));
    }

    #[test]
    fn only_what_is_noticeable_is_told_and_at_most_every_two_seconds() {
        let mut meter = Meter::default();
        let at = |ms: u64| Micros(ms * 1_000);
        let first = Quality {
            up_bps: 1_000_000,
            round_trip: Some(40),
            ..Quality::default()
        };
        assert!(meter.is_news(at(0), &first));
        let poor = Quality {
            mark: Mark::Poor,
            cause: Some(Cause::LossUp),
            ..first
        };
        assert!(!meter.is_news(at(1_000), &poor), "too soon");
        assert!(meter.is_news(at(2_000), &poor));
        let cases: &[(&str, Quality, bool)] = &[
            ("the same", poor, false),
            (
                "a tenth less",
                Quality {
                    up_bps: 900_000,
                    ..poor
                },
                false,
            ),
            (
                "a third less",
                Quality {
                    up_bps: 660_000,
                    ..poor
                },
                true,
            ),
            (
                "50 ms",
                Quality {
                    round_trip: Some(50),
                    ..poor
                },
                false,
            ),
            (
                "70 ms",
                Quality {
                    round_trip: Some(70),
                    ..poor
                },
                true,
            ),
            ("0.5 %", Quality { down_loss: 5, ..poor }, false),
            (
                "1 %",
                Quality {
                    down_loss: 10,
                    ..poor
                },
                true,
            ),
            (
                "another layer",
                Quality {
                    published: Some((320, 180)),
                    ..poor
                },
                true,
            ),
            (
                "another reason",
                Quality {
                    cause: Some(Cause::Delay),
                    ..poor
                },
                true,
            ),
        ];
        for (what, quality, told) in cases {
            assert_eq!(meter.clone().is_news(at(60_000), quality), *told, "{what}");
        }
    }
}

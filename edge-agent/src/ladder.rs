//! What a site sends when its link carries less: 1080p, 360p, stills with audio, audio, text. Known steps, each with a reason.
//!
//! Pure: time and what the link says come in, a [`Rung`] comes out. It goes down when the link was too narrow for
//! [`DOWN_AFTER`], at once as far as it must, and up a step at a time when there was room, and a fifth over, for a while:
//! [`UP_AFTER`] at first, twice as long each time that a step up proved wrong. A link that is dark counts as text only, and what was
//! sent before is sent again as soon as it is back. What it does not do: it encodes nothing and drops nothing, see
//! [`crate::valve`].

use std::time::{Duration, Instant};

use serde::Serialize;

const DOWN_AFTER: Duration = Duration::from_millis(600);
const UP_AFTER: Duration = Duration::from_secs(4);
const UP_AFTER_AT_MOST: Duration = Duration::from_secs(64);
/// A step up that is taken back within this was wrong.
const PROVED_AFTER: Duration = Duration::from_secs(15);
/// Dark for so long, and people are told.
const DARK_AFTER: Duration = Duration::from_secs(1);
/// What sound needs, and stills beside it, bits a second.
const AUDIO_BPS: u64 = 24_000;
const STILLS_BPS: u64 = 64_000;

/// What is sent, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Nothing: the site sees the stage's notices as far as they come.
    Text,
    Audio,
    /// A still every two seconds, with sound.
    Stills,
    /// The smallest layer, with sound.
    Small,
    /// Every layer that somebody watches.
    #[default]
    Full,
}

/// Why it is not more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The link carries no more.
    Narrow,
    /// Nothing comes back on the link.
    Dark,
}

/// What the link says now.
#[derive(Clone, Copy, Debug)]
pub struct Sees {
    /// What sources may send, bits a second.
    pub source_bps: u64,
    /// Whether that is a limit that was found, not only what was tried.
    pub limited: bool,
    pub dark: bool,
}

/// The ladder of one leg.
#[derive(Debug)]
pub struct Ladder {
    rung: Rung,
    small_bps: u64,
    full_bps: u64,
    narrow_since: Option<Instant>,
    room_since: Option<Instant>,
    dark_since: Option<Instant>,
    risen: Option<Instant>,
    up_after: Duration,
}

impl Ladder {
    /// For a camera with layers of these bit rates, the smallest first.
    pub fn new(layers_bps: &[u32]) -> Self {
        let all: u64 = layers_bps.iter().map(|&bps| u64::from(bps)).sum();
        let small = layers_bps.first().map_or(0, |&bps| u64::from(bps));
        Self {
            rung: Rung::Full,
            small_bps: small + AUDIO_BPS,
            full_bps: all + AUDIO_BPS,
            narrow_since: None,
            room_since: None,
            dark_since: None,
            risen: None,
            up_after: UP_AFTER,
        }
    }

    /// What is to be sent now, and why it is not all.
    pub fn look(&mut self, now: Instant, sees: Sees) -> (Rung, Option<Why>) {
        if sees.dark {
            let since = *self.dark_since.get_or_insert(now);
            (self.narrow_since, self.room_since) = (None, None);
            if now.saturating_duration_since(since) >= DARK_AFTER {
                return (Rung::Text, Some(Why::Dark));
            }
        } else {
            self.dark_since = None;
            self.step(now, sees);
        }
        (self.rung, (self.rung != Rung::Full).then_some(Why::Narrow))
    }

    fn need(&self, rung: Rung) -> u64 {
        match rung {
            Rung::Text => 0,
            Rung::Audio => AUDIO_BPS,
            Rung::Stills => STILLS_BPS,
            Rung::Small => self.small_bps,
            Rung::Full => self.full_bps,
        }
    }

    fn step(&mut self, now: Instant, sees: Sees) {
        let narrow = sees.limited && sees.source_bps * 10 < self.need(self.rung) * 9;
        if narrow {
            self.room_since = None;
            let since = *self.narrow_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= DOWN_AFTER {
                self.fall(sees.source_bps);
            }
            return;
        }
        self.narrow_since = None;
        let Some(next) = above(self.rung) else {
            self.prove(now);
            return;
        };
        if sees.limited && sees.source_bps * 10 < self.need(next) * 12 {
            self.room_since = None;
            return;
        }
        let since = *self.room_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.up_after {
            self.rung = next;
            (self.risen, self.room_since) = (Some(now), None);
        }
        self.prove(now);
    }

    fn fall(&mut self, bps: u64) {
        let fits = [Rung::Full, Rung::Small, Rung::Stills, Rung::Audio]
            .into_iter()
            .find(|&rung| rung < self.rung && self.need(rung) <= bps);
        self.rung = fits.unwrap_or(Rung::Text);
        self.narrow_since = None;
        if self.risen.take().is_some() {
            self.up_after = (self.up_after * 2).min(UP_AFTER_AT_MOST);
        }
    }

    /// A step up that has lasted was right.
    fn prove(&mut self, now: Instant) {
        if self
            .risen
            .is_some_and(|risen| now.saturating_duration_since(risen) >= PROVED_AFTER)
        {
            self.risen = None;
            self.up_after = UP_AFTER;
        }
    }
}

fn above(rung: Rung) -> Option<Rung> {
    match rung {
        Rung::Text => Some(Rung::Audio),
        Rung::Audio => Some(Rung::Stills),
        Rung::Stills => Some(Rung::Small),
        Rung::Small => Some(Rung::Full),
        Rung::Full => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        ladder: Ladder,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                ladder: Ladder::new(&[300_000, 2_000_000]),
                now: Instant::now(),
            }
        }

        /// So many seconds of the same; says each rung that it came to.
        fn run(&mut self, seconds: f64, sees: Sees) -> Vec<Rung> {
            let mut rungs = Vec::new();
            for _ in 0..(seconds * 10.0) as u32 {
                let (rung, why) = self.ladder.look(self.now, sees);
                assert_eq!(rung == Rung::Full, why.is_none());
                if rungs.last() != Some(&rung) {
                    rungs.push(rung);
                }
                self.now += Duration::from_millis(100);
            }
            rungs
        }
    }

    fn narrow(source_bps: u64) -> Sees {
        Sees {
            source_bps,
            limited: true,
            dark: false,
        }
    }

    const ROOM: Sees = Sees {
        source_bps: 400_000,
        limited: false,
        dark: false,
    };
    const DARK: Sees = Sees {
        source_bps: 0,
        limited: false,
        dark: true,
    };

    #[test]
    fn it_falls_as_far_as_it_must_and_no_further() {
        for (bps, rung) in [
            (1_000_000, Rung::Small),
            (100_000, Rung::Stills),
            (40_000, Rung::Audio),
            (9_000, Rung::Text),
        ] {
            let mut bench = Bench::new();
            assert_eq!(bench.run(0.5, narrow(bps)), [Rung::Full], "not for a moment");
            assert_eq!(bench.run(2.0, narrow(bps)).last(), Some(&rung), "{bps}");
        }
    }

    #[test]
    fn what_was_never_found_narrow_is_sent_whole() {
        assert_eq!(Bench::new().run(60.0, ROOM), [Rung::Full]);
    }

    #[test]
    fn it_climbs_a_step_at_a_time_with_room_to_spare() {
        let mut bench = Bench::new();
        bench.run(2.0, narrow(40_000));
        assert_eq!(
            bench.run(60.0, narrow(70_000)),
            [Rung::Audio],
            "a fifth over is asked for"
        );
        let steps = bench.run(40.0, ROOM);
        assert_eq!(steps, [Rung::Audio, Rung::Stills, Rung::Small, Rung::Full]);
    }

    #[test]
    fn a_step_that_proved_wrong_is_tried_less_and_less() {
        let mut bench = Bench::new();
        bench.run(2.0, narrow(400_000));
        let mut waits = Vec::new();
        for _ in 0..5 {
            let before = bench.now;
            while bench.run(0.1, ROOM) == [Rung::Small] {}
            waits.push((bench.now - before).as_secs());
            assert_eq!(bench.run(2.0, narrow(400_000)).last(), Some(&Rung::Small));
        }
        assert_eq!(waits, [4, 8, 16, 32, 64]);
    }

    #[test]
    fn the_dark_is_told_and_forgotten() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(0.9, DARK), [Rung::Full]);
        assert_eq!(bench.run(5.0, DARK).last(), Some(&Rung::Text));
        assert_eq!(bench.ladder.look(bench.now, DARK), (Rung::Text, Some(Why::Dark)));
        assert_eq!(bench.run(0.1, ROOM), [Rung::Full], "at once");
    }
}

//! Who is heard: the loudest voices, chosen seldom and changed reluctantly.
//!
//! Each packet costs O(1): its level (RFC 6464) moves a smoothed loudness, fast up, slowly down. A selection, O(voices),
//! runs at most every 100 ms (sooner when a place is free). A challenger must be louder by a margin for some time, and
//! who is chosen is held for a second, so that a cough cuts nobody off. Besides those heard there is a *reserve*, the
//! next loudest: those who are heard hear it in place of themselves. One of the speakers is the *active* one. A muted
//! voice is never chosen. Which slot plays which voice is not decided here.
//!
//! A voice that tells no levels is only guessed at, from the sizes of its packets (`sounding`). It has what room those
//! with levels leave: it never takes the place of who has spoken lately, gives way to who speaks, is no speaker while
//! another has spoken lately, and takes turns with its like.

use crate::sounding::{PacketSizes, Sounding};
use crate::source::SourceKey;
use crate::types::Micros;

/// How many voices are heard at once.
pub(crate) const HEARD: usize = 3;

/// Loudness is in hundredths of a decibel above -127 dBov.
type Loudness = i64;

const fn dbov(level: i64) -> Loudness {
    (127 + level) * 100
}

/// Taken for a voice without levels that sounds, and for one of which only that it sends is known: both are above
/// [`ENTRY`], and a margin below the next.
const LIVELY: Loudness = dbov(-62);
const STEADY: Loudness = dbov(-69);
/// Below this nobody takes a free place: a room's noise.
const ENTRY: Loudness = dbov(-70);
/// From here on a voice counts as speaking.
const SPEAKING: Loudness = dbov(-55);
/// By how much a challenger must be louder.
const MARGIN: Loudness = 600;
/// Fall of the smoothed loudness, a second.
const RELEASE_PER_S: Loudness = 3000;

const SELECT_EVERY_US: u64 = 100_000;
const SELECT_SOON_US: u64 = 20_000;
const CHALLENGE_US: u64 = 200_000;
/// How long another must be the loudest to be the active speaker: while that one goes on speaking, and once not.
const INTERRUPTS_US: u64 = 1_200_000;
const FOLLOWS_US: u64 = 500_000;
const HOLD_US: u64 = 1_000_000;
/// Without a packet for this long a voice is gone.
const GONE_US: u64 = 1_000_000;
/// A voice that has told a level within this time is not guessed at.
const LEVELS_US: u64 = 2_000_000;
/// For this long after speaking a voice is not ousted by a guess.
const LATELY_US: u64 = 5_000_000;
/// For this long a voice without levels is heard while its like wait.
const TURN_US: u64 = 4_000_000;

#[derive(Debug, Default)]
pub(crate) struct AudioSelector {
    /// By source key.
    voices: Vec<Option<Voice>>,
    /// Loudest first.
    heard: Vec<SourceKey>,
    reserve: Option<SourceKey>,
    speakers: Vec<SourceKey>,
    /// Who speaks, or spoke last.
    active: Option<SourceKey>,
    /// Who has been louder than the active speaker, and since when.
    next_active: Option<(SourceKey, Micros)>,
    /// When a voice with levels spoke last.
    spoke_at: Option<Micros>,
    select_at: Micros,
    selected_at: Option<Micros>,
}

#[derive(Debug, Default)]
struct Voice {
    loudness: Loudness,
    /// Last packet.
    at: Option<Micros>,
    muted: bool,
    chosen_at: Micros,
    challenging_since: Option<Micros>,
    loud_at: Option<Micros>,
    leveled_at: Option<Micros>,
    /// Its loudness is a guess, as it tells no levels.
    guessed: bool,
    sizes: PacketSizes,
    /// When it last lost its place among the heard.
    ousted_at: Micros,
}

impl Voice {
    fn loudness(&self, now: Micros) -> Loudness {
        let Some(at) = self.at else { return 0 };
        if self.guessed {
            return self.loudness;
        }
        let fall = now.since(at).min(10_000_000) as i64 * RELEASE_PER_S / 1_000_000;
        (self.loudness - fall).max(0)
    }

    fn eligible(&self, now: Micros) -> bool {
        !self.muted && self.at.is_some_and(|at| now.since(at) < GONE_US)
    }

    fn held(&self, now: Micros) -> bool {
        now.since(self.chosen_at) < HOLD_US
    }

    fn spoke_lately(&self, now: Micros) -> bool {
        !self.guessed && self.loud_at.is_some_and(|at| now.since(at) < LATELY_US)
    }

    /// Whether it is so much louder than the other as to go before it.
    fn outdoes(&self, now: Micros, other: &Voice) -> bool {
        match (self.guessed, other.guessed) {
            (true, false) if other.spoke_lately(now) => false,
            (false, true) if self.loudness(now) >= SPEAKING => true,
            _ => self.loudness(now) >= other.loudness(now) + MARGIN,
        }
    }

    fn level(&mut self, now: Micros, level: u8) {
        let (old, new) = (self.loudness(now), dbov(-i64::from(level.min(127))));
        if std::mem::take(&mut self.guessed) {
            self.loud_at = None;
        }
        self.loudness = if new > old { old + (new - old) * 2 / 3 } else { old };
        self.leveled_at = Some(now);
        if self.loudness >= SPEAKING {
            self.loud_at = Some(now);
        }
    }

    fn guess(&mut self, now: Micros, bytes: usize) {
        let sounding = self.sizes.take(now, bytes);
        if self.leveled_at.is_some_and(|at| now.since(at) < LEVELS_US) {
            self.loudness = self.loudness(now);
            return;
        }
        if !std::mem::replace(&mut self.guessed, true) {
            self.loud_at = None;
        }
        self.loudness = match sounding {
            Sounding::Silent => 0,
            Sounding::Steady => STEADY,
            Sounding::Lively => LIVELY,
        };
        if sounding != Sounding::Silent {
            self.loud_at = Some(now);
        }
    }
}

/// What a selection has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Who is heard, their order, or the reserve.
    pub heard: bool,
    pub speakers: bool,
    pub active: bool,
}

impl AudioSelector {
    pub fn add(&mut self, key: SourceKey, muted: bool) {
        if self.voices.len() <= key {
            self.voices.resize_with(key + 1, || None);
        }
        self.voices[key] = Some(Voice {
            muted,
            ..Voice::default()
        });
    }

    /// Select next, so that nobody goes on hearing it.
    pub fn remove(&mut self, key: SourceKey) {
        if let Some(voice) = self.voices.get_mut(key) {
            *voice = None;
        }
    }

    pub fn set_muted(&mut self, key: SourceKey, muted: bool) {
        if let Some(voice) = self.voice_mut(key) {
            voice.muted = muted;
        }
    }

    /// Takes one packet: its level, 0 loudest, 127 silence, and the size of its payload, which counts where it has none.
    pub fn hear(&mut self, now: Micros, key: SourceKey, level: Option<u8>, bytes: usize) {
        let Some(voice) = self.voices.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        match level {
            Some(level) => voice.level(now, level),
            None => voice.guess(now, bytes),
        }
        voice.at = Some(now);
        if !voice.guessed && voice.loud_at == Some(now) {
            self.spoke_at = Some(now);
        }
        if voice.loudness >= ENTRY && self.heard.len() < HEARD && !self.heard.contains(&key) {
            let soon = self.selected_at.map_or(now, |at| at.plus(SELECT_SOON_US));
            self.select_at = self.select_at.min(soon);
        }
    }

    pub fn is_due(&self, now: Micros) -> bool {
        now >= self.select_at
    }

    /// When to select although no packet comes: voices that fall silent must be let go.
    pub fn timeout(&self) -> Option<Micros> {
        (!self.heard.is_empty() || !self.speakers.is_empty()).then_some(self.select_at)
    }

    pub fn select(&mut self, now: Micros) -> Changes {
        self.selected_at = Some(now);
        self.select_at = now.plus(SELECT_EVERY_US);
        let before: [Option<SourceKey>; HEARD + 1] = self.chosen();
        let voices = &self.voices;
        self.heard
            .retain(|&key| voices[key].as_ref().is_some_and(|voice| voice.eligible(now)));
        self.fill(now);
        self.challenge(now);
        self.take_turns(now);
        self.order(now);
        self.choose_reserve(now);
        let heard = before != self.chosen();
        let speakers = self.list_speakers(now);
        Changes {
            heard,
            speakers,
            active: self.follow_active(now),
        }
    }

    /// Loudest first, at most [`HEARD`].
    pub fn heard(&self) -> &[SourceKey] {
        &self.heard
    }

    pub fn reserve(&self) -> Option<SourceKey> {
        self.reserve
    }

    /// Those of the heard who spoke within the last second, loudest first.
    pub fn speakers(&self) -> &[SourceKey] {
        &self.speakers
    }

    /// The loudest of the speakers, held until another has been louder for a while. Who has spoken last stays it
    /// through silence, until muted or gone.
    pub fn active(&self) -> Option<SourceKey> {
        self.active
    }

    fn voice_mut(&mut self, key: SourceKey) -> Option<&mut Voice> {
        self.voices.get_mut(key)?.as_mut()
    }

    fn voice(&self, key: SourceKey) -> Option<&Voice> {
        self.voices.get(key)?.as_ref()
    }

    fn loudness(&self, now: Micros, key: SourceKey) -> Loudness {
        self.voice(key).map_or(0, |voice| voice.loudness(now))
    }

    fn outdoes(&self, now: Micros, key: SourceKey, other: SourceKey) -> bool {
        let Some(voice) = self.voice(key) else {
            return false;
        };
        self.voice(other).is_none_or(|other| voice.outdoes(now, other))
    }

    fn guessed(&self, key: SourceKey) -> bool {
        self.voice(key).is_some_and(|voice| voice.guessed)
    }

    fn chosen(&self) -> [Option<SourceKey>; HEARD + 1] {
        let mut chosen = [None; HEARD + 1];
        for (place, &key) in chosen.iter_mut().zip(&self.heard) {
            *place = Some(key);
        }
        chosen[HEARD] = self.reserve;
        chosen
    }

    /// The loudest that is not heard, among those for whom `may` holds.
    fn loudest_outsider(&self, now: Micros, may: impl Fn(&Voice) -> bool) -> Option<SourceKey> {
        let outside = self.voices.iter().enumerate().filter_map(|(key, voice)| {
            let voice = voice.as_ref()?;
            let ok = voice.eligible(now) && voice.loudness(now) >= ENTRY && may(voice);
            (ok && !self.heard.contains(&key)).then(|| (voice.loudness(now), key))
        });
        // Of equals the first: a tie must not depend on anything but the order of joining.
        outside
            .max_by_key(|&(loudness, key)| (loudness, std::cmp::Reverse(key)))
            .map(|(_, key)| key)
    }

    fn fill(&mut self, now: Micros) {
        while self.heard.len() < HEARD {
            let Some(key) = self.loudest_outsider(now, |_| true) else {
                break;
            };
            self.enter(now, key);
        }
    }

    fn enter(&mut self, now: Micros, key: SourceKey) {
        self.heard.push(key);
        if let Some(voice) = self.voice_mut(key) {
            voice.chosen_at = now;
            voice.challenging_since = None;
        }
    }

    /// The weakest of the heard gives way to who has been louder by the margin for long enough.
    fn challenge(&mut self, now: Micros) {
        for _ in 0..HEARD {
            if self.heard.len() < HEARD {
                return;
            }
            let weakest = self
                .heard
                .iter()
                .map(|&key| self.loudness(now, key))
                .min()
                .unwrap_or(0);
            for voice in self.voices.iter_mut().flatten() {
                if voice.eligible(now) && voice.loudness(now) >= (weakest + MARGIN).max(ENTRY) {
                    voice.challenging_since.get_or_insert(now);
                } else {
                    voice.challenging_since = None;
                }
            }
            let patient = |voice: &Voice| {
                voice
                    .challenging_since
                    .is_some_and(|at| now.since(at) >= CHALLENGE_US)
            };
            let Some(challenger) = self.loudest_outsider(now, patient) else {
                return;
            };
            let Some(weakest) = self.weakest_against(now, challenger) else {
                return;
            };
            self.oust(now, weakest);
            self.enter(now, challenger);
        }
    }

    /// Who of the heard gives way to this one: the weakest of those whom it outdoes. Who holds a place for less than a
    /// second keeps it, unless by a guess only; and a guess goes before who has spoken lately.
    fn weakest_against(&self, now: Micros, challenger: SourceKey) -> Option<SourceKey> {
        let by_level = !self.guessed(challenger);
        let guesses = self.heard.iter().any(|&key| self.guessed(key));
        let yields = |key: &SourceKey| {
            let voice = self.voice(*key);
            let held = voice.is_some_and(|voice| voice.held(now) && !(voice.guessed && by_level));
            !held && self.outdoes(now, challenger, *key)
        };
        self.heard.iter().copied().filter(yields).min_by_key(|&key| {
            let lately = self.voice(key).is_some_and(|voice| voice.spoke_lately(now));
            (guesses && lately, self.loudness(now, key))
        })
    }

    /// Of the voices without levels, who has been heard for a turn gives way to who sounds no less and has waited the
    /// longest.
    fn take_turns(&mut self, now: Micros) {
        if self.heard.len() < HEARD {
            return;
        }
        let turn_over = |key: &SourceKey| {
            self.voice(*key)
                .is_some_and(|voice| voice.guessed && now.since(voice.chosen_at) >= TURN_US)
        };
        let heard = self.heard.iter().copied().filter(turn_over);
        let Some(last) =
            heard.min_by_key(|&key| (self.loudness(now, key), self.voice(key).map(|v| v.chosen_at)))
        else {
            return;
        };
        let least = self.loudness(now, last).max(ENTRY);
        let outside = self.voices.iter().enumerate().filter_map(|(key, voice)| {
            let voice = voice.as_ref()?;
            let waits = voice.guessed && voice.eligible(now) && voice.loudness >= least;
            (waits && !self.heard.contains(&key)).then_some((voice.ousted_at, key))
        });
        if let Some((_, next)) = outside.min() {
            self.oust(now, last);
            self.enter(now, next);
        }
    }

    fn oust(&mut self, now: Micros, key: SourceKey) {
        self.heard.retain(|&other| other != key);
        if let Some(voice) = self.voice_mut(key) {
            voice.ousted_at = now;
        }
    }

    /// Loudest first; two change places only by the margin, so that the order does not flicker.
    fn order(&mut self, now: Micros) {
        for end in (1..self.heard.len()).rev() {
            for i in 0..end {
                let [first, second] = [self.heard[i], self.heard[i + 1]];
                if self.outdoes(now, second, first) {
                    self.heard.swap(i, i + 1);
                }
            }
        }
    }

    fn choose_reserve(&mut self, now: Micros) {
        let best = self.loudest_outsider(now, |_| true);
        let Some(present) = self.reserve else {
            self.reserve = best;
            return self.mark_reserve(now);
        };
        let voice = self.voice(present);
        let usable = voice.is_some_and(|voice| voice.eligible(now)) && !self.heard.contains(&present);
        let held = voice.is_some_and(|voice| voice.held(now));
        let beaten = best.is_some_and(|best| {
            let by_level = self.guessed(present) && !self.guessed(best);
            self.outdoes(now, best, present) && (!held || by_level)
        });
        if !usable || beaten {
            self.reserve = best;
            self.mark_reserve(now);
        }
    }

    fn mark_reserve(&mut self, now: Micros) {
        if let Some(voice) = self.reserve.and_then(|key| self.voice_mut(key)) {
            voice.chosen_at = now;
        }
    }

    fn list_speakers(&mut self, now: Micros) -> bool {
        // A guess counts only where nobody is known to speak.
        let known = self.spoke_at.is_some_and(|at| now.since(at) < LATELY_US);
        let spoke = |key: SourceKey| {
            self.voice(key).is_some_and(|voice| {
                let loud = voice.loud_at.is_some_and(|at| now.since(at) < HOLD_US);
                loud && !(voice.guessed && known)
            })
        };
        let mut speakers = [None; HEARD];
        let speaking = self.heard.iter().copied().filter(|&key| spoke(key));
        for (place, key) in speakers.iter_mut().zip(speaking) {
            *place = Some(key);
        }
        let changed = !speakers.iter().flatten().eq(&self.speakers);
        if changed {
            self.speakers.clear();
            self.speakers.extend(speakers.iter().flatten());
        }
        changed
    }

    fn follow_active(&mut self, now: Micros) -> bool {
        let before = self.active;
        let present = self.active.and_then(|key| self.voice(key));
        let goes_on = present.is_some_and(|voice| voice.loudness(now) >= SPEAKING);
        let wait = if goes_on { INTERRUPTS_US } else { FOLLOWS_US };
        if !present.is_some_and(|voice| voice.eligible(now)) {
            self.active = None;
        }
        // Turns among those without levels are no news.
        let turn = |first: &SourceKey| {
            let both = self.guessed(*first) && self.active.is_some_and(|key| self.guessed(key));
            both && self.active.is_some_and(|key| !self.outdoes(now, *first, key))
        };
        match self.speakers.first().copied().filter(|first| !turn(first)) {
            Some(first) if self.active.is_none() => self.active = Some(first),
            Some(first) if self.active != Some(first) => {
                let since = match self.next_active {
                    Some((next, since)) if next == first => since,
                    _ => now,
                };
                self.next_active = Some((first, since));
                if now.since(since) < wait {
                    return self.active != before;
                }
                self.active = Some(first);
            }
            _ => {}
        }
        self.next_active = None;
        self.active != before
    }
}

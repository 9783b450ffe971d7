//! Audio: sent first, and as often as the loss asks for where rounds are too few.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::super::{Micros, plan, wire};
use super::demand::NO_PICTURE;
use super::{
    AUDIO_APART, AUDIO_MISS, BUNDLE_ROOM, Carried, EACH_TIME, FULL, HOLD, Held, MOST_OF_RATE, MOST_SPEECH,
    Sender, State, THRIFTY, TOGETHER,
};

impl Sender {
    /// How often a packet of audio goes out without being asked for, and how far apart, where rounds are too few.
    pub(super) fn redundancy(&self) -> Option<(u32, Micros)> {
        let room = self.terms.audio_deadline.saturating_sub(self.reach());
        let rounds = plan::rounds_after(room, 0, self.round());
        let loss = self.loss.share().clamp(0.001, 0.95);
        let times = (AUDIO_MISS.ln() / loss.ln()).ceil() as u32;
        let apart = (room / u64::from(times + 1)).clamp(AUDIO_APART.0, AUDIO_APART.1);
        let affordable = if self.is_thrifty() {
            (self.rate.get() as f64 * MOST_OF_RATE / EACH_TIME) as u32
        } else {
            u32::MAX
        };
        (times > rounds + 1 && affordable > 1).then_some((times.max(2).min(affordable), apart))
    }

    /// Sends audio: the next packet alone, or as many as are due in one datagram.
    pub(super) fn next_audio(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        let redundancy = self.redundancy();
        let least = self.path.one_way();
        let base = self.held_base;
        let alive = |number: u64, held: &VecDeque<Held>| {
            let held = number
                .checked_sub(base)
                .and_then(|index| held.get(index as usize));
            held.is_some_and(|held| held.state == State::Waiting && held.deadline >= now + least)
        };
        while self
            .speech
            .front()
            .is_some_and(|&number| !alive(number, &self.held))
            || self.speech.len() > MOST_SPEECH
        {
            let Some(number) = self.speech.pop_front() else {
                break;
            };
            let Some(held) = self.get(number) else { continue };
            if held.sent == 0 && held.state == State::Waiting {
                held.state = State::Gone;
                self.stats.expired += 1;
            }
        }
        let mut due: Vec<(Micros, u64)> = Vec::new();
        let mut new = 0;
        let mut oldest = now;
        for &number in &self.speech {
            let Some(held) = number
                .checked_sub(base)
                .and_then(|index| self.held.get(index as usize))
            else {
                continue;
            };
            let again =
                redundancy.is_some_and(|(times, apart)| held.sent < times && held.last_at + apart <= now);
            if alive(number, &self.held) && (held.sent == 0 || again) {
                new += usize::from(held.sent == 0);
                let since = if held.sent == 0 {
                    held.packet.captured
                } else {
                    held.last_at
                };
                oldest = oldest.min(since);
                due.push((if held.sent == 0 { 0 } else { held.last_at }, number));
            }
        }
        let thrifty = self.is_thrifty();
        let worth = match redundancy {
            None if thrifty => new >= TOGETHER || !due.is_empty() && oldest + HOLD <= now,
            None => new > 0,
            Some(_) => new > 0 || due.len() >= FULL || !due.is_empty() && oldest + AUDIO_APART.1 <= now,
        };
        if !worth {
            return None;
        }
        due.sort_unstable();
        let mut room = BUNDLE_ROOM;
        let mut numbers = Vec::new();
        for (_, number) in due {
            let size = self
                .get(number)
                .map_or(usize::MAX, |held| held.packet.body.len() + 4);
            if size > room || numbers.len() == wire::MOST_BUNDLED {
                break;
            }
            room -= size;
            numbers.push(number);
            if redundancy.is_none() && !thrifty {
                break;
            }
        }
        match numbers[..] {
            [] => self
                .speech
                .pop_front()
                .map(|number| self.send_one(now, number, scratch)),
            [number] => Some(self.send_one(now, number, scratch)),
            _ => Some(self.send_bundle(now, &numbers, scratch)),
        }
    }

    pub(super) fn send_bundle(&mut self, now: Micros, numbers: &[u64], scratch: &mut BytesMut) -> Bytes {
        let transmission = self.next_transmission();
        wire::begin_bundle(transmission as u16, scratch);
        for &number in numbers {
            if let Some(held) = self.get(number) {
                held.sent += 1;
                held.last = transmission;
                held.last_at = now;
                let body = held.packet.body.clone();
                wire::add_to_bundle(number as u16, &body, scratch);
            }
        }
        self.note(now, Carried::Many(numbers.into()), scratch)
    }

    /// Whether the path is so narrow that headers count. Heavy loss makes a path look narrow that is not: then a queue must
    /// have been seen.
    pub(super) fn is_thrifty(&self) -> bool {
        let seen = self.loss.share() <= NO_PICTURE || self.rate.slowed() > 0;
        self.rate.get() < THRIFTY && seen
    }
}

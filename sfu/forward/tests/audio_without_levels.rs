//! Who is heard where some tell no audio levels (RFC 6464): they have the room that the others leave.

mod common;
use std::collections::{BTreeMap, BTreeSet};

use common::{Publisher, Room};
use muster_forward::{Codec, Event};

/// What a site sends for 20 ms.
#[derive(Clone, Copy)]
enum Sound {
    /// At this level (-dBov).
    Level(u8),
    /// Without a level, so many bytes.
    Bytes(usize),
}

/// Sites "s1".."sN", each with a microphone, and site 9, which listens with three slots: 90, 91 and 92.
struct Hall {
    room: Room,
    voices: BTreeMap<u64, Publisher>,
    /// In milliseconds.
    at: u64,
    /// Packets that came of each site, and those of them that the listener heard.
    sent: BTreeMap<u64, u64>,
    heard: BTreeMap<u64, u64>,
}

impl Hall {
    fn new(sites: u64) -> Self {
        let mut room = Room::new();
        let mut voices = BTreeMap::new();
        for n in 1..=sites {
            room.microphone(n, &format!("s{n}"));
            voices.insert(n, Publisher::new((n * 1000) as u16, 0));
        }
        for slot in 90..93 {
            room.slot(slot, 9, "s9", true, &[Codec::Opus]);
        }
        let (sent, heard) = (BTreeMap::new(), BTreeMap::new());
        Hall {
            room,
            voices,
            at: 0,
            sent,
            heard,
        }
    }

    fn run(&mut self, seconds: u64, sound: impl Fn(u64, u64) -> Sound) {
        for _ in 0..seconds * 50 {
            for (&n, voice) in &mut self.voices {
                let packet = match sound(n, self.at) {
                    Sound::Level(level) => voice.voice(Some(level)),
                    Sound::Bytes(bytes) => {
                        let mut packet = voice.voice(None);
                        packet.payload = vec![0x78; bytes];
                        packet
                    }
                };
                let out = self.room.send(n, 0, &packet);
                *self.sent.entry(n).or_default() += 1;
                *self.heard.entry(n).or_default() += u64::from(!out.is_empty());
            }
            self.room.pass(20);
            self.at += 20;
        }
    }

    /// Percent of its packets.
    fn heard(&self, n: u64) -> u64 {
        self.heard[&n] * 100 / self.sent[&n]
    }

    fn listens_to(&self) -> BTreeSet<&str> {
        (90..93).filter_map(|slot| self.room.site(slot)).collect()
    }

    fn active(&self) -> Vec<String> {
        let site = |event: &Event| match event {
            Event::ActiveSpeakerChanged { site } => Some(site.as_deref().unwrap_or("nobody").to_owned()),
            _ => None,
        };
        self.room.events.iter().filter_map(site).collect()
    }
}

/// Speaks for `on` of each `on + off` milliseconds.
fn talk(at: u64, on: u64, off: u64, level: u8) -> Sound {
    Sound::Level(if at % (on + off) < on { level } else { 127 })
}

#[test]
fn one_without_levels_is_heard_and_may_be_the_active_speaker_where_nobody_else_speaks() {
    let mut hall = Hall::new(2);
    hall.run(10, |n, _| {
        if n == 1 {
            Sound::Bytes(80)
        } else {
            Sound::Level(127)
        }
    });
    assert!(hall.heard(1) > 95, "{:?}", hall.heard);
    assert_eq!(hall.active(), ["s1"]);
}

#[test]
fn five_without_levels_take_turns() {
    let mut hall = Hall::new(5);
    hall.run(60, |_, _| Sound::Bytes(80));
    for n in 1..=5 {
        assert!((40..=80).contains(&hall.heard(n)), "{:?}", hall.heard);
    }
    assert_eq!(hall.active().len(), 1, "turns are no news: {:?}", hall.active());
}

#[test]
fn who_speaks_with_a_level_is_heard_beside_three_without() {
    let mut hall = Hall::new(4);
    let sound = |n, at| {
        if n == 4 {
            talk(at, 2000, 1500, 42)
        } else {
            Sound::Bytes(80)
        }
    };
    hall.run(2, |n, _| {
        if n == 4 {
            Sound::Level(127)
        } else {
            Sound::Bytes(80)
        }
    });
    hall.at = 0;
    hall.run(1, sound);
    assert!(hall.listens_to().contains("s4"), "{:?}", hall.listens_to());
    (hall.sent, hall.heard) = Default::default();
    hall.run(59, sound);
    assert_eq!(hall.heard(4), 100, "{:?}", hall.heard);
    assert_eq!(hall.active().last().map(String::as_str), Some("s4"));
    for n in 1..=3 {
        assert!(
            hall.heard(n) > 50,
            "two places are left for the three: {:?}",
            hall.heard
        );
    }
}

#[test]
fn a_pause_of_who_speaks_makes_none_without_levels_the_active_speaker() {
    let mut hall = Hall::new(2);
    hall.run(60, |n, at| {
        if n == 2 {
            talk(at, 3000, 1500, 30)
        } else {
            Sound::Bytes(80)
        }
    });
    // Before the first word of the other, the one without levels may have been taken for it.
    let active = hall.active();
    assert_eq!(active.last().map(String::as_str), Some("s2"));
    assert!(active.len() <= 2, "{active:?}");
    assert!(hall.heard(1) > 95 && hall.heard(2) > 95, "{:?}", hall.heard);
}

#[test]
fn four_who_speak_in_turn_leave_no_place_to_those_without_levels() {
    let mut hall = Hall::new(7);
    let sound = |n: u64, at: u64| match n {
        1..=3 => Sound::Bytes(80),
        _ => Sound::Level(if at / 1000 % 4 == n - 4 { 30 } else { 127 }),
    };
    hall.run(5, sound);
    (hall.sent, hall.heard) = Default::default();
    hall.run(20, sound);
    assert!((1..=3).all(|n| hall.heard(n) == 0), "{:?}", hall.heard);
}

#[test]
fn of_those_without_levels_who_sounds_goes_before_who_only_sends() {
    let mut hall = Hall::new(5);
    // Pauses first, so that the fifth's speech is told from them.
    hall.run(5, |_, _| Sound::Bytes(30));
    hall.run(1, |n, _| Sound::Bytes(if n == 5 { 90 } else { 30 }));
    (hall.sent, hall.heard) = Default::default();
    hall.run(12, |n, _| Sound::Bytes(if n == 5 { 90 } else { 30 }));
    assert_eq!(hall.heard(5), 100, "{:?}", hall.heard);
}

#[test]
fn silence_without_levels_takes_no_place() {
    let mut hall = Hall::new(4);
    hall.run(10, |n, _| Sound::Bytes(if n == 4 { 60 } else { 3 }));
    assert_eq!(hall.listens_to(), BTreeSet::from(["s4"]));
    assert!(hall.heard(4) > 95, "{:?}", hall.heard);
}

#[test]
fn a_level_that_is_missing_now_and_then_changes_nothing() {
    let mut hall = Hall::new(4);
    hall.run(20, |n, at| match n {
        4 if at % 100 == 0 => Sound::Bytes(80),
        4 => Sound::Level(40),
        _ => Sound::Bytes(80),
    });
    assert!(hall.heard(4) > 95, "{:?}", hall.heard);
    assert_eq!(hall.active().last().map(String::as_str), Some("s4"));
}

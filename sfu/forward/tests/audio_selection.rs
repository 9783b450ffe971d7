//! Who is heard, by whom, and in which slot.
mod common;
use std::collections::BTreeMap;

use common::{Publisher, Room};
use muster_forward::{Codec, Event, Forwarded, LegId, SlotStatus};

/// Sites "s1".."sN", each with a microphone and three audio slots: site n has leg n, slots 10n, 10n+1, 10n+2.
struct Hall {
    room: Room,
    voices: BTreeMap<u64, Publisher>,
}

impl Hall {
    fn new(sites: u64) -> Self {
        let mut hall = Hall {
            room: Room::new(),
            voices: BTreeMap::new(),
        };
        for n in 1..=sites {
            hall.room.microphone(n, &format!("s{n}"));
            for slot in 0..3 {
                hall.room
                    .slot(10 * n + slot, n, &format!("s{n}"), true, &[Codec::Opus]);
            }
            hall.voices.insert(n, Publisher::new((n * 1000) as u16, 0));
        }
        hall
    }

    /// These speak at these levels (-dBov) for a while, the others send silence.
    fn speak(&mut self, ms: u64, levels: &[(u64, u8)]) -> Vec<Forwarded> {
        let mut out = Vec::new();
        for _ in 0..ms / 20 {
            for (&n, voice) in &mut self.voices {
                let level = levels
                    .iter()
                    .find(|&&(site, _)| site == n)
                    .map_or(127, |&(_, level)| level);
                out.extend(self.room.send(n, 0, &voice.voice(Some(level))));
            }
            self.room.pass(20);
        }
        out
    }

    /// The sites that a site hears, in order of its slots.
    fn hears(&self, n: u64) -> Vec<&str> {
        (0..3).filter_map(|slot| self.room.site(10 * n + slot)).collect()
    }

    fn speakers(&self) -> Option<Vec<String>> {
        self.room.events.iter().rev().find_map(|event| match event {
            Event::SpeakersChanged { sites } => Some(sites.iter().map(|site| site.to_string()).collect()),
            _ => None,
        })
    }
}

fn sorted(mut sites: Vec<&str>) -> Vec<&str> {
    sites.sort_unstable();
    sites
}

#[test]
fn each_hears_the_three_loudest_of_the_others() {
    let mut hall = Hall::new(6);
    hall.speak(500, &[(1, 20), (2, 30), (3, 40), (4, 50)]);
    assert_eq!(sorted(hall.hears(5)), ["s1", "s2", "s3"]);
    assert_eq!(sorted(hall.hears(1)), ["s2", "s3", "s4"]);
    assert_eq!(sorted(hall.hears(3)), ["s1", "s2", "s4"]);
    assert_eq!(
        hall.speakers().as_deref(),
        Some(&["s1", "s2", "s3"].map(String::from)[..])
    );
}

#[test]
fn a_packet_goes_to_each_listener_but_its_own_site() {
    let mut hall = Hall::new(4);
    hall.speak(300, &[(1, 20)]);
    let packet = hall
        .voices
        .get_mut(&1)
        .map(|voice| voice.voice(Some(20)))
        .expect("site 1");
    let out = hall.room.send(1, 0, &packet);
    let listeners: Vec<u64> = out.iter().map(|f| f.slot.0 / 10).collect();
    assert_eq!(listeners, [2, 3, 4]);
}

#[test]
fn the_muted_are_cut_at_once_and_stay_out() {
    let mut hall = Hall::new(5);
    hall.speak(300, &[(1, 20), (2, 30)]);
    assert!(hall.hears(5).contains(&"s1"));
    hall.room.stage(1, None, "s5", &["s1"]);
    assert!(!hall.hears(5).contains(&"s1"));
    hall.room.take_events();
    let out = hall.speak(2000, &[(1, 5), (2, 30)]);
    assert!(!out.is_empty() && !hall.hears(5).contains(&"s1"));
    hall.room.stage(2, None, "s5", &[]);
    hall.speak(300, &[(1, 5), (2, 30)]);
    assert!(hall.hears(5).contains(&"s1"));
}

#[test]
fn who_stays_keeps_the_slot() {
    let mut hall = Hall::new(6);
    hall.speak(1500, &[(1, 20), (2, 25), (3, 45)]);
    let before: Vec<String> = hall.hears(6).iter().map(|site| site.to_string()).collect();
    hall.speak(1500, &[(1, 20), (2, 25), (4, 30)]);
    let after = hall.hears(6);
    assert_eq!(sorted(after.clone()), ["s1", "s2", "s4"]);
    for (old, new) in before.iter().zip(after) {
        assert!(old == new || (old == "s3" && new == "s4"), "{before:?}");
    }
}

#[test]
fn a_little_louder_or_a_cough_displaces_nobody() {
    let mut hall = Hall::new(6);
    hall.speak(1500, &[(1, 20), (2, 25), (3, 30)]);
    hall.speak(1500, &[(1, 20), (2, 25), (3, 30), (4, 26)]);
    assert_eq!(sorted(hall.hears(6)), ["s1", "s2", "s3"]);
    hall.speak(100, &[(1, 20), (2, 25), (3, 30), (5, 5)]);
    assert_eq!(sorted(hall.hears(6)), ["s1", "s2", "s3"]);
    hall.speak(1000, &[(1, 20), (2, 25), (3, 30), (5, 5)]);
    assert_eq!(sorted(hall.hears(6)), ["s1", "s2", "s5"]);
}

#[test]
fn a_speaker_is_held_for_a_second() {
    let mut hall = Hall::new(6);
    hall.speak(100, &[(1, 20), (2, 25), (3, 40)]);
    hall.speak(700, &[(1, 20), (2, 25), (3, 40), (4, 10)]);
    assert!(hall.hears(6).contains(&"s3"));
    hall.speak(500, &[(1, 20), (2, 25), (3, 40), (4, 10)]);
    assert!(!hall.hears(6).contains(&"s3") && hall.hears(6).contains(&"s4"));
}

#[test]
fn a_voice_that_stops_or_leaves_frees_its_slot_and_the_speakers_end() {
    let mut hall = Hall::new(3);
    hall.speak(300, &[(1, 20), (2, 20)]);
    hall.room.meeting.remove_leg(hall.room.now, LegId(2));
    hall.room.drain();
    assert_eq!(hall.hears(3), ["s1"]);
    hall.room.pass(1500);
    assert_eq!((hall.hears(3), hall.room.status(30)), (vec![], SlotStatus::Empty));
    assert_eq!(hall.speakers(), Some(vec![]));
}

#[test]
fn a_slot_goes_on_counting_and_marks_where_a_new_voice_begins() {
    let mut hall = Hall::new(3);
    let mut out = hall.speak(200, &[(1, 20)]);
    hall.room.stage(1, None, "", &["s1"]);
    out.extend(hall.speak(200, &[(2, 20)]));
    let slot: Vec<&Forwarded> = out.iter().filter(|f| f.slot.0 == 30).collect();
    assert!(
        slot.windows(2)
            .all(|pair| pair[1].seq == pair[0].seq.wrapping_add(1))
    );
    let steps = slot
        .windows(2)
        .map(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp));
    assert!(
        steps.clone().all(|step| (960..48_000).contains(&step)),
        "{:?}",
        steps.collect::<Vec<_>>()
    );
    assert_eq!(slot.iter().filter(|f| f.marker).count(), 2);
    assert!(slot[0].marker);
}

#[test]
fn sound_is_wanted_while_anybody_can_hear() {
    let mut room = Room::new();
    room.microphone(1, "a");
    assert_eq!(room.wanted(1, 0), []);
    room.slot(10, 100, "b", true, &[Codec::Opus]);
    room.slot(11, 100, "b", true, &[Codec::Opus]);
    room.meeting.remove_leg(room.now, LegId(100));
    room.drain();
    assert_eq!(room.wanted(1, 0), [true, false]);
}

/// Who was told to be the active speaker, each time it changed.
fn active(hall: &Hall) -> Vec<String> {
    let site = |event: &Event| match event {
        Event::ActiveSpeakerChanged { site } => Some(site.as_deref().unwrap_or("nobody").to_owned()),
        _ => None,
    };
    hall.room.events.iter().filter_map(site).collect()
}

#[test]
fn the_active_speaker_is_the_loudest_and_is_told_once_a_change() {
    let mut hall = Hall::new(4);
    hall.speak(3000, &[(1, 20), (2, 40)]);
    assert_eq!(active(&hall), ["s1"]);
    hall.speak(3000, &[(1, 40), (2, 20)]);
    assert_eq!(active(&hall), ["s1", "s2"]);
}

#[test]
fn a_cough_or_a_little_more_does_not_make_an_active_speaker() {
    let mut hall = Hall::new(4);
    hall.speak(2000, &[(1, 30)]);
    hall.speak(200, &[(1, 30), (2, 10)]);
    hall.speak(2000, &[(1, 30)]);
    hall.speak(3000, &[(1, 30), (3, 27)]);
    assert_eq!(active(&hall), ["s1"]);
    hall.speak(2000, &[(1, 30), (2, 10)]);
    assert_eq!(active(&hall), ["s1", "s2"]);
}

#[test]
fn who_takes_the_turn_is_the_active_speaker_within_a_second() {
    let mut hall = Hall::new(4);
    hall.speak(2000, &[(1, 30)]);
    hall.speak(1000, &[(2, 30)]);
    assert_eq!(active(&hall), ["s1", "s2"]);
}

#[test]
fn who_spoke_last_stays_the_active_speaker_until_muted_or_gone() {
    let mut hall = Hall::new(3);
    hall.speak(1000, &[(1, 30)]);
    hall.speak(5000, &[]);
    assert_eq!(active(&hall), ["s1"]);
    hall.room.stage(1, None, "", &["s1"]);
    assert_eq!(active(&hall), ["s1", "nobody"]);
    hall.speak(1000, &[(2, 30)]);
    hall.room.meeting.remove_leg(hall.room.now, LegId(2));
    hall.room.drain();
    assert_eq!(active(&hall), ["s1", "nobody", "s2", "nobody"]);
}

#[test]
fn two_who_talk_at_once_do_not_make_the_active_speaker_flicker() {
    let mut hall = Hall::new(3);
    hall.speak(1000, &[(1, 25), (2, 25)]);
    for n in 0..50 {
        let louder = [(1, 25 - (n % 2) * 8), (2, 17 + (n % 2) * 8)];
        hall.speak(200, &louder);
    }
    assert!(active(&hall).len() <= 2, "{:?}", active(&hall));
}

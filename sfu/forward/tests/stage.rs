//! Stage slots follow the stage document.
mod common;
use common::{Publisher, Room};
use muster_forward::{Codec, Event, SlotStatus, SourceId, SourceKind, Stage};

fn room() -> Room {
    let mut room = Room::new();
    room.camera(1, "a", &[180]);
    room.camera(2, "desk:chair", &[180]);
    room.video_slot(10, 100);
    room.wish(100, &[(10, "stage", 0)]);
    room
}

#[test]
fn without_a_stage_the_slot_is_empty() {
    assert_eq!(room().status(10), SlotStatus::Empty);
}

#[test]
fn the_broadcast_site_is_shown_and_else_the_chair() {
    let mut room = room();
    room.stage(1, Some("a"), "desk:chair", &[]);
    assert_eq!(room.site(10), Some("a"));
    room.stage(2, None, "desk:chair", &[]);
    assert_eq!(room.site(10), Some("desk:chair"));
    room.stage(3, None, "", &[]);
    assert_eq!((room.status(10), room.site(10)), (SlotStatus::Empty, None));
}

#[test]
fn an_older_or_equal_version_is_ignored() {
    let mut room = room();
    room.stage(5, Some("a"), "desk:chair", &[]);
    room.stage(5, None, "desk:chair", &[]);
    room.stage(4, None, "desk:chair", &[]);
    assert_eq!(room.site(10), Some("a"));
}

#[test]
fn the_old_picture_goes_on_until_the_new_site_has_a_key_frame() {
    let mut room = room();
    let (mut a, mut chair) = (Publisher::new(100, 180), Publisher::new(60_000, 180));
    room.stage(1, Some("a"), "desk:chair", &[]);
    let first = room.send(1, 0, &a.key())[0];
    room.stage(2, None, "desk:chair", &[]);
    assert_eq!(
        (room.status(10), room.site(10)),
        (SlotStatus::Waiting, Some("desk:chair"))
    );
    room.pass(40);
    assert_eq!(room.send(1, 0, &a.delta()).len(), 1);
    assert!(room.send(2, 0, &chair.delta()).is_empty());
    room.pass(40);
    let switched = room.send(2, 0, &chair.key())[0];
    assert_eq!(room.status(10), SlotStatus::Live);
    assert_eq!(switched.seq, first.seq.wrapping_add(2));
    assert!(room.send(1, 0, &a.delta()).is_empty());
    assert_eq!(room.wanted(1, 0), [true, false]);
    let ids: Vec<u16> = room
        .out
        .iter()
        .filter_map(|f| f.patch)
        .map(|patch| patch.picture_id)
        .collect();
    assert!(
        ids.windows(2).all(|pair| pair[1] == (pair[0] + 1) & 0x7fff),
        "{ids:?}"
    );
}

/// Two sites with camera and microphone, the chair's desk, and a viewer of the stage that hears.
fn parley() -> Room {
    let mut room = room();
    room.camera(3, "b", &[180]);
    room.microphone(11, "a");
    room.microphone(12, "b");
    room.slot(20, 100, "viewer", true, &[Codec::Opus]);
    room.set_stage(following(1));
    room
}

fn following(version: u64) -> Stage {
    Stage {
        version,
        chair: "desk:chair".into(),
        voice_switching: true,
        ..Stage::default()
    }
}

/// Speech and pictures, in steps of 20 ms: who speaks (source of the microphone), which cameras send.
struct Parley {
    room: Room,
    voices: [Publisher; 2],
    cameras: [Publisher; 2],
    filming: [bool; 2],
}

impl Parley {
    fn new() -> Self {
        Parley {
            room: parley(),
            voices: [Publisher::new(10, 0), Publisher::new(20, 0)],
            cameras: [Publisher::new(30, 180), Publisher::new(40, 180)],
            filming: [true; 2],
        }
    }

    /// Lets time pass with these levels of a and b; returns when the large picture changed, in ms from here, and to whom.
    fn talk(&mut self, ms: u64, levels: [u8; 2]) -> Vec<(u64, String)> {
        let mut changes = Vec::new();
        for step in 0..ms / 20 {
            let before = self.room.site(10).map(str::to_owned);
            for (index, source) in [11, 12].into_iter().enumerate() {
                let voice = self.voices[index].voice(Some(levels[index]));
                self.room.send(source, 0, &voice);
            }
            for (index, source) in [1, 3].into_iter().enumerate() {
                if self.filming[index] {
                    let picture = self.cameras[index].key();
                    self.room.send(source, 0, &picture);
                }
            }
            self.room.pass(20);
            let after = self.room.site(10).map(str::to_owned);
            if before != after {
                changes.push(((step + 1) * 20, after.unwrap_or_default()));
            }
        }
        changes
    }

    fn shown(&self) -> Option<&str> {
        self.room.site(10)
    }
}

const SPEAKS: u8 = 20;
const SILENT: u8 = 127;

#[test]
fn the_large_picture_follows_who_speaks_and_stays_through_silence() {
    let mut parley = Parley::new();
    assert_eq!(parley.shown(), Some("desk:chair"), "nobody has spoken");
    parley.talk(1000, [SPEAKS, SILENT]);
    assert_eq!(parley.shown(), Some("a"));
    assert_eq!(parley.talk(20_000, [SILENT, SILENT]), []);
    parley.talk(3000, [SILENT, SPEAKS]);
    assert_eq!(parley.shown(), Some("b"));
    let told: Vec<_> = parley.room.take_events();
    let told = told.into_iter().filter_map(|event| match event {
        Event::ShownSpeakerChanged { site } => site,
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), ["a".into(), "b".into()]);
    parley.room.stage(2, None, "desk:chair", &[]);
    assert_eq!(parley.shown(), Some("desk:chair"), "it follows no more");
}

#[test]
fn every_speaker_is_shown_for_two_seconds_at_least() {
    let mut parley = Parley::new();
    let mut changes = Vec::new();
    for turn in 0..20_u64 {
        let levels = if turn % 2 == 0 {
            [SPEAKS, SILENT]
        } else {
            [SILENT, SPEAKS]
        };
        let told = parley.talk(1500, levels);
        changes.extend(told.into_iter().map(|(at, _)| turn * 1500 + at));
    }
    assert!(changes.len() >= 3, "{changes:?}");
    assert!(
        changes.windows(2).all(|pair| pair[1] - pair[0] >= 2000),
        "{changes:?}"
    );
}

#[test]
fn one_who_is_muted_or_sends_no_picture_is_passed_over() {
    let mut parley = Parley::new();
    parley.talk(3000, [SPEAKS, SILENT]);
    parley.room.set_stage(Stage {
        muted: vec!["b".into()],
        ..following(2)
    });
    assert_eq!(parley.talk(4000, [SILENT, SPEAKS]), [], "muted");
    parley.room.meeting.remove_source(parley.room.now, SourceId(3));
    parley.room.set_stage(following(3));
    assert_eq!(parley.talk(4000, [SILENT, SPEAKS]), [], "without a camera");
    parley.room.camera(3, "b", &[180]);
    parley.filming[1] = false;
    let changes = parley.talk(6000, [SILENT, SPEAKS]);
    assert!(
        changes.iter().all(|(_, site)| site != "b") || parley.shown() != Some("b"),
        "a camera that sends nothing was kept: {changes:?}"
    );
    parley.filming[1] = true;
    parley.talk(12_000, [SILENT, SPEAKS]);
    assert_eq!(parley.shown(), Some("b"));
}

#[test]
fn a_broadcast_goes_before_and_who_speaks_meanwhile_is_shown_after_it() {
    let mut parley = Parley::new();
    parley.talk(3000, [SPEAKS, SILENT]);
    parley.room.set_stage(Stage {
        broadcast: Some("desk:chair".into()),
        ..following(2)
    });
    assert_eq!(parley.talk(4000, [SILENT, SPEAKS]), []);
    assert_eq!(parley.shown(), Some("desk:chair"));
    parley.room.set_stage(following(3));
    assert_eq!(parley.shown(), Some("b"));
}

#[test]
fn who_comes_late_is_shown_whom_the_others_see() {
    let mut room = parley();
    room.meeting.adopt_speaker(room.now, &"b".into());
    room.drain();
    assert_eq!(room.site(10), Some("b"));
    room.meeting.adopt_speaker(room.now, &"a".into());
    assert_eq!(room.site(10), Some("b"), "known here by now");
}

#[test]
fn voices_are_wanted_while_the_stage_follows_them_though_nobody_listens() {
    let mut room = room();
    room.microphone(11, "a");
    room.set_stage(following(1));
    room.stage(2, None, "desk:chair", &[]);
    assert_eq!(room.wanted(11, 0), [true, false]);
}

#[test]
fn content_has_a_place_of_its_own() {
    let mut room = room();
    room.video_slot(12, 100);
    room.wish(100, &[(10, "stage", 0), (12, "content", 0)]);
    assert_eq!(room.status(12), SlotStatus::Empty);
    let content = |version, site: Option<&str>| Stage {
        version,
        chair: "desk:chair".into(),
        content: site.map(Into::into),
        ..Stage::default()
    };
    room.set_stage(content(1, Some("a")));
    assert_eq!((room.status(12), room.site(12)), (SlotStatus::Absent, Some("a")));
    room.source(5, "a", SourceKind::Content, Codec::Vp8, &[720]);
    room.send(5, 0, &Publisher::new(7, 720).key());
    assert_eq!((room.status(12), room.state(12).height), (SlotStatus::Live, 720));
    assert_eq!(room.site(10), Some("desk:chair"));
    room.set_stage(content(2, None));
    assert_eq!(room.status(12), SlotStatus::Empty);
}

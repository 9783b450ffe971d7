//! The sending half without a leg: what is written, in what order, and what waits.

use std::time::{Duration, Instant};

use super::*;
use crate::media::OfferedSlot;
use crate::negotiate::Coding;
use crate::rtp::Rtp;
use crate::srtp::Profile;
use crate::test_support::instant;

const MS: Duration = Duration::from_millis(1);
const MID: u8 = 1;
const NUMBER: u8 = 3;

struct Viewer {
    now: Instant,
    sender: Sender,
    store: PacketStore,
    flow: Flow,
    srtp: Srtp,
    theirs: Srtp,
    batch: SendBatch,
}

fn plan(mid: &str, codec: Codec, pt: u8, rtx_pt: Option<u8>) -> SlotPlan {
    SlotPlan {
        offered: OfferedSlot {
            descriptors: false,
            mid: mid.to_owned(),
            audio: codec == Codec::Opus,
            codecs: vec![codec],
        },
        codings: vec![Coding {
            codec,
            pt,
            fmtp: String::new(),
            rtx_pt,
            red: None,
        }],
        mid_extension: Some(MID),
        level_extension: None,
        twcc_extension: Some(NUMBER),
        dependency_extension: None,
    }
}

/// A packet as the viewer opens it.
struct Seen {
    rtp: Rtp,
    number: u16,
    payload: Vec<u8>,
}

impl Viewer {
    /// Slot 0 is video with retransmissions, slot 1 sound.
    fn new() -> Self {
        let now = instant();
        let plans = vec![
            plan("v", Codec::Vp8, 96, Some(97)),
            plan("a", Codec::Opus, 111, None),
        ];
        let material: Vec<u8> = (0..Profile::AeadAes128Gcm.keying_length() as u8).collect();
        let keys = |client| Srtp::from_material(Profile::AeadAes128Gcm, &material, client).expect("keys");
        Self {
            now,
            flow: Flow::new(now, &plans),
            sender: Sender::new(now, plans, &[10, 20], &[11, 21]),
            store: PacketStore::new(),
            srtp: keys(false),
            theirs: keys(true),
            batch: SendBatch::new(),
        }
    }

    fn push(&mut self, slot: usize, seq: u16, payload: &[u8]) {
        let rtp = self.packet(slot, seq, payload);
        assert_eq!(self.sender.push(self.now, slot, &rtp), Pushed::Queued);
    }

    /// As [`Viewer::push`], in a turn of the leg.
    fn pass(&mut self, slot: usize, seq: u16, payload: &[u8]) {
        let (rtp, now) = (self.packet(slot, seq, payload), self.now);
        let pushed = self.turn(|sender, turn| sender.pass(now, slot, &rtp, turn));
        assert_eq!(pushed, Pushed::Queued);
    }

    fn packet(&mut self, slot: usize, seq: u16, payload: &[u8]) -> QueuedRtp {
        QueuedRtp {
            place: self.store.push(self.now, payload).expect("short"),
            codec: if slot == 0 { Codec::Vp8 } else { Codec::Opus },
            seq,
            timestamp: 7,
            marker: true,
            starts_key_frame: false,
            audio_level: None,
            patch: None,
            descriptor: 0,
            redundancy: 0,
            age_us: 0,
        }
    }

    /// What leaves now.
    fn leaves(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        loop {
            self.batch.clear();
            self.turn(Sender::fill);
            if self.batch.len() == 0 {
                return seen;
            }
            seen.extend(self.written());
        }
    }

    /// Of one stream; without what probes add.
    fn leaves_of(&mut self, ssrc: u32) -> Vec<Seen> {
        let mut seen = self.leaves();
        seen.retain(|seen| seen.rtp.ssrc == ssrc);
        seen
    }

    /// A part of a turn.
    fn turn<T>(&mut self, part: impl FnOnce(&mut Sender, &mut Turn<'_>) -> T) -> T {
        self.flow.pacer.set_rate(self.now, self.flow.side.pacing_bps());
        let mut turn = Turn {
            now: self.now,
            store: &self.store,
            srtp: &mut self.srtp,
            flow: &mut self.flow,
            batch: &mut self.batch,
        };
        part(&mut self.sender, &mut turn)
    }

    /// What is in the batch.
    fn written(&mut self) -> Vec<Seen> {
        let mut rest = self.batch.bytes().to_vec();
        let lengths = self.batch.lengths().to_vec();
        let open = |length| {
            let next = rest.split_off(length);
            self.open(std::mem::replace(&mut rest, next))
        };
        lengths.into_iter().map(open).collect()
    }

    fn open(&mut self, mut wire: Vec<u8>) -> Seen {
        let header = Rtp::header(&wire).expect("RTP");
        let length = self.theirs.unprotect_rtp(&mut wire, header.payload.start);
        let plain = &wire[..length.expect("authentic")];
        let rtp = header.opened(plain).expect("good padding");
        let number = rtp.extension(plain, NUMBER).expect("numbered");
        assert!(rtp.extension(plain, MID).is_some());
        Seen {
            number: u16::from_be_bytes([number[0], number[1]]),
            payload: plain[rtp.payload.clone()].to_vec(),
            rtp,
        }
    }
}

#[test]
fn a_lost_packet_is_repeated_by_its_own_stream_and_all_are_numbered() {
    let mut viewer = Viewer::new();
    viewer.flow.side.set_can_probe(false);
    viewer.push(0, 100, b"one");
    viewer.push(0, 101, b"two");
    viewer.push(1, 5, b"sound");
    let first = viewer.leaves();
    let names: Vec<_> = first.iter().map(|seen| (seen.rtp.ssrc, seen.rtp.seq)).collect();
    assert_eq!(names, [(20, 5), (10, 100), (10, 101)], "sound goes first");
    viewer.now += 40 * MS;
    viewer.sender.ask_again(viewer.now, 10, 100, Some(MS));
    viewer.sender.ask_again(viewer.now, 10, 99, Some(MS));
    let again = viewer.leaves();
    assert_eq!(again.len(), 1);
    let rtp = &again[0].rtp;
    assert_eq!((rtp.ssrc, rtp.pt, rtp.timestamp, rtp.marker), (11, 97, 7, true));
    assert_eq!(
        again[0].payload, b"\x00\x64one",
        "the number that it had, then itself"
    );
    viewer.now += 40 * MS;
    viewer.sender.ask_again(viewer.now, 10, 100, Some(MS));
    let twice = viewer.leaves();
    assert_eq!(twice[0].rtp.seq, rtp.seq.wrapping_add(1));
    let numbers: Vec<u16> = first
        .iter()
        .chain(&again)
        .chain(&twice)
        .map(|seen| seen.number)
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4], "one count for all streams");
}

#[test]
fn a_key_frame_is_spread_and_sound_does_not_wait_for_it() {
    let mut viewer = Viewer::new();
    viewer.flow.side.set_can_probe(false);
    for seq in 0..200 {
        viewer.push(0, seq, &[1; 1200]);
    }
    let at_once = viewer.leaves().len();
    assert!((1..=15).contains(&at_once), "{at_once}");
    viewer.push(1, 1, b"sound");
    let sound = viewer.leaves();
    assert_eq!((sound.len(), sound[0].rtp.ssrc), (1, 20));
    let mut left = at_once;
    let begun = viewer.now;
    while left < 200 {
        let wake = viewer.sender.wake(&viewer.flow).expect("something waits");
        assert!(wake > viewer.now, "no turn in vain");
        viewer.now = wake;
        let more = viewer.leaves().len();
        assert!(more > 0);
        left += more;
    }
    assert_eq!(viewer.sender.wake(&viewer.flow), None);
    assert_eq!(viewer.sender.dropped(), 0);
    // 240 kB at 2.5 times 600 kbit/s.
    let took = viewer.now - begun;
    assert!((1100 * MS..1400 * MS).contains(&took), "{took:?}");
}

#[test]
fn a_probe_is_padding_that_no_decoder_sees() {
    let mut viewer = Viewer::new();
    viewer.push(0, 100, b"picture");
    let mut seen = viewer.leaves();
    for _ in 0..20 {
        viewer.now += MS;
        seen.extend(viewer.leaves());
    }
    let probe: Vec<&Seen> = seen.iter().filter(|seen| seen.rtp.ssrc == 11).collect();
    assert!(probe.len() >= 5, "{} packets", probe.len());
    assert!(
        probe
            .iter()
            .all(|seen| seen.payload.is_empty() && seen.rtp.pt == 97)
    );
    let numbers: Vec<u16> = seen.iter().map(|seen| seen.number).collect();
    assert_eq!(numbers, (0..seen.len() as u16).collect::<Vec<_>>());
}

#[test]
fn in_a_turn_a_packet_is_written_at_once_unless_something_waits_before_it() {
    let mut viewer = Viewer::new();
    // As one after the other, so through the queue.
    viewer.pass(0, 1, b"first");
    viewer.pass(1, 9, b"sound");
    let seen = viewer.written();
    assert_eq!((seen[0].payload.as_slice(), seen[0].number), (&b"first"[..], 0));
    assert_eq!((seen[1].payload.as_slice(), seen[1].number), (&b"sound"[..], 1));
    assert_eq!(viewer.batch.queued_at(), Some(viewer.now));
    assert_eq!(viewer.sender.waiting(), 0);

    // The pacer's bucket is empty: pictures wait, sound does not.
    viewer.batch.clear();
    let mut seq = 2;
    while viewer.sender.waiting() < 2 {
        viewer.pass(0, seq, &[0; 1000]);
        seq += 1;
    }
    let written = viewer.batch.len();
    assert!((1..MAX_BATCH).contains(&written), "{written} left");
    viewer.pass(1, 10, b"sound");
    let seen = viewer.written();
    assert_eq!(seen.len(), written + 1);
    assert_eq!(seen[written].payload, b"sound");
    // And no picture passes those that wait, though the pacer would let it.
    viewer.now += 1000 * MS;
    viewer.batch.clear();
    viewer.pass(0, seq, b"last");
    assert_eq!((viewer.batch.len(), viewer.sender.waiting()), (0, 3));
    let seqs: Vec<u16> = viewer.leaves_of(10).iter().map(|seen| seen.rtp.seq).collect();
    assert_eq!(seqs, [seq - 2, seq - 1, seq]);

    // A full batch is the end of what is written at once.
    viewer.now += 1000 * MS;
    viewer.batch.clear();
    for sound in 0..MAX_BATCH as u16 + 5 {
        viewer.pass(1, 11 + sound, b"sound");
    }
    assert_eq!((viewer.batch.len(), viewer.sender.waiting()), (MAX_BATCH, 5));
    assert_eq!(viewer.leaves_of(20).len(), 5);

    // What does not fit its slot is refused, and what is gone is counted.
    let mut odd = viewer.packet(0, 77, b"odd");
    odd.codec = Codec::Opus;
    let now = viewer.now;
    assert_eq!(viewer.turn(|s, turn| s.pass(now, 0, &odd, turn)), Pushed::Refused);
    assert_eq!(viewer.turn(|s, turn| s.pass(now, 5, &odd, turn)), Pushed::Refused);
    let mut gone = viewer.packet(1, 78, b"gone");
    gone.place = crate::Place::from_numbers((1 << 40, 4));
    viewer.batch.clear();
    let dropped = viewer.sender.dropped();
    assert_eq!(viewer.turn(|s, turn| s.pass(now, 1, &gone, turn)), Pushed::Queued);
    assert_eq!((viewer.batch.len(), viewer.sender.dropped()), (0, dropped + 1));
}

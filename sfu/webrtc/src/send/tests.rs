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
        let rtp = QueuedRtp {
            place: self.store.push(self.now, payload).expect("short"),
            codec: if slot == 0 { Codec::Vp8 } else { Codec::Opus },
            seq,
            timestamp: 7,
            marker: true,
            starts_key_frame: false,
            audio_level: None,
            patch: None,
            redundancy: 0,
            age_us: 0,
        };
        assert_eq!(self.sender.push(self.now, slot, &rtp), Pushed::Queued);
    }

    /// What leaves now.
    fn leaves(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        loop {
            self.batch.clear();
            self.sender.fill(
                self.now,
                &self.store,
                &mut self.srtp,
                &mut self.flow,
                &mut self.batch,
            );
            let mut rest = self.batch.bytes().to_vec();
            for length in self.batch.lengths().to_vec() {
                let next = rest.split_off(length);
                seen.push(self.open(rest));
                rest = next;
            }
            if self.batch.len() == 0 {
                return seen;
            }
        }
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

//! What one copy of a packet costs in the core: `handle_packet` over the slots of one layer, and what one that is left
//! out costs.
//!
//! CPU time of this thread, VP8 frames of nine packets of 1200 bytes with picture ids and three temporal layers, the best
//! of several rounds: other work on the machine disturbs single rounds. Prints a line of JSON a case; `target` is
//! what a copy may cost, nanoseconds.

#![allow(clippy::disallowed_methods)] // this measures time

mod clock;

use std::hint::black_box;
use std::time::Duration;

use muster_forward::{
    Codec, LegId, Meeting, Micros, Packet, SlotId, SlotSpec, SourceId, SourceKind, SourceSpec, Wish, WishWhat,
};

use clock::{ROUNDS, cpu_time};

const PACKETS_A_FRAME: u64 = 9;
const FRAMES: u64 = 300;
const WARM_UP: u64 = 60;
/// A quarter of the frames is 0.7 Mbit/s.
const BASE_FRAMES_BPS: u64 = 1_000_000;

struct Case {
    name: &'static str,
    sources: u64,
    slots_each: u64,
    /// Every viewer's link carries the base frames only.
    thinned: bool,
    target: u64,
}

/// A packet of a frame of a layer with picture ids and temporal layers.
fn payload(frame: u64, packet: u64) -> Vec<u8> {
    let mut payload = vec![0x80 | if packet == 0 { 0x10 } else { 0 }, 0xe0];
    payload.extend((0x8000 | (frame as u16 & 0x7fff)).to_be_bytes());
    let tid = [0u8, 2, 1, 2][(frame % 4) as usize];
    payload.extend([(frame / 4) as u8, tid << 6 | 0x20]);
    if frame == 0 && packet == 0 {
        payload.extend([0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]);
    }
    payload.resize(1200, 0x11);
    payload
}

/// Every source is shown in `slots_each` slots, each of a leg of its own.
fn meeting(case: &Case, now: Micros) -> Meeting {
    let mut meeting = Meeting::new();
    for source in 0..case.sources {
        let site: std::sync::Arc<str> = format!("site {source}").into();
        meeting.add_source(
            now,
            SourceSpec {
                id: SourceId(source),
                leg: LegId(1_000_000 + source),
                site: site.clone(),
                kind: SourceKind::Camera,
                codec: Codec::Vp8,
                layers: Vec::new(),
            },
        );
        for viewer in 0..case.slots_each {
            let id = source * case.slots_each + viewer;
            meeting.add_slot(
                now,
                SlotSpec {
                    id: SlotId(id),
                    leg: LegId(id),
                    site: "viewer".into(),
                    audio: false,
                    codecs: vec![Codec::Vp8],
                    descriptors: false,
                    seed: id,
                },
            );
            let what = WishWhat::Source {
                site: site.clone(),
                kind: SourceKind::Camera,
            };
            let wish = Wish {
                slot: SlotId(id),
                what,
                max_width: 1280,
                max_height: 720,
            };
            meeting.set_wishes(now, LegId(id), vec![wish]);
        }
    }
    while meeting.poll_event().is_some() {}
    meeting
}

/// Nanoseconds a packet and slot, sent or left out.
fn round(case: &Case) -> f64 {
    let mut now = Micros(1_000_000);
    let mut meeting = meeting(case, now);
    let mut out = Vec::with_capacity(4096);
    let (mut copies, mut sent, mut spent) = (0, 0, Duration::ZERO);
    let slots = case.sources * case.slots_each;
    for frame in 0..FRAMES {
        let payloads: Vec<_> = (0..PACKETS_A_FRAME)
            .map(|packet| payload(frame, packet))
            .collect();
        let start = cpu_time();
        for (n, payload) in (0..).zip(&payloads) {
            let packet = Packet {
                seq: (frame * PACKETS_A_FRAME + n) as u16,
                timestamp: (frame * 3000) as u32,
                marker: n + 1 == PACKETS_A_FRAME,
                payload,
                descriptor: &[],
                audio_level: None,
            };
            for source in 0..case.sources {
                out.clear();
                meeting.handle_packet(now, SourceId(source), 0, &packet, &mut out);
                copies += case.slots_each;
                sent += black_box(&out).len() as u64;
                while meeting.poll_event().is_some() {}
            }
        }
        // By then the rates are known.
        if frame > WARM_UP {
            spent += cpu_time() - start;
        } else {
            (copies, sent) = (0, 0);
        }
        if frame == WARM_UP && case.thinned {
            (0..slots).for_each(|leg| meeting.set_budget(now, LegId(leg), Some(BASE_FRAMES_BPS)));
            while meeting.poll_event().is_some() {}
        }
        now = now.plus(33_333);
        meeting.handle_timeout(now);
    }
    let permille = sent * 1000 / copies;
    let as_meant = if case.thinned {
        (230..270).contains(&permille)
    } else {
        permille == 1000
    };
    assert!(as_meant, "{permille} permille go out");
    spent.as_nanos() as f64 / copies as f64
}

fn main() {
    for case in [
        Case {
            name: "one source to 200",
            sources: 1,
            slots_each: 200,
            thinned: false,
            target: 40,
        },
        Case {
            name: "one source to 200, three frames of four left out",
            sources: 1,
            slots_each: 200,
            thinned: true,
            target: 40,
        },
        Case {
            name: "one source to 1000",
            sources: 1,
            slots_each: 1000,
            thinned: false,
            target: 40,
        },
        Case {
            name: "140 sources to one each",
            sources: 140,
            slots_each: 1,
            thinned: false,
            target: 150,
        },
    ] {
        let best = (0..ROUNDS).map(|_| round(&case)).fold(f64::MAX, f64::min);
        println!(
            r#"{{"bench":"copies","case":"{}","slots":{},"ns_per_copy":{best:.1},"target":{}}}"#,
            case.name,
            case.sources * case.slots_each,
            case.target,
        );
    }
}

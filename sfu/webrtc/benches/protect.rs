//! What protecting and opening one packet costs: ours, and rtc-srtp beside it in the same run.
//!
//! CPU time of this thread, 1200-byte RTP packets, the best of several rounds: other work on the
//! machine disturbs single rounds. Each round takes both in turn. Ours includes the copy of the
//! packet into the batch, as the fan-out has it. Prints a line of JSON a profile and direction;
//! `target` is what the design gives the step.

#![allow(clippy::disallowed_methods)] // this measures time

#[path = "../../forward/benches/clock/mod.rs"]
mod clock;

use std::hint::black_box;

use clock::{ROUNDS, cpu_time};
use muster_webrtc::{Profile, Srtp};
use rtc_srtp::config::Config;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

const LENGTH: usize = 1200;
const HEADER: usize = 20;
const PACKETS: u16 = 20_000;

struct Case {
    name: &'static str,
    profile: Profile,
    theirs: ProtectionProfile,
    target: u64,
}

/// Nanoseconds a packet.
fn measure(mut step: impl FnMut(u16)) -> f64 {
    let start = cpu_time();
    (0..PACKETS).for_each(&mut step);
    (cpu_time() - start).as_nanos() as f64 / f64::from(PACKETS)
}

fn packet(seq: u16) -> Vec<u8> {
    let mut packet = vec![0x90, 96];
    packet.extend(seq.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 2, 0xbe, 0xde, 0, 1, 0x10, b'0', 0, 0]);
    packet.resize(LENGTH, 7);
    packet
}

/// rtc-srtp's two contexts of the other end: it sends with one, receives with the other.
fn theirs(case: &Case, material: &[u8]) -> (Context, Context) {
    let mut config = Config {
        profile: case.theirs,
        ..Config::default()
    };
    config
        .set_session_keys_from_keying_material(material, true)
        .expect("the length is right");
    let provider = rtc_dtls::crypto_provider::default_provider().expect("compiled in");
    let context = |key: &[u8], salt: &[u8]| {
        Context::new(key, salt, case.theirs, None, None, provider.crypto()).expect("keys")
    };
    let keys = &config.keys;
    (
        context(&keys.local_master_key, &keys.local_master_salt),
        context(&keys.remote_master_key, &keys.remote_master_salt),
    )
}

fn run(case: &Case) {
    let material: Vec<u8> = (0..case.profile.keying_length()).map(|n| n as u8).collect();
    let plain = packet(0);
    let mut best = [f64::MAX; 4];
    for _ in 0..ROUNDS {
        let mut srtp = Srtp::from_keying_material(case.profile, &material).expect("keys");
        let (mut sends, mut receives) = theirs(case, &material);
        let mut out = Vec::with_capacity(64 * 1024);
        let ours = measure(|seq| {
            if out.len() > 60_000 {
                out.clear();
            }
            let start = out.len();
            out.extend_from_slice(&plain);
            out[start + 2..start + 4].copy_from_slice(&seq.to_be_bytes());
            assert!(srtp.protect_rtp(&mut out, start, HEADER));
        });
        let mut changed = plain.clone();
        let reference = measure(|seq| {
            changed[2..4].copy_from_slice(&seq.to_be_bytes());
            black_box(sends.encrypt_rtp(&changed).expect("protected"));
        });
        best[0] = best[0].min(ours);
        best[1] = best[1].min(reference);
        let (ours, reference) = run_open(case, &material, &mut receives, &mut srtp);
        best[2] = best[2].min(ours);
        best[3] = best[3].min(reference);
    }
    for (bench, ours, theirs) in [("protect", best[0], best[1]), ("unprotect", best[2], best[3])] {
        println!(
            r#"{{"bench":"{bench}","profile":"{}","bytes":{LENGTH},"ns_per_packet":{ours:.0},"target":{},"rtc_srtp_ns":{theirs:.0},"ratio":{:.2}}}"#,
            case.name,
            case.target,
            theirs / ours,
        );
    }
}

/// Opening: each end is given what the other protects, all made before the clock starts.
fn run_open(case: &Case, material: &[u8], receives: &mut Context, srtp: &mut Srtp) -> (f64, f64) {
    let (mut sends, _) = theirs(case, material);
    let mut wires: Vec<_> = (0..PACKETS)
        .map(|seq| sends.encrypt_rtp(&packet(seq)).expect("protected"))
        .collect();
    let ours = measure(|seq| {
        let wire = &mut wires[usize::from(seq)];
        assert_eq!(srtp.unprotect_rtp(wire, HEADER), Ok(LENGTH));
    });
    let mut server = Srtp::from_keying_material(case.profile, material).expect("keys");
    let wires: Vec<Vec<u8>> = (0..PACKETS)
        .map(|seq| {
            let mut wire = packet(seq);
            assert!(server.protect_rtp(&mut wire, 0, HEADER));
            wire
        })
        .collect();
    let reference = measure(|seq| {
        let plain = receives.decrypt_rtp(&wires[usize::from(seq)]);
        assert_eq!(plain.expect("authentic").len(), LENGTH);
    });
    (ours, reference)
}

fn main() {
    for case in [
        Case {
            name: "gcm",
            profile: Profile::AeadAes128Gcm,
            theirs: ProtectionProfile::AeadAes128Gcm,
            target: 270,
        },
        Case {
            name: "cm",
            profile: Profile::Aes128CmHmacSha1_80,
            theirs: ProtectionProfile::Aes128CmHmacSha1_80,
            target: 950,
        },
    ] {
        run(&case);
    }
}

//! Ours against the RFCs' vectors, against rtc-srtp, and against forgers.

use proptest::prelude::*;
use rtc_srtp::config::Config;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::cipher::MAX_SALT;
use super::*;
use crate::crypto::provider;
use crate::rtp::Rtp;

const PROFILES: [Profile; 2] = [Profile::AeadAes128Gcm, Profile::Aes128CmHmacSha1_80];

/// The other end of a leg's keys.
pub(crate) fn client(profile: Profile, material: &[u8]) -> Srtp {
    Srtp::from_material(profile, material, true).expect("the length is right")
}

fn material(profile: Profile) -> Vec<u8> {
    (0..profile.keying_length())
        .map(|n| (n * 37 + 11) as u8)
        .collect()
}

/// Two ends with each other's keys.
fn pair(profile: Profile) -> (Srtp, Srtp) {
    let material = material(profile);
    let server = Srtp::from_keying_material(profile, &material).expect("keys");
    (client(profile, &material), server)
}

/// rtc-srtp's contexts of the client: what it sends with, what it receives with.
fn reference(profile: Profile) -> (Context, Context) {
    let mut config = Config {
        profile: match profile {
            Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        },
        ..Config::default()
    };
    assert_eq!(config.keying_material_len(), profile.keying_length());
    config
        .set_session_keys_from_keying_material(&material(profile), true)
        .expect("the length is right");
    let context = |key: &[u8], salt: &[u8]| {
        Context::new(key, salt, config.profile, None, None, provider().crypto()).expect("keys")
    };
    let keys = &config.keys;
    (
        context(&keys.local_master_key, &keys.local_master_salt),
        context(&keys.remote_master_key, &keys.remote_master_salt),
    )
}

fn rtp(ssrc: u32, seq: u16) -> Vec<u8> {
    let mut p = vec![0x80, 96];
    p.extend(seq.to_be_bytes());
    p.extend([0; 4]);
    p.extend(ssrc.to_be_bytes());
    p.extend([seq as u8; 40]);
    p
}

fn protect(srtp: &mut Srtp, packet: &[u8]) -> Vec<u8> {
    // Behind another packet, as in a batch.
    let mut out = b"before".to_vec();
    out.extend_from_slice(packet);
    let header = Rtp::header(packet).expect("a packet").payload.start;
    assert!(srtp.protect_rtp(&mut out, 6, header));
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

fn open(srtp: &mut Srtp, wire: &[u8]) -> Result<Vec<u8>, Ignored> {
    let header = Rtp::header(wire).ok_or(Ignored::RtpMalformed)?.payload.start;
    let mut data = wire.to_vec();
    let length = srtp.unprotect_rtp(&mut data, header)?;
    data.truncate(length);
    Ok(data)
}

fn open_rtcp(srtp: &mut Srtp, wire: &[u8]) -> Result<Vec<u8>, Ignored> {
    let mut data = wire.to_vec();
    let length = srtp.unprotect_rtcp(&mut data)?;
    data.truncate(length);
    Ok(data)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|d| (d[0] * 16 + d[1]) as u8).collect()
}

fn session_keys(key: &str, salt: &str) -> SessionKeys {
    let mut keys = SessionKeys {
        key: [0; KEY],
        auth: [0; 20],
        salt: [0; MAX_SALT],
    };
    keys.key.copy_from_slice(&hex(key));
    let salt = hex(salt);
    keys.salt[..salt.len()].copy_from_slice(&salt);
    keys
}

#[test]
fn keys_are_derived_as_in_rfc_3711_b_3() {
    let keys = SessionKeys::derive(
        Profile::Aes128CmHmacSha1_80,
        Use::Rtp,
        &hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
        &hex("0EC675AD498AFEEBB6960B3AABE6"),
    )
    .expect("keys");
    assert_eq!(keys.key[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(keys.salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(keys.auth[..], hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

#[test]
fn the_key_stream_is_that_of_rfc_3711_b_2() {
    let keys = session_keys("2B7E151628AED2A6ABF7158809CF4F3C", "F0F1F2F3F4F5F6F7F8F9FAFBFCFD");
    let cipher = Cipher::new(Profile::Aes128CmHmacSha1_80, &keys).expect("keys");
    let mut out = vec![0; 48];
    cipher.seal_rtp(0, 0, &mut out, 0, 0).expect("sealed");
    let stream = "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB\
                  41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(out[..48], hex(stream));
}

#[test]
fn rtp_is_sealed_and_opened_as_in_rfc_7714_16_1() {
    let keys = session_keys("000102030405060708090a0b0c0d0e0f", "517569642070726f2071756f");
    let cipher = Cipher::new(Profile::AeadAes128Gcm, &keys).expect("keys");
    let plain = hex(
        "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 \
         696e2070 61727465 73207472 6573",
    );
    let sealed = hex(
        "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f \
         42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
    );
    let mut data = plain.clone();
    cipher
        .seal_rtp(0x5501_a0b2, 0xf17b, &mut data, 0, 12)
        .expect("sealed");
    assert_eq!(data, sealed);
    let length = cipher.open_rtp(0x5501_a0b2, 0xf17b, &mut data, 12);
    assert_eq!(data[..length.expect("authentic")], plain);
}

#[test]
fn rtcp_is_sealed_and_opened_as_in_rfc_7714_17_1() {
    let keys = session_keys("000102030405060708090a0b0c0d0e0f", "517569642070726f2071756f");
    let cipher = Cipher::new(Profile::AeadAes128Gcm, &keys).expect("keys");
    let plain = hex(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef \
         deadbeef deadbeef deadbeef deadbeef",
    );
    let sealed = hex(
        "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 \
         730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
    );
    let mut data = plain.clone();
    cipher.seal_rtcp(0x4d61_7273, 0x5d4, &mut data).expect("sealed");
    assert_eq!(data, sealed);
    assert_eq!(cipher.rtcp_index(&data), Some((true, 0x5d4)));
    let length = cipher.open_rtcp(0x4d61_7273, 0x5d4, &mut data);
    assert_eq!(data[..length.expect("authentic")], plain);
}

#[test]
fn keying_material_of_another_length_is_refused() {
    for profile in PROFILES {
        let length = profile.keying_length();
        for wrong in [0, length - 1, length + 1] {
            assert!(Srtp::from_keying_material(profile, &vec![1; wrong]).is_none());
        }
    }
}

#[test]
fn what_one_end_protects_the_other_opens_across_the_wrap() {
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        for seq in (65_000..=65_535).chain(0..500) {
            let wire = protect(&mut a, &rtp(9, seq));
            assert_eq!(open(&mut b, &wire), Ok(rtp(9, seq)));
        }
    }
}

#[test]
fn late_packets_of_before_the_wrap_are_opened() {
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        let wires: Vec<Vec<u8>> = [65_533, 65_534, 65_535, 0, 1, 2]
            .map(|seq| protect(&mut a, &rtp(9, seq)))
            .into();
        for at in [0, 4, 2, 5, 1, 3] {
            assert!(open(&mut b, &wires[at]).is_ok(), "{at}");
        }
        for wire in &wires {
            assert_eq!(open(&mut b, wire), Err(Ignored::Replayed));
        }
    }
}

#[test]
fn no_index_is_encrypted_twice() {
    for profile in PROFILES {
        let (mut a, _) = pair(profile);
        for seq in [100, 102, 101] {
            protect(&mut a, &rtp(9, seq));
        }
        protect(&mut a, &rtp(8, 100)); // another SSRC
        let mut refused = |seq| {
            let mut out = [b"before".to_vec(), rtp(9, seq)].concat();
            assert!(!a.protect_rtp(&mut out, 6, 12), "{seq}");
            assert_eq!(out, b"before");
        };
        for seq in [100, 101, 102] {
            refused(seq);
        }
        protect(&mut a, &rtp(9, 2000));
        let mut too_late = rtp(9, 976);
        assert!(!a.protect_rtp(&mut too_late, 0, 12));
        protect(&mut a, &rtp(9, 977));
    }
}

#[test]
fn the_same_packet_again_is_the_same_bytes_and_no_other_is_taken() {
    for profile in PROFILES {
        let (mut a, _) = pair(profile);
        let seal = |a: &mut Srtp, seq| {
            let mut out = rtp(9, seq);
            let index = a.seal_rtp(&mut out, 0, 12).expect("fresh");
            (out, index)
        };
        let (first, index) = seal(&mut a, 65_535);
        let (second, later) = seal(&mut a, 0);
        assert_eq!((index, later), (65_535, 65_536));
        for (seq, index, wire) in [(65_535, index, &first), (0, later, &second)] {
            let mut again = rtp(9, seq);
            assert_eq!(a.seal_same_again(&mut again, 0, 12, index), Some(()));
            assert_eq!(again, *wire);
        }
        for (ssrc, seq, index) in [(9, 1, 65_537), (9, 1, 65_536), (8, 0, 65_536)] {
            let refused = a.seal_same_again(&mut rtp(ssrc, seq), 0, 12, index);
            assert_eq!(refused, None, "{ssrc} {seq} {index}");
        }
    }
}

#[test]
fn replayed_truncated_changed_and_foreign_packets_are_refused() {
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        let wire = protect(&mut a, &rtp(9, 1));
        assert!(open(&mut b, &wire).is_ok());
        assert_eq!(open(&mut b, &wire), Err(Ignored::Replayed));
        assert!(open(&mut a, &wire).is_err(), "its own, reflected");
        let next = protect(&mut a, &rtp(9, 2));
        for length in 0..next.len() {
            assert!(open(&mut b, &next[..length]).is_err());
        }
        for bit in 0..next.len() * 8 {
            let mut changed = next.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut b, &changed).is_err(), "bit {bit}");
        }
        // None of these attempts spoilt the genuine packet.
        assert!(open(&mut b, &next).is_ok());
    }
}

#[test]
fn replayed_truncated_and_changed_rtcp_is_refused() {
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        let pli = vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let wire = a.protect_rtcp(pli.clone()).expect("sealed");
        for length in 0..wire.len() {
            assert!(open_rtcp(&mut b, &wire[..length]).is_err());
        }
        for bit in 0..wire.len() * 8 {
            let mut changed = wire.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open_rtcp(&mut b, &changed).is_err(), "bit {bit}");
        }
        assert_eq!(b.ssrcs(), 0);
        assert_eq!(open_rtcp(&mut b, &wire), Ok(pli));
        assert_eq!(open_rtcp(&mut b, &wire), Err(Ignored::Replayed));
    }
}

#[test]
fn a_forged_first_packet_does_not_shut_out_the_genuine() {
    for profile in PROFILES {
        let (mut a, mut b) = pair(profile);
        let wire = protect(&mut a, &rtp(9, 5));
        let mut forged = wire.clone();
        forged[2..4].copy_from_slice(&20_000u16.to_be_bytes());
        assert_eq!(open(&mut b, &forged), Err(Ignored::NotAuthentic));
        assert!(open(&mut b, &wire).is_ok());
    }
}

#[test]
fn plain_rtcp_in_the_guise_of_srtcp_is_refused() {
    for profile in PROFILES {
        let (_, mut b) = pair(profile);
        let mut forged = vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]; // a PLI
        let (index, tag) = ([0, 0, 0, 1], [0; 16]); // index without the E bit
        match profile {
            Profile::AeadAes128Gcm => forged.extend([&tag[..], &index].concat()),
            Profile::Aes128CmHmacSha1_80 => forged.extend([&index[..], &tag[..10]].concat()),
        }
        assert_eq!(b.unprotect_rtcp(&mut forged), Err(Ignored::NotAuthentic));
        assert_eq!(b.ssrcs(), 0);
    }
}

#[test]
fn rtcp_ends_with_its_last_index() {
    let (mut a, mut b) = pair(Profile::AeadAes128Gcm);
    a.outbound.rtcp_index = MAX_RTCP_INDEX - 1;
    let pli = vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
    let last = a.protect_rtcp(pli.clone()).expect("sealed");
    assert_eq!(open_rtcp(&mut b, &last), Ok(pli.clone()));
    assert_eq!(a.protect_rtcp(pli), None);
}

#[test]
fn unauthentic_ssrcs_leave_no_state_behind() {
    let (_, mut b) = pair(Profile::AeadAes128Gcm);
    for ssrc in 0..10_000 {
        assert_eq!(open(&mut b, &rtp(ssrc, 5)), Err(Ignored::NotAuthentic));
    }
    assert_eq!(b.ssrcs(), 0);
}

#[test]
fn tracks_may_begin_anew_for_ever_and_one_in_use_is_not_forgotten() {
    let profile = Profile::Aes128CmHmacSha1_80;
    let material = material(profile);
    let (mut steady, mut b) = pair(profile);
    let mut restarted = Vec::new();
    for round in 0..3000u32 {
        let wire = protect(&mut steady, &rtp(1 << 31, round as u16));
        assert_eq!(open(&mut b, &wire), Ok(rtp(1 << 31, round as u16)));
        assert_eq!(open(&mut b, &wire), Err(Ignored::Replayed));
        // SSRCs below and above the others, so that places move.
        let ssrc = round.wrapping_mul(0x9e37_79b9);
        let wire = protect(&mut client(profile, &material), &rtp(ssrc, 1));
        assert!(open(&mut b, &wire).is_ok(), "{round}");
        restarted.push(wire);
        assert!(b.ssrcs() <= MAX_REMEMBERED);
    }
    for wire in &restarted[restarted.len() - (MAX_REMEMBERED - 1)..] {
        assert_eq!(open(&mut b, wire), Err(Ignored::Replayed));
    }
}

#[test]
fn our_own_ssrcs_are_bounded_and_never_forgotten() {
    let (mut a, _) = pair(Profile::Aes128CmHmacSha1_80);
    for ssrc in 0..1000 {
        let done = a.protect_rtp(&mut rtp(ssrc, 1), 0, 12);
        assert_eq!(done, ssrc < MAX_OWN_SSRCS as u32, "{ssrc}");
    }
    assert!(!a.protect_rtp(&mut rtp(0, 1), 0, 12), "its index is used");
}

/// The packets that libsrtp checks itself by: both ends have the same key.
#[test]
fn whole_packets_are_those_of_libsrtp() {
    let body = "abab abab abab abab abab abab abab abab";
    let rtp = hex(&format!("800f1234 decafbad cafebabe {body}"));
    let rtcp = hex(&format!("81c8000b cafebabe {body}"));
    let cases = [
        (
            Profile::Aes128CmHmacSha1_80,
            "e1f97a0d3e018be0d64fa32c06de4139",
            "0ec675ad498afeebb6960b3aabe6",
            "800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402 b78d6acc 99ea179b 8dbb",
            "81c8000b cafebabe 7128035b e487b9bd bef89041 f977a5a8 80000001 993e08cd 54d6c123 0798",
        ),
        (
            Profile::AeadAes128Gcm,
            "000102030405060708090a0b0c0d0e0f",
            "a0a1a2a3a4a5a6a7a8a9aaab",
            "800f1234 decafbad cafebabe c5002ede 04cfdd2e b91159e0 880aa06e d2976826 f796b201 \
             df3131a1 27e8a392",
            "81c8000b cafebabe c98b8b5d f0392a55 852b6c21 ac8e7025 c52c6fbe a2b3b446 ea31123b \
             a88ce61e 80000001",
        ),
    ];
    for (profile, key, salt, sealed_rtp, sealed_rtcp) in cases {
        let material = hex(&[key, key, salt, salt].concat());
        let mut a = client(profile, &material);
        let mut b = Srtp::from_keying_material(profile, &material).expect("keys");
        let wire = protect(&mut a, &rtp);
        assert_eq!(wire, hex(sealed_rtp), "{profile:?}");
        assert_eq!(open(&mut b, &wire), Ok(rtp.clone()));
        let wire = a.protect_rtcp(rtcp.clone()).expect("sealed");
        assert_eq!(wire, hex(sealed_rtcp), "{profile:?}");
        assert_eq!(open_rtcp(&mut b, &wire), Ok(rtcp.clone()));
    }
}

/// Any well-formed packet: sources, one-byte extensions, payload and padding.
fn any_rtp() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::collection::vec(any::<u32>(), 0..4),
        prop::option::of(prop::collection::vec(any::<u8>(), 1..16)),
        prop::collection::vec(any::<u8>(), 0..1300),
        0u8..5,
        any::<(u8, u32)>(),
    )
        .prop_map(|(sources, extension, payload, padding, (second, timestamp))| {
            let mut first = 0x80 | sources.len() as u8;
            first |= if extension.is_some() { 0x10 } else { 0 };
            first |= if padding > 0 { 0x20 } else { 0 };
            let mut p = vec![first, second, 0, 0];
            p.extend(timestamp.to_be_bytes());
            p.extend([0; 4]);
            p.extend(sources.iter().flat_map(|s| s.to_be_bytes()));
            if let Some(value) = extension {
                let words = (1 + value.len()).div_ceil(4);
                p.extend([0xbe, 0xde, 0, words as u8, 0x10 | (value.len() - 1) as u8]);
                let end = p.len() - 1 + words * 4;
                p.extend(value);
                p.resize(end, 0);
            }
            p.extend(payload);
            p.extend((0..padding).map(|_| padding));
            p
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rtp_agrees_with_rtc_srtp_both_ways(
        packets in prop::collection::vec((any_rtp(), 0u16..3, 1u16..400), 1..20),
        first in any::<u16>(),
    ) {
        for profile in PROFILES {
            let mut ours = Srtp::from_keying_material(profile, &material(profile)).expect("keys");
            let (mut sends, mut receives) = reference(profile);
            let mut seqs = [first; 3];
            for (packet, which, ahead) in &packets {
                let mut packet = packet.clone();
                let seq = &mut seqs[usize::from(*which)];
                *seq = seq.wrapping_add(*ahead);
                packet[2..4].copy_from_slice(&seq.to_be_bytes());
                packet[8..12].copy_from_slice(&(0xffff_fffe + u32::from(*which % 2)).to_be_bytes());
                if *which == 2 {
                    packet[8..12].copy_from_slice(&7u32.to_be_bytes());
                }
                let wire = protect(&mut ours, &packet);
                prop_assert_eq!(&receives.decrypt_rtp(&wire).expect("authentic")[..], &packet[..]);
                let wire = sends.encrypt_rtp(&packet).expect("protected");
                prop_assert_eq!(open(&mut ours, &wire), Ok(packet));
            }
        }
    }

    #[test]
    fn rtcp_agrees_with_rtc_srtp_both_ways(
        bodies in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u32>(), 0..80)), 1..8),
    ) {
        for profile in PROFILES {
            let mut ours = Srtp::from_keying_material(profile, &material(profile)).expect("keys");
            let (mut sends, mut receives) = reference(profile);
            for (ssrc, words) in &bodies {
                let mut packet = vec![0x80, 201, 0, words.len() as u8 + 1];
                packet.extend(ssrc.to_be_bytes());
                packet.extend(words.iter().flat_map(|w| w.to_be_bytes()));
                let wire = ours.protect_rtcp(packet.clone()).expect("protected");
                prop_assert_eq!(&receives.decrypt_rtcp(&wire).expect("authentic")[..], &packet[..]);
                let wire = sends.encrypt_rtcp(&packet).expect("protected");
                prop_assert_eq!(open_rtcp(&mut ours, &wire), Ok(packet));
            }
        }
    }

    #[test]
    fn junk_never_panics(mut junk in prop::collection::vec(any::<u8>(), 0..200), header in 0usize..300) {
        for profile in PROFILES {
            let (mut a, mut b) = pair(profile);
            prop_assert!(open_rtcp(&mut b, &junk).is_err());
            prop_assert!(b.unprotect_rtp(&mut junk.clone(), header).is_err());
            let _ = a.protect_rtcp(junk.clone());
            let _ = a.protect_rtp(&mut junk, 0, header);
        }
    }
}

//! Offers of real clients, their answers, and what is said of bad ones.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;

use super::*;
use crate::leg::{Leg, LegConfig};
use crate::media::{Codec, SourceKind};
use crate::test_support::instant;
use crate::{Certificate, OfferedSource};

const CHROMIUM: &str = include_str!("../../tests/offers/chromium.sdp");
const FIREFOX: &str = include_str!("../../tests/offers/firefox.sdp");
const WHIP: &str = include_str!("../../tests/offers/whip.sdp");

fn accept(offer: &str) -> Result<(Leg, String), OfferError> {
    static CERTIFICATE: OnceLock<Arc<Certificate>> = OnceLock::new();
    let certificate = CERTIFICATE.get_or_init(|| Arc::new(Certificate::generate().expect("a certificate")));
    let candidate = "192.0.2.7:40000".parse().expect("an address");
    let config = LegConfig::new(candidate, certificate.clone(), [1; 32]);
    Leg::accept(instant(), offer, &config)
}

/// The answer with our fingerprint, which differs in each run, taken out.
fn golden(offer: &str) -> String {
    let (_, answer) = accept(offer).expect("a good offer");
    // rtc-sdp is an independent reader of what we wrote.
    let mut reader = std::io::Cursor::new(answer.as_bytes());
    rtc_sdp::SessionDescription::unmarshal(&mut reader).expect("a well-formed answer");
    let line = |l: &str| match l.split_once("sha-256 ") {
        Some((before, _)) => format!("{before}sha-256 ..."),
        None => l.trim_end().to_owned(),
    };
    answer.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn chromium_with_simulcast_and_slots() {
    let (leg, _) = accept(CHROMIUM).expect("a good offer");
    let source = |kind, codec, mid: &str, rids: &[&str]| OfferedSource {
        mid: mid.to_owned(),
        kind,
        codec,
        rids: rids.iter().map(|r| (*r).to_owned()).collect(),
    };
    assert_eq!(
        leg.sources(),
        [
            source(SourceKind::Audio, Codec::Opus, "0", &[]),
            source(SourceKind::Camera, Codec::Vp8, "1", &["q", "h", "f"]),
        ]
    );
    let slots: Vec<_> = leg.slots().iter().map(|s| (s.mid.as_str(), s.audio)).collect();
    assert_eq!(slots, [("2", false), ("3", false), ("4", true)]);
    assert_eq!(
        leg.slots()[0].codecs,
        [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1]
    );
    insta::assert_snapshot!(golden(CHROMIUM));
}

#[test]
fn firefox_with_a_data_channel() {
    let (leg, _) = accept(FIREFOX).expect("a good offer");
    assert_eq!(leg.sources().len(), 2, "sendrecv publishes");
    assert!(leg.slots().is_empty());
    insta::assert_snapshot!(golden(FIREFOX));
}

#[test]
fn whip_with_h264() {
    let (leg, _) = accept(WHIP).expect("a good offer");
    assert_eq!(leg.sources()[1].codec, Codec::H264);
    insta::assert_snapshot!(golden(WHIP));
}

/// A whole offer of one's own m-lines.
fn offer(media: &[&str]) -> String {
    let mids: Vec<String> = (0..media.len()).map(|n| n.to_string()).collect();
    let mut text = format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=setup:actpass\r\n\
         a=fingerprint:sha-256 {}\r\n",
        mids.join(" "),
        ["AB"; 32].join(":")
    );
    for (mid, body) in mids.iter().zip(media) {
        let body = body.replace(';', "\r\n");
        let _ = write!(text, "{body}\r\na=mid:{mid}\r\na=rtcp-mux\r\n");
    }
    text
}

const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96;a=rtpmap:96 VP8/90000";
const SLOT: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96;a=rtpmap:96 VP8/90000;a=recvonly";
const AUDIO_SLOT: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111;a=rtpmap:111 opus/48000/2;a=recvonly";

#[test]
fn only_feedback_that_was_offered_is_answered() {
    let some = format!("{VIDEO};a=rtcp-fb:97 goog-remb;a=rtcp-fb:96 nack;a=rtcp-fb:96 x y");
    let (_, answer) = accept(&offer(&[&some])).expect("a good offer");
    let lines = |answer: &str| -> Vec<String> {
        let of = answer.lines().filter_map(|l| l.strip_prefix("a=rtcp-fb:"));
        of.map(str::to_owned).collect()
    };
    assert_eq!(lines(&answer), ["96 nack"]);
    let all = format!("{VIDEO};a=rtcp-fb:* nack pli;a=rtcp-fb:* ccm fir");
    let (_, answer) = accept(&offer(&[&all])).expect("a good offer");
    assert_eq!(lines(&answer), ["96 ccm fir", "96 nack pli"]);
}

#[test]
fn red_of_opus_is_taken_in_the_offerers_order() {
    let check = |formats: &str, blocks: &str, expected: &str| {
        let audio = format!(
            "m=audio 9 UDP/TLS/RTP/SAVPF {formats};a=rtpmap:111 opus/48000/2;\
             a=rtpmap:63 red/48000/2;a=fmtp:63 {blocks}"
        );
        for direction in ["sendonly", "recvonly"] {
            let text = offer(&[&format!("{audio};a={direction}")]);
            let (_, answer) = accept(&text).expect("a good offer");
            let media = answer.lines().find(|l| l.starts_with("m=")).expect("one");
            assert_eq!(media, format!("m=audio 9 UDP/TLS/RTP/SAVPF {expected}"));
            let red = answer.contains("a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n");
            assert_eq!(red, expected.contains("63"), "{answer}");
        }
    };
    check("63 111", "111/111", "63 111");
    check("111 63", "111/111/111", "111 63");
    check("111 63", "111/0", "111");
    check("111", "111/111", "111");
}

#[test]
fn a_wall_of_49_slots_with_distinct_ssrcs() {
    let mut media = vec![VIDEO];
    media.extend([SLOT; 49]);
    media.extend([AUDIO_SLOT; 3]);
    let (leg, answer) = accept(&offer(&media)).expect("a good offer");
    assert_eq!(leg.slots().len(), 52);
    let ssrcs = answer.lines().filter(|l| l.contains(" cname:"));
    let ssrcs: std::collections::BTreeSet<_> = ssrcs.collect();
    assert_eq!(ssrcs.len(), 52);
}

#[test]
fn the_second_video_or_slides_is_content_and_a_third_is_rejected() {
    let kinds = |media: &[&str]| {
        let (leg, _) = accept(&offer(media)).expect("a good offer");
        leg.sources().iter().map(|s| s.kind).collect::<Vec<_>>()
    };
    use SourceKind::{Camera, Content};
    assert_eq!(kinds(&[VIDEO, VIDEO, VIDEO]), [Camera, Content]);
    let slides = format!("{VIDEO};a=content:slides");
    assert_eq!(kinds(&[&slides, VIDEO]), [Content, Camera]);
}

#[test]
fn an_inactive_line_is_accepted_and_a_foreign_codec_rejected() {
    let inactive = format!("{VIDEO};a=inactive");
    let h265 = "m=video 9 UDP/TLS/RTP/SAVPF 96;a=rtpmap:96 H265/90000";
    let h264_mode_0 = "m=video 9 UDP/TLS/RTP/SAVPF 96;a=rtpmap:96 H264/90000";
    let (_, answer) = accept(&offer(&[&inactive, h265, h264_mode_0, SLOT])).expect("good");
    let lines: Vec<_> = answer.lines().filter(|l| l.starts_with("m=")).collect();
    let ports: Vec<_> = lines.iter().map(|l| l.split(' ').nth(1)).collect();
    assert_eq!(ports, [Some("9"), Some("0"), Some("0"), Some("9")]);
    assert!(answer.contains("a=group:BUNDLE 0 3\r\n"));
}

#[test]
fn vp9_and_av1_are_taken_in_profile_0_after_the_others() {
    let all = "m=video 9 UDP/TLS/RTP/SAVPF 1 2 3 4 5;a=recvonly;\
        a=rtpmap:1 AV1/90000;a=fmtp:1 level-idx=5;profile=1;tier=0;\
        a=rtpmap:2 AV1/90000;a=fmtp:2 level-idx=5;profile=0;tier=0;\
        a=rtpmap:3 VP9/90000;a=fmtp:3 profile-id=2;a=rtpmap:4 VP9/90000;a=rtpmap:5 VP8/90000"
        .replace(";profile", "\u{1}profile")
        .replace(";tier", "\u{1}tier");
    let (leg, answer) = accept(&offer(&[VIDEO, &all]).replace('\u{1}', ";")).expect("good");
    assert_eq!(leg.slots()[0].codecs, [Codec::Vp8, Codec::Vp9, Codec::Av1]);
    for line in [
        "a=rtpmap:4 VP9/90000\r\na=fmtp:4 profile-id=0\r\n",
        "a=rtpmap:2 AV1/90000\r\na=fmtp:2 profile=0;level-idx=5;tier=0\r\n",
    ] {
        assert!(answer.contains(line), "{answer}");
    }
    let av1 = "m=video 9 UDP/TLS/RTP/SAVPF 96;a=rtpmap:96 AV1/90000";
    let (leg, _) = accept(&offer(&[av1])).expect("good");
    assert_eq!(leg.sources()[0].codec, Codec::Av1);
}

#[test]
fn both_forms_of_extensions_are_agreed_where_they_are_allowed() {
    let av1 = "m=video 9 UDP/TLS/RTP/SAVPF 96;a=rtpmap:96 AV1/90000;a=recvonly;a=extmap:12 \
        https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
    let mixed = format!("{av1};a=extmap-allow-mixed");
    // For each part of the answer: the session, and the m-lines.
    let parts = |text: &str| -> Vec<(bool, bool)> {
        let (leg, answer) = accept(text).expect("a good offer");
        let parts = answer.split("\r\nm=");
        let found: Vec<_> = parts
            .map(|part| {
                (
                    part.contains("a=extmap-allow-mixed"),
                    part.contains("a=extmap:12 "),
                )
            })
            .collect();
        let agreed: Vec<_> = leg.slots().iter().map(|slot| slot.descriptors).collect();
        let written: Vec<_> = found[1..].iter().map(|(_, dependency)| *dependency).collect();
        assert_eq!(agreed, written);
        found
    };
    let (none, both) = ((false, false), (true, true));
    assert_eq!(parts(&offer(&[av1, &mixed, av1])), [none, none, both, none]);
    let session = offer(&[av1, av1]).replacen("a=setup", "a=extmap-allow-mixed\r\na=setup", 1);
    let dependency = (false, true);
    assert_eq!(parts(&session), [(true, false), dependency, dependency]);
}

#[test]
fn one_who_only_views_sends_nothing_however_it_says_so() {
    let certificate = Arc::new(Certificate::generate().expect("a certificate"));
    let candidate = "192.0.2.7:40000".parse().expect("an address");
    let mut config = LegConfig::new(candidate, certificate, [1; 32]);
    config.views_only = true;
    let default = VIDEO;
    let blank = format!("{VIDEO};a=sendrecv ");
    let session = offer(&[VIDEO]).replacen("a=setup", "a=sendrecv\r\na=setup", 1);
    for text in [offer(&[default, &blank, SLOT]), session] {
        let (leg, answer) = Leg::accept(instant(), &text, &config).expect("a good offer");
        assert!(leg.sources().is_empty());
        assert_eq!(leg.slots().len(), text.matches("m=video").count());
        assert_eq!(
            answer.matches("a=sendonly\r\n").count(),
            leg.slots().len(),
            "{answer}"
        );
    }
    let sends = offer(&[&format!("{VIDEO};a=sendonly")]);
    let (leg, _) = Leg::accept(instant(), &sends, &config).expect("a good offer");
    assert!(leg.slots().is_empty(), "what it only sends is not turned about");
}

#[test]
fn the_constrained_baseline_profile_is_preferred() {
    let h264 = "m=video 9 UDP/TLS/RTP/SAVPF 1 2 3;a=recvonly;\
        a=rtpmap:1 H264/90000;a=rtpmap:2 H264/90000;a=rtpmap:3 H264/90000;\
        a=fmtp:1 packetization-mode=1,profile-level-id=64001f;\
        a=fmtp:2 packetization-mode=1,profile-level-id=42001f;\
        a=fmtp:3 packetization-mode=1,profile-level-id=42e01f";
    let text = offer(&[h264]).replace(',', ";");
    let (_, answer) = accept(&text).expect("a good offer");
    assert!(answer.contains("m=video 9 UDP/TLS/RTP/SAVPF 3\r\n"), "{answer}");
}

/// An answer's `m=` lines as their kind, whether accepted, and direction.
fn lines(answer: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for line in answer.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            let words: Vec<_> = media.split(' ').collect();
            out.push(format!(
                "{} {}",
                words[0],
                if words[1] == "0" { "no" } else { "yes" }
            ));
        } else if let ("a=recvonly" | "a=sendonly" | "a=inactive", Some(last)) = (line, out.last_mut()) {
            *last += &line[1..].replace('=', " ");
        }
    }
    out
}

#[test]
fn offers_of_foreign_clients_are_answered() {
    let check = |offer: &str, expected: &[&str], has: &[&str]| {
        let (_, answer) = accept(offer).unwrap_or_else(|e| panic!("{e} in {offer}"));
        assert_eq!(lines(&answer), expected, "{answer}");
        for line in has {
            assert!(answer.contains(&format!("{line}\r\n")), "{line} in {answer}");
        }
        let mut reader = std::io::Cursor::new(answer.as_bytes());
        rtc_sdp::SessionDescription::unmarshal(&mut reader).expect("a well-formed answer");
    };
    check(
        include_str!("../../tests/offers/aiortc.sdp"),
        &["audio yes recvonly", "video yes recvonly"],
        &[
            "a=setup:passive",
            "m=video 9 UDP/TLS/RTP/SAVPF 97 98",
            "a=fmtp:98 apt=97",
        ],
    );
    check(
        include_str!("../../tests/offers/gstreamer.sdp"),
        &["video yes recvonly", "audio yes recvonly"],
        &[
            "m=video 9 UDP/TLS/RTP/SAVPF 96",
            "a=group:BUNDLE video0 audio1",
            "a=rtcp-fb:96 nack pli",
        ],
    );
    check(
        include_str!("../../tests/offers/obs.sdp"),
        &["audio yes recvonly", "video yes recvonly"],
        &[
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
            "a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        ],
    );
    check(
        include_str!("../../tests/offers/ffmpeg8.sdp"),
        &["video yes recvonly"],
        &[
            "a=setup:active",
            "a=group:BUNDLE 1",
            "m=video 9 UDP/TLS/RTP/SAVPF 106 105",
        ],
    );
    check(
        include_str!("../../tests/offers/janus.sdp"),
        &[
            "audio yes recvonly",
            "video yes recvonly",
            "application no inactive",
        ],
        &["a=group:BUNDLE audio video"],
    );
}

#[test]
fn the_only_m_line_needs_neither_group_nor_mid() {
    let bare = offer(&[VIDEO]).replace("a=group:BUNDLE 0\r\n", "");
    let (leg, answer) = accept(&bare).expect("a good offer");
    assert_eq!(leg.sources()[0].mid, "0");
    assert!(
        !answer.contains("a=group") && answer.contains("a=mid:0\r\n"),
        "{answer}"
    );
    let (leg, answer) = accept(&bare.replace("a=mid:0\r\n", "")).expect("a good offer");
    assert_eq!(leg.sources()[0].mid, "0");
    assert!(
        !answer.contains("a=group") && !answer.contains("a=mid"),
        "{answer}"
    );
    assert_eq!(lines(&answer), ["video yes recvonly"]);
    // A data channel beside it is no reason for a group.
    let data = bare + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:data\r\n";
    let (_, answer) = accept(&data).expect("a good offer");
    assert_eq!(lines(&answer), ["video yes recvonly", "application no inactive"]);
}

#[test]
fn the_transport_is_described_for_the_session_or_in_any_m_line_of_the_group() {
    let whole = offer(&[VIDEO, SLOT]);
    let transport = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n";
    let session = whole.replace(transport, "");
    for mid in ["a=mid:0\r\n", "a=mid:1\r\n"] {
        let moved = session.replace(mid, &format!("{mid}{transport}"));
        assert!(accept(&moved).is_ok(), "{moved}");
    }
    refuse(&session, 8, "ice-ufrag");
    let fingerprint = format!("a=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"));
    let several = format!(
        "a=fingerprint:sha-1 {}\r\n{fingerprint}a=fingerprint:SHA-512 {}\r\n",
        ["CD"; 20].join(":"),
        ["EF"; 64].join(":")
    );
    assert!(accept(&whole.replace(&fingerprint, &several)).is_ok());
    assert!(accept(&whole.replace("a=rtcp-mux\r\n", "a=rtcp-mux-only\r\n")).is_ok());
}

#[test]
fn the_udp_candidate_comes_before_that_of_tcp() {
    let text = offer(&[VIDEO, SLOT]);
    let certificate = Arc::new(Certificate::generate().expect("a certificate"));
    let mut config = LegConfig::new(
        "192.0.2.7:40000".parse().expect("an address"),
        certificate,
        [1; 32],
    );
    let candidates = |text: &str| -> Vec<String> {
        let of = text.lines().filter_map(|l| l.strip_prefix("a=candidate:"));
        of.map(str::to_owned).collect()
    };
    let (_, answer) = Leg::accept(instant(), &text, &config).expect("a good offer");
    assert_eq!(
        candidates(&answer),
        ["1 1 udp 2130706431 192.0.2.7 40000 typ host"]
    );
    config.tcp_candidate = Some("[2001:db8::1]:443".parse().expect("an address"));
    let (_, answer) = Leg::accept(instant(), &text, &config).expect("a good offer");
    let both = [
        "1 1 udp 2130706431 192.0.2.7 40000 typ host",
        "2 1 tcp 1520435199 2001:db8::1 443 typ host tcptype passive",
    ];
    assert_eq!(candidates(&answer), both);
}

#[test]
fn an_offer_of_many_payload_types_is_read_in_linear_time() {
    // 200 m-lines of 128 payload types: nearly as large as an offer may be.
    let mut media = "m=video 9 UDP/TLS/RTP/SAVPF".to_owned();
    for pt in 0..128 {
        let _ = write!(media, " {pt}");
    }
    for pt in 0..16 {
        let _ = write!(
            media,
            ";a=rtpmap:{pt} VP8/90000;a=rtcp-fb:{pt} nack;a=fmtp:{pt} x"
        );
    }
    let text = offer(&vec![media.as_str(); 200]);
    assert!(
        text.len() > MAX_OFFER * 3 / 4 && text.len() <= MAX_OFFER,
        "{}",
        text.len()
    );
    // The work is counted in allocations: each line has a few, whatever the others say.
    let lines = text.lines().count() as u64;
    let words = text.split_ascii_whitespace().count() as u64;
    let spent = crate::test_support::allocations(|| {
        assert!(accept(&text).is_ok());
    });
    assert!(
        spent < 3 * (lines + words),
        "{spent} for {lines} lines of {words} words"
    );
}

fn refuse(offer: &str, line: usize, expected: &str) {
    let error = accept(offer).err().expect("a bad offer");
    assert_eq!(error.line, line, "{error}");
    assert!(error.expected.contains(expected), "{error}");
}

#[test]
fn a_bad_offer_is_told_the_line_and_what_was_expected() {
    let good = offer(&[VIDEO]);
    refuse("", 0, "m-line");
    refuse("hello", 1, "v=0");
    refuse(&" ".repeat(MAX_OFFER + 1), 0, "262144 bytes");
    refuse(&offer(&[VIDEO; 257]), 9 + 256 * 4 + 1, "256 m-lines");
    let two = offer(&[VIDEO, SLOT]);
    refuse(&two.replace("a=group:BUNDLE 0 1\r\n", ""), 0, "BUNDLE");
    refuse(&two.replace("BUNDLE 0 1", "BUNDLE 2 3"), 0, "BUNDLE");
    refuse(&good.replace("a=rtcp-mux", "a=x"), 10, "rtcp-mux");
    refuse(&two.replace("a=mid:0\r\n", ""), 10, "a=mid");
    refuse(
        &good.replace("actpass", "holdconn"),
        8,
        "actpass, active or passive",
    );
    refuse(&good.replace("AB:", "XY:"), 9, "sha-256");
    refuse(&good.replace("sha-256", "sha-1"), 10, "sha-256");
    refuse(&good.replace("sha-256", "sha-384"), 9, "sha-384");
    refuse(&good.replace("a=ice-ufrag:abcd\r\n", ""), 9, "ice-ufrag");
    refuse(&good.replace("ufrag:abcd", "ufrag:a"), 6, "ice-ufrag");
    refuse(&good.replace("VP8", "H265"), 0, "VP8");
    refuse(&good.replace("rtpmap:96 ", "rtpmap:300 "), 11, "rtpmap");
    refuse(&good.replace("video 9", "video 99999"), 10, "port");
    refuse(
        &offer(&[VIDEO, SLOT]).replace("a=mid:1", "a=mid:0"),
        14,
        "no other",
    );
    refuse(&good.replace("s=-", "nonsense"), 3, "x=...");
}

#[test]
fn an_answer_cannot_be_made_to_carry_lines_of_the_offerers() {
    let bad = offer(&[VIDEO]).replace("a=mid:0", "a=mid:0\ra=candidate:evil");
    refuse(&bad, 12, "control characters");
    let bad = offer(&[VIDEO, SLOT]).replacen("RTP/SAVPF", "RTP/\0\x1b[31m", 1);
    refuse(&bad, 10, "control characters");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn mutated_offers_never_panic(
        which in 0usize..3,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, "[ -~\r\n]{0,12}"), 1..12),
    ) {
        let mut text = [CHROMIUM, FIREFOX, WHIP][which].to_owned();
        for (at, length, put) in cuts {
            let start = at.index(text.len().max(1)).min(text.len());
            let end = (start + length).min(text.len());
            text.replace_range(start..end, &put);
        }
        if let Ok((leg, answer)) = accept(&text) {
            prop_assert!(leg.sources().len() <= 3);
            prop_assert!(answer.len() < 2 * MAX_OFFER);
        }
    }

    #[test]
    fn junk_never_panics(text in "\\PC{0,400}") {
        prop_assert!(accept(&text).is_err());
    }
}

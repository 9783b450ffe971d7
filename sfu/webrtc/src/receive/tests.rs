//! Packets built by hand: what is repeated by RTX comes out once and in its place, SSRCs change
//! hands, and the publisher is asked and told what it should be.

use super::*;
use crate::negotiate::{Red, negotiate};
use crate::offer;
use crate::rtp::Header;
use crate::test_support::instant;

const MS: Duration = Duration::from_millis(1);
const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97;a=rtpmap:96 VP8/90000;a=rtpmap:97 rtx/90000;\
    a=fmtp:97 apt=96;a=rtcp-fb:96 transport-cc;a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid;\
    a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id;\
    a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id;\
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111;a=rtpmap:111 opus/48000/2";
const SIMULCAST: &str = ";a=rid:lo send;a=rid:hi send;a=simulcast:send lo;hi";

/// Source, layer, number and payload.
type Out = (usize, usize, u16, Vec<u8>);

struct Publisher {
    now: Instant,
    receiver: Receiver,
}

/// One packet; what is not said is 0 or absent.
#[derive(Clone, Copy, Default)]
struct P<'a> {
    ssrc: u32,
    pt: u8,
    seq: u16,
    timestamp: u32,
    extensions: [Option<(u8, &'a [u8])>; 3],
    payload: &'a [u8],
    padding: u8,
}

impl Publisher {
    fn new(media: &[&str]) -> Self {
        let mut text = format!(
            "v=0\na=group:BUNDLE {}\na=ice-ufrag:abcd\na=ice-pwd:{}\na=fingerprint:sha-256 {}\n",
            (0..media.len())
                .map(|n| n.to_string())
                .collect::<Vec<_>>()
                .join(" "),
            "x".repeat(22),
            ["AB"; 32].join(":"),
        );
        for (n, lines) in media.iter().enumerate() {
            let simulcast = "a=simulcast:send lo;hi";
            let lines = lines
                .replace(simulcast, "#")
                .replace(';', "\n")
                .replace('#', simulcast);
            text += &format!("{lines}\na=sendonly\na=rtcp-mux\na=mid:{n}\n");
        }
        let offer = offer::read(&text).expect("a good offer");
        let plan = negotiate(&offer).expect("acceptable");
        let now = instant();
        let receiver = Receiver::new(now, &offer.media, &plan.roles, plan.sources);
        Self { now, receiver }
    }

    /// Source, layer, number and payload of what came out.
    fn give(&mut self, p: P<'_>) -> Result<Option<Out>, Ignored> {
        Ok(self
            .take(p)?
            .map(|(a, payload)| (a.source, a.layer, a.seq, payload)))
    }

    fn take(&mut self, p: P<'_>) -> Result<Option<(Accepted, Vec<u8>)>, Ignored> {
        let mut data = Vec::new();
        Header {
            marker: false,
            pt: p.pt,
            seq: p.seq,
            timestamp: p.timestamp,
            ssrc: p.ssrc,
            extensions: p.extensions,
            two_bytes: false,
        }
        .write(&mut data);
        data.extend_from_slice(p.payload);
        if p.padding > 0 {
            data[0] |= 0x20;
            data.extend(vec![0; usize::from(p.padding) - 1]);
            data.push(p.padding);
        }
        let rtp = Rtp::parse(&data).expect("well-formed");
        let accepted = self.receiver.handle(self.now, &rtp, &data)?;
        Ok(accepted.map(|a| {
            let payload = data[a.payload.clone()].to_vec();
            (a, payload)
        }))
    }

    fn requests_after(&mut self, time: Duration) -> Requests {
        self.now += time;
        self.receiver.requests(self.now, Some(50 * MS))
    }
}

fn video(ssrc: u32, seq: u16) -> P<'static> {
    P {
        ssrc,
        pt: 96,
        seq,
        payload: b"media",
        ..P::default()
    }
}

/// A repeat of packet `of`, whose payload is `b"again"`.
fn repeat(ssrc: u32, seq: u16, payload: &[u8]) -> P<'_> {
    P {
        ssrc,
        pt: 97,
        seq,
        payload,
        ..P::default()
    }
}

#[test]
fn what_rtx_repeats_comes_out_once_in_its_place() {
    let mut p = Publisher::new(&[&format!("{VIDEO};a=ssrc:100 cname:x;a=ssrc-group:FID 100 200")]);
    for seq in [0xfffe, 0] {
        let out = p.give(video(100, seq));
        assert_eq!(out, Ok(Some((0, 0, seq, b"media".to_vec()))));
    }
    let asked = p.requests_after(10 * MS);
    assert_eq!(asked.nacks, [(100, vec![0xffff])]);
    let again = repeat(200, 77, &[0xff, 0xff, b'a', b'g', b'n']);
    assert_eq!(p.give(again), Ok(Some((0, 0, 0xffff, b"agn".to_vec()))));
    assert_eq!(p.receiver.missing(), 0);
    assert_eq!(p.requests_after(1000 * MS), Requests::default());
    assert_eq!(p.give(P { seq: 78, ..again }), Ok(None), "twice repeated");
    assert_eq!(p.give(video(100, 0xffff)), Ok(None), "late after its repeat");
    assert_eq!(
        p.give(repeat(200, 79, &[0, 0, 1])),
        Ok(None),
        "it had come by itself"
    );
    assert_eq!(p.give(repeat(200, 80, &[0, 1, 2])), Ok(Some((0, 0, 1, vec![2]))));
    assert_eq!(
        p.give(repeat(200, 81, &[0x80, 0, 2])),
        Ok(None),
        "too old to tell"
    );
    assert_eq!(
        p.give(repeat(200, 82, &[0, 200, 2])),
        Ok(None),
        "nobody sent that yet"
    );
    assert_eq!(p.receiver.missing(), 0);
}

#[test]
fn probes_of_padding_are_counted_and_dropped() {
    let mut p = Publisher::new(&[&format!("{VIDEO};a=ssrc-group:FID 100 200")]);
    p.give(video(100, 1)).expect("taken");
    for seq in 0..20 {
        let probe = P {
            padding: 200,
            ..repeat(200, seq, b"")
        };
        assert_eq!(p.give(probe), Ok(None));
    }
    assert_eq!(p.receiver.totals(), (21, 5));
    assert_eq!(p.give(video(100, 2)), Ok(Some((0, 0, 2, b"media".to_vec()))));
    let reports = p.receiver.reports();
    let heard: Vec<_> = reports
        .iter()
        .map(|r| (r.ssrc, r.repeats, r.figures.lost))
        .collect();
    assert_eq!(heard, [(100, false, 0), (200, true, 0)]);
    assert!(p.receiver.reports().is_empty(), "nothing since");
}

#[test]
fn a_layers_repeats_are_known_by_the_repaired_rid() {
    let mut p = Publisher::new(&[&format!("{VIDEO}{SIMULCAST}")]);
    let lo = [Some((4, &b"0"[..])), Some((10, &b"lo"[..])), None];
    let hi = [Some((4, &b"0"[..])), Some((10, &b"hi"[..])), None];
    for (ssrc, extensions) in [(10, lo), (20, hi)] {
        for seq in [1, 3] {
            let packet = P {
                extensions,
                ..video(ssrc, seq)
            };
            assert!(matches!(p.give(packet), Ok(Some(_))));
        }
    }
    let again = repeat(21, 5, &[0, 2, 9]);
    assert_eq!(p.give(again), Ok(None), "either layer misses it");
    let named = P {
        extensions: [Some((4, b"0")), Some((11, b"hi")), None],
        ..again
    };
    assert_eq!(p.give(named), Ok(Some((0, 1, 2, vec![9]))));
    // Now only the low layer misses it, so an SSRC that says nothing must be its.
    assert_eq!(p.give(repeat(11, 5, &[0, 2, 8])), Ok(Some((0, 0, 2, vec![8]))));
    assert_eq!(p.receiver.missing(), 0);
}

#[test]
fn a_repeat_that_says_nothing_belongs_to_the_only_source_or_to_the_one_that_misses_it() {
    let mut p = Publisher::new(&[VIDEO]);
    assert_eq!(p.give(repeat(200, 1, &[0, 2, 9])), Ok(None), "of nothing yet");
    assert_eq!(p.receiver.streams(), 0);
    p.give(video(100, 1)).expect("taken");
    assert_eq!(p.give(repeat(200, 2, &[0, 2, 9])), Ok(Some((0, 0, 2, vec![9]))));

    let mut p = Publisher::new(&[VIDEO, VIDEO]);
    for (ssrc, mid, seq) in [(100, b"0", 1), (100, b"0", 3), (101, b"1", 1), (101, b"1", 4)] {
        let packet = P {
            extensions: [Some((4, mid)), None, None],
            ..video(ssrc, seq)
        };
        assert!(matches!(p.give(packet), Ok(Some(_))));
    }
    assert_eq!(p.give(repeat(200, 1, &[0, 2, 9])), Ok(None));
    assert_eq!(p.give(repeat(200, 2, &[0, 3, 9])), Ok(Some((1, 0, 3, vec![9]))));
    assert_eq!(p.give(repeat(200, 3, &[0, 2, 9])), Ok(Some((1, 0, 2, vec![9]))));
}

#[test]
fn a_payload_type_on_the_wrong_ssrc_is_refused() {
    let mut p = Publisher::new(&[&format!("{VIDEO};a=ssrc-group:FID 100 200")]);
    p.give(video(100, 1)).expect("taken");
    p.give(repeat(200, 1, &[0, 2, 9])).expect("taken");
    let wrong = Err(Ignored::UnknownPayloadType);
    assert_eq!(
        p.give(P {
            pt: 97,
            ..video(100, 3)
        }),
        wrong
    );
    assert_eq!(
        p.give(P {
            pt: 96,
            ..repeat(200, 2, &[0, 3])
        }),
        wrong
    );
    assert_eq!(
        p.give(P {
            pt: 98,
            ..video(300, 3)
        }),
        Err(Ignored::UnknownSource)
    );
}

#[test]
fn all_that_comes_is_told_to_the_publisher_transport_wide() {
    let mut p = Publisher::new(&[&format!("{VIDEO};a=ssrc-group:FID 100 200")]);
    let numbered = |n: &'static [u8; 2]| [Some((3, &n[..])), None, None];
    let (first, second, third) = (numbered(&[0, 7]), numbered(&[0, 8]), numbered(&[0, 10]));
    p.give(P {
        extensions: first,
        ..video(100, 1)
    })
    .expect("taken");
    let probe = P {
        extensions: second,
        padding: 9,
        ..repeat(200, 1, b"")
    };
    p.give(probe).expect("taken");
    let foreign = P {
        extensions: third,
        pt: 98,
        ..video(300, 1)
    };
    assert!(p.give(foreign).is_err());
    let due = p.receiver.next_request().expect("something to tell");
    assert!(due - p.now <= 100 * MS);
    let (ssrc, fci) = p.receiver.transport_feedback(due).expect("due");
    assert_eq!(ssrc, 200);
    // Base 7, four statuses: come, come, lost, come; all at time 0 of the leg.
    assert_eq!(fci[..4], [0, 7, 0, 4]);
    let (chunk, deltas) = (u16::from_be_bytes([fci[8], fci[9]]), &fci[10..]);
    assert_eq!(chunk >> 8, 0b1011_0100, "a vector of one-bit statuses: 1 1 0 1");
    assert_eq!(deltas, [0, 0, 0]);
    assert_eq!(p.receiver.transport_feedback(due), None);
}

#[test]
fn a_packet_asked_for_ten_times_in_vain_costs_one_key_frame() {
    let mut p = Publisher::new(&[VIDEO]);
    p.give(video(100, 1)).expect("taken");
    p.give(video(100, 3)).expect("taken");
    let (mut nacks, mut key_frames) = (0, vec![]);
    for _ in 0..3000 {
        let due = p.requests_after(MS);
        nacks += due.nacks.len();
        key_frames.extend(due.key_frames);
    }
    assert_eq!((nacks, key_frames), (10, vec![100]));
}

#[test]
fn a_layer_is_asked_for_a_key_frame_at_most_every_half_second() {
    let mut p = Publisher::new(&[VIDEO]);
    assert_eq!(p.receiver.request_key_frame(p.now, 0, 0), None, "nobody to ask");
    let (first, _) = p.take(video(100, 1)).expect("taken").expect("media");
    assert_eq!(first.ask_key_frame, Some(100));
    assert_eq!(p.receiver.request_key_frame(p.now, 0, 0), None);
    p.now += 100 * MS;
    assert_eq!(p.receiver.request_key_frame(p.now, 0, 0), None);
    assert_eq!(p.receiver.next_request(), Some(p.now + 400 * MS));
    assert!(p.requests_after(399 * MS).key_frames.is_empty());
    assert_eq!(
        p.requests_after(MS).key_frames,
        [100],
        "those who came later, together"
    );
    assert!(p.requests_after(2000 * MS).key_frames.is_empty());
    assert_eq!(p.receiver.request_key_frame(p.now, 0, 0), Some(100));
    // A hole too large to repair.
    p.now += 500 * MS;
    let (far, _) = p.take(video(100, 1000)).expect("taken").expect("media");
    assert_eq!(far.ask_key_frame, Some(100));
}

#[test]
fn the_newest_ssrc_of_a_source_counts_until_it_is_silent() {
    let mut p = Publisher::new(&[VIDEO]);
    let of = |ssrc, seq| P {
        extensions: [Some((4, b"0")), None, None],
        ..video(ssrc, seq)
    };
    assert!(matches!(p.give(of(100, 10)), Ok(Some(_))));
    assert!(
        matches!(p.give(of(101, 5000)), Ok(Some(_))),
        "the track began anew"
    );
    assert_eq!(p.give(of(100, 11)), Ok(None), "a straggler");
    assert_eq!(p.receiver.request_key_frame(p.now, 0, 0), Some(101));
    p.now += 499 * MS;
    assert_eq!(p.give(of(100, 12)), Ok(None));
    p.now += MS;
    assert!(matches!(p.give(of(100, 13)), Ok(Some((0, 0, 13, _)))));
    assert_eq!(p.give(of(101, 5001)), Ok(None));
}

#[test]
fn tracks_may_begin_anew_for_ever() {
    let mut p = Publisher::new(&[VIDEO]);
    let of = |ssrc| P {
        extensions: [Some((4, b"0")), None, None],
        ..video(ssrc, 1)
    };
    for ssrc in 0..1000 {
        p.now += 100 * MS;
        assert!(matches!(p.give(of(ssrc)), Ok(Some(_))), "{ssrc}");
        assert!(p.receiver.streams() <= MAX_SSRCS);
    }
    // But not all at once.
    for ssrc in 1000..1100 {
        let out = p.give(of(ssrc));
        assert!(out.is_ok() || out == Err(Ignored::TooManySsrcs), "{ssrc}");
    }
    assert_eq!(p.give(of(2000)), Err(Ignored::TooManySsrcs));
    assert_eq!(p.receiver.streams(), MAX_SSRCS);
    let (ssrcs, sources) = p.receiver.video(p.now + ACTIVE);
    assert_eq!((ssrcs.len(), sources), (0, 0), "none is heard any more");
}

#[test]
fn red_is_told_from_plain_audio() {
    let mut p = Publisher::new(&[AUDIO]);
    p.receiver.sources[0].coding.red = Some(Red { pt: 63, first: true });
    let audio = |pt, seq, payload| P {
        ssrc: 7,
        pt,
        seq,
        payload,
        ..P::default()
    };
    let mut of = |packet| {
        let out = p.take(packet)?;
        Ok(out.map(|(a, payload)| (a.seq, a.redundancy, payload)))
    };
    assert_eq!(of(audio(111, 1, b"opus")), Ok(Some((1, 0, b"opus".to_vec()))));
    let red = [0x80 | 111, 0x0f, 0, 2, 111, 1, 2, b'n', b'e', b'w'];
    assert_eq!(of(audio(63, 2, &red)), Ok(Some((2, 7, red.to_vec()))));
    let cut = Err(Ignored::RtpMalformed);
    assert_eq!(of(audio(63, 3, &red[..7])), cut);
    assert_eq!(
        of(audio(63, 4, &[0x80 | 110, 0, 0, 0, 110, 1])),
        cut,
        "of another coding"
    );
    assert_eq!(of(audio(64, 5, &red)), Err(Ignored::UnknownPayloadType));
}

#[test]
fn packets_are_dated_by_the_publishers_reports() {
    let mut p = Publisher::new(&[AUDIO, VIDEO]);
    let sound = |seq, timestamp| P {
        ssrc: 7,
        pt: 111,
        seq,
        timestamp,
        payload: b"x",
        ..P::default()
    };
    let picture = |seq, timestamp| P {
        timestamp,
        ..video(100, seq)
    };
    let age = |p: &mut Publisher, packet| p.take(packet).expect("taken").expect("media").0.age_us;
    assert_eq!(age(&mut p, sound(1, 1000)), 0, "no report yet");
    assert_eq!(age(&mut p, picture(1, 5000)), 0);
    let wall = 0xe900_0000_0000_0000;
    p.receiver.sender_report(p.now, 7, wall, 1000);
    p.receiver.sender_report(p.now, 100, wall, 5000);
    p.now += 100 * MS;
    // Both were sampled 80 ms after the reports; then the picture was on the way for 50 ms more.
    assert_eq!(age(&mut p, sound(2, 1000 + 48 * 80)), 20_000);
    p.now += 50 * MS;
    assert_eq!(age(&mut p, picture(2, 5000 + 90 * 80)), 70_000);
}

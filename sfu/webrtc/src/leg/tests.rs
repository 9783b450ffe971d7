//! A leg against a client made of the same parts, in virtual time: who may speak to it, what it
//! does when a packet is lost, and that nothing hostile moves it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use proptest::prelude::*;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_stun::attributes::{ATTR_ICE_CONTROLLED, ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};

use super::*;
use crate::Codec;
use crate::crypto::provider;
use crate::media::QueuedRtp;
use crate::rtcp::Feedback;
use crate::rtp::Header;
use crate::send::{MAX_KEPT, SendBatch};
use crate::srtp::{MAX_REMEMBERED, MAX_SSRCS, Profile};
use crate::store::PacketStore;
use crate::stun_ufrag;
use crate::test_support::{allocations, instant};

mod transport;

const MS: Duration = Duration::from_millis(1);

struct Client {
    now: Instant,
    leg: Leg,
    address: SocketAddr,
    /// Of the leg, from its answer.
    pwd: String,
    dtls: Endpoint,
    passive: bool,
    profile: Option<Profile>,
    srtp: Option<Srtp>,
    events: Vec<LegEvent>,
    /// Media and RTCP from the leg, still protected.
    inbox: VecDeque<Vec<u8>>,
    store: PacketStore,
    batch: SendBatch,
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], port))
}

fn stun(ufrag: &str, pwd: &str, extra: &[rtc_stun::attributes::AttrType]) -> Vec<u8> {
    // Each check has a transaction id of its own.
    static CHECKS: AtomicU64 = AtomicU64::new(0);
    let mut id = [3; 12];
    id[4..].copy_from_slice(&CHECKS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let mut m = Message::new();
    m.build(&[
        Box::new(BINDING_REQUEST) as Box<dyn Setter>,
        Box::new(TransactionId(id)),
    ])
    .expect("built");
    m.add(ATTR_USERNAME, format!("{ufrag}:abcd").as_bytes());
    for kind in extra {
        let value: &[u8] = if *kind == ATTR_USE_CANDIDATE { &[] } else { &[0; 8] };
        m.add(*kind, value);
    }
    let integrity =
        MessageIntegrity::new_short_term_integrity_with_provider(pwd.to_owned(), provider().crypto());
    integrity.add_to(&mut m).expect("built");
    FINGERPRINT.add_to(&mut m).expect("built");
    m.raw
}

impl Client {
    /// Publishes VP8 (PT 96, mid "p", two layers) and opus, watches one VP8 slot (mid "s").
    fn new(profiles: &[u16], honest: bool) -> Self {
        Self::with_setup(profiles, honest, "actpass")
    }

    /// The client of DTLS, or with `a=setup:passive` the server.
    fn with_setup(profiles: &[u16], honest: bool, setup: &str) -> Self {
        let certificate = Certificate::generate().expect("a certificate");
        let shown = if honest {
            certificate.clone()
        } else {
            Certificate::generate().expect("one")
        };
        let offer = format!(
            "v=0\r\na=group:BUNDLE p s\r\na=ice-ufrag:abcd\r\na=ice-pwd:{:x<22}\r\n\
             a=setup:{setup}\r\na=fingerprint:sha-256 {}\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:p\r\na=sendonly\r\na=rtcp-mux\r\n\
             a=rtpmap:96 VP8/90000\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
             a=rid:lo send\r\na=rid:hi send\r\na=simulcast:send hi;lo\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 100\r\na=mid:s\r\na=recvonly\r\na=rtcp-mux\r\n\
             a=rtpmap:100 VP8/90000\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
            "",
            shown.fingerprint()
        );
        let now = instant();
        let relay = Arc::new(Certificate::generate().expect("a certificate"));
        let config = LegConfig::new(address(9), relay, [5; 32]);
        let (leg, answer) = Leg::accept(now, &offer, &config).expect("a good offer");
        let pwd = answer.lines().find_map(|l| l.strip_prefix("a=ice-pwd:"));
        let pwd = pwd.expect("in the answer").to_owned();
        let passive = setup == "passive";
        let config = ConfigBuilder::default()
            .with_crypto_provider(provider().clone())
            .with_certificates(vec![certificate.dtls.clone()])
            .with_insecure_skip_verify(true)
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            .with_srtp_protection_profiles(profiles.iter().map(|p| SrtpProtectionProfile::from(*p)).collect())
            .build(!passive, None)
            .expect("an end");
        let config = Arc::new(config);
        let server = passive.then(|| config.clone());
        let mut dtls = Endpoint::new(address(1), TransportProtocol::UDP, server);
        if !passive {
            dtls.connect(now, address(9), config, None).expect("starts");
        }
        Self {
            now,
            leg,
            address: address(1),
            pwd,
            dtls,
            passive,
            profile: None,
            srtp: None,
            events: Vec::new(),
            inbox: VecDeque::new(),
            store: PacketStore::new(),
            batch: SendBatch::new(),
        }
    }

    fn connected(profiles: &[u16]) -> Self {
        let mut c = Self::new(profiles, true);
        c.check(&[ATTR_USE_CANDIDATE]).expect("answered");
        c.drive();
        assert!(c.leg.is_connected());
        assert_eq!(c.events, [LegEvent::Connected]);
        c.inbox.clear();
        c
    }

    fn check(&mut self, extra: &[rtc_stun::attributes::AttrType]) -> Result<(), Ignored> {
        let mut request = stun(self.leg.local_ufrag(), &self.pwd, extra);
        self.give(&mut request).map(|_| ())
    }

    fn give(&mut self, datagram: &mut [u8]) -> Result<Option<(usize, usize, u16)>, Ignored> {
        let rtp = self.leg.handle_datagram(self.now, self.address, datagram)?;
        Ok(rtp.map(|r| (r.source, r.layer, r.seq)))
    }

    /// Carries datagrams both ways until it is quiet.
    fn drive(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(t) = self.dtls.poll_transmit() {
                quiet = false;
                let _ = self
                    .leg
                    .handle_datagram(self.now, self.address, &mut t.message.to_vec());
            }
            quiet &= !self.media();
            while let Some(t) = self.leg.poll_transmit() {
                quiet = false;
                if (20..=63).contains(&t.data[0]) {
                    self.hear_dtls(&t.data);
                } else {
                    self.inbox.push_back(t.data);
                }
            }
            while let Some(event) = self.leg.poll_event() {
                self.events.push(event);
            }
            if quiet {
                return;
            }
        }
    }

    fn hear_dtls(&mut self, data: &[u8]) {
        let peer = address(9);
        let events = self.dtls.read(self.now, peer, None, BytesMut::from(data));
        for event in events.unwrap_or_default() {
            if matches!(event, EndpointEvent::HandshakeComplete) {
                let state = self.dtls.get_connection_state(peer).expect("complete");
                let profile = match state.srtp_protection_profile() as u16 {
                    7 => Profile::AeadAes128Gcm,
                    _ => Profile::Aes128CmHmacSha1_80,
                };
                let material = state
                    .export_keying_material("EXTRACTOR-dtls_srtp", &[], profile.keying_length())
                    .expect("exported");
                self.profile = Some(profile);
                self.srtp = Srtp::from_material(profile, material.as_ref(), !self.passive);
            }
        }
    }

    /// A protected packet of a layer of the published source.
    fn packet(&mut self, ssrc: u32, rid: &str, seq: u16, payload: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        Header {
            marker: true,
            pt: 96,
            seq,
            timestamp: 0,
            ssrc,
            extensions: [Some((4, b"p")), Some((10, rid.as_bytes())), None],
            two_bytes: false,
        }
        .write(&mut plain);
        let header = plain.len();
        plain.extend_from_slice(payload);
        let srtp = self.srtp.as_mut().expect("keyed");
        assert!(srtp.protect_rtp(&mut plain, 0, header));
        plain
    }

    fn say(&mut self, rtcp: Option<Vec<u8>>) {
        let plain = rtcp.expect("written");
        let mut wire = self
            .srtp
            .as_mut()
            .expect("keyed")
            .protect_rtcp(plain)
            .expect("sealed");
        assert_eq!(self.give(&mut wire), Ok(None));
    }

    /// The RTCP that came since the last call.
    fn heard(&mut self) -> Vec<Feedback> {
        self.drive();
        let srtp = self.srtp.as_mut().expect("keyed");
        let mut all = Vec::new();
        for mut datagram in self.inbox.drain(..).filter(|d| (192..=223).contains(&d[1])) {
            let length = srtp.unprotect_rtcp(&mut datagram).expect("authentic");
            all.extend(rtcp::read(&datagram[..length]));
        }
        all
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.leg.handle_timeout(self.now);
        self.drive();
    }

    /// Puts what the leg has to send into the inbox; false if it has nothing.
    fn media(&mut self) -> bool {
        let mut some = false;
        while let Some(to) = self.leg.poll_media(self.now, &self.store, &mut self.batch) {
            assert_eq!(to, self.address);
            some = true;
            let mut rest = self.batch.bytes();
            for length in self.batch.lengths() {
                let (datagram, next) = rest.split_at(*length);
                self.inbox.push_back(datagram.to_vec());
                rest = next;
            }
        }
        some
    }

    fn queue(&mut self, seq: u16, payload: &[u8], starts_key_frame: bool) -> bool {
        let packet = QueuedRtp {
            place: self.store.push(self.now, payload).expect("short"),
            codec: Codec::Vp8,
            descriptor: 0,
            redundancy: 0,
            age_us: 0,
            seq,
            timestamp: 1,
            marker: true,
            starts_key_frame,
            audio_level: None,
            patch: None,
        };
        self.leg.queue_rtp(self.now, 0, &packet)
    }

    fn send(&mut self, seq: u16) -> Vec<u8> {
        let before = self.inbox.len();
        assert!(self.queue(seq, &[0x10, 1, 2], false));
        self.media();
        assert_eq!(self.inbox.len(), before + 1);
        self.inbox.pop_back().expect("one")
    }

    fn closed(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|e| match e {
            LegEvent::Closed { reason } => Some(*reason),
            _ => None,
        })
    }
}

#[test]
fn layers_are_told_apart_by_rid_smallest_first() {
    let mut c = Client::connected(&[1, 7]);
    let mut hi = c.packet(20, "hi", 7, b"x");
    let mut lo = c.packet(10, "lo", 5, b"x");
    assert_eq!(c.give(&mut hi), Ok(Some((0, 1, 7))));
    assert_eq!(c.give(&mut lo), Ok(Some((0, 0, 5))));
    let mut unknown = c.packet(30, "mid", 5, b"x");
    assert_eq!(c.give(&mut unknown), Err(Ignored::UnknownSource));
}

#[test]
fn a_key_frame_asked_for_early_is_asked_of_the_layer_once_known() {
    let mut c = Client::connected(&[1]);
    c.leg.request_key_frame(c.now, 0, 1);
    assert!(c.heard().is_empty());
    let mut lo = c.packet(10, "lo", 5, b"x");
    c.give(&mut lo).expect("taken");
    assert!(c.heard().is_empty());
    let mut hi = c.packet(20, "hi", 7, b"x");
    c.give(&mut hi).expect("taken");
    assert_eq!(c.heard(), [Feedback::KeyFrame { ssrc: 20 }]);
    c.leg.request_key_frame(c.now, 0, 0);
    assert_eq!(c.heard(), [Feedback::KeyFrame { ssrc: 10 }]);
}

#[test]
fn a_lost_packet_is_asked_for_and_reported() {
    let mut c = Client::connected(&[7]);
    for seq in [1, 2, 4] {
        let mut p = c.packet(10, "lo", seq, b"x");
        c.give(&mut p).expect("taken");
    }
    let due = c.leg.poll_timeout().expect("open");
    assert_eq!(due - c.now, 10 * MS);
    c.wait(10 * MS);
    let nack = Feedback::Nack {
        ssrc: 10,
        seqs: vec![3],
    };
    assert_eq!(c.heard(), [nack]);
    c.wait(1000 * MS);
    let reported = c.heard().into_iter().any(|f| {
        matches!(
            f,
            Feedback::Reception {
                ssrc: 10,
                fraction_lost: 64,
                ..
            }
        )
    });
    assert!(reported, "1 of 4 is 64 of 256");
}

#[test]
fn a_nack_is_answered_with_the_same_bytes() {
    let mut c = Client::connected(&[7]);
    let first = c.send(100);
    let ssrc = u32::from_be_bytes([first[8], first[9], first[10], first[11]]);
    c.send(101);
    c.say(rtcp::nack(1, ssrc, &[100, 99]));
    c.drive();
    assert_eq!(c.inbox, [first]);
    c.say(rtcp::pli(1, ssrc));
    c.drive();
    assert!(c.events.contains(&LegEvent::KeyFrameRequested { slot: 0 }));
}

#[test]
fn a_packet_whose_payload_is_gone_is_counted_and_not_sent_again() {
    let mut c = Client::connected(&[7]);
    let first = c.send(100);
    let ssrc = u32::from_be_bytes([first[8], first[9], first[10], first[11]]);
    c.store = PacketStore::new();
    c.say(rtcp::nack(1, ssrc, &[100]));
    c.drive();
    assert!(c.inbox.is_empty());
    assert_eq!(c.leg.tables().media_dropped, 1);
}

#[test]
fn packets_of_a_run_leave_in_one_batch() {
    let mut c = Client::connected(&[7]);
    for seq in 0..60 {
        assert!(c.queue(seq, &[7; 1000], false));
    }
    let mut batches = Vec::new();
    while c.leg.poll_media(c.now, &c.store, &mut c.batch).is_some() {
        batches.push(c.batch.lengths().len());
    }
    assert_eq!(batches.iter().sum::<usize>(), 60);
    assert!(batches.len() <= 2, "{batches:?}");
}

#[test]
fn a_slot_whose_packets_were_dropped_goes_on_at_a_key_frame() {
    let mut c = Client::connected(&[7]);
    // The one that finds the queue full goes with the others.
    let taken = (0..2000).take_while(|seq| c.queue(*seq, b"x", false)).count() as u16;
    assert_eq!(c.leg.poll_event(), Some(LegEvent::KeyFrameRequested { slot: 0 }));
    assert!(!c.queue(taken + 1, b"x", false), "the rest of a picture");
    c.media();
    assert!(c.inbox.is_empty());
    assert_eq!(c.leg.tables().media_dropped, u64::from(taken));
    assert!(c.queue(taken + 2, b"key", true) && c.queue(taken + 3, b"x", false));
    c.media();
    assert_eq!(c.inbox.len(), 2);
}

#[test]
fn packets_go_out_and_come_in_without_allocation() {
    assert!(
        allocations(|| drop(std::hint::black_box(vec![1u8]))) > 0,
        "they are counted"
    );
    for profile in [7, 1] {
        let mut c = Client::connected(&[profile]);
        let mut send = |seqs: std::ops::Range<u16>| {
            for seq in seqs {
                c.now += MS;
                assert!(c.queue(seq, &[7; 1100], false));
                let to = c.leg.poll_media(c.now, &c.store, &mut c.batch);
                assert!(to.is_some() && c.batch.lengths().len() == 1);
            }
        };
        send(0..8000); // until store and records are as large as they get
        assert_eq!(allocations(|| send(8000..10_000)), 0);

        let mut wires: Vec<Vec<u8>> = (0..300).map(|seq| c.packet(10, "lo", seq, b"x")).collect();
        let mut take = |wires: &mut [Vec<u8>]| {
            for wire in wires {
                assert!(matches!(
                    c.leg.handle_datagram(c.now, c.address, wire),
                    Ok(Some(_))
                ));
            }
        };
        take(&mut wires[..1]);
        assert_eq!(allocations(|| take(&mut wires[1..])), 0);
    }
}

#[test]
fn sender_reports_run_on_and_give_the_round_trip() {
    let mut c = Client::connected(&[7]);
    c.send(1);
    c.wait(1000 * MS);
    let of_handshake = c.events.iter().find_map(|e| match e {
        LegEvent::Quality(q) => q.round_trip,
        _ => None,
    });
    assert!(of_handshake.is_some_and(|rtt| rtt < 80 * MS), "{of_handshake:?}");
    let report = c.heard().into_iter().find_map(|f| match f {
        Feedback::SenderReport { ssrc, ntp, .. } => Some((ssrc, (ntp >> 16) as u32)),
        _ => None,
    });
    let (ssrc, ntp_middle) = report.expect("a sender report");
    c.now += 80 * MS;
    let mut rr = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
    rr.extend(ssrc.to_be_bytes());
    rr.extend([128, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    rr.extend(ntp_middle.to_be_bytes());
    rr.extend(0u32.to_be_bytes());
    c.say(Some(rr));
    c.send(2);
    c.wait(1000 * MS);
    let quality = c.events.iter().rev().find_map(|e| match e {
        LegEvent::Quality(q) => Some(q.clone()),
        _ => None,
    });
    let quality = quality.expect("each second");
    let rtt = quality.round_trip.expect("reported");
    assert!(rtt.abs_diff(80 * MS) < MS, "{rtt:?}");
    assert!((quality.sent_loss - 0.5).abs() < 0.01);
    assert_eq!(quality.sent_packets, 1);
}

#[test]
fn floods_leave_every_table_bounded() {
    let mut c = Client::connected(&[1]);
    for n in 0..3000u32 {
        let mut p = c.packet(n % 500, "lo", (n * 3) as u16, b"x");
        let _ = c.give(&mut p);
        c.send(n as u16);
        let _ = c.check(&[ATTR_USE_CANDIDATE]);
        c.address = address(1000 + (n % 50) as u16);
        let _ = c.check(&[]);
        c.address = address(1);
        let _ = c.give(&mut [&[22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 4, 0][..], &[7; 1024]].concat());
    }
    let t = c.leg.tables();
    assert!(t.ssrcs <= MAX_SSRCS + 2 * MAX_REMEMBERED, "{t:?}");
    assert!(t.addresses <= 8, "{t:?}");
    assert!(t.transmits <= MAX_TRANSMITS && t.transmits_dropped > 0, "{t:?}");
    assert!(t.events <= MAX_EVENTS, "{t:?}");
    assert!(t.kept_packets <= MAX_KEPT && t.waiting == 0, "{t:?}");
    assert!(t.missing <= 64 * 256, "{t:?}");
    assert!(t.dtls_bytes <= 160 * 1024, "{t:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn junk_moves_nothing(
        junk in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..200),
    ) {
        let mut c = Client::connected(&[7]);
        for mut datagram in junk {
            prop_assert!(c.give(&mut datagram).is_err());
        }
        prop_assert!(c.leg.is_connected());
        let mut genuine = c.packet(10, "lo", 5, b"x");
        prop_assert_eq!(c.give(&mut genuine), Ok(Some((0, 0, 5))));
    }

    #[test]
    fn changed_and_cut_datagrams_are_ignored(
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut c = Client::connected(&[1]);
        let genuine = c.packet(10, "lo", 5, b"payload");
        let mut changed = genuine.clone();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        prop_assert!(c.give(&mut changed).is_err());
        prop_assert!(c.give(&mut genuine[..cut.index(genuine.len())].to_vec()).is_err());
        prop_assert_eq!(c.give(&mut genuine.clone()), Ok(Some((0, 0, 5))), "byte {}", at);
        prop_assert_eq!(c.give(&mut genuine.clone()), Err(Ignored::Replayed));
    }
}

//! A whole leg and the peer's end of its keys, moved step by step by the fuzzer's bytes.
//!
//! The peer may be keyed without a handshake, so that what is behind the encryption is reached too. Invariants are looked at
//! after each step.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::signed;
use crate::srtp::{MAX_SSRCS, Profile, Srtp};
use crate::{Certificate, Codec, Leg, LegConfig, PacketStore, PicturePatch, QueuedRtp, SendBatch};

/// Publishes Opus and VP8 in two layers, and watches one video and one audio slot.
const OFFER: &str = "v=0\r\na=group:BUNDLE a v s t\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
    a=setup:actpass\r\na=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:\
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\na=extmap-allow-mixed\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
    a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:v\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
    a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\n\
    a=fmtp:97 apt=96\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
    a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
    a=rid:lo send\r\na=rid:hi send\r\na=simulcast:send hi;lo\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:s\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
    a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\n\
    a=fmtp:97 apt=96\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:t\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
    a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";

/// Waits of 5 ms, one after the other, for which a timer that was served may go on being due.
const MAX_WAITS: u32 = 400;
/// Steps of one run; what is behind them is not read.
const MAX_STEPS: usize = 200;

struct Run<'a> {
    input: &'a [u8],
    now: Instant,
    leg: Leg,
    pwd: String,
    peer: Option<Srtp>,
    /// Where a check with the right password came from.
    proved: BTreeSet<SocketAddr>,
    checks: u8,
    store: PacketStore,
    batch: SendBatch,
}

/// A leg's life. Byte 0 says whether the keys are agreed already; then come steps.
pub fn leg(now: Instant, certificate: &Arc<Certificate>, data: &[u8]) {
    let config = LegConfig::new(super::FROM, certificate.clone(), [7; 32]);
    let (leg, answer) = Leg::accept(now, OFFER, &config).expect("the offer is good");
    let pwd = answer.lines().find_map(|line| line.strip_prefix("a=ice-pwd:"));
    let mut run = Run {
        input: data,
        now,
        leg,
        pwd: pwd.expect("an ICE password").to_owned(),
        peer: None,
        proved: BTreeSet::new(),
        checks: 0,
        store: PacketStore::new(),
        batch: SendBatch::new(),
    };
    let profile = match run.byte() & 3 {
        0 => None,
        1 => Some(Profile::Aes128CmHmacSha1_80),
        _ => Some(Profile::AeadAes128Gcm),
    };
    if let Some(profile) = profile {
        run.check(address(0), true);
        let material = vec![9; profile.keying_length()];
        let ours = Srtp::from_keying_material(profile, &material).expect("the length is right");
        run.leg.connect_with(run.now, ours);
        run.peer = Srtp::from_material(profile, &material, true);
    }
    for _ in 0..MAX_STEPS {
        if run.input.is_empty() {
            break;
        }
        run.step();
        run.look();
    }
    run.leg.close(run.now);
    run.look();
    assert_eq!(run.leg.poll_timeout(), None, "a closed leg waits for nothing");
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 5000 + u16::from(n % 16)))
}

impl Run<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.input.split_first().map_or((0, self.input), |(b, r)| (*b, r));
        self.input = rest;
        first
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Bytes of a length that stands before them.
    fn chunk(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.input.len());
        let (chunk, rest) = self.input.split_at(length);
        self.input = rest;
        chunk.to_vec()
    }

    fn step(&mut self) {
        match self.byte() % 10 {
            0 => {
                let (from, mut datagram) = (address(self.byte()), self.chunk());
                let _ = self.leg.handle_datagram(self.now, from, &mut datagram);
            }
            1 => {
                let which = self.byte();
                self.check(address(which), which & 0x80 != 0);
            }
            2 => self.wait(),
            3 => self.give_rtp(),
            4 => {
                let plain = self.chunk();
                if let Some(mut data) = self.peer.as_mut().and_then(|peer| peer.protect_rtcp(plain)) {
                    let _ = self.leg.handle_datagram(self.now, address(0), &mut data);
                }
            }
            5 => self.send(),
            6 => {
                let (source, layer) = (self.byte(), self.byte());
                self.leg.request_key_frame(self.now, source.into(), layer.into());
            }
            7 => self.pwd = self.leg.restart_ice("abcd").pwd,
            8 => self.burst(),
            _ => self.replay(),
        }
    }

    fn check(&mut self, from: SocketAddr, nominates: bool) {
        self.checks = self.checks.wrapping_add(1);
        let name = format!("{}:abcd", self.leg.local_ufrag());
        let mut attributes = vec![0, 6];
        attributes.extend((name.len() as u16).to_be_bytes());
        attributes.extend_from_slice(name.as_bytes());
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        if nominates {
            attributes.extend([0, 0x25, 0, 0]);
        }
        let mut request = signed(&attributes, &self.pwd, self.checks).expect("well-formed");
        if self.leg.handle_datagram(self.now, from, &mut request).is_ok() {
            self.proved.insert(from);
        }
    }

    fn wait(&mut self) {
        let tens = self.byte();
        self.now += Duration::from_millis(u64::from(tens) * 10);
        let mut waited = 0;
        while self.leg.poll_timeout().is_some_and(|at| at <= self.now) {
            self.leg.handle_timeout(self.now);
            // A probe's next packet may be what was due, and the pacer may have to let it wait for a while.
            self.media();
            self.look();
            if self.leg.poll_timeout().is_some_and(|at| at <= self.now) {
                waited += 1;
                assert!(waited < MAX_WAITS, "a timer stands still");
                self.now += Duration::from_millis(5);
            }
        }
    }

    /// An authentic packet, whatever its plain bytes are.
    fn give_rtp(&mut self) {
        let plain = self.chunk();
        let Some(header) = crate::rtp::Rtp::header(&plain).map(|rtp| rtp.payload.start) else {
            return;
        };
        let Some(peer) = &mut self.peer else { return };
        let mut data = plain;
        if peer.protect_rtp(&mut data, 0, header) {
            let length = data.len();
            if let Ok(Some(rtp)) = self.leg.handle_datagram(self.now, address(0), &mut data) {
                assert!(!rtp.payload.is_empty() && rtp.payload.len() < length);
                assert!(rtp.source < 2 && rtp.layer < 2);
            }
        }
    }

    /// Many packets of one stream with a step between their numbers, so that holes and repeats come about.
    fn burst(&mut self) {
        let (first, step, count) = (self.two(), self.byte(), self.byte());
        let video = self.byte() & 1;
        for n in 0..u16::from(count) {
            let seq = first.wrapping_add(n.wrapping_mul(u16::from(step)));
            let mut data = vec![0x90, if video == 1 { 96 } else { 111 }];
            data.extend(seq.to_be_bytes());
            data.extend([0, 0, 0, 9, 0, 0, 0, video]);
            data.extend([
                0xbe,
                0xde,
                0,
                2,
                0x40,
                if video == 1 { b'v' } else { b'a' },
                0xa1,
                b'l',
                b'o',
                0,
                0,
                0,
            ]);
            let header = data.len();
            data.extend([0x10, 0, 0x9d, 1, 0x2a]);
            let Some(peer) = &mut self.peer else { return };
            if peer.protect_rtp(&mut data, 0, header) {
                let _ = self.leg.handle_datagram(self.now, address(0), &mut data);
            }
        }
    }

    /// What came once does not come again.
    fn replay(&mut self) {
        let seq = self.two();
        let mut data = vec![0x80, 111];
        data.extend(seq.to_be_bytes());
        data.extend([0, 0, 0, 9, 0, 0, 0, 77, 1, 2, 3]);
        let Some(peer) = &mut self.peer else { return };
        if peer.protect_rtp(&mut data, 0, 12) {
            let mut again = data.clone();
            let _ = self.leg.handle_datagram(self.now, address(0), &mut data);
            let second = self.leg.handle_datagram(self.now, address(0), &mut again);
            assert!(second.is_err(), "a replayed packet was taken");
        }
    }

    fn send(&mut self) {
        let slot = usize::from(self.byte());
        let (seq, timestamp, payload) = (self.two(), self.two(), self.chunk());
        let Some(place) = self.store.push(self.now, &payload) else {
            return;
        };
        let packet = QueuedRtp {
            place,
            codec: if seq & 1 == 0 { Codec::Vp8 } else { Codec::Opus },
            seq,
            timestamp: timestamp.into(),
            marker: timestamp & 1 == 0,
            starts_key_frame: timestamp & 8 == 0,
            age_us: i32::from(timestamp.cast_signed()) * 50,
            descriptor: 0,
            // Never more than there is: `red` has looked at it.
            redundancy: (timestamp >> 5 & 7).min(u16::try_from(payload.len()).unwrap_or(0)),
            audio_level: (timestamp & 2 == 0).then_some(timestamp as u8),
            patch: (timestamp & 4 == 0).then_some(PicturePatch::Picture {
                picture_id: seq,
                tl0_pic_idx: 1,
            }),
        };
        let _ = self.leg.queue_rtp(self.now, slot, &packet);
    }

    /// Takes the media that may leave, in as many turns as it needs.
    fn media(&mut self) {
        for turn in 0.. {
            assert!(turn < 10_000, "a turn without an end");
            let Some(to) = self.leg.poll_media(self.now, &self.store, &mut self.batch) else {
                return;
            };
            assert!(
                self.proved.contains(&to),
                "sent to {to}, which has proved nothing"
            );
            assert!(self.batch.lengths().iter().all(|length| *length <= 1600));
            let all: usize = self.batch.lengths().iter().sum();
            assert_eq!(all, self.batch.bytes().len());
        }
    }

    /// Drains the leg and checks its bounds.
    fn look(&mut self) {
        self.media();
        let tables = self.leg.tables();
        assert!(tables.ssrcs <= 3 * MAX_SSRCS, "{tables:?}");
        assert!(
            tables.addresses <= 8 && tables.transmits <= 1024 && tables.events <= 513,
            "{tables:?}"
        );
        assert!(
            tables.missing <= MAX_SSRCS * 256 && tables.dtls_bytes <= 160 * 1024,
            "{tables:?}"
        );
        while let Some(transmit) = self.leg.poll_transmit() {
            assert!(self.proved.contains(&transmit.to), "sent to {}", transmit.to);
            assert!(transmit.data.len() <= 1500, "{} bytes", transmit.data.len());
        }
        while self.leg.poll_event().is_some() {}
    }
}

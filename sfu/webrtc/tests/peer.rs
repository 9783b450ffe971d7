//! A full `webrtc` peer against a leg, over real loopback UDP: it publishes VP8 and watches a slot,
//! both ways lose packets, the viewer asks for key frames, and at the end it hangs up.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // real time, sockets and threads

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_testpeer::{Line, Peer, Watch, packet, track};
use muster_webrtc::{
    Certificate, CloseReason, Codec, Leg, LegConfig, LegEvent, PacketStore, PicturePatch, QueuedRtp,
    SendBatch, SourceKind, stun_ufrag,
};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc_rtp::codec::vp8::Vp8Payloader;
use rtc_rtp::packetizer::Payloader;
use tokio::net::UdpSocket;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{SrtpProtectionProfile, StatsSelector};

const PUBLISHED_SSRC: u32 = 0x1234_5678;
const DEADLINE: Duration = Duration::from_secs(40);

/// What the peer saw in its slot.
#[derive(Default)]
struct Watched {
    track: Option<Arc<dyn TrackRemote>>,
    ssrc: u32,
    seqs: BTreeSet<u16>,
    last_payload: Bytes,
}

struct Viewer(Arc<Mutex<Watched>>);

impl Watch for Viewer {
    fn on_packet(&self, packet: rtc::rtp::Packet) {
        let mut w = self.0.lock().expect("no panic holds it");
        w.ssrc = packet.header.ssrc;
        w.seqs.insert(packet.header.sequence_number);
        w.last_payload = packet.payload;
    }

    fn on_track(&self, track: Arc<dyn TrackRemote>, ssrcs: Vec<u32>) {
        let mut w = self.0.lock().expect("no panic holds it");
        w.track = Some(track);
        w.ssrc = ssrcs.first().copied().unwrap_or_default();
    }
}

/// The relay's end: a leg on a socket.
struct RelayEnd {
    socket: UdpSocket,
    leg: Leg,
    /// Sequence numbers taken from the publisher.
    received: BTreeSet<u16>,
    datagrams: u32,
    events: Vec<LegEvent>,
    store: PacketStore,
    batch: SendBatch,
}

impl RelayEnd {
    async fn accept(offer: &str) -> (Self, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let certificate = Arc::new(Certificate::generate().expect("a certificate"));
        let config = LegConfig::new(socket.local_addr().expect("bound"), certificate, [9; 32]);
        let (leg, answer) = Leg::accept(Instant::now(), offer, &config).expect("a good offer");
        let end = Self {
            socket,
            leg,
            received: BTreeSet::new(),
            datagrams: 0,
            events: Vec::new(),
            store: PacketStore::new(),
            batch: SendBatch::new(),
        };
        (end, answer)
    }

    /// One turn of the loop: drains, then waits for a datagram or 5 ms.
    async fn turn(&mut self) {
        self.send_media(false).await;
        while let Some(t) = self.leg.poll_transmit() {
            self.socket.send_to(&t.data, t.to).await.expect("loopback");
        }
        while let Some(event) = self.leg.poll_event() {
            self.events.push(event);
        }
        let mut buffer = [0u8; 2048];
        let wait = Duration::from_millis(5);
        if let Ok(Ok((length, from))) = tokio::time::timeout(wait, self.socket.recv_from(&mut buffer)).await {
            self.datagram(from, &mut buffer[..length]);
        }
        let now = Instant::now();
        if self.leg.poll_timeout().is_some_and(|t| t <= now) {
            self.leg.handle_timeout(now);
        }
    }

    /// Sends what waits; where it is `lost`, nothing leaves.
    async fn send_media(&mut self, lost: bool) {
        while let Some(to) = self.leg.poll_media(Instant::now(), &self.store, &mut self.batch) {
            let mut rest = self.batch.bytes();
            for length in self.batch.lengths() {
                let (datagram, next) = rest.split_at(*length);
                rest = next;
                if !lost {
                    self.socket.send_to(datagram, to).await.expect("loopback");
                }
            }
        }
    }

    fn datagram(&mut self, from: SocketAddr, datagram: &mut [u8]) {
        if let Some(ufrag) = stun_ufrag(datagram) {
            assert_eq!(ufrag, self.leg.local_ufrag());
        }
        let is_rtp = datagram[0] >= 128 && !(192..=223).contains(&datagram[1]);
        self.datagrams += u32::from(is_rtp);
        if is_rtp && self.datagrams % 20 == 10 {
            return; // lost on the way
        }
        // The peer may send what does not concern a leg; only what it takes matters here.
        if let Ok(Some(rtp)) = self.leg.handle_datagram(Instant::now(), from, datagram) {
            assert_eq!((rtp.source, rtp.layer), (0, 0));
            self.received.insert(rtp.seq);
        }
    }

    fn saw(&self, wanted: impl Fn(&LegEvent) -> bool) -> bool {
        self.events.iter().any(wanted)
    }
}

/// Writes a picture every 20 ms, for ever.
fn publish(track: Arc<TrackLocalStaticRTP>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut payloader = Vp8Payloader::default();
        payloader.enable_picture_id = true;
        let picture = Bytes::from(vec![0x10; 1800]);
        let (mut seq, mut timestamp) = (65_500u16, 0u32);
        loop {
            let payloads = payloader.payload(1000, &picture).expect("packets");
            let count = payloads.len();
            for (n, payload) in payloads.into_iter().enumerate() {
                let packet = packet(PUBLISHED_SSRC, 96, (seq, timestamp), n + 1 == count, payload);
                seq = seq.wrapping_add(1);
                let _ = track.write_rtp(packet).await; // fails until the peer is connected
            }
            timestamp = timestamp.wrapping_add(1800);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// Sends packet `n` into the slot; every 25th is lost on the way.
async fn send(end: &mut RelayEnd, n: u16) {
    let payload = [0x90, 0x80, 0x80, 0x01, 0x10, 1, 2, 3, 4, 5];
    let now = Instant::now();
    let packet = QueuedRtp {
        place: end.store.push(now, &payload).expect("short"),
        codec: Codec::Vp8,
        descriptor: 0,
        redundancy: 0,
        age_us: 0,
        seq: 65_400u16.wrapping_add(n),
        timestamp: u32::from(n) * 3000,
        marker: true,
        starts_key_frame: false,
        audio_level: None,
        patch: Some(PicturePatch::Picture {
            picture_id: 0x1200 + n,
            tl0_pic_idx: 0,
        }),
    };
    end.send_media(false).await;
    assert!(end.leg.queue_rtp(now, 0, &packet), "connected");
    end.send_media(n % 25 == 10).await;
}

fn has_no_hole(seqs: &BTreeSet<u16>, first: u16, count: u16) -> bool {
    (0..count).all(|n| seqs.contains(&first.wrapping_add(n)))
}

async fn whole_session(profiles: Vec<SrtpProtectionProfile>, cipher: &str) {
    let watched = Arc::new(Mutex::new(Watched::default()));
    let track = track(RtpCodecKind::Video, &[(PUBLISHED_SSRC, "")]);
    let lines = vec![Line::Send(track.clone()), Line::Receive(RtpCodecKind::Video)];
    let peer = Peer::offer_with(Viewer(watched.clone()), lines, Some(profiles)).await;
    let (mut end, answer) = RelayEnd::accept(&peer.offer).await;
    assert_eq!(end.leg.sources().len(), 1);
    assert_eq!(end.leg.sources()[0].kind, SourceKind::Camera);
    assert_eq!(end.leg.slots().len(), 1);
    peer.answered(answer).await;

    let started = Instant::now();
    while !end.leg.is_connected() {
        assert!(started.elapsed() < DEADLINE, "not connected");
        end.turn().await;
    }
    let publishing = publish(track);

    let mut n = 0;
    let mut next = Instant::now();
    let mut pli_at = Instant::now() + Duration::from_millis(500);
    let mut asked = 0;
    loop {
        assert!(
            started.elapsed() < DEADLINE,
            "received {:?}, watched {:?}",
            end.received.len(),
            watched.lock().map(|w| w.seqs.len())
        );
        end.turn().await;
        let now = Instant::now();
        if now >= next && n < 200 {
            send(&mut end, n).await;
            n += 1;
            next = now + Duration::from_millis(10);
        }
        if now >= pli_at {
            pli_at = now + Duration::from_millis(500);
            let slot = {
                let w = watched.lock().expect("no panic holds it");
                w.track.clone().map(|track| (track, w.ssrc))
            };
            if let Some((track, media_ssrc)) = slot {
                let pli = PictureLossIndication {
                    sender_ssrc: 0,
                    media_ssrc,
                };
                track.write_rtcp(vec![Box::new(pli)]).await.expect("sent");
                asked += 1;
            }
        }
        let first = end.received.iter().copied().find(|s| *s >= 65_500);
        let all_received = first.is_some_and(|f| has_no_hole(&end.received, f, 150));
        // The first few may pass before the peer knows the track.
        let all_watched = {
            let w = watched.lock().expect("no panic holds it");
            has_no_hole(&w.seqs, 65_405, 190)
        };
        let requested = end.saw(|e| *e == LegEvent::KeyFrameRequested { slot: 0 });
        if all_received && all_watched && requested && asked > 0 {
            break;
        }
    }
    let last = watched.lock().expect("free").last_payload.clone();
    // The peer strips nothing: the descriptor carries our picture id.
    assert_eq!(last[..3], [0x90, 0x80, 0x92]);

    let report = peer.pc.get_stats(Instant::now(), StatsSelector::None).await;
    let transport = report.transport().expect("a transport");
    assert_eq!(transport.srtp_cipher, cipher);
    let resent = end.events.iter().map(|e| match e {
        LegEvent::Quality(q) => q.resent_packets,
        _ => 0,
    });
    assert!(resent.sum::<u64>() >= 1, "we answered NACKs");

    publishing.abort();
    peer.pc.close().await.expect("closed");
    let closed = LegEvent::Closed {
        reason: CloseReason::HungUp,
    };
    while !end.saw(|e| *e == closed) {
        assert!(started.elapsed() < DEADLINE, "no close_notify");
        end.turn().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webrtc_peer_with_gcm() {
    // AES-CM first, as Chrome lists them: the leg must still end on GCM.
    let profiles = vec![
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    ];
    whole_session(profiles, "SRTP_AEAD_AES_128_GCM").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webrtc_peer_that_has_only_aes_cm() {
    let profiles = vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80];
    whole_session(profiles, "SRTP_AES128_CM_HMAC_SHA1_80").await;
}

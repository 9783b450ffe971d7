//! A browser as tests play one: a peer of the `webrtc` crate on loopback, with its offer made. ICE, DTLS and SRTP are real.
//!
//! What it publishes, and what becomes of what it receives ([`Watch`]), is the test's. It is for tests alone: it panics where a
//! browser would not have come so far either.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8, MediaEngine};
use rtc::rtp::Packet;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use tokio::sync::mpsc;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder, SrtpProtectionProfile,
    register_default_interceptors,
};

const GATHERS_WITHIN: Duration = Duration::from_secs(20);

/// What a test does with what comes.
pub trait Watch: Send + Sync + 'static {
    /// A packet of any track, in the order of arrival.
    fn on_packet(&self, packet: Packet);

    /// A track, with the SSRCs that are known of it by then.
    fn on_track(&self, _: Arc<dyn TrackRemote>, _ssrcs: Vec<u32>) {}

    fn on_state(&self, _: RTCPeerConnectionState) {}
}

/// One m-line of the offer.
pub enum Line {
    Send(Arc<TrackLocalStaticRTP>),
    Receive(RtpCodecKind),
}

struct Handler<W> {
    gathered: mpsc::Sender<()>,
    watch: Arc<W>,
}

#[async_trait::async_trait]
impl<W: Watch> PeerConnectionEventHandler for Handler<W> {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _ = self.gathered.try_send(());
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.watch.on_state(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let ssrcs = track.ssrcs().await;
        self.watch.on_track(track.clone(), ssrcs);
        let watch = self.watch.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    watch.on_packet(packet);
                }
            }
        });
    }
}

/// The peer; it ends when it is dropped.
pub struct Peer {
    pub pc: Box<dyn PeerConnection>,
    pub offer: String,
}

impl Peer {
    /// With its offer made, of these m-lines in their order.
    pub async fn offer(watch: impl Watch, lines: Vec<Line>) -> Self {
        Self::offer_with(watch, lines, None).await
    }

    /// The same, with these ciphers alone.
    pub async fn offer_with(
        watch: impl Watch,
        lines: Vec<Line>,
        ciphers: Option<Vec<SrtpProtectionProfile>>,
    ) -> Self {
        let mut media_engine = MediaEngine::default();
        media_engine.register_default_codecs().expect("codecs");
        let registry = register_default_interceptors(Registry::new(), &mut media_engine);
        let (gathered, mut is_gathered) = mpsc::channel(1);
        let mut settings = SettingEngineBuilder::new().with_include_loopback_candidate(true);
        if let Some(ciphers) = ciphers {
            settings = settings.with_srtp_protection_profiles(ciphers);
        }
        let watch = Arc::new(watch);
        let pc = PeerConnectionBuilder::new()
            .with_media_engine(media_engine)
            .with_setting_engine(settings.build())
            .with_interceptor_registry(registry.expect("interceptors"))
            .with_handler(Arc::new(Handler { gathered, watch }))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await
            .expect("a peer");
        for line in lines {
            match line {
                Line::Send(track) => {
                    let track = track as Arc<dyn TrackLocal>;
                    pc.add_transceiver_from_track(track, direction(RTCRtpTransceiverDirection::Sendonly))
                        .await
                }
                Line::Receive(kind) => {
                    pc.add_transceiver_from_kind(kind, direction(RTCRtpTransceiverDirection::Recvonly))
                        .await
                }
            }
            .expect("an m-line");
        }
        let offer = pc.create_offer(None).await.expect("an offer");
        pc.set_local_description(offer).await.expect("set");
        tokio::time::timeout(GATHERS_WITHIN, is_gathered.recv())
            .await
            .expect("gathering ends");
        let offer = pc.local_description().await.expect("set").sdp;
        Self {
            pc: Box::new(pc),
            offer,
        }
    }

    /// Takes the answer.
    pub async fn answered(&self, sdp: String) {
        let answer = RTCSessionDescription::answer(sdp).expect("an answer");
        self.pc.set_remote_description(answer).await.expect("accepted");
    }
}

fn direction(direction: RTCRtpTransceiverDirection) -> Option<RTCRtpTransceiverInit> {
    Some(RTCRtpTransceiverInit {
        direction,
        streams: vec![],
        send_encodings: vec![],
    })
}

/// A track of VP8 or Opus in these layers: SSRC, and rid where there are several.
pub fn track(kind: RtpCodecKind, layers: &[(u32, &str)]) -> Arc<TrackLocalStaticRTP> {
    let (mime, clock_rate, channels) = match kind {
        RtpCodecKind::Audio => (MIME_TYPE_OPUS, 48_000, 2),
        _ => (MIME_TYPE_VP8, 90_000, 0),
    };
    let encoding = |(ssrc, rid): &(u32, &str)| RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            rid: (*rid).to_owned(),
            ssrc: Some(*ssrc),
            ..Default::default()
        },
        codec: RTCRtpCodec {
            mime_type: mime.to_owned(),
            clock_rate,
            channels,
            ..Default::default()
        },
        ..Default::default()
    };
    let name = |name: &str| format!("{mime}-{name}");
    Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
        name("stream"),
        name("track"),
        name("label"),
        kind,
        layers.iter().map(encoding).collect(),
    )))
}

/// An RTP packet of a track; 96 is VP8 and 111 Opus in an offer of such a peer.
pub fn packet(
    ssrc: u32,
    payload_type: u8,
    (seq, timestamp): (u16, u32),
    marker: bool,
    payload: Bytes,
) -> Packet {
    let mut packet = Packet {
        payload,
        ..Default::default()
    };
    packet.header.version = 2;
    packet.header.payload_type = payload_type;
    packet.header.sequence_number = seq;
    packet.header.timestamp = timestamp;
    packet.header.ssrc = ssrc;
    packet.header.marker = marker;
    packet
}

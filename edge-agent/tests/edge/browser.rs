//! A browser at the agent's page, played by the `webrtc` crate: a camera in two layers, a microphone, a slot for the stage and
//! one for sound; ICE, DTLS and SRTP are real.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use muster_testcard::rtp::Packetizer;
use muster_testcard::{Card, Encoder, Names, PictureSize};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8, MediaEngine};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
    register_default_interceptors,
};

/// Of the layers, smallest first, and of the sound.
const SSRCS: [u32; 2] = [0x1111_0001, 0x1111_0002];
const SOUND_SSRC: u32 = 0x2222_0001;
pub const RIDS: [&str; 2] = ["l", "h"];
/// Number in the mark of its pictures.
pub const SITE_NUMBER: u16 = 4711;
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct Seen {
    /// Of each track in the order in which they came: SSRC, and payloads with their sequence numbers.
    pub tracks: Vec<(u32, Vec<(u16, Bytes)>)>,
    pub states: Vec<RTCPeerConnectionState>,
    remote: Vec<Arc<dyn TrackRemote>>,
}

struct Handler {
    gathered: mpsc::Sender<()>,
    seen: Arc<Mutex<Seen>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _ = self.gathered.try_send(());
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.seen.lock().expect("whole").states.push(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let seen = self.seen.clone();
        seen.lock().expect("whole").remote.push(track.clone());
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let mut seen = seen.lock().expect("whole");
                    let ssrc = packet.header.ssrc;
                    let at = seen.tracks.iter().position(|track| track.0 == ssrc);
                    let at = at.unwrap_or_else(|| {
                        seen.tracks.push((ssrc, Vec::new()));
                        seen.tracks.len() - 1
                    });
                    let packet = (packet.header.sequence_number, packet.payload);
                    seen.tracks[at].1.push(packet);
                }
            }
        });
    }
}

pub struct Browser {
    pc: Box<dyn PeerConnection>,
    pub offer: String,
    camera: Arc<TrackLocalStaticRTP>,
    sound: Arc<TrackLocalStaticRTP>,
    seen: Arc<Mutex<Seen>>,
    tasks: JoinSet<()>,
}

fn track(
    kind: RtpCodecKind,
    mime: &str,
    clock_rate: u32,
    codings: &[(u32, &str)],
) -> Arc<TrackLocalStaticRTP> {
    let encoding = |(ssrc, rid): &(u32, &str)| RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            rid: (*rid).to_owned(),
            ssrc: Some(*ssrc),
            ..Default::default()
        },
        codec: RTCRtpCodec {
            mime_type: mime.to_owned(),
            clock_rate,
            channels: if kind == RtpCodecKind::Audio { 2 } else { 0 },
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
        codings.iter().map(encoding).collect(),
    )))
}

fn direction(direction: RTCRtpTransceiverDirection) -> Option<RTCRtpTransceiverInit> {
    Some(RTCRtpTransceiverInit {
        direction,
        streams: vec![],
        send_encodings: vec![],
    })
}

impl Browser {
    /// With its offer made, its camera in these layers.
    pub async fn new(rids: &[&'static str]) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut media_engine = MediaEngine::default();
        media_engine.register_default_codecs().expect("codecs");
        let registry =
            register_default_interceptors(Registry::new(), &mut media_engine).expect("interceptors");
        let (gathered, mut is_gathered) = mpsc::channel(1);
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .build();
        let handler = Handler {
            gathered,
            seen: seen.clone(),
        };
        let pc = PeerConnectionBuilder::new()
            .with_media_engine(media_engine)
            .with_setting_engine(settings)
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(handler))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await
            .expect("a peer");
        let codings: Vec<_> = SSRCS.into_iter().zip(rids.iter().copied()).collect();
        let camera = track(RtpCodecKind::Video, MIME_TYPE_VP8, 90_000, &codings);
        let sound = track(RtpCodecKind::Audio, MIME_TYPE_OPUS, 48_000, &[(SOUND_SSRC, "")]);
        for own in [&sound, &camera] {
            let own = own.clone() as Arc<dyn TrackLocal>;
            pc.add_transceiver_from_track(own, direction(RTCRtpTransceiverDirection::Sendonly))
                .await
                .expect("an m-line");
        }
        for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
            pc.add_transceiver_from_kind(kind, direction(RTCRtpTransceiverDirection::Recvonly))
                .await
                .expect("a slot");
        }
        let offer = pc.create_offer(None).await.expect("an offer");
        pc.set_local_description(offer).await.expect("set");
        tokio::time::timeout(DEADLINE, is_gathered.recv())
            .await
            .expect("gathering ends");
        let offer = pc.local_description().await.expect("set").sdp;
        Self {
            pc: Box::new(pc),
            offer,
            camera,
            sound,
            seen,
            tasks: JoinSet::new(),
        }
    }

    /// Takes the agent's answer, and publishes from then on: in the small layer a test card, in the large one something.
    pub async fn answered(&mut self, sdp: &str) {
        let answer = RTCSessionDescription::answer(sdp.to_owned()).expect("an answer");
        self.pc.set_remote_description(answer).await.expect("accepted");
        let id = |uri: &str| {
            let line = sdp
                .lines()
                .find(|line| line.contains(uri))
                .expect("the extension");
            let id = line.trim_start_matches("a=extmap:").split([' ', '/']).next();
            id.and_then(|id| id.parse().ok()).expect("its id")
        };
        let rid = id("sdes:rtp-stream-id");
        self.tasks.spawn(film(self.camera.clone(), rid));
        self.tasks.spawn(speak(self.sound.clone()));
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("whole")
    }

    /// Asks for a key frame in every slot.
    pub async fn ask_key_frames(&self) {
        let asked: Vec<_> = {
            let seen = self.seen();
            let ssrcs = seen.tracks.iter().map(|track| track.0).collect::<Vec<_>>();
            seen.remote
                .iter()
                .flat_map(|track| ssrcs.iter().map(move |ssrc| (track.clone(), *ssrc)))
                .collect()
        };
        for (track, media_ssrc) in asked {
            let pli = PictureLossIndication {
                sender_ssrc: 0,
                media_ssrc,
            };
            // Of the two tracks one has this SSRC.
            let _ = track.write_rtcp(vec![Box::new(pli)]).await;
        }
    }

    pub async fn close(mut self) {
        self.tasks.shutdown().await;
        self.pc.close().await.expect("closed");
    }
}

fn packet(
    ssrc: u32,
    payload_type: u8,
    (seq, timestamp): (u16, u32),
    marker: bool,
    payload: &[u8],
) -> rtc::rtp::Packet {
    let mut packet = rtc::rtp::Packet {
        payload: Bytes::copy_from_slice(payload),
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

/// Ten pictures a second, every fifth a key frame.
async fn film(camera: Arc<TrackLocalStaticRTP>, rid: u8) {
    let names = Names {
        chinese: "",
        english: "PAGE",
    };
    let mut card = Card::new(PictureSize::P180_5, SITE_NUMBER, names, 0);
    let mut encoder = Encoder::new(PictureSize::P180_5).expect("an encoder");
    let mut packetizer = Packetizer::new(7);
    let mut seqs = [65_500u16, 100];
    for index in 0u32.. {
        let ms = i64::from(index) * 100;
        let picture = card.draw(1_000_000 + ms);
        let frame = encoder
            .encode(picture, ms * 90, index % 5 == 0)
            .expect("encodes")
            .expect("a frame");
        let mut packets = Vec::new();
        packetizer.packetize(frame.data, |payload, marker| {
            packets.push((payload.to_vec(), marker));
        });
        for (layer, ssrc) in SSRCS.into_iter().enumerate() {
            for (payload, marker) in &packets {
                let numbers = (seqs[layer], index * 9000);
                let mut packet = packet(ssrc, 96, numbers, *marker, payload);
                seqs[layer] = seqs[layer].wrapping_add(1);
                let named = Bytes::from_static(RIDS[layer].as_bytes());
                packet.header.set_extension(rid, named).expect("an extension");
                // Fails until the peer is connected.
                let _ = camera.write_rtp(packet).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn speak(sound: Arc<TrackLocalStaticRTP>) {
    for seq in 0u16.. {
        let numbers = (seq, u32::from(seq) * 960);
        let _ = sound
            .write_rtp(packet(SOUND_SSRC, 111, numbers, false, b"opus, or so"))
            .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

//! A browser at the agent's page, played by the `webrtc` crate: a camera in two layers, a microphone, a slot for the stage and
//! one for sound; ICE, DTLS and SRTP are real.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use muster_testcard::rtp::Packetizer;
use muster_testcard::{Card, Encoder, Names, PictureSize};
use muster_testpeer::{Line, Peer, Watch, packet, track};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use tokio::task::JoinSet;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::RTCPeerConnectionState;

/// Of the layers, smallest first, and of the sound.
const SSRCS: [u32; 2] = [0x1111_0001, 0x1111_0002];
const SOUND_SSRC: u32 = 0x2222_0001;
pub const RIDS: [&str; 2] = ["l", "h"];
/// Number in the mark of its pictures.
pub const SITE_NUMBER: u16 = 4711;

#[derive(Default)]
pub struct Seen {
    /// Of each track in the order in which they came: SSRC, and payloads with their sequence numbers.
    pub tracks: Vec<(u32, Vec<(u16, Bytes)>)>,
    pub states: Vec<RTCPeerConnectionState>,
    remote: Vec<Arc<dyn TrackRemote>>,
}

struct Viewer(Arc<Mutex<Seen>>);

impl Viewer {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("whole")
    }
}

impl Watch for Viewer {
    fn on_packet(&self, packet: rtc::rtp::Packet) {
        let mut seen = self.seen();
        let ssrc = packet.header.ssrc;
        let at = seen.tracks.iter().position(|track| track.0 == ssrc);
        let at = at.unwrap_or_else(|| {
            seen.tracks.push((ssrc, Vec::new()));
            seen.tracks.len() - 1
        });
        let packet = (packet.header.sequence_number, packet.payload);
        seen.tracks[at].1.push(packet);
    }

    fn on_track(&self, track: Arc<dyn TrackRemote>, _: Vec<u32>) {
        self.seen().remote.push(track);
    }

    fn on_state(&self, state: RTCPeerConnectionState) {
        self.seen().states.push(state);
    }
}

pub struct Browser {
    peer: Peer,
    pub offer: String,
    camera: Arc<TrackLocalStaticRTP>,
    sound: Arc<TrackLocalStaticRTP>,
    seen: Arc<Mutex<Seen>>,
    tasks: JoinSet<()>,
}

impl Browser {
    /// With its offer made, its camera in these layers.
    pub async fn new(rids: &[&'static str]) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let codings: Vec<_> = SSRCS.into_iter().zip(rids.iter().copied()).collect();
        let camera = track(RtpCodecKind::Video, &codings);
        let sound = track(RtpCodecKind::Audio, &[(SOUND_SSRC, "")]);
        let lines = vec![
            Line::Send(sound.clone()),
            Line::Send(camera.clone()),
            Line::Receive(RtpCodecKind::Video),
            Line::Receive(RtpCodecKind::Audio),
        ];
        let peer = Peer::offer(Viewer(seen.clone()), lines).await;
        Self {
            offer: peer.offer.clone(),
            peer,
            camera,
            sound,
            seen,
            tasks: JoinSet::new(),
        }
    }

    /// Takes the agent's answer, and publishes from then on: in the small layer a test card, in the large one something.
    pub async fn answered(&mut self, sdp: &str) {
        self.peer.answered(sdp.to_owned()).await;
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
        self.peer.pc.close().await.expect("closed");
    }
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
                let mut packet = packet(ssrc, 96, numbers, *marker, Bytes::copy_from_slice(payload));
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
            .write_rtp(packet(
                SOUND_SSRC,
                111,
                numbers,
                false,
                Bytes::from_static(b"opus, or so"),
            ))
            .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

//! A browser, played by the `webrtc` crate: one camera if it likes, some video slots, one POST.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use muster_proto::media::v1::media_service_client::MediaServiceClient;
use muster_proto::media::v1::{
    SetViewRequest, SlotState, SlotWish, WatchLegRequest, watch_leg_response::Event,
};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_VP8, MediaEngine};
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCSessionDescription, Registry, SettingEngineBuilder, register_default_interceptors,
};

use super::{Bench, http, in_time, until, vp8};

#[derive(Default)]
pub struct Seen {
    /// All payloads, in order of arrival.
    pub payloads: Vec<(u16, bytes::Bytes)>,
    /// Payload type of the packet that came last.
    pub payload_type: u8,
    pub slots: HashMap<String, SlotState>,
    pub events: Vec<Event>,
    /// The stream of events has ended.
    pub over: bool,
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

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let seen = self.seen.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let mut seen = seen.lock().expect("no panic holds it");
                    seen.payload_type = packet.header.payload_type;
                    seen.payloads
                        .push((packet.header.sequence_number, packet.payload));
                }
            }
        });
    }
}

pub struct Browser {
    pub site: String,
    pub answer: http::Answer,
    pub offer: String,
    /// Ends when it is dropped.
    _pc: Box<dyn PeerConnection>,
    camera: Option<Arc<TrackLocalStaticRTP>>,
    client: MediaServiceClient<Channel>,
    secret: String,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

const SSRC: u32 = 0x1234_5678;

fn camera() -> Arc<TrackLocalStaticRTP> {
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(SSRC),
            ..Default::default()
        },
        codec: RTCRtpCodec {
            mime_type: MIME_TYPE_VP8.to_owned(),
            clock_rate: 90_000,
            ..Default::default()
        },
        ..Default::default()
    };
    let text = |text: &str| text.to_owned();
    Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
        text("stream"),
        text("track"),
        text("label"),
        RtpCodecKind::Video,
        vec![encoding],
    )))
}

impl Browser {
    /// Joins meeting "m" with `slots` video slots; with a camera, that is m-line 0 and the slots are "1", "2"…
    pub async fn join(bench: &Bench, site: &str, with_camera: bool, slots: usize) -> Self {
        let token = bench.token("m", site);
        Self::join_at(bench, "/v1/legs", &token, site, with_camera, slots).await
    }

    /// The same with a POST to any path; `site` is the mark in its pictures.
    pub async fn join_at(
        bench: &Bench,
        path: &str,
        bearer: &str,
        site: &str,
        with_camera: bool,
        slots: usize,
    ) -> Self {
        Self::join_with(bench, (path, bearer), site, with_camera, slots, str::to_owned).await
    }

    /// The same, believing what `change` makes of the relay's answer.
    pub async fn join_with(
        bench: &Bench,
        (path, bearer): (&str, &str),
        site: &str,
        with_camera: bool,
        slots: usize,
        change: impl FnOnce(&str) -> String,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let camera = with_camera.then(camera);
        let (pc, offer) = peer(seen.clone(), camera.clone(), slots).await;
        let answer = http::post_offer_to(bench.relay.http_addr(), path, bearer, &offer).await;
        let (_, secret) = answer.leg();
        let description = RTCSessionDescription::answer(change(&answer.body)).expect("an answer");
        pc.set_remote_description(description).await.expect("accepted");
        let channel = Channel::from_shared(format!("http://{}", bench.relay.http_addr()))
            .expect("address")
            .connect_lazy();
        let client = MediaServiceClient::new(channel);
        let mut browser = Self {
            site: site.into(),
            answer,
            offer,
            _pc: pc,
            camera,
            client,
            secret,
            seen,
            tasks: Vec::new(),
        };
        browser.watch().await;
        browser
    }

    async fn watch(&mut self) {
        let request = self.authorized(WatchLegRequest {});
        let mut stream = in_time("watch", self.client.watch_leg(request))
            .await
            .expect("a stream")
            .into_inner();
        let seen = self.seen.clone();
        self.tasks.push(tokio::spawn(async move {
            while let Ok(Some(response)) = stream.message().await {
                let mut seen = seen.lock().expect("no panic holds it");
                let event = response.event.expect("an event");
                if let Event::Slot(slot) = &event {
                    seen.slots.insert(slot.slot.clone(), slot.clone());
                }
                seen.events.push(event);
            }
            seen.lock().expect("no panic holds it").over = true;
        }));
    }

    fn authorized<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let value = format!("Bearer {}", self.secret).parse().expect("text");
        request.metadata_mut().insert("authorization", value);
        request
    }

    pub async fn set_view(&mut self, wishes: Vec<SlotWish>) -> Result<(), tonic::Status> {
        let request = self.authorized(SetViewRequest { wishes });
        in_time("set view", self.client.set_view(request))
            .await
            .map(|_| ())
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic holds it")
    }

    pub fn leg(&self) -> (String, String) {
        self.answer.leg()
    }

    /// Publishes a picture every 20 ms, a key frame every 10th, marked with the site.
    pub fn publish_camera(&mut self) {
        let track = self.camera.clone().expect("joined with a camera");
        let mark = self.site.clone();
        self.tasks.push(tokio::spawn(async move {
            for n in 0u16.. {
                let mut packet = rtc::rtp::Packet {
                    payload: vp8::picture(n, n % 10 == 0, &mark).into(),
                    ..Default::default()
                };
                packet.header.version = 2;
                packet.header.payload_type = 96;
                packet.header.sequence_number = n;
                packet.header.timestamp = u32::from(n) * 1800;
                packet.header.ssrc = SSRC;
                packet.header.marker = true;
                // Fails until the peer is connected.
                let _ = track.write_rtp(packet).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }

    /// Waits until pictures with this mark come.
    pub async fn sees(&self, mark: &str) {
        until(&format!("{} sees {mark}", self.site), || {
            let seen = self.seen();
            seen.payloads
                .last()
                .is_some_and(|(_, payload)| vp8::has_mark(payload, mark))
                .then_some(())
        })
        .await;
    }

    pub async fn slot_is(&self, slot: &str, what: &str, check: impl Fn(&SlotState) -> bool) -> SlotState {
        until(&format!("{}: slot {slot} {what}", self.site), || {
            self.seen().slots.get(slot).filter(|state| check(state)).cloned()
        })
        .await
    }
}

async fn peer(
    seen: Arc<Mutex<Seen>>,
    camera: Option<Arc<TrackLocalStaticRTP>>,
    slots: usize,
) -> (Box<dyn PeerConnection>, String) {
    let mut media_engine = MediaEngine::default();
    media_engine.register_default_codecs().expect("codecs");
    let registry = register_default_interceptors(Registry::new(), &mut media_engine).expect("interceptors");
    let (gathered, mut is_gathered) = mpsc::channel(1);
    let settings = SettingEngineBuilder::new()
        .with_include_loopback_candidate(true)
        .build();
    let pc = PeerConnectionBuilder::new()
        .with_media_engine(media_engine)
        .with_setting_engine(settings)
        .with_interceptor_registry(registry)
        .with_handler(Arc::new(Handler { gathered, seen }))
        .with_udp_addrs(vec!["127.0.0.1:0"])
        .build()
        .await
        .expect("a peer");
    let direction = |direction| {
        Some(RTCRtpTransceiverInit {
            direction,
            streams: vec![],
            send_encodings: vec![],
        })
    };
    if let Some(camera) = camera {
        let track = camera as Arc<dyn TrackLocal>;
        pc.add_transceiver_from_track(track, direction(RTCRtpTransceiverDirection::Sendonly))
            .await
            .expect("a camera");
    }
    for _ in 0..slots {
        let recvonly = direction(RTCRtpTransceiverDirection::Recvonly);
        pc.add_transceiver_from_kind(RtpCodecKind::Video, recvonly)
            .await
            .expect("a slot");
    }
    let offer = pc.create_offer(None).await.expect("an offer");
    pc.set_local_description(offer).await.expect("set");
    in_time("gathering", is_gathered.recv()).await;
    let offer = pc.local_description().await.expect("set").sdp;
    (Box::new(pc), offer)
}

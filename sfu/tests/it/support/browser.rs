//! A browser, played by the `webrtc` crate: one camera if it likes, some video slots, one POST.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use muster_proto::media::v1::media_service_client::MediaServiceClient;
use muster_proto::media::v1::{
    SetViewRequest, SlotState, SlotWish, WatchLegRequest, watch_leg_response::Event,
};
use muster_testpeer::{Line, Peer, Watch, packet, track};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use tonic::transport::Channel;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

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

struct Viewer(Arc<Mutex<Seen>>);

impl Watch for Viewer {
    fn on_packet(&self, packet: rtc::rtp::Packet) {
        let mut seen = self.0.lock().expect("no panic holds it");
        seen.payload_type = packet.header.payload_type;
        seen.payloads
            .push((packet.header.sequence_number, packet.payload));
    }
}

pub struct Browser {
    pub site: String,
    pub answer: http::Answer,
    pub offer: String,
    /// Ends when it is dropped.
    _peer: Peer,
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
        let camera = with_camera.then(|| track(RtpCodecKind::Video, &[(SSRC, "")]));
        let mut lines: Vec<_> = camera.iter().cloned().map(Line::Send).collect();
        lines.extend((0..slots).map(|_| Line::Receive(RtpCodecKind::Video)));
        let peer = Peer::offer(Viewer(seen.clone()), lines).await;
        let answer = http::post_offer_to(bench.relay.http_addr(), path, bearer, &peer.offer).await;
        let (_, secret) = answer.leg();
        peer.answered(change(&answer.body)).await;
        let channel = Channel::from_shared(format!("http://{}", bench.relay.http_addr()))
            .expect("address")
            .connect_lazy();
        let client = MediaServiceClient::new(channel);
        let mut browser = Self {
            site: site.into(),
            answer,
            offer: peer.offer.clone(),
            _peer: peer,
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
                let picture = vp8::picture(n, n % 10 == 0, &mark).into();
                let packet = packet(SSRC, 96, (n, u32::from(n) * 1800), true, picture);
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

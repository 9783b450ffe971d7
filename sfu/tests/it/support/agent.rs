//! An edge agent, as small as it can be: publishes pictures and sound on a link, and keeps what comes down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use muster_link::rtp::{LinkRtp, PT_H264, PT_OPUS, PT_VP8};
use muster_link::{Dial, EdgeLink, EdgeSender, Ways};
use muster_proto::media::v1::{
    LinkDown, LinkJoin, LinkLayer, LinkSlot, LinkSource, LinkUp, MeetingNotice, SetViewRequest, SlotState,
    SlotWish, SourceKind, SourceRef, Speakers, link_down, link_up, slot_wish, watch_leg_response,
};

use super::{Bench, until, vp8};

pub const LARGE: u64 = 1001;
pub const SMALL: u64 = 1000;
pub const AUDIO: u64 = 7;

/// What came down.
#[derive(Default)]
pub struct Seen {
    /// Flow id of each slot.
    pub flows: Vec<u64>,
    pub refused: Option<String>,
    pub packets: HashMap<u64, Vec<(u16, Vec<u8>)>>,
    pub paused: HashMap<u64, bool>,
    pub key_frames: HashMap<u64, usize>,
    pub slots: HashMap<String, SlotState>,
    pub speakers: Speakers,
    pub notice: MeetingNotice,
    pub events: usize,
    pub closed: Option<String>,
}

pub struct Agent {
    pub site: String,
    pub sender: EdgeSender,
    seen: Arc<Mutex<Seen>>,
    publishing: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.publishing.iter().for_each(|task| task.abort());
    }
}

pub fn slot(name: &str, audio: bool) -> LinkSlot {
    let codec = if audio { "opus" } else { "VP8" };
    LinkSlot {
        slot: name.into(),
        audio,
        codecs: vec![codec.into()],
    }
}

pub fn wish(slot: &str, site: &str) -> SlotWish {
    let source = SourceRef {
        site: site.into(),
        kind: SourceKind::Camera.into(),
    };
    SlotWish {
        slot: slot.into(),
        what: Some(slot_wish::What::Source(source)),
        max_width: 0,
        max_height: 0,
    }
}

fn sources() -> Vec<LinkSource> {
    let layer = |flow, width, height| LinkLayer {
        flow,
        width,
        height,
        max_bps: 0,
    };
    vec![
        LinkSource {
            kind: SourceKind::Camera.into(),
            codec: "VP8".into(),
            layers: vec![layer(SMALL, 320, 180), layer(LARGE, 1280, 720)],
        },
        LinkSource {
            kind: SourceKind::Audio.into(),
            codec: "opus".into(),
            layers: vec![layer(AUDIO, 0, 0)],
        },
    ]
}

impl Agent {
    /// Connects to the relay's worker and keeps what it says; joins nothing yet.
    pub async fn connect(bench: &Bench, worker: usize, site: &str) -> Self {
        Self::connect_by(Ways::Both, bench, worker, site).await
    }

    /// The same by certain ways.
    pub async fn connect_by(ways: Ways, bench: &Bench, worker: usize, site: &str) -> Self {
        let address = bench.relay.link_addrs()[worker].to_string();
        let dial = Dial {
            ways,
            ..Dial::default()
        };
        let link = EdgeLink::dial(&address, &bench.agent_credentials(site), dial)
            .await
            .expect("link");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let EdgeLink {
            sender,
            control,
            media,
            ..
        } = link;
        tokio::spawn(keep(seen.clone(), sender.clone(), control, media));
        Self {
            site: site.into(),
            sender,
            seen,
            publishing: Vec::new(),
        }
    }

    pub async fn join(&self, token: String, slots: Vec<LinkSlot>) {
        self.send(link_up::Message::Join(LinkJoin {
            token,
            sources: sources(),
            slots,
        }))
        .await;
    }

    /// Joins with an H.264 camera of one layer, and sends this key picture every 20 ms.
    pub async fn join_with_h264(&mut self, token: String, picture: Vec<u8>) {
        let layers = vec![LinkLayer {
            flow: LARGE,
            ..Default::default()
        }];
        let camera = LinkSource {
            kind: SourceKind::Camera.into(),
            codec: "H264".into(),
            layers,
        };
        let join = LinkJoin {
            token,
            sources: vec![camera],
            slots: Vec::new(),
        };
        self.send(link_up::Message::Join(join)).await;
        let sender = self.sender.clone();
        self.publishing.push(tokio::spawn(async move {
            for seq in 0u16.. {
                let packet = LinkRtp {
                    payload_type: PT_H264,
                    marker: true,
                    seq,
                    timestamp: u32::from(seq) * 1800,
                    audio_level: None,
                    payload: &picture,
                };
                if sender.send_rtp(LARGE, &packet).is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }

    /// Connects, joins meeting "m" and waits for the answer.
    pub async fn in_meeting(bench: &Bench, worker: usize, site: &str, slots: Vec<LinkSlot>) -> Self {
        Self::connect(bench, worker, site)
            .await
            .into_meeting(bench, slots)
            .await
    }

    /// Joins the meeting.
    pub async fn into_meeting(self, bench: &Bench, slots: Vec<LinkSlot>) -> Self {
        let agent = self;
        let count = slots.len();
        agent.join(bench.token("m", &agent.site), slots).await;
        until("joined", || {
            assert_eq!(agent.seen().refused, None);
            (agent.seen().flows.len() == count).then_some(())
        })
        .await;
        // Even without slots the join is answered before the first event.
        until("first event", || (agent.seen().events > 0).then_some(())).await;
        agent
    }

    pub async fn send(&self, message: link_up::Message) {
        self.sender
            .send_control(&LinkUp {
                message: Some(message),
            })
            .await
            .expect("sent");
    }

    pub async fn set_view(&self, wishes: Vec<SlotWish>) {
        self.send(link_up::Message::SetView(SetViewRequest { wishes }))
            .await;
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic holds it")
    }

    /// Publishes the camera: a picture every 20 ms in each layer that is not paused, with the mark `SITE/FLOW`. As a real
    /// agent it gives a key frame first and when it is asked.
    pub fn publish_camera(&mut self) {
        for flow in [SMALL, LARGE] {
            let (seen, sender, mark) = (
                self.seen.clone(),
                self.sender.clone(),
                format!("{}/{flow}", self.site),
            );
            self.publishing.push(tokio::spawn(async move {
                let (mut seq, mut timestamp, mut given) = (0u16, 0u32, None);
                loop {
                    let (paused, asked) = {
                        let seen = seen.lock().expect("no panic holds it");
                        (
                            seen.paused.get(&flow) == Some(&true),
                            seen.key_frames.get(&flow).copied().unwrap_or(0),
                        )
                    };
                    if !paused {
                        let key = given != Some(asked);
                        given = Some(asked);
                        let payload = vp8::picture(seq, key, &mark);
                        let packet = LinkRtp {
                            payload_type: PT_VP8,
                            marker: true,
                            seq,
                            timestamp,
                            audio_level: None,
                            payload: &payload,
                        };
                        if sender.send_rtp(flow, &packet).is_err() {
                            return;
                        }
                        seq = seq.wrapping_add(1);
                    }
                    timestamp = timestamp.wrapping_add(1800);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }));
        }
    }

    /// Publishes sound of this level (-dBov) every 20 ms.
    pub fn publish_sound(&mut self, level: u8) {
        let (sender, mark) = (self.sender.clone(), self.site.clone());
        self.publishing.push(tokio::spawn(async move {
            for seq in 0u16.. {
                let packet = LinkRtp {
                    payload_type: PT_OPUS,
                    marker: seq == 0,
                    seq,
                    timestamp: u32::from(seq) * 960,
                    audio_level: Some(level),
                    payload: mark.as_bytes(),
                };
                if sender.send_rtp(AUDIO, &packet).is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }

    pub fn stop_publishing(&mut self) {
        self.publishing.drain(..).for_each(|task| task.abort());
    }

    /// Waits until pictures with this mark come in the slot.
    pub async fn sees(&self, slot: usize, mark: &str) {
        until(&format!("{} sees {mark}", self.site), || {
            let seen = self.seen();
            let flow = *seen.flows.get(slot)?;
            let packets = seen.packets.get(&flow)?;
            packets
                .last()
                .is_some_and(|(_, payload)| vp8::has_mark(payload, mark))
                .then_some(())
        })
        .await;
    }
}

async fn keep(
    seen: Arc<Mutex<Seen>>,
    sender: EdgeSender,
    mut control: muster_link::ControlReceiver<LinkDown>,
    mut media: muster_link::MediaReceiver,
) {
    loop {
        tokio::select! {
            message = control.recv() => match message {
                Ok(message) => seen.lock().expect("no panic holds it").take(message),
                Err(_) => break,
            },
            datagram = media.recv() => {
                let Ok((flow, bytes)) = datagram else { break };
                let rtp = LinkRtp::parse(&bytes).expect("the relay sends RTP");
                let mut seen = seen.lock().expect("no panic holds it");
                seen.packets.entry(flow).or_default().push((rtp.seq, rtp.payload.to_vec()));
            }
        }
    }
    let reason = sender.closed().await.to_string();
    seen.lock().expect("no panic holds it").closed = Some(reason);
}

impl Seen {
    fn take(&mut self, message: LinkDown) {
        match message.message.expect("a message") {
            link_down::Message::Joined(joined) => self.flows = joined.slot_flows,
            link_down::Message::Refused(refused) => self.refused = Some(refused.code),
            link_down::Message::KeyFrame(request) => *self.key_frames.entry(request.flow).or_default() += 1,
            link_down::Message::LayerPause(pause) => _ = self.paused.insert(pause.flow, pause.paused),
            link_down::Message::Event(event) => {
                self.events += 1;
                match event.event.expect("an event") {
                    watch_leg_response::Event::Slot(slot) => _ = self.slots.insert(slot.slot.clone(), slot),
                    watch_leg_response::Event::Speakers(speakers) => self.speakers = speakers,
                    watch_leg_response::Event::Notice(notice) => self.notice = notice,
                    watch_leg_response::Event::Quality(_) | watch_leg_response::Event::Heartbeat(_) => {}
                }
            }
            link_down::Message::Welcome(_) | link_down::Message::Pong(_) | link_down::Message::Relay(_) => {}
        }
    }
}

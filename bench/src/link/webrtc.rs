//! The same source by the `webrtc` crate's peer (NACK and RTX) through the same profile and seed: what plain WebRTC makes of it.
//!
//! Two peers of that crate, the sending one's packets going through the emulator and back. It is told no rate (the crate's
//! own estimator is not asked): the source makes what the link's own source makes at most, which suits the profiles that have
//! the rate for it and is too much for the others, as `mean_kbps` shows.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use muster_link::LinkStats;
use muster_link::framing::split_flow;
use muster_link::rtp::LinkRtp;
use muster_linkshape::Relay;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8, MediaEngine};
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
    RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
    register_default_interceptors,
};

use super::sink::Accounts;
use super::source::{Source, label};
use super::targets::{self, Target};
use super::{BETWEEN_KEYS, LOCALHOST, LOOK, Outcome, PATIENCE, Plan, TAIL};

const VIDEO_SSRC: u32 = 0x0101_0101;
const AUDIO_SSRC: u32 = 0x0202_0202;
const CONNECT: Duration = Duration::from_secs(60);

/// What a peer says.
enum Event {
    Gathered,
    Connected,
}

struct Handler {
    events: mpsc::Sender<Event>,
    arrived: mpsc::Sender<(Instant, Bytes)>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _ = self.events.try_send(Event::Gathered);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if state == RTCPeerConnectionState::Connected {
            let _ = self.events.try_send(Event::Connected);
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let arrived = self.arrived.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let _ = arrived.try_send((Instant::now(), packet.payload));
                }
            }
        });
    }
}

fn track(kind: RtpCodecKind, mime: &str, clock_rate: u32, ssrc: u32) -> Arc<TrackLocalStaticRTP> {
    let channels = if kind == RtpCodecKind::Audio { 2 } else { 0 };
    Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
        "stream".to_owned(),
        mime.to_owned(),
        mime.to_owned(),
        kind,
        vec![RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                ssrc: Some(ssrc),
                ..Default::default()
            },
            codec: RTCRtpCodec {
                mime_type: mime.to_owned(),
                clock_rate,
                channels,
                ..Default::default()
            },
            ..Default::default()
        }],
    )))
}

struct Peer<P> {
    connection: P,
    events: mpsc::Receiver<Event>,
    arrived: mpsc::Receiver<(Instant, Bytes)>,
}

async fn peer() -> anyhow::Result<Peer<impl PeerConnection>> {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs()?;
    let registry = register_default_interceptors(Registry::new(), &mut engine)?;
    let (events, happened) = mpsc::channel(16);
    let (arrived, packets) = mpsc::channel(4096);
    let settings = SettingEngineBuilder::new()
        .with_include_loopback_candidate(true)
        .build();
    let connection = PeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_setting_engine(settings)
        .with_interceptor_registry(registry)
        .with_handler(Arc::new(Handler { events, arrived }))
        .with_udp_addrs(vec!["127.0.0.1:0"])
        .build()
        .await?;
    Ok(Peer {
        connection,
        events: happened,
        arrived: packets,
    })
}

async fn until(events: &mut mpsc::Receiver<Event>, wanted: impl Fn(&Event) -> bool) -> anyhow::Result<()> {
    let wait = async {
        while let Some(event) = events.recv().await {
            if wanted(&event) {
                return true;
            }
        }
        false
    };
    let came = tokio::time::timeout(CONNECT, wait)
        .await
        .context("the webrtc peer said nothing")?;
    anyhow::ensure!(came, "the webrtc peer ended");
    Ok(())
}

/// The first UDP candidate of a description, and the description with all candidates replaced by `by`, or left out.
fn exchange(sdp: &str, by: Option<SocketAddr>) -> (Option<SocketAddr>, String) {
    let mut found = None;
    let mut out = String::new();
    for line in sdp.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if !line.starts_with("a=candidate:") || words.len() < 8 {
            out.push_str(line);
            out.push_str("\r\n");
            continue;
        }
        let address = format!("{}:{}", words[4], words[5]).parse();
        if found.is_none() && address.is_ok() {
            found = address.ok();
        }
        if let Some(by) = by {
            let (ip, port) = (by.ip().to_string(), by.port().to_string());
            let mut words = words;
            (words[4], words[5]) = (&ip, &port);
            out.push_str(&words.join(" "));
            out.push_str("\r\n");
        }
    }
    (found, out)
}

/// Measures one hop, up, and prints its line.
pub(super) async fn measure(plan: &Plan<'_>, target: &Target) -> anyhow::Result<()> {
    let mut sending = peer().await?;
    let mut receiving = peer().await?;
    let video = track(RtpCodecKind::Video, MIME_TYPE_VP8, 90_000, VIDEO_SSRC);
    let audio = track(RtpCodecKind::Audio, MIME_TYPE_OPUS, 48_000, AUDIO_SSRC);
    for track in [video.clone(), audio.clone()] {
        let direction = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Sendonly,
            streams: vec![],
            send_encodings: vec![],
        };
        sending
            .connection
            .add_transceiver_from_track(track, Some(direction))
            .await?;
    }
    let offer = sending.connection.create_offer(None).await?;
    sending.connection.set_local_description(offer).await?;
    until(&mut sending.events, |event| matches!(event, Event::Gathered)).await?;
    let offer = sending
        .connection
        .local_description()
        .await
        .context("no offer")?
        .sdp;
    let (_, offer) = exchange(&offer, None);
    receiving
        .connection
        .set_remote_description(RTCSessionDescription::offer(offer)?)
        .await?;
    let answer = receiving.connection.create_answer(None).await?;
    receiving.connection.set_local_description(answer).await?;
    until(&mut receiving.events, |event| matches!(event, Event::Gathered)).await?;
    let answer = receiving
        .connection
        .local_description()
        .await
        .context("no answer")?
        .sdp;
    let to = exchange(&answer, None).0.context("the answer has no candidate")?;
    let emulator = Relay::start(LOCALHOST, to, plan.profile.clone(), plan.args.seed)?;
    if plan.held {
        emulator.hold();
    } else {
        emulator.start_profile();
    }
    let began = Instant::now();
    let (_, answer) = exchange(&answer, Some(emulator.addr()));
    sending
        .connection
        .set_remote_description(RTCSessionDescription::answer(answer)?)
        .await?;
    until(&mut sending.events, |event| matches!(event, Event::Connected)).await?;
    let connect = began.elapsed();
    emulator.release();
    let before = emulator.counters().up.offered;
    let (sums, rtp_bytes) = play(plan, [&video, &audio], &mut receiving.arrived).await?;
    let counters = emulator.stop();
    let _ = tokio::join!(sending.connection.close(), receiving.connection.close());
    let outcome = Outcome {
        connect,
        sums,
        wire_bytes: counters.up.offered.bytes - before.bytes,
        packets: counters.up.offered.packets - before.packets,
        rtp_bytes,
        stats: LinkStats::default(),
        queue_max: Duration::ZERO,
        emulator: counters,
    };
    outcome.tell(plan, target, "webrtc", "up")
}

async fn play(
    plan: &Plan<'_>,
    [video, audio]: [&TrackLocalStaticRTP; 2],
    arrived: &mut mpsc::Receiver<(Instant, Bytes)>,
) -> anyhow::Result<(super::Sums, u64)> {
    let accounts = RefCell::new(Accounts::default());
    let began = Instant::now();
    let length = Duration::from_secs(plan.args.seconds);
    let mut source = Source::new(began, plan.args.kbps * 1000, length);
    let over = began + length + TAIL;
    let late = Duration::from_micros(plan.terms.video_deadline) + PATIENCE;
    let mut asked = began;
    let mut look = tokio::time::interval(LOOK);
    loop {
        let next = source.next().unwrap_or(over);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(next.into()) => {
                if Instant::now() >= over {
                    break;
                }
                while let Some(made) = source.make(Instant::now(), u64::MAX) {
                    accounts.borrow_mut().made(&made);
                    for datagram in &made.datagrams {
                        write(if made.video { video } else { audio }, made.video, datagram).await;
                    }
                }
            }
            Some((at, payload)) = arrived.recv() => {
                if let Some((number, ..)) = label(&payload) {
                    accounts.borrow_mut().came(number, at);
                }
            }
            _ = look.tick() => {
                let now = Instant::now();
                if now > asked + BETWEEN_KEYS && accounts.borrow().wants_key(now, late) {
                    asked = now;
                    source.want_key();
                }
            }
        }
    }
    let accounts = accounts.into_inner();
    let sound = Duration::from_micros(plan.terms.audio_deadline);
    let outages = targets::outages(&plan.profile, began, length);
    let sums = accounts.sums(Duration::from_micros(plan.terms.video_deadline), sound, &outages);
    Ok((sums, accounts.rtp_bytes))
}

async fn write(track: &TrackLocalStaticRTP, video: bool, datagram: &Bytes) {
    let Some((_, rtp)) = split_flow(datagram.clone()) else {
        return;
    };
    let Ok(parsed) = LinkRtp::parse(&rtp) else { return };
    let mut packet = rtc::rtp::Packet {
        payload: rtp.slice_ref(parsed.payload),
        ..Default::default()
    };
    packet.header.version = 2;
    packet.header.payload_type = if video { 96 } else { 111 };
    packet.header.sequence_number = parsed.seq;
    packet.header.timestamp = parsed.timestamp;
    packet.header.ssrc = if video { VIDEO_SSRC } else { AUDIO_SSRC };
    packet.header.marker = parsed.marker;
    // Fails only until the peer is connected.
    let _ = track.write_rtp(packet).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_found_and_replaced() {
        let sdp = "v=0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 4000 typ host\r\na=end-of-candidates\r\n";
        let by: SocketAddr = "127.0.0.2:5000".parse().expect("an address");
        let (found, changed) = exchange(sdp, Some(by));
        assert_eq!(found, "127.0.0.1:4000".parse().ok());
        assert!(changed.contains("a=candidate:1 1 udp 2130706431 127.0.0.2 5000 typ host\r\n"));
        let (_, without) = exchange(sdp, None);
        assert!(!without.contains("a=candidate"));
        assert!(without.contains("a=end-of-candidates"));
    }
}

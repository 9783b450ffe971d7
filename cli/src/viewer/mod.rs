//! A dispatcher's eyes without a screen: a full WebRTC peer (the `webrtc` crate, independent of our own leg)
//! that joins a meeting as a desk, puts sources into its slots, and reads the mark of the test card out of
//! what arrives.
//!
//! The first video slot is for the stage, the others are the wall; three audio slots make the offer that of
//! a console, and what comes in them is thrown away. It publishes nothing.

pub mod expect;
mod http;
mod slot;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use muster_proto::command::v1::JoinTicket;
use muster_proto::media::v1::media_service_client::MediaServiceClient;
use muster_proto::media::v1::slot_wish::What;
use muster_proto::media::v1::{SetViewRequest, SlotWish, SourceKind, SourceRef, StageRef};
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8};
use rtc::rtp_transceiver::rtp_sender::{RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, RTCSessionDescription, Registry, register_default_interceptors,
};
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

pub use slot::Reading;

/// Audio slots of the offer, as a console has them.
const AUDIO_SLOTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Viewer {
    connection: Arc<dyn PeerConnection>,
    relay_url: String,
    location: String,
    secret: String,
    media: MediaServiceClient<Channel>,
    slots: Vec<VideoSlot>,
    state: watch::Receiver<RTCPeerConnectionState>,
    readers: tokio::task::JoinHandle<()>,
}

struct VideoSlot {
    mid: String,
    reading: watch::Receiver<Reading>,
}

/// What is to be seen in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The stage of the meeting.
    Stage,
    /// The camera of the site.
    Camera(String),
}

impl Viewer {
    /// Joins the meeting of the ticket with one slot for the stage and `wall` others, and waits until media can flow.
    pub async fn join(ticket: &JoinTicket, wall: usize) -> Result<Self> {
        let local = local_address(&ticket.relay_url).await?;
        let (events, track_events, gathered, state) = Events::new();
        let mut engine = media_engine()?;
        let registry = register_default_interceptors(Registry::new(), &mut engine)?;
        let connection: Arc<dyn PeerConnection> = Arc::new(
            PeerConnectionBuilder::new()
                .with_media_engine(engine)
                .with_interceptor_registry(registry)
                .with_handler(events)
                .with_udp_addrs(vec![local])
                .build()
                .await?,
        );
        for kind in std::iter::repeat_n(RtpCodecKind::Audio, AUDIO_SLOTS)
            .chain(std::iter::repeat_n(RtpCodecKind::Video, wall + 1))
        {
            let direction = RTCRtpTransceiverDirection::Recvonly;
            let init = RTCRtpTransceiverInit {
                direction,
                ..Default::default()
            };
            connection.add_transceiver_from_kind(kind, Some(init)).await?;
        }
        let offer = local_offer(&connection, gathered).await?;
        let mids = video_mids(&offer);
        if mids.len() != wall + 1 {
            bail!("the offer has {} video slots, expected {}", mids.len(), wall + 1);
        }
        let created = http::post_offer(&ticket.relay_url, &ticket.token, offer).await?;
        connection
            .set_remote_description(RTCSessionDescription::answer(created.answer)?)
            .await?;
        let (slots, outputs): (Vec<_>, Vec<_>) = mids
            .into_iter()
            .map(|mid| {
                let (output, reading) = watch::channel(Reading::default());
                (
                    VideoSlot {
                        mid: mid.clone(),
                        reading,
                    },
                    (mid, output),
                )
            })
            .unzip();
        let readers = tokio::spawn(read_tracks(connection.clone(), track_events, outputs));
        let channel = Endpoint::from_shared(ticket.relay_url.clone())?.connect_lazy();
        let mut viewer = Self {
            connection,
            relay_url: ticket.relay_url.clone(),
            location: created.location,
            secret: created.secret,
            media: MediaServiceClient::new(channel),
            slots,
            state,
            readers,
        };
        viewer.wait_connected().await?;
        Ok(viewer)
    }

    async fn wait_connected(&mut self) -> Result<()> {
        let connected = self
            .state
            .wait_for(|state| *state == RTCPeerConnectionState::Connected);
        timeout(PATIENCE, connected)
            .await
            .context("the leg was not connected within 10 s")??;
        Ok(())
    }

    /// How many slots there are, the stage's included.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Puts the wishes into the slots, in order, and empties the rest. Sizes are those of a tile.
    pub async fn set_view(&mut self, wishes: &[Wish]) -> Result<()> {
        let wishes = self
            .slots
            .iter()
            .zip(wishes)
            .map(|(slot, wish)| SlotWish {
                slot: slot.mid.clone(),
                what: Some(match wish {
                    Wish::Stage => What::Stage(StageRef::default()),
                    Wish::Camera(site) => What::Source(SourceRef {
                        site: site.clone(),
                        kind: SourceKind::Camera.into(),
                    }),
                }),
                max_width: 320,
                max_height: 180,
            })
            .collect();
        let mut request = tonic::Request::new(SetViewRequest { wishes });
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {}", self.secret).parse()?);
        request.set_timeout(PATIENCE);
        self.media
            .set_view(request)
            .await
            .context("putting sources into slots")?;
        Ok(())
    }

    /// What was last seen in the slot (0 is the stage's).
    pub fn reading(&self, slot: usize) -> Reading {
        self.slots
            .get(slot)
            .map(|slot| *slot.reading.borrow())
            .unwrap_or_default()
    }

    /// The name of the slot in the offer, for messages.
    pub fn mid(&self, slot: usize) -> &str {
        self.slots.get(slot).map_or("?", |slot| &slot.mid)
    }

    /// Whether the relay still holds the leg, as far as the connection tells.
    pub fn is_connected(&self) -> bool {
        *self.state.borrow() == RTCPeerConnectionState::Connected
    }

    /// Ends the leg.
    pub async fn leave(self) -> Result<()> {
        let ended = http::delete_leg(&self.relay_url, &self.location, &self.secret).await;
        self.readers.abort();
        self.connection.close().await?;
        ended
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.readers.abort();
    }
}

/// The callbacks of the connection, as channels.
struct Events {
    tracks: mpsc::Sender<Arc<dyn TrackRemote>>,
    gathered: watch::Sender<bool>,
    state: watch::Sender<RTCPeerConnectionState>,
}

type EventReceivers = (
    Arc<Events>,
    mpsc::Receiver<Arc<dyn TrackRemote>>,
    watch::Receiver<bool>,
    watch::Receiver<RTCPeerConnectionState>,
);

impl Events {
    fn new() -> EventReceivers {
        let (tracks, track_events) = mpsc::channel(64);
        let (gathered, gathered_events) = watch::channel(false);
        let (state, state_events) = watch::channel(RTCPeerConnectionState::New);
        (
            Arc::new(Self {
                tracks,
                gathered,
                state,
            }),
            track_events,
            gathered_events,
            state_events,
        )
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Events {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        tracing::debug!(%state, "leg");
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        // Fails only when the viewer is being dropped.
        let _ = self.tracks.send(track).await;
    }
}

/// VP8 and Opus only, with the feedback that a browser offers.
fn media_engine() -> Result<MediaEngine> {
    let mut engine = MediaEngine::default();
    let feedback = |typ: &str, parameter: &str| RTCPFeedback {
        typ: typ.to_owned(),
        parameter: parameter.to_owned(),
    };
    let codec = |mime: &str, clock_rate, channels, sdp_fmtp_line: &str, rtcp_feedback, payload_type| {
        RTCRtpCodecParameters {
            rtp_codec: RTCRtpCodec {
                mime_type: mime.to_owned(),
                clock_rate,
                channels,
                sdp_fmtp_line: sdp_fmtp_line.to_owned(),
                rtcp_feedback,
            },
            payload_type,
        }
    };
    let video_feedback = vec![
        feedback("nack", ""),
        feedback("nack", "pli"),
        feedback("ccm", "fir"),
    ];
    engine.register_codec(
        codec(MIME_TYPE_VP8, 90_000, 0, "", video_feedback, 96),
        RtpCodecKind::Video,
    )?;
    let fmtp = "minptime=10;useinbandfec=1";
    engine.register_codec(
        codec(MIME_TYPE_OPUS, 48_000, 2, fmtp, vec![], 111),
        RtpCodecKind::Audio,
    )?;
    Ok(engine)
}

async fn local_offer(
    connection: &Arc<dyn PeerConnection>,
    mut gathered: watch::Receiver<bool>,
) -> Result<String> {
    let offer = connection.create_offer(None).await?;
    connection.set_local_description(offer).await?;
    // The relay learns our address from our first packet; candidates in the offer are courtesy.
    let _ = timeout(Duration::from_secs(2), gathered.wait_for(|done| *done)).await;
    let offer = connection
        .local_description()
        .await
        .context("no offer was made")?;
    Ok(offer.sdp)
}

/// The mids of the video m-lines, in order.
fn video_mids(offer: &str) -> Vec<String> {
    let mut mids = Vec::new();
    let mut in_video = false;
    for line in offer.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            in_video = media.starts_with("video");
        } else if let (true, Some(mid)) = (in_video, line.strip_prefix("a=mid:")) {
            mids.push(mid.trim().to_owned());
        }
    }
    mids
}

/// Gives each new track to the reader of its slot.
async fn read_tracks(
    connection: Arc<dyn PeerConnection>,
    mut tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
    outputs: Vec<(String, watch::Sender<Reading>)>,
) {
    let mut readers = JoinSet::new();
    while let Some(track) = tracks.recv().await {
        let Some(mid) = mid_of(&connection, &track).await else {
            tracing::warn!("a track arrived that belongs to no slot");
            continue;
        };
        if let Some((_, output)) = outputs.iter().find(|(slot, _)| *slot == mid) {
            readers.spawn(slot::read_track(track, output.clone()));
        } else {
            // Audio: drained, so that the connection's queue does not fill.
            readers.spawn(async move { while track.poll().await.is_some() {} });
        }
    }
}

async fn mid_of(connection: &Arc<dyn PeerConnection>, track: &Arc<dyn TrackRemote>) -> Option<String> {
    for transceiver in connection.get_transceivers().await {
        if let Ok(Some(receiver)) = transceiver.receiver().await
            && Arc::ptr_eq(receiver.track(), track)
        {
            return transceiver.mid().await.ok().flatten();
        }
    }
    None
}

/// The address of this machine from which the relay is reached, with any port.
async fn local_address(relay_url: &str) -> Result<SocketAddr> {
    let uri: hyper::Uri = relay_url
        .parse()
        .with_context(|| format!("{relay_url}: expected http://HOST:PORT"))?;
    let host = uri
        .host()
        .with_context(|| format!("{relay_url}: expected http://HOST:PORT"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let relay = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(80)))
        .await
        .with_context(|| format!("looking up {host}"))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    // Connecting a UDP socket sends nothing; it only chooses the route.
    let any: SocketAddr = if relay.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(relay).await?;
    Ok(SocketAddr::new(socket.local_addr()?.ip(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mids_of_video_lines_are_found_in_order() {
        let offer = "v=0\r\nm=audio 9 X 111\r\na=mid:0\r\nm=video 9 X 96\r\na=mid:v1\r\nm=video 9 X 96\r\na=mid:2\r\n";
        assert_eq!(video_mids(offer), ["v1", "2"]);
    }

    #[tokio::test]
    async fn a_local_relay_is_reached_from_the_loopback_address() {
        let address = local_address("http://127.0.0.1:8081").await.expect("an address");
        assert!(address.ip().is_loopback());
        assert!(local_address("nonsense").await.is_err());
    }
}

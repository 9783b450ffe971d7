//! One browser's connection: its leg (ICE-lite, DTLS-SRTP) and the socket that it is reached by.
//!
//! The socket is bound to the address at which the browser reached the page: for a page on loopback nothing of it can be
//! reached from outside the box. Lost packets of the browser are asked for again, and the browser's own requests are
//! answered from what was sent lately; what is left of the stage's losses becomes a request for a key frame.
//! It knows no meeting.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use muster_link::rtp::{LinkRtp, PT_H264, PT_OPUS, PT_VP8};
use muster_webrtc::{
    Certificate, CloseReason, Codec, Leg, LegConfig, LegEvent, PacketStore, QueuedRtp, SendBatch, SourceKind,
};
use tokio::net::UdpSocket;

use super::Packet;
use super::desk::{LAYERS, NotServed, Shown};
use super::splice::Splice;
use crate::valve::starts_key_frame;

/// Slots of the join: the stage, and three for sound.
const SLOTS: usize = 4;
/// Datagrams taken in one turn.
const MOST_AT_ONCE: usize = 64;
/// No datagram of a browser's is longer.
const LARGEST_DATAGRAM: usize = 2048;
/// Bits a second that a browser on the same box may send; its encoder is held to less.
const VIDEO_BPS: u64 = 8_000_000;

/// What a session has to say.
#[derive(Debug)]
pub enum Told {
    /// It takes H.264 too, or not.
    Connected {
        h264: bool,
    },
    /// A slot needs a key frame, by its place in the join.
    KeyFrame(usize),
    Packet(Packet),
    Closed(CloseReason),
}

pub struct Session {
    pub number: u64,
    socket: UdpSocket,
    leg: Leg,
    camera: usize,
    sound: Option<usize>,
    /// Of the leg, for each slot of the join.
    slots: [Option<usize>; SLOTS],
    splices: [Splice; SLOTS],
    store: PacketStore,
    batch: SendBatch,
    buffer: Box<[u8; LARGEST_DATAGRAM]>,
    /// Packets for the browser that its leg did not take.
    refused: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Takes an offer; returns the session and its answer.
    ///
    /// # Errors
    /// [`NotServed`], with what the offer lacks.
    pub async fn accept(
        number: u64,
        certificate: Arc<Certificate>,
        offer: &str,
        at: IpAddr,
    ) -> Result<(Self, String), NotServed> {
        let failed =
            |error: std::io::Error| NotServed::new("no_port", format!("a UDP port at {at}: {error}"));
        let socket = UdpSocket::bind(SocketAddr::new(at, 0)).await.map_err(failed)?;
        let mut config = LegConfig::new(socket.local_addr().map_err(failed)?, certificate, rand::random());
        config.video_bps = VIDEO_BPS;
        let (leg, answer) = Leg::accept(Instant::now(), offer, &config)
            .map_err(|error| NotServed::new("offer", error.to_string()))?;
        let of = |kind| leg.sources().iter().position(|source| source.kind == kind);
        let fits = |index: &usize| {
            let source = &leg.sources()[*index];
            source.codec == Codec::Vp8 && source.layers() == LAYERS
        };
        let camera = of(SourceKind::Camera).filter(fits).ok_or_else(|| {
            NotServed::new(
                "no_camera",
                "a sendonly video m-line, first VP8, with two simulcast layers",
            )
        })?;
        let sound = of(SourceKind::Audio);
        let mut slots = [None; SLOTS];
        let (mut stages, mut sounds) = (0..1, 1..SLOTS);
        for (index, slot) in leg.slots().iter().enumerate() {
            let places = if slot.audio { &mut sounds } else { &mut stages };
            if let Some(place) = places.next() {
                slots[place] = Some(index);
            }
        }
        if slots[0].is_none() {
            return Err(NotServed::new(
                "no_stage",
                "a recvonly video m-line for the stage",
            ));
        }
        let session = Self {
            number,
            socket,
            leg,
            camera,
            sound,
            slots,
            splices: [(); SLOTS].map(|()| Splice::new(rand::random(), rand::random())),
            store: PacketStore::new(),
            batch: SendBatch::new(),
            buffer: Box::new([0; LARGEST_DATAGRAM]),
            refused: 0,
        };
        Ok((session, answer))
    }

    /// Waits until there is something to do: a datagram, or the time for it.
    pub async fn ready(&mut self) {
        let due = [self.leg.poll_timeout(), self.leg.media_timeout()];
        let due = due.into_iter().flatten().min();
        let socket = &self.socket;
        tokio::select! {
            _ = socket.readable() => {}
            () = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }

    /// Takes what has come and does what is due.
    pub fn turn(&mut self, told: &mut Vec<Told>) {
        let now = Instant::now();
        for _ in 0..MOST_AT_ONCE {
            let Ok((length, from)) = self.socket.try_recv_from(&mut self.buffer[..]) else {
                break;
            };
            let datagram = &mut self.buffer[..length];
            match self.leg.handle_datagram(now, from, datagram) {
                Ok(Some(rtp)) => {
                    let layer = (rtp.source == self.camera).then_some(rtp.layer);
                    if layer.is_none() && Some(rtp.source) != self.sound {
                        continue;
                    }
                    let payload = rtp.payload.get(usize::from(rtp.redundancy)..);
                    let Some(payload) = payload.filter(|payload| !payload.is_empty()) else {
                        continue;
                    };
                    told.push(Told::Packet(Packet {
                        session: self.number,
                        layer,
                        seq: rtp.seq,
                        timestamp: rtp.timestamp,
                        marker: rtp.marker,
                        audio_level: rtp.audio_level,
                        payload: Bytes::copy_from_slice(payload),
                    }));
                }
                Ok(None) => {}
                Err(ignored) => tracing::trace!(%ignored, "a datagram at the page's port"),
            }
        }
        if self.leg.poll_timeout().is_some_and(|due| due <= now) {
            self.leg.handle_timeout(now);
        }
    }

    /// Sends what is to be sent, and says what has happened.
    pub async fn flush(&mut self, told: &mut Vec<Told>) {
        let now = Instant::now();
        while let Some(to) = self.leg.poll_media(now, &self.store, &mut self.batch) {
            let mut rest = self.batch.bytes();
            for length in self.batch.lengths() {
                let Some((datagram, after)) = rest.split_at_checked(*length) else {
                    break;
                };
                rest = after;
                let _ = self.socket.send_to(datagram, to).await;
            }
        }
        while let Some(transmit) = self.leg.poll_transmit() {
            let _ = self.socket.send_to(&transmit.data, transmit.to).await;
        }
        while let Some(event) = self.leg.poll_event() {
            match event {
                LegEvent::Connected => told.push(Told::Connected {
                    h264: self.takes_h264(),
                }),
                LegEvent::KeyFrameRequested { slot } => {
                    let place = self.slots.iter().position(|place| *place == Some(slot));
                    told.extend(place.map(Told::KeyFrame));
                }
                LegEvent::Closed { reason } => told.push(Told::Closed(reason)),
                LegEvent::Quality(quality) => {
                    tracing::trace!(
                        session = self.number,
                        ?quality,
                        refused = self.refused,
                        "the page"
                    );
                }
                LegEvent::Estimate { .. } => {}
            }
        }
    }

    fn takes_h264(&self) -> bool {
        let stage = self.slots[0].and_then(|stage| self.leg.slots().get(stage));
        stage.is_some_and(|stage| stage.codecs.contains(&Codec::H264))
    }

    /// Queues a packet of a slot for the browser.
    pub fn show(&mut self, shown: &Shown) {
        let now = Instant::now();
        let Ok(rtp) = LinkRtp::parse(&shown.packet) else {
            return;
        };
        let codec = match rtp.payload_type {
            PT_VP8 => Codec::Vp8,
            PT_H264 => Codec::H264,
            PT_OPUS => Codec::Opus,
            _ => return,
        };
        let Some(slot) = self.slots.get(shown.slot).copied().flatten() else {
            return;
        };
        let mut payload = rtp.payload.to_vec();
        let splice = &mut self.splices[shown.slot];
        let Some((seq, timestamp)) = splice.map(now, shown.leg, &rtp, &mut payload) else {
            return;
        };
        let Some(place) = self.store.push(now, &payload) else {
            return;
        };
        let packet = QueuedRtp {
            place,
            codec,
            seq,
            timestamp,
            marker: rtp.marker,
            starts_key_frame: starts_key_frame(rtp.payload_type, rtp.payload),
            audio_level: rtp.audio_level,
            descriptor: 0,
            patch: None,
            redundancy: 0,
            age_us: 0,
        };
        self.refused += u64::from(!self.leg.queue_rtp(now, slot, &packet));
    }

    /// Asks the browser for a key frame of a layer.
    pub fn ask_key_frame(&mut self, layer: usize) {
        self.leg.request_key_frame(Instant::now(), self.camera, layer);
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        self.leg.close(Instant::now());
        self.flush(&mut Vec::new()).await;
    }
}

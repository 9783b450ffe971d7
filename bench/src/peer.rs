//! One peer: its socket, its end of the transport, what it publishes and the streams in its slots.
//!
//! It answers with transport-wide feedback every 100 ms where its packets are numbered, and with receiver reports every
//! second. It asks for nothing again: what is lost stays lost, and counts.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::camera::Camera;
use crate::client::Client;
use crate::picture::{RTX_PAYLOAD_TYPE, TWCC_ID};
use crate::receive::{Batch, Intake};
use crate::rtcp;
use crate::sdp::Remote;
use crate::stream::Stream;
use crate::twcc::Feedback;

const REPORT: Duration = Duration::from_secs(1);
/// Buffers of a socket in bytes; 1080p for over a second.
const SOCKET_BUFFER: usize = 512 * 1024;

/// How all peers measure.
#[derive(Clone, Copy)]
pub struct Clock {
    pub epoch: Instant,
    /// One packet of so many is decrypted.
    pub sample: u64,
}

impl Clock {
    fn us(self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_micros() as u64
    }
}

pub struct Peer {
    socket: UdpSocket,
    intake: Intake,
    client: Client,
    pub camera: Option<Camera>,
    /// Slots that have had media.
    pub streams: Vec<Stream>,
    feedback: Option<Feedback>,
    next_report: Instant,
    pub connected_at: Option<Instant>,
    pub first_media: Option<Instant>,
    /// Packets that came again over RTX, or probed for bandwidth.
    pub resent: u64,
    /// Datagrams that the socket would not send.
    pub unsent: u64,
}

/// A socket for a peer, with large buffers.
pub fn socket() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_nonblocking(true)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    Ok(socket)
}

impl Peer {
    /// `place` is among all peers, which do not report at the same time.
    pub fn new(
        now: Instant,
        socket: UdpSocket,
        gro: bool,
        client: Client,
        remote: &Remote,
        place: usize,
    ) -> anyhow::Result<Self> {
        socket.connect(remote.candidate)?;
        Ok(Self {
            intake: Intake::new(&socket, gro)?,
            socket,
            client,
            camera: None,
            streams: Vec::new(),
            feedback: remote.twcc.then(|| Feedback::new(TWCC_ID, now)),
            next_report: now + REPORT * (place as u32 % 50) / 50,
            connected_at: None,
            first_media: None,
            resent: 0,
            unsent: 0,
        })
    }

    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Does what is due but the camera's.
    pub fn tick(&mut self, now: Instant) -> anyhow::Result<()> {
        let Self {
            socket,
            client,
            unsent,
            ..
        } = self;
        let mut send = |datagram: &[u8]| *unsent += u64::from(socket.send(datagram).is_err());
        client.handle_timeout(now, &mut send)?;
        let Some(srtp) = client.srtp() else { return Ok(()) };
        let ssrc = self.streams.first().map_or(0, |stream| stream.ssrc);
        for feedback in self
            .feedback
            .iter_mut()
            .flat_map(|feedback| feedback.poll(now, ssrc))
        {
            send(&srtp.outbound.encrypt_rtcp(&feedback)?);
        }
        if now >= self.next_report && !self.streams.is_empty() {
            self.next_report = now + REPORT;
            let blocks: Vec<_> = self.streams.iter().map(|stream| stream.report(now)).collect();
            send(&srtp.outbound.encrypt_rtcp(&rtcp::receiver_reports(&blocks))?);
        }
        Ok(())
    }

    /// Sends what the camera has due.
    pub fn play(&mut self, now: Instant, clock: Clock) -> anyhow::Result<()> {
        let Self {
            socket,
            client,
            camera: Some(camera),
            unsent,
            ..
        } = self
        else {
            return Ok(());
        };
        let srtp = client.srtp().context("a publisher is not connected")?;
        camera.send_due(
            now,
            || clock.us(Instant::now()),
            |packet| {
                let sealed = srtp.outbound.encrypt_rtp(packet).ok();
                let sent = sealed.and_then(|sealed| socket.send(&sealed).ok());
                *unsent += u64::from(sent.is_none());
            },
        );
        Ok(())
    }

    /// Takes all that is there for this peer.
    pub fn receive(&mut self, batch: &mut Batch, clock: Clock) -> anyhow::Result<()> {
        loop {
            let more = batch.receive(&self.socket, &self.intake)?;
            let now = Instant::now();
            for datagram in batch.datagrams() {
                self.take(now, clock, datagram)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn take(&mut self, now: Instant, clock: Clock, datagram: &[u8]) -> anyhow::Result<()> {
        let Some(&[first, second]) = datagram.first_chunk::<2>() else {
            return Ok(());
        };
        if first < 128 {
            let Self { socket, unsent, .. } = self;
            let send = |datagram: &[u8]| *unsent += u64::from(socket.send(datagram).is_err());
            self.client.handle(now, datagram, send)?;
            if self.client.is_connected() {
                self.connected_at.get_or_insert(now);
            }
            return Ok(());
        }
        // The relay may be ready before we are.
        let Some(srtp) = self.client.srtp() else {
            return Ok(());
        };
        if (192..=223).contains(&second) {
            let plain = srtp.inbound.decrypt_rtcp(datagram)?;
            self.take_rtcp(now, &plain);
            return Ok(());
        }
        let now_us = clock.us(now);
        if let Some(feedback) = &mut self.feedback {
            feedback.take(now_us, datagram);
        }
        if second & 0x7f == RTX_PAYLOAD_TYPE {
            self.resent += 1;
            return Ok(());
        }
        let ssrc = datagram.get(8..12).and_then(|ssrc| ssrc.try_into().ok());
        let ssrc = u32::from_be_bytes(ssrc.context("RTP cut short")?);
        let known = self.streams.iter().position(|stream| stream.ssrc == ssrc);
        let place = known.unwrap_or_else(|| {
            self.streams.push(Stream::new(ssrc));
            self.streams.len() - 1
        });
        self.first_media.get_or_insert(now);
        self.streams[place].take(now_us, datagram, clock.sample, srtp)
    }

    fn take_rtcp(&mut self, now: Instant, plain: &[u8]) {
        if let Some(camera) = &mut self.camera {
            rtcp::key_frames_asked(plain).for_each(|ssrc| camera.ask_key(ssrc));
        }
        for (ssrc, middle) in rtcp::sender_reports(plain) {
            if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
                stream.take_report(now, middle);
            }
        }
    }
}

//! Camera and microphone of the browser that shows the agent's own page, as a source.
//!
//! The browser's VP8 (two layers) and Opus are passed on as they come, with numbers of our own ([`Splice`]), so that a
//! reloaded page is no new source. A layer that nobody watches is not only dropped here: the browser is told to rest it.
//! A plain value: what [`driver`] takes from the browser comes in as [`PageEvent`]; it owns no socket.

pub mod desk;
pub mod driver;
mod session;
mod splice;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use muster_link::rtp::{LinkRtp, PT_OPUS, PT_VP8};
use muster_proto::media::v1::{LinkLayer, LinkSource, SourceKind};
use tokio::task::JoinSet;

use self::desk::{Desk, Device, LAYERS, Words};
use self::splice::Splice;
use super::{AUDIO_FLOW, CAMERA_FLOW, Checked, Fault, FeedEvent, Publish, Seed, Send};

/// How long a page may take to come back before the site counts as one without a camera: a browser's start.
const COMES_BACK: Duration = Duration::from_secs(20);
/// How long the browser's question whether the page may use the camera may wait for an answer in a meeting.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// A camera that is said to be on and sends nothing for so long is silent.
const SILENCE: Duration = Duration::from_secs(4);
/// Packets that wait to be sent; they wait for no longer than a turn of the agent's loop.
const MOST_WAITING: usize = 512;
/// Of a muted microphone one frame of silence in so many is sent.
const MUTED_SHARE: u32 = 20;
/// An Opus frame of 20 ms without sound (RFC 6716: CELT, full band).
const OPUS_SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];
/// RFC 6464.
const SILENT: u8 = 127;
/// Bits a second that the page's encoder is held to, the smallest layer first, and of its sound.
const LAYER_BPS: [u32; LAYERS] = [500_000, 1_800_000];
const SOUND_BPS: u32 = 40_000;
/// Lines of the small layer.
const SMALL_HEIGHT: u32 = 360;

/// What the driver says.
#[derive(Clone, Debug)]
pub enum PageEvent {
    /// The browser of this session is connected.
    Connected(u64),
    /// None is any more.
    Gone,
    Words(Words),
    Packet(Packet),
}

/// An RTP packet of the browser's.
#[derive(Clone, Debug)]
pub struct Packet {
    pub session: u64,
    /// Of the camera, from the smallest; none: the sound.
    pub layer: Option<usize>,
    pub seq: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub audio_level: Option<u8>,
    pub payload: Bytes,
}

/// The browser's camera and microphone.
#[derive(Debug)]
pub struct PageCamera {
    desk: Desk,
    layers: [Layer; LAYERS],
    sound: Splice,
    muted: bool,
    /// Of a muted microphone.
    skipped: u32,
    waiting: VecDeque<Bytes>,
    /// When the first of them came.
    due: Option<Instant>,
    /// Packets let go because too many waited.
    dropped: u64,
    pictures: u64,
    live: bool,
    audio_only: bool,
    /// Since when no browser is connected; none while one is.
    away_since: Option<Instant>,
    words: Words,
    /// When a picture came last, or was first due.
    filmed: Instant,
    /// Since when a meeting waits for the camera to be opened, while that is asked for: the later of both.
    asked: Instant,
    fault: Option<Fault>,
    scratch: BytesMut,
    /// Serves the browser; ends with this.
    _driver: JoinSet<()>,
}

#[derive(Debug)]
struct Layer {
    splice: Splice,
    paused: bool,
}

impl PageCamera {
    pub fn new(now: Instant, desk: Desk, driver: JoinSet<()>, seed: Seed) -> Self {
        let layer = |index: usize| Layer {
            splice: Splice::new(seed[index], u32::from(seed[2]) << 8),
            paused: false,
        };
        Self {
            desk,
            layers: [layer(0), layer(1)],
            sound: Splice::new(seed[4], u32::from(seed[5]) << 8),
            muted: false,
            skipped: 0,
            waiting: VecDeque::new(),
            due: None,
            dropped: 0,
            pictures: 0,
            live: false,
            audio_only: false,
            away_since: Some(now),
            words: Words::default(),
            filmed: now,
            asked: now,
            fault: None,
            scratch: BytesMut::new(),
            _driver: driver,
        }
    }

    /// Width and height of each layer.
    fn sizes(&self) -> [(u32, u32); LAYERS] {
        let (width, height) = match (self.words.width, self.words.height) {
            (1..=7680, 1..=7680) => (self.words.width, self.words.height),
            _ => (1280, 720),
        };
        let small = SMALL_HEIGHT.min(height);
        [(width * small / height, small), (width, height)]
    }

    /// Tells the browser what of its camera is of use now.
    fn want(&self) {
        let films = self.live && !self.audio_only;
        self.desk
            .want_layers([0, 1].map(|index: usize| films && !self.layers[index].paused));
    }

    fn wants(&self, layer: usize) -> bool {
        self.live && !self.audio_only && !self.layers[layer].paused
    }

    fn ask_key_frames(&self) {
        (0..LAYERS)
            .filter(|layer| self.wants(*layer))
            .for_each(|layer| self.desk.ask_key_frame(layer));
    }

    /// Begins a layer anew: nothing leaves before its key frame.
    fn interrupt(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.splice.interrupt());
        self.sound.interrupt();
        self.waiting.clear();
        self.due = None;
    }

    fn handle_packet(&mut self, now: Instant, packet: &Packet) {
        match packet.layer {
            Some(layer) if layer < LAYERS => {
                self.filmed = now;
                if !self.wants(layer) {
                    return;
                }
                let passed = self.pass(now, Some(layer), packet, &packet.payload, packet.audio_level);
                self.pictures += u64::from(passed && packet.marker);
                if packet.marker && self.layers[layer].splice.waits(packet.session) {
                    self.desk.ask_key_frame(layer);
                }
            }
            Some(_) => {}
            None if !self.live => {}
            None if self.muted => {
                self.skipped += 1;
                if self.skipped.is_multiple_of(MUTED_SHARE) {
                    // The packets between were not lost.
                    self.sound.interrupt();
                    self.pass(now, None, packet, &OPUS_SILENCE, Some(SILENT));
                }
            }
            None => {
                self.pass(now, None, packet, &packet.payload, packet.audio_level);
            }
        }
    }

    /// Puts a packet among those that leave; `false` if it does not.
    fn pass(
        &mut self,
        now: Instant,
        layer: Option<usize>,
        packet: &Packet,
        payload: &[u8],
        audio_level: Option<u8>,
    ) -> bool {
        let (flow, payload_type, splice) = match layer {
            Some(index) => (CAMERA_FLOW + index as u64, PT_VP8, &mut self.layers[index].splice),
            None => (AUDIO_FLOW, PT_OPUS, &mut self.sound),
        };
        let mut written = payload.to_vec();
        let mut rtp = LinkRtp {
            payload_type,
            marker: packet.marker,
            seq: packet.seq,
            timestamp: packet.timestamp,
            audio_level,
            payload,
        };
        let Some((seq, timestamp)) = splice.map(now, packet.session, &rtp, &mut written) else {
            return false;
        };
        (rtp.seq, rtp.timestamp, rtp.payload) = (seq, timestamp, &written);
        let datagram = rtp.to_datagram(flow, &mut self.scratch);
        if self.waiting.len() == MOST_WAITING {
            self.waiting.pop_front();
            self.dropped += 1;
            tracing::debug!(dropped = self.dropped, "the page's packets wait for too long");
        }
        self.waiting.push_back(datagram);
        self.due.get_or_insert(now);
        true
    }

    /// What is wrong with the camera, as far as is known now.
    fn judge(&self, now: Instant) -> Option<Fault> {
        if let Some(since) = self.away_since {
            let late = now.saturating_duration_since(since) >= COMES_BACK;
            return if late { Some(Fault::PageClosed) } else { self.fault };
        }
        match self.words.camera {
            Device::Missing => Some(Fault::Missing),
            Device::Busy => Some(Fault::Busy),
            Device::Denied => Some(Fault::Denied),
            // Until it is open, what was wrong before holds; a question that nobody answers is a camera without pictures.
            Device::Asking => {
                let due = self.live && !self.audio_only;
                let late = due && now.saturating_duration_since(self.asked) >= ANSWERED_WITHIN;
                let before = self.fault.filter(|fault| *fault != Fault::PageClosed);
                before.or(late.then_some(Fault::Silent))
            }
            Device::On => {
                let due = (0..LAYERS).any(|layer| self.wants(layer));
                let silent = due && now.saturating_duration_since(self.filmed) >= SILENCE;
                silent.then_some(Fault::Silent)
            }
        }
    }
}

impl Publish for PageCamera {
    fn sources(&self, audio_only: bool) -> Vec<LinkSource> {
        let layers = self.sizes().into_iter().zip(LAYER_BPS).zip(CAMERA_FLOW..).map(
            |(((width, height), max_bps), flow)| LinkLayer {
                flow,
                width,
                height,
                max_bps,
            },
        );
        let camera = LinkSource {
            kind: SourceKind::Camera.into(),
            codec: "VP8".into(),
            layers: layers.collect(),
        };
        let sound = LinkSource {
            kind: SourceKind::Audio.into(),
            codec: "opus".into(),
            layers: vec![LinkLayer {
                flow: AUDIO_FLOW,
                width: 0,
                height: 0,
                max_bps: SOUND_BPS,
            }],
        };
        let camera = (!audio_only).then_some(camera);
        camera.into_iter().chain([sound]).collect()
    }

    fn start(&mut self, now: Instant, audio_only: bool) {
        (self.live, self.audio_only, self.muted) = (true, audio_only, false);
        self.layers.iter_mut().for_each(|layer| layer.paused = false);
        (self.filmed, self.asked) = (now, now);
        self.interrupt();
        self.want();
        self.ask_key_frames();
    }

    fn stop(&mut self, _: Instant) {
        self.live = false;
        self.interrupt();
        self.want();
    }

    fn check(&mut self) -> Checked {
        let away = self.away_since.map(|_| Fault::PageClosed);
        let opening = (self.words.camera == Device::Asking).then_some(Fault::Silent);
        Checked {
            camera: self.fault.or(away).or(opening).map_or(Ok(()), Err),
            microphone: away.is_none().then_some(self.words.microphone == Device::On),
        }
    }

    fn fault(&self) -> Option<Fault> {
        self.fault
    }

    fn rest(&mut self, now: Instant) {
        self.fault = self.judge(now);
    }

    fn request_key_frame(&mut self, _: Instant, flow: u64) {
        let layer = flow.checked_sub(CAMERA_FLOW).map(|layer| layer as usize);
        if let Some(layer) = layer.filter(|layer| *layer < LAYERS && self.wants(*layer)) {
            self.desk.ask_key_frame(layer);
        }
    }

    fn pause(&mut self, now: Instant, flow: u64, paused: bool) {
        let index = flow.checked_sub(CAMERA_FLOW).map(|index| index as usize);
        let Some(layer) = index.and_then(|index| self.layers.get_mut(index)) else {
            return;
        };
        if layer.paused == paused {
            return;
        }
        layer.paused = paused;
        layer.splice.interrupt();
        if !paused {
            self.filmed = now;
        }
        self.want();
        if !paused {
            self.request_key_frame(now, flow);
        }
    }

    fn mute(&mut self, muted: bool) {
        if self.muted != muted {
            self.muted = muted;
            self.sound.interrupt();
        }
    }

    fn is_paused(&self) -> bool {
        self.layers.iter().all(|layer| layer.paused)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn handle_timeout(&mut self, _: Instant, _: i64, send: Send<'_>) -> u64 {
        self.waiting.drain(..).for_each(send);
        self.due = None;
        std::mem::take(&mut self.pictures)
    }

    fn handle_feed(&mut self, now: Instant, event: FeedEvent) {
        let FeedEvent::Page(event) = event else { return };
        match event {
            PageEvent::Connected(session) => {
                self.away_since = None;
                self.words = Words {
                    session,
                    width: self.words.width,
                    height: self.words.height,
                    ..Words::default()
                };
                (self.filmed, self.asked) = (now, now);
                self.ask_key_frames();
            }
            PageEvent::Gone => {
                self.away_since.get_or_insert(now);
            }
            PageEvent::Words(words) => {
                if words.camera != self.words.camera {
                    (self.filmed, self.asked) = (now, now);
                }
                self.words = words;
            }
            PageEvent::Packet(packet) => return self.handle_packet(now, &packet),
        }
        self.fault = self.judge(now);
    }
}

#[cfg(test)]
mod tests;

//! The test card as a source: one or two VP8 layers and its tone as Opus, as RTP datagrams of a link.
//!
//! Encoders are made when they are needed (the smallest layer's beforehand, to have it warm) and dropped by
//! [`Publish::rest`]. While a layer is paused nothing of it is drawn or encoded. Pictures are sent as they are encoded:
//! there is no pacing.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use muster_link::rtp::{LinkRtp, PT_OPUS, PT_VP8};
use muster_proto::media::v1::{LinkLayer, LinkSource, SourceKind};
use muster_testcard::rtp::Packetizer;
use muster_testcard::tone::{FRAME_MS, FRAME_TICKS};
use muster_testcard::{Encoder, Names, PictureSize, Tone, site_number};

use super::{AUDIO_FLOW, CAMERA_FLOW, Checked, Fault, Publish, Seed, Send, Stream};

/// Key frames that are asked for come at most this often.
const KEY_FRAME_GAP: Duration = Duration::from_millis(250);
/// An encoder that was not used for so long is dropped.
const ENCODER_IDLE: Duration = Duration::from_secs(60);
/// A clock that stood still (a suspended machine) makes up for no more than this much sound.
const LARGEST_AUDIO_LAG: Duration = Duration::from_millis(300);

/// The test card and its tone.
#[derive(Debug)]
pub struct Card {
    layers: Vec<Layer>,
    /// Where timestamps count from: the first start.
    origin: Option<Instant>,
    sound: Sound,
    scratch: BytesMut,
}

impl Card {
    /// Draws what stands still and encodes the tone; this takes some milliseconds and is done before a summons comes.
    pub fn new(size: PictureSize, site: &str, names: Names<'_>, utc_offset_minutes: i32, seed: Seed) -> Self {
        let number = site_number(site);
        let layers = size.layers().into_iter().enumerate().map(|(index, size)| Layer {
            flow: CAMERA_FLOW + index as u64,
            size,
            card: muster_testcard::Card::new(size, number, names, utc_offset_minutes),
            packetizer: Packetizer::new(seed[index & 1]),
            stream: Stream {
                seq: seed[2 + (index & 1)],
                timestamp: u32::from(seed[4]) << 8,
            },
            encoder: None,
            paused: false,
            key_wanted: true,
            last_key: None,
            last_pts: 0,
            used: None,
            next: None,
        });
        let tone = Tone::new(number)
            .inspect_err(|error| tracing::error!(%error, "no sound: libopus refused"))
            .ok();
        let mut layers: Vec<_> = layers.collect();
        // The first encoder of a process finds its code and tables cold: let that not be in the join.
        if let Some(small) = layers.first_mut() {
            small.warm_up();
        }
        Self {
            layers,
            origin: None,
            sound: Sound {
                tone,
                stream: Stream {
                    seq: seed[5],
                    timestamp: u32::from(seed[5]) << 8,
                },
                count: u64::from(seed[4]),
                next: None,
                muted: false,
            },
            scratch: BytesMut::new(),
        }
    }

    fn layer(&mut self, flow: u64) -> Option<&mut Layer> {
        self.layers.iter_mut().find(|layer| layer.flow == flow)
    }
}

impl Publish for Card {
    fn sources(&self, audio_only: bool) -> Vec<LinkSource> {
        let layers = self.layers.iter().map(|layer| LinkLayer {
            flow: layer.flow,
            width: layer.size.width.into(),
            height: layer.size.height.into(),
            max_bps: layer.size.bitrate_bps,
        });
        let sound = LinkLayer {
            flow: AUDIO_FLOW,
            width: 0,
            height: 0,
            max_bps: 16_000,
        };
        let camera = LinkSource {
            kind: SourceKind::Camera.into(),
            codec: "VP8".into(),
            layers: layers.collect(),
        };
        let sound = LinkSource {
            kind: SourceKind::Audio.into(),
            codec: "opus".into(),
            layers: vec![sound],
        };
        let camera = (!audio_only).then_some(camera);
        camera.into_iter().chain([sound]).collect()
    }

    fn start(&mut self, now: Instant, audio_only: bool) {
        self.origin.get_or_insert(now);
        for layer in &mut self.layers {
            layer.paused = false;
            layer.want_key(now);
            layer.next = (!audio_only).then_some(now);
        }
        self.sound.next = Some(now);
        self.sound.muted = false;
    }

    fn stop(&mut self, _: Instant) {
        for layer in &mut self.layers {
            layer.next = None;
        }
        self.sound.next = None;
    }

    fn check(&mut self) -> Checked {
        let sends = |layer: &Layer| layer.next.is_some() && !layer.paused && layer.encoder.is_some();
        let camera = self.layers.iter().any(sends)
            || self.layers.first_mut().is_some_and(|small| {
                // A picture that is made for nobody.
                small.warm_up();
                // Whoever watches next begins with a key frame, whatever was made here.
                small.key_wanted = true;
                small.encoder.is_some()
            });
        Checked {
            camera: if camera { Ok(()) } else { Err(Fault::Missing) },
            microphone: Some(self.sound.tone.is_some()),
        }
    }

    fn fault(&self) -> Option<Fault> {
        None
    }

    fn rest(&mut self, now: Instant) {
        for layer in &mut self.layers {
            if layer
                .used
                .is_some_and(|used| now.duration_since(used) > ENCODER_IDLE)
            {
                (layer.encoder, layer.used, layer.key_wanted) = (None, None, true);
            }
        }
    }

    fn request_key_frame(&mut self, now: Instant, flow: u64) {
        if let Some(layer) = self.layer(flow) {
            layer.want_key(now);
        }
    }

    fn pause(&mut self, now: Instant, flow: u64, paused: bool) {
        let Some(layer) = self.layer(flow) else { return };
        if layer.paused && !paused {
            layer.want_key(now);
        }
        layer.paused = paused;
    }

    fn mute(&mut self, muted: bool) {
        self.sound.muted = muted;
    }

    fn is_paused(&self) -> bool {
        self.layers.iter().all(|layer| layer.paused)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let pictures = self
            .layers
            .iter()
            .filter(|layer| !layer.paused)
            .filter_map(|layer| layer.next);
        pictures.chain(self.sound.next).min()
    }

    fn handle_timeout(&mut self, now: Instant, now_ms: i64, send: Send<'_>) -> u64 {
        let mut pictures = 0;
        // 90 kHz since the first start: both layers agree, and pauses are seen as such.
        let ticks = self.origin.map_or(0, |origin| {
            now.duration_since(origin).as_micros() as i64 * 9 / 100
        });
        for layer in &mut self.layers {
            if layer.is_due(now) {
                pictures += u64::from(layer.run(now, now_ms, ticks, &mut self.scratch, send));
            }
        }
        self.sound.run(now, &mut self.scratch, send);
        pictures
    }
}

#[derive(Debug)]
struct Layer {
    flow: u64,
    size: PictureSize,
    card: muster_testcard::Card,
    packetizer: Packetizer,
    stream: Stream,
    encoder: Option<Encoder>,
    paused: bool,
    key_wanted: bool,
    last_key: Option<Instant>,
    /// What the encoder was told last; it must grow.
    last_pts: i64,
    used: Option<Instant>,
    next: Option<Instant>,
}

impl Layer {
    /// A key frame as soon as allowed, without waiting for the next picture's turn.
    fn want_key(&mut self, now: Instant) {
        self.key_wanted = true;
        if let Some(next) = &mut self.next {
            let allowed = self.last_key.map_or(now, |last| (last + KEY_FRAME_GAP).max(now));
            *next = (*next).min(allowed);
        }
    }

    /// Makes the encoder and encodes a picture that nobody gets; the first real one is a key frame all the same.
    fn warm_up(&mut self) {
        self.encoder = Encoder::new(self.size).ok();
        if let Some(encoder) = &mut self.encoder
            && encoder.encode(self.card.draw(0), 0, true).is_err()
        {
            self.encoder = None;
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.paused && self.next.is_some_and(|due| due <= now)
    }

    fn run(&mut self, now: Instant, now_ms: i64, ticks: i64, scratch: &mut BytesMut, send: Send<'_>) -> bool {
        let period = Duration::from_secs(1) / u32::from(self.size.fps.max(1));
        self.next = self.next.map(|due| {
            if due + period > now {
                due + period
            } else {
                now + period
            }
        });
        let key = self.key_wanted && self.last_key.is_none_or(|last| last + KEY_FRAME_GAP <= now);
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => match Encoder::new(self.size) {
                Ok(encoder) => none.insert(encoder),
                Err(error) => {
                    tracing::error!(%error, "no picture");
                    return false;
                }
            },
        };
        self.used = Some(now);
        self.last_pts = ticks.max(self.last_pts + 1);
        let timestamp = self.stream.timestamp.wrapping_add(self.last_pts as u32);
        let frame = match encoder.encode(self.card.draw(now_ms), self.last_pts, key) {
            Ok(Some(frame)) => frame,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(%error, "picture lost, starting the encoder again");
                self.encoder = None;
                self.key_wanted = true;
                return false;
            }
        };
        if frame.key {
            self.key_wanted = false;
            self.last_key = Some(now);
        }
        let (flow, seq) = (self.flow, &mut self.stream.seq);
        self.packetizer.packetize(frame.data, |payload, marker| {
            let packet = LinkRtp {
                payload_type: PT_VP8,
                marker,
                seq: *seq,
                timestamp,
                audio_level: None,
                payload,
            };
            *seq = seq.wrapping_add(1);
            send(packet.to_datagram(flow, scratch));
        });
        true
    }
}

#[derive(Debug)]
struct Sound {
    tone: Option<Tone>,
    stream: Stream,
    count: u64,
    next: Option<Instant>,
    muted: bool,
}

impl Sound {
    fn run(&mut self, now: Instant, scratch: &mut BytesMut, send: Send<'_>) {
        let Some(tone) = &self.tone else {
            self.next = None;
            return;
        };
        let period = Duration::from_millis(FRAME_MS.into());
        while let Some(due) = self.next.filter(|due| *due <= now) {
            let frame = tone.frame(self.count);
            let timestamp = self.stream.timestamp;
            // On to the next frame that is sent at all, so that silence wakes nobody.
            let mut ahead = 1;
            while ahead < 20 && tone.frame(self.count + ahead).payload.is_empty() {
                ahead += 1;
            }
            self.count += ahead;
            self.stream.timestamp = timestamp.wrapping_add(FRAME_TICKS * ahead as u32);
            let behind = now.duration_since(due) > LARGEST_AUDIO_LAG;
            self.next = Some(if behind { now } else { due } + period * ahead as u32);
            if frame.payload.is_empty() || (frame.sounds && self.muted) {
                continue;
            }
            let packet = LinkRtp {
                payload_type: PT_OPUS,
                marker: frame.marker,
                seq: self.stream.seq,
                timestamp,
                audio_level: Some(frame.level),
                payload: &frame.payload,
            };
            self.stream.seq = self.stream.seq.wrapping_add(1);
            send(packet.to_datagram(AUDIO_FLOW, scratch));
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_link::framing::split_flow;
    use muster_testcard::vp8::is_key_frame;

    use super::*;

    const NAMES: Names<'static> = Names {
        chinese: "",
        english: "Site",
    };

    /// A publisher in virtual time, and what it sent: (ms since start, flow, start of a key frame).
    struct Bench {
        publisher: Card,
        start: Instant,
        now: Duration,
        sent: Vec<(u128, u64, bool)>,
    }

    impl Bench {
        fn new(size: PictureSize) -> Self {
            let publisher = Card::new(size, "S1", NAMES, 0, [1, 2, 3, 4, 5, 6]);
            Self {
                publisher,
                start: Instant::now(),
                now: Duration::ZERO,
                sent: Vec::new(),
            }
        }

        fn at(&self) -> Instant {
            self.start + self.now
        }

        fn run(&mut self, ms: u64) {
            let end = self.now + Duration::from_millis(ms);
            while let Some(next) = self
                .publisher
                .poll_timeout()
                .map(|next| next.duration_since(self.start))
            {
                if next > end {
                    break;
                }
                self.now = self.now.max(next);
                let (now, now_ms) = (self.at(), 1_000_000 + self.now.as_millis() as i64);
                let sent = &mut self.sent;
                let ms = self.now.as_millis();
                self.publisher.handle_timeout(now, now_ms, &mut |datagram| {
                    let (flow, rtp) = split_flow(datagram).expect("a flow");
                    let rtp = LinkRtp::parse(&rtp).expect("RTP");
                    let key = rtp.payload_type == PT_VP8
                        && muster_testcard::rtp::parse(rtp.payload)
                            .is_some_and(|part| part.starts && is_key_frame(part.data));
                    sent.push((ms, flow, key));
                });
            }
            self.now = end;
        }

        fn keys(&self, flow: u64) -> Vec<u128> {
            self.sent
                .iter()
                .filter(|sent| sent.1 == flow && sent.2)
                .map(|sent| sent.0)
                .collect()
        }

        fn last(&self, flow: u64) -> Option<u128> {
            self.sent
                .iter()
                .filter(|sent| sent.1 == flow)
                .map(|sent| sent.0)
                .max()
        }
    }

    #[test]
    fn the_first_picture_is_a_key_frame_at_once() {
        let mut bench = Bench::new(PictureSize::P360_15);
        bench.publisher.start(bench.at(), false);
        bench.run(1000);
        assert_eq!((bench.keys(1), bench.keys(2)), (vec![0], vec![0]));
        assert!(bench.last(1) >= Some(900) && bench.last(AUDIO_FLOW).is_some());
    }

    #[test]
    fn a_paused_layer_sends_nothing_and_returns_with_a_key_frame() {
        let mut bench = Bench::new(PictureSize::P180_5);
        bench.publisher.start(bench.at(), false);
        bench.run(1100);
        bench.publisher.pause(bench.at(), 1, true);
        assert!(bench.publisher.is_paused());
        bench.run(2000);
        assert_eq!(bench.last(1), Some(1000));
        assert!(bench.last(AUDIO_FLOW) > Some(2000), "sound goes on");
        bench.publisher.pause(bench.at(), 1, false);
        bench.run(500);
        assert_eq!(bench.keys(1), [0, 3100]);
    }

    #[test]
    fn a_storm_of_requests_makes_few_key_frames() {
        let mut bench = Bench::new(PictureSize::P180_5);
        bench.publisher.start(bench.at(), false);
        for _ in 0..100 {
            bench.run(10);
            bench.publisher.request_key_frame(bench.at(), 1);
        }
        let keys = bench.keys(1);
        assert!((3..=5).contains(&keys.len()), "{keys:?}");
    }

    #[test]
    fn a_muted_site_sends_only_silence() {
        let mut bench = Bench::new(PictureSize::P180_5);
        bench.publisher.start(bench.at(), false);
        bench.run(2000);
        let open = bench.sent.iter().filter(|sent| sent.1 == AUDIO_FLOW).count();
        bench.publisher.mute(true);
        bench.run(2000);
        let muted = bench
            .sent
            .iter()
            .filter(|sent| sent.1 == AUDIO_FLOW && sent.0 > 2000)
            .count();
        assert!(muted + 3 <= open && muted > 0, "{open} open, {muted} muted");
    }

    #[test]
    fn a_stopped_publisher_is_due_for_nothing() {
        let mut bench = Bench::new(PictureSize::P180_5);
        assert_eq!(bench.publisher.poll_timeout(), None);
        bench.publisher.start(bench.at(), false);
        bench.run(500);
        bench.publisher.stop(bench.at());
        assert_eq!(bench.publisher.poll_timeout(), None);
    }

    #[test]
    fn an_encoder_that_rested_starts_with_a_key_frame() {
        let mut bench = Bench::new(PictureSize::P180_5);
        bench.publisher.start(bench.at(), false);
        bench.run(500);
        bench.publisher.pause(bench.at(), 1, true);
        bench.run(120_000);
        bench.publisher.rest(bench.at());
        bench.publisher.pause(bench.at(), 1, false);
        bench.run(1000);
        assert_eq!(bench.keys(1), [0, 120_500]);
    }
}

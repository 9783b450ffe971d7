//! A publisher's camera: what it sends, and when. Sans I/O.
//!
//! Frames of one size at 30 a second, or a recording over and over. A frame that is asked for as a key frame says that it is one;
//! its size stays as it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::picture::{Frame, Layer, Part, RIDS, SourceId};
use crate::trace::Trace;

const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);
const FRAME_TICKS: u32 = 3000;
/// A recording that is played later than this goes on from where it is.
const LATE: Duration = Duration::from_millis(200);

/// What a camera plays.
#[derive(Clone)]
pub enum Script {
    /// So many packets a frame, each so many bytes with its RTP header, before SRTP.
    Even { packets: u32, bytes: usize },
    /// Simulcast as it was recorded.
    Trace(Arc<Trace>),
}

impl Script {
    pub fn layers(&self) -> usize {
        match self {
            Self::Even { .. } => 1,
            Self::Trace(trace) => trace.layers(),
        }
    }
}

struct Playing {
    layer: Layer,
    key_wanted: bool,
    /// The packet before was the last of its frame.
    between_frames: bool,
}

pub struct Camera {
    script: Script,
    layers: Vec<Playing>,
    /// The next transport-wide sequence number, where they were agreed.
    transport: Option<u16>,
    /// When the frame or the recording began; None while it rests.
    begun: Option<Instant>,
    /// Frames sent, or the place in the recording.
    place: usize,
    /// How often the recording has been through.
    rounds: u32,
    /// One packet a frame.
    pub light: bool,
}

impl Camera {
    /// Of the publisher with this number; `transport`: its packets are numbered transport-wide.
    pub fn new(script: Script, publisher: usize, transport: bool) -> Self {
        let count = script.layers();
        let playing = |layer: usize| Playing {
            layer: Layer::new(
                SourceId::new(publisher, layer),
                (count > 1).then(|| RIDS[layer.min(RIDS.len() - 1)]),
            ),
            key_wanted: true,
            between_frames: true,
        };
        Self {
            layers: (0..count).map(playing).collect(),
            script,
            transport: transport.then_some(0),
            begun: None,
            place: 0,
            rounds: 0,
            light: false,
        }
    }

    /// Packets sent so far, by layer.
    pub fn packets(&self) -> impl Iterator<Item = u64> {
        self.layers.iter().map(|playing| playing.layer.packets().into())
    }

    /// Plays on from `at`.
    pub fn start(&mut self, at: Instant) {
        self.begun = match &self.script {
            Script::Even { .. } => Some(at),
            Script::Trace(trace) => {
                let us = trace.packets().get(self.place).map_or(0, |packet| packet.us);
                at.checked_sub(Duration::from_micros(us))
            }
        };
    }

    pub fn stop(&mut self) {
        self.begun = None;
    }

    /// When the next packet is due; None while it rests.
    pub fn due(&self) -> Option<Instant> {
        let begun = self.begun?;
        Some(match &self.script {
            Script::Even { .. } => begun,
            Script::Trace(trace) => {
                begun + Duration::from_micros(trace.packets().get(self.place).map_or(0, |packet| packet.us))
            }
        })
    }

    /// The viewers need a key frame of the layer with this SSRC.
    pub fn ask_key(&mut self, ssrc: u32) {
        for playing in &mut self.layers {
            playing.key_wanted |= playing.layer.ssrc() == ssrc;
        }
    }

    /// Hands each packet that is due to `send`. `clock` gives the time in microseconds just before.
    pub fn send_due(&mut self, now: Instant, clock: impl Fn() -> u64, mut send: impl FnMut(&[u8])) {
        let Some(due) = self.due().filter(|due| *due <= now) else {
            return;
        };
        match self.script.clone() {
            Script::Even { packets, bytes } => {
                // Frames that we are late for by long are not made up for.
                self.begun = Some((due + FRAME).max(now));
                let packets = if self.light { 1 } else { packets };
                self.frame(packets, bytes, clock, send);
            }
            Script::Trace(trace) => {
                if now > due + LATE {
                    self.start(now);
                }
                while self.due().is_some_and(|due| due <= now) {
                    self.recorded(&trace, &clock, &mut send);
                }
            }
        }
    }

    fn frame(&mut self, packets: u32, bytes: usize, clock: impl Fn() -> u64, mut send: impl FnMut(&[u8])) {
        let Some(playing) = self.layers.first_mut() else {
            return;
        };
        let key = std::mem::take(&mut playing.key_wanted);
        let payload = bytes.saturating_sub(playing.layer.header(self.transport.is_some()));
        playing.layer.begin(Frame {
            key,
            timestamp: (self.place as u32).wrapping_mul(FRAME_TICKS),
            temporal: 0,
            sync: key,
        });
        self.place += 1;
        for place in 0..packets {
            send(playing.layer.packet(Part {
                first: place == 0,
                last: place + 1 == packets,
                payload,
                sent_us: clock(),
                transport: number(&mut self.transport),
            }));
        }
    }

    fn recorded(&mut self, trace: &Trace, clock: impl Fn() -> u64, mut send: impl FnMut(&[u8])) {
        let Some(packet) = trace.packets().get(self.place) else {
            return;
        };
        let before = trace.period() * self.rounds;
        if let Some(playing) = self.layers.get_mut(usize::from(packet.layer)) {
            let first = std::mem::replace(&mut playing.between_frames, packet.marker);
            if first {
                let key = std::mem::take(&mut playing.key_wanted) || packet.key;
                let us = before.as_micros() as u64 + packet.us;
                playing.layer.begin(Frame {
                    key,
                    timestamp: (us * 9 / 100) as u32,
                    temporal: if key { 0 } else { packet.temporal },
                    sync: packet.sync || key,
                });
            }
            send(playing.layer.packet(Part {
                first,
                last: packet.marker,
                payload: packet.payload.into(),
                sent_us: clock(),
                transport: number(&mut self.transport),
            }));
        }
        self.place += 1;
        if self.place == trace.packets().len() {
            (self.place, self.rounds) = (0, self.rounds + 1);
            self.begun = self.begun.map(|begun| begun + trace.period());
        }
    }
}

/// The next number, if there are any.
fn number(next: &mut Option<u16>) -> Option<u16> {
    let number = (*next)?;
    *next = Some(number.wrapping_add(1));
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{SSRC, Stamp};
    use crate::trace::Packet;

    fn sent(camera: &mut Camera, now: Instant) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        camera.send_due(now, || 7, |packet| all.push(packet.to_vec()));
        all
    }

    #[test]
    fn even_frames_come_thirty_times_a_second_and_late_ones_are_not_made_up_for() {
        let now = Instant::now();
        let script = Script::Even {
            packets: 9,
            bytes: 1200,
        };
        let mut camera = Camera::new(script, 0, true);
        assert_eq!(camera.due(), None);
        camera.start(now);
        let packets = sent(&mut camera, now);
        assert_eq!(packets.len(), 9);
        assert!(packets.iter().all(|packet| packet.len() == 1200));
        assert_eq!(camera.due(), Some(now + FRAME));
        camera.light = true;
        assert_eq!(sent(&mut camera, now + FRAME * 5).len(), 1);
        assert_eq!(camera.due(), Some(now + FRAME * 5));
        assert_eq!(camera.packets().collect::<Vec<_>>(), [10]);
        camera.stop();
        assert_eq!(sent(&mut camera, now + FRAME * 9).len(), 0);
    }

    fn recording() -> Arc<Trace> {
        let packets = [
            (0, 0, true),
            (10_000, 1, false),
            (11_000, 1, true),
            (50_000, 0, true),
        ];
        let packets = packets.map(|(us, layer, marker)| Packet {
            us,
            layer,
            payload: 500 + u16::from(layer),
            marker,
            key: false,
            temporal: 1,
            sync: false,
        });
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("trace.csv");
        Trace::write(&path, &packets).expect("written");
        Arc::new(Trace::load(&path).expect("read"))
    }

    #[test]
    fn a_recording_is_played_in_its_time_over_and_over() {
        let now = Instant::now();
        let ms = |ms| now + Duration::from_millis(ms);
        let mut camera = Camera::new(Script::Trace(recording()), 2, false);
        camera.start(now);
        let counts = [0, 5, 11, 49, 50, 83, 84, 95].map(|at| sent(&mut camera, ms(at)).len());
        assert_eq!(counts, [1, 0, 2, 0, 1, 0, 1, 2]);
        camera.stop();
        camera.start(ms(1000));
        let last = sent(&mut camera, ms(1000));
        let stamp = Stamp::read(&last[0]).expect("a stamp");
        assert_eq!((stamp.index, stamp.source), (3, SourceId::new(2, 0)));
        assert_eq!(camera.packets().collect::<Vec<_>>(), [4, 4]);
    }

    #[test]
    fn a_key_frame_is_sent_of_the_layer_that_was_asked() {
        let now = Instant::now();
        let mut camera = Camera::new(Script::Trace(recording()), 0, false);
        let key = |packet: &Vec<u8>| packet[20 + 6] & 1 == 0;
        camera.start(now);
        let first = sent(&mut camera, now + Duration::from_millis(83));
        let keys: Vec<bool> = first.iter().map(key).collect();
        assert_eq!(keys[..2], [true, true], "of each layer the first");
        assert!(!keys[3]);
        camera.ask_key(SSRC + 1);
        let second = sent(&mut camera, now + Duration::from_millis(96));
        assert_eq!(second.iter().take(2).map(key).collect::<Vec<_>>(), [false, true]);
    }
}

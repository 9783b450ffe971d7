//! The whole path: camera, the core that forwards and shares, the sending side with its pacer, a
//! link, a viewer who asks again for what is missing; and the estimate on its way back to the core.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use muster_forward::{
    Codec, Event, LayerSpec, LegId, Meeting, Micros, Packet, SlotId, SlotSpec, SourceId, SourceKind,
    SourceSpec, Wish, WishWhat, vp8,
};
use muster_webrtc::congestion::{Bounds, FeedbackRecorder, Pacer, SendSide};

use crate::camera::{Camera, HEIGHTS};
use crate::link::{Conditions, Link};
use crate::path::AUDIO_BYTES;
use crate::sleeper::Sleeper;
use crate::viewer::Viewer;

/// RTP header with extensions and SRTP tag.
const HEADERS: usize = 36;
const KEPT: usize = 1024;
/// Packets that wait in ordinary times.
const BACKLOG: usize = 8;
const VIEWER: LegId = LegId(2);
const ROUND_TRIP_MS: u64 = 60;

#[derive(Clone)]
pub enum Down {
    Audio,
    Padding,
    Video {
        seq: u16,
        marker: bool,
        payload: Vec<u8>,
    },
}

enum Up {
    Feedback(Vec<u8>),
    Nack(Vec<u16>),
    Pli,
}

pub struct Whole {
    meeting: Meeting,
    camera: Camera,
    pub side: SendSide,
    pacer: Pacer,
    pub down: Link<(u16, Down)>,
    up: Link<Up>,
    /// Whether the viewer is on a processor.
    pub sleeper: Sleeper,
    recorder: FeedbackRecorder,
    pub viewer: Viewer,
    t0: Instant,
    pub ms: u64,
    audio: VecDeque<u64>,
    again: VecDeque<Down>,
    video: VecDeque<Down>,
    kept: VecDeque<(u16, Down)>,
    pub audio_wait_ms: u64,
    pub audio_delay_ms: u64,
    pub repeats: u64,
    /// Where the newest key frame begins.
    key_frame: u16,
}

impl Whole {
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one origin of virtual time")]
        let t0 = Instant::now();
        let mut side = SendSide::new(t0, Bounds::default(), true);
        side.set_can_probe(true);
        let back = Conditions {
            rate_kbps: 10_000,
            ..conditions
        };
        Self {
            meeting: meeting(),
            camera: Camera::new(),
            pacer: Pacer::new(t0, side.pacing_bps()),
            side,
            down: Link::new(seed, conditions),
            up: Link::new(seed + 1000, back),
            sleeper: Sleeper::default(),
            recorder: FeedbackRecorder::new(t0),
            viewer: Viewer::default(),
            t0,
            ms: 0,
            audio: VecDeque::new(),
            again: VecDeque::new(),
            video: VecDeque::new(),
            kept: VecDeque::new(),
            audio_wait_ms: 0,
            audio_delay_ms: 0,
            repeats: 0,
            key_frame: 0,
        }
    }

    fn now(&self) -> Instant {
        self.t0 + Duration::from_millis(self.ms)
    }

    fn micros(&self) -> Micros {
        Micros::from_millis(10_000 + self.ms)
    }

    pub fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 1000 {
            let mut media = false;
            if self.ms.is_multiple_of(20) {
                self.audio.push_back(self.ms);
                media = true;
            }
            if self.ms.is_multiple_of(33) {
                self.forward();
                media = true;
            }
            if media || self.ms.is_multiple_of(10) {
                self.look();
            }
            self.travel();
            self.ms += 1;
        }
    }

    /// A frame of each layer into the meeting, and what comes out into the queue.
    fn forward(&mut self) {
        let now = self.micros();
        let mut copies = Vec::new();
        for sent in self.camera.frames(self.ms) {
            let packet = Packet {
                seq: sent.seq,
                timestamp: sent.timestamp,
                marker: sent.marker,
                payload: &sent.payload,
                descriptor: &[],
                audio_level: None,
            };
            copies.clear();
            self.meeting
                .handle_packet(now, SourceId(1), sent.layer, &packet, &mut copies);
            for copy in &copies {
                let mut payload = sent.payload.clone();
                if let Some(patch) = copy.patch {
                    patch.apply(&mut payload);
                }
                let d = vp8::parse(&payload).expect("a descriptor");
                if vp8::key_frame_size(&payload, &d).is_some() {
                    self.begin_again(copy.seq);
                }
                self.video.push_back(Down::Video {
                    seq: copy.seq,
                    marker: copy.marker,
                    payload,
                });
            }
        }
    }

    /// What is before a key frame is of no use once there is one.
    fn begin_again(&mut self, seq: u16) {
        self.key_frame = seq;
        self.again.clear();
        if self.video.len() > BACKLOG {
            self.video.clear();
        }
    }

    fn look(&mut self) {
        let (now, at) = (self.now(), self.micros());
        self.side.handle_timeout(now);
        if self.meeting.poll_timeout().is_some_and(|due| due <= at) {
            self.meeting.handle_timeout(at);
        }
        if self.side.estimate_changed(now) {
            self.meeting.set_budget(at, VIEWER, self.side.media_bps());
        }
        if self.ms.is_multiple_of(100) {
            let wanted = self.meeting.wanted_bps(VIEWER);
            self.side.set_wanted_bps(now, Some(wanted));
        }
        while let Some(event) = self.meeting.poll_event() {
            if let Event::KeyFrameNeeded { layer, .. } = event {
                self.camera.ask(layer, self.ms + ROUND_TRIP_MS);
            }
        }
        self.send(now);
    }

    fn send(&mut self, now: Instant) {
        self.pacer.set_rate(now, self.side.pacing_bps());
        while let Some(at) = self.audio.pop_front() {
            self.audio_wait_ms = self.audio_wait_ms.max(self.ms - at);
            self.put(AUDIO_BYTES, Down::Audio);
        }
        while self.pacer.allowance(now) > 0 {
            let again = self.again.pop_front();
            self.repeats += u64::from(again.is_some());
            let Some(packet) = again.or_else(|| self.video.pop_front()) else {
                break;
            };
            if let Down::Video { seq, payload, .. } = &packet {
                let (seq, bytes) = (*seq, payload.len() + HEADERS);
                self.kept.push_back((seq, packet.clone()));
                if self.kept.len() > KEPT {
                    self.kept.pop_front();
                }
                self.put(bytes, packet);
            }
        }
        while let Some(bytes) = self.side.poll_probe(now) {
            self.put(bytes.min(1200), Down::Padding);
        }
    }

    fn put(&mut self, bytes: usize, packet: Down) {
        let number = self.side.sent(self.now(), bytes);
        if !matches!(packet, Down::Padding) {
            self.pacer.sent(bytes);
        }
        let queue = self.down.queue(self.ms * 1000) / 1000;
        if matches!(packet, Down::Audio) {
            self.audio_delay_ms = self.audio_delay_ms.max(queue);
        }
        self.down.send(self.ms * 1000, bytes, (number, packet));
    }

    fn travel(&mut self) {
        let us = self.ms * 1000 + 999;
        let now = self.now() + Duration::from_micros(999);
        if self.sleeper.is_awake(self.ms) {
            self.receive(us, now);
        }
        while let Some((_, up)) = self.up.receive(us) {
            match up {
                Up::Feedback(fci) => self.side.feedback(now, &fci).expect("of what was sent"),
                Up::Nack(seqs) => self.answer(&seqs),
                Up::Pli => self.meeting.request_key_frame(self.micros(), SlotId(20)),
            }
        }
    }

    /// The viewer reads what has come, and says what it has to say.
    fn receive(&mut self, us: u64, now: Instant) {
        while let Some((at, (number, packet))) = self.down.receive(us) {
            let at = self.sleeper.read_at(at);
            self.recorder
                .received(self.t0 + Duration::from_micros(at), number);
            if let Down::Video { seq, marker, payload } = packet {
                self.viewer.take(self.ms, seq, marker, &payload);
            }
        }
        while let Some(fci) = self.recorder.poll(now) {
            self.up.send(us, fci.len() + 40, Up::Feedback(fci));
        }
        let missing = self.viewer.nacks(self.ms, ROUND_TRIP_MS);
        if !missing.is_empty() {
            self.up.send(us, 60, Up::Nack(missing));
        }
        if self.viewer.wants_key(self.ms) {
            self.up.send(us, 60, Up::Pli);
        }
    }

    fn answer(&mut self, seqs: &[u16]) {
        for seq in seqs {
            let old = (seq.wrapping_sub(self.key_frame) as i16) < 0;
            let kept = self.kept.iter().rev().find(|(s, _)| s == seq && !old);
            if let Some((_, packet)) = kept.filter(|_| self.again.len() < 256) {
                self.again.push_back(packet.clone());
            }
        }
    }
}

/// A camera "a" in three layers, and a viewer with a slot that wants all of it.
fn meeting() -> Meeting {
    let now = Micros::from_millis(10_000);
    let mut meeting = Meeting::new();
    let layer = |height: u16| LayerSpec {
        width: height / 9 * 16,
        height,
        max_bps: 0,
    };
    meeting.add_source(
        now,
        SourceSpec {
            id: SourceId(1),
            leg: LegId(1),
            site: "a".into(),
            kind: SourceKind::Camera,
            codec: Codec::Vp8,
            layers: HEIGHTS.map(layer).to_vec(),
        },
    );
    meeting.add_slot(
        now,
        SlotSpec {
            id: SlotId(20),
            leg: VIEWER,
            site: "b".into(),
            audio: false,
            codecs: vec![Codec::Vp8],
            descriptors: false,
            seed: 5,
        },
    );
    let wish = Wish {
        slot: SlotId(20),
        what: WishWhat::Source {
            site: "a".into(),
            kind: SourceKind::Camera,
        },
        max_width: 1280,
        max_height: 720,
    };
    meeting.set_wishes(now, VIEWER, vec![wish]);
    meeting
}

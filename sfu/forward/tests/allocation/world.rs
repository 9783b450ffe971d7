//! Cameras that answer requests for key frames, and a viewer that checks the numbers of all that it is sent.

use std::collections::BTreeMap;

use muster_forward::{Forwarded, LegId, SlotReason, SlotStatus, vp8};

use crate::common::{Publisher, Room, Sent};

pub const HEIGHTS: [u16; 3] = [180, 360, 720];
/// What the layers send, bits a second on the wire.
pub const RATES: [u64; 3] = [150_000, 500_000, 2_000_000];
/// Three temporal layers as browsers send them (RFC 7741): base, upper, middle, upper.
pub const TIDS: [(u8, bool); 4] = [(0, false), (2, true), (1, true), (2, false)];
pub const FRAME_MS: u64 = 33;
/// Bytes that the core counts for a packet beside its payload.
pub const OVERHEAD: usize = 64;

/// One layer of a simulcast camera with temporal layers, that sends a key frame when asked.
pub struct Layer {
    pub publisher: Publisher,
    pub rate: u64,
    pub frame: usize,
    pub key: bool,
    pub temporal: bool,
    pub on: bool,
    pub tl0: u8,
}

impl Layer {
    pub fn new(index: usize, temporal: bool) -> Self {
        Layer {
            publisher: Publisher::new(1000 * (index as u16 + 1), HEIGHTS[index]),
            rate: RATES[index],
            frame: 0,
            key: true,
            temporal,
            on: true,
            tl0: 0,
        }
    }

    pub fn packets(&mut self) -> Vec<Sent> {
        let bytes = (self.rate * FRAME_MS / 8000) as usize;
        let packets = bytes.div_ceil(1200).max(1);
        if std::mem::take(&mut self.key) {
            self.frame = 0;
        }
        let key = self.frame == 0;
        let (tid, sync) = if self.temporal {
            TIDS[self.frame % 4]
        } else {
            (0, false)
        };
        self.tl0 = self.tl0.wrapping_add(u8::from(tid == 0));
        self.frame += 1;
        let mut sent = self.publisher.frame(key, packets);
        for packet in &mut sent {
            packet.payload[4] = self.tl0;
            packet.payload[5] = tid << 6 | u8::from(sync) << 5;
            packet
                .payload
                .resize((bytes / packets).max(OVERHEAD + 30) - OVERHEAD, 0x11);
        }
        sent
    }
}

/// Cameras "s1".. of source 1.., and one viewer: leg 100, slots 10...
pub struct World {
    pub room: Room,
    pub layers: BTreeMap<(u64, usize), Layer>,
    pub viewers: BTreeMap<u64, Viewer>,
    /// Bytes that reached the viewer, by time in milliseconds.
    pub arrived: Vec<(u64, usize)>,
    /// Key frames asked for come this much later.
    pub answer_ms: u64,
    pub asked: Vec<(u64, u64, usize)>,
    pub ms: u64,
}

/// What one slot has seen.
#[derive(Default)]
pub struct Viewer {
    pub last: Option<(u16, u16, u8, u32)>,
    pub last_ms: u64,
    /// The longest time between two packets.
    pub freeze: u64,
    pub frames: usize,
    pub height: u16,
    pub feed: Option<(u64, usize)>,
    /// The highest temporal layer whose references are whole.
    pub clean: u8,
}

impl Viewer {
    /// Every packet arrives in order here, so every number must be the next.
    pub fn take(&mut self, ms: u64, feed: (u64, usize), sent: &Sent, out: &Forwarded) {
        let patch = out.patch.expect("picture ids");
        let mut payload = sent.payload.clone();
        patch.apply(&mut payload);
        let d = vp8::parse(&payload).expect("ours");
        let key = vp8::key_frame_size(&payload, &d);
        if let Some((seq, picture, tl0, timestamp)) = self.last {
            assert_eq!(out.seq, seq.wrapping_add(1), "a gap in the numbers");
            let pictures = u16::from(d.frame_start);
            assert_eq!(
                patch.picture_id,
                (picture + pictures) & 0x7fff,
                "picture ids go on by one"
            );
            let base = u8::from(d.frame_start && d.tid == Some(0));
            assert_eq!(
                patch.tl0_pic_idx,
                tl0.wrapping_add(base),
                "TL0PICIDX counts base pictures"
            );
            assert!(out.timestamp.wrapping_sub(timestamp) as i32 >= 0);
            self.freeze = self.freeze.max(ms - self.last_ms);
        }
        self.last = Some((out.seq, patch.picture_id, patch.tl0_pic_idx, out.timestamp));
        self.last_ms = ms;
        if self.feed != Some(feed) {
            assert!(key.is_some(), "a switch begins with a key frame");
            self.feed = Some(feed);
        }
        if let Some((_, height)) = key {
            self.height = height;
            self.clean = 3;
        }
        let tid = d.tid.unwrap_or(0);
        if d.frame_start {
            self.frames += 1;
            assert!(
                tid <= self.clean || d.layer_sync && tid == self.clean + 1,
                "a picture of layer {tid} whose references were left out"
            );
            self.clean = self.clean.max(tid);
        }
    }
}

impl World {
    pub fn new(cameras: u64, temporal: bool) -> Self {
        let mut room = Room::new();
        let mut layers = BTreeMap::new();
        for source in 1..=cameras {
            room.camera(source, &format!("s{source}"), &HEIGHTS);
            for layer in 0..3 {
                layers.insert((source, layer), Layer::new(layer, temporal));
            }
        }
        for slot in 0..cameras {
            room.video_slot(10 + slot, 100);
        }
        World {
            room,
            layers,
            viewers: (0..cameras).map(|slot| (10 + slot, Viewer::default())).collect(),
            arrived: Vec::new(),
            answer_ms: 150,
            asked: Vec::new(),
            ms: 0,
        }
    }

    pub fn wish(&mut self, wishes: &[(u64, &str, u16)]) {
        self.room.wish(100, wishes);
    }

    pub fn budget(&mut self, bps: Option<u64>) {
        self.room.meeting.set_budget(self.room.now, LegId(100), bps);
        self.room.drain();
    }

    pub fn arrive(&mut self, source: u64, layer: usize, sent: &Sent) {
        for out in self.room.send(source, layer, sent) {
            self.arrived.push((self.ms, sent.payload.len() + OVERHEAD));
            let viewer = self.viewers.get_mut(&out.slot.0).expect("a slot of ours");
            viewer.take(self.ms, (source, layer), sent, &out);
        }
    }

    /// Runs frame by frame, and checks after each what must always hold.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms / FRAME_MS {
            for at in std::mem::take(&mut self.asked) {
                match self.layers.get_mut(&(at.1, at.2)) {
                    Some(layer) if at.0 <= self.ms => layer.key = true,
                    _ => self.asked.push(at),
                }
            }
            let keys: Vec<_> = self.layers.keys().copied().collect();
            for (source, layer) in keys {
                let of = self.layers.get_mut(&(source, layer)).expect("a key of it");
                if of.on {
                    for sent in of.packets() {
                        self.arrive(source, layer, &sent);
                    }
                }
            }
            self.room.pass(FRAME_MS);
            self.ms += FRAME_MS;
            for event in self.room.take_events() {
                if let muster_forward::Event::KeyFrameNeeded { source, layer } = event {
                    self.asked.push((self.ms + self.answer_ms, source.0, layer));
                }
            }
        }
    }

    /// Bits a second that reached the viewer in the last `ms`.
    pub fn rate(&self, ms: u64) -> u64 {
        let since = self.ms.saturating_sub(ms);
        let bytes: usize = self
            .arrived
            .iter()
            .filter(|(at, _)| *at >= since)
            .map(|(_, bytes)| bytes)
            .sum();
        bytes as u64 * 8000 / ms
    }

    pub fn height(&self, slot: u64) -> u16 {
        self.room.state(slot).height
    }

    pub fn told(&self, slot: u64) -> (SlotStatus, Option<SlotReason>, u16) {
        let state = self.room.state(slot);
        (state.status, state.reason, state.height)
    }
}

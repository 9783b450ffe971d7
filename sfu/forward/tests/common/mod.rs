//! A meeting with a clock of its own and publishers that count for themselves.
#![allow(dead_code)]

use std::sync::Arc;

use muster_forward::{
    Codec, Event, Forwarded, LayerSpec, LegId, Meeting, Micros, Packet, SlotId, SlotSpec, SlotState,
    SlotStatus, SourceId, SourceKind, SourceSpec, Stage, Wish, WishWhat,
};

pub struct Room {
    pub meeting: Meeting,
    pub now: Micros,
    pub out: Vec<Forwarded>,
    pub events: Vec<Event>,
}

impl Room {
    pub fn new() -> Self {
        Room {
            meeting: Meeting::new(),
            now: Micros::from_millis(10_000),
            out: Vec::new(),
            events: Vec::new(),
        }
    }

    /// A camera with VP8 layers of these heights, 16:9; 0 is unknown.
    pub fn camera(&mut self, id: u64, site: &str, heights: &[u16]) {
        self.source(id, site, SourceKind::Camera, Codec::Vp8, heights);
    }

    pub fn microphone(&mut self, id: u64, site: &str) {
        self.source(id, site, SourceKind::Audio, Codec::Opus, &[0]);
    }

    pub fn source(&mut self, id: u64, site: &str, kind: SourceKind, codec: Codec, heights: &[u16]) {
        let layer = |&height: &u16| LayerSpec {
            width: (u32::from(height) * 16 / 9) as u16,
            height,
            max_bps: 0,
        };
        let layers = heights.iter().map(layer).collect();
        let spec = SourceSpec {
            id: SourceId(id),
            leg: LegId(id),
            site: site.into(),
            kind,
            codec,
            layers,
        };
        self.meeting.add_source(self.now, spec);
        self.drain();
    }

    pub fn video_slot(&mut self, id: u64, leg: u64) {
        self.slot(id, leg, "viewer", false, &[Codec::Vp8]);
    }

    pub fn slot(&mut self, id: u64, leg: u64, site: &str, audio: bool, codecs: &[Codec]) {
        let codecs = codecs.to_vec();
        let spec = SlotSpec {
            id: SlotId(id),
            leg: LegId(leg),
            site: site.into(),
            audio,
            codecs,
            descriptors: true,
            seed: id,
        };
        self.meeting.add_slot(self.now, spec);
        self.drain();
    }

    /// The whole wish of a leg: slot, site, height of the box.
    pub fn wish(&mut self, leg: u64, wishes: &[(u64, &str, u16)]) {
        let wishes = wishes
            .iter()
            .map(|&(slot, site, height)| Wish {
                slot: SlotId(slot),
                what: match site {
                    "stage" => WishWhat::Stage,
                    "content" => WishWhat::Content,
                    _ => WishWhat::Source {
                        site: site.into(),
                        kind: SourceKind::Camera,
                    },
                },
                max_width: (u32::from(height) * 16 / 9) as u16,
                max_height: height,
            })
            .collect();
        self.meeting.set_wishes(self.now, LegId(leg), wishes);
        self.drain();
    }

    pub fn stage(&mut self, version: u64, broadcast: Option<&str>, chair: &str, muted: &[&str]) {
        let muted = muted.iter().map(|&site| site.into()).collect();
        let broadcast = broadcast.map(Arc::from);
        self.meeting.set_stage(
            self.now,
            Stage {
                version,
                broadcast,
                chair: chair.into(),
                muted,
                ..Stage::default()
            },
        );
        self.drain();
    }

    /// A whole stage.
    pub fn set_stage(&mut self, stage: Stage) {
        self.meeting.set_stage(self.now, stage);
        self.drain();
    }

    /// Sends one packet; what comes out of it is returned, and kept in `out`.
    pub fn send(&mut self, source: u64, layer: usize, sent: &Sent) -> Vec<Forwarded> {
        let mut out = Vec::new();
        let packet = Packet {
            seq: sent.seq,
            timestamp: sent.timestamp,
            marker: sent.marker,
            payload: &sent.payload,
            descriptor: &[],
            audio_level: sent.level,
        };
        self.meeting
            .handle_packet(self.now, SourceId(source), layer, &packet, &mut out);
        self.out.extend(&out);
        self.drain();
        out
    }

    /// Lets time pass, handling timeouts when they fall due.
    pub fn pass(&mut self, ms: u64) {
        let end = Micros(self.now.0 + ms * 1000);
        while let Some(at) = self.meeting.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.meeting.handle_timeout(self.now);
            self.drain();
            assert!(
                self.meeting.poll_timeout().is_none_or(|next| next > self.now),
                "a timeout that does not move on"
            );
        }
        self.now = end;
    }

    pub fn drain(&mut self) {
        while let Some(event) = self.meeting.poll_event() {
            self.events.push(event);
        }
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub fn state(&self, slot: u64) -> &SlotState {
        self.meeting.slot_state(SlotId(slot)).expect("the slot was added")
    }

    pub fn status(&self, slot: u64) -> SlotStatus {
        self.state(slot).status
    }

    pub fn site(&self, slot: u64) -> Option<&str> {
        self.state(slot).source.as_ref().map(|(site, _)| &**site)
    }

    /// How many key frames were asked for of this layer since `take_events`.
    pub fn key_frames_asked(&self, source: u64, layer: usize) -> usize {
        let asked = Event::KeyFrameNeeded {
            source: SourceId(source),
            layer,
        };
        self.events.iter().filter(|&event| *event == asked).count()
    }

    /// Changes of LayerWanted of this layer since `take_events`.
    pub fn wanted(&self, source: u64, layer: usize) -> Vec<bool> {
        let of_layer = |event: &Event| match event {
            Event::LayerWanted {
                source: s,
                layer: l,
                wanted,
            } if *s == SourceId(source) && *l == layer => Some(*wanted),
            _ => None,
        };
        self.events.iter().filter_map(of_layer).collect()
    }
}

/// A packet as a publisher sends it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub seq: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
    pub level: Option<u8>,
}

/// One layer of a VP8 publisher, or a microphone.
#[derive(Clone, Debug)]
pub struct Publisher {
    pub seq: u16,
    pub timestamp: u32,
    pub picture_id: u16,
    pub tl0: u8,
    pub height: u16,
}

impl Publisher {
    pub fn new(start: u16, height: u16) -> Self {
        Publisher {
            seq: start,
            timestamp: u32::from(start) << 16,
            picture_id: start & 0x7fff,
            tl0: start as u8,
            height,
        }
    }

    /// The packets of one VP8 frame.
    pub fn frame(&mut self, key: bool, packets: usize) -> Vec<Sent> {
        let sent = (0..packets).map(|i| {
            let mut payload = vec![0x80 | if i == 0 { 0x10 } else { 0 }, 0xe0];
            payload.extend((0x8000 | self.picture_id).to_be_bytes());
            payload.extend([self.tl0, 0x20]);
            if key && i == 0 {
                let width = (u32::from(self.height) * 16 / 9) as u16;
                payload.extend([0x10, 0, 0, 0x9d, 0x01, 0x2a]);
                payload.extend(width.to_le_bytes());
                payload.extend(self.height.to_le_bytes());
            } else {
                payload.extend([0x11; 12]);
            }
            let seq = self.seq.wrapping_add(i as u16);
            Sent {
                seq,
                timestamp: self.timestamp,
                marker: i + 1 == packets,
                payload,
                level: None,
            }
        });
        let sent: Vec<Sent> = sent.collect();
        self.seq = self.seq.wrapping_add(packets as u16);
        self.timestamp = self.timestamp.wrapping_add(3000);
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.tl0 = self.tl0.wrapping_add(1);
        sent
    }

    pub fn key(&mut self) -> Sent {
        self.frame(true, 1).remove(0)
    }

    pub fn delta(&mut self) -> Sent {
        self.frame(false, 1).remove(0)
    }

    /// 20 ms of Opus at this RFC 6464 level.
    pub fn voice(&mut self, level: Option<u8>) -> Sent {
        let sent = Sent {
            seq: self.seq,
            timestamp: self.timestamp,
            marker: false,
            payload: vec![0x78, 1, 2],
            level,
        };
        self.seq = self.seq.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(960);
        sent
    }
}

//! Copies of packets for slots. Those for browsers' legs wait for their leg's turn in a list for each leg, so that a leg is
//! reached once for all packets of a batch, and what it queues is still in the cache when it is sent; those for links leave at once.
//!
//! Invariant: between two flushes only; bounded by [`MOST`], at which the worker flushes.

use std::time::Instant;

use bytes::Bytes;
use muster_forward::{Forwarded, Packet, Stored};
use muster_link::rtp::LinkRtp;
use muster_link::{LinkError, Sent};
use muster_webrtc::{LegTurn, PicturePatch, Place, QueuedRtp};

use crate::convert;
use crate::ring::Aside;

use super::path::slot_flow;
use super::state::{Drops, LinkWire, MeetingKey, Wire, Worker};
use super::table::SlotPlace;

/// Copies that wait.
const MOST: usize = 16 * 1024;
/// The end of a list.
const NONE: u32 = u32::MAX;

/// A received packet, as far as its copies need it.
struct Received {
    at: Instant,
    place: Place,
    aside: Aside,
    audio_level: Option<u8>,
    starts_key_frame: bool,
}

/// A copy, its packet, and the next one of the same leg.
struct Waiting {
    copy: Forwarded,
    received: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

const EMPTY: List = List {
    first: NONE,
    last: NONE,
};

#[derive(Default)]
pub(crate) struct Copies {
    received: Vec<Received>,
    waiting: Vec<Waiting>,
    /// By the leg's index.
    lists: Vec<List>,
}

/// The first copy of a leg's list.
#[derive(Clone, Copy)]
pub(super) struct First(u32);

impl Copies {
    /// A packet was received; the copies that are entered next are of it.
    pub fn received(
        &mut self,
        at: Instant,
        packet: &Packet<'_>,
        aside: Aside,
        place: Place,
        starts_key_frame: bool,
    ) {
        self.received.push(Received {
            at,
            place,
            aside,
            audio_level: packet.audio_level,
            starts_key_frame,
        });
    }

    /// HOT. True if it is the leg's first.
    fn enter(&mut self, leg: usize, copy: &Forwarded) -> bool {
        let (Some(received), at) = (self.received.len().checked_sub(1), self.waiting.len() as u32) else {
            return false;
        };
        self.waiting.push(Waiting {
            copy: *copy,
            received: received as u32, // as many as copies at most
            next: NONE,
        });
        if leg >= self.lists.len() {
            self.lists.resize(leg + 1, EMPTY);
        }
        let list = &mut self.lists[leg];
        let before = std::mem::replace(&mut list.last, at);
        match self.waiting.get_mut(before as usize) {
            Some(before) => before.next = at,
            None => list.first = at,
        }
        before == NONE
    }

    /// Takes the list of a leg.
    pub(super) fn of_leg(&mut self, leg: usize) -> First {
        let list = self.lists.get_mut(leg);
        First(list.map_or(NONE, |list| std::mem::replace(list, EMPTY).first))
    }

    /// Gives a leg its copies in its turn; how many it refused.
    pub(super) fn give(&self, first: First, turn: &mut LegTurn<'_>) -> u64 {
        let (mut next, mut refused) = (first.0, 0);
        while let Some(waiting) = self.waiting.get(next as usize) {
            next = waiting.next;
            let Some(received) = self.received.get(waiting.received as usize) else {
                continue;
            };
            let slot = SlotPlace::of(waiting.copy.slot).index;
            let taken = turn.take(received.at, slot, &queued(&waiting.copy, received));
            refused += u64::from(!taken);
        }
        refused
    }

    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MOST
    }

    /// All lists were taken.
    pub fn clear(&mut self) {
        self.received.clear();
        self.waiting.clear();
    }
}

fn patch(copy: &Forwarded) -> Option<PicturePatch> {
    let frame = copy.frame.map(|frame| PicturePatch::Frame {
        number: frame.number,
        active: frame.active,
        targets: frame.targets,
    });
    frame.or_else(|| {
        let patch = copy.patch?;
        Some(PicturePatch::Picture {
            picture_id: patch.picture_id,
            tl0_pic_idx: patch.tl0_pic_idx,
        })
    })
}

fn queued(copy: &Forwarded, received: &Received) -> QueuedRtp {
    QueuedRtp {
        place: received.place,
        codec: convert::codec_to_leg(copy.codec),
        seq: copy.seq,
        timestamp: copy.timestamp,
        marker: copy.marker,
        starts_key_frame: received.starts_key_frame,
        audio_level: received.audio_level,
        redundancy: received.aside.redundancy,
        age_us: received.aside.age_us,
        descriptor: received.aside.descriptor,
        patch: patch(copy),
    }
}

impl Worker {
    /// HOT: once for each copy of the packet that [`Copies::received`] was told of last.
    pub(super) fn enter_copy(&mut self, copy: &Forwarded, packet: &Packet<'_>, aside: Aside) {
        let place = SlotPlace::of(copy.slot);
        if !place.link {
            if self.copies.enter(place.leg, copy) {
                self.dirty.push(place.leg);
            }
            return;
        }
        let Some(leg) = self.legs.at_mut(place.leg) else {
            return;
        };
        if let Some(slot) = leg.slots.get_mut(place.index) {
            slot.bytes += packet.payload.len() as u64;
        }
        if let Wire::Link(wire) = &mut leg.wire {
            self.shared.metrics.packets_out.increment(1);
            wire.send(place.index, copy, packet, aside, &mut self.scratch, &self.drops);
        }
    }

    /// What a slot that begins to show a source has missed since its last key frame.
    pub(super) fn queue_replays(&mut self, now: Instant, key: MeetingKey) {
        let Some(meeting) = self.meetings.get_mut(&key) else {
            return;
        };
        let mut replays = std::mem::take(&mut self.replays);
        meeting.core.take_replays(&mut replays);
        if replays.is_empty() {
            self.replays = replays;
            return;
        }
        let store = std::mem::take(&mut self.store);
        for replayed in &replays {
            let Stored(at, length, front) = replayed.stored;
            let place = Place::from_numbers((at, length));
            let kept = store
                .get(place)
                .and_then(|kept| kept.split_at_checked(front.into()));
            let Some((descriptor, payload)) = kept else {
                self.drops.replay_gone.increment(1);
                continue;
            };
            let packet = Packet {
                seq: replayed.copy.seq,
                timestamp: replayed.copy.timestamp,
                marker: replayed.copy.marker,
                payload,
                descriptor,
                audio_level: None,
            };
            let aside = Aside {
                descriptor: front,
                ..Aside::default()
            };
            self.copies
                .received(now, &packet, aside, place, replayed.starts_key_frame);
            self.enter_copy(&replayed.copy, &packet, aside);
        }
        self.store = store;
        self.replays = replays;
    }
}

impl LinkWire {
    fn send(
        &mut self,
        index: usize,
        copy: &Forwarded,
        packet: &Packet<'_>,
        aside: Aside,
        scratch: &mut bytes::BytesMut,
        drops: &Drops,
    ) {
        // Links repair what they lose themselves: the primary encoding goes alone.
        let redundancy = usize::from(aside.redundancy);
        let payload = packet.payload.get(redundancy..).unwrap_or(packet.payload);
        let rtp = LinkRtp {
            payload_type: convert::link_payload_type(copy.codec),
            marker: copy.marker,
            seq: copy.seq,
            timestamp: copy.timestamp,
            audio_level: packet.audio_level,
            payload,
        };
        rtp.write(slot_flow(index), scratch);
        if let Some(patch) = copy.patch {
            let payload_at = scratch.len() - payload.len();
            patch.apply_to(copy.codec, &mut scratch[payload_at..]);
        }
        let datagram: Bytes = scratch.split().freeze();
        self.counts.down_bytes += datagram.len() as u64;
        match self.sender.send_datagram(datagram) {
            Ok(Sent::Queued) => {}
            Ok(Sent::Displaced) => drops.link_full.increment(1),
            Err(LinkError::DatagramTooLarge { .. }) => drops.link_too_large.increment(1),
            // The link's own task sees the loss and takes the leg out.
            Err(_) => drops.not_sent.increment(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_forward::Codec;
    use muster_webrtc::PacketStore;

    fn copy(leg: usize, seq: u16) -> Forwarded {
        let place = SlotPlace {
            leg,
            index: 0,
            link: false,
        };
        Forwarded {
            slot: place.id(),
            codec: Codec::Vp8,
            seq,
            timestamp: 0,
            marker: false,
            patch: None,
            frame: None,
        }
    }

    #[test]
    fn each_leg_has_its_copies_in_order() {
        let (mut copies, mut store, now) = (Copies::default(), PacketStore::new(), Instant::now());
        let seqs = |copies: &mut Copies, leg| {
            let mut next = copies.of_leg(leg).0;
            let mut seqs = Vec::new();
            while let Some(waiting) = copies.waiting.get(next as usize) {
                seqs.push((waiting.copy.seq, waiting.received));
                next = waiting.next;
            }
            seqs
        };
        for round in 0..2 {
            for seq in 0..3u16 {
                let packet = Packet {
                    seq,
                    timestamp: 0,
                    marker: false,
                    payload: b"x",
                    descriptor: &[],
                    audio_level: None,
                };
                let place = store.push(now, packet.payload).expect("short");
                copies.received(now, &packet, Aside::default(), place, false);
                for leg in [5, 2] {
                    assert_eq!(copies.enter(leg, &copy(leg, seq)), seq == 0, "round {round}");
                }
            }
            assert_eq!(seqs(&mut copies, 5), [(0, 0), (1, 1), (2, 2)]);
            assert_eq!(seqs(&mut copies, 2), [(0, 0), (1, 1), (2, 2)]);
            assert_eq!(seqs(&mut copies, 3), []);
            assert_eq!(seqs(&mut copies, 9), []);
            copies.clear();
        }
    }

    #[test]
    fn it_says_when_it_is_full() {
        let (mut copies, mut store, now) = (Copies::default(), PacketStore::new(), Instant::now());
        let packet = Packet {
            seq: 0,
            timestamp: 0,
            marker: false,
            payload: b"x",
            descriptor: &[],
            audio_level: None,
        };
        let place = store.push(now, packet.payload).expect("short");
        copies.received(now, &packet, Aside::default(), place, false);
        for leg in 0..MOST {
            assert!(!copies.is_full());
            copies.enter(leg % 7, &copy(leg % 7, 0));
        }
        assert!(copies.is_full());
    }
}

//! The packet path: receive a batch, hand each datagram to its leg, note for each slot what comes out; then, a leg after
//! the other, write, protect and send.
//!
//! Each payload is kept once, in the worker's store; what is noted for a slot is where it lies there. Between receiving and sending nothing waits, nothing is allocated for a packet (payloads for links and other workers share
//! large buffers), no channel is used but the rings between workers, and nothing is logged above trace. Packets of links and
//! of other workers enter at [`Worker::forward`] too.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_forward::{Codec, LegId, Packet, SourceId, Stored, h264, vp8};
use muster_link::rtp::LinkRtp;
use muster_webrtc::{Ignored, Place, stun_ufrag};

use crate::ring::{Aside, Crossing, CrossingPacket, Ring};

use super::handshakes::is_dtls;
use super::state::{LayerPlace, LegEntry, Wire, Worker};

/// Addresses that one leg may be found by; the oldest goes.
const MAX_ADDRESSES: usize = 8;
/// From one turn of a leg to the next, for which a timer would be worth its while.
const SHORTEST_TURN: Duration = Duration::from_millis(1);
/// Crossings taken in one turn from one ring, so that a busy neighbour does not starve our own socket.
const MAX_CROSSINGS: usize = 1024;

impl Worker {
    /// The whole path of what browsers sent: at most `batches` are received, then what came of them is sent, leg by leg,
    /// so that the packets of a picture leave a leg with one call.
    pub fn receive(&mut self, batches: usize) {
        let now = Instant::now();
        let mut batch = std::mem::take(&mut self.batch);
        for _ in 0..batches {
            if !self.socket.receive(&mut batch) {
                break;
            }
            self.shared.metrics.receive_calls.increment(1);
            for (from, datagram) in batch.datagrams() {
                self.take_datagram(now, from, datagram);
            }
        }
        self.batch = batch;
        self.flush(now);
    }

    pub(super) fn take_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        let Some(id) = self.leg_of(from, datagram) else {
            self.drops.unknown_address.increment(1);
            return;
        };
        let Some(LegEntry {
            wire: Wire::WebRtc(wire),
            sources,
            media_at,
            ..
        }) = self.legs.get_mut(&id)
        else {
            return;
        };
        if is_dtls(datagram) && !wire.leg.is_connected() {
            return self.defer_handshake(id, from, datagram);
        }
        let size = datagram.len();
        match wire.leg.handle_datagram(now, from, datagram) {
            Ok(Some(rtp)) => {
                self.shared.metrics.packets_in.increment(1);
                self.shared.metrics.bytes_in.increment(size as u64);
                *media_at = now;
                let Some(&source) = sources.get(rtp.source) else {
                    return self.touch(id);
                };
                let packet = Packet {
                    seq: rtp.seq,
                    timestamp: rtp.timestamp,
                    marker: rtp.marker,
                    payload: rtp.payload,
                    descriptor: rtp.descriptor,
                    audio_level: rtp.audio_level,
                };
                let aside = Aside {
                    redundancy: rtp.redundancy,
                    descriptor: u8::try_from(rtp.descriptor.len()).unwrap_or(0),
                    age_us: rtp.age_us,
                };
                self.forward(now, source, rtp.layer, &packet, aside);
                // It may have something to ask for.
                self.touch(id);
            }
            Ok(None) => {
                self.learn_address(from, id);
                self.touch(id);
            }
            Err(ignored) => self.count_ignored(ignored),
        }
    }

    pub(super) fn count_ignored(&mut self, ignored: Ignored) {
        let reason = ignored.as_str();
        let metrics = &self.shared.metrics;
        self.drops
            .ignored
            .entry(reason)
            .or_insert_with(|| metrics.dropped(reason))
            .increment(1);
    }

    /// By the source address; a STUN request by the username fragment in it.
    fn leg_of(&self, from: SocketAddr, datagram: &[u8]) -> Option<LegId> {
        let stun = datagram.first().is_some_and(|&first| first < 4);
        let named = if stun { stun_ufrag(datagram) } else { None };
        named
            .and_then(|ufrag| self.by_ufrag.get(ufrag))
            .or_else(|| self.by_address.get(&from))
            .copied()
    }

    /// The leg has authenticated a request from this address.
    fn learn_address(&mut self, from: SocketAddr, id: LegId) {
        if self.by_address.get(&from) == Some(&id) {
            return;
        }
        let Some(LegEntry {
            wire: Wire::WebRtc(wire),
            ..
        }) = self.legs.get_mut(&id)
        else {
            return;
        };
        if wire.addresses.len() >= MAX_ADDRESSES {
            let oldest = wire.addresses.remove(0);
            // Another leg may have it by now (a NAT gives ports out again).
            if self.by_address.get(&oldest) == Some(&id) {
                self.by_address.remove(&oldest);
            }
        }
        wire.addresses.retain(|known| *known != from);
        wire.addresses.push(from);
        self.by_address.insert(from, id);
    }

    /// A datagram of a link. The caller flushes.
    pub fn take_link_datagram(&mut self, now: Instant, id: LegId, flow: u64, bytes: &[u8]) {
        let Some(LegEntry {
            wire: Wire::Link(wire),
            sources,
            media_at,
            ..
        }) = self.legs.get_mut(&id)
        else {
            return;
        };
        let Some(up) = wire.flows.iter_mut().find(|up| up.flow == flow) else {
            self.drops.unknown_flow.increment(1);
            return;
        };
        let Ok(rtp) = LinkRtp::parse(bytes).map_err(drop).and_then(|rtp| {
            if rtp.payload_type == up.payload_type && !rtp.payload.is_empty() {
                Ok(rtp)
            } else {
                Err(())
            }
        }) else {
            self.drops.link_malformed.increment(1);
            return;
        };
        wire.counts.count(up.last_seq, rtp.seq, bytes.len());
        if up.last_seq.is_none_or(|last| rtp.seq.wrapping_sub(last) < 0x8000) {
            up.last_seq = Some(rtp.seq);
        }
        *media_at = now;
        self.shared.metrics.packets_in.increment(1);
        self.shared.metrics.bytes_in.increment(bytes.len() as u64);
        let (layer, Some(&source)) = (up.layer, sources.get(up.source)) else {
            return;
        };
        let packet = Packet {
            seq: rtp.seq,
            timestamp: rtp.timestamp,
            marker: rtp.marker,
            payload: rtp.payload,
            descriptor: &[],
            audio_level: rtp.audio_level,
        };
        self.forward(now, source, layer, &packet, Aside::default());
    }

    /// Packets and wishes of the other workers.
    pub fn take_crossings(&mut self) {
        let now = Instant::now();
        let shared = self.shared.clone();
        let here = self.index;
        for from in (0..shared.rings.len()).filter(|&from| from != here) {
            let ring = &shared.rings[from][here];
            let mut taken = 0;
            while taken < MAX_CROSSINGS
                && let Some(crossing) = ring.pop()
            {
                taken += 1;
                match crossing {
                    Crossing::Packet(crossed) => {
                        let (descriptor, payload) = crossed.parts();
                        let packet = Packet {
                            seq: crossed.seq,
                            timestamp: crossed.timestamp,
                            marker: crossed.marker,
                            payload,
                            descriptor,
                            audio_level: crossed.audio_level,
                        };
                        self.forward(now, crossed.source, crossed.layer, &packet, crossed.aside);
                    }
                    Crossing::Wanted {
                        source,
                        layer,
                        wanted,
                    } => self.wanted_by(now, from, source, layer, wanted),
                    Crossing::KeyFrame { source, layer } => self.ask_key_frame(now, source, layer),
                }
            }
            if taken == MAX_CROSSINGS {
                shared.signals[here].wake();
            }
        }
        self.flush(now);
    }

    /// One packet of one layer, wherever it came from: into the slots of this worker, and to the workers and relays that
    /// want it.
    pub(super) fn forward(
        &mut self,
        now: Instant,
        id: SourceId,
        layer: usize,
        packet: &Packet<'_>,
        aside: Aside,
    ) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        let key = source.meeting;
        let Some(meeting) = self.meetings.get_mut(&key) else {
            return;
        };
        self.forwarded.clear();
        let place = self.store.push_behind(now, packet.descriptor, packet.payload);
        let stored = place.map(Place::numbers);
        let stored = stored.map(|(at, length)| Stored(at, length, aside.descriptor));
        let at = self.shared.micros(now);
        meeting
            .core
            .handle_stored(at, id, layer, packet, stored, &mut self.forwarded);
        if let Some(place) = place.filter(|_| !self.forwarded.is_empty()) {
            let starts = starts_key_frame(source.codec, packet.payload);
            let mut copies = std::mem::take(&mut self.forwarded);
            self.copies.received(now, packet, aside, place, starts);
            copies
                .iter()
                .for_each(|copy| self.enter_copy(copy, packet, aside));
            copies.clear();
            self.forwarded = copies;
        }
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let ours = source.home.is_ours();
        let Some(&place) = source.layers.get(layer) else {
            return;
        };
        if ours && place.wanted_by != 0 {
            self.cross(now, id, layer, packet, aside);
        }
        if place.wanted_by_relays != 0 {
            self.send_to_neighbours(id, layer, packet, aside);
        }
        self.drain_core(now, key);
        if self.copies.is_full() {
            self.flush(now);
        }
    }

    /// Pushes a packet of ours to every worker that wants it.
    fn cross(&mut self, now: Instant, id: SourceId, layer: usize, packet: &Packet<'_>, aside: Aside) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        let codec = source.codec;
        let Some(place) = source.layers.get_mut(layer) else {
            return;
        };
        self.scratch.extend_from_slice(packet.descriptor);
        self.scratch.extend_from_slice(packet.payload);
        let payload = self.scratch.split().freeze();
        let starts = place.cut_for != 0 && starts_key_frame(codec, packet.payload);
        let mut cut = false;
        for to in bits(place.wanted_by) {
            let crossed = CrossingPacket {
                source: id,
                layer,
                seq: packet.seq,
                timestamp: packet.timestamp,
                marker: packet.marker,
                audio_level: packet.audio_level,
                aside,
                payload: payload.clone(),
            };
            let was_cut = place.cut_for;
            if place.cross(&self.shared.rings[self.index][to], to, crossed, starts) {
                self.shared.metrics.ring_packets.increment(1);
            } else {
                self.shared.metrics.ring_dropped.increment(1);
            }
            cut |= place.cut_for & !was_cut != 0;
            self.to_wake |= 1 << to;
        }
        if cut && codec != Codec::Opus {
            self.ask_key_frame(now, id, layer);
        }
    }

    /// Sends what has gathered or has its turn now, a leg after the other, and tells what the legs have to tell.
    pub fn flush(&mut self, now: Instant) {
        while let Some((at, index)) = self.backlog.due(now) {
            if let Some(leg) = self.legs.at_mut(index).filter(|leg| leg.turn_at == Some(at)) {
                leg.turn_at = None;
                if let Wire::WebRtc(wire) = &mut leg.wire
                    && wire.leg.poll_timeout().is_some_and(|at| at <= now)
                {
                    wire.leg.handle_timeout(now);
                }
                if !std::mem::replace(&mut leg.dirty, true) {
                    self.dirty.push(index);
                }
            }
        }
        let mut at = 0;
        // What a leg tells may give others something to send.
        while let Some(&index) = self.dirty.get(at) {
            at += 1;
            self.flush_leg(index);
        }
        self.dirty.clear();
        self.copies.clear();
        let next = self.backlog.next();
        if next.is_some_and(|next| self.sleeps_until.is_none_or(|until| next < until)) {
            self.sleeps_until = next;
            self.rouse.notify_one();
        }
        for to in bits(std::mem::take(&mut self.to_wake)) {
            self.shared.signals[to].wake();
        }
    }

    fn flush_leg(&mut self, index: usize) {
        let copies = self.copies.of_leg(index);
        let Some(leg) = self.legs.at_mut(index) else {
            return;
        };
        leg.dirty = false;
        let id = leg.id;
        let Wire::WebRtc(wire) = &mut leg.wire else {
            return;
        };
        let metrics = &self.shared.metrics;
        // What the leg is told of its sending must be true, and the legs before took their time.
        let now = Instant::now();
        let mut turn = wire.leg.turn(now, &self.store, &mut self.send_batch);
        let refused = self.copies.give(copies, &mut turn);
        self.drops.not_sent.increment(refused);
        while let Some((to, batch)) = turn.next() {
            let (bytes, lengths) = (batch.bytes(), batch.lengths());
            let (sent, calls) = self.socket.send(to, bytes, lengths);
            self.load.sent(batch.queued_at());
            metrics.send_calls.increment(calls as u64);
            metrics.packets_out.increment(lengths.len() as u64);
            metrics.bytes_out.increment(bytes.len() as u64);
            self.drops.not_sent.increment((lengths.len() - sent) as u64);
        }
        let turns = [wire.leg.media_timeout(), wire.leg.poll_timeout()];
        if let Some(at) = turns
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(now + SHORTEST_TURN))
            && leg.turn_at.is_none_or(|turn| at < turn)
        {
            leg.turn_at = Some(at);
            self.backlog.enter(at, index);
        }
        while let Some(transmit) = wire.leg.poll_transmit() {
            let (sent, calls) = self
                .socket
                .send(transmit.to, &transmit.data, &[transmit.data.len()]);
            metrics.send_calls.increment(calls as u64);
            self.drops.not_sent.increment(1 - sent as u64);
        }
        self.drain_leg(now, id);
    }
}

impl LayerPlace {
    /// Pushes a packet for worker `to`. A full ring cuts the layer off for that worker until a packet that `starts` a key
    /// frame (or any packet of sound) finds room.
    fn cross(&mut self, ring: &Ring, to: usize, packet: CrossingPacket, starts: bool) -> bool {
        let bit = 1u64 << to;
        if self.cut_for & bit != 0 && !starts {
            return false;
        }
        let pushed = ring.push(Crossing::Packet(packet)).is_ok();
        if pushed {
            self.cut_for &= !bit;
        } else {
            self.cut_for |= bit;
        }
        pushed
    }
}

/// Flow id down of a link's slot.
pub(crate) fn slot_flow(index: usize) -> u64 {
    index as u64 + 1
}

/// The places of the ones in a bit set, lowest first.
pub(crate) fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(lowest)
    })
}

/// Whether a layer that was cut may be sent again from this packet on.
fn starts_key_frame(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus => true,
        Codec::Vp8 => vp8::parse(payload).is_some_and(|found| vp8::key_frame_size(payload, &found).is_some()),
        Codec::H264 => h264::key_frame(payload) != h264::KeyFrame::None,
        Codec::Vp9 | Codec::Av1 => muster_forward::starts_key_frame(codec, payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_layer_begins_again_where_a_decoder_can() {
        assert!(starts_key_frame(
            Codec::Vp8,
            &[0x10, 0, 0, 0, 0x9d, 0x01, 0x2a, 64, 1, 180, 0]
        ));
        assert!(!starts_key_frame(
            Codec::Vp8,
            &[0x10, 1, 0, 0, 0x9d, 0x01, 0x2a, 64, 1, 180, 0]
        ));
        assert!(starts_key_frame(Codec::H264, &[0x67, 1]));
        assert!(starts_key_frame(Codec::H264, &[0x78, 0, 2, 0x67, 1]));
        // A STAP-A that begins with an access unit delimiter, as some encoders write it.
        assert!(starts_key_frame(
            Codec::H264,
            &[0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x67, 1]
        ));
        assert!(starts_key_frame(Codec::H264, &[0x7c, 0x85]));
        assert!(!starts_key_frame(Codec::H264, &[0x7c, 0x05]));
        assert!(!starts_key_frame(Codec::H264, &[0x41]));
        assert!(!starts_key_frame(Codec::H264, &[]));
    }

    #[test]
    fn a_full_ring_cuts_a_layer_until_the_next_key_frame() {
        let (ring, mut place) = (Ring::new(), LayerPlace::default());
        let cross = |place: &mut LayerPlace, ring: &Ring, seq, starts| {
            let packet = CrossingPacket {
                aside: Aside::default(),
                source: SourceId(1),
                layer: 0,
                seq,
                timestamp: 0,
                marker: true,
                audio_level: None,
                payload: bytes::Bytes::new(),
            };
            place.cross(ring, 3, packet, starts)
        };
        let mut crossed = 0u16;
        while cross(&mut place, &ring, crossed, false) {
            crossed += 1;
        }
        assert_eq!(place.cut_for, 1 << 3);
        assert!(ring.pop().is_some(), "room again");
        assert!(
            !cross(&mut place, &ring, 1, false),
            "but not for the rest of a picture"
        );
        assert!(cross(&mut place, &ring, 2, true));
        assert!(ring.pop().is_some());
        assert!(cross(&mut place, &ring, 3, false));
        assert_eq!(place.cut_for, 0);
    }

    #[test]
    fn bits_of_a_set() {
        assert_eq!(bits(0b1010_0001).collect::<Vec<_>>(), [0, 5, 7]);
        assert_eq!(bits(1 << 63).collect::<Vec<_>>(), [63]);
        assert_eq!(bits(0).count(), 0);
    }
}

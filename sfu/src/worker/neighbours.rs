//! Links to other relays on a worker: who is there, who wants which layer, and the packets that cross. To the rest of the
//! worker another relay is what another worker is: sources come from it whose packets come only if they are wanted,
//! unchanged, and it may want ours.
//!
//! Invariants: a packet of a layer is sent to a neighbour once, whatever the number of viewers behind it. All of it goes
//! with its link and is said anew on the next, so nothing has to be put right after an outage. What waits to be told is
//! state, not messages: its size is bounded by the sources. Which sources there are is in `parts`, the tasks of the links
//! are in `cascade`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_forward::{Packet, SourceId, SourceKind};
use muster_link::rtp::LinkRtp;
use muster_link::{EdgeSender, LinkError, RelaySender, Sent};
use muster_proto::media::v1::{LinkDown, LinkUp, RelayMessage, RelayWant, link_down, link_up, relay_message};
use tokio::sync::Notify;

use crate::cascade::{Counts, add};
use crate::convert;
use crate::ring::Aside;

use super::parts::Part;
use super::path::bits;
use super::state::{IdMap, MeetingKey, Worker};

/// Bit sets name neighbours.
const MAX_NEIGHBOURS: usize = 64;
/// Our flow ids are a source's id and, in these bits, a layer.
const LAYER_BITS: u32 = 3;
/// In one message.
pub(super) const FLOWS_OF_MESSAGE: usize = 512;
/// Requests of all neighbours for a key frame of one layer: one of these times.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(450);

/// Which neighbour, for those that outlive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub index: usize,
    id: u64,
}

pub(crate) struct Neighbour {
    id: u64,
    name: Arc<str>,
    pub(super) above: bool,
    sender: Sender,
    pub(super) parts: IdMap<MeetingKey, Part>,
    /// What it sends, by flow.
    pub(super) flows: HashMap<u64, InFlow>,
    pub(super) pending: Pending,
    pub(super) wake: Rc<Notify>,
    counts: Arc<Counts>,
}

/// The sending half of a link, of either end.
#[derive(Clone)]
pub(super) enum Sender {
    Above(EdgeSender),
    Below(RelaySender),
}

/// A layer that a neighbour sends.
pub(super) struct InFlow {
    pub source: SourceId,
    pub layer: usize,
    pub payload_type: u8,
    pub last_seq: Option<u16>,
}

/// What the neighbour must still be told.
#[derive(Default)]
pub(super) struct Pending {
    pub over: BTreeSet<Arc<str>>,
    pub meetings: BTreeSet<u64>,
    pub wants: BTreeMap<u64, bool>,
    pub key_frames: BTreeSet<u64>,
}

impl Worker {
    /// A link to another relay stands. An older one of the same relay goes.
    pub(super) fn add_neighbour(
        &mut self,
        name: &str,
        sender: Sender,
        wake: Rc<Notify>,
    ) -> Result<At, &'static str> {
        let above = matches!(sender, Sender::Above(_));
        if *name == **self.shared.directory.relay() {
            return Err("own_name");
        }
        let of_name = |n: &&Neighbour| *n.name == *name;
        if let Some(old) = self.neighbours.iter().flatten().find(of_name) {
            // Two relays that dial each other would keep each other's meetings alive for ever.
            if old.above != above {
                return Err("uplink_circle");
            }
            old.sender.close("replaced");
            let at = self.at(name);
            at.into_iter().for_each(|at| self.remove_neighbour(at));
        }
        let free = self.neighbours.iter().position(Option::is_none);
        let index = free.unwrap_or(self.neighbours.len());
        if index >= MAX_NEIGHBOURS {
            return Err("links_full");
        }
        if free.is_none() {
            self.neighbours.push(None);
        }
        let (id, name): (u64, Arc<str>) = (self.shared.directory.next_id(), name.into());
        self.neighbours[index] = Some(Neighbour {
            id,
            counts: self.shared.cascade.enter(&name, above),
            name,
            above,
            sender,
            parts: IdMap::default(),
            flows: HashMap::new(),
            pending: Pending::default(),
            wake,
        });
        if above {
            let now = Instant::now();
            for meeting in self.shared.directory.meetings() {
                self.sync(now, &meeting);
            }
            self.flush(now);
        }
        Ok(At { index, id })
    }

    fn at(&self, name: &str) -> Option<At> {
        let index = self
            .neighbours
            .iter()
            .position(|n| n.as_ref().is_some_and(|n| *n.name == *name))?;
        let id = self.neighbours[index].as_ref()?.id;
        Some(At { index, id })
    }

    /// The link is gone, and all that came by it.
    pub(super) fn remove_neighbour(&mut self, at: At) {
        let now = Instant::now();
        let Some(neighbour) = self.neighbour_mut(at) else {
            return;
        };
        let keys: Vec<MeetingKey> = neighbour.parts.keys().copied().collect();
        let counts = neighbour.counts.clone();
        self.shared.cascade.leave(&counts);
        for key in keys {
            self.drop_part(now, at.index, key);
        }
        if let Some(place) = self.neighbours.get_mut(at.index) {
            *place = None;
        }
        self.flush(now);
    }

    pub(super) fn neighbour_mut(&mut self, at: At) -> Option<&mut Neighbour> {
        let place = self.neighbours.get_mut(at.index)?.as_mut();
        place.filter(|neighbour| neighbour.id == at.id)
    }

    /// Takes a message of a neighbour. The caller flushes.
    pub(super) fn hear(&mut self, now: Instant, at: At, message: RelayMessage) {
        if self.neighbour_mut(at).is_none() {
            return;
        }
        match message.message {
            Some(relay_message::Message::Sources(sources)) => self.take_sources(now, at.index, sources),
            Some(relay_message::Message::Want(want)) => self.take_want(now, at.index, &want),
            Some(relay_message::Message::KeyFrame(request)) => {
                self.take_key_frame(now, at.index, request.flow);
            }
            None => {}
        }
    }

    fn take_want(&mut self, now: Instant, index: usize, want: &RelayWant) {
        for &flow in want.flows.iter().take(FLOWS_OF_MESSAGE) {
            let Some((id, layer)) = self.told_flow(index, flow) else {
                self.drops.unknown_flow.increment(1);
                continue;
            };
            self.neighbour_wants(now, index, id, layer, want.wanted);
            if let Some(key) = self.sources.get(&id).map(|source| source.meeting) {
                self.drain_core(now, key);
            }
        }
    }

    /// The layer of this flow, if the neighbour was told of it.
    fn told_flow(&self, index: usize, flow: u64) -> Option<(SourceId, usize)> {
        let (id, layer) = (
            SourceId(flow >> LAYER_BITS),
            (flow & ((1 << LAYER_BITS) - 1)) as usize,
        );
        let source = self.sources.get(&id)?;
        let part = self.neighbours[index].as_ref()?.parts.get(&source.meeting)?;
        (part.told.contains(&id) && layer < source.layers.len()).then_some((id, layer))
    }

    pub(super) fn neighbour_wants(
        &mut self,
        now: Instant,
        index: usize,
        id: SourceId,
        layer: usize,
        wanted: bool,
    ) {
        let place = self
            .sources
            .get_mut(&id)
            .and_then(|source| source.layers.get_mut(layer));
        let Some(place) = place else { return };
        if wanted {
            place.wanted_by_relays |= 1 << index;
        } else {
            place.wanted_by_relays &= !(1 << index);
        }
        self.apply_want(now, id, layer);
    }

    fn take_key_frame(&mut self, now: Instant, index: usize, flow: u64) {
        let Some((id, layer)) = self.told_flow(index, flow) else {
            self.drops.unknown_flow.increment(1);
            return;
        };
        if let Some(neighbour) = self.neighbours[index].as_ref() {
            add(&neighbour.counts.key_frames_asked, 1);
        }
        let place = self
            .sources
            .get_mut(&id)
            .and_then(|source| source.layers.get_mut(layer));
        let Some(place) = place else { return };
        let lately = |at: Instant| now.saturating_duration_since(at) < KEY_FRAME_EVERY;
        // Who asked in vain asks again.
        if !place.asked_at.is_some_and(lately) {
            place.asked_at = Some(now);
            self.ask_key_frame(now, id, layer);
        }
    }

    /// Asks a neighbour for a key frame of a flow of its.
    pub(super) fn ask_neighbour(&mut self, index: usize, flow: u64) {
        let Some(neighbour) = self.neighbours.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        neighbour.pending.key_frames.insert(flow);
        neighbour.wake.notify_one();
    }

    /// Tells a neighbour that a flow of its is wanted here, or no longer.
    pub(super) fn want_of_neighbour(&mut self, index: usize, flow: u64, wanted: bool) {
        let Some(neighbour) = self.neighbours.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        neighbour.pending.wants.insert(flow, wanted);
        neighbour.wake.notify_one();
    }

    /// A datagram of a neighbour. The caller flushes.
    pub(super) fn take_neighbour_datagram(&mut self, now: Instant, at: At, flow: u64, bytes: &[u8]) {
        let place = self.neighbours.get_mut(at.index).and_then(Option::as_mut);
        let Some(neighbour) = place.filter(|neighbour| neighbour.id == at.id) else {
            return;
        };
        let Some(flowing) = neighbour.flows.get_mut(&flow) else {
            self.drops.unknown_flow.increment(1);
            return;
        };
        let read = LinkRtp::parse(bytes).ok();
        let fits = |rtp: &LinkRtp<'_>| rtp.payload_type == flowing.payload_type && !rtp.payload.is_empty();
        let Some(rtp) = read.filter(fits) else {
            self.drops.link_malformed.increment(1);
            return;
        };
        let counts = &neighbour.counts;
        add(&counts.packets_in, 1);
        add(&counts.bytes_in, bytes.len() as u64);
        add(&counts.layers_in, u64::from(flowing.last_seq.is_none()));
        let step = flowing.last_seq.map_or(1, |last| rtp.seq.wrapping_sub(last));
        if step < 0x8000 {
            add(&counts.numbers_in, u64::from(step));
            flowing.last_seq = Some(rtp.seq);
        }
        self.shared.metrics.packets_in.increment(1);
        self.shared.metrics.bytes_in.increment(bytes.len() as u64);
        let (source, layer) = (flowing.source, flowing.layer);
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

    /// HOT. Sends a packet to the neighbours that want its layer, as it came; of sound only the chosen voices.
    pub(super) fn send_to_neighbours(
        &mut self,
        id: SourceId,
        layer: usize,
        packet: &Packet<'_>,
        aside: Aside,
    ) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let Some(place) = source.layers.get(layer) else {
            return;
        };
        let meeting = self.meetings.get(&source.meeting);
        let is_sound = source.kind == SourceKind::Audio;
        if is_sound && meeting.is_none_or(|meeting| !meeting.core.is_heard(id)) {
            return;
        }
        let payload = packet.payload.get(usize::from(aside.redundancy)..);
        let rtp = LinkRtp {
            payload_type: convert::link_payload_type(source.codec),
            marker: packet.marker,
            seq: packet.seq,
            timestamp: packet.timestamp,
            audio_level: packet.audio_level,
            payload: payload.unwrap_or(packet.payload),
        };
        rtp.write(flow_id(id, layer), &mut self.scratch);
        let datagram: Bytes = self.scratch.split().freeze();
        for index in bits(place.wanted_by_relays) {
            let Some(neighbour) = self.neighbours.get(index).and_then(Option::as_ref) else {
                continue;
            };
            add(&neighbour.counts.packets_out, 1);
            add(&neighbour.counts.bytes_out, datagram.len() as u64);
            self.shared.metrics.packets_out.increment(1);
            match neighbour.sender.send_datagram(datagram.clone()) {
                Ok(Sent::Queued) => {}
                Ok(Sent::Displaced) => self.drops.link_full.increment(1),
                Err(LinkError::DatagramTooLarge { .. }) => self.drops.link_too_large.increment(1),
                // The link's own task sees the loss.
                Err(_) => self.drops.not_sent.increment(1),
            }
        }
    }

    /// The relay stops.
    pub(super) fn close_neighbours(&self, reason: &str) {
        let all = self.neighbours.iter().flatten();
        all.for_each(|neighbour| neighbour.sender.close(reason));
    }
}

impl Sender {
    fn send_datagram(&self, datagram: Bytes) -> Result<Sent, LinkError> {
        match self {
            Self::Above(sender) => sender.send_datagram(datagram),
            Self::Below(sender) => sender.send_datagram(datagram),
        }
    }

    /// Waits for room.
    pub(super) async fn tell(&self, message: RelayMessage) -> Result<(), LinkError> {
        match self {
            Self::Above(sender) => {
                let message = Some(link_up::Message::Relay(message));
                sender.send_control(&LinkUp { message }).await
            }
            Self::Below(sender) => {
                let message = Some(link_down::Message::Relay(message));
                sender.send_control(&LinkDown { message }).await
            }
        }
    }

    pub(super) fn close(&self, reason: &str) {
        match self {
            Self::Above(sender) => sender.close(reason),
            Self::Below(sender) => sender.close(reason),
        }
    }
}

pub(super) fn flow_id(id: SourceId, layer: usize) -> u64 {
    id.0 << LAYER_BITS | layer as u64
}

//! The meetings that this relay and a neighbour both have: which sources each has told the other of, and when they are
//! over. The relay below names a meeting while there is a leg of it there or further down; the one above follows.
//!
//! Invariants: a source is never told to whom it came from, and one whose leg is here is not taken back from another.
//! What a neighbour says is checked here and bounded; what is refused is counted. Packets are in `neighbours`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use muster_forward::{Codec, LayerSpec, LegId, SourceId, SourceKind, SourceSpec};
use muster_link::framing::MAX_FLOW;
use muster_proto::media::v1::{
    self as wire, KeyFrameRequest, LinkLayer, RelayMessage, RelaySources, RelayWant, relay_message,
};

use crate::admission::is_name;
use crate::convert;
use crate::directory::{Relayed, RelayedMeeting};

use super::neighbours::{At, FLOWS_OF_MESSAGE, InFlow, flow_id};
use super::state::{Home, MeetingKey, SourcePlace, Worker};

/// Of one neighbour.
const MAX_MEETINGS: usize = 4096;
const MAX_SOURCES: usize = 32_768;
const MAX_LAYERS: usize = 8;
/// In one message.
const SOURCES_OF_MESSAGE: usize = 64;

/// A meeting that this relay and the neighbour both have.
pub(super) struct Part {
    meeting: Arc<str>,
    /// Stands for the neighbour in the core and in the directory.
    leg: LegId,
    /// Its sources, by its own ids.
    sources: BTreeMap<u64, SourceId>,
    /// Those of ours that it knows of.
    pub told: BTreeSet<SourceId>,
    introduced: bool,
}

/// A source of theirs that is as it must be.
struct Read {
    id: u64,
    spec: SourceSpec,
    relay: Arc<str>,
    flows: Vec<u64>,
}

impl Worker {
    pub(super) fn take_sources(&mut self, now: Instant, index: usize, told: RelaySources) {
        let Some(neighbour) = self.neighbours[index].as_ref() else {
            return;
        };
        let above = neighbour.above;
        let known = self.meeting_keys.get(told.meeting.as_str()).copied();
        let part = known.filter(|key| neighbour.parts.contains_key(key));
        let key = match (part, above) {
            // An answer to what we have left meanwhile.
            (None, true) => return,
            (None, false) if told.over => return,
            (Some(key), false) if told.over => return self.drop_part(now, index, key),
            (Some(key), _) => key,
            (None, false) => {
                let meeting: Arc<str> = told.meeting.as_str().into();
                let Some(key) = self.enter_part(index, &meeting) else {
                    self.drops.relay_refused.increment(1);
                    return;
                };
                self.sync(now, &meeting);
                key
            }
        };
        for source in told.came.iter().take(SOURCES_OF_MESSAGE) {
            self.take_source(now, index, key, source);
        }
        for id in &told.gone {
            self.lose_source(now, index, key, *id);
        }
        self.note_part(index, key);
        self.drain_core(now, key);
    }

    /// From now on the neighbour has a part in the meeting.
    fn enter_part(&mut self, index: usize, meeting: &Arc<str>) -> Option<MeetingKey> {
        let neighbour = self.neighbours.get(index)?.as_ref()?;
        if !is_name(meeting) || neighbour.parts.len() >= MAX_MEETINGS {
            return None;
        }
        let above = neighbour.above;
        let leg = LegId(self.shared.directory.next_id());
        let record = RelayedMeeting {
            worker: self.index,
            above,
            sources: Arc::new([]),
        };
        if !self.shared.directory.enter_relay(meeting, leg, record) {
            return None;
        }
        let key = self.open_meeting(meeting);
        let neighbour = self.neighbours.get_mut(index)?.as_mut()?;
        let part = Part {
            meeting: meeting.clone(),
            leg,
            sources: BTreeMap::new(),
            told: BTreeSet::new(),
            introduced: !above,
        };
        neighbour.parts.insert(key, part);
        neighbour.pending.meetings.insert(key.0);
        neighbour.wake.notify_one();
        Some(key)
    }

    fn take_source(&mut self, now: Instant, index: usize, key: MeetingKey, told: &wire::RelaySource) {
        let own = self.shared.directory.relay().clone();
        let Some(neighbour) = self.neighbours[index].as_ref() else {
            return;
        };
        let Some(part) = neighbour.parts.get(&key) else {
            return;
        };
        if part.sources.contains_key(&told.id) || *told.relay == *own {
            return;
        }
        let sources: usize = neighbour.parts.values().map(|part| part.sources.len()).sum();
        let id = SourceId(self.shared.directory.next_id());
        let read = read_source(told, id, part.leg, &neighbour.flows).filter(|_| sources < MAX_SOURCES);
        let Some(read) = read else {
            self.drops.relay_refused.increment(1);
            return;
        };
        let payload_type = convert::link_payload_type(read.spec.codec);
        let Some(neighbour) = self.neighbours[index].as_mut() else {
            return;
        };
        let flows = read.flows;
        for (layer, &flow) in flows.iter().enumerate() {
            let flowing = InFlow {
                source: id,
                layer,
                payload_type,
                last_seq: None,
            };
            neighbour.flows.insert(flow, flowing);
        }
        if let Some(part) = neighbour.parts.get_mut(&key) {
            part.sources.insert(read.id, id);
        }
        self.add_source(now, key, Home::Neighbour(index), read.spec, read.relay);
        if let Some(source) = self.sources.get_mut(&id) {
            let places = source.layers.iter_mut().zip(flows);
            places.for_each(|(place, flow)| place.flow = flow);
        }
    }

    fn lose_source(&mut self, now: Instant, index: usize, key: MeetingKey, id: u64) {
        let Some(neighbour) = self.neighbours[index].as_mut() else {
            return;
        };
        let Some(source) = neighbour
            .parts
            .get_mut(&key)
            .and_then(|part| part.sources.remove(&id))
        else {
            return;
        };
        for place in self
            .sources
            .remove(&source)
            .iter()
            .flat_map(|place| &place.layers)
        {
            neighbour.flows.remove(&place.flow);
        }
        let at = self.shared.micros(now);
        if let Some(meeting) = self.meetings.get_mut(&key) {
            meeting.core.remove_source(at, source);
        }
    }

    /// Tells the other workers what the neighbour has of the meeting.
    fn note_part(&self, index: usize, key: MeetingKey) {
        let Some(neighbour) = self.neighbours[index].as_ref() else {
            return;
        };
        let Some(part) = neighbour.parts.get(&key) else {
            return;
        };
        let sources = part.sources.values();
        let relayed = sources.filter_map(|id| {
            let place = self.sources.get(id)?;
            Some(Relayed {
                spec: place.spec(*id, part.leg),
                relay: place.relay.clone(),
            })
        });
        let record = RelayedMeeting {
            worker: self.index,
            above: neighbour.above,
            sources: relayed.collect(),
        };
        self.shared.directory.enter_relay(&part.meeting, part.leg, record);
    }

    /// The neighbour has no part in the meeting any more.
    pub(super) fn drop_part(&mut self, now: Instant, index: usize, key: MeetingKey) {
        let Some(neighbour) = self.neighbours[index].as_mut() else {
            return;
        };
        let Some(part) = neighbour.parts.remove(&key) else {
            return;
        };
        neighbour.pending.meetings.remove(&key.0);
        let at = self.shared.micros(now);
        for id in part.sources.into_values() {
            for place in self.sources.remove(&id).iter().flat_map(|place| &place.layers) {
                neighbour.flows.remove(&place.flow);
            }
            if let Some(meeting) = self.meetings.get_mut(&key) {
                meeting.core.remove_source(at, id);
            }
        }
        for id in part.told {
            let layers = self.sources.get(&id).map_or(0, |source| source.layers.len());
            for layer in 0..layers {
                self.neighbour_wants(now, index, id, layer, false);
            }
        }
        self.shared.directory.leave_relay(&part.meeting, part.leg);
        self.drain_core(now, key);
        self.close_if_idle(key);
    }

    /// The relay above takes part in what is here, and in nothing else.
    pub(super) fn sync_above(&mut self, now: Instant, meeting: &Arc<str>, needed: bool) {
        for index in 0..self.neighbours.len() {
            let Some(neighbour) = self.neighbours[index].as_ref().filter(|n| n.above) else {
                continue;
            };
            let known = self.meeting_keys.get(meeting).copied();
            match known.filter(|key| neighbour.parts.contains_key(key)) {
                None if needed => {
                    let refused = self.enter_part(index, meeting).is_none();
                    self.drops.relay_refused.increment(refused.into());
                }
                Some(key) if !needed => {
                    self.drop_part(now, index, key);
                    if let Some(neighbour) = self.neighbours[index].as_mut() {
                        neighbour.pending.over.insert(meeting.clone());
                        neighbour.wake.notify_one();
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a neighbour has a part in the meeting.
    pub(super) fn has_part(&self, key: MeetingKey) -> bool {
        let mut all = self.neighbours.iter().flatten();
        all.any(|neighbour| neighbour.parts.contains_key(&key))
    }

    /// The sources of a meeting may have changed.
    pub(super) fn announce(&mut self, key: MeetingKey) {
        for neighbour in self.neighbours.iter_mut().flatten() {
            if neighbour.parts.contains_key(&key) {
                neighbour.pending.meetings.insert(key.0);
                neighbour.wake.notify_one();
            }
        }
    }

    /// What the neighbour must be told now; `None` once it is gone.
    pub(super) fn take_pending(&mut self, at: At) -> Option<Vec<RelayMessage>> {
        let neighbour = self.neighbour_mut(at)?;
        let pending = std::mem::take(&mut neighbour.pending);
        let mut messages = Vec::new();
        for meeting in pending.over {
            messages.push(relay_message::Message::Sources(RelaySources {
                meeting: meeting.to_string(),
                over: true,
                ..RelaySources::default()
            }));
        }
        for wanted in [false, true] {
            let these = pending.wants.iter().filter(|(_, now)| **now == wanted);
            let flows: Vec<u64> = these.map(|(flow, _)| *flow).collect();
            for flows in flows.chunks(FLOWS_OF_MESSAGE) {
                let flows = flows.to_vec();
                messages.push(relay_message::Message::Want(RelayWant { flows, wanted }));
            }
        }
        let asked = pending.key_frames.into_iter();
        messages.extend(asked.map(|flow| relay_message::Message::KeyFrame(KeyFrameRequest { flow })));
        for key in pending.meetings {
            self.tell_sources(at.index, MeetingKey(key), &mut messages);
        }
        let whole = |message| RelayMessage {
            message: Some(message),
        };
        Some(messages.into_iter().map(whole).collect())
    }

    /// What the neighbour does not know yet of the sources of a meeting.
    fn tell_sources(&mut self, index: usize, key: MeetingKey, out: &mut Vec<relay_message::Message>) {
        let Some(part) = self.neighbours[index]
            .as_mut()
            .and_then(|neighbour| neighbour.parts.get_mut(&key))
        else {
            return;
        };
        let there: BTreeSet<SourceId> = self
            .sources
            .iter()
            .filter(|(_, source)| source.meeting == key && source.home != Home::Neighbour(index))
            .map(|(&id, _)| id)
            .collect();
        let came: Vec<wire::RelaySource> = there
            .difference(&part.told)
            .filter_map(|id| Some(self.sources.get(id)?.told(*id)))
            .collect();
        let mut gone: Vec<u64> = part.told.difference(&there).map(|id| id.0).collect();
        part.told = there;
        let mut chunks = came.chunks(SOURCES_OF_MESSAGE);
        let mut next = chunks.next();
        let introduced = std::mem::replace(&mut part.introduced, true);
        if introduced && next.is_none() && gone.is_empty() {
            return;
        }
        loop {
            out.push(relay_message::Message::Sources(RelaySources {
                meeting: part.meeting.to_string(),
                came: next.unwrap_or_default().to_vec(),
                gone: std::mem::take(&mut gone),
                over: false,
            }));
            next = chunks.next();
            if next.is_none() {
                return;
            }
        }
    }
}

impl SourcePlace {
    /// As a neighbour is told of it.
    fn told(&self, id: SourceId) -> wire::RelaySource {
        let layers = self.sizes.iter().take(MAX_LAYERS).enumerate();
        wire::RelaySource {
            id: id.0,
            site: self.site.to_string(),
            kind: convert::kind_to_wire(self.kind).into(),
            codec: convert::codec_name(self.codec).to_owned(),
            layers: layers
                .map(|(layer, told)| LinkLayer {
                    flow: flow_id(id, layer),
                    width: told.width.into(),
                    height: told.height.into(),
                    max_bps: told.max_bps,
                })
                .collect(),
            relay: self.relay.to_string(),
        }
    }

    fn spec(&self, id: SourceId, leg: LegId) -> SourceSpec {
        SourceSpec {
            id,
            leg,
            site: self.site.clone(),
            kind: self.kind,
            codec: self.codec,
            layers: self.sizes.clone(),
        }
    }
}

/// `None` for one that is not as it must be.
fn read_source(
    told: &wire::RelaySource,
    id: SourceId,
    leg: LegId,
    taken: &HashMap<u64, InFlow>,
) -> Option<Read> {
    let kind = convert::kind_of_wire(told.kind)?;
    let codec = convert::codec_of_name(&told.codec)?;
    let is_sound = kind == SourceKind::Audio;
    if is_sound != (codec == Codec::Opus) || !is_name(&told.site) || !is_name(&told.relay) {
        return None;
    }
    if told.layers.is_empty() || told.layers.len() > MAX_LAYERS || (is_sound && told.layers.len() > 1) {
        return None;
    }
    let mut flows: Vec<u64> = Vec::with_capacity(told.layers.len());
    let mut layers = Vec::with_capacity(told.layers.len());
    let pixels = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
    for layer in &told.layers {
        if layer.flow > MAX_FLOW || taken.contains_key(&layer.flow) || flows.contains(&layer.flow) {
            return None;
        }
        flows.push(layer.flow);
        layers.push(LayerSpec {
            width: pixels(layer.width),
            height: pixels(layer.height),
            max_bps: layer.max_bps,
        });
    }
    let spec = SourceSpec {
        id,
        leg,
        site: told.site.as_str().into(),
        kind,
        codec,
        layers,
    };
    Some(Read {
        id: told.id,
        spec,
        relay: told.relay.as_str().into(),
        flows,
    })
}

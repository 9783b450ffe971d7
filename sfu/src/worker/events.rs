//! What the cores tell the worker, and what is done about it.

use std::time::Instant;

use muster_forward::{Event, LegId, SourceId, SourceKind};
use muster_proto::command::v1::LegState;
use muster_proto::media::v1::{KeyFrameRequest, LayerPause, LinkDown, link_down};
use muster_webrtc::LegEvent;

use crate::convert;
use crate::ring::Crossing;

use super::quality;
use super::state::{Home, LegEntry, LinkWire, MeetingKey, Wire, Worker};
use super::table::SlotPlace;

impl Worker {
    /// Does what a meeting's core asks for, until it asks for nothing more.
    pub fn drain_core(&mut self, now: Instant, key: MeetingKey) {
        loop {
            self.queue_replays(now, key);
            let meeting = self.meetings.get_mut(&key);
            let Some(event) = meeting.and_then(|meeting| meeting.core.poll_event()) else {
                return;
            };
            match event {
                Event::KeyFrameNeeded { source, layer } => self.ask_key_frame(now, source, layer),
                Event::LayerWanted {
                    source,
                    layer,
                    wanted,
                } => self.wanted_here(now, source, layer, wanted),
                Event::SourceLive { source, layer } => self.source_live(now, source, layer),
                Event::SlotChanged { slot, state } => {
                    let place = SlotPlace::of(slot);
                    let Some(leg) = self.legs.at(place.leg) else {
                        continue;
                    };
                    let Some(entry) = leg.slots.get(place.index) else {
                        continue;
                    };
                    for post in &leg.posts {
                        post.slot(
                            place.index,
                            convert::slot_state(&entry.name, &state, entry.bitrate_bps),
                        );
                    }
                }
                Event::SpeakersChanged { sites } => {
                    let Some(meeting) = self.meetings.get_mut(&key) else {
                        continue;
                    };
                    meeting.speakers.sites = sites.iter().map(|site| site.to_string()).collect();
                    self.tell_speakers(key);
                }
                Event::ActiveSpeakerChanged { site } => {
                    let Some(meeting) = self.meetings.get_mut(&key) else {
                        continue;
                    };
                    meeting.speakers.active = site.as_deref().unwrap_or_default().to_owned();
                    self.tell_speakers(key);
                }
                Event::ShownSpeakerChanged { site } => {
                    if let Some(meeting) = self.meetings.get(&key) {
                        self.shared.directory.set_speaker(&meeting.name, site);
                    }
                }
            }
        }
    }

    fn tell_speakers(&self, key: MeetingKey) {
        let Some(meeting) = self.meetings.get(&key) else {
            return;
        };
        for leg in meeting.legs.iter().filter_map(|id| self.legs.get(id)) {
            leg.posts
                .iter()
                .for_each(|post| post.speakers(meeting.speakers.clone()));
        }
    }

    /// Does what a browser's leg asks for.
    pub fn drain_leg(&mut self, now: Instant, id: LegId) {
        loop {
            let Some(LegEntry {
                wire: Wire::WebRtc(wire),
                meeting,
                ..
            }) = self.legs.get_mut(&id)
            else {
                return;
            };
            let key = *meeting;
            match wire.leg.poll_event() {
                None => return,
                Some(LegEvent::Connected) => self.connected(now, id),
                Some(LegEvent::KeyFrameRequested { slot }) => {
                    let slot = self
                        .legs
                        .get(&id)
                        .and_then(|leg| leg.slots.get(slot))
                        .map(|slot| slot.id);
                    if let (Some(slot), Some(meeting)) = (slot, self.meetings.get_mut(&key)) {
                        meeting.core.request_key_frame(self.shared.micros(now), slot);
                        self.drain_core(now, key);
                    }
                }
                Some(LegEvent::Estimate { bps }) => {
                    if let Some(meeting) = self.meetings.get_mut(&key) {
                        meeting.core.set_budget(self.shared.micros(now), id, bps);
                        self.drain_core(now, key);
                    }
                }
                Some(LegEvent::Quality(second)) => {
                    let estimate = wire.leg.estimate_bps();
                    self.shared.metrics.second_of_leg(&second, estimate);
                    self.measured(now, id, quality::of_webrtc(&second, estimate));
                }
                Some(LegEvent::Closed { reason }) => {
                    self.remove(id, reason.as_str());
                    return;
                }
            }
        }
    }

    /// A viewer that publishes nothing, or content alone, is on air once it is connected; what is published must be awaited anew.
    fn connected(&mut self, now: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.media_at = now;
        if let Wire::WebRtc(wire) = &leg.wire
            && let Some(profile) = wire.leg.srtp_profile()
        {
            tracing::debug!(leg = %leg.name, srtp = profile.name(), "keys agreed");
            self.shared.metrics.keys_agreed(profile.name());
        }
        let view = leg.waiting_view.take();
        let content = |id: &SourceId| {
            self.sources
                .get(id)
                .is_some_and(|source| source.kind == SourceKind::Content)
        };
        if leg.sources.iter().all(content) {
            self.set_state(id, LegState::OnAir);
        }
        if let Some(wishes) = view {
            self.apply_view(now, id, wishes);
        }
    }

    pub fn set_state(&mut self, id: LegId, state: LegState) {
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| leg.state != state) else {
            return;
        };
        leg.state = state;
        if let Some(meeting) = self.meetings.get(&leg.meeting) {
            self.shared.directory.set_state(&meeting.name, id, state);
        }
    }

    /// Asks the publisher for a key frame, here or through its worker.
    pub fn ask_key_frame(&mut self, now: Instant, id: SourceId, layer: usize) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        match source.home {
            Home::Worker(to) => {
                // A full ring loses it; the core asks again.
                if self.shared.rings[self.index][to]
                    .push(Crossing::KeyFrame { source: id, layer })
                    .is_err()
                {
                    self.shared.metrics.ring_dropped.increment(1);
                }
                self.to_wake |= 1 << to;
            }
            Home::Neighbour(index) => {
                if let Some(flow) = source.layers.get(layer).map(|place| place.flow) {
                    self.ask_neighbour(index, flow);
                }
            }
            Home::Here { leg: leg_id, index } => {
                let Some(leg) = self.legs.get_mut(&leg_id) else {
                    return;
                };
                self.shared.metrics.key_frames_asked.increment(1);
                match &mut leg.wire {
                    Wire::WebRtc(wire) => wire.leg.request_key_frame(now, index, layer),
                    Wire::Link(wire) => wire.request_key_frame(index, layer),
                }
                self.touch(leg_id);
            }
        }
    }

    fn wanted_here(&mut self, now: Instant, id: SourceId, layer: usize, wanted: bool) {
        let place = self
            .sources
            .get_mut(&id)
            .and_then(|source| source.layers.get_mut(layer));
        let Some(place) = place else { return };
        place.wanted_here = wanted;
        self.apply_want(now, id, layer);
    }

    /// Tells where a layer comes from that it is wanted, or that nobody wants it any more.
    pub fn apply_want(&mut self, now: Instant, id: SourceId, layer: usize) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        if let Home::Here { .. } = source.home {
            return self.apply_pause(now, id, layer);
        }
        let (home, key) = (source.home, source.meeting);
        let Some(place) = source.layers.get_mut(layer) else {
            return;
        };
        let (wanted, flow) = (place.is_wanted(), place.flow);
        if std::mem::replace(&mut place.asked, wanted) == wanted {
            return;
        }
        let at = self.shared.micros(now);
        if let Some(meeting) = self.meetings.get_mut(&key) {
            meeting.core.handle_timeout(at);
            meeting.core.set_paused(id, layer, !wanted);
        }
        match home {
            Home::Neighbour(index) => self.want_of_neighbour(index, flow, wanted),
            Home::Worker(_) | Home::Here { .. } => self.tell_wish(id, layer),
        }
    }

    /// Tells a source's worker whether we want a layer; what finds the ring full is told at the next tick.
    pub fn tell_wish(&mut self, id: SourceId, layer: usize) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let (Home::Worker(to), Some(place)) = (source.home, source.layers.get(layer)) else {
            return;
        };
        let wish = Crossing::Wanted {
            source: id,
            layer,
            wanted: place.asked,
        };
        if self.shared.rings[self.index][to].push(wish).is_err() && !self.untold_wishes.contains(&(id, layer))
        {
            self.untold_wishes.push((id, layer));
        }
        self.to_wake |= 1 << to;
    }

    /// Another worker wants a layer of ours, or no longer does.
    pub fn wanted_by(&mut self, now: Instant, worker: usize, id: SourceId, layer: usize, wanted: bool) {
        let Some(source) = self.sources.get_mut(&id).filter(|s| s.home.is_ours()) else {
            return;
        };
        let Some(place) = source.layers.get_mut(layer) else {
            return;
        };
        if wanted {
            place.wanted_by |= 1 << worker;
        } else {
            place.wanted_by &= !(1 << worker);
            place.cut_for &= !(1 << worker);
        }
        self.apply_want(now, id, layer);
    }

    /// Tells a link to pause a layer that nobody on any worker or relay wants, or to go on. Never before the source was live.
    pub fn apply_pause(&mut self, now: Instant, id: SourceId, layer: usize) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        let Home::Here { leg: leg_id, index } = source.home else {
            return;
        };
        let live = source.layers.iter().any(|layer| layer.live);
        let Some(place) = source.layers.get_mut(layer) else {
            return;
        };
        let paused = live && !place.is_wanted();
        if paused == place.paused {
            return;
        }
        let expected = self.legs.get(&leg_id).is_some_and(|leg| self.is_expected(leg));
        let place = self
            .sources
            .get_mut(&id)
            .and_then(|source| source.layers.get_mut(layer));
        let (Some(place), Some(leg)) = (place, self.legs.get_mut(&leg_id)) else {
            return;
        };
        let Wire::Link(wire) = &mut leg.wire else { return };
        place.paused = paused;
        wire.pause(index, layer, paused);
        if !paused {
            wire.request_key_frame(index, layer);
            // Where something else was awaited already, the wait goes on.
            if !expected {
                leg.media_at = now;
            }
        }
        if let Some(meeting) = self.meetings.get_mut(&leg.meeting) {
            // From now on it is paused or awaited, whenever the core was told the time last.
            meeting.core.handle_timeout(self.shared.micros(now));
            meeting.core.set_paused(id, layer, paused);
        }
    }

    fn source_live(&mut self, now: Instant, id: SourceId, layer: usize) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        let Home::Here { leg: leg_id, .. } = source.home else {
            return;
        };
        if let Some(place) = source.layers.get_mut(layer) {
            place.live = true;
        }
        let (kind, layers) = (source.kind, source.layers.len());
        let has_camera = self.legs.get(&leg_id).is_some_and(|leg| {
            leg.sources
                .iter()
                .any(|s| self.sources.get(s).is_some_and(|s| s.kind == SourceKind::Camera))
        });
        let on_air = if has_camera {
            kind == SourceKind::Camera
        } else {
            true
        };
        if on_air
            && self
                .legs
                .get(&leg_id)
                .is_some_and(|leg| leg.state == LegState::Joining)
        {
            self.set_state(leg_id, LegState::OnAir);
        }
        for layer in 0..layers {
            self.apply_pause(now, id, layer);
        }
    }
}

impl LinkWire {
    fn request_key_frame(&mut self, source: usize, layer: usize) {
        let Some(flow) = self.flow(source, layer) else {
            return;
        };
        self.tell(link_down::Message::KeyFrame(KeyFrameRequest { flow }));
    }

    fn pause(&mut self, source: usize, layer: usize, paused: bool) {
        let Some(flow) = self.flow(source, layer) else {
            return;
        };
        self.tell(link_down::Message::LayerPause(LayerPause { flow, paused }));
    }

    fn flow(&self, source: usize, layer: usize) -> Option<u64> {
        self.flows
            .iter()
            .find(|up| up.source == source && up.layer == layer)
            .map(|up| up.flow)
    }

    /// A peer that does not read its control stream is of no use: the link is closed, its task takes the leg out.
    pub fn tell(&self, message: link_down::Message) {
        if let Err(error) = self.sender.try_send_control(&LinkDown {
            message: Some(message),
        }) && !self.sender.is_closed()
        {
            tracing::warn!(%error, peer = %self.sender.peer_address(), "link closed");
            self.sender.close("control stream is not read");
        }
    }
}

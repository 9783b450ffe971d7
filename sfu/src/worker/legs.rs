//! Legs come and go on a worker: joining, leaving, views and watchers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use muster_forward::quality::Meter;
use muster_forward::{Codec, LayerSpec, LegId, SlotSpec, SourceId, SourceKind, SourceSpec, Wish, WishWhat};
use muster_identity::{JoinClaims, View};
use muster_proto::command::v1::{LegState, StageDocument};
use muster_proto::media::v1::{self as wire, SlotWish, slot_wish};
use muster_webrtc::{IceCredentials, Leg, LegConfig, host_candidates};

use crate::convert;
use crate::directory::NewLeg;
use crate::refusal::Refusal;
use crate::watch::{self, Post, Watch};

use super::state::{
    Home, LayerPlace, LegEntry, MeetingKey, Shared, SlotEntry, SourcePlace, WebRtcWire, Wire, Worker,
};
use super::sync::notice;
use super::table::SlotPlace;

/// Wishes in one view: more than any wall has tiles.
const MAX_WISHES: usize = 512;
/// Watchers of one leg; the oldest goes.
const MAX_WATCHERS: usize = 4;

/// A leg that was opened for a browser.
#[derive(Debug)]
pub(crate) struct Opened {
    pub name: String,
    pub answer: String,
    pub ufrag: String,
}

/// What an offer must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Whatever the token allows; slots are filled as the leg wishes.
    Meet,
    /// At least one source (WHIP).
    Publish,
    /// At least one slot (WHEP); video slots show the publishers in the order they came.
    View(Size),
}

/// The box that pictures are shown in, in pixels; 0 leaves a side open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub width: u16,
    pub height: u16,
}

/// A browser's leg that is in no meeting yet: what its offer came to.
pub(crate) struct Accepted {
    leg: Leg,
    answer: String,
    purpose: Purpose,
}

impl Accepted {
    /// Reads an offer for the worker that browsers reach at `candidate`. It takes as long as sending hundreds of packets, so
    /// it is nothing for a worker's thread.
    pub fn read(
        shared: &Shared,
        (candidate, tcp_candidate): (SocketAddr, Option<SocketAddr>),
        claims: &JoinClaims,
        offer: &str,
        purpose: Purpose,
    ) -> Result<Self, Refusal> {
        shared.directory.may_join(claims)?;
        let mut config = LegConfig::new(candidate, shared.certificate.clone(), rand::random());
        config.tcp_candidate = tcp_candidate;
        config.views_only = matches!(purpose, Purpose::View(_));
        let (leg, answer) = Leg::accept(Instant::now(), offer, &config).map_err(|error| {
            // What is wrong with the offer as a whole is no mistake in a line: it reads well, but asks for what we have not.
            let status = if error.line == 0 { 422 } else { 400 };
            Refusal::new(status, "bad_offer", error.to_string())
        })?;
        purpose.check(&leg)?;
        Ok(Self { leg, answer, purpose })
    }
}

/// The username fragments of the current ICE session.
#[derive(Debug)]
pub(crate) struct IceSession {
    pub ufrag: String,
    pub remote_ufrag: String,
}

/// After an ICE restart: what the peer must know of us.
#[derive(Debug)]
pub(crate) struct Restarted {
    pub credentials: IceCredentials,
    /// Values of `a=candidate`, best first.
    pub candidates: Vec<String>,
}

/// A slot that a leg brings.
pub(super) struct JoiningSlot {
    pub name: String,
    pub audio: bool,
    pub codecs: Vec<Codec>,
    /// It takes the dependency descriptors of AV1.
    pub descriptors: bool,
}

/// What a leg brings, whatever it is made of.
pub(super) struct Joining {
    pub claims: JoinClaims,
    /// SHA-256 of the leg's secret; empty for a link.
    pub secret: String,
    pub sources: Vec<(SourceKind, Codec, Vec<LayerSpec>)>,
    pub slots: Vec<JoiningSlot>,
    pub wire: Wire,
}

impl Worker {
    /// Opens a leg for a browser.
    pub fn open_webrtc(
        &mut self,
        claims: JoinClaims,
        secret: String,
        accepted: Accepted,
    ) -> Result<Opened, Refusal> {
        let Accepted { leg, answer, purpose } = accepted;
        let ufrag = leg.local_ufrag().to_owned();
        let layers = |count: usize| vec![LayerSpec::default(); count];
        let sources = leg
            .sources()
            .iter()
            .map(|s| {
                (
                    convert::kind_of_leg(s.kind),
                    convert::codec_of_leg(s.codec),
                    layers(s.layers()),
                )
            })
            .collect();
        let slots = leg
            .slots()
            .iter()
            .map(|s| JoiningSlot {
                name: s.mid.clone(),
                audio: s.audio,
                codecs: s.codecs.iter().copied().map(convert::codec_of_leg).collect(),
                descriptors: s.descriptors,
            })
            .collect();
        let wire = WebRtcWire {
            leg,
            addresses: Vec::new(),
            ufrags: vec![ufrag.clone()],
            handshakes: 0,
            drops_counted: (0, 0),
        };
        let joining = Joining {
            claims,
            secret,
            sources,
            slots,
            wire: Wire::WebRtc(Box::new(wire)),
        };
        let (id, name) = self.open(joining)?;
        self.by_ufrag.insert(ufrag.clone(), id);
        if let Purpose::View(size) = purpose {
            self.start_following(Instant::now(), id, size);
        }
        self.touch(id);
        Ok(Opened {
            name: name.to_string(),
            answer,
            ufrag,
        })
    }

    /// Enters a leg into its meeting, which opens if this is its first.
    pub(super) fn open(&mut self, joining: Joining) -> Result<(LegId, Arc<str>), Refusal> {
        let now = Instant::now();
        let Joining {
            claims,
            secret,
            sources,
            slots,
            wire,
        } = joining;
        let shared = self.shared.clone();
        let id = LegId(shared.directory.next_id());
        let name: Arc<str> = muster_identity::random_secret().into();
        let (meeting, site): (Arc<str>, Arc<str>) =
            (claims.meeting.as_str().into(), claims.site.as_str().into());
        let offered: Vec<(bool, SourceSpec)> = sources
            .into_iter()
            .map(|(kind, codec, layers)| {
                let spec = SourceSpec {
                    id: SourceId(shared.directory.next_id()),
                    leg: id,
                    site: site.clone(),
                    kind,
                    codec,
                    layers,
                };
                (claims.may_publish(convert::track_of(kind)), spec)
            })
            .collect();
        let granted = || {
            offered
                .iter()
                .filter(|(granted, _)| *granted)
                .map(|(_, spec)| spec)
        };
        if granted().count() < offered.len() {
            shared.metrics.refused("source_not_granted");
        }
        shared.directory.enter(NewLeg {
            id,
            name: name.clone(),
            meeting: meeting.clone(),
            site: site.clone(),
            worker: self.index,
            secret,
            sources: granted().cloned().collect(),
        })?;
        let is_first = !self.meeting_keys.contains_key(&meeting);
        let key = self.open_meeting(&meeting);
        let link = matches!(wire, Wire::Link(_));
        let slots = self.add_slots(now, key, (id, link), &site, slots);
        for (index, (_, spec)) in offered.iter().enumerate().filter(|(_, (granted, _))| *granted) {
            let relay = shared.directory.relay().clone();
            self.add_source(now, key, Home::Here { leg: id, index }, spec.clone(), relay);
        }
        // What is not granted keeps its place, since packets come by it, under an id that nothing knows.
        let sources = match granted().next() {
            Some(_) => offered.iter().map(|(_, spec)| spec.id).collect(),
            None => Vec::new(),
        };
        let known = self.meetings.get(&key).and_then(|meeting| meeting.stage.clone());
        let notice = known
            .map(|stage| notice(&stage, &site, false))
            .unwrap_or_default();
        let entry = LegEntry {
            id,
            name: name.clone(),
            meeting: key,
            site,
            view: claims.view,
            wire,
            sources,
            slots,
            state: LegState::Joining,
            media_at: now,
            notice,
            waiting_view: None,
            follows: None,
            posts: Vec::new(),
            meter: Meter::default(),
            dirty: false,
            turn_at: None,
        };
        let entry_kind = self.kind_gauge(&entry.wire).clone();
        self.legs.insert(id, entry);
        shared.metrics.joins.increment(1);
        entry_kind.increment(1.0);
        tracing::info!(%meeting, site = %claims.site, leg = %name, worker = self.index, "leg opened");
        if is_first {
            self.sync(now, &meeting);
        } else {
            self.drain_core(now, key);
        }
        Ok((id, name))
    }

    /// Counts the legs of this kind.
    fn kind_gauge(&self, wire: &Wire) -> &metrics::Gauge {
        match wire {
            Wire::WebRtc(_) => &self.shared.metrics.legs_webrtc,
            Wire::Link(_) => &self.shared.metrics.legs_link,
        }
    }

    fn add_slots(
        &mut self,
        now: Instant,
        key: MeetingKey,
        (leg, link): (LegId, bool),
        site: &Arc<str>,
        slots: Vec<JoiningSlot>,
    ) -> Vec<SlotEntry> {
        let at = self.shared.micros(now);
        let index_of_leg = self.legs.next_index();
        let Some(meeting) = self.meetings.get_mut(&key) else {
            return Vec::new();
        };
        meeting.legs.push(leg);
        let mut entries = Vec::with_capacity(slots.len());
        for (index, slot) in slots.into_iter().enumerate() {
            let (name, audio) = (slot.name, slot.audio);
            let place = SlotPlace {
                leg: index_of_leg,
                index,
                link,
            };
            let id = place.id();
            let spec = SlotSpec {
                id,
                leg,
                site: site.clone(),
                audio,
                codecs: slot.codecs,
                descriptors: slot.descriptors,
                seed: rand::random(),
            };
            meeting.core.add_slot(at, spec);
            entries.push(SlotEntry {
                id,
                name,
                audio,
                bytes: 0,
                bitrate_bps: 0,
            });
        }
        entries
    }

    /// `relay` is the one that has its leg.
    pub(super) fn add_source(
        &mut self,
        now: Instant,
        key: MeetingKey,
        home: Home,
        spec: SourceSpec,
        relay: Arc<str>,
    ) {
        let Some(meeting) = self.meetings.get_mut(&key) else {
            return;
        };
        let layers = spec.layers.len().max(1);
        let place = SourcePlace {
            meeting: key,
            home,
            site: spec.site.clone(),
            relay,
            kind: spec.kind,
            codec: spec.codec,
            layers: vec![LayerPlace::default(); layers],
            sizes: spec.layers.clone(),
        };
        let id = spec.id;
        self.sources.insert(id, place);
        meeting.core.add_source(self.shared.micros(now), spec);
        if let Home::Worker(_) = home {
            meeting.remote.push(id);
        }
        if !matches!(home, Home::Here { .. }) {
            // Nothing comes until it is wished for: that is no silence.
            for layer in 0..layers {
                meeting.core.set_paused(id, layer, true);
            }
        }
    }

    /// Ends a leg: says goodbye to the peer and takes it out.
    pub fn close(&mut self, id: LegId, reason: &str) {
        let now = Instant::now();
        match self.legs.get_mut(&id).map(|leg| &mut leg.wire) {
            Some(Wire::WebRtc(wire)) => wire.leg.close(now),
            // After the meeting the link stays, warm for the next one.
            Some(Wire::Link(wire)) if reason != "ended" && reason != "hung up" => wire.sender.close(reason),
            Some(Wire::Link(_)) | None => {}
        }
        if let Some(LegEntry {
            wire: Wire::WebRtc(wire),
            ..
        }) = self.legs.get_mut(&id)
        {
            while let Some(transmit) = wire.leg.poll_transmit() {
                self.socket
                    .send(transmit.to, &transmit.data, &[transmit.data.len()]);
            }
        }
        self.remove(id, reason);
    }

    /// Takes a leg out that is gone already.
    pub fn remove(&mut self, id: LegId, reason: &str) {
        let now = Instant::now();
        let Some(leg) = self.legs.remove(&id) else { return };
        for source in leg.sources.iter() {
            self.sources.remove(source);
        }
        if let Wire::WebRtc(wire) = &leg.wire {
            for address in &wire.addresses {
                if self.by_address.get(address) == Some(&id) {
                    self.by_address.remove(address);
                }
            }
            for ufrag in &wire.ufrags {
                self.by_ufrag.remove(ufrag);
            }
        }
        self.kind_gauge(&leg.wire).decrement(1.0);
        let key = leg.meeting;
        let Some(meeting) = self.meetings.get_mut(&key) else {
            return;
        };
        let name = meeting.name.clone();
        meeting.legs.retain(|&other| other != id);
        meeting.core.remove_leg(self.shared.micros(now), id);
        tracing::info!(meeting = %name, site = %leg.site, leg = %leg.name, reason, "leg closed");
        self.drain_core(now, key);
        self.shared.directory.leave(&name, id, reason);
        self.close_if_idle(key);
    }

    /// Takes the whole wish of a leg.
    pub fn set_view(&mut self, id: LegId, wishes: &[SlotWish]) -> Result<(), Refusal> {
        let now = Instant::now();
        let leg = self.legs.get(&id).ok_or_else(Refusal::no_such_leg)?;
        let stage = self
            .meetings
            .get(&leg.meeting)
            .and_then(|meeting| meeting.stage.clone());
        if wishes.len() > MAX_WISHES {
            return Err(Refusal::bad_request(format!(
                "wishes: {} of them, expected at most {MAX_WISHES}",
                wishes.len()
            )));
        }
        let wishes = wishes
            .iter()
            .filter_map(|wish| leg.wish(wish, stage.as_deref()).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let leg = self.legs.get_mut(&id).ok_or_else(Refusal::no_such_leg)?;
        leg.follows = None;
        if matches!(&leg.wire, Wire::WebRtc(wire) if !wire.leg.is_connected()) {
            leg.waiting_view = Some(wishes);
        } else {
            self.apply_view(now, id, wishes);
            self.flush(now);
        }
        Ok(())
    }

    pub(super) fn apply_view(&mut self, now: Instant, id: LegId, wishes: Vec<Wish>) {
        let Some(key) = self.legs.get(&id).map(|leg| leg.meeting) else {
            return;
        };
        let at = self.shared.micros(now);
        if let Some(meeting) = self.meetings.get_mut(&key) {
            meeting.core.set_wishes(at, id, wishes);
        }
        self.drain_core(now, key);
    }

    /// A new watcher of a leg: it gets the full state first.
    pub fn watch(&mut self, id: LegId) -> Option<Watch> {
        let leg = self.legs.get_mut(&id)?;
        let meeting = self.meetings.get(&leg.meeting)?;
        let (post, watch) = watch::pair();
        for (index, slot) in leg.slots.iter().enumerate() {
            if let Some(state) = meeting.core.slot_state(slot.id) {
                post.slot(index, convert::slot_state(&slot.name, state, slot.bitrate_bps));
            }
        }
        post.speakers(meeting.speakers.clone());
        post.notice(leg.notice.clone());
        leg.posts.retain(|post: &Post| !post.is_abandoned());
        if leg.posts.len() >= MAX_WATCHERS {
            leg.posts.remove(0);
        }
        leg.posts.push(post);
        Some(watch)
    }

    /// The newest username fragments; `None` for a link.
    pub fn ice_session(&self, id: LegId) -> Option<IceSession> {
        match &self.legs.get(&id)?.wire {
            Wire::WebRtc(wire) => Some(IceSession {
                ufrag: wire.leg.local_ufrag().to_owned(),
                remote_ufrag: wire.leg.remote_ufrag().to_owned(),
            }),
            Wire::Link(_) => None,
        }
    }

    /// ICE restart of a browser's leg.
    pub fn restart_ice(&mut self, id: LegId, ufrag: &str) -> Option<Restarted> {
        let LegEntry {
            wire: Wire::WebRtc(wire),
            ..
        } = self.legs.get_mut(&id)?
        else {
            return None;
        };
        let ours = wire.leg.restart_ice(ufrag);
        // The old ones serve until the new are used; older ones are of no use.
        while wire.ufrags.len() >= 2 {
            self.by_ufrag.remove(&wire.ufrags.remove(0));
        }
        wire.ufrags.push(ours.ufrag.clone());
        self.by_ufrag.insert(ours.ufrag.clone(), id);
        Some(Restarted {
            credentials: ours,
            candidates: host_candidates(self.candidate, self.tcp_candidate).collect(),
        })
    }
}

impl Purpose {
    fn check(self, leg: &Leg) -> Result<(), Refusal> {
        let (fits, expected) = match self {
            Purpose::Meet => (true, ""),
            Purpose::Publish => (
                !leg.sources().is_empty(),
                "expected a sendonly audio or video m-line: nothing else can be published",
            ),
            Purpose::View(_) => (
                !leg.slots().is_empty(),
                "expected a recvonly audio or video m-line: nothing else can be viewed",
            ),
        };
        if fits {
            Ok(())
        } else {
            Err(Refusal::new(422, "bad_offer", expected))
        }
    }
}

impl LegEntry {
    /// A wish in the core's words; `None` for a slot that is to be empty.
    fn wish(&self, wish: &SlotWish, stage: Option<&StageDocument>) -> Result<Option<Wish>, Refusal> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.name == wish.slot)
            .ok_or_else(|| {
                Refusal::bad_request(format!("slot `{}` is none of this leg's", printable(&wish.slot)))
            })?;
        if slot.audio {
            let message = format!(
                "slot `{}` is for sound: the relay fills it, no wish is taken",
                slot.name
            );
            return Err(Refusal::bad_request(message));
        }
        let what = match &wish.what {
            None => return Ok(None),
            Some(slot_wish::What::Stage(stage)) => match stage.kind() {
                wire::SourceKind::Unspecified | wire::SourceKind::Camera => WishWhat::Stage,
                wire::SourceKind::Content => WishWhat::Content,
                wire::SourceKind::Audio => {
                    return Err(Refusal::bad_request("stage.kind: expected CAMERA or CONTENT"));
                }
            },
            Some(slot_wish::What::Source(source)) if !self.may_view(&source.site, stage) => {
                return Err(Refusal::new(
                    403,
                    "view_not_granted",
                    format!(
                        "slot `{}`: the join token grants the stage, not any site",
                        slot.name
                    ),
                ));
            }
            Some(slot_wish::What::Source(source)) => WishWhat::Source {
                site: source.site.as_str().into(),
                kind: convert::kind_of_wire(source.kind)
                    .filter(|&kind| kind != SourceKind::Audio)
                    .ok_or_else(|| Refusal::bad_request("source.kind: expected CAMERA or CONTENT"))?,
            },
        };
        let pixels = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
        Ok(Some(Wish {
            slot: slot.id,
            what,
            max_width: pixels(wish.max_width),
            max_height: pixels(wish.max_height),
        }))
    }
}

impl LegEntry {
    /// Whether the token grants this site's pictures; what the stage names everyone may see.
    fn may_view(&self, site: &str, stage: Option<&StageDocument>) -> bool {
        let on_stage = |stage: &StageDocument| {
            [&stage.broadcast_site, &stage.content_site, &stage.chair].contains(&&site.to_owned())
        };
        self.view == View::All || stage.is_some_and(on_stage)
    }
}

/// The beginning of a foreign text, for an error message.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(32).collect()
}

//! The forwarding state of one meeting on one worker: its registers, and what the shell calls.
//!
//! Invariants: every key held anywhere is of a living source or slot; `names` has one source of each site and
//! kind, the newest until it leaves; after each call all slots are mapped as wishes, stage and sources stand (`mapping`), and what has changed
//! is in the queue (`telling`). The packet path is in `forwarding`, time in `timing`. Memory is bounded by the number
//! of sources and slots.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::allocation::Ask;
use crate::audio::AudioSelector;
use crate::budget::Budget;
use crate::event::{SlotReason, SlotState};
use crate::index::SourceIndex;
use crate::lane::Lane;
use crate::slab::Slab;
use crate::slot::Slot;
use crate::source::{SlotKey, Source, SourceKey};
use crate::stage::StageState;
use crate::telling::News;
use crate::types::{
    Codec, Forwarded, LegId, Micros, Replayed, SlotId, SlotSpec, SourceId, SourceKind, SourceSpec, Wish,
};

/// The forwarding state of one meeting on one worker: its slots are local, its sources local or of other workers.
#[derive(Debug, Default)]
pub struct Meeting {
    /// The latest time that was told.
    pub(crate) now: Micros,
    pub(crate) sources: Slab<Source>,
    pub(crate) slots: Slab<Slot>,
    /// The hot halves of the slots, by the same keys; one without a slot is clear.
    pub(crate) lanes: Vec<Lane>,
    pub(crate) source_keys: SourceIndex,
    pub(crate) slot_keys: BTreeMap<SlotId, SlotKey>,
    pub(crate) names: BTreeMap<(Arc<str>, SourceKind), SourceKey>,
    pub(crate) legs: BTreeMap<LegId, LegSlots>,
    pub(crate) audio_slots: usize,
    pub(crate) stage: StageState,
    pub(crate) selector: AudioSelector,
    pub(crate) news: VecDeque<News>,
    pub(crate) speakers_queued: bool,
    pub(crate) speakers_told: Vec<Arc<str>>,
    pub(crate) active_queued: bool,
    pub(crate) active_told: Option<Arc<str>>,
    /// When the video state must be looked at again.
    pub(crate) look_at: Option<Micros>,
    /// Legs to share a budget over before the present call returns; any number of times in it.
    pub(crate) unsettled: Vec<LegId>,
    /// When the next leg's budget must be looked at.
    pub(crate) budgets_at: Option<Micros>,
    /// Kept for its capacity.
    pub(crate) asks: Vec<Ask>,
    /// Slots to settle after a packet; kept for its capacity.
    pub(crate) touched: Vec<SlotKey>,
    /// Copies of earlier packets, to be taken by the shell.
    pub(crate) replays: Vec<Replayed>,
    /// Kept for its capacity.
    pub(crate) copies: Vec<Forwarded>,
}

/// The slots of a leg.
#[derive(Debug)]
pub(crate) struct LegSlots {
    pub site: Arc<str>,
    pub all: Vec<SlotKey>,
    /// Those of `all` that can play Opus.
    pub audio: Vec<SlotKey>,
    pub budget: Budget,
}

impl Meeting {
    pub fn new() -> Self {
        Self::default()
    }

    /// What is in the slot now, told or not; `None` for an unknown slot.
    pub fn slot_state(&self, slot: SlotId) -> Option<&SlotState> {
        Some(&self.slots.get(*self.slot_keys.get(&slot)?)?.state)
    }

    /// Adds a source; one with the same id is replaced. Nothing of it counts as wanted until an event says so. A later source of the same site and kind takes the place of
    /// the earlier one in all slots.
    pub fn add_source(&mut self, now: Micros, spec: SourceSpec) {
        let now = self.advance(now);
        if self.source_keys.get(spec.id).is_some() {
            self.remove_source(now, spec.id);
        }
        let id = spec.id;
        let mut source = Source::new(now, spec);
        let audio = source.kind == SourceKind::Audio && source.codec == Codec::Opus;
        source.muted = audio && self.stage.is_muted(&source.site);
        let (name, muted) = ((source.site.clone(), source.kind), source.muted);
        let key = self.sources.insert(source);
        self.source_keys.insert(id, key);
        self.names.insert(name.clone(), key);
        if audio {
            self.selector.add(key, muted);
            self.want_audio(key);
        }
        self.remap_where(now, |slot| slot.name.as_ref() == Some(&name));
        self.follow_voice(now);
        self.finish(now);
    }

    /// Its slots become absent, or go to another source of the same name.
    pub fn remove_source(&mut self, now: Micros, id: SourceId) {
        let now = self.advance(now);
        let Some(key) = self.source_keys.remove(id) else {
            return;
        };
        let Some(source) = self.sources.remove(key) else {
            return;
        };
        let name = (source.site.clone(), source.kind);
        if self.names.get(&name) == Some(&key) {
            self.names.remove(&name);
            let same_name = |other: &Source| other.kind == name.1 && other.site == name.0;
            let heir = self
                .sources
                .iter()
                .filter(|(_, other)| same_name(other))
                .map(|(key, _)| key)
                .last();
            if let Some(heir) = heir {
                self.names.insert(name.clone(), heir);
            }
        }
        self.forget_news_of_source(key);
        self.release_source(now, key);
        if source.kind == SourceKind::Audio {
            self.selector.remove(key);
            self.select_voices(now);
        }
        self.follow_voice(now);
        self.finish(now);
    }

    /// The size of a layer as the shell learnt it, in pixels. Key frames tell it too.
    pub fn set_layer_size(&mut self, source: SourceId, layer: usize, width: u16, height: u16) {
        let Some(key) = self.source_keys.get(source) else {
            return;
        };
        let Some(known) = self
            .sources
            .get_mut(key)
            .and_then(|source| source.layers.get_mut(layer))
        else {
            return;
        };
        if (known.width, known.height) != (width, height) {
            (known.width, known.height) = (width, height);
            self.refit(self.now, key);
            self.finish(self.now);
        }
    }

    /// Whether the shell has told the publisher to send nothing of this layer. A paused layer is not stale.
    /// It counts as done at the time that was told last, by a packet or by [`Meeting::handle_timeout`].
    pub fn set_paused(&mut self, source: SourceId, layer: usize, paused: bool) {
        let now = self.now;
        let Some(key) = self.source_keys.get(source) else {
            return;
        };
        let Some(known) = self
            .sources
            .get_mut(key)
            .and_then(|source| source.layers.get_mut(layer))
        else {
            return;
        };
        if known.paused == paused {
            return;
        }
        known.paused = paused;
        if !paused {
            known.expected_since = now;
            known.resumed_at = now;
        }
        self.refit(now, key);
        self.finish(now);
    }

    /// Adds a slot; one with the same id is replaced. It is empty until wishes come, or voices for an audio slot.
    pub fn add_slot(&mut self, now: Micros, spec: SlotSpec) {
        let now = self.advance(now);
        if let Some(&key) = self.slot_keys.get(&spec.id) {
            self.drop_slot(now, key);
        }
        let (id, leg, site, audio) = (spec.id, spec.leg, spec.site.clone(), spec.audio);
        let plays = audio && spec.codecs.contains(&Codec::Opus);
        let lane = Lane::new(id, audio, spec.seed);
        let key = self.slots.insert(Slot::new(spec));
        match self.lanes.get_mut(key) {
            Some(old) => *old = lane,
            None => self.lanes.push(lane),
        }
        self.slot_keys.insert(id, key);
        let of_leg = self.legs.entry(leg).or_insert_with(|| LegSlots {
            site,
            all: Vec::new(),
            audio: Vec::new(),
            budget: Budget::default(),
        });
        of_leg.all.push(key);
        if plays {
            of_leg.audio.push(key);
            self.count_audio_slots(1);
            self.assign_voices_of(now, leg);
        } else if audio {
            self.refuse(now, key, SlotReason::CodecNotSupported);
        }
        self.finish(now);
    }

    /// Removes the leg's slots and sources.
    pub fn remove_leg(&mut self, now: Micros, leg: LegId) {
        let now = self.advance(now);
        while let Some(&key) = self.legs.get(&leg).and_then(|of_leg| of_leg.all.last()) {
            self.drop_slot(now, key);
        }
        let sources: Vec<SourceId> = self
            .sources
            .iter()
            .filter(|(_, source)| source.leg == leg)
            .map(|(_, source)| source.id)
            .collect();
        for id in sources {
            self.remove_source(now, id);
        }
        self.finish(now);
    }

    /// The whole wish of a leg: its video slots that are not named are emptied. Of two wishes for a slot the last
    /// counts; wishes for slots of other legs, and for audio slots, are ignored.
    pub fn set_wishes(&mut self, now: Micros, leg: LegId, wishes: Vec<Wish>) {
        let now = self.advance(now);
        let Some(of_leg) = self.legs.get(&leg) else { return };
        let mut wished: BTreeMap<SlotId, Wish> = wishes.into_iter().map(|wish| (wish.slot, wish)).collect();
        let keys = of_leg.all.clone();
        for key in keys {
            let Some(slot) = self.slots.get_mut(key).filter(|slot| !slot.audio) else {
                continue;
            };
            let wish = wished.remove(&slot.id);
            if slot.wish != wish {
                slot.wish = wish;
                self.remap(now, key);
            }
        }
        self.finish(now);
    }

    /// A viewer's PLI or FIR: asks the publisher of what the slot shows, or waits for.
    pub fn request_key_frame(&mut self, now: Micros, slot: SlotId) {
        let now = self.advance(now);
        let Some(&key) = self.slot_keys.get(&slot) else {
            return;
        };
        if self.slots.get(key).is_none_or(|slot| slot.audio) {
            return;
        }
        let lane = &self.lanes[key];
        if let Some(feed) = lane.target().or(lane.current()) {
            self.want_key_frame(now, feed);
        }
    }

    /// Time never goes back here, whatever the caller's clock does.
    pub(crate) fn advance(&mut self, now: Micros) -> Micros {
        self.now = self.now.max(now);
        self.now
    }

    fn drop_slot(&mut self, now: Micros, key: SlotKey) {
        self.unbind(now, key);
        self.forget_news_of_slot(key);
        let Some(slot) = self.slots.remove(key) else {
            return;
        };
        self.slot_keys.remove(&slot.id);
        let Some(of_leg) = self.legs.get_mut(&slot.leg) else {
            return;
        };
        of_leg.all.retain(|&other| other != key);
        let players = of_leg.audio.len();
        of_leg.audio.retain(|&other| other != key);
        let played = of_leg.audio.len() < players;
        if of_leg.all.is_empty() {
            self.legs.remove(&slot.leg);
        }
        if played {
            self.count_audio_slots(-1);
            self.assign_voices_of(now, slot.leg);
        }
    }

    fn count_audio_slots(&mut self, by: isize) {
        let before = self.audio_slots;
        self.audio_slots = before.saturating_add_signed(by);
        if (before == 0) == (self.audio_slots == 0) {
            return;
        }
        for key in 0..self.sources.bound() {
            if self
                .sources
                .get(key)
                .is_some_and(|source| source.kind == SourceKind::Audio)
            {
                self.want_audio(key);
            }
        }
    }
}

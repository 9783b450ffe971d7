//! From wishes, stage and voices to what each slot is bound to.
//!
//! `remap` resolves one slot afresh and is safe to call at any time; `settle` brings subscriptions and the told state
//! in line with the slot. All of it is seldom: at wishes, stages, joins, leaves and finished switches.

use crate::audio::HEARD;
use crate::event::{SlotReason, SlotState, SlotStatus};
use crate::lane::Cap;
use crate::meeting::{LegSlots, Meeting};
use crate::slot::{Bound, Feed, Slot, age_ms};
use crate::source::{SlotKey, SourceKey};
use crate::types::{LegId, Micros, SourceId, SourceKind, WishWhat};

impl Meeting {
    /// Resolves the wish of a video slot and binds it.
    pub(crate) fn remap(&mut self, now: Micros, key: SlotKey) {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| !slot.audio) else {
            return;
        };
        let name = match slot.wish.as_ref().map(|wish| &wish.what) {
            None => None,
            Some(WishWhat::Source { site, kind }) => Some((site.clone(), *kind)),
            Some(WishWhat::Stage) => self
                .stage
                .showing()
                .map(|site| (site.clone(), SourceKind::Camera)),
            Some(WishWhat::Content) => self
                .stage
                .content()
                .map(|site| (site.clone(), SourceKind::Content)),
        };
        if slot.name != name {
            slot.name = name;
            slot.was_bound = false;
        }
        let Some(name) = &slot.name else {
            self.unbind(now, key);
            return self.set_state(key, SlotState::EMPTY);
        };
        match self.names.get(name) {
            Some(&source) => self.bind_picture(now, key, source),
            None => self.miss(now, key),
        }
    }

    /// The source that the slot is to show is not there, or no longer.
    fn miss(&mut self, now: Micros, key: SlotKey) {
        let Some(slot) = self.slots.get(key) else { return };
        let (reason, age_ms) = if slot.was_bound {
            (SlotReason::LegLeft, age_ms(&self.lanes[key], now))
        } else {
            (SlotReason::UnknownSource, 0)
        };
        let state = SlotState {
            status: SlotStatus::Absent,
            source: slot.name.clone(),
            reason: Some(reason),
            age_ms,
            ..SlotState::EMPTY
        };
        self.unbind(now, key);
        self.set_state(key, state);
    }

    /// Binds a video slot to the source, or refuses; the allocation decides what of it is shown.
    fn bind_picture(&mut self, now: Micros, key: SlotKey, source_key: SourceKey) {
        let (Some(slot), Some(source)) = (self.slots.get_mut(key), self.sources.get(source_key)) else {
            return;
        };
        slot.was_bound = true;
        if !slot.codecs.contains(&source.codec) {
            self.unbind(now, key);
            return self.refuse(now, key, SlotReason::CodecNotSupported);
        }
        let (width, height) = slot
            .wish
            .as_ref()
            .map_or((0, 0), |wish| (wish.max_width, wish.max_height));
        let fitting = source.fitting(width, height);
        let most = source.layers[fitting].fitting(width, height);
        let wished = Bound::new(source_key, fitting, most);
        let same = |bound: &Bound| (bound.source, bound.fitting, bound.most) == (source_key, fitting, most);
        if !slot.bound.as_ref().is_some_and(same) {
            slot.bound = Some(wished);
        }
        let leg = slot.leg;
        self.reallocate(leg);
    }

    pub(crate) fn remap_where(&mut self, now: Micros, which: impl Fn(&Slot) -> bool) {
        for key in 0..self.slots.bound() {
            if self.slots.get(key).is_some_and(&which) {
                self.remap(now, key);
            }
        }
    }

    /// Sizes or layers of a source have changed.
    pub(crate) fn refit(&mut self, now: Micros, source: SourceKey) {
        self.remap_where(now, |slot| slot.bound.is_some_and(|bound| bound.source == source));
    }

    /// Shows nothing in the slot, and lets go of its layers.
    pub(crate) fn unbind(&mut self, now: Micros, key: SlotKey) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.bound = None;
            self.lanes[key].clear();
        }
        self.subscribe(now, key);
    }

    pub(crate) fn refuse(&mut self, _now: Micros, key: SlotKey, reason: SlotReason) {
        let Some(slot) = self.slots.get(key) else { return };
        let source_key = slot.name.as_ref().and_then(|name| self.names.get(name));
        let codec = source_key
            .and_then(|&source| self.sources.get(source))
            .map(|source| source.codec);
        let (status, source) = (SlotStatus::Refused, slot.name.clone());
        self.set_state(
            key,
            SlotState {
                status,
                source,
                reason: Some(reason),
                codec,
                ..SlotState::EMPTY
            },
        );
    }

    /// Brings subscriptions and state of a bound slot in line with it.
    pub(crate) fn settle(&mut self, now: Micros, key: SlotKey) {
        self.subscribe(now, key);
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let Some(source) = slot.bound.and_then(|bound| self.sources.get(bound.source)) else {
            return;
        };
        let state = slot.bound_state(now, &self.lanes[key], source);
        let audio = slot.audio;
        self.set_state(key, state);
        if !audio {
            self.look_by(now.plus(crate::source::SILENT_US));
        }
    }

    /// Makes the lists of subscribers say what the slot needs.
    fn subscribe(&mut self, now: Micros, key: SlotKey) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let needs = slot.needs(&self.lanes[key]);
        let had = std::mem::replace(&mut slot.subscriptions, needs);
        for feed in needs
            .into_iter()
            .flatten()
            .filter(|feed| !had.contains(&Some(*feed)))
        {
            let Some(layer) = self.layer_mut(feed) else {
                continue;
            };
            if layer.subscribers.is_empty() {
                layer.expected_since = now;
            }
            layer.subscribers.push(key);
            self.want_layer(feed);
        }
        for feed in had
            .into_iter()
            .flatten()
            .filter(|feed| !needs.contains(&Some(*feed)))
        {
            let Some(layer) = self.layer_mut(feed) else {
                continue;
            };
            layer.subscribers.retain(|&other| other != key);
            if layer.subscribers.is_empty() {
                layer.throttle.satisfy();
                if now >= layer.silent_from() {
                    layer.gave_up_at = Some(now);
                }
            }
            self.want_layer(feed);
        }
    }

    fn layer_mut(&mut self, feed: Feed) -> Option<&mut crate::source::Layer> {
        self.sources.get_mut(feed.source)?.layers.get_mut(feed.layer)
    }

    /// Tells whether a video layer is wanted: while anyone subscribes.
    fn want_layer(&mut self, feed: Feed) {
        let Some(source) = self
            .sources
            .get_mut(feed.source)
            .filter(|s| s.kind != SourceKind::Audio)
        else {
            return;
        };
        let layer = &mut source.layers[feed.layer];
        layer.news.wanted = !layer.subscribers.is_empty();
        self.tell_layer(feed);
    }

    /// Sound is wanted while anybody here can hear, since the loudest are chosen here, and while the stage follows it.
    pub(crate) fn want_audio(&mut self, key: SourceKey) {
        let wanted = self.audio_slots > 0 || self.stage.follows_voice();
        let feed = Feed {
            source: key,
            layer: 0,
        };
        if let Some(layer) = self.layer_mut(feed) {
            layer.news.wanted = wanted;
            self.tell_layer(feed);
        }
    }

    /// Every slot lets go of a source that is gone.
    pub(crate) fn release_source(&mut self, now: Micros, gone: SourceKey) {
        for key in 0..self.slots.bound() {
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            if !slot
                .subscriptions
                .iter()
                .flatten()
                .any(|feed| feed.source == gone)
            {
                continue;
            }
            for subscription in &mut slot.subscriptions {
                *subscription = subscription.filter(|feed| feed.source != gone);
            }
            self.lanes[key].forget(|feed| feed.source == gone);
            slot.bound = slot.bound.filter(|bound| bound.source != gone);
            if slot.audio {
                self.unbind(now, key);
                self.empty_audio(key);
            } else {
                self.remap(now, key);
            }
        }
    }

    /// Selects voices now, and gives them to the slots.
    pub(crate) fn select_voices(&mut self, now: Micros) {
        let changes = self.selector.select(now);
        if changes.heard {
            self.assign_voices(now);
        }
        if changes.speakers {
            self.tell_speakers();
        }
        if changes.active {
            self.tell_active_speaker();
            self.follow_voice(now);
        }
    }

    /// Whether the source's sound is among the three that are chosen, or next in line.
    pub fn is_heard(&self, source: SourceId) -> bool {
        let key = self.source_keys.get(source);
        key.is_some_and(|key| self.selector.heard().contains(&key) || self.selector.reserve() == Some(key))
    }

    /// As `assign_voices`, for one leg.
    pub(crate) fn assign_voices_of(&mut self, now: Micros, leg: LegId) {
        if let Some((leg, of_leg)) = self.legs.remove_entry(&leg) {
            self.assign_voices_to(now, &of_leg);
            self.legs.insert(leg, of_leg);
        }
    }

    /// Gives each leg the loudest of the others. A voice that stays keeps its slot.
    pub(crate) fn assign_voices(&mut self, now: Micros) {
        let legs = std::mem::take(&mut self.legs);
        for of_leg in legs.values().filter(|of_leg| !of_leg.audio.is_empty()) {
            self.assign_voices_to(now, of_leg);
        }
        self.legs = legs;
    }

    fn assign_voices_to(&mut self, now: Micros, of_leg: &LegSlots) {
        let mut wanted = [None; HEARD];
        let heard = self
            .selector
            .heard()
            .iter()
            .copied()
            .chain(self.selector.reserve());
        let others = heard.filter(|&key| {
            self.sources
                .get(key)
                .is_some_and(|source| source.site != of_leg.site)
        });
        for (place, key) in wanted.iter_mut().zip(others.take(of_leg.audio.len())) {
            *place = Some(key);
        }
        for &slot in &of_leg.audio {
            let playing = self
                .slots
                .get(slot)
                .and_then(|slot| slot.bound)
                .map(|bound| bound.source);
            match wanted
                .iter_mut()
                .find(|place| place.is_some() && **place == playing)
            {
                Some(kept) => *kept = None,
                None => self.unbind(now, slot),
            }
        }
        let mut left = wanted.into_iter().flatten();
        for &slot in &of_leg.audio {
            if self.slots.get(slot).is_some_and(|slot| slot.bound.is_some()) {
                continue;
            }
            match left.next() {
                Some(voice) => self.bind_voice(now, slot, voice),
                None => self.empty_audio(slot),
            }
        }
    }

    fn bind_voice(&mut self, now: Micros, key: SlotKey, voice: SourceKey) {
        let Some(source) = self.sources.get(voice) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        slot.name = Some((source.site.clone(), source.kind));
        slot.bound = Some(Bound::new(voice, 0, Cap::ALL));
        let (feed, leg) = (
            Feed {
                source: voice,
                layer: 0,
            },
            slot.leg,
        );
        self.lanes[key].aim(feed, Cap::ALL, Cap::ALL, Cap::ALL);
        // Its share of the leg's link is taken from the pictures.
        self.reallocate(leg);
        self.settle(now, key);
    }

    fn empty_audio(&mut self, key: SlotKey) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.name = None;
        }
        self.set_state(key, SlotState::EMPTY);
    }
}

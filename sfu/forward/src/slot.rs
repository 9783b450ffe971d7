//! The cold half of a slot: what it is to show, and the state that its viewer is told. The hot half is its `Lane`.
//!
//! `bound` is what the wish or the audio selection has come to; what of it is shown is decided by the allocation.

use std::sync::Arc;

use crate::allocation::Rung;
use crate::event::{SlotReason, SlotState, SlotStatus};
use crate::lane::Cap;
use crate::lane::Lane;
use crate::source::{SILENT_US, Source, SourceKey};
use crate::types::{Codec, LegId, Micros, SlotId, SlotSpec, SourceKind, Wish};

/// A layer of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Feed {
    pub source: SourceKey,
    pub layer: usize,
}

/// What a slot is bound to, and what it has been given of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub source: SourceKey,
    /// The layer that fits the wish, and how much of it.
    pub fitting: usize,
    pub most: Cap,
    /// The most that could be had when it was looked at last.
    pub best: Option<Rung>,
    pub granted: Granted,
    /// Since when more could be given.
    pub more_since: Option<Micros>,
    /// That the viewer's link carries no more is more than a guess.
    pub narrow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    /// Not looked at yet.
    Open,
    Nothing,
    Some(Rung),
}

impl Granted {
    pub fn rung(self) -> Option<Rung> {
        match self {
            Granted::Some(rung) => Some(rung),
            Granted::Open | Granted::Nothing => None,
        }
    }
}

impl Bound {
    pub fn new(source: SourceKey, fitting: usize, most: Cap) -> Self {
        Bound {
            source,
            fitting,
            most,
            best: None,
            granted: Granted::Open,
            more_since: None,
            narrow: false,
        }
    }

    /// The fitting layer, where it does not come although it is wanted and there would be room for it.
    pub fn missed(&self) -> Option<usize> {
        let rung = self.granted.rung()?;
        (self.granted.rung() == self.best && rung.layer != self.fitting).then_some(self.fitting)
    }

    /// Why less than the wish is given.
    fn limit(&self) -> Option<SlotReason> {
        if self.granted.rung() != self.best {
            self.narrow.then_some(SlotReason::LimitedByYourLink)
        } else if self
            .missed()
            .is_some_and(|fitting| Some(fitting) > self.best.map(|best| best.layer))
        {
            Some(SlotReason::LimitedBySendersLink)
        } else {
            None
        }
    }
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub id: SlotId,
    pub leg: LegId,
    pub audio: bool,
    pub codecs: Vec<Codec>,
    pub descriptors: bool,
    pub wish: Option<Wish>,
    /// The wish resolved to a site and kind, whether such a source is there or not.
    pub name: Option<(Arc<str>, SourceKind)>,
    /// A source of that name has been there.
    pub was_bound: bool,
    pub bound: Option<Bound>,
    pub subscriptions: [Option<Feed>; 3],
    pub state: SlotState,
    pub told: SlotState,
    pub queued: bool,
    stale_told_at: Micros,
}

impl Slot {
    pub fn new(spec: SlotSpec) -> Self {
        Slot {
            id: spec.id,
            leg: spec.leg,
            audio: spec.audio,
            codecs: spec.codecs,
            descriptors: spec.descriptors,
            wish: None,
            name: None,
            was_bound: false,
            bound: None,
            subscriptions: [None; 3],
            state: SlotState::EMPTY,
            told: SlotState::EMPTY,
            queued: false,
            stale_told_at: Micros(0),
        }
    }

    /// The layers that this slot needs, each once: shown, to be shown, missed.
    pub fn needs(&self, lane: &Lane) -> [Option<Feed>; 3] {
        let (current, target) = (lane.current(), lane.target());
        let missed = self.bound.and_then(|bound| {
            Some(Feed {
                source: bound.source,
                layer: bound.missed()?,
            })
        });
        let target = target.filter(|_| target != current);
        let missed = missed.filter(|_| missed != current && missed != target);
        [current, target, missed]
    }

    /// When the picture in the slot becomes stale, if nothing more comes; `None` if it cannot.
    pub fn stale_from(lane: &Lane, source: &Source) -> Option<Micros> {
        let layer = source.layers.get(lane.current()?.layer)?;
        if layer.paused {
            return None;
        }
        Some(lane.last_packet?.max(layer.resumed_at).plus(SILENT_US))
    }

    /// The state of a slot that is bound to `source`.
    pub fn bound_state(&mut self, now: Micros, lane: &Lane, source: &Source) -> SlotState {
        let mut state = SlotState {
            status: SlotStatus::Waiting,
            source: self.name.clone(),
            codec: Some(source.codec),
            ..SlotState::EMPTY
        };
        let Some(bound) = self.bound else { return state };
        if bound.granted == Granted::Nothing && bound.narrow {
            state.status = SlotStatus::Paused;
            state.reason = Some(SlotReason::LimitedByYourLink);
            return state;
        }
        let target = lane.target().filter(|feed| feed.source == bound.source);
        let Some(target) = target.and_then(|feed| source.layers.get(feed.layer)) else {
            return state;
        };
        let Some(current) = lane.current().filter(|feed| feed.source == bound.source) else {
            if !target.paused && now >= target.silent_from() {
                state.reason = Some(SlotReason::NoMedia);
            }
            return state;
        };
        let shown = &source.layers[current.layer];
        (state.width, state.height) = shown.size_at(lane.level());
        state.status = SlotStatus::Live;
        if self.audio {
            return state;
        }
        state.reason = bound.limit();
        let Some(stale_from) = Slot::stale_from(lane, source) else {
            return state;
        };
        // Another layer is about to take over: it gets a second before the picture is called stale.
        let grace = if lane.is_switching() && target.delivers(now) {
            SILENT_US
        } else {
            0
        };
        if now >= stale_from.plus(grace) {
            self.mark_stale(now, lane, &mut state);
        }
        state
    }

    fn mark_stale(&mut self, now: Micros, lane: &Lane, state: &mut SlotState) {
        state.status = SlotStatus::Stale;
        state.reason = Some(SlotReason::NoMedia);
        if self.state.status != SlotStatus::Stale || now.since(self.stale_told_at) >= SILENT_US {
            self.stale_told_at = now;
            state.age_ms = age_ms(lane, now);
        } else {
            state.age_ms = self.state.age_ms;
        }
    }

    /// When a stale picture's age is to be told again.
    pub fn retell_at(&self) -> Micros {
        self.stale_told_at.plus(SILENT_US)
    }
}

/// Milliseconds since the last packet went out; 0 if none has.
pub(crate) fn age_ms(lane: &Lane, now: Micros) -> u32 {
    let us = lane.last_packet.map_or(0, |at| now.since(at));
    u32::try_from(us / 1000).unwrap_or(u32::MAX)
}

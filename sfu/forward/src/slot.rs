//! One slot: what it is bound to, what it shows, and the step from one to the other at a key frame.
//!
//! `bound` is what the wish or the audio selection has come to; `current` is whose packets go out. They differ while a
//! switch is pending: the old layer goes on until a key frame of the new one begins. A slot asks for nothing by
//! itself: its answers say what the meeting must do.

use std::sync::Arc;

use crate::event::{SlotReason, SlotState, SlotStatus};
use crate::frame::Seen;
use crate::rewrite::Rewriter;
use crate::sequence::Accepted;
use crate::source::{SILENT_US, Source, SourceKey};
use crate::types::{Codec, Forwarded, LegId, Micros, Packet, SlotId, SlotSpec, SourceKind, Wish};

/// Video at 30 frames a second, Opus at 20 ms (RFC 7587 section 4.2): the least step of time over a switch.
const VIDEO_FRAME_US: u64 = 33_334;
const AUDIO_FRAME_US: u64 = 20_000;

/// A layer of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Feed {
    pub source: SourceKey,
    pub layer: usize,
}

/// The layer that fits the wish, and the one to be shown: another only while the fitting one delivers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub source: SourceKey,
    pub fitting: usize,
    pub target: usize,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub id: SlotId,
    pub leg: LegId,
    pub audio: bool,
    pub codecs: Vec<Codec>,
    pub wish: Option<Wish>,
    /// The wish resolved to a site and kind, whether such a source is there or not.
    pub name: Option<(Arc<str>, SourceKind)>,
    /// A source of that name has been there.
    pub was_bound: bool,
    pub bound: Option<Bound>,
    pub current: Option<Feed>,
    pub subscriptions: [Option<Feed>; 3],
    /// When the last packet went out to the viewer.
    pub last_packet: Option<Micros>,
    pub rewriter: Rewriter,
    pub state: SlotState,
    pub told: SlotState,
    pub queued: bool,
    stale_told_at: Micros,
}

/// A packet on its way to the slots, with all that was found out once for all of them.
pub(crate) struct Incoming<'a> {
    pub now: Micros,
    pub feed: Feed,
    pub codec: Codec,
    pub packet: &'a Packet<'a>,
    pub accepted: Accepted,
    /// First number of the publisher's present run.
    pub run_start: i64,
    /// A viewer can begin with this packet.
    pub entry: bool,
    pub vp8: Option<crate::vp8::Descriptor>,
}

impl<'a> Incoming<'a> {
    pub fn with_picture(mut self, seen: &Seen) -> Self {
        self.vp8 = seen.vp8;
        self
    }
}

/// What the meeting must do after a slot took a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// The switch is done, or the picture is back: subscriptions and state are to be settled.
    Settle,
    KeyFrame,
    /// The fitting layer delivers again.
    Refit,
}

impl Slot {
    pub fn new(spec: SlotSpec) -> Self {
        Slot {
            id: spec.id,
            leg: spec.leg,
            audio: spec.audio,
            codecs: spec.codecs,
            wish: None,
            name: None,
            was_bound: false,
            bound: None,
            current: None,
            subscriptions: [None; 3],
            last_packet: None,
            rewriter: Rewriter::new(spec.seed),
            state: SlotState::EMPTY,
            told: SlotState::EMPTY,
            queued: false,
            stale_told_at: Micros(0),
        }
    }

    pub fn target(&self) -> Option<Feed> {
        self.bound.map(|b| Feed {
            source: b.source,
            layer: b.target,
        })
    }

    /// Waits for a key frame of this layer.
    pub fn awaits(&self, feed: Feed) -> bool {
        self.target() == Some(feed) && self.current != Some(feed)
    }

    /// The layers that this slot needs, each once: shown, to be shown, fitting.
    pub fn needs(&self) -> [Option<Feed>; 3] {
        let target = self.target();
        let fitting = self.bound.map(|b| Feed {
            source: b.source,
            layer: b.fitting,
        });
        let target = target.filter(|_| target != self.current);
        let fitting = fitting.filter(|_| fitting != self.current && fitting != target);
        [self.current, target, fitting]
    }

    /// The packet path of one slot. HOT: no allocation but by `out`.
    pub fn take(&mut self, incoming: &Incoming<'_>, out: &mut Vec<Forwarded>) -> Then {
        let shown = self.current == Some(incoming.feed);
        if !shown && self.target() != Some(incoming.feed) {
            return Then::Refit;
        }
        let begins = !shown || !self.rewriter.began_since(incoming.run_start);
        if begins {
            if !(incoming.entry && incoming.accepted.newest) {
                // A key frame that cannot be used was asked for in vain; a new run of numbers needs one.
                return if incoming.entry || shown {
                    Then::KeyFrame
                } else {
                    Then::Nothing
                };
            }
            let frame_us = if self.audio {
                AUDIO_FRAME_US
            } else {
                VIDEO_FRAME_US
            };
            self.rewriter.begin(
                incoming.now,
                incoming.codec.clock_rate(),
                frame_us,
                incoming.accepted.number,
                incoming.packet.timestamp,
            );
            self.current = Some(incoming.feed);
        }
        let rewritten = self.rewriter.rewrite(
            incoming.now,
            incoming.accepted.number,
            incoming.packet.timestamp,
            incoming.vp8.as_ref(),
        );
        let Some(numbers) = rewritten else {
            return Then::Nothing;
        };
        self.last_packet = Some(incoming.now);
        out.push(Forwarded {
            slot: self.id,
            codec: incoming.codec,
            seq: numbers.seq,
            timestamp: numbers.timestamp,
            // Where a voice is cut in, its first packet begins a talkspurt (RFC 3551 section 4.1).
            marker: incoming.packet.marker || (self.audio && begins),
            patch: numbers.patch,
        });
        if !shown || self.state.status == SlotStatus::Stale {
            Then::Settle
        } else {
            Then::Nothing
        }
    }

    /// When the picture in the slot becomes stale, if nothing more comes; `None` if it cannot.
    pub fn stale_from(&self, source: &Source) -> Option<Micros> {
        let current = self.current?;
        let layer = source.layers.get(current.layer)?;
        if layer.paused {
            return None;
        }
        Some(self.last_packet?.max(layer.resumed_at).plus(SILENT_US))
    }

    /// The state of a slot that is bound to `source`.
    pub fn bound_state(&mut self, now: Micros, source: &Source) -> SlotState {
        let mut state = SlotState {
            status: SlotStatus::Waiting,
            source: self.name.clone(),
            codec: Some(source.codec),
            ..SlotState::EMPTY
        };
        let Some(bound) = self.bound else { return state };
        let target = &source.layers[bound.target];
        let Some(current) = self.current.filter(|feed| feed.source == bound.source) else {
            if !target.paused && now >= target.silent_from() {
                state.reason = Some(SlotReason::NoMedia);
            }
            return state;
        };
        let shown = &source.layers[current.layer];
        (state.width, state.height) = (shown.width, shown.height);
        state.status = SlotStatus::Live;
        if self.audio {
            return state;
        }
        let Some(stale_from) = self.stale_from(source) else {
            return state;
        };
        // Another layer is about to take over: it gets a second before the picture is called stale.
        let grace = if current.layer != bound.target && target.delivers(now) {
            SILENT_US
        } else {
            0
        };
        if now >= stale_from.plus(grace) {
            state.status = SlotStatus::Stale;
            state.reason = Some(SlotReason::NoMedia);
            if self.state.status != SlotStatus::Stale || now.since(self.stale_told_at) >= SILENT_US {
                self.stale_told_at = now;
                state.age_ms = self.age_ms(now);
            } else {
                state.age_ms = self.state.age_ms;
            }
        }
        state
    }

    /// When a stale picture's age is to be told again.
    pub fn retell_at(&self) -> Micros {
        self.stale_told_at.plus(SILENT_US)
    }

    /// Milliseconds since the last packet went out; 0 if none has.
    pub fn age_ms(&self, now: Micros) -> u32 {
        let us = self.last_packet.map_or(0, |at| now.since(at));
        u32::try_from(us / 1000).unwrap_or(u32::MAX)
    }
}

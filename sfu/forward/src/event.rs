//! What the core tells its shell.
//!
//! Events are states that changed, not a log: several changes of one slot or layer before a poll are told once, as
//! they stand. So the queue is never longer than slots plus layers.

use std::sync::Arc;

use crate::types::{Codec, SlotId, SourceId, SourceKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Ask the publisher for a key frame (PLI, or KeyFrameRequest on a link). At most every 500 ms a layer.
    KeyFrameNeeded {
        source: SourceId,
        layer: usize,
    },
    /// The first slot of this worker wants the layer, or the last one no longer does. An audio source is wanted
    /// while there is any audio slot, since its loudness must be known.
    LayerWanted {
        source: SourceId,
        layer: usize,
        wanted: bool,
    },
    SlotChanged {
        slot: SlotId,
        state: SlotState,
    },
    /// The first key frame came complete, or the first audio packet. Once a layer.
    SourceLive {
        source: SourceId,
        layer: usize,
    },
    /// Who is heard, loudest first, at most three.
    SpeakersChanged {
        sites: Vec<Arc<str>>,
    },
    /// The loudest, with hysteresis: another takes over after being louder for a while. Who spoke last stays the
    /// active speaker through silence; `None` once muted or gone.
    ActiveSpeakerChanged {
        site: Option<Arc<str>>,
    },
    /// Whom the large picture shows since it follows the voice; `None` if nobody yet, or no longer.
    ShownSpeakerChanged {
        site: Option<Arc<str>>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotStatus {
    /// Nothing is wished for, or the stage is empty.
    Empty,
    /// The source is there, its first key frame has not come through yet.
    Waiting,
    Live,
    /// Was live, and nothing has come for more than a second: the last picture stands.
    Stale,
    Absent,
    Refused,
    /// Nothing of the source fits the viewer's link: no picture for now.
    Paused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotReason {
    /// The slot has no codec in common with the source.
    CodecNotSupported,
    /// The source was in this slot and its leg has left.
    LegLeft,
    /// Nothing has come from the source for more than a second.
    NoMedia,
    /// No such source has come to this meeting as far as the slot knows.
    UnknownSource,
    /// The viewer's link carries no more: less than was wished for is shown (`Live`), or nothing (`Paused`).
    LimitedByYourLink,
    /// The source's site sends no layer of the size wished for.
    LimitedBySendersLink,
}

/// What is in a slot. `width` and `height` are 0 while unknown; `age_ms` counts from the last packet and is 0 unless
/// the status is `Stale` or `Absent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    pub status: SlotStatus,
    /// Site and kind, resolved: a stage wish names the broadcast site here.
    pub source: Option<(Arc<str>, SourceKind)>,
    pub reason: Option<SlotReason>,
    pub width: u16,
    pub height: u16,
    pub age_ms: u32,
    pub codec: Option<Codec>,
}

impl SlotState {
    pub const EMPTY: SlotState = SlotState {
        status: SlotStatus::Empty,
        source: None,
        reason: None,
        width: 0,
        height: 0,
        age_ms: 0,
        codec: None,
    };
}

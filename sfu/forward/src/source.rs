//! A source and its layers: what size each has, whether it delivers, and which one fits a wish.
//!
//! Invariant: `subscribers` of a layer are exactly the slots that name it in their `subscriptions`, each once.

use std::sync::Arc;

use crate::described::Described;
use crate::frame::Seen;
use crate::keyframes::{FirstKeyFrame, Throttle};
use crate::lane::Cap;
use crate::rate::Rate;
use crate::sequence::Sequence;
use crate::spatial::{Sizes, covers};
use crate::tape::Tape;
use crate::types::{Codec, LayerSpec, LegId, Micros, SourceId, SourceKind, SourceSpec};

pub(crate) type SourceKey = usize;
pub(crate) type SlotKey = usize;

/// After this long without a packet a layer delivers nothing, and a picture is stale. Microseconds.
pub(crate) const SILENT_US: u64 = 1_000_000;

/// How long a layer that was wanted and did not come is left alone. Microseconds.
const TRY_AGAIN_US: u64 = 10_000_000;

#[derive(Debug)]
pub(crate) struct Source {
    pub id: SourceId,
    pub leg: LegId,
    pub site: Arc<str>,
    pub kind: SourceKind,
    pub codec: Codec,
    /// At least one.
    pub layers: Vec<Layer>,
    /// The site's sound is not to be heard. Always false for video.
    pub muted: bool,
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub width: u16,
    pub height: u16,
    /// Of its spatial layers, where it has such.
    pub sizes: Sizes,
    /// What its dependency descriptors refer to.
    pub described: Option<Box<Described>>,
    /// As the publisher said, bits a second; 0 if it did not.
    pub max_bps: u32,
    pub rate: Rate,
    pub sequence: Sequence,
    /// Timestamp of the newest packet.
    pub timestamp: Option<u32>,
    pub subscribers: Vec<SlotKey>,
    pub throttle: Throttle,
    pub first_key_frame: FirstKeyFrame,
    pub tape: Tape,
    pub live: bool,
    pub paused: bool,
    pub last_packet: Option<Micros>,
    /// When it was last reason to expect packets: added, wanted anew, resumed.
    pub expected_since: Micros,
    pub resumed_at: Micros,
    /// When the last slot let go of it although it had not come.
    pub gave_up_at: Option<Micros>,
    pub news: News,
}

/// What is still to be told of a layer.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub queued: bool,
    pub live: bool,
    pub key_frame: bool,
    pub wanted: bool,
    pub wanted_told: bool,
}

impl Layer {
    fn new(now: Micros, spec: LayerSpec) -> Self {
        Layer {
            width: spec.width,
            height: spec.height,
            sizes: Sizes::NONE,
            described: None,
            max_bps: spec.max_bps,
            rate: Rate::default(),
            sequence: Sequence::default(),
            timestamp: None,
            subscribers: Vec::new(),
            throttle: Throttle::default(),
            first_key_frame: FirstKeyFrame::default(),
            tape: Tape::default(),
            live: false,
            paused: false,
            last_packet: None,
            expected_since: now,
            resumed_at: now,
            gave_up_at: None,
            news: News::default(),
        }
    }

    pub fn delivers(&self, now: Micros) -> bool {
        self.last_packet.is_some_and(|at| now.since(at) < SILENT_US)
    }

    /// Packets came, or may still be under way: it was wanted or resumed a moment ago.
    pub fn silent_from(&self) -> Micros {
        self.last_packet
            .map_or(self.expected_since, |at| at.max(self.expected_since))
            .plus(SILENT_US)
    }

    /// Packets come or may be expected: it comes, or was wanted a moment ago, or nobody wants it and it is paused.
    /// The layer that fits a wish is given a try where nobody watches it. What was tried in vain is not tried again
    /// at once.
    pub fn usable(&self, now: Micros, fitting: bool) -> bool {
        let in_vain = self.gave_up_at.is_some_and(|at| now.since(at) < TRY_AGAIN_US);
        now < self.silent_from() || (self.subscribers.is_empty() && (self.paused || fitting) && !in_vain)
    }

    /// Takes the sizes that a packet tells; true if they are others than before.
    pub fn learn_sizes(&mut self, seen: &Seen) -> bool {
        let Some(size) = seen.size else { return false };
        let before = (self.width, self.height, self.sizes);
        (self.width, self.height) = size;
        self.sizes = seen.sizes;
        before != (self.width, self.height, self.sizes)
    }

    /// How much of it a box of this size asks for: the spatial layers up to the smallest that fills it.
    pub fn fitting(&self, max_width: u16, max_height: u16) -> Cap {
        let fitting = self.sizes.fitting(max_width, max_height);
        fitting.map_or(Cap::ALL, Cap::upto_spatial)
    }

    /// The size of what goes out of it at this level.
    pub fn size_at(&self, level: Cap) -> (u16, u16) {
        let layer = usize::try_from(level.spatial()).unwrap_or(0);
        let size = self.sizes.list().get(layer);
        size.copied().unwrap_or((self.width, self.height))
    }
}

impl Source {
    pub fn new(now: Micros, spec: SourceSpec) -> Self {
        let mut layers: Vec<Layer> = spec.layers.iter().map(|&layer| Layer::new(now, layer)).collect();
        if layers.is_empty() {
            layers.push(Layer::new(now, LayerSpec::default()));
        }
        Source {
            id: spec.id,
            leg: spec.leg,
            site: spec.site,
            kind: spec.kind,
            codec: spec.codec,
            layers,
            muted: false,
        }
    }

    /// The smallest layer that fills a box of this size without being enlarged (one side suffices: the picture is
    /// shown whole); a layer of unknown size is tried in its order, and 0 by 0 asks for the largest.
    pub fn fitting(&self, max_width: u16, max_height: u16) -> usize {
        let largest = self.layers.len() - 1;
        if max_width == 0 && max_height == 0 {
            return largest;
        }
        self.layers
            .iter()
            .position(|layer| covers((layer.width, layer.height), max_width, max_height))
            .unwrap_or(largest)
    }
}

//! What a source delivers at this moment, for those who judge how its leg fares.

use crate::meeting::Meeting;
use crate::quality::PictureSize;
use crate::source::Layer;
use crate::types::{Micros, SourceId};

/// After so long without a packet a source that came is missed. Longer than from one to the next black picture that a
/// browser sends, about one a second, while its user has switched the camera off. Microseconds.
const MISSED_US: u64 = 4_000_000;

/// What comes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Size of the largest layer that comes.
    pub size: PictureSize,
    /// A larger layer came before and is missed now, though nobody has paused it.
    pub less: bool,
}

impl Meeting {
    /// `None` of a source that is unknown or delivers nothing.
    pub fn published(&self, now: Micros, source: SourceId) -> Option<Published> {
        let source = self.sources.get(self.source_keys.get(source)?)?;
        let largest = source.layers.iter().rposition(|layer| layer.delivers(now))?;
        let missed = source.layers[largest + 1..]
            .iter()
            .any(|layer| layer.live && !layer.paused && now >= layer.silent_from());
        let layer = &source.layers[largest];
        Some(Published {
            size: (layer.width, layer.height),
            less: missed,
        })
    }

    /// Whether nothing has come of a source for 4 s though it came before and nobody has paused all of it.
    pub fn is_missed(&self, now: Micros, source: SourceId) -> bool {
        let source = self.source_keys.get(source).and_then(|key| self.sources.get(key));
        source.is_some_and(|source| {
            let mut layers = source.layers.iter();
            let missed = layers.any(|layer| layer.live && !layer.paused && layer.is_missed(now));
            missed && !source.layers.iter().any(|layer| layer.delivers(now))
        })
    }
}

impl Layer {
    fn is_missed(&self, now: Micros) -> bool {
        let since = self.last_packet.unwrap_or_default().max(self.resumed_at);
        now.since(since) >= MISSED_US
    }
}

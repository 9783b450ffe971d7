//! What a source delivers at this moment, for those who judge how its leg fares.

use crate::meeting::Meeting;
use crate::quality::PictureSize;
use crate::types::{Micros, SourceId};

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
}

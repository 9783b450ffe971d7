//! The sizes of the spatial layers of one stream, and which of them fills a box.

use crate::rate::{STEPS, TEMPORAL};

/// The base, and as many as there are steps for.
const MOST: usize = STEPS - TEMPORAL + 1;

/// Width and height of each spatial layer, smallest first; none where the stream does not say, or has but one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    count: u8,
    sizes: [(u16, u16); MOST],
}

impl Sizes {
    pub const NONE: Sizes = Sizes {
        count: 0,
        sizes: [(0, 0); MOST],
    };

    /// Of a list; what lies beyond the layers that are told apart is left out.
    pub fn of(list: &[(u16, u16)]) -> Self {
        let mut sizes = Sizes::default();
        for (place, size) in sizes.sizes.iter_mut().zip(list) {
            *place = *size;
            sizes.count += 1;
        }
        sizes
    }

    /// All of them.
    pub fn list(&self) -> &[(u16, u16)] {
        &self.sizes[..self.count.into()]
    }

    /// The last, unless it is of no size.
    pub(crate) fn largest(&self) -> Option<(u16, u16)> {
        let last = self.list().last().copied();
        last.filter(|(width, height)| *width > 0 && *height > 0)
    }

    /// The smallest layer that fills the box, where there is a larger one; `None`: all are wanted.
    pub(crate) fn fitting(&self, max_width: u16, max_height: u16) -> Option<usize> {
        if max_width == 0 && max_height == 0 {
            return None;
        }
        let covers = |size: &(u16, u16)| covers(*size, max_width, max_height);
        let fitting = self.list().iter().position(covers)?;
        (fitting + 1 < self.list().len()).then_some(fitting)
    }
}

/// Whether a picture fills a box without being enlarged (one side suffices: it is shown whole); one of unknown size does.
pub(crate) fn covers((width, height): (u16, u16), max_width: u16, max_height: u16) -> bool {
    if width == 0 || height == 0 {
        return true;
    }
    (max_width > 0 && width >= max_width) || (max_height > 0 && height >= max_height)
}

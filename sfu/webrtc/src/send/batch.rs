//! The one buffer that all legs of a worker write their datagrams into, a leg at a time.

use std::time::Instant;

/// Datagrams for one address, one behind the other in one buffer, as GSO takes them.
///
/// Kept between legs and filled anew by [`crate::Leg::poll_media`], so it stays in the cache.
#[derive(Default)]
pub struct SendBatch {
    pub(super) bytes: Vec<u8>,
    pub(super) lengths: Vec<usize>,
    pub(super) queued_at: Option<Instant>,
}

impl SendBatch {
    /// Without memory, until something is written.
    pub fn new() -> Self {
        Self::default()
    }

    /// All datagrams, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of each datagram in bytes.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// When the packet that was queued first was; None where all are sent again.
    pub fn queued_at(&self) -> Option<Instant> {
        self.queued_at
    }

    pub(crate) fn clear(&mut self) {
        self.queued_at = None;
        self.bytes.clear();
        self.lengths.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }
}

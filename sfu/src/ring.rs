//! The bounded ring between two workers: the only way from one to the other on the packet path.
//!
//! One worker pushes, one pops; nobody waits. A full ring refuses, and the pusher counts it and sends nothing more of
//! that layer until its next key frame. Wishes for layers travel against the packets in the ring of the other direction;
//! a wish that found the ring full is kept by its pusher and tried again.

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use muster_forward::SourceId;

/// Messages in flight from one worker to another: a quarter of a second of some hundred sources.
const CAPACITY: usize = 8192;

/// What crosses.
#[derive(Debug)]
pub(crate) enum Crossing {
    Packet(CrossingPacket),
    /// The other worker's slots want the layer, or no longer do.
    Wanted {
        source: SourceId,
        layer: usize,
        wanted: bool,
    },
    /// The other worker needs a key frame of the layer.
    KeyFrame {
        source: SourceId,
        layer: usize,
    },
}

/// What goes beside a packet and is nothing to the core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aside {
    /// Bytes in front of the primary encoding of RED; 0 unless it is RED.
    pub redundancy: u16,
    /// Bytes in front of the payload where it is kept, or crosses: its dependency descriptor.
    pub descriptor: u8,
    /// How long ago it was sampled, in microseconds; 0 where that is not known.
    pub age_us: i32,
}

/// A packet of a source of the pushing worker, decrypted. The payload shares one allocation with its neighbours.
#[derive(Debug)]
pub(crate) struct CrossingPacket {
    pub source: SourceId,
    pub layer: usize,
    pub seq: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub audio_level: Option<u8>,
    pub aside: Aside,
    /// Behind what `aside` says is in front of it.
    pub payload: Bytes,
}

impl CrossingPacket {
    /// The dependency descriptor, and the payload proper.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        let parts = self.payload.split_at_checked(self.aside.descriptor.into());
        parts.unwrap_or((&[], &self.payload))
    }
}

#[derive(Debug)]
pub(crate) struct Ring(ArrayQueue<Crossing>);

impl Ring {
    pub fn new() -> Self {
        Self(ArrayQueue::new(CAPACITY))
    }

    /// Gives the message back when the ring is full.
    pub fn push(&self, message: Crossing) -> Result<(), Crossing> {
        self.0.push(message)
    }

    pub fn pop(&self) -> Option<Crossing> {
        self.0.pop()
    }
}

/// All rings of a relay: `rings[from][to]`.
pub(crate) fn all(workers: usize) -> Vec<Vec<Ring>> {
    (0..workers)
        .map(|_| (0..workers).map(|_| Ring::new()).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_gives_the_message_back_and_keeps_order() {
        let ring = Ring::new();
        let wanted = |layer| Crossing::Wanted {
            source: SourceId(1),
            layer,
            wanted: true,
        };
        for layer in 0..CAPACITY {
            ring.push(wanted(layer)).expect("room");
        }
        assert!(ring.push(wanted(CAPACITY)).is_err());
        for layer in 0..CAPACITY {
            assert!(matches!(ring.pop(), Some(Crossing::Wanted { layer: l, .. }) if l == layer));
        }
        assert!(ring.pop().is_none());
    }
}

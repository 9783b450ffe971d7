//! When to ask a publisher for a key frame, and when its first one has come whole.
//!
//! [`Throttle`]: once for many viewers, at most every 500 ms, repeated until a key frame begins. [`FirstKeyFrame`]:
//! the packets of the first key frame counted until none is missing; that makes a source live.

use crate::types::Micros;

/// Shortest time between two requests to one layer, in microseconds.
pub(crate) const REQUEST_EVERY_US: u64 = 500_000;
/// How long a key frame that has begun may take before another is asked for, in microseconds.
const KEY_FRAME_TAKES_US: u64 = 1_000_000;

#[derive(Debug, Default)]
pub(crate) struct Throttle {
    wanted: bool,
    asked_at: Option<Micros>,
}

impl Throttle {
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// A key frame has begun, or nobody watches any more.
    pub fn satisfy(&mut self) {
        self.wanted = false;
    }

    /// When the next request is to go out; may be in the past.
    pub fn due(&self) -> Option<Micros> {
        self.wanted
            .then(|| self.asked_at.map_or(Micros(0), |at| at.plus(REQUEST_EVERY_US)))
    }

    /// True when a request is to go out now; it is then taken as sent.
    pub fn take(&mut self, now: Micros) -> bool {
        let go = self.due().is_some_and(|due| due <= now);
        if go {
            self.asked_at = Some(now);
        }
        go
    }
}

#[derive(Debug, Default)]
pub(crate) struct FirstKeyFrame {
    first_packet_at: Option<Micros>,
    collecting: Option<Collecting>,
}

#[derive(Debug)]
struct Collecting {
    since: Micros,
    timestamp: u32,
    start: i64,
    end: Option<i64>,
    count: i64,
}

impl FirstKeyFrame {
    /// Takes a packet of the layer; true when the key frame is complete.
    pub fn take(&mut self, now: Micros, number: i64, timestamp: u32, marker: bool, key_start: bool) -> bool {
        self.first_packet_at.get_or_insert(now);
        if key_start && self.collecting.as_ref().is_none_or(|c| c.timestamp != timestamp) {
            self.collecting = Some(Collecting {
                since: now,
                timestamp,
                start: number,
                end: None,
                count: 0,
            });
        }
        let Some(c) = &mut self.collecting else {
            return false;
        };
        if c.timestamp != timestamp || number < c.start || c.end.is_some_and(|end| number > end) {
            return false;
        }
        c.count += 1;
        if marker {
            c.end = Some(number);
        }
        c.end.is_some_and(|end| c.count == end - c.start + 1)
    }

    /// True if packets come and no key frame does, or one that does not get whole: then one must be asked for.
    pub fn overdue(&self, now: Micros) -> bool {
        match (&self.collecting, self.first_packet_at) {
            (Some(c), _) => now.since(c.since) >= KEY_FRAME_TAKES_US,
            (None, Some(at)) => now.since(at) >= REQUEST_EVERY_US,
            (None, None) => false,
        }
    }
}

//! The receiving side of transport-wide congestion control: when which packet came, told to the
//! sender every 50 to 100 ms.
//!
//! Invariant: times of at most [`KEPT`] packets are kept, whatever sequence numbers come. A packet
//! that comes late is told again with those after it; the sender takes each arrival once. It
//! estimates nothing: that is the sender's part.

use std::time::{Duration, Instant};

use super::twcc;

/// Arrivals kept, a power of two; a jump beyond it starts afresh.
const KEPT: u64 = 1024;
/// Feedback waits no longer than this.
const LONGEST: Duration = Duration::from_millis(100);
/// Nor comes sooner than this.
const SHORTEST: Duration = Duration::from_millis(50);
/// Packets that make it come sooner.
const MANY: u64 = 50;
/// Bytes of one message.
const LIMIT: usize = 1100;
/// Not come. No time of the worker's is that.
const MISSING: u64 = u64::MAX;

/// Records arrivals of a peer's packets and makes the FCI of its transport-wide feedback.
pub struct FeedbackRecorder {
    started: Instant,
    /// Microseconds since the start, by the sequence number modulo its length; empty before the
    /// first packet.
    arrivals: Box<[u64]>,
    /// The first packet that is not told.
    base: u64,
    /// One past the newest.
    end: u64,
    number: u8,
    last: Instant,
}

impl FeedbackRecorder {
    /// Records from now on; allocates at the first packet.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            arrivals: Box::default(),
            base: 0,
            end: 0,
            number: 0,
            last: now,
        }
    }

    /// A packet came with this transport-wide sequence number.
    pub fn received(&mut self, now: Instant, seq: u16) {
        let at = now.saturating_duration_since(self.started).as_micros() as u64;
        if self.arrivals.is_empty() {
            self.arrivals = vec![MISSING; KEPT as usize].into_boxed_slice();
            // Room below, so that a packet older than the first has a number too.
            self.base = 0x1_0000 + u64::from(seq);
            self.end = self.base;
        }
        let step = seq.wrapping_sub(self.end as u16) as i16;
        let Some(seq) = self.end.checked_add_signed(i64::from(step)) else {
            return;
        };
        if seq >= self.end {
            if seq - self.end >= KEPT {
                self.arrivals.fill(MISSING);
                self.base = seq;
            } else {
                for missing in self.end..seq {
                    self.arrivals[(missing % KEPT) as usize] = MISSING;
                }
            }
            self.end = seq + 1;
            self.base = self.base.max(self.end.saturating_sub(KEPT));
        } else if self.end - seq > KEPT || self.arrivals[(seq % KEPT) as usize] != MISSING {
            return; // too late to tell, or told
        }
        self.arrivals[(seq % KEPT) as usize] = at;
        self.base = self.base.min(seq);
    }

    /// When [`FeedbackRecorder::poll`] has something to say; None while nothing came.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.end - self.base;
        let after = if waiting >= MANY { SHORTEST } else { LONGEST };
        (waiting > 0).then(|| self.last + after)
    }

    /// The FCI of the next feedback message, at most 1100 bytes; None while none is due. Drain it.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return None;
        }
        let arrival = |seq: u64| {
            let at = self.arrivals[(seq % KEPT) as usize];
            (at != MISSING).then_some(at as i64)
        };
        let times: Vec<Option<i64>> = (self.base..self.end).map(arrival).collect();
        let (fci, took) = twcc::write(self.base as u16, self.number, &times, LIMIT);
        if took == 0 {
            self.base = self.end; // a clock that jumped by seconds
            return None;
        }
        self.number = self.number.wrapping_add(1);
        self.base += took as u64;
        if self.base == self.end {
            self.last = now;
        }
        Some(fci)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::twcc::{Message, REFERENCE_US};
    use crate::test_support::instant;

    const MS: Duration = Duration::from_millis(1);

    fn told(fci: &[u8]) -> Vec<(u16, Option<i64>)> {
        let message = Message::read(fci).expect("ours");
        let from = i64::from(message.reference) * REFERENCE_US;
        (0..)
            .map(|i: u16| message.base.wrapping_add(i))
            .zip(message.arrivals().map(|a| a.map(|us| us + from)))
            .collect()
    }

    #[test]
    fn arrivals_and_holes_are_told_once_they_are_due_across_the_wrap() {
        let t0 = instant();
        let mut recorder = FeedbackRecorder::new(t0);
        assert_eq!(recorder.poll_timeout(), None);
        for (ms, seq) in [(10u32, 65_534u16), (11, 65_535), (13, 1), (14, 2)] {
            recorder.received(t0 + MS * ms, seq);
        }
        assert_eq!(recorder.poll(t0 + MS * 99), None);
        let fci = recorder.poll(t0 + MS * 100).expect("due");
        let expected = [
            (65_534, Some(10_000)),
            (65_535, Some(11_000)),
            (0, None),
            (1, Some(13_000)),
            (2, Some(14_000)),
        ];
        assert_eq!(told(&fci), expected);
        assert_eq!(recorder.poll(t0 + MS * 300), None);
        // The missing one comes after all: it is told, with what came before the next message.
        recorder.received(t0 + MS * 301, 0);
        recorder.received(t0 + MS * 302, 3);
        let fci = recorder.poll(t0 + MS * 302).expect("due");
        assert_eq!(told(&fci)[0], (0, Some(301_000)));
        assert_eq!(told(&fci)[3], (3, Some(302_000)));
    }

    #[test]
    fn many_packets_are_told_sooner_and_in_as_many_messages_as_they_need() {
        let t0 = instant();
        let mut recorder = FeedbackRecorder::new(t0);
        for seq in 0..1000u16 {
            recorder.received(
                t0 + Duration::from_micros(u64::from(seq) * 90_000 / 1000),
                seq.wrapping_mul(3),
            );
        }
        let mut statuses = 0;
        while let Some(fci) = recorder.poll(t0 + MS * 90) {
            assert!(fci.len() <= LIMIT);
            statuses += told(&fci).len();
        }
        assert_eq!(statuses as u64, KEPT);
    }

    #[test]
    fn jumps_start_afresh_and_old_ones_are_forgotten() {
        let t0 = instant();
        let mut recorder = FeedbackRecorder::new(t0);
        for seq in [0u16, 20_000, 40_000, 39_999, 10_000] {
            recorder.received(t0 + MS, seq);
        }
        let fci = recorder.poll(t0 + MS * 200).expect("due");
        assert_eq!(told(&fci), [(39_999, Some(1000)), (40_000, Some(1000))]);
        assert_eq!(recorder.poll(t0 + MS * 400), None);
    }
}

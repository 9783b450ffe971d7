//! How fast packets left, and how fast they came: bytes over time, of feedback messages in a row.
//!
//! Time in which feedback was lost counts for neither, so that lost feedback is not taken for a
//! slower path. Bounded: the last [`INTERVALS`] messages. Times in microseconds.

const INTERVALS: usize = 16;

#[derive(Clone, Copy, Default)]
struct Interval {
    sent_bytes: u64,
    sent_span: u64,
    arrived_bytes: u64,
    arrived_span: u64,
}

/// Bits per second over the same packets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub sent: u64,
    pub arrived: u64,
}

#[derive(Default)]
pub(crate) struct Throughput {
    ring: [Interval; INTERVALS],
    next: usize,
    current: Interval,
    /// Newest of the messages before; None after a gap.
    last: Option<(u64, i64)>,
    newest: Option<(u64, i64)>,
}

impl Throughput {
    /// A message begins; `gap`: those before it were lost.
    pub(crate) fn begin(&mut self, gap: bool) {
        self.current = Interval::default();
        if gap {
            self.last = None;
        }
        self.newest = self.last;
    }

    /// A packet that is told of for the first time, and when it came if it did.
    pub(crate) fn told(&mut self, sent: u64, bytes: u32, arrival: Option<i64>) {
        if self.last.is_none() {
            // The first one only says when the span begins.
            if let Some(arrival) = arrival {
                self.last = Some((sent, arrival));
                self.newest = self.last;
            }
            return;
        }
        self.current.sent_bytes += u64::from(bytes);
        if let Some(newest) = &mut self.newest {
            newest.0 = newest.0.max(sent);
            if let Some(arrival) = arrival {
                newest.1 = newest.1.max(arrival);
                self.current.arrived_bytes += u64::from(bytes);
            }
        }
    }

    /// A message ends.
    pub(crate) fn end(&mut self) {
        if let (Some(last), Some(newest)) = (self.last, self.newest)
            && newest.0 > last.0
        {
            self.current.sent_span = newest.0 - last.0;
            self.current.arrived_span = (newest.1 - last.1).max(0) as u64;
            self.ring[self.next] = self.current;
            self.next = (self.next + 1) % INTERVALS;
        }
        self.last = self.newest;
    }

    /// Over the newest messages that span at least `span`, or all there are; None before any.
    pub(crate) fn rates(&self, span: u64) -> Option<Rates> {
        let mut sum = Interval::default();
        for back in 1..=INTERVALS {
            let interval = &self.ring[(self.next + INTERVALS - back) % INTERVALS];
            sum.sent_bytes += interval.sent_bytes;
            sum.sent_span += interval.sent_span;
            sum.arrived_bytes += interval.arrived_bytes;
            sum.arrived_span += interval.arrived_span;
            if sum.sent_span >= span && sum.arrived_span >= span {
                break;
            }
        }
        let rate = |bytes: u64, span: u64| (span > 0).then(|| bytes * 8_000_000 / span);
        Some(Rates {
            sent: rate(sum.sent_bytes, sum.sent_span)?,
            arrived: rate(sum.arrived_bytes, sum.arrived_span).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_feedback_is_no_slower_path() {
        let mut throughput = Throughput::default();
        // 1000 bytes each 10 ms are 800 kbit/s; every other message of 10 packets is lost.
        for message in (0..10u64).map(|n| n * 2) {
            throughput.begin(message > 0);
            for n in message * 10..message * 10 + 10 {
                throughput.told(n * 10_000, 1000, Some(n as i64 * 10_000 + 30_000));
            }
            throughput.end();
        }
        let rates = throughput.rates(400_000).expect("told");
        assert_eq!((rates.sent, rates.arrived), (800_000, 800_000));
    }

    #[test]
    fn the_newest_show_first() {
        let mut throughput = Throughput::default();
        let mut arrival = 0;
        for message in 0..10u64 {
            throughput.begin(false);
            for n in message * 10..message * 10 + 10 {
                arrival += if message < 9 { 10_000 } else { 40_000 };
                let came = (message < 9 || n % 2 == 0).then_some(arrival);
                throughput.told(n * 10_000, 1000, came);
            }
            throughput.end();
        }
        let newest = throughput.rates(50_000).expect("told");
        assert_eq!(newest.sent, 800_000);
        assert!((90_000..=112_000).contains(&newest.arrived), "{newest:?}");
        let long = throughput.rates(1_000_000).expect("told");
        assert!(long.arrived > 400_000, "{long:?}");
    }
}

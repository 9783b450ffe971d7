//! Reception statistics of one stream, for receiver reports (RFC 3550, appendix A).

/// Counts and jitter of a stream.
#[derive(Default)]
pub(crate) struct Reception {
    started: bool,
    base: u32,
    /// Extended highest sequence number.
    highest: u32,
    received: u32,
    expected_before: u32,
    received_before: u32,
    transit: u32,
    /// In clock ticks, times 16.
    jitter: u32,
}

/// One report's numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Of 256, since the last report.
    pub fraction_lost: u8,
    /// Since the last report, not below 0.
    pub lost: u32,
    /// Since the start, not below 0, 24 bits.
    pub total_lost: u32,
    pub highest: u32,
    /// In clock ticks.
    pub jitter: u32,
}

impl Reception {
    /// Counts a packet. `arrival` is the time of arrival in the stream's clock ticks, any epoch.
    /// True if it is the newest so far.
    pub(crate) fn record(&mut self, seq: u16, timestamp: u32, arrival: u32) -> bool {
        self.received = self.received.wrapping_add(1);
        let transit = arrival.wrapping_sub(timestamp);
        if !self.started {
            self.started = true;
            self.base = u32::from(seq);
            self.highest = self.base;
            self.transit = transit;
            return true;
        }
        let change = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
        self.transit = transit;
        // A jump of timestamps by more than this is a new time line and no jitter.
        if change < 1 << 24 {
            self.jitter = self
                .jitter
                .saturating_add(change)
                .saturating_sub((self.jitter + 8) >> 4);
        }
        let ahead = seq.wrapping_sub(self.highest as u16);
        let newest = ahead != 0 && ahead < 0x8000;
        if newest {
            self.highest = self.highest.wrapping_add(u32::from(ahead));
        }
        newest
    }

    /// The figures since the last call.
    pub(crate) fn figures(&mut self) -> Figures {
        let expected = self.highest.wrapping_sub(self.base).wrapping_add(1);
        let expected_now = expected.wrapping_sub(self.expected_before);
        let received_now = self.received.wrapping_sub(self.received_before);
        self.expected_before = expected;
        self.received_before = self.received;
        let lost = expected_now.saturating_sub(received_now);
        let fraction = (u64::from(lost) << 8)
            .checked_div(u64::from(expected_now))
            .unwrap_or(0);
        Figures {
            fraction_lost: fraction.min(255) as u8,
            lost,
            total_lost: expected.saturating_sub(self.received).min(0x7f_ffff),
            highest: self.highest,
            jitter: self.jitter >> 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_counted_per_report_and_in_all_across_the_wrap() {
        let mut r = Reception::default();
        for seq in (65_500..=65_535u16).chain(0..64) {
            if seq % 4 != 3 {
                r.record(seq, 0, 0);
            }
        }
        let f = r.figures();
        // 65500..=65535 and 0..=62: 99 expected, 24 lost between the first and the last seen.
        assert_eq!((f.lost, f.total_lost), (24, 24));
        assert_eq!(f.fraction_lost, (24 * 256 / 99) as u8);
        assert_eq!(f.highest, 65_536 + 62);
        r.record(63, 0, 0);
        assert_eq!(r.figures().fraction_lost, 0);
    }

    #[test]
    fn steady_arrival_has_no_jitter_and_uneven_has() {
        let (mut steady, mut uneven) = (Reception::default(), Reception::default());
        for n in 0..200u16 {
            let ts = u32::from(n) * 3000;
            steady.record(n, ts, ts + 77);
            uneven.record(n, ts, ts + if n % 2 == 0 { 0 } else { 900 });
        }
        assert_eq!(steady.figures().jitter, 0);
        assert!((800..=900).contains(&uneven.figures().jitter));
    }

    #[test]
    fn a_duplicate_is_not_newest() {
        let mut r = Reception::default();
        assert!(r.record(5, 0, 0));
        assert!(!r.record(5, 0, 0));
        assert!(!r.record(4, 0, 0));
        assert!(r.record(6, 0, 0));
    }
}

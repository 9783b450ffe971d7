//! How busy a worker is, for those who watch the relay: the share of a core that its thread uses, and how long packets
//! are in it.
//!
//! The kernel's count of the thread's time is read once a second; of the packets one send call in 64 is measured.

use std::time::{Duration, Instant};

use metrics::{Gauge, Histogram};

use crate::metrics::Metrics;

/// One send call in so many is measured.
const SAMPLED: u32 = 64;
/// Time on a core in nanoseconds is the first number in it.
const SCHEDSTAT: &str = "/proc/thread-self/schedstat";

pub(crate) struct Load {
    busy: Gauge,
    forward: Histogram,
    calls: u32,
    looked: Option<(Instant, Duration)>,
}

impl Load {
    pub fn new(metrics: &Metrics, worker: usize) -> Self {
        Self {
            busy: metrics.worker_busy(worker),
            forward: metrics.forward_seconds.clone(),
            calls: 0,
            looked: None,
        }
    }

    /// A send call has returned that carried a packet which was received at `received`.
    pub fn sent(&mut self, received: Option<Instant>) {
        self.calls = self.calls.wrapping_add(1);
        if self.calls.is_multiple_of(SAMPLED)
            && let Some(received) = received
        {
            self.forward.record(received.elapsed().as_secs_f64());
        }
    }

    /// Tells the share since the last look. Called on the worker's own thread.
    pub fn look(&mut self, now: Instant) {
        let Some(used) = std::fs::read_to_string(SCHEDSTAT)
            .ok()
            .and_then(|text| used(&text))
        else {
            return;
        };
        if let Some((at, before)) = self.looked.replace((now, used)) {
            let passed = now.saturating_duration_since(at).as_secs_f64();
            let ratio = used.saturating_sub(before).as_secs_f64() / passed.max(0.001);
            self.busy.set(ratio.min(1.0));
        }
    }
}

fn used(schedstat: &str) -> Option<Duration> {
    let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_on_a_core_is_read() {
        assert_eq!(used("1500000 20 3\n"), Some(Duration::from_micros(1500)));
        assert_eq!(used(""), None);
        let own = std::fs::read_to_string(SCHEDSTAT).expect("Linux has it");
        assert!(used(&own).is_some());
    }

    #[test]
    fn one_call_in_64_is_measured_and_the_share_of_a_core_is_told() {
        let metrics = Metrics::new();
        let mut load = Load::new(&metrics, 3);
        for _ in 0..640 {
            load.sent(Some(Instant::now()));
        }
        load.look(Instant::now());
        load.look(Instant::now() + Duration::from_secs(1));
        let text = metrics.render();
        assert!(text.contains("muster_relay_forward_seconds_count 10"), "{text}");
        assert!(
            text.contains("muster_relay_forward_seconds_bucket{le=\"0.005\"}"),
            "{text}"
        );
        assert!(
            text.contains("muster_relay_worker_busy_ratio{worker=\"3\"}"),
            "{text}"
        );
    }
}

//! Probes: some packets at a higher rate for 15 ms, to learn whether the path takes it, as
//! libwebrtc does it. Media that leaves meanwhile is part of the probe; padding fills the rest.
//!
//! Invariant: one probe is being sent and at most [`AWAITED`] are waited for. It decides neither
//! when to probe nor what to do with the result. Times in microseconds.

/// A probe takes this long, and at least this many packets.
const TIME: u64 = 15_000;
const PACKETS: u32 = 5;
/// The first poll may send this much ahead.
const AHEAD: u64 = 2_000;
/// One that nobody polls is over after this.
const ABANDONED: u64 = 100_000;
/// Probes whose feedback is waited for.
const AWAITED: usize = 4;
/// No probe is faster, in bits per second: a wall of 49 pictures is not; so none is more than 375 kB, whatever a peer makes of the
/// estimate.
const FASTEST: u64 = 100_000_000;
/// What a packet of a probe may take, in bytes.
const PACKET: u64 = 1200;
/// A result needs this share of its packets told of, and this of them come.
const TOLD: f64 = 0.8;
const CAME: f64 = 0.5;
/// Came slower than it left by this: the path is full, and its rate is seen.
const SATURATED: f64 = 0.9;
const OF_SATURATED: f64 = 0.95;
/// Came faster than it left by this: the peer slept meanwhile.
const READ_AT_ONCE: f64 = 2.0;

#[derive(Clone, Copy, Default)]
struct Probe {
    id: u8,
    target: u64,
    packets: u32,
    bytes: u64,
    last_bytes: u64,
    first_sent: u64,
    last_sent: u64,
    arrived: u32,
    arrived_bytes: u64,
    lost: u32,
    /// The arrival and bytes of the first to come, and the last arrival.
    first: (i64, u64),
    last: i64,
}

/// What a probe showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Bits per second that it was sent at.
    pub target: u64,
    /// Bits per second that the path took; None: the peer slept meanwhile, so nothing is known.
    pub took: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Probes {
    /// The probe being sent, and when it began.
    sending: Option<(Probe, u64)>,
    awaited: [Probe; AWAITED],
    next_id: u8,
}

impl Probes {
    /// Begins a probe at `target` bits per second, or at [`FASTEST`].
    pub(crate) fn begin(&mut self, now: u64, target: u64) {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let probe = Probe {
            id: self.next_id,
            target: target.min(FASTEST),
            ..Probe::default()
        };
        self.sending = Some((probe, now));
    }

    /// Bits per second of the probe being sent.
    pub(crate) fn sending(&self) -> Option<u64> {
        self.sending.map(|(probe, _)| probe.target)
    }

    /// A packet leaves: the probe that it is part of, 0 for none.
    pub(crate) fn sent(&mut self, now: u64, bytes: usize) -> u8 {
        let Some((probe, _)) = &mut self.sending else {
            return 0;
        };
        if probe.packets == 0 {
            probe.first_sent = now;
        }
        probe.packets += 1;
        probe.bytes += bytes as u64;
        probe.last_bytes = bytes as u64;
        probe.last_sent = now;
        probe.id
    }

    /// Bytes for one more packet of the probe being sent; None: none now, or the probe is over.
    pub(crate) fn due(&mut self, now: u64) -> Option<usize> {
        let (probe, began) = self.sending?;
        let passed = now.saturating_sub(began);
        let due = probe.target * (passed.min(ABANDONED) + AHEAD) / 8_000_000;
        let whole = passed >= TIME || probe.bytes >= probe.target * TIME / 8_000_000;
        let caught_up = probe.bytes >= due.min(probe.target * 2 * TIME / 8_000_000);
        if probe.packets >= PACKETS && whole && caught_up || passed >= ABANDONED {
            self.sending = None;
            self.wait_for(probe);
            return None;
        }
        let due = due.max(u64::from(PACKETS.saturating_sub(probe.packets)).min(1) * 200);
        (due > probe.bytes).then(|| (due - probe.bytes).clamp(200, PACKET) as usize)
    }

    /// Ends a probe that nobody sends.
    pub(crate) fn abandon(&mut self, now: u64) {
        if let Some((probe, began)) = self.sending
            && now >= began + ABANDONED
        {
            self.sending = None;
            self.wait_for(probe);
        }
    }

    fn wait_for(&mut self, probe: Probe) {
        if probe.packets == 0 {
            return;
        }
        self.awaited.rotate_right(1);
        self.awaited[0] = probe;
    }

    /// Feedback of a packet of probe `id`.
    pub(crate) fn told(&mut self, id: u8, bytes: u32, arrival: Option<i64>) {
        if id == 0 {
            return;
        }
        let sending = self.sending.as_mut().map(|(probe, _)| probe);
        let Some(probe) = self.awaited.iter_mut().chain(sending).find(|p| p.id == id) else {
            return;
        };
        let Some(arrival) = arrival else {
            probe.lost += 1;
            return;
        };
        if probe.arrived == 0 || arrival < probe.first.0 {
            probe.first = (arrival, u64::from(bytes));
        }
        probe.last = if probe.arrived == 0 {
            arrival
        } else {
            probe.last.max(arrival)
        };
        probe.arrived += 1;
        probe.arrived_bytes += u64::from(bytes);
    }

    /// What a probe showed that has been told of. `own`: the path's own loss.
    pub(crate) fn outcome(&mut self, own: f64) -> Option<Outcome> {
        let told = |p: &Probe| f64::from(p.arrived + p.lost) >= f64::from(p.packets) * TOLD;
        let probe = self.awaited.iter_mut().rev().find(|p| p.id != 0 && told(p))?;
        let probe = std::mem::take(probe);
        let came = f64::from(probe.arrived);
        if came < f64::from(probe.packets) * CAME.min(1.0 - own) - 1.0 || probe.arrived < 3 {
            return Some(Outcome {
                target: probe.target,
                took: Some(0),
            });
        }
        let rate = |bytes: u64, span: i64| match u64::try_from(span) {
            Ok(span) if span > 0 => (bytes * 8_000_000 / span) as f64,
            _ => f64::INFINITY,
        };
        let sent = rate(
            probe.bytes - probe.last_bytes,
            probe.last_sent as i64 - probe.first_sent as i64,
        );
        let loss = f64::from(probe.lost) / f64::from(probe.arrived + probe.lost);
        let came = rate(probe.arrived_bytes - probe.first.1, probe.last - probe.first.0);
        if came > sent * READ_AT_ONCE {
            return Some(Outcome {
                target: probe.target,
                took: None,
            });
        }
        let came = came / (1.0 - loss.min(own + 0.1));
        let sent = sent.min(probe.target as f64 * 1.5);
        let took = if came < sent * SATURATED {
            came * OF_SATURATED
        } else {
            came.min(sent)
        };
        Some(Outcome {
            target: probe.target,
            took: Some(took.min(probe.target as f64) as u64),
        })
    }

    /// When [`Probes::due`] is worth a call.
    pub(crate) fn timeout(&self) -> Option<u64> {
        let (probe, began) = self.sending?;
        let next = (probe.bytes * 8_000_000 / probe.target.max(1)).saturating_sub(AHEAD);
        Some(began + next.clamp(1_000, ABANDONED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends one probe, polled each `step` microseconds, over a path of `rate`; its outcome.
    fn probe(target: u64, step: u64, rate: u64, lose: impl Fn(u32) -> bool, own: f64) -> Outcome {
        let mut probes = Probes::default();
        probes.begin(0, target);
        let (mut free, mut n, mut now) = (0u64, 0, 0);
        let mut told = Vec::new();
        while probes.sending().is_some() {
            while let Some(bytes) = probes.due(now) {
                let id = probes.sent(now, bytes);
                free = free.max(now) + bytes as u64 * 8_000_000 / rate;
                told.push((id, bytes as u32, (!lose(n)).then_some(free as i64 + 5_000_000)));
                n += 1;
            }
            now += step;
            assert!(now < 200_000);
        }
        for (id, bytes, arrival) in told {
            assert_eq!(id, 1);
            probes.told(id, bytes, arrival);
        }
        probes.outcome(own).expect("told of")
    }

    #[test]
    fn a_wide_path_takes_what_is_asked_however_seldom_it_is_polled() {
        for step in [500, 2_000, 10_000] {
            let outcome = probe(3_000_000, step, 1_000_000_000, |_| false, 0.0);
            assert!(outcome.took >= Some(2_600_000), "{outcome:?} at {step}");
        }
    }

    #[test]
    fn a_narrow_path_shows_its_rate() {
        for step in [500, 2_000, 10_000] {
            let outcome = probe(3_000_000, step, 1_000_000, |_| false, 0.0);
            assert!(
                (850_000..=1_000_000).contains(&outcome.took.unwrap_or(0)),
                "{outcome:?} at {step}"
            );
        }
    }

    #[test]
    fn the_paths_own_loss_does_not_lower_the_result_and_heavy_loss_fails_it() {
        let outcome = probe(3_000_000, 1_000, 100_000_000, |n| n % 5 == 1, 0.2);
        assert!(outcome.took >= Some(2_400_000), "{outcome:?}");
        assert_eq!(
            probe(3_000_000, 1_000, 100_000_000, |n| n % 5 != 1, 0.0).took,
            Some(0)
        );
    }

    #[test]
    fn a_peer_that_slept_shows_nothing() {
        let mut probes = Probes::default();
        probes.begin(0, 3_000_000);
        let mut sent = 0;
        for now in (0..20_000).step_by(1_000) {
            while let Some(bytes) = probes.due(now) {
                probes.sent(now, bytes);
                sent += 1;
            }
        }
        (0..sent).for_each(|_| probes.told(1, 1200, Some(90_000_000)));
        assert_eq!(probes.outcome(0.0).map(|outcome| outcome.took), Some(None));
    }

    #[test]
    fn no_probe_is_larger_than_a_wall_needs() {
        let mut probes = Probes::default();
        probes.begin(0, u64::MAX / 1_000_000);
        let mut bytes = 0;
        // Polled so late that all of it is due.
        while let Some(due) = probes.due(ABANDONED - 1) {
            probes.sent(0, due);
            bytes += due;
        }
        assert!((370_000..380_000).contains(&bytes), "{bytes}");
        assert_eq!(probes.sending(), None);
    }

    #[test]
    fn a_probe_that_nobody_sends_ends() {
        let mut probes = Probes::default();
        probes.begin(0, 1_000_000);
        assert!(probes.due(0).is_some());
        assert_eq!(probes.due(ABANDONED), None);
        assert_eq!((probes.sending(), probes.timeout()), (None, None));
        assert_eq!(probes.outcome(0.0), None);
    }
}

//! A measured window: everything is looked at before and after it, and what lies between makes a line of JSON.
//!
//! The cameras rest before the window until all is through, and after it for a moment, so that what is due and what
//! came are counted of the same packets; what comes later than that moment has not come. That moment is no part of the
//! time by which loads are divided.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use crate::crowd::{Crowd, Taking};
use crate::http::Counters;
use crate::picture::SourceId;
use crate::procfs::{self, CpuTime};
use crate::relay::RelayProcess;
use crate::stats::rounded;

/// What is not through after this is late.
const REST: Duration = Duration::from_millis(300);
/// An overloaded relay may need long.
const MOST_RESTS: usize = 50;
/// Above this share of the time the thread that plays the peers is the limit.
const BUSY: f64 = 0.9;
/// From a packet's receive to its last copy's send, in seconds.
const IN_RELAY: &str = "muster_relay_forward_seconds";

/// A server whose cost is measured.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    Muster(&'a RelayProcess),
    /// One that says nothing of itself.
    Other {
        pid: u32,
    },
}

impl Subject<'_> {
    fn pid(self) -> u32 {
        match self {
            Self::Muster(relay) => crate::join::Server::pid(relay),
            Self::Other { pid } => pid,
        }
    }

    fn counters(self) -> anyhow::Result<Counters> {
        match self {
            // The relay ends idle connections, so it is a new one each time.
            Self::Muster(relay) => relay.http()?.counters(),
            Self::Other { .. } => Ok(Counters::default()),
        }
    }
}

/// What has been spent until a moment.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    /// By the subject.
    cpu: CpuTime,
    /// By this thread, which plays the peers.
    busy_ns: u64,
}

impl Mark {
    fn take(subject: Subject) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            cpu: CpuTime::of(subject.pid())?,
            busy_ns: procfs::thread_busy_ns()?,
        })
    }

    /// Shares of a core that the subject and this thread took since `before`.
    fn loads_since(self, before: Self) -> (f64, f64) {
        let elapsed_ns = self.at.duration_since(before.at).as_nanos().max(1) as f64;
        let (cpu_ns, _, _) = self.cpu.since(before.cpu);
        let busy_ns = self.busy_ns.saturating_sub(before.busy_ns);
        (cpu_ns as f64 / elapsed_ns, busy_ns as f64 / elapsed_ns)
    }
}

/// Everything that is looked at twice.
pub struct Snapshot {
    /// When it was begun, and when it was done: looking costs the relay something too.
    begun: Mark,
    done: Mark,
    counters: Counters,
    socket_drops: u64,
    published: HashMap<SourceId, u64>,
    received: u64,
    resent: u64,
    unsent: u64,
}

impl Snapshot {
    pub fn take(subject: Subject, crowd: &Crowd) -> anyhow::Result<Self> {
        Ok(Self {
            begun: Mark::take(subject)?,
            counters: subject.counters()?,
            socket_drops: procfs::socket_drops(&crowd.ports())?,
            published: crowd.published(),
            received: crowd.received(),
            resent: crowd.resent(),
            unsent: crowd.unsent(),
            done: Mark::take(subject)?,
        })
    }
}

/// What lies between two snapshots.
pub struct Between {
    /// CPU time of the subject, in nanoseconds.
    pub total: u64,
    user: u64,
    system: u64,
    /// RTP packets that the relay counts as sent, and the calls it took.
    sent: Option<u64>,
    calls: u64,
    relay_p99_ms: Option<f64>,
    /// Packets that came to the viewers.
    pub received: u64,
    resent: u64,
    pub load: f64,
    pub generator_load: f64,
    pub generator_limited: bool,
}

impl Between {
    /// The load was on from one to the other.
    pub fn of(before: &Snapshot, after: &Snapshot) -> Self {
        Self::loaded_until(before, after.begun, after)
    }

    /// The load was on until `rest`. Only the loads are of that time, since what was sent by then may still be under way.
    fn loaded_until(before: &Snapshot, rest: Mark, after: &Snapshot) -> Self {
        let counted = |name: &str| after.counters.since(&before.counters, name);
        let (total, user, system) = after.begun.cpu.since(before.done.cpu);
        let (load, generator_load) = rest.loads_since(before.done);
        let lost = after.socket_drops > before.socket_drops || after.unsent > before.unsent;
        let not_sent = counted("muster_relay_dropped_total{reason=\"not_sent\"}");
        let sent = counted("muster_relay_packets_out_total").saturating_sub(not_sent);
        let p99 = after.counters.percentile_since(&before.counters, IN_RELAY, 99);
        Self {
            total,
            user,
            system,
            sent: (sent > 0).then_some(sent),
            calls: counted("muster_relay_send_calls_total"),
            relay_p99_ms: p99.map(|seconds| rounded(seconds * 1000.0, 3)),
            received: after.received - before.received,
            resent: after.resent - before.resent,
            load,
            generator_load,
            generator_limited: lost || generator_load > BUSY,
        }
    }
}

/// What a window says, as it stands in a line.
#[derive(Serialize)]
pub struct Measured {
    ns_per_packet: u64,
    /// None if nothing came.
    pub ns_per_received: Option<u64>,
    user_ns: u64,
    sys_ns: u64,
    pub delivered: f64,
    p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub relay_p99_ms: Option<f64>,
    packets_per_send: Option<f64>,
    packets_per_s: u64,
    resent: u64,
    layer_changes: u64,
    pub rss_mb: f64,
    pub relay_load: f64,
    generator_load: f64,
    pub generator_limited: bool,
    gro: bool,
    wake: bool,
}

/// Measures for a while with all cameras on. They ran before.
pub fn window(
    subject: Subject,
    crowd: &mut Crowd,
    time: Duration,
    taking: Taking,
) -> anyhow::Result<Measured> {
    crowd.publish(false);
    settle(crowd)?;
    crowd.start_window();
    let before = Snapshot::take(subject, crowd)?;
    crowd.publish(true);
    crowd.play(time)?;
    let rest = Mark::take(subject)?;
    crowd.publish(false);
    crowd.play(REST)?;
    let after = Snapshot::take(subject, crowd)?;

    let between = Between::loaded_until(&before, rest, &after);
    let sent = between.sent.unwrap_or(between.received);
    ensure!(sent > 0, "nothing was sent");
    let (layer_changes, renumbered) = crowd.streams().fold((0, 0), |(switches, renumbered), stream| {
        (switches + stream.switches, renumbered + stream.renumbered)
    });
    if renumbered > 0 {
        eprintln!("{renumbered} times packets between were left out or added by the relay");
    }
    let due = due(&before, &after, crowd);
    let mut latencies = crowd.latencies(usize::MAX);
    let a_packet = |ns: u64| ns / sent;
    Ok(Measured {
        ns_per_packet: a_packet(between.total),
        ns_per_received: between.total.checked_div(between.received),
        user_ns: a_packet(between.user),
        sys_ns: a_packet(between.system),
        delivered: rounded(between.received as f64 / due.max(1) as f64, 6),
        p50_ms: latencies.percentile_ms(50),
        p99_ms: latencies.percentile_ms(99),
        relay_p99_ms: between.relay_p99_ms,
        packets_per_send: (between.calls > 0).then(|| rounded(sent as f64 / between.calls as f64, 2)),
        packets_per_s: (sent as f64 / time.as_secs_f64()) as u64,
        resent: between.resent,
        layer_changes,
        rss_mb: rounded(procfs::resident_mb(subject.pid())?, 1),
        relay_load: rounded(between.load, 3),
        generator_load: rounded(between.generator_load, 3),
        generator_limited: between.generator_limited,
        gro: taking.gro,
        wake: taking.wake,
    })
}

/// Packets that were sent meanwhile of the layer that is in each slot at the end.
fn due(before: &Snapshot, after: &Snapshot, crowd: &Crowd) -> u64 {
    let sent = |source: SourceId| {
        let at = |snapshot: &Snapshot| snapshot.published.get(&source).copied().unwrap_or(0);
        at(after) - at(before)
    };
    let sources = crowd.streams().filter_map(|stream| stream.source);
    sources.map(sent).sum()
}

/// Plays the peers until nothing comes any more.
fn settle(crowd: &mut Crowd) -> anyhow::Result<()> {
    for _ in 0..MOST_RESTS {
        let before = crowd.received();
        crowd.play(REST)?;
        if crowd.received() == before {
            return Ok(());
        }
    }
    anyhow::bail!("the server is still sending what it was given long ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_shares_of_the_time_that_passed() {
        let before = Mark {
            at: Instant::now(),
            cpu: CpuTime {
                total_ns: 7_000_000_000,
                ..CpuTime::default()
            },
            busy_ns: 2_000_000_000,
        };
        let after = Mark {
            at: before.at + Duration::from_secs(4),
            cpu: CpuTime {
                total_ns: 10_000_000_000,
                ..CpuTime::default()
            },
            busy_ns: 3_000_000_000,
        };
        assert_eq!(after.loads_since(before), (0.75, 0.25));
    }

    #[test]
    fn what_is_spent_in_the_rest_counts_for_packets_and_not_for_loads() {
        let start = Instant::now();
        let mark = |ms: u64, cpu_ms: u64| Mark {
            at: start + Duration::from_millis(ms),
            cpu: CpuTime {
                total_ns: cpu_ms * 1_000_000,
                ..CpuTime::default()
            },
            busy_ns: cpu_ms * 2_000_000,
        };
        let snapshot = |begun, done, received| Snapshot {
            begun,
            done,
            counters: Counters::default(),
            socket_drops: 0,
            published: HashMap::new(),
            received,
            resent: 0,
            unsent: 0,
        };
        let before = snapshot(mark(0, 0), mark(1000, 100), 10);
        let after = snapshot(mark(3500, 600), mark(4000, 900), 60);
        let between = Between::loaded_until(&before, mark(3000, 580), &after);
        assert_eq!((between.total, between.received), (500_000_000, 50));
        assert_eq!((between.load, between.generator_load), (0.24, 0.48));
        assert_eq!(Between::of(&before, &after).load, 0.2);
    }
}

//! A measured window: everything is looked at before and after it, and what lies between makes a line of JSON.
//!
//! The cameras rest before the window until all is through, and after it for a moment, so that what is due and what
//! came are counted of the same packets; what comes later than that moment has not come.

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

/// Everything that is looked at twice.
pub struct Snapshot {
    /// Time and CPU time when it was begun, and when it was done: looking costs the relay something too.
    begun: (Instant, CpuTime),
    done: (Instant, CpuTime),
    counters: Counters,
    busy_ns: u64,
    socket_drops: u64,
    published: HashMap<SourceId, u64>,
    received: u64,
    resent: u64,
    unsent: u64,
}

impl Snapshot {
    pub fn take(subject: Subject, crowd: &Crowd) -> anyhow::Result<Self> {
        let clock = || anyhow::Ok((Instant::now(), CpuTime::of(subject.pid())?));
        Ok(Self {
            begun: clock()?,
            counters: subject.counters()?,
            socket_drops: procfs::socket_drops(&crowd.ports())?,
            published: crowd.published(),
            received: crowd.received(),
            resent: crowd.resent(),
            unsent: crowd.unsent(),
            busy_ns: procfs::thread_busy_ns()?,
            done: clock()?,
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
    pub fn of(before: &Snapshot, after: &Snapshot) -> Self {
        let counted = |name: &str| after.counters.since(&before.counters, name);
        let ((begun, cpu_before), (ended, cpu_after)) = (before.done, after.begun);
        let (total, user, system) = cpu_after.since(cpu_before);
        let elapsed_ns = ended.duration_since(begun).as_nanos() as f64;
        let generator_load = (after.busy_ns - before.busy_ns) as f64 / elapsed_ns;
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
            load: total as f64 / elapsed_ns,
            generator_load,
            generator_limited: lost || generator_load > BUSY,
        }
    }
}

/// What a window says, as it stands in a line.
#[derive(Serialize)]
pub struct Measured {
    pub ns_per_packet: u64,
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
    crowd.publish(false);
    crowd.play(REST)?;
    let after = Snapshot::take(subject, crowd)?;

    let between = Between::of(&before, &after);
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

//! `muster-bench forward`: what a forwarded packet costs.
//!
//! The camera rests before the window until all is through, and after it for a moment, so that what is due and what
//! came are counted of the same packets; what comes later than that moment has not come.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use crate::args::ForwardArgs;
use crate::crowd::Crowd;
use crate::http::Http;
use crate::procfs::{self, CpuTime};
use crate::relay::RelayProcess;
use crate::stats::rounded;

/// Of a 1080p camera at 2.6 Mbit/s.
const PACKETS_A_FRAME: u32 = 9;
/// What is asked of the relay at 200 subscribers.
const TARGET_NS: u64 = 1600;
/// Viewers decrypt one packet of so many; prime to 9, so that every place in a frame has its turn.
const SAMPLE: u64 = 64;
const WARM_UP: Duration = Duration::from_secs(1);
/// What is not through after this is late.
const REST: Duration = Duration::from_millis(300);
/// An overloaded relay may need long.
const MOST_RESTS: usize = 50;
/// Above this share of the time the thread that plays the peers is the limit.
const BUSY: f64 = 0.9;

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    subs: u16,
    workers: u16,
    ns_per_packet: u64,
    user_ns: u64,
    sys_ns: u64,
    target: u64,
    delivered: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    packets_per_send: f64,
    rss_mb: f64,
    relay_load: f64,
    generator_load: f64,
    generator_limited: bool,
}

pub fn run(args: &ForwardArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    for &subs in &args.subs {
        let line = measure(subs, args)?;
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

/// Everything that is looked at twice.
pub struct Snapshot {
    /// Time and CPU time when it was begun, and when it was done: looking costs the relay something too.
    begun: (Instant, CpuTime),
    done: (Instant, CpuTime),
    counters: HashMap<String, u64>,
    busy_ns: u64,
    socket_drops: u64,
    published: u64,
    received: u64,
    unsent: u64,
}

impl Snapshot {
    pub fn take(relay: &RelayProcess, crowd: &Crowd) -> anyhow::Result<Self> {
        let clock = || anyhow::Ok((Instant::now(), CpuTime::of(relay.pid())?));
        Ok(Self {
            begun: clock()?,
            // The relay ends idle connections, so it is a new one each time.
            counters: Http::connect(relay.http)?.counters()?,
            socket_drops: procfs::socket_drops(&crowd.ports())?,
            published: crowd.published(),
            received: crowd.received(),
            unsent: crowd.unsent,
            busy_ns: procfs::thread_busy_ns()?,
            done: clock()?,
        })
    }
}

/// What lies between two snapshots.
pub struct Between {
    pub elapsed_ns: f64,
    /// Of the relay, in nanoseconds.
    pub total: u64,
    user: u64,
    system: u64,
    /// RTP packets that the relay sent, and the calls it took.
    sent: u64,
    calls: u64,
    published: u64,
    received: u64,
    pub generator_load: f64,
    pub generator_limited: bool,
}

impl Between {
    pub fn of(before: &Snapshot, after: &Snapshot) -> Self {
        let counted = |name: &str| {
            let at = |snapshot: &Snapshot| snapshot.counters.get(name).copied().unwrap_or(0);
            at(after) - at(before)
        };
        let ((begun, cpu_before), (ended, cpu_after)) = (before.done, after.begun);
        let (total, user, system) = cpu_after.since(cpu_before);
        let elapsed_ns = ended.duration_since(begun).as_nanos() as f64;
        let generator_load = (after.busy_ns - before.busy_ns) as f64 / elapsed_ns;
        let lost = after.socket_drops > before.socket_drops || after.unsent > before.unsent;
        let not_sent = counted("muster_relay_dropped_total{reason=\"not_sent\"}");
        Self {
            elapsed_ns,
            total,
            user,
            system,
            sent: counted("muster_relay_packets_out_total").saturating_sub(not_sent),
            calls: counted("muster_relay_send_calls_total"),
            published: after.published - before.published,
            received: after.received - before.received,
            generator_load,
            generator_limited: lost || generator_load > BUSY,
        }
    }
}

fn measure(subs: u16, args: &ForwardArgs) -> anyhow::Result<Line> {
    let relay = RelayProcess::start(args.workers)?;
    let mut crowd = Crowd::new(PACKETS_A_FRAME, SAMPLE)?;
    let viewers: Vec<String> = (0..subs).map(|n| format!("viewer-{n}")).collect();
    crowd.assemble(&relay, &viewers)?;
    play(&mut crowd, WARM_UP)?;
    crowd.publish(false);
    settle(&mut crowd)?;

    crowd.start_window();
    let before = Snapshot::take(&relay, &crowd)?;
    crowd.publish(true);
    play(&mut crowd, Duration::from_secs(args.seconds.into()))?;
    crowd.publish(false);
    play(&mut crowd, REST)?;
    let after = Snapshot::take(&relay, &crowd)?;

    let between = Between::of(&before, &after);
    ensure!(between.sent > 0, "the relay has sent nothing");
    let a_packet = |ns: u64| ns / between.sent;
    let due = between.published * u64::from(subs);
    let mut latencies = crowd.latencies(subs.into());
    if crowd.repeated() > 0 {
        eprintln!("{} packets came a second time", crowd.repeated());
    }
    Ok(Line {
        bench: "forward",
        subs,
        workers: args.workers,
        ns_per_packet: a_packet(between.total),
        user_ns: a_packet(between.user),
        sys_ns: a_packet(between.system),
        target: TARGET_NS,
        delivered: rounded(between.received as f64 / due as f64, 6),
        p50_ms: latencies.percentile_ms(50),
        p99_ms: latencies.percentile_ms(99),
        packets_per_send: rounded(between.sent as f64 / between.calls.max(1) as f64, 2),
        rss_mb: rounded(procfs::resident_mb(relay.pid())?, 1),
        relay_load: rounded(between.total as f64 / between.elapsed_ns, 3),
        generator_load: rounded(between.generator_load, 3),
        generator_limited: between.generator_limited,
    })
}

/// Plays the peers until nothing comes any more.
fn settle(crowd: &mut Crowd) -> anyhow::Result<()> {
    for _ in 0..MOST_RESTS {
        let before = crowd.received();
        play(crowd, REST)?;
        if crowd.received() == before {
            return Ok(());
        }
    }
    anyhow::bail!("the relay is still sending what it was given long ago")
}

/// Plays the peers for a while. Errors: a peer met something that must not be.
fn play(crowd: &mut Crowd, time: Duration) -> anyhow::Result<()> {
    crowd.run(time, |crowd| !crowd.failures.is_empty())?;
    ensure!(crowd.failures.is_empty(), "{:?}", crowd.failures);
    Ok(())
}

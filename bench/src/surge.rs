//! `muster-bench surge`: what a join costs when many come at once.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::SurgeArgs;
use crate::crowd::Crowd;
use crate::forward::{Between, Snapshot};
use crate::http::Http;
use crate::procfs;
use crate::relay::RelayProcess;
use crate::stats::{Sample, rounded};

/// Those who watch already.
const BEFORE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECTIONS: usize = 16;
/// What is asked of the relay for a join, in milliseconds of CPU.
const TARGET_CPU_MS: f64 = 1.5;

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    joins: u16,
    workers: u16,
    joined: usize,
    per_s: f64,
    cpu_ms_per_join: f64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    target_cpu_ms: f64,
    viewers_p99_ms: Option<f64>,
    relay_load: f64,
    generator_load: f64,
    generator_limited: bool,
}

pub fn run(args: &SurgeArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    let relay = RelayProcess::start(args.workers)?;
    let mut crowd = Crowd::new(1)?;
    let viewers =
        |range: std::ops::Range<usize>| -> Vec<String> { range.map(|n| format!("viewer-{n}")).collect() };
    crowd.assemble(&relay, &viewers(0..BEFORE))?;
    crowd.run(Duration::from_secs(1), |_| false)?;
    let all = BEFORE + usize::from(args.joins);
    let mut http = Http::connect(relay.http)?;

    crowd.start_window();
    let before = Snapshot::take(&relay, &mut http, &crowd)?;
    let start = Instant::now();
    crowd.join(&relay, &viewers(BEFORE..all), CONNECTIONS)?;
    crowd.run(PATIENCE, |crowd| crowd.watching + crowd.failures.len() >= all)?;
    let after = Snapshot::take(&relay, &mut http, &crowd)?;

    for failure in &crowd.failures {
        eprintln!("{failure:#}");
    }
    let joins = crowd
        .viewers()
        .skip(BEFORE)
        .filter_map(|viewer| viewer.first_media);
    let times: Vec<Duration> = joins.map(|at| at.saturating_duration_since(start)).collect();
    let mut latencies = Sample::default();
    times
        .iter()
        .for_each(|time| latencies.add(time.as_micros() as u64));
    let last = times.iter().max().copied().unwrap_or(PATIENCE);
    let between = Between::of(&before, &after);
    let line = Line {
        bench: "surge",
        joins: args.joins,
        workers: args.workers,
        joined: times.len(),
        per_s: rounded(times.len() as f64 / last.as_secs_f64(), 1),
        cpu_ms_per_join: rounded(between.total as f64 / 1e6 / times.len().max(1) as f64, 3),
        p50_ms: latencies.percentile_ms(50),
        p95_ms: latencies.percentile_ms(95),
        target_cpu_ms: TARGET_CPU_MS,
        viewers_p99_ms: crowd.latencies(BEFORE).percentile_ms(99),
        relay_load: rounded(between.total as f64 / between.elapsed_ns, 3),
        generator_load: rounded(between.generator_load, 3),
        generator_limited: between.generator_limited,
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

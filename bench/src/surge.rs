//! `muster-bench surge`: what a join costs when many come at once.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::SurgeArgs;
use crate::crowd::Crowd;
use crate::forward::{Between, Snapshot};
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
    keys_p50_ms: Option<f64>,
    keys_p95_ms: Option<f64>,
    target_cpu_ms: f64,
    viewers_p99_ms: Option<f64>,
    relay_load: f64,
    generator_load: f64,
    generator_limited: bool,
}

pub fn run(args: &SurgeArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    let relay = RelayProcess::start(args.workers)?;
    let mut crowd = Crowd::new(1, 1)?;
    let viewers =
        |range: std::ops::Range<usize>| -> Vec<String> { range.map(|n| format!("viewer-{n}")).collect() };
    crowd.assemble(&relay, &viewers(0..BEFORE))?;
    crowd.run(Duration::from_secs(1), |_| false)?;
    let all = BEFORE + usize::from(args.joins);

    crowd.start_window();
    let before = Snapshot::take(&relay, &crowd)?;
    let start = Instant::now();
    crowd.join(&relay, &viewers(BEFORE..all), CONNECTIONS)?;
    crowd.run(PATIENCE, |crowd| crowd.watching + crowd.failures.len() >= all)?;
    let after = Snapshot::take(&relay, &crowd)?;

    for failure in &crowd.failures {
        eprintln!("{failure:#}");
    }
    let first_media = crowd
        .viewers()
        .skip(BEFORE)
        .filter_map(|viewer| viewer.first_media);
    let (joined, last, mut media) = since(start, first_media);
    let (_, _, mut keys) = since(start, crowd.connected_at(BEFORE));
    let between = Between::of(&before, &after);
    let line = Line {
        bench: "surge",
        joins: args.joins,
        workers: args.workers,
        joined,
        per_s: rounded(joined as f64 / last.as_secs_f64(), 1),
        cpu_ms_per_join: rounded(between.total as f64 / 1e6 / joined.max(1) as f64, 3),
        p50_ms: media.percentile_ms(50),
        p95_ms: media.percentile_ms(95),
        keys_p50_ms: keys.percentile_ms(50),
        keys_p95_ms: keys.percentile_ms(95),
        target_cpu_ms: TARGET_CPU_MS,
        viewers_p99_ms: crowd.latencies(BEFORE).percentile_ms(99),
        relay_load: rounded(between.total as f64 / between.elapsed_ns, 3),
        generator_load: rounded(between.generator_load, 3),
        generator_limited: between.generator_limited,
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

/// How many there are, how long the last took, and all in microseconds.
fn since(start: Instant, times: impl Iterator<Item = Instant>) -> (usize, Duration, Sample) {
    let mut sample = Sample::default();
    let (mut count, mut last) = (0, Duration::from_micros(1));
    for at in times {
        let time = at.saturating_duration_since(start);
        sample.add(time.as_micros() as u64);
        (count, last) = (count + 1, last.max(time));
    }
    (count, last, sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_from_the_start_of_all() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let (count, last, mut sample) = since(start, [after(7), after(30), after(2)].into_iter());
        assert_eq!((count, last), (3, Duration::from_millis(30)));
        assert_eq!(sample.percentile_ms(50), Some(7.0));
        assert_eq!(since(start, std::iter::empty()).0, 0);
    }
}

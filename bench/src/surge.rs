//! `muster-bench surge`: what a join costs when many come at once.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::SurgeArgs;
use crate::camera::Script;
use crate::crowd::Crowd;
use crate::join::{Plan, View};
use crate::measure::{Between, Snapshot, Subject};
use crate::procfs;
use crate::relay::{MEETING, RelayProcess};
use crate::stats::{Sample, rounded};

const PUBLISHER: &str = "publisher";
const THUMBNAIL: Script = Script::Even {
    packets: 1,
    bytes: 1200,
};
/// Those who watch already.
const BEFORE: usize = 10;
/// They are looked at so long before the others come.
const QUIET: Duration = Duration::from_secs(3);
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
    viewers_p99_before_ms: Option<f64>,
    viewers_p99_ms: Option<f64>,
    relay_load: f64,
    generator_load: f64,
    generator_limited: bool,
    gro: bool,
    wake: bool,
}

pub fn run(args: &SurgeArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    let taking = args.common.taking();
    let relay = RelayProcess::start(args.common.workers, None)?;
    let subject = Subject::Muster(&relay);
    let mut crowd = Crowd::new(1, taking)?;
    let publisher = Plan {
        publishes: Some(THUMBNAIL),
        views: Vec::new(),
        ..viewer(PUBLISHER)
    };
    let watch = (0..BEFORE).map(|n| viewer(&format!("watch-{n}")));
    crowd.assemble(&relay, std::iter::once(publisher).chain(watch).collect())?;
    crowd.play(Duration::from_secs(1))?;
    let there = 1 + BEFORE;
    crowd.start_window();
    crowd.play(QUIET)?;
    let quiet_p99_ms = crowd.latencies(there).percentile_ms(99);

    let all = there + usize::from(args.joins);
    crowd.start_window();
    let before = Snapshot::take(subject, &crowd)?;
    let start = Instant::now();
    let joins = (0..args.joins).map(|n| viewer(&format!("viewer-{n}"))).collect();
    crowd.join(&relay, joins, CONNECTIONS)?;
    crowd.run(PATIENCE, |crowd| {
        crowd.watched() + 1 + crowd.failures.len() >= all
    })?;
    let after = Snapshot::take(subject, &crowd)?;

    for failure in &crowd.failures {
        eprintln!("{failure:#}");
    }
    let (keys, first_media) = crowd.times(there);
    let (joined, last, mut media) = since(start, first_media);
    let (_, _, mut keys) = since(start, keys);
    let between = Between::of(&before, &after);
    let line = Line {
        bench: "surge",
        joins: args.joins,
        workers: args.common.workers,
        joined,
        per_s: rounded(joined as f64 / last.as_secs_f64(), 1),
        cpu_ms_per_join: rounded(between.total as f64 / 1e6 / joined.max(1) as f64, 3),
        p50_ms: media.percentile_ms(50),
        p95_ms: media.percentile_ms(95),
        keys_p50_ms: keys.percentile_ms(50),
        keys_p95_ms: keys.percentile_ms(95),
        target_cpu_ms: TARGET_CPU_MS,
        viewers_p99_before_ms: quiet_p99_ms,
        viewers_p99_ms: crowd.latencies(there).percentile_ms(99),
        relay_load: rounded(between.load, 3),
        generator_load: rounded(between.generator_load, 3),
        generator_limited: between.generator_limited,
        gro: taking.gro,
        wake: taking.wake,
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

fn viewer(site: &str) -> Plan {
    Plan {
        meeting: MEETING.to_owned(),
        site: site.to_owned(),
        publishes: None,
        views: vec![View::Camera {
            site: PUBLISHER.to_owned(),
            max_height: 0,
        }],
    }
}

/// How many there are, how long the last took, and all in microseconds.
fn since(start: Instant, times: Vec<Instant>) -> (usize, Duration, Sample) {
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
        let (count, last, mut sample) = since(start, vec![after(7), after(30), after(2)]);
        assert_eq!((count, last), (3, Duration::from_millis(30)));
        assert_eq!(sample.percentile_ms(50), Some(7.0));
        assert_eq!(since(start, Vec::new()).0, 0);
    }
}

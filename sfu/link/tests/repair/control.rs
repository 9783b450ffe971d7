//! Congestion control by itself: links that are made for it.

use std::sync::Arc;

use muster_link::repair::Terms;
use muster_linkshape::{Profile, Row};

use crate::sim::{Look, Outcome, Run};

const SECOND: u64 = 1_000_000;

/// Rows of so many seconds each, played once.
fn play(rows: &[(u64, Row)], seed: u64) -> Outcome {
    let mut from_us = 0;
    let mut all = Vec::new();
    for (seconds, row) in rows {
        all.push(Row { from_us, ..*row });
        from_us += seconds * SECOND;
    }
    let profile = Profile::from_rows("made", all, from_us).expect("rows");
    let run = Run {
        profile: Arc::new(profile),
        seed,
        seconds: from_us / SECOND,
        terms: Terms {
            video_deadline: 400_000,
            audio_deadline: 400_000,
        },
        most: 2_500_000,
    };
    run.play()
}

fn row(rate_kbps: u32) -> Row {
    Row {
        rate_kbps,
        queue_ms: 500,
        delay_us: 25_000,
        jitter_us: 2_000,
        ..Row::default()
    }
}

fn between(run: &Outcome, from: u64, to: u64) -> impl Iterator<Item = &Look> {
    run.trace
        .iter()
        .filter(move |look| (from * SECOND..to * SECOND).contains(&look.at))
}

/// What is lost at random does not lower the rate: the source goes on at all that it has.
#[test]
fn random_loss_does_not_starve() {
    for loss in [0.02, 0.1, 0.3] {
        let lossy = Row {
            loss_good: loss,
            loss_bad: loss,
            ..row(8_000)
        };
        let run = play(&[(20, lossy)], 1);
        let least = between(&run, 3, 20).map(|look| look.source).min();
        assert!(least > Some(2_500_000), "{loss}: {least:?}");
        assert!(run.rate > 2_300_000, "{loss}: {}", run.rate);
    }
}

/// From 8 to 1 Mbit/s and back: over 100 ms of queue for no longer than a second, all that the source has within 3 s.
#[test]
fn a_cliff_and_back() {
    for seed in 1..=3 {
        let run = play(&[(15, row(8_000)), (15, row(1_000)), (10, row(8_000))], seed);
        assert!(run.standing <= SECOND, "{seed}: {} us", run.standing);
        let before = between(&run, 5, 15).map(|look| look.source).min();
        assert!(before > Some(2_500_000), "{seed}: {before:?}");
        // No starving at the bottom either.
        let low =
            between(&run, 18, 30).map(|look| look.rate).sum::<u64>() / between(&run, 18, 30).count() as u64;
        assert!((650_000..1_100_000).contains(&low), "{seed}: {low}");
        let back = between(&run, 30, 40)
            .find(|look| look.source >= 2_500_000)
            .expect("back");
        assert!(back.at <= 33 * SECOND, "{seed}: {} us", back.at - 30 * SECOND);
    }
}

/// A link that is filled keeps a short queue, and is used.
#[test]
fn a_full_link_has_a_short_queue() {
    for kbps in [500, 1_000, 2_000] {
        let runs: Vec<_> = (1..=3).map(|seed| play(&[(30, row(kbps))], seed)).collect();
        let mut queues: Vec<_> = runs
            .iter()
            .flat_map(|run| between(run, 3, 30))
            .map(|look| look.queue)
            .collect();
        queues.sort_unstable();
        let p95 = queues[queues.len() * 95 / 100];
        assert!(p95 <= 100_000, "{kbps}: {p95} us");
        let run = &runs[0];
        let used =
            between(run, 3, 30).map(|look| look.rate).sum::<u64>() / between(run, 3, 30).count() as u64;
        assert!(used > u64::from(kbps) * 700, "{kbps}: {used}");
    }
}

//! `muster-bench attach`: everybody comes back at once after the control plane was killed.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_identity::Rank;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::args::AttachArgs;
use super::clients::Dispatcher;
use super::seat::{News, Seat, What};
use super::{Plane, agents, authority, tree};
use crate::procfs;
use crate::stats::{Sample, rounded};

const PATIENCE: Duration = Duration::from_secs(60);
const TIERS: [&str; 4] = ["city", "district", "street", "community"];

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    endpoints: usize,
    tier: &'static str,
    attached: usize,
    lost: usize,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    all_ms: Option<f64>,
    told_to_wait: usize,
    failed: usize,
    told_wait_p50_ms: Option<f64>,
    cpu_s: f64,
}

/// What befell each endpoint since everybody came back.
#[derive(Default, Clone)]
struct Fate {
    attached_us: Option<u64>,
    waits_ms: Vec<u64>,
    failed: usize,
}

pub fn run(args: &AttachArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(args))
}

async fn measure(args: &AttachArgs) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let plane = Plane::start(data.path(), None)?;
    Dispatcher::sign_in(plane.addr)
        .await?
        .import(tree::csv(args.endpoints))
        .await?;
    let (hear, mut news) = unbounded_channel();
    let (open, door) = watch::channel(true);
    let mut tasks = JoinSet::new();
    let credentials = agents(&authority(data.path())?, (0..args.endpoints).map(tree::site))?;
    for (number, credentials) in credentials.into_iter().enumerate() {
        let (agents_addr, news, mut door) = (plane.agents_addr, hear.clone(), door.clone());
        let seat = Seat {
            number,
            agents_addr,
            credentials,
            news,
            rank: Rank::default(),
        };
        tasks.spawn(async move {
            // All wait at the door until the control plane listens again, and then come at once.
            while door.wait_for(|open| *open).await.is_ok() {
                if let Err(error) = seat.sit().await {
                    eprintln!("endpoint {}: {error:#}", seat.number);
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let count = args.endpoints as usize;
    gather(&mut news, count, Instant::now()).await;

    open.send(false)?;
    let ports = (plane.addr, plane.agents_addr);
    plane.kill()?;
    let plane = Plane::start(data.path(), Some(ports)).context("the second start")?;
    let start = Instant::now();
    open.send(true)?;
    let fates = gather(&mut news, count, start).await;
    let cpu_s = plane.cpu_s(procfs::CpuTime::default())?;
    for tier in TIERS {
        let of_tier = |(n, _): &(usize, &Fate)| tree::tier(*n as u32) == tier;
        let chosen = fates.iter().enumerate().filter(of_tier).map(|(_, fate)| fate);
        println!("{}", serde_json::to_string(&line(tier, chosen, cpu_s))?);
    }
    println!("{}", serde_json::to_string(&line("all", fates.iter(), cpu_s))?);
    Ok(())
}

/// Until so many are attached, or patience is over.
async fn gather(news: &mut UnboundedReceiver<News>, count: usize, start: Instant) -> Vec<Fate> {
    let mut fates = vec![Fate::default(); count];
    let mut attached = 0;
    let deadline = tokio::time::Instant::from_std(start + PATIENCE);
    while attached < count {
        let Ok(Some(News { seat, at, what })) = timeout_at(deadline, news.recv()).await else {
            eprintln!("{attached} of {count} are attached");
            break;
        };
        let fate = &mut fates[seat];
        match what {
            What::Attached if fate.attached_us.is_none() => {
                attached += 1;
                fate.attached_us = Some(at.saturating_duration_since(start).as_micros() as u64);
            }
            What::Told(wait) => fate.waits_ms.push(wait.as_millis() as u64),
            What::Failed(_) => fate.failed += 1,
            What::Attached | What::Summoned(_) => {}
        }
    }
    fates
}

fn line<'a>(tier: &'static str, fates: impl Iterator<Item = &'a Fate>, cpu_s: f64) -> Line {
    let (mut times, mut waits, mut endpoints, mut failed) = (Sample::default(), Sample::default(), 0, 0);
    for fate in fates {
        endpoints += 1;
        failed += fate.failed;
        fate.attached_us.iter().for_each(|&us| times.add(us));
        fate.waits_ms.iter().for_each(|&ms| waits.add(ms * 1000));
    }
    Line {
        bench: "attach",
        endpoints,
        tier,
        attached: times.count(),
        lost: endpoints - times.count(),
        p50_ms: times.percentile_ms(50),
        p99_ms: times.percentile_ms(99),
        all_ms: times.percentile_ms(100),
        told_to_wait: waits.count(),
        failed,
        told_wait_p50_ms: waits.percentile_ms(50),
        cpu_s: rounded(cpu_s, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_those_who_came_and_those_who_were_told_to_wait() {
        let came = Fate {
            attached_us: Some(2000),
            waits_ms: vec![500],
            failed: 1,
        };
        let line = line("all", [came, Fate::default()].iter(), 1.0);
        assert_eq!(
            (
                line.endpoints,
                line.attached,
                line.lost,
                line.told_to_wait,
                line.failed
            ),
            (2, 1, 1, 1, 1)
        );
        assert_eq!((line.all_ms, line.told_wait_p50_ms), (Some(2.0), Some(500.0)));
    }
}

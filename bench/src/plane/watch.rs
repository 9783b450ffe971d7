//! `muster-bench watch`: many sites come and go, and many watch.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use muster_proto::command::v1::watch_response::Event;
use muster_proto::command::v1::{Presence, WatchResponse};
use serde::Serialize;
use tokio::task::JoinSet;
use tonic::Streaming;

use super::args::WatchArgs;
use super::clients::Dispatcher;
use super::{Plane, tree};
use crate::procfs;
use crate::stats::{Sample, rounded};

/// Connections that the watchers share.
const CONNECTIONS: u16 = 20;
/// After the last change: what is not told by then is not told.
const SETTLE: Duration = Duration::from_secs(3);
const TARGET_P99_MS: u32 = 250;
const TARGET_BYTES: u32 = 400;

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    sites: u32,
    watchers: u16,
    bytes_per_site: i64,
    bytes_per_site_imported: i64,
    bytes_per_site_seen: i64,
    target_bytes: u32,
    snapshot_p99_ms: Option<f64>,
    changes_per_s: f64,
    told: u64,
    stale: usize,
    dropped: usize,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    target_p99_ms: u32,
    cpu_s: f64,
    cpu_load: f64,
}

pub fn run(args: &WatchArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(args))
}

async fn measure(args: &WatchArgs) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let (empty, idle, imported) = fill(data.path(), args.sites).await?;
    let bytes = |resident_mb: f64| ((resident_mb - empty) * 1e6 / f64::from(args.sites)) as i64;
    let mut plane = Plane::start(data.path(), None)?;
    let dispatcher = Dispatcher::sign_in(plane.addr).await?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS.min(args.watchers) {
        connections.push(dispatcher.again(plane.addr).await?);
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut starts = JoinSet::new();
    for number in 0..args.watchers {
        let dispatcher = connections[usize::from(number) % connections.len()].clone();
        starts.spawn(async move { Watcher::start(&dispatcher, number).await });
    }
    let (mut watchers, mut snapshots) = (JoinSet::new(), Sample::default());
    while let Some(started) = starts.join_next().await {
        let (watcher, us) = started??;
        snapshots.add(us);
        watchers.spawn(watcher.listen(stopped.clone()));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    let (before, start) = (plane.cpu()?, Instant::now());
    plane.tell(&format!(
        "inject {} {} {}",
        args.sites, args.changes, args.seconds
    ))?;
    let mut plane = tokio::task::spawn_blocking(move || plane.line().map(|made| (plane, made)));
    let (plane, made) = (&mut plane).await??;
    let (took, cpu_s) = (start.elapsed().as_secs_f64(), plane.cpu_s(before)?);
    tokio::time::sleep(SETTLE).await;
    stop.send(true)?;
    let newest: HashMap<_, _> = dispatcher
        .presence()
        .await?
        .into_iter()
        .map(|p| (p.site.clone(), p))
        .collect();
    let (mut sample, mut told, mut stale, mut dropped) = (Sample::default(), 0, 0, 0);
    while let Some(watcher) = watchers.join_next().await {
        let mut watcher = watcher?;
        told += watcher.told;
        stale += watcher.stale(&newest);
        dropped += usize::from(watcher.ended);
        sample.append(&mut watcher.latencies);
    }
    drop(plane);
    let seen = resident_after_start(data.path()).await?;
    let line = Line {
        bench: "watch",
        sites: args.sites,
        watchers: args.watchers,
        bytes_per_site: bytes(idle),
        bytes_per_site_imported: bytes(imported),
        bytes_per_site_seen: bytes(seen),
        target_bytes: TARGET_BYTES,
        snapshot_p99_ms: snapshots.percentile_ms(99),
        changes_per_s: rounded(made.parse::<f64>()? / took, 0),
        told,
        stale,
        dropped,
        p50_ms: sample.percentile_ms(50),
        p99_ms: sample.percentile_ms(99),
        target_p99_ms: TARGET_P99_MS,
        cpu_s: rounded(cpu_s, 3),
        cpu_load: rounded(cpu_s / took, 3),
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

/// Imports the city; gives the resident memory in MB of a control plane that has started and holds no site, of one that
/// holds them all, and of the one that imported them, which has not been started again.
async fn fill(data: &std::path::Path, sites: u32) -> anyhow::Result<(f64, f64, f64)> {
    let plane = Plane::start(data, None)?;
    let dispatcher = Dispatcher::sign_in(plane.addr).await?;
    dispatcher.import(tree::csv(0)).await?;
    drop(plane);
    let empty = resident_after_start(data).await?;
    let plane = Plane::start(data, None)?;
    let dispatcher = Dispatcher::sign_in(plane.addr).await?;
    dispatcher.import(tree::csv(sites)).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let imported = plane.resident_mb()?;
    drop(plane);
    Ok((empty, resident_after_start(data).await?, imported))
}

/// Signing in takes memory for a moment that the allocator keeps: it is in all of them.
async fn resident_after_start(data: &std::path::Path) -> anyhow::Result<f64> {
    let plane = Plane::start(data, None)?;
    Dispatcher::sign_in(plane.addr).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    plane.resident_mb()
}

/// One who watches, and what they know.
struct Watcher {
    stream: Streaming<WatchResponse>,
    known: HashMap<String, Presence>,
    latencies: Sample,
    told: u64,
    ended: bool,
}

/// What the watcher of this number watches.
fn units(number: u16) -> Vec<String> {
    let place = u32::from(number);
    match number % 20 {
        0 => vec![tree::ROOT.to_owned()],
        1..=3 => vec![tree::district(place)],
        _ => vec![tree::street(place)],
    }
}

impl Watcher {
    /// Gives the microseconds until the snapshot, too.
    async fn start(dispatcher: &Dispatcher, number: u16) -> anyhow::Result<(Self, u64)> {
        let start = Instant::now();
        let mut stream = dispatcher.watch(units(number)).await?;
        loop {
            let message = stream.message().await?.context("the stream ends at once")?;
            if let Some(Event::Snapshot(snapshot)) = message.event {
                let known = snapshot
                    .presence
                    .into_iter()
                    .map(|p| (p.site.clone(), p))
                    .collect();
                let watcher = Self {
                    stream,
                    known,
                    latencies: Sample::default(),
                    told: 0,
                    ended: false,
                };
                return Ok((watcher, start.elapsed().as_micros() as u64));
            }
        }
    }

    async fn listen(mut self, mut stopped: tokio::sync::watch::Receiver<bool>) -> Self {
        loop {
            let message = tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return self,
                message = self.stream.message() => message,
            };
            match message.map(|message| message.and_then(|message| message.event)) {
                Ok(Some(Event::Presence(changed))) => self.note(changed.presence),
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.ended = true;
                    return self;
                }
                Err(status) => {
                    eprintln!("a watcher's stream ended: {}", status.message());
                    self.ended = true;
                    return self;
                }
            }
        }
    }

    fn note(&mut self, presence: Vec<Presence>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros() as i64;
        for presence in presence {
            self.told += 1;
            self.latencies.add((now - presence.since_ms * 1000).max(0) as u64);
            self.known.insert(presence.site.clone(), presence);
        }
    }

    /// Sites of which it does not know the newest state.
    fn stale(&self, newest: &HashMap<String, Presence>) -> usize {
        let right = |(site, known): &(&String, &Presence)| newest.get(*site) == Some(*known);
        self.known.iter().filter(|entry| !right(entry)).count()
    }
}

//! `muster-bench command`: from one call to the endpoints of a whole city.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_identity::{Identity, Rank};
use muster_proto::command::v1::meeting_event::Event as Change;
use muster_proto::command::v1::watch_response::Event;
use muster_proto::command::v1::{SummonsState, WatchResponse};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Streaming;

use super::args::CommandArgs;
use super::clients::{Dispatcher, QuietRelay};
use super::seat::{News, Seat, What};
use super::{Plane, agents, authority, tree};
use crate::procfs;
use crate::stats::{Sample, rounded};

const PATIENCE: Duration = Duration::from_secs(30);
const TARGET_P99_MS: u32 = 300;

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    sites: u32,
    watchers: u16,
    round: u16,
    convened_ms: f64,
    delivered: usize,
    delivered_p50_ms: Option<f64>,
    delivered_p99_ms: Option<f64>,
    target_p99_ms: u32,
    told_p50_ms: Option<f64>,
    told_p99_ms: Option<f64>,
    cpu_s: f64,
}

pub fn run(args: &CommandArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(args))
}

/// Everything that is there before the call.
struct Scene {
    // First of all, so that they end before what they speak to.
    _tasks: JoinSet<()>,
    plane: Plane,
    dispatcher: Dispatcher,
    news: UnboundedReceiver<News>,
    told: UnboundedReceiver<Told>,
    _relay: QuietRelay,
    _data: tempfile::TempDir,
}

/// A watcher has been told that a site has its summons.
struct Told {
    watcher: u16,
    site: String,
    meeting: String,
    at: Instant,
}

async fn measure(args: &CommandArgs) -> anyhow::Result<()> {
    let mut scene = set(args).await?;
    for round in 1..=args.rounds {
        let line = scene.round(args, round).await?;
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

async fn set(args: &CommandArgs) -> anyhow::Result<Scene> {
    let data = tempfile::tempdir()?;
    let plane = Plane::start(data.path(), None)?;
    let dispatcher = Dispatcher::sign_in(plane.addr).await?;
    dispatcher.import(tree::csv(args.sites)).await?;
    let authority = authority(data.path())?;
    let relay = authority.credentials(Identity::Relay(format!("{}-bench", tree::ROOT)))?;
    let relay = QuietRelay::dial(plane.agents_addr, &relay).await?;
    let (mut tasks, (hear, mut news)) = (JoinSet::new(), unbounded_channel());
    for (number, credentials) in agents(&authority, (0..args.sites).map(tree::site))?
        .into_iter()
        .enumerate()
    {
        let (agents_addr, news) = (plane.agents_addr, hear.clone());
        let seat = Seat {
            number,
            agents_addr,
            credentials,
            news,
            rank: Rank::default(),
        };
        tasks.spawn(async move {
            if let Err(error) = seat.sit().await {
                eprintln!("endpoint {}: {error:#}", seat.number);
            }
        });
    }
    let mut attached = 0;
    while attached < args.sites {
        let news = timeout(PATIENCE, news.recv())
            .await
            .context("endpoints do not attach")?;
        match news.context("no endpoint is left")?.what {
            What::Attached => attached += 1,
            What::Failed(status) => eprintln!("an endpoint tries again: {status}"),
            What::Told(_) | What::Summoned(_) => {}
        }
    }
    let (tell, told) = unbounded_channel();
    for watcher in 0..args.watchers {
        let stream = dispatcher.again(plane.addr).await?.watch(Vec::new()).await?;
        tasks.spawn(listen(watcher, stream, tell.clone()));
    }
    // What the attaching left to do is not of the measurement.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(Scene {
        _tasks: tasks,
        plane,
        dispatcher,
        news,
        told,
        _relay: relay,
        _data: data,
    })
}

async fn listen(watcher: u16, mut stream: Streaming<WatchResponse>, told: UnboundedSender<Told>) {
    while let Ok(Some(message)) = stream.message().await {
        let Some(Event::MeetingEvent(event)) = message.event else {
            continue;
        };
        if let Some(Change::Summons(changed)) = event.event
            && let Some(summons) = changed.summons
            && summons.state() == SummonsState::Delivered
        {
            let (site, meeting, at) = (summons.site, event.meeting, Instant::now());
            let _ = told.send(Told {
                watcher,
                site,
                meeting,
                at,
            });
        }
    }
    eprintln!("the stream of watcher {watcher} has ended");
}

impl Scene {
    async fn round(&mut self, args: &CommandArgs, round: u16) -> anyhow::Result<Line> {
        let before = self.plane.cpu()?;
        let start = Instant::now();
        let meeting = self.dispatcher.convene().await?;
        let convened = start.elapsed();
        let mut delivered = self.delivered(&meeting, args.sites, start).await;
        let mut told = self.told(&meeting, args, start).await;
        let cpu_s = self.plane.cpu_s(before)?;
        self.dispatcher.end(&meeting).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        ensure!(!delivered.is_empty(), "no endpoint got its summons");
        let mut sample = Sample::default();
        delivered.drain().for_each(|(_, us)| sample.add(us));
        Ok(Line {
            bench: "command",
            sites: args.sites,
            watchers: args.watchers,
            round,
            convened_ms: rounded(convened.as_secs_f64() * 1000.0, 2),
            delivered: sample.count(),
            delivered_p50_ms: sample.percentile_ms(50),
            delivered_p99_ms: sample.percentile_ms(99),
            target_p99_ms: TARGET_P99_MS,
            told_p50_ms: told.percentile_ms(50),
            told_p99_ms: told.percentile_ms(99),
            cpu_s: rounded(cpu_s, 3),
        })
    }

    /// Microseconds to each endpoint, until all have it or patience is over.
    async fn delivered(&mut self, meeting: &str, sites: u32, start: Instant) -> HashMap<usize, u64> {
        let mut delivered = HashMap::new();
        let all = async {
            while delivered.len() < sites as usize {
                let Some(News { seat, at, what }) = self.news.recv().await else {
                    break;
                };
                if matches!(what, What::Summoned(of) if of == meeting) {
                    delivered.entry(seat).or_insert(micros(start, at));
                }
            }
        };
        let _ = timeout(PATIENCE, all).await;
        delivered
    }

    async fn told(&mut self, meeting: &str, args: &CommandArgs, start: Instant) -> Sample {
        let (mut sample, mut seen) = (Sample::default(), HashSet::new());
        let all = async {
            while seen.len() < args.sites as usize * usize::from(args.watchers) {
                let Some(told) = self.told.recv().await else {
                    break;
                };
                if told.meeting == meeting && seen.insert((told.watcher, told.site)) {
                    sample.add(micros(start, told.at));
                }
            }
        };
        let _ = timeout(PATIENCE, all).await;
        sample
    }
}

fn micros(start: Instant, at: Instant) -> u64 {
    at.saturating_duration_since(start).as_micros() as u64
}

//! `muster-bench failover`: the relay of a meeting is killed, and its agents come back at another.
//!
//! Every program is a process of its own but the agents, which are `muster-edge` run here, so that the moment of their
//! return is read as they see it and not by looking at files.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_edge::status::{State, Status};
use muster_edge::{Config, Source};
use muster_identity::{Authority, Identity};
use muster_testcard::PictureSize;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::args::FailoverArgs;
use super::clients::Dispatcher;
use super::{Plane, authority, tree};
use crate::procfs;
use crate::stats::Sample;

const PATIENCE: Duration = Duration::from_secs(30);
const TARGET_P99_MS: u32 = 2000;
/// So long everything is well before the kill.
const CALM: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    agents: u32,
    round: u16,
    back: usize,
    back_p50_ms: Option<f64>,
    back_p99_ms: Option<f64>,
    seen_p50_ms: Option<f64>,
    seen_p99_ms: Option<f64>,
    all_ms: Option<f64>,
    target_p99_ms: u32,
}

pub fn run(args: &FailoverArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(args))
}

/// A relay that belongs to the control plane. Dropping it kills it.
pub struct FleetRelay {
    child: Child,
    /// Where it says that its first link port is.
    pub link: SocketAddr,
}

impl FleetRelay {
    /// Starts the relay with this id, whose certificate is made if it has none.
    fn start(id: &str, data: &Path, authority: &Authority, agents_addr: SocketAddr) -> anyhow::Result<Self> {
        Self::start_at(id, data, authority, agents_addr, None)
    }

    /// The same, and it says that its ports are at `announced`.
    pub fn start_at(
        id: &str,
        data: &Path,
        authority: &Authority,
        agents_addr: SocketAddr,
        announced: Option<&str>,
    ) -> anyhow::Result<Self> {
        let identity_dir = data.join(id);
        if !identity_dir.exists() {
            let identity = Identity::Relay(id.to_owned());
            authority.credentials(identity)?.save(&identity_dir)?;
        }
        let mut child = Command::new(std::env::current_exe()?)
            .args([
                "relay",
                "--workers",
                "1",
                "--control-plane",
                &agents_addr.to_string(),
            ])
            .arg("--identity-dir")
            .arg(&identity_dir)
            .args(announced.iter().flat_map(|ip| ["--announce-ip", ip]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a relay does not start")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let link = line.trim().parse().context("a relay ended at its start")?;
        Ok(Self { child, link })
    }

    /// As a power cut does.
    fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for FleetRelay {
    fn drop(&mut self) {
        // Nothing to do about a child that cannot be killed.
        let _ = self.kill();
    }
}

/// An agent's state, as it changes.
type Seen = watch::Receiver<Status>;

async fn measure(args: &FailoverArgs) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let plane = Plane::start(data.path(), None)?;
    let dispatcher = Dispatcher::sign_in(plane.addr).await?;
    dispatcher.import(tree::csv(args.agents)).await?;
    let authority = authority(data.path())?;
    let ids = ["one", "two"].map(|name| format!("{}-{name}", tree::ROOT));
    let start = |id: &str| FleetRelay::start(id, data.path(), &authority, plane.agents_addr);
    let mut relays = [start(&ids[0])?, start(&ids[1])?];
    let mut tasks = JoinSet::new();
    let mut agents = Vec::new();
    for site in (0..args.agents).map(tree::site) {
        let identity_dir = data.path().join(&site);
        authority
            .credentials(Identity::Agent(site))?
            .save(&identity_dir)?;
        let (told, seen) = watch::channel(Status::default());
        agents.push(seen);
        let config = Config {
            control_plane: vec![plane.agents_addr.to_string()],
            identity_dir,
            enrol_token: None,
            source: Source::TestCard(PictureSize::P180_5),
            status: None,
            state_dir: None,
            page: None,
            recordings: None,
            watchers: Some(told),
            log: String::new(),
            utc_offset_minutes: 0,
            uplinks: Vec::new(),
            notifier: None,
        };
        tasks.spawn(muster_edge::run(config, std::future::pending()));
    }
    for round in 1..=args.rounds {
        let ready = |status: &Status| status.state == State::Attached && status.relay.is_some();
        all(&agents, "attached, with a warm link", ready).await?;
        let meeting = dispatcher.convene().await?;
        all(&agents, "on air", |status| status.state == State::OnAir).await?;
        dispatcher.broadcast(&meeting, tree::site(0)).await?;
        all(&agents, "shown the stage", is_whole).await?;
        tokio::time::sleep(CALM).await;
        let line = kill_one(&agents, &mut relays, (args.agents, round)).await?;
        println!("{}", serde_json::to_string(&line)?);
        dispatcher.end(&meeting).await?;
        for (relay, id) in relays.iter_mut().zip(&ids) {
            if relay.child.try_wait()?.is_some() {
                *relay = start(id)?;
            }
        }
    }
    Ok(())
}

/// In, seen, and shown the stage.
fn is_whole(status: &Status) -> bool {
    status.state == State::OnAir && status.stage_status == "live"
}

/// Waits until all agents are so.
async fn all(agents: &[Seen], what: &str, so: impl Fn(&Status) -> bool) -> anyhow::Result<()> {
    for seen in agents {
        let mut seen = seen.clone();
        let outcome = timeout(PATIENCE, seen.wait_for(&so))
            .await
            .map(|found| found.is_ok());
        ensure!(
            outcome == Ok(true),
            "an agent is not {what}: {:?}",
            *seen.borrow()
        );
    }
    Ok(())
}

async fn kill_one(
    agents: &[Seen],
    relays: &mut [FleetRelay],
    (count, round): (u32, u16),
) -> anyhow::Result<Line> {
    let at = agents.first().and_then(|seen| seen.borrow().relay.clone());
    let at = at.context("the first agent has no link")?;
    let killed = relays
        .iter_mut()
        .find(|relay| relay.link.to_string() == at)
        .context("the meeting is at none of the relays")?;
    let start = Instant::now();
    killed.kill()?;
    let mut waiting = JoinSet::new();
    for seen in agents {
        waiting.spawn(timeout(PATIENCE, come_back(seen.clone(), at.clone(), start)));
    }
    let (mut back, mut whole) = (Sample::default(), Sample::default());
    while let Some(outcome) = waiting.join_next().await {
        let Ok(Ok((in_us, seen_us))) = outcome.context("a task panicked")? else {
            continue;
        };
        back.add(in_us);
        whole.add(seen_us);
    }
    Ok(Line {
        bench: "failover",
        agents: count,
        round,
        back: back.count(),
        back_p50_ms: back.percentile_ms(50),
        back_p99_ms: back.percentile_ms(99),
        seen_p50_ms: whole.percentile_ms(50),
        seen_p99_ms: whole.percentile_ms(99),
        all_ms: whole.percentile_ms(100),
        target_p99_ms: TARGET_P99_MS,
    })
}

/// After how many microseconds the agent was in at another relay than `dead`, and shown the stage there.
async fn come_back(mut seen: Seen, dead: String, start: Instant) -> anyhow::Result<(u64, u64)> {
    let elapsed = || start.elapsed().as_micros() as u64;
    let elsewhere = |status: &Status| {
        let moved = status.relay.as_ref().is_some_and(|relay| *relay != dead);
        moved && status.state == State::OnAir
    };
    seen.wait_for(elsewhere).await?;
    let back = elapsed();
    seen.wait_for(|status| elsewhere(status) && is_whole(status))
        .await?;
    Ok((back, elapsed()))
}

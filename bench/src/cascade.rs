//! `muster-bench cascade`: sites at the lowest of a chain of relays, viewers at each, and what crosses the links between.
//!
//! The relays are processes of their own, the sites and viewers links in this one, so that the same packet's arrivals at
//! viewers of neighbouring relays can be compared: their difference is what the hop between has added.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use muster_identity::{Authority, Identity, TokenSigner};
use serde::{Deserialize, Serialize};

use crate::args::CascadeArgs;
use crate::site_links::{Clock, Seen, Site, Viewer};
use crate::stats::{Sample, rounded};

/// Until every viewer has every picture.
const PATIENCE: Duration = Duration::from_secs(60);
const TARGET_HOP_P95_MS: u32 = 3;
/// From the lowest.
const TIERS: [&str; 4] = ["street", "district", "city", "province"];
/// Video slots of a viewer; the relay gives a link 64 in all.
const WALL: u16 = 60;

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    relays: u16,
    sites: u16,
    /// At each relay, all of whom see all sites.
    viewers: u16,
    seconds: u64,
    links: Vec<Crossed>,
    hop_p50_ms: Option<f64>,
    hop_p95_ms: Option<f64>,
    target_hop_p95_ms: u32,
    /// From the site to a viewer at the uppermost relay.
    whole_p95_ms: Option<f64>,
}

#[derive(Serialize)]
struct Crossed {
    from: &'static str,
    to: &'static str,
    /// Of datagrams: flow id, RTP header, payload.
    bytes: u64,
    layers: u64,
    packets: u64,
    packets_per_source_packet: f64,
}

/// What a relay says of one of its neighbours.
#[derive(Clone, Default, Deserialize, Serialize)]
pub struct Neighbour {
    pub name: String,
    pub above: bool,
    pub packets_in: u64,
    pub bytes_in: u64,
    pub numbers_in: u64,
    pub layers_in: u64,
}

pub fn run(args: &CascadeArgs) -> anyhow::Result<()> {
    let line = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(args))?;
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

/// A relay of the chain; ends with its standard input.
struct ChainRelay {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    link: String,
}

impl ChainRelay {
    fn start(name: &str, data: &Path, authority: &Authority, uplink: Option<&str>) -> anyhow::Result<Self> {
        let identity_dir = data.join(name);
        authority
            .credentials(Identity::Relay(name.to_owned()))?
            .save(&identity_dir)?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["relay", "--workers", "1", "--cascade"])
            .args(uplink.iter().flat_map(|uplink| ["--uplink", uplink]))
            .arg("--identity-dir")
            .arg(&identity_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a relay does not start")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("no output of a relay")?;
        let mut relay = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            link: String::new(),
        };
        relay.link = relay.read().context("a relay ended at its start")?;
        Ok(relay)
    }

    fn read(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "a relay has ended");
        Ok(line.trim().to_owned())
    }

    /// The neighbour of this name as it stands; nothing has come of one that is not there.
    fn neighbour(&mut self, name: &str) -> anyhow::Result<Option<Neighbour>> {
        self.stdin
            .as_mut()
            .context("the relay has ended")?
            .write_all(b"\n")?;
        let all: Vec<Neighbour> = serde_json::from_str(&self.read()?)?;
        Ok(all.into_iter().find(|neighbour| neighbour.name == name))
    }
}

impl Drop for ChainRelay {
    fn drop(&mut self) {
        self.stdin = None;
        // Nothing to do about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}

async fn measure(args: &CascadeArgs) -> anyhow::Result<Line> {
    ensure!(
        args.sites <= WALL,
        "a viewer has {WALL} pictures at most, not {}",
        args.sites
    );
    let tiers = &TIERS[..usize::from(args.relays)];
    let data = tempfile::tempdir()?;
    let authority = Authority::load_or_create(&data.path().join("authority"))?;
    let signer = Arc::new(authority.token_signer()?);
    let mut relays = Vec::new();
    for name in tiers.iter().rev() {
        let uplink = relays.last().map(|relay: &ChainRelay| relay.link.clone());
        relays.push(ChainRelay::start(
            name,
            data.path(),
            &authority,
            uplink.as_deref(),
        )?);
    }
    relays.reverse();
    let clock = Clock::start();
    let names: Vec<String> = (0..args.sites).map(|n| format!("site{n:03}")).collect();
    let mut sites = Vec::new();
    for (n, name) in names.iter().enumerate() {
        sites.push(Site::start(&relays[0].link, &authority, &signer, name, n, clock).await?);
    }
    let mut viewers = Vec::new();
    for (tier, relay) in tiers.iter().zip(&relays) {
        for n in 0..args.viewers {
            let name = format!("viewer-{tier}-{n}");
            viewers.push(Viewer::start(&relay.link, &authority, &signer, &name, &names, clock).await?);
        }
    }
    all_seen(&viewers, usize::from(args.sites)).await?;
    // Voices are chosen, and layers that were tried are let go of.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = crossings(&mut relays, tiers)?;
    viewers.iter().for_each(|viewer| viewer.record(true));
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    viewers.iter().for_each(|viewer| viewer.record(false));
    let after = crossings(&mut relays, tiers)?;
    let seen: Vec<Seen> = viewers.iter().map(Viewer::take).collect();
    let (mut hops, mut whole) = hops(&seen, usize::from(args.viewers), tiers.len());
    let pairs = tiers.windows(2).zip(before.iter().zip(&after));
    Ok(Line {
        bench: "cascade",
        relays: args.relays,
        sites: args.sites,
        viewers: args.viewers,
        seconds: args.seconds,
        links: pairs
            .map(|(tiers, (before, after))| crossed(tiers, before, after))
            .collect(),
        hop_p50_ms: hops.percentile_ms(50),
        hop_p95_ms: hops.percentile_ms(95),
        target_hop_p95_ms: TARGET_HOP_P95_MS,
        whole_p95_ms: whole.percentile_ms(95),
    })
}

async fn all_seen(viewers: &[Viewer], sites: usize) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !viewers.iter().all(|viewer| viewer.sites() == sites) {
        if tokio::time::Instant::now() > deadline {
            let seen: Vec<usize> = viewers.iter().map(Viewer::sites).collect();
            bail!("not all viewers see all {sites} sites: {seen:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What has come up each link, from the lowest.
fn crossings(relays: &mut [ChainRelay], tiers: &[&str]) -> anyhow::Result<Vec<Neighbour>> {
    let mut all = Vec::new();
    for (below, relay) in tiers.iter().zip(relays.iter_mut().skip(1)) {
        all.push(relay.neighbour(below)?.context("a link between relays is gone")?);
    }
    Ok(all)
}

fn crossed(tiers: &[&'static str], before: &Neighbour, after: &Neighbour) -> Crossed {
    let packets = after.packets_in - before.packets_in;
    let numbers = (after.numbers_in - before.numbers_in).max(1);
    Crossed {
        from: tiers[0],
        to: tiers[1],
        bytes: after.bytes_in - before.bytes_in,
        layers: after.layers_in,
        packets,
        packets_per_source_packet: rounded(packets as f64 / numbers as f64, 4),
    }
}

/// What each hop has added to each packet, by the first viewers of neighbouring relays; and the whole way up. An arrival
/// above that came before the one below counts as no delay.
fn hops(seen: &[Seen], viewers: usize, relays: usize) -> (Sample, Sample) {
    let (mut hops, mut whole) = (Sample::default(), Sample::default());
    for tier in 1..relays {
        let below: HashMap<_, _> = seen[(tier - 1) * viewers].arrivals.iter().copied().collect();
        for (packet, at) in &seen[tier * viewers].arrivals {
            if let Some(earlier) = below.get(packet) {
                hops.add(at.saturating_sub(*earlier));
            }
            if tier == relays - 1 {
                whole.add(at.saturating_sub(packet.sent_us));
            }
        }
    }
    (hops, whole)
}

/// A signer, as sites and viewers use it.
pub type Signer = Arc<TokenSigner>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site_links::PacketId;

    #[test]
    fn a_hop_is_the_difference_of_a_packets_arrivals() {
        let packet = |index| PacketId {
            site: 1,
            large: false,
            index,
            sent_us: 100,
        };
        let seen = |arrivals: &[(u32, u64)]| Seen {
            arrivals: arrivals.iter().map(|&(index, at)| (packet(index), at)).collect(),
        };
        let all = [
            seen(&[(1, 500), (2, 600)]),
            seen(&[(1, 900), (2, 590), (3, 1)]),
            seen(&[(1, 1000)]),
        ];
        let (mut hops, mut whole) = hops(&all, 1, 3);
        assert_eq!(
            (hops.count(), hops.percentile(1), hops.percentile(100)),
            (3, Some(0), Some(400))
        );
        assert_eq!(hops.percentile(50), Some(100));
        assert_eq!((whole.count(), whole.percentile(50)), (1, Some(900)));
    }
}

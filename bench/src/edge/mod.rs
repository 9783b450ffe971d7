//! `muster-bench edge`: what the agent costs on its box, and what reconnecting leaves behind.
//!
//! The agent is the program `muster-edge` beside this one, in a process of its own; its camera is an RTSP server that plays a file
//! encoded beforehand, in another; between it and the relay lies the link emulator. A desk of this program's own watches the
//! picture over a link, so that the relay wants it.

pub mod args;
mod desk;
mod reconnect;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use muster_identity::Identity;
use muster_linkshape::Relay as Emulator;
use serde::Serialize;

use crate::link::targets::profile;
use crate::plane::clients::Dispatcher;
use crate::plane::failover::FleetRelay;
use crate::plane::{Plane, authority, tree};
use crate::procfs::{self, CpuTime};
use args::EdgeArgs;
use desk::Desk;

/// Where the emulator listens: the relay says that it is there.
const ANNOUNCED: &str = "127.0.0.2";
/// From the first picture on, before the window: the rate has found its place.
const CALM: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Serialize)]
struct Line<'a> {
    bench: &'static str,
    profile: &'a str,
    seconds: u64,
    mbps: f64,
    rss_mb: f64,
    cpu_percent: f64,
    cpu_percent_a_mbps: f64,
    binary_mb: f64,
    threads: usize,
    target: Target,
}

#[derive(Serialize)]
struct Target {
    rss_mb: f64,
    cpu_percent_a_mbps: f64,
    binary_mb: f64,
}

const TARGET: Target = Target {
    rss_mb: 12.0,
    cpu_percent_a_mbps: 1.0,
    binary_mb: 15.0,
};

pub fn run(args: &EdgeArgs) -> anyhow::Result<()> {
    if let Some(times) = args.reconnects {
        return reconnect::run(times);
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(args))
}

/// A child that ends with its handle.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Nothing to do about a child that cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn measure(args: &EdgeArgs) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let film = encode(data.path(), args.seconds + 60)?;
    let (_camera, address) = camera(data.path(), &film)?;
    let plane = Plane::start(data.path(), None)?;
    let dispatcher = Dispatcher::sign_in(plane.addr).await?;
    dispatcher.import(tree::csv(2)).await?;
    let authority = authority(data.path())?;
    let id = format!("{}-one", tree::ROOT);
    let relay = FleetRelay::start_at(&id, data.path(), &authority, plane.agents_addr, Some(ANNOUNCED))?;
    let real = SocketAddr::from(([127, 0, 0, 1], relay.link.port()));
    let announced = SocketAddr::new(ANNOUNCED.parse()?, real.port());
    let path = Arc::new(profile(&args.profile)?);
    let emulator = Emulator::start(announced, real, path.clone(), 1)?;
    let site = tree::site(0);
    let identity = data.path().join("agent");
    authority
        .credentials(Identity::Agent(site.clone()))?
        .save(&identity)?;
    let program = std::env::current_exe()?.with_file_name("muster-edge");
    ensure!(
        program.exists(),
        "{} is not there: build it with the same profile (-p muster-edge)",
        program.display()
    );
    let agent = Owned(
        Command::new(&program)
            .args(["--control-plane", &plane.agents_addr.to_string()])
            .arg("--identity")
            .arg(&identity)
            .args(["--page", "off"])
            .args(["--source", &address])
            .env("MUSTER_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("the agent does not start")?,
    );
    let pid = agent.0.id();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let meeting = dispatcher.convene().await?;
    let desk = Desk::join(real, &authority, &meeting, &tree::site(1), &site).await?;
    desk.wait_for_pictures(PATIENCE).await?;
    tokio::time::sleep(CALM).await;
    let (before, bytes) = (CpuTime::of(pid)?, desk.bytes());
    let mut rss_mb = 0f64;
    for _ in 0..args.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rss_mb = rss_mb.max(procfs::resident_mb(pid)?);
    }
    let (cpu_ns, ..) = CpuTime::of(pid)?.since(before);
    let seconds = args.seconds as f64;
    let mbps = (desk.bytes() - bytes) as f64 * 8.0 / 1e6 / seconds;
    let cpu_percent = cpu_ns as f64 / 1e7 / seconds;
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let line = Line {
        bench: "edge",
        profile: path.name(),
        seconds: args.seconds,
        mbps: round(mbps),
        rss_mb: round(rss_mb),
        cpu_percent: round(cpu_percent),
        cpu_percent_a_mbps: round(cpu_percent / mbps.max(0.001)),
        binary_mb: round(stripped(&program, data.path())?),
        threads: std::fs::read_dir(format!("/proc/{pid}/task"))?.count(),
        target: TARGET,
    };
    println!("{}", serde_json::to_string(&line)?);
    drop(emulator);
    Ok(())
}

/// A film of 2.5 Mbit/s at 1080p30, as a camera sends it.
fn encode(folder: &Path, seconds: u64) -> anyhow::Result<PathBuf> {
    let film = folder.join("film.mkv");
    eprintln!("encoding {seconds} s of 1080p, once");
    let done = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-f", "lavfi", "-i"])
        .arg(format!("testsrc2=size=1920x1080:rate=30:duration={seconds}"))
        .args("-c:v libx264 -preset ultrafast -tune zerolatency -profile:v high -pix_fmt yuv420p".split(' '))
        .args("-b:v 2500k -minrate 2500k -maxrate 2500k -bufsize 1250k -g 120".split(' '))
        .args(["-x264-params", "nal-hrd=cbr:force-cfr=1"])
        .arg(&film)
        .status()
        .context("ffmpeg does not start (Debian's package ffmpeg)")?;
    ensure!(done.success(), "ffmpeg could not encode");
    Ok(film)
}

/// Plays the film; the address of the camera.
fn camera(folder: &Path, film: &Path) -> anyhow::Result<(Owned, String)> {
    let script = folder.join("camera.py");
    std::fs::write(&script, include_str!("../../data/camera.py"))?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut child = Command::new("/usr/bin/python3")
        .arg(&script)
        .arg(port.to_string())
        .arg(film)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3 does not start")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    ensure!(
        line == "ready\n",
        "the camera does not play: Debian's gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-good are needed"
    );
    Ok((Owned(child), format!("rtsp://127.0.0.1:{port}/cam")))
}

/// Size of the program without its symbols, MB (10^6 bytes).
fn stripped(program: &Path, folder: &Path) -> anyhow::Result<f64> {
    let bare = folder.join("stripped");
    let done = Command::new("strip").arg("-o").arg(&bare).arg(program).status();
    let done = done.context("strip does not start (Debian's package binutils)")?;
    ensure!(done.success(), "strip failed");
    Ok(std::fs::metadata(&bare)?.len() as f64 / 1e6)
}

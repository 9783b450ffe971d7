//! The control plane under test, in a process of its own: this program again, with the hidden subcommand `plane`.
//!
//! It is spoken to as in the field: endpoints and the relay by mTLS, dispatchers by the console's port. The exception is
//! [`inject`], which changes presence inside the process, since no way in is cheap enough to make so many changes. It
//! ends when its standard input does, so that it never outlives the measurement.

pub mod args;
mod attach;
pub mod clients;
mod command;
pub mod failover;
mod import;
mod inject;
mod seat;
pub mod tree;
mod watch;

pub use attach::run as attach;
pub use command::run as command;
pub use failover::run as failover;
pub use import::run as import;
pub use watch::run as watch;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context as _;
use muster_control_plane::{Bootstrap, Config, ControlPlane};
use muster_identity::{Authority, Credentials, Identity};
use muster_proto::command::v1::Role;

use crate::procfs::{self, CpuTime};
use args::PlaneArgs;

/// Of the one account.
const ACCOUNT: &str = "bench";
const PASSWORD: &str = "ten characters and more";
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A running control plane. Dropping it ends it; its data stays as long as the folder that it was given.
pub struct Plane {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Of the console's port.
    pub addr: SocketAddr,
    pub agents_addr: SocketAddr,
}

impl Plane {
    /// Starts one on the data of this folder, on any ports or those of an earlier one; returns when it listens.
    pub fn start(data: &Path, ports: Option<(SocketAddr, SocketAddr)>) -> anyhow::Result<Self> {
        let (addr, agents_addr) = ports.unwrap_or((ANY, ANY));
        let mut child = Command::new(std::env::current_exe()?)
            .arg("plane")
            .arg("--data")
            .arg(data)
            .args(["--listen", &addr.to_string()])
            .args(["--agents-listen", &agents_addr.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the control plane does not start")?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut plane = Self {
            child,
            stdin,
            stdout,
            addr,
            agents_addr,
        };
        let line = plane.line().context("the control plane ended at its start")?;
        let (addr, agents_addr) = line.split_once(' ').context("two addresses")?;
        (plane.addr, plane.agents_addr) = (addr.parse()?, agents_addr.parse()?);
        Ok(plane)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        anyhow::ensure!(self.stdout.read_line(&mut line)? > 0, "it says nothing more");
        Ok(line.trim().to_owned())
    }

    /// Tells it something; [`serve`] says what it understands.
    fn tell(&mut self, words: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("a pipe")?;
        Ok(writeln!(stdin, "{words}")?)
    }

    pub fn cpu(&self) -> anyhow::Result<CpuTime> {
        CpuTime::of(self.child.id())
    }

    /// Seconds of CPU since.
    pub fn cpu_s(&self, before: CpuTime) -> anyhow::Result<f64> {
        Ok(self.cpu()?.since(before).0 as f64 / 1e9)
    }

    pub fn resident_mb(&self) -> anyhow::Result<f64> {
        procfs::resident_mb(self.child.id())
    }

    /// Ends it without a word, as a crash does.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stdin = None;
        // Nothing to do about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}

/// The authority of the control plane that lives on this data.
pub fn authority(data: &Path) -> anyhow::Result<Authority> {
    Ok(Authority::load_or_create(&data.join("ca"))?)
}

/// Certificates for so many sites, as if each had enrolled.
fn agents(authority: &Authority, sites: impl Iterator<Item = String>) -> anyhow::Result<Vec<Credentials>> {
    sites
        .map(|site| Ok(authority.credentials(Identity::Agent(site))?))
        .collect()
}

fn config(args: &PlaneArgs) -> Config {
    let bootstrap = Bootstrap {
        account: ACCOUNT.to_owned(),
        password: PASSWORD.to_owned(),
        role: Role::Commander,
        unit: tree::ROOT.to_owned(),
    };
    Config {
        listen: args.listen,
        agents_listen: args.agents_listen,
        bootstrap: Some(bootstrap),
        ..Config::local(PathBuf::from(&args.data))
    }
}

/// The subcommand `plane`: says its addresses, and serves until standard input ends. A line `inject SITES RATE SECONDS`
/// makes so many changes; it answers with how many it made.
pub fn serve(args: &PlaneArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    // The same kind of runtime that `muster-control-plane` has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plane = runtime.block_on(ControlPlane::start(config(args)))?;
    println!("{} {}", plane.addr(), plane.agents_addr());
    for line in std::io::stdin().lines() {
        let line = line?;
        let mut words = line.split(' ');
        if let (Some("inject"), Some(sites), Some(rate), Some(seconds)) =
            (words.next(), words.next(), words.next(), words.next())
        {
            let load = inject::Load::new(sites.parse()?, rate.parse()?, seconds.parse()?)?;
            println!("{}", runtime.block_on(inject::run(&plane.endpoints(), &load))?);
        }
    }
    runtime.block_on(plane.shutdown());
    Ok(())
}

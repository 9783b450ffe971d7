//! The control plane: services, store, bus, sessions, the fleet of relays and the console.
//!
//! A shell around `muster-domain`: it reads clocks, sockets and the database, and asks the domain what follows.
//! Invariants: nothing is acknowledged before it is stored; no media passes through here; meetings on the relays go
//! on while this process is away, and it learns what it missed when they dial in again.

pub mod accounts;
mod admission;
pub mod bus;
pub mod clock;
pub mod config;
pub mod console;
pub mod convert;
pub mod core;
mod counters;
mod devices;
pub mod drills;
pub mod endpoints;
mod engine;
mod evidence;
mod files;
pub mod fleet;
mod gate;
mod headers;
mod line;
pub mod logging;
pub mod meetings;
pub mod net;
pub mod quality;
mod quiet;
pub mod replicas;
mod scheduler;
pub mod service_url;
mod services;
mod shares;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod store;
pub mod throttle;
pub mod tickets;
mod tls;
mod turnstile;
pub mod units;
mod upkeep;

pub use config::{Bootstrap, Config, ConsoleTls};

use crate::core::Core;
use accounts::NewAccount;
use anyhow::Context as _;
use endpoints::Endpoints;
use engine::{Engine, Ground};
use headers::Headers;
use muster_identity::Authority;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tls::Certificates;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

/// Connections that may wait to be accepted: a whole city that comes back at once. The system may allow fewer.
const BACKLOG: u32 = 4096;
/// Longest wait for tasks at shutdown.
const STOP: Duration = Duration::from_secs(5);

/// A running control plane. Dropping it stops it too, but does not wait for it.
pub struct ControlPlane {
    core: Arc<Core>,
    tasks: JoinSet<()>,
    addr: SocketAddr,
    agents_addr: SocketAddr,
    tls: bool,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.core.shutdown.cancel();
    }
}

fn listen(addr: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = || -> std::io::Result<TcpListener> {
        let socket = if addr.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{addr} is in use: stop what listens there, or choose another port with {flag}")
        }
        _ => anyhow::anyhow!("cannot listen on {addr} ({flag}): {error}"),
    })
}

impl ControlPlane {
    /// Opens the store, resumes the meetings that have not ended, and listens on both ports.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let shown = config.data_dir.display().to_string();
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("cannot make the folder {shown}"))?;
        let listener = listen(config.listen, "--listen")?;
        let agents_listener = listen(config.agents_listen, "--agents-listen")?;
        let mut authority = Authority::load_or_create(&config.data_dir.join("ca"))?;
        let certificates = Certificates::prepare(&config, &mut authority)?;
        let (console_tls, agents_tls) = (certificates.console_tls()?, certificates.agents_tls.clone());
        let headers = Headers::new(console_tls.is_some(), &config.relay_origins)?;
        let store = match &config.database_url {
            Some(url) => Store::connect(url.expose())
                .await
                .with_context(|| format!("cannot use the database at {url}"))?,
            None => Store::open(&config.data_dir)
                .await
                .with_context(|| format!("cannot open the database in {shown}"))?,
        };
        let network = match &config.nats_url {
            Some(url) => {
                let bus =
                    bus::connect(url.expose(), "muster-control-plane", config.nats_ca.as_deref()).await?;
                Some(bus::sealed(bus, &authority.key_for("what replicas say")))
            }
            None => None,
        };
        let Engine { core, mut tasks } = Engine::start(Ground::of_process(store, network, authority)).await?;
        if let Some(bootstrap) = &config.bootstrap {
            bootstrap_account(&core, bootstrap).await?;
        }
        let (addr, agents_addr) = (listener.local_addr()?, agents_listener.local_addr()?);
        let connections = net::Limits::new(&config, files::for_connections());
        let acceptor = net::Acceptor::new(core.shutdown.clone(), connections);
        let tls = console_tls.is_some();
        let console = headers.on(counters::on(services::console_router(&core)));
        match console_tls {
            Some(config) => tasks.spawn(acceptor.clone().serve_tls(listener, console, config)),
            None => tasks.spawn(acceptor.clone().serve_plain(listener, console)),
        };
        tasks.spawn(acceptor.serve_tls(agents_listener, services::agents_router(&core), agents_tls));
        certificates.keep(core.clone(), &mut tasks);
        tracing::info!(%addr, %agents_addr, sites = core.tree().site_count(), "control plane started");
        Ok(Self {
            core,
            tasks,
            addr,
            agents_addr,
            tls,
        })
    }

    /// Address of the console for a browser on this machine: `https://IP:PORT`, or `http://…` without TLS.
    pub fn url(&self) -> String {
        let mut addr = self.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("{}://{addr}", if self.tls { "https" } else { "http" })
    }

    /// Console, gRPC and gRPC-web.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// gRPC over TLS for agents and relays.
    pub fn agents_addr(&self) -> SocketAddr {
        self.agents_addr
    }

    /// What watchers here are told by, for tests of hints that are lost or repeated.
    #[doc(hidden)]
    pub fn bus(&self) -> &bus::Bus {
        &self.core.bus
    }

    /// The register of attached endpoints, for measurements.
    #[doc(hidden)]
    pub fn endpoints(&self) -> Arc<Endpoints> {
        self.core.endpoints.clone()
    }

    /// Ends all streams and waits until what was accepted is stored. Meetings stay as they are.
    pub async fn shutdown(mut self) {
        self.core.shutdown.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP, ended).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        // Commands under way hold a connection: closing waits for them.
        self.core.store.close().await;
    }
}

async fn bootstrap_account(core: &Core, bootstrap: &Bootstrap) -> anyhow::Result<()> {
    let Bootstrap { account, unit, .. } = bootstrap;
    let ensured = async {
        let account = NewAccount::new(account, account, bootstrap.role.into(), unit)?;
        let password = bootstrap.password.clone();
        core.accounts.ensure(&core.units, &account, password).await
    };
    ensured.await.context("the bootstrap account")
}

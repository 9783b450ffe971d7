//! A running relay: its parts, joined.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use muster_identity::{Credentials, Identity};
use muster_proto::command::v1::StageDocument;
use muster_webrtc::Certificate;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::RelayConfig;
use crate::admission::Admission;
use crate::cascade::{Cascade, Neighbour};
use crate::directory::{Directory, Signal};
use crate::fleet::{self, Fleet};
use crate::http;
use crate::identity;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::reports::Reports;
use crate::ring;
use crate::tcp_listener;
use crate::tls::{self, HttpCertificate};
use crate::watch::now_ms;
use crate::worker::state::Shared;
use crate::worker::{self, Command, Handle, Start};

/// Bit sets name workers.
const MAX_WORKERS: usize = 64;
/// How often meetings that nobody needs are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(5);
/// How long a shutdown may take.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// A running relay. Dropping it leaves it running; call [`Relay::shutdown`].
pub struct Relay {
    shared: Arc<Shared>,
    http_addr: SocketAddr,
    media_addrs: Vec<SocketAddr>,
    link_addrs: Vec<SocketAddr>,
    workers: Vec<Handle>,
    tasks: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Starts a relay; it serves when this returns. Waits for the control plane only if it must enrol first.
    ///
    /// # Errors
    /// A port in use, no identity, or configuration that cannot be: the message says what to do.
    pub async fn start(config: RelayConfig) -> anyhow::Result<Self> {
        let announce = announce_ip(&config)?;
        tls::check_plain(&config)?;
        let names = tls::wanted_names(&config, announce);
        let credentials = identity::obtain(&config, &names).await?;
        let certificate = HttpCertificate::load(&config, &credentials, &names)?;
        let acceptor = certificate.as_ref().map(HttpCertificate::acceptor).transpose()?;
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let count = worker_count(config.workers)?;
        let listener = tokio::net::TcpListener::bind(config.http_listen)
            .await
            .with_context(|| {
                format!(
                    "cannot listen on {} for HTTP; is another relay running?",
                    config.http_listen
                )
            })?;
        let http_addr = listener.local_addr()?;
        let (tcp, tcp_candidate) = listen_tcp(&config, announce).await?;
        let shared = Arc::new(share(&config, &credentials, count)?);
        let mut relay = Self {
            shared: shared.clone(),
            http_addr,
            media_addrs: Vec::new(),
            link_addrs: Vec::new(),
            workers: Vec::new(),
            tasks: Vec::new(),
        };
        for index in 0..count {
            let announced = Announced {
                ip: announce,
                tcp: tcp_candidate,
            };
            relay
                .start_worker(index, &config, announced, &credentials)
                .await?;
        }
        let commands: Vec<mpsc::Sender<Command>> = relay.workers.iter().map(|w| w.commands.clone()).collect();
        if let Some(listener) = tcp {
            let counters = tcp_listener::Counters::new(&shared.metrics);
            relay.tasks.push(tokio::spawn(tcp_listener::serve(
                listener,
                commands.clone(),
                counters,
            )));
        }
        relay.tasks.push(tokio::spawn(http::serve(
            listener,
            http::Surface::new(
                shared.clone(),
                commands,
                (&relay.media_addrs, tcp_candidate),
                &config,
            ),
            acceptor,
        )));
        if let Some(certificate) = certificate {
            relay.tasks.push(tokio::spawn(certificate.follow()));
        }
        relay.tasks.push(tokio::spawn(forget_idle(shared.clone())));
        if !config.control_plane.is_empty() {
            let http_host = if http_addr.ip().is_unspecified() {
                announce
            } else {
                http_addr.ip()
            };
            let fleet = Fleet {
                authorities: config.control_plane.clone(),
                credentials,
                http_url: config.http_url.clone().unwrap_or_else(|| {
                    format!("{scheme}://{}", SocketAddr::new(http_host, http_addr.port()))
                }),
                link_addrs: relay.link_addrs.iter().map(SocketAddr::to_string).collect(),
                has_uplink: config.uplink.is_some(),
                shared,
            };
            relay.tasks.push(tokio::spawn(fleet::keep(fleet)));
        }
        tracing::info!(http = %http_addr, workers = count, links = ?relay.link_addrs, "relay serves");
        if config.dev.is_some() {
            tracing::warn!(
                whip = %format!("{scheme}://{http_addr}/whip/MEETING"),
                whep = %format!("{scheme}://{http_addr}/whep/MEETING"),
                "DEVELOPMENT MODE, NOT FOR PRODUCTION: no control plane, whoever has the token may do everything"
            );
        }
        Ok(relay)
    }

    async fn start_worker(
        &mut self,
        index: usize,
        config: &RelayConfig,
        announced: Announced,
        credentials: &Credentials,
    ) -> anyhow::Result<()> {
        let port = |offset: usize| match config.media_port_base {
            None | Some(0) => Ok(0),
            Some(base) => u16::try_from(usize::from(base) + 2 * index + offset)
                .with_context(|| format!("media_port_base {base} leaves no ports for {} workers", index + 1)),
        };
        let open = |port: u16| {
            let address = SocketAddr::new(config.media_ip, port);
            worker::open_socket(address).with_context(|| format!("cannot open UDP {address} for media"))
        };
        let media = open(port(0)?)?;
        let address = SocketAddr::new(config.media_ip, port(1)?);
        let (links, links_tcp) = worker::open_links(address, config.link_tcp).with_context(|| {
            let tcp = if config.link_tcp {
                " (UDP, and TCP unless --link-tcp false)"
            } else {
                ""
            };
            format!("cannot open {address} for links{tcp}")
        })?;
        let reached = |socket: &std::net::UdpSocket| {
            socket
                .local_addr()
                .map(|address| SocketAddr::new(announced.ip, address.port()))
        };
        let (candidate, link) = (reached(&media)?, reached(&links)?);
        let shared = self.shared.clone();
        let start = Start {
            index,
            shared,
            credentials: credentials.clone(),
            media,
            links,
            links_tcp,
            candidate,
            tcp_candidate: announced.tcp,
            uplink: config.uplink.clone().filter(|_| index == 0),
        };
        let (handle, ready) = worker::start(start)?;
        self.workers.push(handle);
        ready.await.context("a worker ended at its start")??;
        self.media_addrs.push(candidate);
        self.link_addrs.push(link);
        Ok(())
    }

    /// Where HTTP is served; the port is the real one.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where links are taken, one address a worker.
    pub fn link_addrs(&self) -> &[SocketAddr] {
        &self.link_addrs
    }

    /// Where browsers' media is taken, one address a worker.
    pub fn media_addrs(&self) -> &[SocketAddr] {
        &self.media_addrs
    }

    /// Legs at this moment.
    pub fn leg_count(&self) -> usize {
        self.shared.directory.leg_count()
    }

    /// The relays at the other ends of links between relays, above and below.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.shared.cascade.neighbours()
    }

    /// Takes a stage document as if the control plane had sent it: for a relay that serves alone.
    pub fn set_stage(&self, stage: StageDocument) {
        self.shared.directory.set_stage(stage);
    }

    /// Says goodbye to every leg and stops, within about a second.
    pub async fn shutdown(self) {
        self.shared.readiness.stopping();
        for worker in &self.workers {
            let _ = tokio::time::timeout(SHUTDOWN, worker.commands.send(Command::Stop)).await;
        }
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        let ended =
            tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
        match tokio::time::timeout(SHUTDOWN, ended).await {
            Ok(Ok(true)) => {}
            Ok(_) => tracing::error!("a worker had panicked"),
            Err(_) => tracing::warn!("workers did not end in time"),
        }
        // The reports of the end get their chance to leave.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for task in &self.tasks {
            task.abort();
        }
        tracing::info!("relay stopped");
    }
}

/// Where browsers reach the media ports.
#[derive(Clone, Copy)]
struct Announced {
    ip: IpAddr,
    tcp: Option<SocketAddr>,
}

/// The TCP port for media, and its candidate.
async fn listen_tcp(
    config: &RelayConfig,
    announce: IpAddr,
) -> anyhow::Result<(Option<tokio::net::TcpListener>, Option<SocketAddr>)> {
    let Some(address) = config.tcp_listen else {
        return Ok((None, None));
    };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for media over TCP"))?;
    let candidate = SocketAddr::new(announce, listener.local_addr()?.port());
    Ok((Some(listener), Some(candidate)))
}

fn announce_ip(config: &RelayConfig) -> anyhow::Result<IpAddr> {
    let announce = config.announce_ip.unwrap_or(config.media_ip);
    if announce.is_unspecified() {
        bail!(
            "announce_ip: expected the address at which browsers reach this relay, since media_ip is {}",
            config.media_ip
        );
    }
    Ok(announce)
}

fn worker_count(configured: usize) -> anyhow::Result<usize> {
    match configured {
        0 => Ok(std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MAX_WORKERS)),
        1..=MAX_WORKERS => Ok(configured),
        _ => bail!("workers: {configured}, expected at most {MAX_WORKERS}"),
    }
}

fn share(config: &RelayConfig, credentials: &Credentials, workers: usize) -> anyhow::Result<Shared> {
    let metrics = Metrics::new();
    let signals: Vec<Arc<Signal>> = (0..workers).map(|_| Arc::default()).collect();
    let reports = Reports::new(metrics.reports_dropped.clone(), !config.control_plane.is_empty());
    let relay = match &credentials.identity {
        Identity::Relay(id) => id.clone(),
        other => other.to_string(),
    };
    Ok(Shared {
        admission: Admission::new(&relay, &credentials.token_key_pem).context("token key of the identity")?,
        directory: Directory::new(signals.clone(), config.max_legs, relay, reports),
        metrics,
        readiness: Readiness::new(!config.control_plane.is_empty()),
        cascade: Cascade::default(),
        certificate: Arc::new(Certificate::generate()?),
        signals,
        rings: ring::all(workers),
        epoch: Instant::now(),
    })
}

async fn forget_idle(shared: Arc<Shared>) {
    let mut every = tokio::time::interval(FORGET_EVERY);
    loop {
        every.tick().await;
        shared.directory.forget_idle(Instant::now());
        shared.admission.forget(now_ms() / 1000);
        shared.metrics.upkeep();
    }
}

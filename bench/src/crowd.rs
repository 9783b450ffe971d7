//! The peers, all played by one thread: the publisher is peer 0, the others are viewers.
//!
//! Only the POSTs and wishes of joins are made by other threads, which wait for the relay. Invariant: nothing in the
//! loop blocks but the wait for the sockets.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::client::Client;
use crate::http::Http;
use crate::keys::Certificate;
use crate::offer::{self, Answer, Role};
use crate::picture::Camera;
use crate::receive::{BATCH, Batch};
use crate::relay::RelayProcess;
use crate::stats::Sample;
use crate::twcc::Feedback;
use crate::viewer::{Viewer, asks_key_frame};

pub const PUBLISHER: &str = "publisher";
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);
/// Timers of the peers are looked at so often.
const TICK: Duration = Duration::from_millis(20);
const REPORT: Duration = Duration::from_secs(1);
/// Bytes of a socket's buffer; a viewer's 1080p for over a second.
const SOCKET_BUFFER: usize = 512 * 1024;
/// Of the peers' ICE; the relay is lite and never asks for it.
const PWD: &str = "theSamePasswordForAllPeers";

struct Peer {
    socket: UdpSocket,
    client: Client,
    viewer: Viewer,
    next_report: Instant,
    connected_at: Option<Instant>,
}

/// A join that another thread makes.
struct Job {
    ufrag: String,
    offer: String,
    token: String,
    views: bool,
}

/// What the other threads say.
enum Signal {
    Joined(String, Box<Answer>),
    Failed(anyhow::Error),
}

pub struct Crowd {
    certificate: Certificate,
    epoll: Epoll,
    batch: Batch,
    epoch: Instant,
    peers: Vec<Peer>,
    ufrags: usize,
    signals: (mpsc::Sender<Signal>, mpsc::Receiver<Signal>),
    /// Joins whose POST is not answered.
    posting: usize,
    camera: Camera,
    packets_a_frame: u32,
    sample: u64,
    next_frame: Option<Instant>,
    key_wanted: bool,
    next_tick: Instant,
    /// Peers whose keys are agreed.
    pub connected: usize,
    /// Viewers to whom media came.
    pub watching: usize,
    /// Datagrams that our sockets would not send.
    pub unsent: u64,
    pub failures: Vec<anyhow::Error>,
}

impl Crowd {
    /// Viewers decrypt one packet of `sample`.
    pub fn new(packets_a_frame: u32, sample: u64) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            certificate: Certificate::generate()?,
            epoll: Epoll::new(EpollCreateFlags::empty())?,
            batch: Batch::new(),
            epoch: now,
            peers: Vec::new(),
            ufrags: 0,
            signals: mpsc::channel(),
            posting: 0,
            camera: Camera::default(),
            packets_a_frame,
            sample,
            next_frame: None,
            key_wanted: true,
            next_tick: now,
            connected: 0,
            watching: 0,
            unsent: 0,
            failures: Vec::new(),
        })
    }

    /// Starts the joins of these sites over `connections` connections; the first join ever is the publisher's.
    pub fn join(&mut self, relay: &RelayProcess, sites: &[String], connections: usize) -> anyhow::Result<()> {
        let jobs: Vec<Job> = sites
            .iter()
            .map(|site| self.job(relay, site))
            .collect::<anyhow::Result<_>>()?;
        self.posting += jobs.len();
        let jobs = std::sync::Arc::new(Mutex::new(jobs.into_iter()));
        for _ in 0..connections.min(sites.len()) {
            let (jobs, signals, http) = (jobs.clone(), self.signals.0.clone(), relay.http);
            std::thread::spawn(move || {
                // Nobody listens any more: the measurement is over.
                let _ = signal(http, || jobs.lock().ok()?.next(), &signals);
            });
        }
        Ok(())
    }

    fn job(&mut self, relay: &RelayProcess, site: &str) -> anyhow::Result<Job> {
        let role = if site == PUBLISHER {
            Role::Publishes
        } else {
            Role::Views
        };
        self.ufrags += 1;
        let ufrag = format!("peer{}", self.ufrags);
        Ok(Job {
            offer: offer::write(role, &ufrag, PWD, &self.certificate.fingerprint),
            token: relay.token(site, role == Role::Publishes)?,
            views: role == Role::Views,
            ufrag,
        })
    }

    /// Publisher and viewers join and have media; the publisher sends on. Meanwhile its frames are of one packet, so
    /// that a load that is too much for the relay does not hinder the joins.
    pub fn assemble(&mut self, relay: &RelayProcess, viewers: &[String]) -> anyhow::Result<()> {
        self.join(relay, &[PUBLISHER.to_owned()], 1)?;
        let patience = Duration::from_secs(20);
        let joined = self.run(patience, |crowd| crowd.connected == 1)?;
        ensure!(joined, "the publisher did not connect: {:?}", self.failures);
        let packets_a_frame = std::mem::replace(&mut self.packets_a_frame, 1);
        self.publish(true);
        self.join(relay, viewers, 4)?;
        let patience = patience + Duration::from_millis(50) * viewers.len() as u32;
        let joined = self.run(patience, |crowd| {
            crowd.watching == viewers.len() || !crowd.failures.is_empty()
        })?;
        ensure!(
            joined && self.failures.is_empty(),
            "{} of {} viewers have media; {:?}",
            self.watching,
            viewers.len(),
            self.failures
        );
        self.packets_a_frame = packets_a_frame;
        Ok(())
    }

    /// The camera runs from now on, or rests.
    pub fn publish(&mut self, on: bool) {
        self.next_frame = on.then(Instant::now);
    }

    /// Packets that the camera has sent.
    pub fn published(&self) -> u64 {
        self.camera.packets().into()
    }

    /// Packets that came to the viewers, without repeats.
    pub fn received(&self) -> u64 {
        self.viewers().map(|viewer| viewer.received).sum()
    }

    /// Packets that came to the viewers a second time.
    pub fn repeated(&self) -> u64 {
        self.viewers().map(|viewer| viewer.repeated).sum()
    }

    pub fn viewers(&self) -> impl Iterator<Item = &Viewer> {
        self.peers.iter().skip(1).map(|peer| &peer.viewer)
    }

    /// When the keys of each viewer were agreed, but for the first so many.
    pub fn connected_at(&self, after: usize) -> impl Iterator<Item = Instant> {
        self.peers
            .iter()
            .skip(1 + after)
            .filter_map(|peer| peer.connected_at)
    }

    /// Forgets the latencies.
    pub fn start_window(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.viewer.start());
    }

    /// The latencies of the first so many viewers.
    pub fn latencies(&mut self, viewers: usize) -> Sample {
        let mut all = Sample::default();
        for peer in self.peers.iter_mut().skip(1).take(viewers) {
            all.append(&mut peer.viewer.latencies);
        }
        all
    }

    pub fn ports(&self) -> HashSet<u16> {
        let port = |peer: &Peer| peer.socket.local_addr().ok().map(|address| address.port());
        self.peers.iter().filter_map(port).collect()
    }

    /// Plays the peers until `done`; false if that takes longer than `most`.
    pub fn run(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> anyhow::Result<bool> {
        let end = Instant::now() + most;
        let mut events = [EpollEvent::empty(); 256];
        while !done(self) {
            let now = Instant::now();
            if now >= end {
                return Ok(false);
            }
            let ready = self.epoll.wait(&mut events, self.timeout(now, end)?)?;
            for event in &events[..ready] {
                self.receive(usize::try_from(event.data())?)?;
            }
            self.do_what_is_due()?;
        }
        Ok(true)
    }

    fn timeout(&self, now: Instant, end: Instant) -> anyhow::Result<EpollTimeout> {
        let next = self
            .next_frame
            .map_or(end, |frame| frame.min(end))
            .min(self.next_tick);
        let mut wait = next.saturating_duration_since(now).as_micros().div_ceil(1000);
        if self.posting > 0 {
            wait = wait.min(1);
        }
        Ok(EpollTimeout::try_from(wait as i32)?)
    }

    fn do_what_is_due(&mut self) -> anyhow::Result<()> {
        while let Ok(signal) = self.signals.1.try_recv() {
            match signal {
                Signal::Joined(ufrag, answer) => {
                    self.posting -= 1;
                    self.enter(&ufrag, &answer)?;
                }
                Signal::Failed(error) => self.failures.push(error),
            }
        }
        let now = Instant::now();
        if let Some(due) = self.next_frame.filter(|due| *due <= now) {
            // Frames that we are late for by long are not made up for.
            self.next_frame = Some((due + FRAME).max(now));
            self.send_frame()?;
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            for index in 0..self.peers.len() {
                self.tick(now, index)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, ufrag: &str, answer: &Answer) -> anyhow::Result<()> {
        let now = Instant::now();
        let socket = socket(answer.candidate)?;
        let index = self.peers.len();
        let feedback = answer.twcc.then(|| Feedback::new(offer::TWCC_ID, now));
        self.epoll
            .add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        self.peers.push(Peer {
            socket,
            client: Client::new(now, ufrag, answer, &self.certificate)?,
            viewer: Viewer::new(self.sample, feedback),
            // Not all at the same time.
            next_report: now + REPORT * (index as u32 % 50) / 50,
            connected_at: None,
        });
        self.tick(now, index)
    }

    fn tick(&mut self, now: Instant, index: usize) -> anyhow::Result<()> {
        let Self {
            peers,
            unsent,
            failures,
            ..
        } = self;
        let Some(peer) = peers.get_mut(index) else {
            return Ok(());
        };
        let Peer {
            socket,
            client,
            viewer,
            next_report,
            ..
        } = peer;
        let mut send = |datagram: &[u8]| *unsent += u64::from(socket.send(datagram).is_err());
        if let Err(error) = client.handle_timeout(now, &mut send) {
            failures.push(error);
        }
        if let Some(feedback) = viewer.feedback(now)
            && let Some(srtp) = client.srtp()
        {
            send(&srtp.outbound.encrypt_rtcp(&feedback)?);
        }
        if now >= *next_report {
            *next_report = now + REPORT;
            if let (Some(srtp), Some(report)) = (client.srtp(), viewer.report(now)) {
                send(&srtp.outbound.encrypt_rtcp(&report)?);
            }
        }
        Ok(())
    }

    fn send_frame(&mut self) -> anyhow::Result<()> {
        let Self {
            peers,
            camera,
            epoch,
            unsent,
            ..
        } = self;
        let peer = peers.first_mut().context("no publisher")?;
        let srtp = peer.client.srtp().context("the publisher is not connected")?;
        let key = std::mem::take(&mut self.key_wanted);
        let clock = || epoch.elapsed().as_micros() as u64;
        camera.frame(self.packets_a_frame, key, clock, |packet| {
            let sent = srtp
                .outbound
                .encrypt_rtp(packet)
                .ok()
                .and_then(|packet| peer.socket.send(&packet).ok());
            *unsent += u64::from(sent.is_none());
        });
        Ok(())
    }

    /// Takes all that is there for a peer.
    fn receive(&mut self, index: usize) -> anyhow::Result<()> {
        let Self { peers, batch, .. } = self;
        let Some(peer) = peers.get_mut(index) else {
            return Ok(());
        };
        loop {
            let received = batch.receive(&peer.socket)?;
            let now = Instant::now();
            let now_us = now.saturating_duration_since(self.epoch).as_micros() as u64;
            for datagram in batch.datagrams() {
                let watching = peer.viewer.first_media.is_some();
                match peer.take(now, now_us, index == 0, datagram, &mut self.unsent) {
                    Ok(asked) => self.key_wanted |= asked,
                    Err(error) => self.failures.push(error.context(format!("peer {index}"))),
                }
                self.watching += usize::from(!watching && peer.viewer.first_media.is_some());
                if peer.connected_at.is_none() && peer.client.is_connected() {
                    peer.connected_at = Some(now);
                    self.connected += 1;
                }
            }
            if received < BATCH {
                return Ok(());
            }
        }
    }
}

impl Peer {
    /// Takes one datagram; true if it asks the publisher for a key frame.
    fn take(
        &mut self,
        now: Instant,
        now_us: u64,
        publishes: bool,
        datagram: &[u8],
        unsent: &mut u64,
    ) -> anyhow::Result<bool> {
        let (Some(&first), Some(&second)) = (datagram.first(), datagram.get(1)) else {
            return Ok(false);
        };
        if first < 128 {
            let socket = &self.socket;
            let send = |datagram: &[u8]| *unsent += u64::from(socket.send(datagram).is_err());
            self.client.handle(now, datagram, send)?;
            return Ok(false);
        }
        // The relay may be ready before we are.
        let Some(srtp) = self.client.srtp() else {
            return Ok(false);
        };
        if (192..=223).contains(&second) {
            let plain = srtp.inbound.decrypt_rtcp(datagram)?;
            self.viewer.take_rtcp(now, &plain);
            return Ok(publishes && asks_key_frame(&plain));
        }
        self.viewer.take(now, now_us, datagram, srtp)?;
        Ok(false)
    }
}

fn socket(relay: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(relay)?;
    socket.set_nonblocking(true)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    Ok(socket)
}

/// Joins one after the other over one connection.
fn signal(
    to: SocketAddr,
    mut next: impl FnMut() -> Option<Job>,
    signals: &mpsc::Sender<Signal>,
) -> Result<(), mpsc::SendError<Signal>> {
    let mut http = match Http::connect(to) {
        Ok(http) => http,
        Err(error) => return signals.send(Signal::Failed(error)),
    };
    while let Some(job) = next() {
        let joined = http.join(&job.token, &job.offer);
        let joined = joined.and_then(|joined| Ok((offer::read(&joined.answer)?, joined.secret)));
        let (answer, secret) = match joined {
            Ok(joined) => joined,
            Err(error) => {
                signals.send(Signal::Failed(error))?;
                continue;
            }
        };
        signals.send(Signal::Joined(job.ufrag, Box::new(answer)))?;
        if job.views
            && let Err(error) = http.view(&secret, PUBLISHER)
        {
            signals.send(Signal::Failed(error))?;
        }
    }
    Ok(())
}

//! The peers, all played by one thread; they are numbered in the order of their plans.
//!
//! What comes does not wake the thread, which looks by itself every half a millisecond: on loopback it is the sender who pays
//! for waking a receiver, with an interrupt to another core; on a wire it is the receiver's machine. So an `epoll` that is only asked,
//! never waited for (`--wake on` waits, to compare).
//!
//! Joins are asked for by other threads, which wait for the server. Invariant: nothing in the loop blocks but that pause.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::camera::Camera;
use crate::client::Client;
use crate::join::{Job, Joins, PWD, Plan, Server, Signal};
use crate::keys::Certificate;
use crate::peer::{Clock, Peer};
use crate::picture::SourceId;
use crate::receive::Batch;
use crate::sdp::Remote;
use crate::stats::Sample;
use crate::stream::Stream;
use crate::stun::Control;

const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);
/// Whether all comes through is looked at over this time.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at the sockets, where nothing wakes us.
const PAUSE: Duration = Duration::from_micros(500);
/// Timers of the peers are looked at so often.
const TICK: Duration = Duration::from_millis(20);

/// How the peers take what comes.
#[derive(Clone, Copy)]
pub struct Taking {
    /// Joined datagrams are taken as they are.
    pub gro: bool,
    /// What comes wakes us; else we look every [`PAUSE`].
    pub wake: bool,
}

pub struct Crowd {
    certificate: Certificate,
    epoll: Epoll,
    batch: Batch,
    clock: Clock,
    taking: Taking,
    /// Peers in the order of their plans; None until the join is answered.
    peers: Vec<Option<Peer>>,
    /// Places of those with a camera.
    publishers: Vec<usize>,
    joins: Joins,
    publishing: bool,
    light: bool,
    next_tick: Instant,
    pub failures: Vec<anyhow::Error>,
}

impl Crowd {
    /// Viewers decrypt one packet of `sample`.
    pub fn new(sample: u64, taking: Taking) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            certificate: Certificate::generate()?,
            epoll: Epoll::new(EpollCreateFlags::empty())?,
            batch: Batch::new(),
            clock: Clock { epoch: now, sample },
            taking,
            peers: Vec::new(),
            publishers: Vec::new(),
            joins: Joins::new(),
            publishing: false,
            light: false,
            next_tick: now,
            failures: Vec::new(),
        })
    }

    /// Starts these joins over so many connections.
    pub fn join(&mut self, server: &dyn Server, plans: Vec<Plan>, connections: usize) -> anyhow::Result<()> {
        self.peers.extend(plans.iter().map(|_| None));
        self.joins
            .start(server, plans, &self.certificate.fingerprint, connections)
    }

    /// All of `plans` join and have media in all slots; the cameras run. Publishers that view nothing come first. Meanwhile frames
    /// of even size are of one packet, so that a load that is too much for the server does not hinder the joins.
    pub fn assemble(&mut self, server: &dyn Server, plans: Vec<Plan>) -> anyhow::Result<()> {
        let patience = Duration::from_secs(20) + Duration::from_millis(50) * plans.len() as u32;
        let slots: usize = plans.iter().map(|plan| plan.views.len()).sum();
        let (first, others): (Vec<_>, Vec<_>) = plans.into_iter().partition(|plan| plan.views.is_empty());
        self.light(true);
        self.publish(true);
        for some in [first, others] {
            self.join(server, some, 4)?;
            let all = self.peers.len();
            let joined = self.run(patience, |crowd| {
                crowd.connected() == all || !crowd.failures.is_empty()
            })?;
            ensure!(
                joined && self.failures.is_empty(),
                "{} of {all} peers are connected; {:?}",
                self.connected(),
                self.failures
            );
        }
        let watching = self.run(patience, |crowd| {
            crowd.watched() == slots || !crowd.failures.is_empty()
        })?;
        ensure!(
            watching && self.failures.is_empty(),
            "{} of {slots} slots have media; {:?}",
            self.watched(),
            self.failures
        );
        self.light(false);
        Ok(())
    }

    /// All cameras run from now on, their frames spread over the time of one, or rest.
    pub fn publish(&mut self, on: bool) {
        self.publishing = on;
        for index in 0..self.publishers.len() {
            self.start_camera(index, self.publishers.len());
        }
    }

    fn start_camera(&mut self, index: usize, of: usize) {
        let (publishing, light) = (self.publishing, self.light);
        let place = self.publishers[index];
        let Some(camera) = self.peers[place].as_mut().and_then(|peer| peer.camera.as_mut()) else {
            return;
        };
        camera.light = light;
        if publishing {
            camera.start(Instant::now() + FRAME * index as u32 / of.max(1) as u32);
        } else {
            camera.stop();
        }
    }

    fn light(&mut self, light: bool) {
        self.light = light;
        let cameras = self
            .peers
            .iter_mut()
            .flatten()
            .filter_map(|peer| peer.camera.as_mut());
        cameras.for_each(|camera| camera.light = light);
    }

    fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().flatten()
    }

    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.peers().flat_map(|peer| &peer.streams)
    }

    /// Peers whose keys are agreed.
    pub fn connected(&self) -> usize {
        self.peers().filter(|peer| peer.connected_at.is_some()).count()
    }

    /// Slots to which media came.
    pub fn watched(&self) -> usize {
        self.peers().map(|peer| peer.streams.len()).sum()
    }

    /// Packets that the cameras have sent.
    pub fn published(&self) -> HashMap<SourceId, u64> {
        let cameras = self.peers.iter().enumerate().filter_map(|(place, peer)| {
            let camera = peer.as_ref()?.camera.as_ref()?;
            Some((place, camera))
        });
        let layers = cameras.flat_map(|(place, camera)| {
            let layers = camera.packets().enumerate();
            layers.map(move |(layer, sent)| (SourceId::new(place, layer), sent))
        });
        layers.collect()
    }

    /// Packets that came to the viewers, without repeats and padding.
    pub fn received(&self) -> u64 {
        self.streams().map(|stream| stream.received).sum()
    }

    /// Packets that our sockets would not send.
    pub fn unsent(&self) -> u64 {
        self.peers().map(|peer| peer.unsent).sum()
    }

    /// Packets that came again or carried nothing.
    pub fn resent(&self) -> u64 {
        let more = self.streams().map(|stream| stream.repeated + stream.padding);
        more.chain(self.peers().map(|peer| peer.resent)).sum()
    }

    /// When the keys of each peer were agreed and when media came, for peers from `after` on.
    pub fn times(&self, after: usize) -> (Vec<Instant>, Vec<Instant>) {
        let peers = || self.peers.iter().skip(after).flatten();
        (
            peers().filter_map(|peer| peer.connected_at).collect(),
            peers().filter_map(|peer| peer.first_media).collect(),
        )
    }

    /// Forgets what was noted of the samples.
    pub fn start_window(&mut self) {
        let peers = self.peers.iter_mut().flatten();
        peers.flat_map(|peer| &mut peer.streams).for_each(Stream::start);
    }

    /// The latencies of the first so many peers.
    pub fn latencies(&mut self, peers: usize) -> Sample {
        let mut all = Sample::default();
        for stream in self
            .peers
            .iter_mut()
            .take(peers)
            .flatten()
            .flat_map(|peer| &mut peer.streams)
        {
            all.append(&mut stream.latencies);
        }
        all
    }

    pub fn ports(&self) -> HashSet<u16> {
        let port = |peer: &Peer| peer.socket().local_addr().ok().map(|address| address.port());
        self.peers().filter_map(port).collect()
    }

    /// Plays until all that is published comes to all who see it, since links are thought narrow at first; seconds that it
    /// took, or None if it does not within `most`.
    pub fn climb(&mut self, most: Duration) -> anyhow::Result<Option<f64>> {
        let start = Instant::now();
        while start.elapsed() < most {
            let looked = start.elapsed();
            let before: Vec<u64> = self.streams().map(|stream| stream.received).collect();
            let published = self.published();
            self.play(LOOK)?;
            let now = self.published();
            let sent = |source: Option<SourceId>| {
                let at = |counts: &HashMap<SourceId, u64>| counts.get(&source?).copied();
                at(&now)
                    .zip(at(&published))
                    .map_or(0, |(now, before)| now - before)
            };
            let whole =
                |(stream, before): (&Stream, &u64)| stream.received - before >= sent(stream.source) * 9 / 10;
            if self.streams().zip(&before).all(whole) {
                return Ok(Some(looked.as_secs_f64()));
            }
        }
        Ok(None)
    }

    /// Plays the peers for a while. Errors: a peer met something that must not be.
    pub fn play(&mut self, time: Duration) -> anyhow::Result<()> {
        self.run(time, |crowd| !crowd.failures.is_empty())?;
        ensure!(self.failures.is_empty(), "{:?}", self.failures);
        Ok(())
    }

    /// Plays the peers until `done`; false if that takes longer than `most`.
    pub fn run(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> anyhow::Result<bool> {
        let end = Instant::now() + most;
        let mut events = [EpollEvent::empty(); 256];
        // Asking all peers is not for each turn.
        let mut ask_next = Instant::now();
        loop {
            let now = Instant::now();
            if now >= ask_next {
                if done(self) {
                    return Ok(true);
                }
                ask_next = now + Duration::from_millis(2);
            }
            if now >= end {
                return Ok(false);
            }
            let wait = self.wait(now, end);
            let timeout = if self.taking.wake {
                EpollTimeout::try_from(wait.as_micros().div_ceil(1000) as i32)?
            } else {
                std::thread::sleep(wait.min(PAUSE));
                EpollTimeout::ZERO
            };
            let ready = self.epoll.wait(&mut events, timeout)?;
            for event in &events[..ready] {
                self.receive(usize::try_from(event.data())?);
                self.play_cameras()?;
            }
            self.do_what_is_due()?;
        }
    }

    fn receive(&mut self, place: usize) {
        let Some(Some(peer)) = self.peers.get_mut(place) else {
            return;
        };
        if let Err(error) = peer.receive(&mut self.batch, self.clock) {
            self.failures.push(error.context(format!("peer {place}")));
        }
    }

    /// Until something is due, or `end`.
    fn wait(&self, now: Instant, end: Instant) -> Duration {
        let cameras = self.publishers.iter().filter_map(|place| {
            let peer = self.peers.get(*place)?.as_ref()?;
            peer.connected_at.and_then(|_| peer.camera.as_ref()?.due())
        });
        let next = cameras
            .min()
            .map_or(end, |frame| frame.min(end))
            .min(self.next_tick);
        let wait = next.saturating_duration_since(now);
        if self.joins.pending > 0 {
            wait.min(Duration::from_millis(1))
        } else {
            wait
        }
    }

    fn do_what_is_due(&mut self) -> anyhow::Result<()> {
        while let Some(signal) = self.joins.next() {
            match signal {
                Signal::Joined(joined) => {
                    let (job, remote, control) = *joined;
                    self.enter(job, &remote, control)?;
                }
                Signal::Failed(error) => self.failures.push(error),
            }
        }
        self.play_cameras()?;
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            for (place, peer) in self.peers.iter_mut().enumerate() {
                if let Some(Err(error)) = peer.as_mut().map(|peer| peer.tick(now)) {
                    self.failures.push(error.context(format!("peer {place}")));
                }
            }
        }
        Ok(())
    }

    fn play_cameras(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        for place in &self.publishers {
            let Some(peer) = self.peers[*place].as_mut() else {
                continue;
            };
            let due = peer.camera.as_ref().and_then(Camera::due);
            if peer.connected_at.is_some() && due.is_some_and(|due| due <= now) {
                peer.play(now, self.clock)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, job: Job, remote: &Remote, control: Control) -> anyhow::Result<()> {
        let now = Instant::now();
        let place = job.place;
        let client = Client::new(now, (&job.ufrag, PWD), remote, control, &self.certificate)?;
        let mut peer = Peer::new(now, job.socket, self.taking.gro, client, remote, place)?;
        let script = job.plan.publishes;
        peer.camera = script.map(|script| Camera::new(script, place, remote.twcc));
        self.epoll
            .add(peer.socket(), EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
        peer.tick(now)?;
        let publishes = peer.camera.is_some();
        self.peers[place] = Some(peer);
        if publishes {
            self.publishers.push(place);
            self.start_camera(self.publishers.len() - 1, self.peers.len());
        }
        Ok(())
    }
}

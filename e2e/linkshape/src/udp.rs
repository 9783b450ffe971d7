//! The link in real time: a UDP relay between who sends to its address and one address that it passes everything on to.
//!
//! Each address that sends to the relay (a client, or the same client behind a new NAT binding) gets a socket of its own
//! towards the other end, so that the other end sees a new address too; all share the two shapers, since it is one link.
//! The clock of the profile starts at the first packet, or at [`Relay::release`].
//!
//! One thread does everything. It sleeps in `ppoll` until a packet comes or the next is due (`timerslack` at its least),
//! so it costs nothing while idle; how late packets left is counted ([`RelayCounters::late_p99_us`]).
//! On a machine whose cores are all busy, threads wait for their turn for milliseconds; `chrt -f 10 linkshape …` keeps
//! 99 of 100 packets within 0.2 ms there.
//!
//! Bounded: [`MAX_CLIENTS`] addresses, beyond which the one unused for longest goes; packets as the profile's queue and
//! delay bound them ([`Profile::most_in_flight`]). It does not keep ECN marks, and what the kernel drops at a full socket
//! buffer before the relay could read it is not counted here (`/proc/net/udp` has it).

use crate::{
    network::Line,
    profile::Profile,
    shaper::{Counters, Direction, Shaper},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        prctl::set_timerslack,
        socket::{setsockopt, sockopt},
        time::TimeSpec,
    },
};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::{fd::AsFd, unix::net::UnixDatagram},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The most client addresses at a time.
pub const MAX_CLIENTS: usize = 64;
/// Asked of the kernel for each socket; it gives what `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Packets read from one socket before the others and the deliveries have their turn.
const BATCH: usize = 64;
/// Buckets of 10 microseconds; the last one is for all above.
const LATE_BUCKETS: usize = 1001;
const LATE_BUCKET_US: u64 = 10;

/// What a relay did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounters {
    /// From the clients to the other end.
    pub up: Counters,
    /// Back.
    pub down: Counters,
    /// Client addresses seen.
    pub clients: u64,
    /// Client addresses that made room for new ones.
    pub evicted: u64,
    /// Packets that the link let through, but the system did not send or whose client was evicted; and packets of clients
    /// for which there was no socket.
    pub unsent: u64,
    /// How late packets left, microseconds: half of them at most by this, rounded up to 10.
    pub late_p50_us: u64,
    /// Likewise 99 of 100.
    pub late_p99_us: u64,
    /// The latest.
    pub late_max_us: u64,
}

/// A running relay; dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    wake: UnixDatagram,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens at `listen` (port 0 for any) and passes on to `to`, after `profile`, with the decisions of `seed`.
    ///
    /// # Errors
    /// Where the address cannot be bound, or the thread cannot be made.
    pub fn start(listen: SocketAddr, to: SocketAddr, profile: Arc<Profile>, seed: u64) -> io::Result<Self> {
        let socket = UdpSocket::bind(listen)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen at {listen}: {error}")))?;
        prepare(&socket)?;
        let addr = socket.local_addr()?;
        let (wake, woken) = UnixDatagram::pair()?;
        let line = |direction: Direction| Line::new(Shaper::new(Arc::clone(&profile), direction.seed(seed)));
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            stop: AtomicBool::new(false),
            state: Mutex::new(State {
                up: line(Direction::Up),
                down: line(Direction::Down),
                started: false,
                counters: RelayCounters::default(),
                late: vec![0; LATE_BUCKETS],
            }),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            listen: socket,
            to,
            woken,
            clients: Vec::new(),
            buffer: vec![0; 1 << 16],
        };
        let thread = std::thread::Builder::new()
            .name("linkshape".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            addr,
            shared,
            wake,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now until [`Relay::release`], the first row's rate, queue and delay, but no losses and never down, see
    /// [`Shaper::hold`].
    pub fn hold(&self) {
        let mut state = self.shared.lock();
        let now_us = self.shared.now_us();
        state.started = true;
        for line in state.lines() {
            line.shaper_mut().hold(now_us);
        }
    }

    /// The profile begins now, at its first row, held before or not; without this it begins at the first packet.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        let now_us = self.shared.now_us();
        state.begin(now_us);
    }

    /// The same as [`Relay::release`], for who did not hold.
    pub fn start_profile(&self) {
        self.release();
    }

    /// What it did so far.
    pub fn counters(&self) -> RelayCounters {
        self.shared.lock().counters()
    }

    /// Whether it still works: false after a failure of the system's that it could not go on with.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it and says what it did. What is still on its way is not delivered.
    pub fn stop(mut self) -> RelayCounters {
        self.end();
        self.counters()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Fails only if the thread has ended.
        let _ = self.wake.send(&[0]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread and the handle share.
#[derive(Debug)]
struct Shared {
    epoch: Instant,
    stop: AtomicBool,
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
struct State {
    up: Line<Packet>,
    down: Line<Packet>,
    /// Whether the clock of the profile was set: by a packet, or by hand.
    started: bool,
    /// Without what the shapers count themselves.
    counters: RelayCounters,
    late: Vec<u64>,
}

#[derive(Debug)]
struct Packet {
    client: u64,
    payload: Box<[u8]>,
}

impl State {
    fn lines(&mut self) -> [&mut Line<Packet>; 2] {
        [&mut self.up, &mut self.down]
    }

    fn line(&mut self, direction: Direction) -> &mut Line<Packet> {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn begin(&mut self, now_us: u64) {
        self.started = true;
        for line in self.lines() {
            line.shaper_mut().release(now_us);
        }
    }

    fn send(&mut self, now_us: u64, direction: Direction, client: u64, payload: &[u8]) {
        if !self.started {
            self.begin(now_us);
        }
        let packet = Packet {
            client,
            payload: payload.into(),
        };
        self.line(direction).send(now_us, payload.len(), packet);
    }

    fn next_at(&self) -> Option<u64> {
        [self.up.next_at(), self.down.next_at()]
            .into_iter()
            .flatten()
            .min()
    }

    fn count_late(&mut self, late_us: u64) {
        let bucket = usize::try_from(late_us / LATE_BUCKET_US)
            .unwrap_or(usize::MAX)
            .min(LATE_BUCKETS - 1);
        self.late[bucket] += 1;
        self.counters.late_max_us = self.counters.late_max_us.max(late_us);
    }

    fn counters(&self) -> RelayCounters {
        RelayCounters {
            up: self.up.shaper().counters(),
            down: self.down.shaper().counters(),
            late_p50_us: self.late_by(50),
            late_p99_us: self.late_by(99),
            ..self.counters
        }
    }

    fn late_by(&self, percent: u64) -> u64 {
        let wanted = (self.late.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        let bucket = self.late.iter().position(|count| {
            seen += count;
            seen >= wanted && seen > 0
        });
        match bucket {
            None => 0,
            Some(bucket) if bucket + 1 < LATE_BUCKETS => (bucket as u64 + 1) * LATE_BUCKET_US,
            Some(_) => self.counters.late_max_us,
        }
    }
}

/// A client's address and its socket towards the other end.
#[derive(Debug)]
struct Client {
    id: u64,
    addr: SocketAddr,
    socket: UdpSocket,
    /// When a packet came from it or for it.
    used_us: u64,
}

/// What only the thread has.
struct Worker {
    shared: Arc<Shared>,
    listen: UdpSocket,
    to: SocketAddr,
    woken: UnixDatagram,
    clients: Vec<Client>,
    buffer: Vec<u8>,
}

impl Worker {
    fn run(mut self) {
        // As late as a nanosecond; without it the kernel may add 50 microseconds. Not vital.
        let _ = set_timerslack(1);
        while !self.shared.stop.load(Ordering::Acquire) {
            let next_at = self.deliver();
            let Some((listen, clients)) = self.wait(next_at) else {
                return;
            };
            if listen {
                self.take_up();
            }
            for id in clients {
                self.take_down(id);
            }
        }
    }

    /// Sends what is due and says when the next packet is.
    fn deliver(&mut self) -> Option<u64> {
        let mut state = self.shared.lock();
        for direction in Direction::BOTH {
            loop {
                let now_us = self.shared.now_us();
                let Some((at_us, packet)) = state.line(direction).pop(now_us) else {
                    break;
                };
                state.count_late(now_us.saturating_sub(at_us));
                let client = self.clients.iter().find(|client| client.id == packet.client);
                let sent = client.is_some_and(|client| {
                    let (socket, to) = match direction {
                        Direction::Up => (&client.socket, self.to),
                        Direction::Down => (&self.listen, client.addr),
                    };
                    socket.send_to(&packet.payload, to).is_ok()
                });
                if !sent {
                    state.counters.unsent += 1;
                }
            }
        }
        state.next_at()
    }

    /// Sleeps until a socket has something or it is `next_at`. Whether clients sent something, and which clients have
    /// something to come; `None` if the system refuses to wait.
    fn wait(&self, next_at: Option<u64>) -> Option<(bool, Vec<u64>)> {
        let sockets = [self.woken.as_fd(), self.listen.as_fd()];
        let sockets = sockets
            .into_iter()
            .chain(self.clients.iter().map(|client| client.socket.as_fd()));
        let mut polled: Vec<PollFd> = sockets
            .map(|socket| PollFd::new(socket, PollFlags::POLLIN))
            .collect();
        let timeout = next_at.map(|at_us| {
            TimeSpec::from_duration(Duration::from_micros(at_us).saturating_sub(self.shared.epoch.elapsed()))
        });
        match ppoll(&mut polled, timeout, None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Some((false, Vec::new())),
            Err(_) => return None,
        }
        let mut ready = polled.iter().skip(1).map(|socket| socket.any().unwrap_or(false));
        let listen = ready.next().unwrap_or(false);
        let ids = self.clients.iter().map(|client| client.id);
        Some((
            listen,
            ids.zip(ready)
                .filter_map(|(id, ready)| ready.then_some(id))
                .collect(),
        ))
    }

    /// Reads what clients sent.
    fn take_up(&mut self) {
        for _ in 0..BATCH {
            let Ok((length, from)) = self.listen.recv_from(&mut self.buffer) else {
                return;
            };
            let now_us = self.shared.now_us();
            let client = self.client(from, now_us);
            let mut state = self.shared.lock();
            match client {
                Some(id) => state.send(now_us, Direction::Up, id, &self.buffer[..length]),
                None => state.counters.unsent += 1,
            }
        }
    }

    /// Reads what the other end sent to a client.
    fn take_down(&mut self, id: u64) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else {
            return;
        };
        for _ in 0..BATCH {
            let Ok((length, from)) = client.socket.recv_from(&mut self.buffer) else {
                return;
            };
            // Anyone can send to the socket; only the other end is on this link.
            if from != self.to {
                continue;
            }
            let now_us = self.shared.now_us();
            client.used_us = now_us;
            self.shared
                .lock()
                .send(now_us, Direction::Down, id, &self.buffer[..length]);
        }
    }

    /// The client of an address, made if it is new; `None` if there is no socket for it.
    fn client(&mut self, addr: SocketAddr, now_us: u64) -> Option<u64> {
        if let Some(client) = self.clients.iter_mut().find(|client| client.addr == addr) {
            client.used_us = now_us;
            return Some(client.id);
        }
        let any: SocketAddr = match self.to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)
            .and_then(|socket| prepare(&socket).map(|()| socket))
            .ok()?;
        let mut state = self.shared.lock();
        if self.clients.len() >= MAX_CLIENTS {
            let oldest = self
                .clients
                .iter()
                .enumerate()
                .min_by_key(|(_, client)| client.used_us);
            if let Some((index, _)) = oldest {
                self.clients.swap_remove(index);
                state.counters.evicted += 1;
            }
        }
        state.counters.clients += 1;
        let id = state.counters.clients;
        self.clients.push(Client {
            id,
            addr,
            socket,
            used_us: now_us,
        });
        Some(id)
    }
}

fn prepare(socket: &UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    Ok(())
}

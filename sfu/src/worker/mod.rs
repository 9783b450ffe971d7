//! A worker: one thread, one UDP port for browsers, one for links, and the legs on them.
//!
//! Its runtime has the one thread, so that quinn and the packet path share it. The main loop and each link are tasks that
//! borrow the [`state::Worker`] for one batch and never across an await. Others speak to a worker through bounded
//! [`Command`]s, through the directory (what has changed in a meeting) and through the rings (packets).

mod backlog;
mod cascade;
mod copies;
mod events;
mod following;
mod handshakes;
mod legs;
mod links;
mod load;
mod neighbours;
mod parts;
mod path;
mod quality;
mod socket;
pub(crate) mod state;
mod sync;
mod table;
mod tcp;
mod tick;

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use muster_forward::LegId;
use muster_identity::{Credentials, JoinClaims};
use muster_link::{LinkError, LinkServer};
use muster_proto::media::v1::SlotWish;
use muster_webrtc::stun_ufrag;
use tokio::sync::{mpsc, oneshot};

use crate::refusal::Refusal;
use crate::watch::Watch;

pub(crate) use legs::{Accepted, IceSession, Opened, Purpose, Restarted, Size};
use socket::MediaSocket;
pub(crate) use socket::{open as open_socket, open_links};
use state::{Shared, Worker};
pub(crate) use tcp::Arrived;

/// Commands that may wait for a worker; more callers wait.
const COMMANDS: usize = 256;
/// Batches received in one turn, before what came of them is sent.
const MAX_BATCHES: usize = 4;
/// How long peers may take to hear of the end.
const GOODBYE: Duration = Duration::from_millis(500);

/// What others ask of a worker.
pub(crate) enum Command {
    Open {
        claims: JoinClaims,
        /// SHA-256 of the leg's secret.
        secret: String,
        accepted: Box<Accepted>,
        reply: oneshot::Sender<Result<Opened, Refusal>>,
    },
    /// The current username fragments; ours names the ICE session.
    IceSession {
        leg: LegId,
        reply: oneshot::Sender<Option<IceSession>>,
    },
    RestartIce {
        leg: LegId,
        ufrag: String,
        reply: oneshot::Sender<Option<Restarted>>,
    },
    SetView {
        leg: LegId,
        wishes: Vec<SlotWish>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Watch {
        leg: LegId,
        reply: oneshot::Sender<Option<Watch>>,
    },
    Close {
        leg: LegId,
        reply: oneshot::Sender<()>,
    },
    /// A TCP connection whose first frame names a leg; it comes back if that is none of this worker's.
    Adopt {
        arrived: Box<Arrived>,
        reply: oneshot::Sender<Option<Box<Arrived>>>,
    },
    /// Closes every leg and ends the thread.
    Stop,
}

/// What a worker's thread starts with.
pub(crate) struct Start {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub credentials: Credentials,
    pub media: UdpSocket,
    pub links: UdpSocket,
    /// The TCP port beside it.
    pub links_tcp: Option<TcpListener>,
    /// The media port as browsers reach it.
    pub candidate: SocketAddr,
    /// The relay's TCP port for media, likewise.
    pub tcp_candidate: Option<SocketAddr>,
    /// `HOST:PORT` of the relay above, for the worker that keeps the link to it.
    pub uplink: Option<String>,
}

/// A started worker.
pub(crate) struct Handle {
    pub commands: mpsc::Sender<Command>,
    pub thread: JoinHandle<()>,
}

/// Tells that the thread ends, be it by a panic: else joins would go on being sent to it.
struct Ended(Arc<Shared>, usize);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.directory.worker_ended(self.1);
    }
}

/// Starts the thread; `ready` tells whether it serves.
pub(crate) fn start(start: Start) -> std::io::Result<(Handle, oneshot::Receiver<Result<(), LinkError>>)> {
    let (commands, queue) = mpsc::channel(COMMANDS);
    let (ready, is_ready) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new()
        .name(format!("worker-{}", start.index))
        .spawn(move || {
            let _ended = Ended(start.shared.clone(), start.index);
            tokio::task::LocalSet::new().block_on(&runtime, run(start, queue, ready));
        })?;
    Ok((Handle { commands, thread }, is_ready))
}

async fn run(
    start: Start,
    mut commands: mpsc::Receiver<Command>,
    ready: oneshot::Sender<Result<(), LinkError>>,
) {
    let opened = MediaSocket::new(start.media)
        .map_err(LinkError::Socket)
        .and_then(|media| {
            let server = LinkServer::bind_with(start.links, start.links_tcp, &start.credentials)?;
            Ok((media, server))
        });
    let (media, server) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let signal = start.shared.signals[start.index].clone();
    let mut worker = Worker::new(start.index, start.shared, media, start.candidate);
    worker.tcp_candidate = start.tcp_candidate;
    let socket = worker.socket.clone();
    let rouse = worker.rouse.clone();
    let worker = Rc::new(RefCell::new(worker));
    let server = Rc::new(server);
    tokio::task::spawn_local(links::accept(worker.clone(), server.clone()));
    tokio::task::spawn_local(links::count_tunnels(worker.clone(), Rc::downgrade(&server)));
    if let Some(uplink) = start.uplink {
        tokio::task::spawn_local(cascade::keep_uplink(worker.clone(), uplink, start.credentials));
    }
    let _ = ready.send(Ok(()));

    let mut tick = tokio::time::interval(tick::TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (turn, handshakes) = {
            let mut worker = worker.borrow_mut();
            worker.sleeps_until = worker.backlog.next();
            (worker.sleeps_until, worker.handshakes.wait())
        };
        tokio::select! {
            readable = socket.readable() => match readable {
                Ok(()) => receive(&worker),
                Err(error) => {
                    tracing::error!(%error, "the media socket is broken");
                    break;
                }
            },
            () = signal.woken() => wake(&worker),
            command = commands.recv() => match command {
                Some(Command::Stop) | None => break,
                Some(Command::Adopt { arrived, reply }) => adopt(&worker, arrived, reply),
                Some(command) => obey(&mut worker.borrow_mut(), command),
            },
            // Yields, so that what has arrived meanwhile is seen.
            () = tokio::task::yield_now(), if handshakes => worker.borrow_mut().take_handshakes(),
            () = rouse.notified() => {}
            () = until(turn), if turn.is_some() => worker.borrow_mut().flush(Instant::now()),
            _ = tick.tick() => worker.borrow_mut().tick(),
        }
    }
    stop(&worker, &server).await;
}

async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time.into()).await;
    }
}

fn receive(worker: &RefCell<Worker>) {
    let mut worker = worker.borrow_mut();
    worker.receive(MAX_BATCHES);
}

/// Something came from the other workers, or a meeting changed.
fn wake(worker: &RefCell<Worker>) {
    let mut worker = worker.borrow_mut();
    worker.take_crossings();
    let signal = worker.shared.signals[worker.index].clone();
    let now = Instant::now();
    for meeting in signal.take_changed() {
        worker.sync(now, &meeting);
    }
    worker.flush(now);
}

/// Replies that nobody waits for any more are dropped.
fn obey(worker: &mut Worker, command: Command) {
    match command {
        Command::Open {
            claims,
            secret,
            accepted,
            reply,
        } => {
            // A caller that went away gets no leg.
            if !reply.is_closed() {
                let _ = reply.send(worker.open_webrtc(claims, secret, *accepted));
            }
        }
        Command::IceSession { leg, reply } => {
            let _ = reply.send(worker.ice_session(leg));
        }
        Command::RestartIce { leg, ufrag, reply } => {
            let _ = reply.send(worker.restart_ice(leg, &ufrag));
        }
        Command::SetView { leg, wishes, reply } => {
            let _ = reply.send(worker.set_view(leg, &wishes));
        }
        Command::Watch { leg, reply } => {
            let _ = reply.send(worker.watch(leg));
        }
        Command::Close { leg, reply } => {
            worker.close(leg, "left");
            let _ = reply.send(());
        }
        // These need more than the worker: `run` does them.
        Command::Adopt { .. } | Command::Stop => {}
    }
    worker.flush(Instant::now());
}

fn adopt(worker: &Rc<RefCell<Worker>>, arrived: Box<Arrived>, reply: oneshot::Sender<Option<Box<Arrived>>>) {
    let ours = stun_ufrag(&arrived.first).is_some_and(|ufrag| worker.borrow().by_ufrag.contains_key(ufrag));
    let back = if ours {
        tokio::task::spawn_local(tcp::serve(worker.clone(), *arrived));
        None
    } else {
        Some(arrived)
    };
    let _ = reply.send(back);
}

async fn stop(worker: &RefCell<Worker>, server: &LinkServer) {
    {
        let mut worker = worker.borrow_mut();
        let legs: Vec<LegId> = worker.legs.iter().map(|(id, _)| id).collect();
        for leg in legs {
            worker.close(leg, "relay stopped");
        }
        worker.close_neighbours("relay stopped");
        worker.flush(Instant::now());
    }
    server.close("relay stopped");
    let _ = tokio::time::timeout(GOODBYE, server.wait_idle()).await;
}

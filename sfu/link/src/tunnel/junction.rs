//! The relay's socket: one UDP port and the tunnels of a TCP port beside it, as one socket to QUIC.
//!
//! Each tunnel is a peer at a virtual address, which never leaves the process. The outer TLS already demands a certificate of our
//! authority, of an agent or a relay, so a stranger gets no further than a handshake; those are bounded in number, of one address
//! too, and in time. A peer that opens more tunnels than it may loses its oldest: it has probably forgotten it.
//!
//! What it does not do: it reads no QUIC. Who the peer is, is asked again inside.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use muster_identity::Identity;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{ALPN, Arrived, Outgoing, carry, is_virtual, tune, tunnel_of, virtual_address};

/// Tunnels at once, and of one peer.
const MAX_TUNNELS: usize = 1024;
const MAX_OF_PEER: usize = 4;
/// Handshakes at once, and of one address.
const MAX_SHAKING: usize = 256;
const MAX_SHAKING_OF_ADDRESS: usize = 32;
/// How long a handshake of TLS may take.
const SHAKE_WITHIN: Duration = Duration::from_secs(4);
/// A tunnel in which nothing comes for so long is closed: longer than QUIC's own idle time.
const IDLE: Duration = Duration::from_secs(15);
/// Datagrams of all tunnels that wait for QUIC; tunnels wait then.
const MAX_ARRIVED: usize = 1024;
/// After the system refused a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What was counted of the tunnels of a [`crate::LinkServer`] since it serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// Tunnels now.
    pub open: usize,
    pub opened: u64,
    /// TCP connections that became no tunnel.
    pub refused: u64,
    /// Datagrams to tunnels that were dropped because TCP did not take them in time.
    pub dropped: u64,
}

/// The tunnels of a socket.
#[derive(Debug, Default)]
pub(crate) struct Table {
    tunnels: Mutex<HashMap<u64, Entry>>,
    shaking: Mutex<HashMap<IpAddr, usize>>,
    opened: AtomicU64,
    refused: AtomicU64,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Entry {
    outgoing: Arc<Outgoing>,
    peer: Identity,
    from: SocketAddr,
    end: Arc<Notify>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_shaking(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.shaking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stats(&self) -> TunnelStats {
        TunnelStats {
            open: self.lock().len(),
            opened: self.opened.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// Where the peer at this address really is; the address itself if it is no tunnel's.
    pub fn real(&self, address: SocketAddr) -> SocketAddr {
        let real = tunnel_of(address).and_then(|tunnel| Some(self.lock().get(&tunnel)?.from));
        real.unwrap_or(address)
    }

    /// A tunnel of its own for this peer; `None` where there are as many as may be.
    fn enter(self: &Arc<Self>, peer: Identity, from: SocketAddr) -> Option<Entered> {
        let mut tunnels = self.lock();
        let of_peer: Vec<u64> = tunnels
            .iter()
            .filter(|(_, entry)| entry.peer == peer)
            .map(|(&tunnel, _)| tunnel)
            .collect();
        if of_peer.len() >= MAX_OF_PEER
            && let Some(oldest) = of_peer.into_iter().min()
            && let Some(entry) = tunnels.remove(&oldest)
        {
            entry.end.notify_one();
        }
        if tunnels.len() >= MAX_TUNNELS {
            return None;
        }
        let tunnel = self.opened.fetch_add(1, Ordering::Relaxed);
        let outgoing = Arc::new(Outgoing::new(self.dropped.clone()));
        let end = Arc::new(Notify::new());
        tunnels.insert(
            tunnel,
            Entry {
                outgoing: outgoing.clone(),
                peer,
                from,
                end: end.clone(),
            },
        );
        Some(Entered {
            table: self.clone(),
            tunnel,
            outgoing,
            end,
        })
    }

    /// Leave for one more handshake.
    fn shake(self: &Arc<Self>, from: IpAddr) -> Option<Shaking> {
        let mut shaking = self.lock_shaking();
        let all: usize = shaking.values().sum();
        let of_address = shaking.get(&from).copied().unwrap_or(0);
        if all >= MAX_SHAKING || of_address >= MAX_SHAKING_OF_ADDRESS {
            return None;
        }
        shaking.insert(from, of_address + 1);
        Some(Shaking {
            table: self.clone(),
            from,
        })
    }
}

/// A tunnel in the table, taken out at its end.
struct Entered {
    table: Arc<Table>,
    tunnel: u64,
    outgoing: Arc<Outgoing>,
    end: Arc<Notify>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.table.lock().remove(&self.tunnel);
    }
}

/// A handshake, counted until its end.
struct Shaking {
    table: Arc<Table>,
    from: IpAddr,
}

impl Drop for Shaking {
    fn drop(&mut self) {
        let mut shaking = self.table.lock_shaking();
        match shaking.get_mut(&self.from) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                shaking.remove(&self.from);
            }
        }
    }
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Junction {
    udp: Arc<dyn AsyncUdpSocket>,
    table: Arc<Table>,
    arrived: Mutex<mpsc::Receiver<Arrived>>,
    /// Tunnels are asked first, in turn with UDP.
    tunnels_first: AtomicBool,
    /// Takes tunnels for as long as the socket lives.
    _listener: JoinSet<()>,
}

impl Junction {
    /// Joins a UDP socket and a TCP port, on the current runtime.
    pub fn new(udp: Arc<dyn AsyncUdpSocket>, listener: TcpListener, tls: TlsAcceptor) -> Self {
        let table = Arc::<Table>::default();
        let (send, arrived) = mpsc::channel(MAX_ARRIVED);
        let mut task = JoinSet::new();
        task.spawn(listen(listener, tls, table.clone(), send));
        Self {
            udp,
            table,
            arrived: Mutex::new(arrived),
            tunnels_first: AtomicBool::default(),
            _listener: task,
        }
    }

    pub fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    fn poll_tunnels(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        receive(&mut arrived, cx, bufs, meta)
    }

    fn poll_udp(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.udp.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = polled {
            // Nobody real sends from a tunnel's address.
            let forged = meta.iter_mut().take(count).filter(|one| is_virtual(one.addr));
            forged.for_each(|one| one.len = 0);
        }
        polled
    }
}

/// Takes what has come through tunnels, a datagram a buffer.
pub(super) fn receive(
    arrived: &mut mpsc::Receiver<Arrived>,
    cx: &mut Context<'_>,
    bufs: &mut [IoSliceMut<'_>],
    meta: &mut [RecvMeta],
) -> Poll<io::Result<usize>> {
    let mut count = 0;
    for (buffer, meta) in bufs.iter_mut().zip(meta) {
        let Poll::Ready(Some((from, datagram))) = arrived.poll_recv(cx) else {
            break;
        };
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        *meta = RecvMeta {
            addr: from,
            len: length,
            stride: length,
            ecn: None,
            dst_ip: None,
        };
        count += 1;
    }
    if count == 0 {
        return Poll::Pending;
    }
    Poll::Ready(Ok(count))
}

impl AsyncUdpSocket for Junction {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        // A tunnel never makes anybody wait.
        self.udp.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(tunnel) = tunnel_of(transmit.destination) else {
            return self.udp.try_send(transmit);
        };
        // Without its tunnel a datagram is lost, as any may be.
        let outgoing = self.table.lock().get(&tunnel).map(|entry| entry.outgoing.clone());
        if let Some(outgoing) = outgoing {
            outgoing.push(Instant::now(), transmit);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let first = self.tunnels_first.fetch_xor(true, Ordering::Relaxed);
        let polled = if first {
            self.poll_tunnels(cx, bufs, meta)
        } else {
            self.poll_udp(cx, bufs, meta)
        };
        match polled {
            Poll::Pending if first => self.poll_udp(cx, bufs, meta),
            Poll::Pending => self.poll_tunnels(cx, bufs, meta),
            ready => ready,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.udp.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.udp.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.udp.may_fragment()
    }
}

async fn listen(listener: TcpListener, tls: TlsAcceptor, table: Arc<Table>, arrived: mpsc::Sender<Arrived>) {
    let mut tunnels = JoinSet::new();
    loop {
        while tunnels.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => match table.shake(from.ip()) {
                Some(shaking) => {
                    tunnels.spawn(serve(stream, tls.clone(), from, shaking, arrived.clone()));
                }
                None => {
                    table.refused.fetch_add(1, Ordering::Relaxed);
                }
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the TCP port for links");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    tls: TlsAcceptor,
    from: SocketAddr,
    shaking: Shaking,
    arrived: mpsc::Sender<Arrived>,
) {
    let table = shaking.table.clone();
    tune(&stream);
    let shaken = tokio::time::timeout(SHAKE_WITHIN, tls.accept(stream)).await;
    drop(shaking);
    let entered = shaken
        .map_err(io::Error::from)
        .and_then(|shaken| shaken)
        .and_then(|stream| {
            let peer = peer_of(&stream)?;
            let full = || io::Error::other("there are as many tunnels as may be");
            Ok((table.enter(peer.clone(), from).ok_or_else(full)?, peer, stream))
        });
    let (entered, peer, stream) = match entered {
        Ok(entered) => entered,
        Err(error) => {
            table.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%from, %error, "no tunnel");
            return;
        }
    };
    tracing::info!(%peer, %from, "a link comes over TCP");
    let address = virtual_address(entered.tunnel);
    let why = tokio::select! {
        why = carry(stream, &entered.outgoing, (address, &arrived), IDLE) => why,
        () = entered.end.notified() => io::Error::other("the peer has newer ones"),
    };
    tracing::debug!(%peer, %from, %why, "tunnel ended");
}

/// Who is at the other end; an error if it has no business here.
fn peer_of(stream: &TlsStream<TcpStream>) -> io::Result<Identity> {
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        return Err(io::Error::other("the peer asks for something else than a tunnel"));
    }
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    match leaf.and_then(|leaf| muster_identity::identity_of(leaf).ok()) {
        Some(peer @ (Identity::Agent(_) | Identity::Relay(_))) => Ok(peer),
        _ => Err(io::Error::other("the peer is neither an agent nor a relay")),
    }
}

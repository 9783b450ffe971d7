//! One UDP socket for QUIC over several network interfaces: it sends by one of them and receives by all.
//!
//! Each uplink is a socket bound to its interface. The peer follows by QUIC's own migration (RFC 9000 section 9) when packets come
//! from another of our addresses, so the connection, its keys and the repair core's state live on. Who decides that an uplink is
//! dead is the media task: [`Uplinks::next`]. An uplink whose interface went away is opened again at most once a second; its
//! errors are never those of the others.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};

/// Between two tries to open an uplink.
const OPEN_EVERY: Duration = Duration::from_secs(1);

/// The sockets of a link.
pub(crate) struct Uplinks {
    uplinks: Vec<Uplink>,
    active: AtomicUsize,
    ipv6: bool,
    local: SocketAddr,
}

struct Uplink {
    interface: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    socket: Option<Arc<dyn AsyncUdpSocket>>,
    tried: Option<Instant>,
}

impl fmt::Debug for Uplinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplinks")
            .field("active", &self.interface())
            .finish_non_exhaustive()
    }
}

impl Uplinks {
    /// Opens a socket on each interface, in the order of preference; one that is not there yet is opened when it is.
    ///
    /// # Errors
    /// Where none of them can be opened: the error of the first.
    pub fn open(interfaces: &[String], to: SocketAddr) -> io::Result<Self> {
        let mut uplinks = Self {
            uplinks: Vec::new(),
            active: AtomicUsize::new(0),
            ipv6: to.is_ipv6(),
            local: any(to.is_ipv6()),
        };
        let mut first_error = None;
        for (index, interface) in interfaces.iter().enumerate() {
            let opened = open(interface, uplinks.ipv6);
            let state = match opened {
                Ok(socket) => {
                    if first_error.is_some() && uplinks.uplinks.iter().all(|other| !other.is_open()) {
                        uplinks.active = AtomicUsize::new(index);
                    }
                    uplinks.local = socket.local_addr()?;
                    State {
                        socket: Some(socket),
                        tried: None,
                    }
                }
                Err(error) => {
                    tracing::warn!(interface, %error, "uplink cannot be opened");
                    first_error.get_or_insert(error);
                    State::default()
                }
            };
            uplinks.uplinks.push(Uplink {
                interface: interface.clone(),
                state: Mutex::new(state),
            });
        }
        match first_error {
            Some(error) if uplinks.uplinks.iter().all(|uplink| !uplink.is_open()) => Err(error),
            _ => Ok(uplinks),
        }
    }

    /// The interface that is sent by.
    pub fn interface(&self) -> &str {
        &self.uplinks[self.active.load(Ordering::Relaxed)].interface
    }

    /// Sends by the next interface that is open from now on; says by which, or `None` if there is no other.
    pub fn next(&self) -> Option<&str> {
        let active = self.active.load(Ordering::Relaxed);
        let count = self.uplinks.len();
        let next = (1..count)
            .map(|step| (active + step) % count)
            .find(|&index| self.uplinks[index].socket(self.ipv6).is_some())?;
        self.active.store(next, Ordering::Relaxed);
        Some(&self.uplinks[next].interface)
    }

    fn active(&self) -> Option<Arc<dyn AsyncUdpSocket>> {
        self.uplinks[self.active.load(Ordering::Relaxed)].socket(self.ipv6)
    }
}

impl Uplink {
    fn is_open(&self) -> bool {
        self.lock().socket.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its socket, opened anew where it was lost.
    fn socket(&self, ipv6: bool) -> Option<Arc<dyn AsyncUdpSocket>> {
        let mut state = self.lock();
        if state.socket.is_none() && state.tried.is_none_or(|at| at.elapsed() >= OPEN_EVERY) {
            state.tried = Some(Instant::now());
            state.socket = open(&self.interface, ipv6).ok();
        }
        state.socket.clone()
    }

    /// Its interface is gone.
    fn lose(&self, error: &io::Error) {
        tracing::warn!(interface = self.interface, %error, "uplink lost");
        let mut state = self.lock();
        state.socket = None;
        state.tried = Some(Instant::now());
    }
}

fn any(ipv6: bool) -> SocketAddr {
    if ipv6 {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    }
}

fn open(interface: &str, ipv6: bool) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&any(ipv6).into())?;
    crate::socket::wrap(socket.into())
}

impl AsyncUdpSocket for Uplinks {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable {
            uplinks: self,
            of: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // Without a socket the datagram is lost, as on a cable that is out.
        let Some(socket) = self.active() else {
            return Ok(());
        };
        match socket.try_send(transmit) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.uplinks[self.active.load(Ordering::Relaxed)].lose(&error);
                Ok(())
            }
            sent => sent,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for uplink in &self.uplinks {
            let Some(socket) = uplink.socket(self.ipv6) else {
                continue;
            };
            match socket.poll_recv(cx, bufs, meta) {
                Poll::Ready(Ok(count)) => return Poll::Ready(Ok(count)),
                Poll::Ready(Err(error)) if error.kind() != io::ErrorKind::ConnectionReset => {
                    uplink.lose(&error)
                }
                Poll::Ready(Err(_)) => cx.waker().wake_by_ref(),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        self.active().is_none_or(|socket| socket.may_fragment())
    }

    fn max_receive_segments(&self) -> usize {
        let open = self.uplinks.iter().filter_map(|uplink| uplink.socket(self.ipv6));
        open.map(|socket| socket.max_receive_segments())
            .max()
            .unwrap_or(1)
    }
}

/// Waits for the socket that is sent by to take more.
struct Writable {
    uplinks: Arc<Uplinks>,
    /// Of which uplink it waits.
    of: Option<(usize, Pin<Box<dyn UdpPoller>>)>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let active = self.uplinks.active.load(Ordering::Relaxed);
        if self.of.as_ref().is_none_or(|(of, _)| *of != active) {
            let Some(socket) = self.uplinks.active() else {
                return Poll::Ready(Ok(()));
            };
            self.of = Some((active, socket.create_io_poller()));
        }
        match &mut self.of {
            Some((_, poller)) => poller.as_mut().poll_writable(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

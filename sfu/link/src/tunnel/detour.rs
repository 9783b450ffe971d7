//! The edge's socket where UDP is blocked: it sends through a tunnel, and by UDP as soon as that works again.
//!
//! A tunnel that breaks, or in which nothing comes for a moment (QUIC has keep-alives), is dialled again, over the next interface
//! where some are named. To the relay that is another address of ours, and QUIC migrates (RFC 9000 section 9): the link lives on.
//! UDP is tried from time to time by a handshake of its own, beside the link; when it is answered the link moves to UDP in the
//! same way, in mid-meeting too. Where nothing comes back by UDP then, the link returns to the tunnel and stays.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::junction::receive;
use super::{Arrived, Outgoing, carry, tune};

/// A tunnel in which nothing comes for so long is dialled again: QUIC has a keep-alive every half second.
const IDLE: Duration = Duration::from_millis(2500);
/// How long one dialling may take, and the wait before the next.
const DIAL_WITHIN: Duration = Duration::from_secs(4);
const DIAL_AGAIN: Duration = Duration::from_millis(300);
/// Datagrams that wait for QUIC.
const MAX_ARRIVED: usize = 256;
/// UDP is tried soon once: the path may have been dark as a whole, and TCP have been first to see its end.
const UDP_FIRST: Duration = Duration::from_secs(5);
/// After the move to UDP something must come back within this time.
const UDP_PROVES_WITHIN: Duration = Duration::from_secs(2);

/// Where a tunnel leads, and how.
#[derive(Clone)]
pub(crate) struct Route {
    pub to: SocketAddr,
    pub name: ServerName<'static>,
    pub tls: TlsConnector,
    /// In the order of preference; none: the system's routes decide.
    pub interfaces: Vec<String>,
}

impl Route {
    /// A tunnel, over the interface of this number, counted round.
    async fn dial(&self, attempt: usize) -> io::Result<(TlsStream<TcpStream>, Option<String>)> {
        let interface =
            (!self.interfaces.is_empty()).then(|| self.interfaces[attempt % self.interfaces.len()].clone());
        let socket = if self.to.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(interface) = &interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        let dialled = async {
            let stream = socket.connect(self.to).await?;
            tune(&stream);
            self.tls.connect(self.name.clone(), stream).await
        };
        let stream = tokio::time::timeout(DIAL_WITHIN, dialled).await??;
        Ok((stream, interface))
    }
}

/// The way that a link goes now.
pub(crate) struct Course {
    outgoing: Outgoing,
    udp: Arc<dyn AsyncUdpSocket>,
    by_udp: AtomicBool,
    /// Datagrams that came by UDP.
    heard_by_udp: AtomicU64,
    interface: Mutex<Option<String>>,
}

impl fmt::Debug for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Course")
            .field("by_udp", &self.by_udp)
            .finish_non_exhaustive()
    }
}

impl Course {
    /// It goes by UDP (again).
    pub fn is_by_udp(&self) -> bool {
        self.by_udp.load(Ordering::Relaxed)
    }

    /// The interface that the tunnel goes over, where some were named.
    pub fn interface(&self) -> Option<String> {
        self.lock_interface().clone()
    }

    fn lock_interface(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.interface.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries what goes through the tunnel, and dials it again whenever it breaks.
    async fn keep(&self, route: &Route, mut stream: TlsStream<TcpStream>, arrived: mpsc::Sender<Arrived>) {
        let mut attempt = 0;
        loop {
            let why = carry(stream, &self.outgoing, (route.to, &arrived), IDLE).await;
            tracing::warn!(%why, "the tunnel over TCP broke: dialling again");
            stream = loop {
                attempt += 1;
                match route.dial(attempt).await {
                    Ok((stream, interface)) => {
                        *self.lock_interface() = interface;
                        break stream;
                    }
                    Err(error) => tracing::debug!(%error, "no tunnel"),
                }
                tokio::time::sleep(DIAL_AGAIN).await;
            };
            // What gathered meanwhile is of no use to anybody.
            self.outgoing.clear();
        }
    }

    /// Ends when the link goes by UDP for good.
    async fn return_to_udp<Probe: Future<Output = bool>>(&self, every: Duration, probe: impl Fn() -> Probe) {
        let mut wait = every.min(UDP_FIRST);
        loop {
            tokio::time::sleep(wait).await;
            if probe().await {
                break;
            }
            wait = every;
        }
        tracing::info!("UDP works again: the link leaves TCP");
        let before = self.heard_by_udp.load(Ordering::Relaxed);
        self.by_udp.store(true, Ordering::Relaxed);
        tokio::time::sleep(UDP_PROVES_WITHIN).await;
        if self.heard_by_udp.load(Ordering::Relaxed) == before {
            tracing::warn!("nothing comes back by UDP: the link stays on TCP");
            self.by_udp.store(false, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
    }
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Detour {
    course: Arc<Course>,
    arrived: Mutex<mpsc::Receiver<Arrived>>,
    /// Ends with the socket, so with the link.
    _keeper: JoinSet<()>,
}

impl Detour {
    /// Dials a tunnel, and keeps it on the current runtime. `udp` is a socket for when UDP works again, which `probe` finds out,
    /// asked each `every`.
    ///
    /// # Errors
    /// Nobody there, no TLS, or not in time (4 s).
    pub async fn dial<Probe>(
        route: Route,
        udp: Arc<dyn AsyncUdpSocket>,
        every: Duration,
        probe: impl Fn() -> Probe + Send + Sync + 'static,
    ) -> io::Result<Self>
    where
        Probe: Future<Output = bool> + Send,
    {
        let (stream, interface) = route.dial(0).await?;
        let course = Arc::new(Course {
            outgoing: Outgoing::default(),
            udp,
            by_udp: AtomicBool::default(),
            heard_by_udp: AtomicU64::default(),
            interface: Mutex::new(interface),
        });
        let (send, arrived) = mpsc::channel(MAX_ARRIVED);
        let mut keeper = JoinSet::new();
        let kept = course.clone();
        keeper.spawn(async move {
            tokio::select! {
                () = kept.keep(&route, stream, send) => {}
                () = kept.return_to_udp(every, probe) => {}
            }
        });
        Ok(Self {
            course,
            arrived: Mutex::new(arrived),
            _keeper: keeper,
        })
    }

    pub fn course(&self) -> Arc<Course> {
        self.course.clone()
    }
}

impl AsyncUdpSocket for Detour {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        // The tunnel never makes anybody wait, so this is asked for UDP alone.
        self.course.udp.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.course.is_by_udp() {
            return self.course.udp.try_send(transmit);
        }
        self.course.outgoing.push(Instant::now(), transmit);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.course.udp.poll_recv(cx, bufs, meta);
        match &polled {
            Poll::Ready(Ok(count)) => {
                let came = meta.iter().take(*count).filter(|one| one.len > 0).count();
                self.course.heard_by_udp.fetch_add(came as u64, Ordering::Relaxed);
                return polled;
            }
            // A refusal of UDP, told by the network, is no end of the tunnel.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return polled,
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "UDP beside a tunnel");
                cx.waker().wake_by_ref();
            }
            Poll::Pending => {}
        }
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        receive(&mut arrived, cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.course.udp.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.course.udp.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.course.udp.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.course.udp.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use quinn::Runtime as _;

    use super::*;

    #[tokio::test]
    async fn where_nothing_comes_back_by_udp_the_link_stays_on_tcp() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let udp = quinn::TokioRuntime.wrap_udp_socket(socket).expect("wrapped");
        let course = Course {
            outgoing: Outgoing::default(),
            udp,
            by_udp: AtomicBool::default(),
            heard_by_udp: AtomicU64::default(),
            interface: Mutex::default(),
        };
        // A handshake gets through, and then nothing.
        let returning = course.return_to_udp(Duration::ZERO, || async { true });
        let tried = async {
            while !course.is_by_udp() {
                tokio::task::yield_now().await;
            }
            while course.is_by_udp() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let within = UDP_PROVES_WITHIN * 2;
        tokio::select! {
            () = returning => panic!("it must go on: the tunnel ends with it"),
            tried = tokio::time::timeout(within, tried) => tried.expect("TCP again"),
        }
    }
}

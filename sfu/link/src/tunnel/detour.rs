//! The edge's socket: it sends by UDP, and through a tunnel where UDP is blocked.
//!
//! By UDP it watches that the relay's packets come ([`Ids`]); where none come for [`UDP_DARK`] a tunnel is dialled beside it, and the
//! link moves there. A tunnel that breaks, or in which nothing comes for a moment (QUIC has keep-alives), is dialled again, over
//! the next interface where some are named. From a tunnel UDP is tried from time to time by a handshake of its own, beside the
//! link; when it is answered the link moves, and stays if the relay's packets come by UDP then. A move that fails costs
//! [`UDP_PROVES_WITHIN`], so each makes the wait for the next longer ([`Waits`]). To the relay a move is another address of ours,
//! and QUIC migrates (RFC 9000 section 9): the link lives on.

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
use super::{Arrived, Ids, Outgoing, carry, tune};

/// A tunnel in which nothing comes for so long is dialled again: QUIC has a keep-alive every half second.
const IDLE: Duration = Duration::from_millis(2500);
/// How long one dialling may take, and the wait before the next.
const DIAL_WITHIN: Duration = Duration::from_secs(4);
const DIAL_AGAIN: Duration = Duration::from_millis(300);
/// Datagrams that wait for QUIC.
const MAX_ARRIVED: usize = 256;
/// UDP is tried soon once: the path may have been dark as a whole, and TCP have been first to see its end.
const UDP_FIRST: Duration = Duration::from_secs(5);
/// After the move to UDP a packet of the relay must come by it within this time.
const UDP_PROVES_WITHIN: Duration = Duration::from_secs(2);
/// By UDP, with no packet of the relay for so many looks (3 s: QUIC has a keep-alive every half second) TCP is tried.
const UDP_DARK: u32 = 12;
const LOOK: Duration = Duration::from_millis(250);
/// Where an outage of everything ends, UDP is heard within this time after TCP.
const UDP_LAST: Duration = Duration::from_millis(250);
/// UDP that was moved to and was lost within this time was no better than a move that failed.
const UDP_HOLDS: Duration = Duration::from_secs(60);
/// The wait for UDP doubles up to so many times what it was.
const MOST_WAITS: u32 = 32;

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

/// How UDP is tried again.
pub(crate) struct Again {
    pub every: Duration,
    /// Whether UDP to the relay works, found out beside the link.
    pub works: Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>,
}

/// How long TCP is kept before UDP is tried.
#[derive(Debug, PartialEq, Eq)]
struct Waits {
    every: Duration,
    /// 1, and twice as much after each move that came to nothing.
    factor: u32,
}

impl Waits {
    fn new(every: Duration) -> Self {
        Self { every, factor: 1 }
    }

    /// After the move to TCP.
    fn first(&self) -> Duration {
        match self.factor {
            1 => self.every.min(UDP_FIRST),
            _ => self.next(),
        }
    }

    fn next(&self) -> Duration {
        self.every * self.factor
    }

    fn move_failed(&mut self) {
        self.factor = (self.factor * 2).min(MOST_WAITS);
    }

    /// UDP, which was moved to, was lost after `held`.
    fn lost(&mut self, held: Duration) {
        if held < UDP_HOLDS {
            self.move_failed();
        } else {
            self.factor = 1;
        }
    }
}

/// The way that a link goes now.
pub(crate) struct Course {
    outgoing: Outgoing,
    udp: Arc<dyn AsyncUdpSocket>,
    by_udp: AtomicBool,
    relay: SocketAddr,
    ids: Arc<Ids>,
    /// Datagrams of the relay that came by UDP.
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

    /// The ids that QUIC is to go by.
    pub fn ids(&self) -> Arc<Ids> {
        self.ids.clone()
    }

    fn heard(&self) -> u64 {
        self.heard_by_udp.load(Ordering::Relaxed)
    }

    /// Looks for the relay's among what came by UDP.
    fn note(&self, bufs: &[IoSliceMut<'_>], metas: &[RecvMeta]) {
        let of_relay = |(buffer, meta): &(&IoSliceMut<'_>, &RecvMeta)| {
            let mut datagrams = buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1));
            meta.addr == self.relay && datagrams.any(|datagram| self.ids.are_of(datagram))
        };
        let came = bufs.iter().zip(metas).filter(of_relay).count();
        self.heard_by_udp.fetch_add(came as u64, Ordering::Relaxed);
    }

    /// Moves the link to and fro for as long as it lives; begins by UDP where there is no tunnel.
    async fn steer(
        &self,
        route: &Route,
        mut tunnel: Option<TlsStream<TcpStream>>,
        arrived: mpsc::Sender<Arrived>,
        again: &Again,
    ) {
        let mut waits = Waits::new(again.every);
        let mut returned = None::<Instant>;
        loop {
            let stream = match tunnel.take() {
                Some(stream) => stream,
                None => self.leave_udp(route).await,
            };
            if let Some(since) = returned {
                waits.lost(since.elapsed());
            }
            tokio::select! {
                () = self.keep(route, stream, &arrived) => {}
                () = self.return_to_udp(&mut waits, again) => {}
            }
            returned = Some(Instant::now());
        }
    }

    /// Ends when UDP, by which the relay was heard, is dark and there is a tunnel.
    async fn leave_udp(&self, route: &Route) -> TlsStream<TcpStream> {
        let mut attempt = 0;
        loop {
            self.udp_is_dark().await;
            let before = self.heard();
            let tunnel = async {
                let tunnel = self.dial_on(route, &mut attempt).await;
                tokio::time::sleep(UDP_LAST).await;
                tunnel
            };
            tokio::select! {
                biased;
                () = self.udp_is_heard(before) => {}
                (stream, interface) = tunnel => {
                    tracing::warn!(relay = %self.relay, "nothing comes by UDP any more: the link goes over TCP");
                    *self.lock_interface() = interface;
                    self.by_udp.store(false, Ordering::Relaxed);
                    return stream;
                }
            }
        }
    }

    /// Looks are counted and not the clock, which goes on where this process is held up.
    async fn udp_is_dark(&self) {
        let (mut heard, mut silent) = (self.heard(), 0);
        while silent < UDP_DARK {
            tokio::time::sleep(LOOK).await;
            let now = self.heard();
            silent = if now == heard && now > 0 { silent + 1 } else { 0 };
            heard = now;
        }
    }

    async fn udp_is_heard(&self, before: u64) {
        while self.heard() == before {
            tokio::time::sleep(LOOK / 5).await;
        }
    }

    /// Dials until there is a tunnel.
    async fn dial_on(&self, route: &Route, attempt: &mut usize) -> (TlsStream<TcpStream>, Option<String>) {
        loop {
            match route.dial(*attempt).await {
                Ok(tunnel) => return tunnel,
                Err(error) => tracing::debug!(%error, "no tunnel"),
            }
            *attempt += 1;
            tokio::time::sleep(DIAL_AGAIN).await;
        }
    }

    /// Carries what goes through the tunnel, and dials it again whenever it breaks.
    async fn keep(&self, route: &Route, mut stream: TlsStream<TcpStream>, arrived: &mpsc::Sender<Arrived>) {
        let mut attempt = 0;
        loop {
            let why = carry(stream, &self.outgoing, (route.to, arrived), IDLE).await;
            tracing::warn!(%why, "the tunnel over TCP broke: dialling again");
            attempt += 1;
            let interface;
            (stream, interface) = self.dial_on(route, &mut attempt).await;
            *self.lock_interface() = interface;
            // What gathered meanwhile is of no use to anybody.
            self.outgoing.clear();
        }
    }

    /// Ends when the link goes by UDP.
    async fn return_to_udp(&self, waits: &mut Waits, again: &Again) {
        let mut wait = waits.first();
        loop {
            tokio::time::sleep(wait).await;
            if (again.works)().await {
                if self.moves_to_udp().await {
                    return;
                }
                waits.move_failed();
            }
            wait = waits.next();
        }
    }

    /// Tries it with the link; false: it is back on TCP.
    async fn moves_to_udp(&self) -> bool {
        tracing::info!("UDP works again: the link leaves TCP");
        let before = self.heard();
        self.by_udp.store(true, Ordering::Relaxed);
        tokio::time::sleep(UDP_PROVES_WITHIN).await;
        let proved = self.heard() != before;
        if !proved {
            tracing::warn!("nothing of the relay comes by UDP: the link stays on TCP");
            self.by_udp.store(false, Ordering::Relaxed);
        }
        proved
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
    /// Begins by UDP, and moves the link on the current runtime.
    pub fn by_udp(route: Route, udp: Arc<dyn AsyncUdpSocket>, again: Again) -> Self {
        Self::begin(route, udp, again, None)
    }

    /// Begins through a tunnel. `udp` is a socket for when UDP works again.
    ///
    /// # Errors
    /// Nobody there, no TLS, or not in time (4 s).
    pub async fn dial(route: Route, udp: Arc<dyn AsyncUdpSocket>, again: Again) -> io::Result<Self> {
        let tunnel = route.dial(0).await?;
        Ok(Self::begin(route, udp, again, Some(tunnel)))
    }

    fn begin(
        route: Route,
        udp: Arc<dyn AsyncUdpSocket>,
        again: Again,
        tunnel: Option<(TlsStream<TcpStream>, Option<String>)>,
    ) -> Self {
        let (stream, interface) = tunnel.unzip();
        let course = Arc::new(Course {
            outgoing: Outgoing::default(),
            udp,
            by_udp: AtomicBool::new(stream.is_none()),
            relay: route.to,
            ids: Arc::default(),
            heard_by_udp: AtomicU64::default(),
            interface: Mutex::new(interface.flatten()),
        });
        let (send, arrived) = mpsc::channel(MAX_ARRIVED);
        let mut keeper = JoinSet::new();
        let kept = course.clone();
        keeper.spawn(async move { kept.steer(&route, stream, send, &again).await });
        Self {
            course,
            arrived: Mutex::new(arrived),
            _keeper: keeper,
        }
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
                self.course.note(bufs, &meta[..(*count).min(meta.len())]);
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

    const RELAY: &str = "127.0.0.1:9";

    fn course(relay: SocketAddr) -> Course {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
        Course {
            outgoing: Outgoing::default(),
            udp: quinn::TokioRuntime.wrap_udp_socket(socket).expect("wrapped"),
            by_udp: AtomicBool::default(),
            relay,
            ids: Arc::default(),
            heard_by_udp: AtomicU64::default(),
            interface: Mutex::default(),
        }
    }

    #[tokio::test]
    async fn where_nothing_comes_back_by_udp_the_link_stays_on_tcp_and_udp_is_tried_again() {
        let course = course(RELAY.parse().expect("address"));
        // Handshakes get through, and then nothing.
        let again = Again {
            every: Duration::from_millis(100),
            works: Box::new(|| Box::pin(async { true })),
        };
        let mut waits = Waits::new(again.every);
        let returning = course.return_to_udp(&mut waits, &again);
        let tried = async {
            for _ in 0..2 {
                while !course.is_by_udp() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                while course.is_by_udp() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        let within = UDP_PROVES_WITHIN * 3;
        tokio::select! {
            () = returning => panic!("it must go on: the tunnel ends with it"),
            tried = tokio::time::timeout(within, tried) => tried.expect("TCP again, twice"),
        }
        assert!(waits.factor >= 2, "{waits:?}");
    }

    #[test]
    fn the_wait_for_udp_grows_with_moves_that_fail_and_shrinks_when_udp_held() {
        let minute = Duration::from_secs(60);
        let mut waits = Waits::new(minute);
        assert_eq!((waits.first(), waits.next()), (UDP_FIRST, minute));
        waits.move_failed();
        assert_eq!((waits.first(), waits.next()), (minute * 2, minute * 2));
        waits.lost(UDP_HOLDS / 2);
        assert_eq!(waits.first(), minute * 4);
        for _ in 0..100 {
            waits.move_failed();
        }
        assert_eq!(waits.next(), minute * MOST_WAITS);
        waits.lost(UDP_HOLDS);
        assert_eq!(waits, Waits::new(minute));
    }

    #[tokio::test]
    async fn only_the_relays_packets_count_of_what_comes_by_udp() {
        let course = course(RELAY.parse().expect("address"));
        let id = course.ids().generator().generate_cid();
        let packet = [&[0x40][..], &id[..], b"sealed"].concat();
        let junk = vec![0x40; packet.len()];
        let hear = |from: &str, datagrams: &[&[u8]]| {
            let mut bytes = datagrams.concat();
            let meta = RecvMeta {
                addr: from.parse().expect("address"),
                len: bytes.len(),
                stride: datagrams.first().map_or(0, |first| first.len()),
                ecn: None,
                dst_ip: None,
            };
            course.note(&[IoSliceMut::new(&mut bytes)], &[meta]);
            course.heard()
        };
        assert_eq!(hear(RELAY, &[&junk]), 0);
        assert_eq!(
            hear("127.0.0.1:10", &[&packet]),
            0,
            "QUIC takes it from nobody else"
        );
        assert_eq!(hear(RELAY, &[]), 0);
        assert_eq!(hear(RELAY, &[&packet]), 1);
        assert_eq!(hear(RELAY, &[&junk, &packet]), 2, "in one go with another");
    }
}

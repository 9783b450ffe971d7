//! A UDP socket that wakes its task for what arrives, and not for each datagram that has left.
//!
//! The runtime's own socket is told each time that the kernel has sent something, as there is room again: a wake-up a datagram
//! for nothing, which costs a small box as much as the datagram does. [`wrap`]'s waits for room only where there was none,
//! by a second descriptor that lives as long as the wait. Several tasks may send; one receives.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
struct Quiet {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// The last that was to be sent found no room.
    full: AtomicBool,
}

/// A socket for QUIC, on the current runtime.
///
/// # Errors
/// Where the system has no room for it, or it is none for QUIC.
pub(crate) fn wrap(socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    // It does not block from here on.
    let state = UdpSocketState::new((&socket).into())?;
    Ok(Arc::new(Quiet {
        io: wait_for(socket, Interest::READABLE)?,
        state,
        full: AtomicBool::new(false),
    }))
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; the descriptor is owned and never exchanged"
)]
fn wait_for(socket: UdpSocket, what: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, what)
}

impl AsyncUdpSocket for Quiet {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room {
            socket: self,
            wait: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut arrived = ready!(self.io.poll_read_ready(cx))?;
            match self.state.recv(self.io.get_ref().into(), bufs, meta) {
                Ok(count) => {
                    if count < bufs.len() {
                        // That was all: what comes later is told anew.
                        arrived.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => arrived.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// Waits until there is room.
struct Room {
    socket: Arc<Quiet>,
    wait: Option<AsyncFd<UdpSocket>>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.full.load(Ordering::Relaxed) {
            if self.wait.is_none() {
                let twin = self.socket.io.get_ref().try_clone()?;
                self.wait = Some(wait_for(twin, Interest::WRITABLE)?);
            }
            if let Some(wait) = &self.wait {
                drop(ready!(wait.poll_write_ready(cx))?);
            }
            self.socket.full.store(false, Ordering::Relaxed);
        }
        self.wait = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn one<'a>(contents: &'a [u8], to: SocketAddr) -> Transmit<'a> {
        Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        }
    }

    async fn take(socket: &Arc<dyn AsyncUdpSocket>) -> usize {
        let mut space = [[0u8; 2048]; 4];
        let mut bufs = space.each_mut().map(|buf| IoSliceMut::new(buf));
        let mut meta = [RecvMeta::default(); 4];
        let took = poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut meta));
        let took = timeout(Duration::from_secs(5), took).await.expect("in time");
        took.expect("datagrams")
    }

    #[tokio::test]
    async fn each_datagram_comes_though_none_is_asked_for_twice() {
        let here = wrap(UdpSocket::bind("127.0.0.1:0").expect("a port")).expect("a socket");
        let there = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let to = here.local_addr().expect("an address");
        let back = there.local_addr().expect("an address");
        here.try_send(&one(b"hello", back)).expect("sent");
        let mut space = [0; 16];
        assert_eq!(there.recv(&mut space).expect("a datagram"), 5);
        for round in 1..=20 {
            for _ in 0..round {
                there.send_to(b"ho", to).expect("sent");
            }
            let mut came = 0;
            while came < round {
                came += take(&here).await;
            }
        }
    }

    #[tokio::test]
    async fn who_found_no_room_is_told_of_it() {
        // A pair of which nobody reads the other end: a socket that is full soon, and has room when it is read.
        let (full, other) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
        full.set_nonblocking(true).expect("set");
        let socket = UdpSocket::from(full.as_fd().try_clone_to_owned().expect("a twin"));
        let quiet = Arc::new(Quiet {
            io: wait_for(socket, Interest::READABLE).expect("watched"),
            state: UdpSocketState::new((&UdpSocket::bind("127.0.0.1:0").expect("a port")).into())
                .expect("a state"),
            full: AtomicBool::new(false),
        });
        let mut room = quiet.clone().create_io_poller();
        let ready = poll_fn(|cx| room.as_mut().poll_writable(cx));
        timeout(Duration::from_secs(5), ready)
            .await
            .expect("at once")
            .expect("room");
        while full.send(&[0; 4096]).is_ok() {}
        quiet.full.store(true, Ordering::Relaxed);
        let waiting = poll_fn(|cx| Poll::Ready(room.as_mut().poll_writable(cx).is_pending())).await;
        assert!(waiting);
        let waiter = tokio::spawn(async move { poll_fn(|cx| room.as_mut().poll_writable(cx)).await });
        tokio::task::yield_now().await;
        let mut space = [0; 4096];
        other.set_nonblocking(true).expect("set");
        while other.recv(&mut space).is_ok() {}
        timeout(Duration::from_secs(5), waiter)
            .await
            .expect("told")
            .expect("ran")
            .expect("room");
        assert!(!quiet.full.load(Ordering::Relaxed));
    }
}

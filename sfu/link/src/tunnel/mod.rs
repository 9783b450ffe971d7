//! A tunnel: the UDP datagrams of QUIC in a TLS 1.3 stream over TCP, for a network that drops UDP.
//!
//! Below QUIC, so that everything above it (identity, control, media, repair, migration) is one code path. A datagram is two
//! bytes with its length (big endian, 1 to [`MAX_DATAGRAM`]), then its bytes. [`Junction`] is the relay's socket, which serves UDP
//! and tunnels at once; [`Detour`] is the edge's.
//!
//! Invariant: TCP loses nothing and waits, so datagrams are dropped here: what waits to be written is bounded in bytes and in
//! age ([`Outgoing`]), the oldest go first, and they are counted. Little lies in the kernel (`TCP_NOTSENT_LOWAT`). What a peer
//! sends is bounded by its length; anything else ends the tunnel.

mod detour;
mod ids;
mod junction;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use quinn::udp::Transmit;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

pub(crate) use detour::{Again, Course, Detour, Route};
pub(crate) use ids::Ids;
pub use junction::TunnelStats;
pub(crate) use junction::{Junction, Table};

/// ALPN of the outer TLS.
pub(crate) const ALPN: &[u8] = b"muster-tunnel/1";
/// Largest datagram, bytes: what QUIC takes of a UDP packet at both ends.
const MAX_DATAGRAM: usize = 1472;
/// Datagrams that wait to be written, bytes.
const MAX_WAITING: usize = 256 * 1024;
/// What has waited for longer is of no use to anybody: the repair sends anew what still is.
const MAX_AGE: Duration = Duration::from_millis(400);
/// Bytes in one write: about one TLS record.
const MAX_WRITE: usize = 16 * 1024;
/// Bytes that the kernel holds and has not yet sent, about.
const NOTSENT: u32 = 16 * 1024;
/// A peer that takes nothing for so long is left.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// A datagram, and where it came from.
pub(crate) type Arrived = (SocketAddr, Bytes);

/// Addresses of tunnels in the endpoint: of the prefix whose packets every network discards (RFC 6666), so none of a real peer.
fn virtual_address(tunnel: u64) -> SocketAddr {
    let half = |shift: u32| ((tunnel >> shift) & 0xffff) as u16;
    let ip = Ipv6Addr::new(0x100, 0, 0, 0, half(48), half(32), half(16), half(0));
    SocketAddr::from((ip, 1))
}

/// The number of the tunnel that is behind an address.
fn tunnel_of(address: SocketAddr) -> Option<u64> {
    let SocketAddr::V6(address) = address else {
        return None;
    };
    match address.ip().segments() {
        [0x100, 0, 0, 0, a, b, c, d] => Some(
            [a, b, c, d]
                .iter()
                .fold(0, |sum, part| (sum << 16) | u64::from(*part)),
        ),
        _ => None,
    }
}

/// Whether an address is that of a tunnel.
pub(crate) fn is_virtual(address: SocketAddr) -> bool {
    tunnel_of(address).is_some()
}

/// Datagrams that wait for a tunnel.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    waiting: Mutex<Waiting>,
    wake: Notify,
    /// Datagrams that were dropped, of all that count together.
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Waiting {
    datagrams: VecDeque<(Instant, Box<[u8]>)>,
    bytes: usize,
}

impl Waiting {
    fn pop(&mut self) {
        if let Some((_, datagram)) = self.datagrams.pop_front() {
            self.bytes -= datagram.len();
        }
    }
}

impl Outgoing {
    fn new(dropped: Arc<AtomicU64>) -> Self {
        Self {
            dropped,
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, dropped: usize) {
        self.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
    }

    /// Takes the datagrams of a transmission; never waits.
    fn push(&self, now: Instant, transmit: &Transmit<'_>) {
        let each = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let mut waiting = self.lock();
        for datagram in transmit.contents.chunks(each) {
            if datagram.len() > MAX_DATAGRAM {
                self.count(1);
                continue;
            }
            while waiting.bytes + datagram.len() > MAX_WAITING {
                waiting.pop();
                self.count(1);
            }
            waiting.bytes += datagram.len();
            waiting.datagrams.push_back((now, datagram.into()));
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Fills `batch` with the frames of datagrams that are young enough; it stays empty where none wait.
    fn fill(&self, now: Instant, batch: &mut Vec<u8>) {
        let mut waiting = self.lock();
        while let Some((since, datagram)) = waiting.datagrams.front() {
            if now.saturating_duration_since(*since) > MAX_AGE {
                self.count(1);
            } else if batch.len() + 2 + datagram.len() > MAX_WRITE {
                return;
            } else {
                batch.extend_from_slice(&(datagram.len() as u16).to_be_bytes());
                batch.extend_from_slice(datagram);
            }
            waiting.pop();
        }
    }

    /// Nobody writes them any more.
    fn clear(&self) {
        let mut waiting = self.lock();
        self.count(waiting.datagrams.len());
        *waiting = Waiting::default();
    }
}

/// Takes one datagram off the front of `buffer`; `None` while it is not all there.
fn split_frame(buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(&[high, low]) = buffer.first_chunk() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > MAX_DATAGRAM {
        let told = format!("a datagram of {length} bytes, expected 1 to {MAX_DATAGRAM}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, told));
    }
    let Some(datagram) = buffer.get(2..2 + length) else {
        return Ok(None);
    };
    // A copy: what waits holds no more than its own bytes.
    let datagram = Bytes::copy_from_slice(datagram);
    buffer.advance(2 + length);
    Ok(Some(datagram))
}

/// Sets what a tunnel needs of its TCP.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT);
}

/// Carries datagrams both ways until the tunnel breaks, or nothing came for `idle`; says why.
async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    outgoing: &Outgoing,
    (from, arrived): (SocketAddr, &mpsc::Sender<Arrived>),
    idle: Duration,
) -> io::Error {
    let (read, write) = tokio::io::split(stream);
    let read = async {
        let mut read = read;
        let mut buffer = BytesMut::with_capacity(MAX_WRITE);
        loop {
            while let Some(datagram) = split_frame(&mut buffer)? {
                let gone = |_| io::Error::other("the link is closed");
                arrived.send((from, datagram)).await.map_err(gone)?;
            }
            buffer.reserve(2 + MAX_DATAGRAM);
            match tokio::time::timeout(idle, read.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return Err::<(), _>(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    };
    let write = async {
        let mut write = write;
        let mut batch = Vec::with_capacity(MAX_WRITE);
        loop {
            outgoing.fill(Instant::now(), &mut batch);
            if batch.is_empty() {
                outgoing.wake.notified().await;
                continue;
            }
            let written = async {
                write.write_all(&batch).await?;
                write.flush().await
            };
            tokio::time::timeout(WRITE_PATIENCE, written).await??;
            batch.clear();
        }
    };
    let ended: io::Result<()> = tokio::select! {
        ended = read => ended,
        ended = write => ended,
    };
    outgoing.clear();
    ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transmit(contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
        Transmit {
            destination: virtual_address(1),
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        }
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes_first() {
        let outgoing = Outgoing::default();
        let now = Instant::now();
        for number in 0..10_000u32 {
            let mut datagram = [0; 1200];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            outgoing.push(now, &transmit(&datagram, None));
        }
        assert!(outgoing.lock().bytes <= MAX_WAITING);
        let kept = outgoing.lock().datagrams.len() as u64;
        assert_eq!(kept + outgoing.dropped.load(Ordering::Relaxed), 10_000);
        let newest = outgoing
            .lock()
            .datagrams
            .back()
            .map(|(_, bytes)| bytes[..4].to_vec());
        assert_eq!(newest, Some(9999u32.to_be_bytes().to_vec()));
    }

    #[test]
    fn what_has_waited_too_long_is_dropped() {
        let outgoing = Outgoing::default();
        let then = Instant::now();
        outgoing.push(then, &transmit(b"old", None));
        outgoing.push(then + MAX_AGE * 2, &transmit(b"new", None));
        let mut batch = Vec::new();
        outgoing.fill(then + MAX_AGE * 2, &mut batch);
        assert_eq!(batch, b"\0\x03new");
        assert_eq!(outgoing.dropped.load(Ordering::Relaxed), 1);
        assert_eq!(outgoing.lock().bytes, 0);
    }

    #[test]
    fn segments_of_one_transmission_are_datagrams_of_their_own() {
        let outgoing = Outgoing::default();
        let now = Instant::now();
        outgoing.push(now, &transmit(b"aabbc", Some(2)));
        let mut batch = Vec::new();
        outgoing.fill(now, &mut batch);
        assert_eq!(batch, b"\0\x02aa\0\x02bb\0\x01c");
    }

    #[test]
    fn a_length_of_nothing_or_of_too_much_is_refused() {
        for length in [0u16, 1473, u16::MAX] {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            assert!(split_frame(&mut buffer).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn addresses_of_tunnels_come_back(tunnel: u64) {
            prop_assert_eq!(tunnel_of(virtual_address(tunnel)), Some(tunnel));
        }

        #[test]
        fn datagrams_come_back_however_the_stream_is_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..20),
            cut in 1usize..400,
        ) {
            let outgoing = Outgoing::default();
            let now = Instant::now();
            for datagram in &datagrams {
                outgoing.push(now, &transmit(datagram, None));
            }
            let mut bytes = Vec::new();
            outgoing.fill(now, &mut bytes);
            let mut buffer = BytesMut::new();
            let mut back = Vec::new();
            for chunk in bytes.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(datagram) = split_frame(&mut buffer).expect("well formed") {
                    back.push(datagram.to_vec());
                }
            }
            prop_assert_eq!(back, datagrams);
        }

        #[test]
        fn junk_never_panics(junk: Vec<u8>) {
            let mut buffer = BytesMut::from(&junk[..]);
            while let Ok(Some(_)) = split_frame(&mut buffer) {}
        }
    }
}

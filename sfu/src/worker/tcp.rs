//! ICE over TCP (RFC 6544, passive) for browsers behind a firewall that drops UDP.
//!
//! To the rest of a worker a connection is an address like any other: [`marked`] makes one that no UDP peer can have, so the
//! leg selects it, and [`Connections`] takes what is sent there. Frames are those of RFC 4571. A connection is given to the
//! worker of the leg that its first frame names, and lasts while that leg knows it.
//!
//! Bounded: connections by the relay's semaphore, the time until a leg knows one, its silence, and what waits to be written
//! (the rest is dropped and counted). What is *not* here: accepting (`tcp_listener.rs`), and any check of who the peer is,
//! which is the leg's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::rc::Rc;
use std::time::{Duration, Instant};

use muster_webrtc::{FrameReader, FrameWriter};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::state::Worker;

/// A connection that no leg knows ends after this time; it is also how often that is looked at.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// Nothing came for this long: consent checks do, every few seconds.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// A flow label has 20 bits, so no UDP peer has this.
const MARK: u32 = u32::MAX;

/// The address under which a worker knows the TCP connection of this peer.
pub(crate) fn marked(peer: SocketAddr) -> SocketAddr {
    let ip = match peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddrV6::new(ip, peer.port(), MARK, 0).into()
}

/// Whether an address was made by [`marked`].
pub(crate) fn is_marked(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(address) if address.flowinfo() == MARK)
}

/// A connection whose first frame named a leg.
pub(crate) struct Arrived {
    pub stream: std::net::TcpStream,
    pub peer: SocketAddr,
    /// What was read of it, the first frame included.
    pub reader: FrameReader,
    pub first: Vec<u8>,
    /// Its place among the relay's connections.
    pub permit: OwnedSemaphorePermit,
}

struct Connection {
    stream: TcpStream,
    waiting: RefCell<FrameWriter>,
    /// Something waits that the kernel did not take at once.
    stuck: Notify,
}

/// A worker's connections, by their marked addresses.
#[derive(Default)]
pub(crate) struct Connections(RefCell<HashMap<SocketAddr, Rc<Connection>>>);

impl Connections {
    /// Sends datagrams of the given lengths, which lie one after the other in `bytes`. Tells how many were taken, and in how
    /// many calls.
    pub fn send(&self, to: SocketAddr, bytes: &[u8], lengths: &[usize]) -> (usize, usize) {
        let Some(connection) = self.0.borrow().get(&to).cloned() else {
            return (0, 0);
        };
        let (mut taken, mut at) = (0, 0);
        {
            let mut waiting = connection.waiting.borrow_mut();
            for &length in lengths {
                taken += usize::from(waiting.push(&bytes[at..at + length]));
                at += length;
            }
        }
        if !connection.write() {
            connection.stuck.notify_one();
        }
        (taken, 1)
    }
}

impl Connection {
    /// Writes what waits, as far as the kernel takes it at once; false if something is left.
    /// What is pushed on top meanwhile and finds no room is dropped and counted where it came from.
    fn write(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        while !waiting.pending().is_empty() {
            match self.stream.try_write(waiting.pending()) {
                Ok(length) if length > 0 => waiting.written(length),
                // An error shows itself to the reader too, which ends the connection.
                _ => return false,
            }
        }
        true
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(worker: Rc<RefCell<Worker>>, arrived: Arrived) {
    let Arrived {
        stream,
        peer,
        mut reader,
        mut first,
        permit: _held,
    } = arrived;
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    let address = marked(peer);
    let connection = Rc::new(Connection {
        stream,
        waiting: RefCell::default(),
        stuck: Notify::new(),
    });
    let socket = worker.borrow().socket.clone();
    socket.tcp.0.borrow_mut().insert(address, connection.clone());
    worker.borrow_mut().take_frames(address, &mut first, &mut reader);
    let why = run(&worker, &connection, address, &mut reader).await;
    tracing::debug!(why, "TCP connection of a browser ended");
    let mut all = socket.tcp.0.borrow_mut();
    // A peer may have come back from the same port meanwhile.
    if all
        .get(&address)
        .is_some_and(|last| Rc::ptr_eq(last, &connection))
    {
        all.remove(&address);
    }
}

async fn run(
    worker: &RefCell<Worker>,
    connection: &Connection,
    address: SocketAddr,
    reader: &mut FrameReader,
) -> &'static str {
    let mut look = tokio::time::interval(UNKNOWN_FOR);
    look.reset();
    let mut heard = Instant::now();
    loop {
        let waits = !connection.waiting.borrow().pending().is_empty();
        tokio::select! {
            readable = connection.stream.readable() => {
                if readable.is_err() {
                    return "broken";
                }
                match connection.stream.try_read(reader.space()) {
                    Ok(0) => return "closed by the peer",
                    Ok(length) => {
                        heard = Instant::now();
                        reader.filled(length);
                        if !worker.borrow_mut().take_frames(address, &mut [], reader) {
                            return "no frames";
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return "broken",
                }
            }
            writable = connection.stream.writable(), if waits => {
                if writable.is_err() {
                    return "broken";
                }
                connection.write();
            }
            // From now on it waits until the kernel takes more.
            () = connection.stuck.notified(), if !waits => {}
            _ = look.tick() => {
                if !worker.borrow().by_address.contains_key(&address) {
                    return "no leg knows it";
                }
                if heard.elapsed() >= SILENT_FOR {
                    return "silent";
                }
            }
        }
    }
}

impl Worker {
    /// Datagrams of a connection: `first`, if it is not empty, then what the reader has. False if the rest cannot be read.
    fn take_frames(&mut self, from: SocketAddr, first: &mut [u8], reader: &mut FrameReader) -> bool {
        let now = Instant::now();
        if !first.is_empty() {
            self.take_datagram(now, from, first);
        }
        let readable = loop {
            match reader.next_frame() {
                Ok(Some(frame)) => self.take_datagram(now, from, frame),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        self.flush(now);
        readable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_an_address_that_no_udp_peer_has() {
        for peer in ["192.0.2.1:9", "[2001:db8::1]:9"] {
            let peer: SocketAddr = peer.parse().expect("an address");
            assert!(is_marked(marked(peer)));
            assert!(!is_marked(peer));
            assert_ne!(marked(peer), peer);
            assert_eq!(marked(peer).ip().to_canonical(), peer.ip());
        }
    }
}

//! A worker's UDP socket for media: batches in (recvmmsg with GRO), runs of equal segments out (GSO), by quinn-udp.
//!
//! Sending never waits: what the kernel does not take at once is lost, as on any network, and counted by the caller. What is for
//! a TCP connection (`tcp.rs`) goes there.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, TcpListener, UdpSocket as StdSocket};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::tcp::{Connections, is_marked};

/// One receive buffer: as much as GRO may join.
const RECEIVE_SIZE: usize = 64 * 1024;
/// Kernel buffers, bytes, each way; the kernel may give less.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Ports that are tried for one that is free for UDP and for TCP.
const ANY_PORT_TRIES: u32 = 20;
/// Longest run of segments in one call, bytes.
const MAX_RUN: usize = 60_000;

pub(crate) struct MediaSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Peers whose firewall drops UDP.
    pub tcp: Connections,
}

/// Opens a UDP socket with large buffers, not blocking.
pub(crate) fn open(address: SocketAddr) -> io::Result<StdSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    // Less than asked for is no error.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Opens the port for links: UDP, and TCP of the same number if it is wanted.
///
/// # Errors
/// A port in use; of any port, one is looked for that is free for both.
pub(crate) fn open_links(address: SocketAddr, tcp: bool) -> io::Result<(StdSocket, Option<TcpListener>)> {
    let mut tries = if address.port() == 0 { ANY_PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let udp = open(address)?;
        if !tcp {
            return Ok((udp, None));
        }
        match TcpListener::bind(udp.local_addr()?) {
            Ok(listener) => return Ok((udp, Some(listener))),
            Err(_) if tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// Buffers of one batch, kept between calls.
pub(crate) struct Batch {
    buffer: Vec<u8>,
    meta: [RecvMeta; BATCH_SIZE],
    filled: usize,
}

impl Default for Batch {
    /// Without buffers; they come with the first receive.
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            meta: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
        }
    }
}

impl Batch {
    /// What was received, a datagram at a time.
    pub fn datagrams(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        let joined = self
            .buffer
            .chunks_mut(RECEIVE_SIZE)
            .zip(&self.meta[..self.filled]);
        joined.flat_map(|(buffer, meta)| {
            let stride = meta.stride.max(1);
            buffer[..meta.len]
                .chunks_mut(stride)
                .map(|datagram| (meta.addr, datagram))
        })
    }
}

impl MediaSocket {
    /// Takes a socket of [`open`]; must be called on the worker's runtime.
    pub fn new(socket: StdSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            state,
            tcp: Connections::default(),
        })
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Fills `batch`; false if nothing was there.
    pub fn receive(&self, batch: &mut Batch) -> bool {
        batch.buffer.resize(RECEIVE_SIZE * BATCH_SIZE, 0);
        let mut chunks = batch.buffer.chunks_mut(RECEIVE_SIZE);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received = self.socket.try_io(Interest::READABLE, || {
            self.state
                .recv((&self.socket).into(), &mut slices, &mut batch.meta)
        });
        batch.filled = received.unwrap_or(0);
        batch.filled > 0
    }

    /// Sends datagrams of the given lengths, which lie one after the other in `bytes`, to one address. Tells how many
    /// were sent, and in how many calls.
    pub fn send(&self, to: SocketAddr, bytes: &[u8], lengths: &[usize]) -> (usize, usize) {
        if is_marked(to) {
            return self.tcp.send(to, bytes, lengths);
        }
        let (mut sent, mut calls, mut at) = (0, 0, 0);
        let mut rest = lengths;
        while let Some(&segment) = rest.first() {
            let run = run_length(rest, self.state.max_gso_segments());
            let size: usize = rest[..run].iter().sum();
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents: &bytes[at..at + size],
                segment_size: (run > 1).then_some(segment),
                src_ip: None,
            };
            calls += 1;
            if self.state.try_send((&self.socket).into(), &transmit).is_ok() {
                sent += run;
            }
            at += size;
            rest = &rest[run..];
        }
        (sent, calls)
    }
}

/// How many datagrams from the front may go in one call: equal ones, and a shorter one at the end.
fn run_length(lengths: &[usize], most: usize) -> usize {
    let Some(&segment) = lengths.first() else { return 0 };
    let mut size = segment;
    let mut run = 1;
    while run < most.max(1)
        && run < lengths.len()
        && lengths[run] <= segment
        && size + lengths[run] <= MAX_RUN
    {
        size += lengths[run];
        run += 1;
        if lengths[run - 1] < segment {
            break;
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_equal_segments_and_a_shorter_last() {
        let check =
            |lengths: &[usize], most, expect| assert_eq!(run_length(lengths, most), expect, "{lengths:?}");
        check(&[], 64, 0);
        check(&[10], 64, 1);
        check(&[10, 10, 10, 4, 10], 64, 4);
        check(&[10, 12], 64, 1);
        check(&[10, 10, 10], 2, 2);
        check(&[10, 10], 0, 1);
        check(&[1200; 100], 64, 50);
    }

    #[tokio::test]
    async fn what_is_sent_in_runs_arrives_as_it_was() {
        let open = || {
            MediaSocket::new(open("127.0.0.1:0".parse().expect("address")).expect("socket")).expect("socket")
        };
        let (from, to) = (open(), open());
        let lengths = [500, 500, 500, 20, 900, 7];
        let bytes: Vec<u8> = lengths
            .iter()
            .enumerate()
            .flat_map(|(i, &len)| vec![i as u8; len])
            .collect();
        let (sent, calls) = from.send(to.socket.local_addr().expect("address"), &bytes, &lengths);
        assert_eq!(sent, lengths.len());
        assert!(calls <= lengths.len());
        let (mut batch, mut arrived) = (Batch::default(), Vec::new());
        while arrived.len() < lengths.len() {
            to.readable().await.expect("readable");
            if to.receive(&mut batch) {
                arrived.extend(
                    batch
                        .datagrams()
                        .map(|(_, datagram)| (datagram[0], datagram.len())),
                );
            }
        }
        let expect: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(i, &len)| (i as u8, len))
            .collect();
        assert_eq!(arrived, expect);
    }
}

//! Many datagrams of one socket with one system call, joined ones (UDP GRO) cut again.
//!
//! A network card gives a receiver joined datagrams or single ones at no cost to the sender. On loopback it is the
//! sender who pays for cutting what it sent joined, unless the receiver takes it joined: so GRO is on by default.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::UdpSocket;

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, UdpSocketState};

/// Messages of a call; without GRO a frame and what may come beside it.
const BATCH: usize = 16;
/// The most that a datagram, joined or not, may have.
const SIZE: usize = 65_536;

/// How a socket takes datagrams.
pub struct Intake(UdpSocketState);

impl Intake {
    pub fn new(socket: &UdpSocket, gro: bool) -> io::Result<Self> {
        let state = UdpSocketState::new(socket.into())?;
        setsockopt(socket, sockopt::UdpGroSegment, &gro)?;
        Ok(Self(state))
    }
}

/// Room for what one call takes.
pub struct Batch {
    buffer: Vec<u8>,
    metas: [RecvMeta; BATCH],
    filled: usize,
}

impl Batch {
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BATCH * SIZE],
            metas: [RecvMeta::default(); BATCH],
            filled: 0,
        }
    }

    /// Takes what is there; false if there may not be more.
    pub fn receive(&mut self, socket: &UdpSocket, intake: &Intake) -> io::Result<bool> {
        self.filled = 0;
        let mut chunks = self.buffer.chunks_exact_mut(SIZE);
        let mut slices: [IoSliceMut; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        match intake.0.recv(socket.into(), &mut slices, &mut self.metas) {
            Ok(filled) => self.filled = filled,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(self.filled == BATCH)
    }

    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let all = self.buffer.chunks_exact(SIZE).zip(&self.metas).take(self.filled);
        all.flat_map(|(buffer, meta)| buffer[..meta.len.min(SIZE)].chunks(meta.stride.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    fn pair(gro: bool) -> (UdpSocket, UdpSocket, Intake) {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
        let (from, to) = (from.expect("a port"), to.expect("a port"));
        from.connect(to.local_addr().expect("bound")).expect("connected");
        let intake = Intake::new(&to, gro).expect("options");
        (from, to, intake)
    }

    #[test]
    fn datagrams_come_as_they_were_sent_more_than_one_batch_of_them() {
        let (from, to, intake) = pair(false);
        let mut batch = Batch::new();
        assert!(!batch.receive(&to, &intake).expect("nothing yet"));
        for n in 1..=20u8 {
            from.send(&vec![n; usize::from(n)]).expect("sent");
        }
        let mut seen = Vec::new();
        for more in [true, false, false] {
            assert_eq!(batch.receive(&to, &intake).expect("received"), more);
            seen.extend(batch.datagrams().map(<[u8]>::to_vec));
        }
        assert_eq!(
            seen,
            (1..=20u8).map(|n| vec![n; usize::from(n)]).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_was_sent_joined_is_cut_where_it_was_joined_with_and_without_gro() {
        for gro in [true, false] {
            let (from, to, intake) = pair(gro);
            let mut batch = Batch::new();
            for round in 0..3 {
                let bytes = [round; 2500];
                let joined = [IoSlice::new(&bytes)];
                let segment = [ControlMessage::UdpGsoSegments(&1000)];
                sendmsg::<()>(from.as_raw_fd(), &joined, &segment, MsgFlags::empty(), None).expect("sent");
                assert!(!batch.receive(&to, &intake).expect("received"));
                let lengths: Vec<usize> = batch.datagrams().map(<[u8]>::len).collect();
                assert_eq!(lengths, [1000, 1000, 500], "GRO {gro}");
                assert_eq!(batch.filled, if gro { 1 } else { 3 });
                assert!(
                    batch
                        .datagrams()
                        .all(|datagram| datagram.iter().all(|byte| *byte == round))
                );
            }
        }
    }
}

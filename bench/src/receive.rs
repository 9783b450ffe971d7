//! Many datagrams of one socket with one system call.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};

/// Datagrams of a call; a frame and what may come beside it.
pub const BATCH: usize = 16;
const SIZE: usize = 2048;

pub struct Batch {
    buffers: Box<[[u8; SIZE]; BATCH]>,
    lengths: [usize; BATCH],
    headers: MultiHeaders<()>,
    filled: usize,
}

impl Batch {
    pub fn new() -> Self {
        Self {
            buffers: Box::new([[0; SIZE]; BATCH]),
            lengths: [0; BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
            filled: 0,
        }
    }

    /// Takes what is there; returns how many.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.filled = 0;
        let mut slices = self.buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            flags,
            None,
        ) {
            Ok(results) => {
                for (length, message) in self.lengths.iter_mut().zip(results) {
                    *length = message.bytes;
                    self.filled += 1;
                }
                Ok(self.filled)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let all = self.buffers.iter().zip(&self.lengths).take(self.filled);
        all.map(|(buffer, &length)| &buffer[..length.min(SIZE)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_as_they_were_sent_more_than_one_batch_of_them() {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
        let (from, to) = (from.expect("a port"), to.expect("a port"));
        let address = to.local_addr().expect("bound");
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&to).expect("nothing yet"), 0);
        for n in 1..=20u8 {
            from.send_to(&vec![n; usize::from(n)], address).expect("sent");
        }
        let mut seen = Vec::new();
        for expect in [BATCH, 4, 0] {
            assert_eq!(batch.receive(&to).expect("received"), expect);
            seen.extend(batch.datagrams().map(<[u8]>::to_vec));
        }
        assert_eq!(
            seen,
            (1..=20u8).map(|n| vec![n; usize::from(n)]).collect::<Vec<_>>()
        );
    }
}

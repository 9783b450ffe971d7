//! Datagrams over a TCP connection, as ICE-TCP carries them (RFC 6544, section 3): each behind its
//! length in two bytes (RFC 4571).
//!
//! A pure codec: the shell owns the connection, reads into [`FrameReader::space`] and writes what
//! [`FrameWriter::pending`] shows. Invariant: neither holds more than 64 KiB. A peer that reads too
//! slowly loses datagrams, as on a full UDP queue, media before STUN, DTLS and RTCP; a length that
//! no datagram has ends the connection.

/// The most bytes that a reader or a writer holds.
pub const MAX_BUFFERED: usize = 64 * 1024;
/// Of these, what a writer keeps free of media.
const RESERVED: usize = 4 * 1024;
/// The length in front of each datagram.
const HEAD: usize = 2;
/// A read is given room for this much at least.
const LEAST_SPACE: usize = 2048;

/// A length that cannot be buffered: more than [`MAX_BUFFERED`] less its own two bytes. The stream
/// cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes")]
pub struct FrameTooLong(pub usize);

/// Cuts what is read from a connection into datagrams.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    /// What has been read and not given out lies in `bytes[start..end]`.
    start: usize,
    end: usize,
}

impl FrameReader {
    /// Where to read to; never empty once [`Self::next_frame`] has given None.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() - self.end < LEAST_SPACE {
            let length = (2 * self.bytes.len()).clamp(2 * LEAST_SPACE, MAX_BUFFERED);
            self.bytes.resize(length, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// Says how many bytes of [`Self::space`] were read; more than there are count as all.
    pub fn filled(&mut self, length: usize) {
        self.end = (self.end + length).min(self.bytes.len());
    }

    /// The next whole datagram; None: read on. Empty ones are skipped.
    ///
    /// # Errors
    /// A length that is not taken: close the connection.
    pub fn next_frame(&mut self) -> Result<Option<&mut [u8]>, FrameTooLong> {
        loop {
            let Some(head) = self.bytes[self.start..self.end].first_chunk::<HEAD>() else {
                return Ok(None);
            };
            let length = usize::from(u16::from_be_bytes(*head));
            if HEAD + length > MAX_BUFFERED {
                return Err(FrameTooLong(length));
            }
            let (from, to) = (self.start + HEAD, self.start + HEAD + length);
            if to > self.end {
                return Ok(None);
            }
            self.start = to;
            if length > 0 {
                return Ok(Some(&mut self.bytes[from..to]));
            }
        }
    }
}

/// Lines up datagrams for a connection.
#[derive(Debug, Default)]
pub struct FrameWriter {
    bytes: Vec<u8>,
    /// What has been written lies in `bytes[..start]`.
    start: usize,
    dropped: u64,
}

impl FrameWriter {
    /// Lines a datagram up, whole or not at all. False: dropped and counted, since the peer reads
    /// too slowly (or the datagram is empty or too long to be framed).
    pub fn push(&mut self, datagram: &[u8]) -> bool {
        let limit = if is_media(datagram) {
            MAX_BUFFERED - RESERVED
        } else {
            MAX_BUFFERED
        };
        let waiting = self.bytes.len() - self.start;
        let length = match u16::try_from(datagram.len()) {
            Ok(length @ 1..) if waiting + HEAD + datagram.len() <= limit => length,
            _ => {
                self.dropped += 1;
                return false;
            }
        };
        if self.bytes.len() + HEAD + datagram.len() > MAX_BUFFERED {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(datagram);
        true
    }

    /// The bytes to write next.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Says how many bytes of [`Self::pending`] were written.
    pub fn written(&mut self, length: usize) {
        self.start = (self.start + length).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Datagrams dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// RTP by its first two bytes (RFC 7983, RFC 5761).
fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(192..=223).contains(second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives `stream` to a reader in pieces of those lengths; the datagrams that come out.
    fn read(stream: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, FrameTooLong> {
        let (mut reader, mut out) = (FrameReader::default(), vec![]);
        let (mut rest, mut pieces) = (stream, pieces.iter().cycle());
        while !rest.is_empty() {
            let piece = (*pieces.next().expect("a cycle")).max(1);
            let space = reader.space();
            let length = piece.min(rest.len()).min(space.len());
            assert!(length > 0, "there is always room");
            space[..length].copy_from_slice(&rest[..length]);
            rest = &rest[length..];
            reader.filled(length);
            while let Some(frame) = reader.next_frame()? {
                out.push(frame.to_vec());
            }
            assert!(reader.bytes.len() <= MAX_BUFFERED);
        }
        Ok(out)
    }

    #[test]
    fn the_length_is_two_bytes_in_network_order() {
        let mut writer = FrameWriter::default();
        assert!(writer.push(&[7; 258]));
        assert!(writer.push(&[9]));
        assert_eq!(writer.pending()[..3], [1, 2, 7]);
        assert_eq!(writer.pending()[260..], [0, 1, 9]);
        writer.written(261);
        assert_eq!(writer.pending(), [1, 9]);
        writer.written(2);
        assert_eq!(writer.pending(), []);
    }

    #[test]
    fn split_and_merged_reads_give_the_same_datagrams() {
        let stream = [0, 1, 5, 0, 0, 0, 3, 1, 2, 3, 0, 2, 8, 8, 0];
        let expected = [vec![5], vec![1, 2, 3], vec![8, 8]];
        for piece in 1..=stream.len() {
            assert_eq!(read(&stream, &[piece]).as_deref(), Ok(&expected[..]), "{piece}");
        }
    }

    #[test]
    fn a_length_that_no_buffer_holds_ends_the_reading() {
        let longest = MAX_BUFFERED - HEAD;
        let mut stream = (longest as u16).to_be_bytes().to_vec();
        stream.resize(MAX_BUFFERED, 7);
        assert_eq!(read(&stream, &[1000]), Ok(vec![vec![7; longest]]));
        assert_eq!(read(&[0xff, 0xff, 0], &[3]), Err(FrameTooLong(65_535)));
    }

    #[test]
    fn a_slow_reader_loses_media_first_and_nothing_is_cut() {
        let mut writer = FrameWriter::default();
        let (media, rtcp) = ([&[0x80, 96][..], &[7; 998]].concat(), vec![0x80, 200, 1, 1]);
        let taken = (0..100).filter(|_| writer.push(&media)).count();
        assert_eq!(taken, (MAX_BUFFERED - RESERVED) / 1002);
        assert_eq!(writer.dropped(), 100 - taken as u64);
        assert!(writer.push(&rtcp), "there is room for what keeps the leg alive");
        while writer.push(&rtcp) {}
        assert!(writer.pending().len() > MAX_BUFFERED - 6);
        assert!(!writer.push(&media));
        // The reader wakes up: all that was taken comes, whole and in order.
        let mut stream = vec![];
        while !writer.pending().is_empty() {
            let length = writer.pending().len().min(777);
            stream.extend_from_slice(&writer.pending()[..length]);
            writer.written(length);
        }
        let got = read(&stream, &[1460]).expect("well-formed");
        assert_eq!(got[..taken], vec![media.clone(); taken]);
        assert!(got[taken..].iter().all(|d| *d == rtcp));
        assert!(writer.push(&media));
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read_again_however_it_is_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..30),
            pieces in prop::collection::vec(1usize..3000, 1..20),
            writes in 1usize..3000,
        ) {
            let (mut writer, mut stream, mut expected) = (FrameWriter::default(), vec![], vec![]);
            for datagram in datagrams {
                if writer.push(&datagram) {
                    expected.push(datagram);
                }
                let length = writer.pending().len().min(writes);
                stream.extend_from_slice(&writer.pending()[..length]);
                writer.written(length);
                prop_assert!(writer.bytes.len() <= MAX_BUFFERED);
            }
            stream.extend_from_slice(writer.pending());
            prop_assert_eq!(read(&stream, &pieces), Ok(expected));
        }

        #[test]
        fn junk_never_panics_or_grows(junk in prop::collection::vec(any::<u8>(), 0..5000), piece in 1usize..500) {
            let _ = read(&junk, &[piece]);
        }
    }
}

//! The RTP header (RFC 3550, RFC 8285), read from a slice and written into a buffer.
//!
//! Borrowed and without allocation, which is why it is not rtc-rtp's header.

/// An RTP packet's header and where its payload lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rtp {
    pub marker: bool,
    pub pt: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Profile word and byte range of the extension block.
    extension: Option<(u16, usize, usize)>,
    /// Payload without padding.
    pub payload: std::ops::Range<usize>,
}

impl Rtp {
    /// Reads a plain packet; None if it is malformed.
    #[cfg(test)]
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        Self::header(data)?.opened(data)
    }

    /// The same packet once it is decrypted: its payload ends before tag and padding. None if the
    /// padding is malformed.
    pub(crate) fn opened(mut self, plain: &[u8]) -> Option<Self> {
        self.payload.end = plain.len();
        if plain.first()? & 0x20 != 0 && !self.payload.is_empty() {
            let padding = usize::from(*plain.last()?);
            if padding == 0 || padding > self.payload.len() {
                return None;
            }
            self.payload.end -= padding;
        }
        Some(self)
    }

    /// Reads the header only, as of a protected packet.
    pub(crate) fn header(data: &[u8]) -> Option<Self> {
        let fixed = data.get(..12)?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let mut start = 12 + 4 * usize::from(fixed[0] & 0x0f);
        let mut extension = None;
        if fixed[0] & 0x10 != 0 {
            let head = data.get(start..start + 4)?;
            let profile = u16::from_be_bytes([head[0], head[1]]);
            let length = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            extension = Some((profile, start + 4, start + 4 + length));
            start += 4 + length;
        }
        if start > data.len() {
            return None;
        }
        Some(Self {
            marker: fixed[1] & 0x80 != 0,
            pt: fixed[1] & 0x7f,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            extension,
            payload: start..data.len(),
        })
    }

    /// The value of a header extension, in the one-byte or the two-byte form.
    pub(crate) fn extension<'a>(&self, data: &'a [u8], id: u8) -> Option<&'a [u8]> {
        data.get(self.extension_at(data, id)?)
    }

    /// Where the value of a header extension lies.
    pub(crate) fn extension_at(&self, data: &[u8], id: u8) -> Option<std::ops::Range<usize>> {
        let (profile, start, end) = self.extension?;
        let one_byte = profile == 0xbede;
        if !one_byte && profile & 0xfff0 != 0x1000 {
            return None;
        }
        let mut rest = data.get(start..end)?;
        while let [first, tail @ ..] = rest {
            if *first == 0 {
                rest = tail; // padding
                continue;
            }
            let (found, length, body) = if one_byte {
                if first >> 4 == 15 {
                    return None;
                }
                (first >> 4, usize::from(first & 0x0f) + 1, tail)
            } else {
                let (length, body) = tail.split_first()?;
                (*first, usize::from(*length), body)
            };
            let (value, next) = body.split_at_checked(length)?;
            if found == id {
                let at = end - next.len() - value.len();
                return Some(at..at + value.len());
            }
            rest = next;
        }
        None
    }
}

/// The profile words of the two forms (RFC 8285, 4.2 and 4.3).
pub(crate) const ONE_BYTE: [u8; 2] = [0xbe, 0xde];
pub(crate) const TWO_BYTES: [u8; 2] = [0x10, 0x00];

/// The longest that [`Header::write`] appends, in bytes.
pub(crate) const MAX_HEADER: usize = 12 + 4 + 3 * 18 + 3;

/// What is written in front of a payload.
pub(crate) struct Header<'a> {
    pub marker: bool,
    pub pt: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Ids 1 to 14, values of 1 to 16 bytes: what fits the one-byte form. Others are left out.
    pub extensions: [Option<(u8, &'a [u8])>; 3],
    /// In the two-byte form (RFC 8285, 4.3), although the other would do.
    pub two_bytes: bool,
}

impl Header<'_> {
    /// Whether an extension is written.
    pub(crate) fn fits((id, value): &(u8, &[u8])) -> bool {
        (1..=14).contains(id) && (1..=16).contains(&value.len())
    }

    fn extensions(&self) -> impl Iterator<Item = &(u8, &[u8])> {
        self.extensions.iter().flatten().filter(|e| Self::fits(e))
    }

    /// Appends the header.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let head = if self.two_bytes { 2 } else { 1 };
        let length: usize = self.extensions().map(|(_, value)| head + value.len()).sum();
        out.push(if length == 0 { 0x80 } else { 0x90 });
        out.push(self.pt | if self.marker { 0x80 } else { 0 });
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        if length == 0 {
            return;
        }
        let words = length.div_ceil(4);
        let [high, low] = if self.two_bytes { TWO_BYTES } else { ONE_BYTE };
        out.extend_from_slice(&[high, low, 0, words as u8]); // at most 14 words
        for (id, value) in self.extensions() {
            if self.two_bytes {
                out.extend_from_slice(&[*id, value.len() as u8]);
            } else {
                out.push(id << 4 | (value.len() - 1) as u8);
            }
            out.extend_from_slice(value);
        }
        out.resize(out.len() + words * 4 - length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut data = vec![];
        Header {
            marker: true,
            pt: 96,
            seq: 65_535,
            timestamp: 7,
            ssrc: 0xdead_beef,
            extensions: [Some((4, b"12")), Some((1, &[0x85])), Some((3, &[1, 2]))],
            two_bytes: false,
        }
        .write(&mut data);
        data.extend_from_slice(b"payload");
        let rtp = Rtp::parse(&data).expect("well-formed");
        assert!(rtp.marker);
        assert_eq!((rtp.pt, rtp.seq, rtp.ssrc), (96, 65_535, 0xdead_beef));
        assert_eq!(rtp.extension(&data, 4), Some(&b"12"[..]));
        assert_eq!(rtp.extension(&data, 1), Some(&[0x85][..]));
        assert_eq!(rtp.extension(&data, 3), Some(&[1, 2][..]));
        assert_eq!(rtp.extension(&data, 2), None);
        assert_eq!(&data[rtp.payload], b"payload");
    }

    #[test]
    fn two_byte_extensions_and_padding_are_read() {
        let mut data = vec![0xb0, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        data.extend([0x10, 0, 0, 2, 20, 3, b'a', b'b', b'c', 0, 21, 0]);
        data.extend([9, 9, 0, 2]);
        let rtp = Rtp::parse(&data).expect("well-formed");
        assert_eq!(rtp.extension(&data, 20), Some(&b"abc"[..]));
        assert_eq!(rtp.extension(&data, 21), Some(&b""[..]));
        assert_eq!(&data[rtp.payload], &[9, 9]);
    }

    proptest! {
        #[test]
        fn junk_never_panics(
            mut data in prop::collection::vec(any::<u8>(), 0..60),
            id in 0u8..=255,
        ) {
            if let Some(first) = data.first_mut() {
                *first = *first & 0x3f | 0x80;
            }
            if let Some(rtp) = Rtp::parse(&data) {
                let _ = rtp.extension(&data, id);
                prop_assert!(rtp.payload.start <= rtp.payload.end && rtp.payload.end <= data.len());
            }
        }
    }
}

//! The datagrams of a repaired link.
//!
//! The first byte is the kind. Numbers are big-endian, and are the low bits of counters that never repeat within a link.
//!
//! - `1` packet: transmission u16, number u16, then what is carried (a flow id and an RTP packet, [`crate::framing`]).
//! - `4` bundle: transmission u16, then for each of its small packets: number u16, length u16 and what is carried.
//! - `2` parity: transmission u16, first number u16, packets u8, shards u8, index u8, then the shard. The block is the `packets`
//!   numbers from `first` on, with so many `shards` of parity in all; each shard is their length (u16) and bytes, padded with zeros to one even length.
//! - `5` filling: transmission u16, then bytes that say nothing; how far apart such arrive tells what the path takes.
//! - `3` feedback: clock u32 (µs of the receiver), newest transmission u16, its age u16 (16 µs each), transmissions received
//!   u16, of the 64 before the newest those that arrived u64 (bit 0 is the nearest), first number wanted u16, then a bitmap from
//!   that number on, bit 7 of the first byte first: 1 is there, 0 is missing.
//!
//! Readers take any bytes and never panic.

use bytes::{BufMut, Bytes, BytesMut};

const PACKET: u8 = 1;
const PARITY: u8 = 2;
const FEEDBACK: u8 = 3;
const BUNDLE: u8 = 4;
const FILLING: u8 = 5;
/// Packets of a bundle, at most.
pub const MOST_BUNDLED: usize = 32;
/// Bytes before what a packet carries.
pub const PACKET_HEADER: usize = 5;
/// Bytes before a parity shard.
pub const PARITY_HEADER: usize = 8;
/// Numbers that one feedback can tell of.
pub const MAX_REPORTED: usize = 1024;
/// µs in a unit of a feedback's age.
pub const AGE_UNIT: u64 = 16;

/// Why bytes are no datagram of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("empty")]
    Empty,
    #[error("kind {0}, expected 1 (packet), 2 (parity), 3 (feedback), 4 (bundle) or 5 (filling)")]
    Kind(u8),
    #[error("shorter than its header")]
    Short,
    #[error("a block of no packets, a shard that it does not have, or one of odd length")]
    Block,
    #[error("a bundle of no packets, or of more than 32")]
    Bundle,
    #[error("a bitmap of {0} bytes, expected at most 128")]
    Bitmap(usize),
}

/// A datagram that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    Packet {
        transmission: u16,
        number: u16,
        body: Bytes,
    },
    Parity {
        transmission: u16,
        block: BlockId,
        index: u8,
        shard: Bytes,
    },
    Bundle {
        transmission: u16,
        packets: Vec<(u16, Bytes)>,
    },
    Filling {
        transmission: u16,
        bytes: usize,
    },
    Feedback(Feedback),
}

/// Which packets a parity shard belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockId {
    pub first: u16,
    /// At least 1.
    pub packets: u8,
    /// Parity shards in all; at least 1. The code depends on it.
    pub shards: u8,
}

/// What a receiver tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Feedback {
    /// The receiver's clock when it was sent, µs, low 32 bits.
    pub clock: u32,
    /// The newest transmission that arrived.
    pub newest: u16,
    /// How long ago it did, in units of [`AGE_UNIT`].
    pub age: u16,
    /// Transmissions that arrived since the link was made, low 16 bits.
    pub received: u16,
    /// Which of the 64 before the newest arrived; bit 0 is the nearest.
    pub before: u64,
    /// The first number that the bitmap tells of; all before are there or given up.
    pub first: u16,
    pub bitmap: Bytes,
}

impl Feedback {
    /// Whether the number `offset` after [`Self::first`] is there; `None` where the bitmap does not tell.
    pub fn has(&self, offset: usize) -> Option<bool> {
        let byte = self.bitmap.get(offset / 8)?;
        Some(byte & (0x80 >> (offset % 8)) != 0)
    }

    /// Appends the datagram.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_u8(FEEDBACK);
        out.put_u32(self.clock);
        out.put_u16(self.newest);
        out.put_u16(self.age);
        out.put_u16(self.received);
        out.put_u64(self.before);
        out.put_u16(self.first);
        out.put_slice(&self.bitmap[..self.bitmap.len().min(MAX_REPORTED / 8)]);
    }
}

/// Appends a packet's datagram.
pub fn write_packet(transmission: u16, number: u16, body: &[u8], out: &mut BytesMut) {
    out.reserve(PACKET_HEADER + body.len());
    out.put_u8(PACKET);
    out.put_u16(transmission);
    out.put_u16(number);
    out.put_slice(body);
}

/// Begins a bundle's datagram; its packets follow by [`add_to_bundle`].
pub fn begin_bundle(transmission: u16, out: &mut BytesMut) {
    out.put_u8(BUNDLE);
    out.put_u16(transmission);
}

/// Appends a packet to a bundle.
pub fn add_to_bundle(number: u16, body: &[u8], out: &mut BytesMut) {
    out.put_u16(number);
    out.put_u16(u16::try_from(body.len()).unwrap_or(u16::MAX));
    out.put_slice(body);
}

/// Appends a parity shard's datagram.
pub fn write_parity(transmission: u16, block: BlockId, index: u8, shard: &[u8], out: &mut BytesMut) {
    out.reserve(PARITY_HEADER + shard.len());
    out.put_u8(PARITY);
    out.put_u16(transmission);
    out.put_u16(block.first);
    out.put_u8(block.packets);
    out.put_u8(block.shards);
    out.put_u8(index);
    out.put_slice(shard);
}

/// Appends a datagram of filling with so many bytes after its header.
pub fn write_filling(transmission: u16, bytes: usize, out: &mut BytesMut) {
    out.put_u8(FILLING);
    out.put_u16(transmission);
    out.put_bytes(0, bytes);
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>);
    field
        .map(|field| u16::from_be_bytes(*field))
        .ok_or(Malformed::Short)
}

impl Datagram {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that are none.
    pub fn read(bytes: &Bytes) -> Result<Self, Malformed> {
        match *bytes.first().ok_or(Malformed::Empty)? {
            PACKET => {
                let (transmission, number) = (u16_at(bytes, 1)?, u16_at(bytes, 3)?);
                let body = bytes.slice(PACKET_HEADER..);
                Ok(Self::Packet {
                    transmission,
                    number,
                    body,
                })
            }
            PARITY => {
                let (transmission, first) = (u16_at(bytes, 1)?, u16_at(bytes, 3)?);
                let [packets, shards] = u16_at(bytes, 5)?.to_be_bytes();
                let index = *bytes.get(7).ok_or(Malformed::Short)?;
                let shard = bytes.slice(PARITY_HEADER..);
                if packets == 0 || index >= shards || shard.is_empty() || !shard.len().is_multiple_of(2) {
                    return Err(Malformed::Block);
                }
                let block = BlockId {
                    first,
                    packets,
                    shards,
                };
                Ok(Self::Parity {
                    transmission,
                    block,
                    index,
                    shard,
                })
            }
            BUNDLE => read_bundle(bytes),
            FILLING => Ok(Self::Filling {
                transmission: u16_at(bytes, 1)?,
                bytes: bytes.len() - 3,
            }),
            FEEDBACK => read_feedback(bytes).map(Self::Feedback),
            kind => Err(Malformed::Kind(kind)),
        }
    }
}

fn read_bundle(bytes: &Bytes) -> Result<Datagram, Malformed> {
    let transmission = u16_at(bytes, 1)?;
    let (mut at, mut packets) = (3, Vec::new());
    while at < bytes.len() {
        let (number, length) = (u16_at(bytes, at)?, usize::from(u16_at(bytes, at + 2)?));
        at += 4;
        if bytes.len() - at < length {
            return Err(Malformed::Short);
        }
        packets.push((number, bytes.slice(at..at + length)));
        at += length;
    }
    if packets.is_empty() || packets.len() > MOST_BUNDLED {
        return Err(Malformed::Bundle);
    }
    Ok(Datagram::Bundle {
        transmission,
        packets,
    })
}

fn read_feedback(bytes: &Bytes) -> Result<Feedback, Malformed> {
    let fixed: &[u8; 21] = bytes.first_chunk().ok_or(Malformed::Short)?;
    let bitmap = bytes.slice(fixed.len()..);
    if bitmap.len() > MAX_REPORTED / 8 {
        return Err(Malformed::Bitmap(bitmap.len()));
    }
    let u32_of = |at: usize| {
        u32::from(fixed[at]) << 24
            | u32::from(fixed[at + 1]) << 16
            | u32::from(fixed[at + 2]) << 8
            | u32::from(fixed[at + 3])
    };
    Ok(Feedback {
        clock: u32_of(1),
        newest: u16_at(bytes, 5)?,
        age: u16_at(bytes, 7)?,
        received: u16_at(bytes, 9)?,
        before: u64::from(u32_of(11)) << 32 | u64::from(u32_of(15)),
        first: u16_at(bytes, 19)?,
        bitmap,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = BytesMut::new();
        write_packet(7, 65535, b"abc", &mut out);
        let body = Bytes::from_static(b"abc");
        assert_eq!(
            Datagram::read(&out.split().freeze()),
            Ok(Datagram::Packet {
                transmission: 7,
                number: 65535,
                body
            })
        );
        let block = BlockId {
            first: 3,
            packets: 90,
            shards: 45,
        };
        write_parity(8, block, 44, b"abcd", &mut out);
        let shard = Bytes::from_static(b"abcd");
        assert_eq!(
            Datagram::read(&out.split().freeze()),
            Ok(Datagram::Parity {
                transmission: 8,
                block,
                index: 44,
                shard
            })
        );
        let feedback = Feedback {
            clock: 0x8123_4567,
            newest: 9,
            age: 3,
            received: 4,
            before: 0x8000_0000_0000_0005,
            first: 11,
            bitmap: Bytes::from_static(&[0xa0]),
        };
        feedback.write(&mut out);
        assert_eq!(
            Datagram::read(&out.split().freeze()),
            Ok(Datagram::Feedback(feedback.clone()))
        );
        assert_eq!(
            (feedback.has(0), feedback.has(1), feedback.has(8)),
            (Some(true), Some(false), None)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind in 0u8..7, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            bytes.insert(0, kind);
            let bytes = Bytes::from(bytes);
            if let Ok(read) = Datagram::read(&bytes) {
                let mut out = BytesMut::new();
                match &read {
                    Datagram::Packet { transmission, number, body } => write_packet(*transmission, *number, body, &mut out),
                    Datagram::Bundle { transmission, packets } => {
                        begin_bundle(*transmission, &mut out);
                        packets.iter().for_each(|(number, body)| add_to_bundle(*number, body, &mut out));
                    }
                    Datagram::Parity { transmission, block, index, shard } => write_parity(*transmission, *block, *index, shard, &mut out),
                    Datagram::Filling { transmission, bytes } => write_filling(*transmission, *bytes, &mut out),
                    Datagram::Feedback(feedback) => feedback.write(&mut out),
                }
                let says_nothing = matches!(read, Datagram::Filling { .. });
                prop_assert_eq!(out.len(), bytes.len());
                prop_assert!(says_nothing || out[..] == bytes[..]);
            }
        }
    }
}

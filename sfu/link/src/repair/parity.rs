//! Reed-Solomon parity over consecutive packets of unequal length.
//!
//! A shard is a packet's length (u16) and bytes, padded with zeros to the longest of its block, even. Any `n` shards of a
//! block of `n` packets give all packets back. Blocks are small (at most [`MOST_PACKETS`] and as many parity shards), so
//! each is coded in one call. A process with many links has the crate's fastest engine ([`for_many_links`]), others have
//! [`super::engine`], which needs less memory; what they make is the same.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use reed_solomon_simd::engine::{DefaultEngine, Engine};
use reed_solomon_simd::rate::{DefaultRateDecoder, DefaultRateEncoder, RateDecoder, RateEncoder};

use super::engine::Small;

/// Most packets of a block.
pub const MOST_PACKETS: usize = 200;
/// Most parity shards of a block.
pub const MOST_SHARDS: usize = 200;

/// Whether speed is worth 8 MB.
static MANY_LINKS: AtomicBool = AtomicBool::new(false);

/// From now on coding in this process takes less time, and 8 MB of tables.
pub fn for_many_links() {
    MANY_LINKS.store(true, Ordering::Relaxed);
}

fn shard_of(packet: &[u8], length: usize, out: &mut Vec<u8>) {
    out.clear();
    out.put_u16(u16::try_from(packet.len()).unwrap_or(u16::MAX));
    out.put_slice(packet);
    out.resize(length, 0);
}

/// The parity shards of `packets`, `count` of them. Empty if there is nothing to code, or more than a block may hold.
pub fn encode(packets: &[Bytes], count: usize) -> Vec<Bytes> {
    let longest = packets.iter().map(Bytes::len).max().unwrap_or(0) + 2;
    let length = longest.next_multiple_of(2);
    if packets.is_empty()
        || packets.len() > MOST_PACKETS
        || count == 0
        || count > MOST_SHARDS
        || length > usize::from(u16::MAX)
    {
        return Vec::new();
    }
    let coded = if MANY_LINKS.load(Ordering::Relaxed) {
        try_encode(packets, count, length, DefaultEngine::new())
    } else {
        try_encode(packets, count, length, Small::new())
    };
    coded.unwrap_or_default()
}

fn try_encode(packets: &[Bytes], count: usize, length: usize, engine: impl Engine) -> Option<Vec<Bytes>> {
    let mut encoder = DefaultRateEncoder::new(packets.len(), count, length, engine, None).ok()?;
    let mut shard = Vec::with_capacity(length);
    for packet in packets {
        shard_of(packet, length, &mut shard);
        encoder.add_original_shard(&shard).ok()?;
    }
    let coded = encoder.encode().ok()?;
    // One allocation for all shards.
    let mut all = BytesMut::with_capacity(length * count);
    coded.recovery_iter().for_each(|shard| all.put_slice(shard));
    let all = all.freeze();
    let shards = (0..count).map(|index| all.slice(index * length..(index + 1) * length));
    Some(shards.collect())
}

/// The missing ones of a block's packets, by their place, once enough is there. `packets` holds what arrived, `parity` the
/// shards with their index, of `shards` that were made. Nothing if it is too little, or nonsense.
pub fn decode(packets: &[Option<Bytes>], parity: &[(u8, Bytes)], shards: u8) -> Vec<(usize, Bytes)> {
    let missing = packets.iter().filter(|packet| packet.is_none()).count();
    let Some(length) = parity.first().map(|(_, shard)| shard.len()) else {
        return Vec::new();
    };
    if missing == 0 || missing > parity.len() || packets.len() > MOST_PACKETS {
        return Vec::new();
    }
    let shards = usize::from(shards);
    let decoded = if MANY_LINKS.load(Ordering::Relaxed) {
        try_decode(packets, parity, shards, length, DefaultEngine::new())
    } else {
        try_decode(packets, parity, shards, length, Small::new())
    };
    decoded.unwrap_or_default()
}

fn try_decode(
    packets: &[Option<Bytes>],
    parity: &[(u8, Bytes)],
    shards: usize,
    length: usize,
    engine: impl Engine,
) -> Option<Vec<(usize, Bytes)>> {
    let mut decoder = DefaultRateDecoder::new(packets.len(), shards, length, engine, None).ok()?;
    let mut shard = Vec::with_capacity(length);
    for (place, packet) in packets.iter().enumerate() {
        let Some(packet) = packet else { continue };
        if packet.len() + 2 > length {
            return None;
        }
        shard_of(packet, length, &mut shard);
        decoder.add_original_shard(place, &shard).ok()?;
    }
    for (index, shard) in parity {
        decoder.add_recovery_shard(usize::from(*index), shard).ok()?;
    }
    let decoded = decoder.decode().ok()?;
    let mut found = Vec::new();
    for (place, shard) in decoded.restored_original_iter() {
        let (size, rest) = shard.split_first_chunk::<2>()?;
        let packet = rest.get(..usize::from(u16::from_be_bytes(*size)))?;
        found.push((place, Bytes::copy_from_slice(packet)));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_packets_enough_give_all_back(
            lengths in proptest::collection::vec(0usize..1300, 1..60),
            shards in 1usize..40,
            seed in any::<u64>(),
        ) {
            let packets: Vec<Bytes> = lengths.iter().enumerate().map(|(place, &length)| {
                (0..length).map(|at| (at * 31 + place * 7) as u8).collect()
            }).collect();
            let parity = encode(&packets, shards);
            prop_assert_eq!(parity.len(), shards);
            let mut state = seed;
            let mut draw = || { state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); (state >> 33) as usize };
            let mut arrived: Vec<Option<Bytes>> = packets.iter().cloned().map(Some).collect();
            let losses = shards.min(packets.len());
            for _ in 0..losses { let place = draw() % packets.len(); arrived[place] = None; }
            let missing = arrived.iter().filter(|packet| packet.is_none()).count();
            let mut kept: Vec<(u8, Bytes)> = parity.into_iter().enumerate().map(|(index, shard)| (index as u8, shard)).collect();
            while kept.len() > missing { let place = draw() % kept.len(); kept.swap_remove(place); }
            for (place, packet) in decode(&arrived, &kept, shards as u8) {
                arrived[place] = Some(packet);
            }
            prop_assert_eq!(arrived, packets.into_iter().map(Some).collect::<Vec<_>>());
        }

        #[test]
        fn both_engines_make_the_same(
            lengths in proptest::collection::vec(0usize..1300, 1..200), shards in 1usize..100,
        ) {
            let packets: Vec<Bytes> = lengths.iter().enumerate().map(|(place, &length)| {
                (0..length).map(|at| (at * 37 + place * 11) as u8).collect()
            }).collect();
            let length = (lengths.iter().max().unwrap_or(&0) + 2).next_multiple_of(2);
            let small = try_encode(&packets, shards, length, Small::new());
            prop_assert_eq!(&small, &try_encode(&packets, shards, length, DefaultEngine::new()));
            let parity: Vec<(u8, Bytes)> = (0..).zip(small.unwrap_or_default()).collect();
            let arrived: Vec<Option<Bytes>> =
                packets.iter().enumerate().map(|(place, packet)| (place >= shards).then(|| packet.clone())).collect();
            let restored = try_decode(&arrived, &parity, shards, length, Small::new());
            let lost: Vec<(usize, Bytes)> = packets.into_iter().enumerate().take(shards).collect();
            prop_assert_eq!(restored, Some(lost));
        }

        #[test]
        fn nonsense_gives_nothing_and_no_panic(
            length in 0usize..20, index in any::<u8>(), shards in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut packets = vec![Some(Bytes::from_static(b"abc")); length];
            packets.push(None);
            decode(&packets, &[(index, Bytes::from(bytes))], shards);
        }
    }
}

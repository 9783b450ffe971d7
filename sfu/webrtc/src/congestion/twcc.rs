//! The transport-wide feedback message (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1):
//! its FCI, read and written. The FCI is what follows the two SSRCs of an RTPFB packet, FMT 15.
//!
//! Invariant: a message is checked as a whole before anything of it is used, and reading one costs
//! no more steps than [`MAX_STATUSES`]. It knows sequence numbers modulo 2^16 and reference times
//! modulo 2^24; unwrapping is for whoever reads.

/// Packets that one message may speak of. A message of a second at 8,000 packets/s; more is
/// refused, since a run-length chunk can claim 8,191 packets in two bytes.
pub(crate) const MAX_STATUSES: usize = 8192;
/// A delta's unit, in microseconds.
pub(crate) const DELTA_US: i64 = 250;
/// The reference time's unit, in microseconds.
pub(crate) const REFERENCE_US: i64 = 64_000;
/// Base sequence number, status count, reference time, message count.
const HEADER: usize = 8;

/// Why a feedback message was refused; nothing of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFeedback {
    /// Shorter than its header, its chunks or its deltas.
    #[error("transport-wide feedback is cut short")]
    Truncated,
    /// No packet at all, or more than a message may speak of.
    #[error("transport-wide feedback speaks of {0} packets")]
    StatusCount(usize),
    /// Packet status symbol 3 is reserved.
    #[error("transport-wide feedback has a reserved symbol")]
    ReservedSymbol,
    /// It speaks of packets that were never sent.
    #[error("transport-wide feedback of packets that were not sent")]
    NotSent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Symbol {
    Lost,
    Small,
    Large,
}

/// A message that was found whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub base: u16,
    pub statuses: usize,
    /// In units of 64 ms, 24 bits.
    pub reference: u32,
    /// Counts messages, modulo 256.
    pub number: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks a whole FCI: header, chunks and as many deltas as they promise.
    pub(crate) fn read(fci: &'a [u8]) -> Result<Self, BadFeedback> {
        let (header, rest) = fci.split_at_checked(HEADER).ok_or(BadFeedback::Truncated)?;
        let statuses = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if statuses == 0 || statuses > MAX_STATUSES {
            return Err(BadFeedback::StatusCount(statuses));
        }
        let mut symbols = Symbols::new(rest, statuses);
        let mut delta_bytes = 0;
        for _ in 0..statuses {
            delta_bytes += match symbols.next().ok_or(BadFeedback::Truncated)?? {
                Symbol::Lost => 0,
                Symbol::Small => 1,
                Symbol::Large => 2,
            };
        }
        let (chunks, deltas) = rest.split_at(symbols.at);
        if deltas.len() < delta_bytes {
            return Err(BadFeedback::Truncated);
        }
        Ok(Self {
            base: u16::from_be_bytes([header[0], header[1]]),
            statuses,
            reference: u32::from_be_bytes([0, header[4], header[5], header[6]]),
            number: header[7],
            chunks,
            deltas,
        })
    }

    /// One item a packet, from `base` on: microseconds after the reference time, or None where it
    /// did not arrive.
    pub(crate) fn arrivals(&self) -> impl Iterator<Item = Option<i64>> + 'a {
        let mut deltas = self.deltas.iter();
        let mut at = 0;
        let mut byte = move || deltas.next().copied().unwrap_or_default();
        Symbols::new(self.chunks, self.statuses)
            .map_while(Result::ok)
            .map(move |symbol| {
                let ticks = match symbol {
                    Symbol::Lost => return None,
                    Symbol::Small => i64::from(byte()),
                    Symbol::Large => i64::from(i16::from_be_bytes([byte(), byte()])),
                };
                at += ticks * DELTA_US;
                Some(at)
            })
    }
}

/// Walks the packet status chunks.
struct Symbols<'a> {
    data: &'a [u8],
    /// Where the next chunk is.
    at: usize,
    left: usize,
    chunk: u16,
    /// Symbols left in the chunk.
    in_chunk: usize,
}

impl<'a> Symbols<'a> {
    fn new(data: &'a [u8], statuses: usize) -> Self {
        Self {
            data,
            at: 0,
            left: statuses,
            chunk: 0,
            in_chunk: 0,
        }
    }
}

impl Iterator for Symbols<'_> {
    type Item = Result<Symbol, BadFeedback>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        if self.in_chunk == 0 {
            let bytes = self.data.get(self.at..self.at + 2)?;
            self.chunk = u16::from_be_bytes([bytes[0], bytes[1]]);
            self.at += 2;
            self.in_chunk = match self.chunk >> 14 {
                0 | 1 => usize::from(self.chunk & 0x1fff),
                2 => 14,
                _ => 7,
            };
            if self.in_chunk == 0 {
                return None; // a run of nothing: the message never gets whole
            }
        }
        self.left -= 1;
        self.in_chunk -= 1;
        let bits = match self.chunk >> 14 {
            0 | 1 => self.chunk >> 13,
            2 => self.chunk >> self.in_chunk & 1,
            _ => self.chunk >> (2 * self.in_chunk) & 3,
        };
        Some(match bits {
            0 => Ok(Symbol::Lost),
            1 => Ok(Symbol::Small),
            2 => Ok(Symbol::Large),
            _ => Err(BadFeedback::ReservedSymbol),
        })
    }
}

/// Writes an FCI for `arrivals`, microseconds of any clock or None for a packet that did not
/// arrive, beginning with packet `base`. Takes as many as fit in `limit` bytes and as have deltas
/// that can be written; returns the FCI and how many it took. One at least must have arrived: the
/// first that did gives the message's reference.
pub(crate) fn write(base: u16, number: u8, arrivals: &[Option<i64>], limit: usize) -> (Vec<u8>, usize) {
    let first = arrivals.iter().flatten().next().copied().unwrap_or_default();
    let reference = first.div_euclid(REFERENCE_US);
    let mut last = reference * REFERENCE_US;
    let mut symbols = Vec::with_capacity(arrivals.len());
    let mut deltas = Vec::with_capacity(arrivals.len());
    for arrival in arrivals.iter().take(MAX_STATUSES) {
        // A chunk of 2 bytes for 7 packets at the worst.
        if HEADER + 2 * (symbols.len() / 7 + 1) + deltas.len() + 2 > limit {
            break;
        }
        let Some(at) = arrival else {
            symbols.push(Symbol::Lost);
            continue;
        };
        let ticks = (at - last).div_euclid(DELTA_US);
        if let Ok(small) = u8::try_from(ticks) {
            symbols.push(Symbol::Small);
            deltas.push(small);
        } else if let Ok(large) = i16::try_from(ticks) {
            symbols.push(Symbol::Large);
            deltas.extend_from_slice(&large.to_be_bytes());
        } else {
            break;
        }
        last += ticks * DELTA_US;
    }
    let mut fci = Vec::with_capacity(HEADER + symbols.len() + deltas.len());
    fci.extend_from_slice(&base.to_be_bytes());
    fci.extend_from_slice(&(symbols.len() as u16).to_be_bytes());
    fci.extend_from_slice(&(reference as u32).to_be_bytes()[1..]);
    fci.push(number);
    write_chunks(&symbols, &mut fci);
    fci.extend_from_slice(&deltas);
    (fci, symbols.len())
}

fn write_chunks(mut symbols: &[Symbol], fci: &mut Vec<u8>) {
    let bits = |s: &Symbol| match s {
        Symbol::Lost => 0u16,
        Symbol::Small => 1,
        Symbol::Large => 2,
    };
    while let Some(first) = symbols.first() {
        let run = symbols.iter().take(0x1fff).take_while(|s| *s == first).count();
        let two_bits = symbols.iter().take(14).any(|s| *s == Symbol::Large);
        let width = if two_bits { 7 } else { 14 };
        let (chunk, took) = if run >= width || run == symbols.len() {
            (bits(first) << 13 | run as u16, run)
        } else {
            let mut chunk = if two_bits { 3u16 << 14 } else { 1 << 15 };
            for (i, symbol) in symbols.iter().take(width).enumerate() {
                chunk |= bits(symbol) << ((width - 1 - i) * if two_bits { 2 } else { 1 });
            }
            (chunk, width.min(symbols.len()))
        };
        fci.extend_from_slice(&chunk.to_be_bytes());
        symbols = &symbols[took..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arrivals(fci: &[u8]) -> Vec<Option<i64>> {
        let message = Message::read(fci).expect("whole");
        let from = i64::from(message.reference) * REFERENCE_US;
        message.arrivals().map(|a| a.map(|us| us + from)).collect()
    }

    #[test]
    fn the_drafts_chunks_are_read() {
        // Base 5, 7 packets, reference 1, message 9. A two-bit vector: small, lost, large, lost x4.
        let fci = [0, 5, 0, 7, 0, 0, 1, 9, 0b1101_0010, 0, 4, 0xff, 0xfe];
        let message = Message::read(&fci).expect("whole");
        assert_eq!(
            (message.base, message.statuses, message.reference, message.number),
            (5, 7, 1, 9)
        );
        let expected = [Some(1000), None, Some(500), None, None, None, None];
        assert_eq!(message.arrivals().collect::<Vec<_>>(), expected);
        // A run of 3 small ones, then a one-bit vector of which 2 count.
        let fci = [0, 0, 0, 5, 0, 0, 0, 0, 0x20, 3, 0b1010_0000, 0, 1, 1, 1, 1];
        let expected = [Some(250), Some(500), Some(750), Some(1000), None];
        assert_eq!(arrivals(&fci), expected);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        assert_eq!(Message::read(&[0; 7]).err(), Some(BadFeedback::Truncated));
        assert_eq!(Message::read(&[0; 8]).err(), Some(BadFeedback::StatusCount(0)));
        let too_many = [0, 0, 0xff, 0xff, 0, 0, 0, 0, 0x1f, 0xff];
        assert_eq!(
            Message::read(&too_many).err(),
            Some(BadFeedback::StatusCount(65_535))
        );
        let no_delta = [0, 0, 0, 1, 0, 0, 0, 0, 0x20, 1];
        assert_eq!(Message::read(&no_delta).err(), Some(BadFeedback::Truncated));
        let no_run = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Message::read(&no_run).err(), Some(BadFeedback::Truncated));
        let reserved = [0, 0, 0, 1, 0, 0, 0, 0, 0x60, 1, 0, 0];
        assert_eq!(Message::read(&reserved).err(), Some(BadFeedback::ReservedSymbol));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(
            steps in proptest::collection::vec(proptest::option::of(-20_000i64..400_000), 1..400),
            start in 0i64..1_000_000_000_000,
            base: u16,
        ) {
            let mut at = start;
            let mut times: Vec<Option<i64>> = vec![Some(start)];
            times.extend(steps.iter().map(|s| s.map(|us| { at += us; at })));
            let (fci, took) = write(base, 3, &times, 1100);
            prop_assert!(fci.len() <= 1100 && took >= 1);
            let message = Message::read(&fci).expect("ours");
            prop_assert_eq!((message.base, message.number, message.statuses), (base, 3, took));
            let wrap = (1i64 << 24) * REFERENCE_US;
            for (read, written) in arrivals(&fci).iter().zip(&times) {
                prop_assert_eq!(read.is_some(), written.is_some());
                if let (Some(read), Some(written)) = (read, written) {
                    prop_assert!((written - read).rem_euclid(wrap) < DELTA_US);
                }
            }
        }

        #[test]
        fn nothing_read_panics(fci in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::read(&fci) {
                prop_assert_eq!(message.arrivals().count(), message.statuses);
            }
        }
    }
}

//! Repair within a deadline, sans-IO: what goes into datagrams, what is sent again, and how fast.
//!
//! A [`Sender`] numbers every packet (its *number*) and every datagram that carries one (its *transmission*), paces
//! them by its own congestion control ([`rate`]), and learns from the feedback of the [`Receiver`] which arrived. A packet
//! that is missing is sent again while a round trip still fits its deadline, several times in the last round; where no round
//! trip fits, or too few, Reed-Solomon parity ([`parity`]) over a window of frames goes ahead of the loss. How much of which
//! is decided in [`plan`] from the loss, the length of its bursts and the round trip that are measured.
//!
//! Invariants: time comes in as microseconds of any clock that does not go back; nothing here reads a clock, draws a random
//! number or does I/O, so seeded runs repeat; what a peer sends grows no memory beyond fixed windows. It knows no QUIC: the
//! datagrams of [`wire`] are carried by whoever owns the socket.

mod engine;
mod frames;
pub mod loss;
pub mod parity;
pub mod path;
pub mod plan;
pub mod rate;
mod receiver;
mod sender;
pub mod wire;

#[cfg(test)]
mod hostile;

pub use receiver::{Receiver, ReceiverStats};
pub use sender::{Packet, Sender, SenderStats};

/// Microseconds since any moment, of one end's clock.
pub type Micros = u64;

/// What a packet carries: decides its deadline, and who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Opus and anything as small and as urgent.
    Audio,
    Video,
}

/// What packets are held to by their sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A packet of video that arrives later than this after its capture is of no use, µs.
    pub video_deadline: Micros,
    /// The same for audio, µs.
    pub audio_deadline: Micros,
}

/// How terms are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Budget {
    Fixed(Terms),
    /// By the path: three round trips and a little, 250 to 800 ms; a second where the rate is so small that a picture takes
    /// long to send.
    #[default]
    Auto,
}

/// Below this rate a picture has a second, bits a second.
const SLOW: u64 = 300_000;

impl Budget {
    /// Before anything is known.
    pub fn begin(self) -> Terms {
        match self {
            Self::Fixed(terms) => terms,
            Self::Auto => Terms::default(),
        }
    }

    /// For a path with this least round trip (µs) and rate (bits a second).
    pub fn terms(self, least_rtt: Micros, rate: u64) -> Terms {
        match self {
            Self::Fixed(terms) => terms,
            Self::Auto => {
                let by_path = (least_rtt * 3 + 100_000).clamp(250_000, 800_000);
                Terms {
                    video_deadline: if rate < SLOW { 1_000_000 } else { by_path },
                    audio_deadline: by_path.max(400_000),
                }
            }
        }
    }
}

impl Terms {
    /// The deadline of a class, µs after capture.
    pub fn deadline(&self, class: Class) -> Micros {
        match class {
            Class::Audio => self.audio_deadline,
            Class::Video => self.video_deadline,
        }
    }

    /// After this a missing packet is given up by both ends, µs.
    pub fn longest(&self) -> Micros {
        self.video_deadline.max(self.audio_deadline)
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            video_deadline: 200_000,
            audio_deadline: 400_000,
        }
    }
}

/// The full number nearest to `near` whose low 16 bits are `low`.
pub(crate) fn unwrap16(low: u16, near: u64) -> u64 {
    let ahead = low.wrapping_sub(near as u16) as i16;
    near.saturating_add_signed(i64::from(ahead))
}

/// The same for 32 bits.
pub(crate) fn unwrap32(low: u32, near: u64) -> u64 {
    let ahead = low.wrapping_sub(near as u32) as i32;
    near.saturating_add_signed(i64::from(ahead))
}

//! A link that behaves as a profile says: rate with a drop-tail queue, delay, jitter, losses in bursts, up and down.
//!
//! - [`Profile`] is the table of conditions over time (`data/links/*.csv`, columns in the README there).
//! - [`Shaper`] decides, for one direction, what becomes of each packet: when it is delivered, or why it is dropped.
//! - [`Network`] is a link in memory with both directions, for tests in virtual time.
//! - [`Relay`] is the same link between two UDP sockets, in real time; the program `linkshape` is a shell around it.
//!
//! Everything but [`Relay`] is pure: it reads no clock, opens no socket, takes no lock and draws from its seed alone, so
//! the same seed and the same packets give the same decisions, today and in the next version.
//!
//! It does not change packets, duplicate them or reorder them, and knows nothing of what they carry.

mod network;
mod profile;
mod random;
mod shaper;
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the shell: the clock, the sockets and the thread are here and nowhere else"
)]
mod udp;

pub use network::{Line, Network};
pub use profile::{Profile, ProfileError, Row};
pub use shaper::{Cause, Counters, Direction, IP_UDP_OVERHEAD, Shaper, Tally, Verdict};
pub use udp::{MAX_CLIENTS, Relay, RelayCounters};

//! The relay: a shell around the pure cores `muster-forward` (what goes into which slot) and `muster-webrtc` (one
//! browser's leg), and around `muster-link` (one agent's link).
//!
//! [`Relay::start`] opens the sockets, starts a worker thread a core, the HTTP surface, and the stream to the control plane.
//! Packets stay in the workers (`worker/path.rs` shows their whole path); everything else is told to them through bounded
//! commands and the directory. The relay knows tokens, stages and reports, and no business rule.

mod admission;
mod cascade;
mod config;
mod convert;
mod dev;
mod directory;
mod fleet;
mod http;
mod ice_servers;
mod identity;
mod metrics;
mod qualities;
mod readiness;
mod refusal;
mod relay;
mod reports;
mod ring;
mod tcp_listener;
mod tls;
mod watch;
mod worker;

pub use cascade::Neighbour;
pub use config::{Flags, HttpTls, RelayConfig};
pub use dev::{BadDevToken, DevToken};
pub use ice_servers::{IceServer, NoIceServer};
pub use relay::Relay;

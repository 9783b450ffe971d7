//! The link: the QUIC leg between an edge agent and a relay, both ends of it.
//!
//! A link is one QUIC connection (ALPN `muster/1`, mutual TLS by the built-in CA). Control messages
//! (`LinkUp`, `LinkDown`, length-delimited) travel on the one bidirectional stream that the edge opens; RTP
//! travels beside it in datagrams, each led by a flow id, repaired by [`repair`]. [`framing`] and [`rtp`] are the formats,
//! [`Link`] is an established connection of either end, [`EdgeLink::connect`] and [`LinkServer`] make one. Where UDP is
//! blocked, QUIC's datagrams go through a tunnel of TLS over TCP, and nothing above knows ([`LinkSender::transport`] tells).
//!
//! Invariant: nothing that a peer sends grows memory without bound, and every queue drops or refuses, and says
//! so. What it does not do: it knows no meeting, source or slot, and it checks no join
//! token. Those belong to the relay and to the edge.

mod client;
mod error;
pub mod framing;
mod link;
mod media;
pub mod repair;
pub mod rtp;
mod server;
mod socket;
mod timer;
mod transport;
mod tunnel;
mod uplinks;
mod window;

pub use client::{Dial, Ways, resolve};
pub use error::LinkError;
pub use link::{
    ControlReceiver, EdgeLink, EdgeSender, Link, LinkSender, MediaReceiver, RelayLink, RelaySender, Sent,
    Transport,
};
pub use media::{LinkHealth, LinkStats};
pub use server::{Arriving, LinkServer};
pub use tunnel::TunnelStats;

/// Version of the protocol, told in `LinkHello` and `LinkWelcome`.
pub const VERSION: u32 = 2;

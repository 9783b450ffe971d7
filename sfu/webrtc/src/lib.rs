//! One WebRTC leg, sans I/O: SDP, ICE-lite, DTLS, SRTP and RTCP of one peer on one UDP port.
//!
//! **Drive a [`Leg`] like this: after every call that takes `&mut self` and before waiting, drain
//! [`Leg::poll_media`], [`Leg::poll_transmit`] and [`Leg::poll_event`], then wait until [`Leg::poll_timeout`] at the
//! latest and call [`Leg::handle_timeout`].**
//!
//! ```text
//! let (mut leg, answer) = Leg::accept(now, offer, &config)?;
//! loop {
//!     while let Some(to) = leg.poll_media(now, &store, &mut batch) { send_run(to, &batch) }
//!     while let Some(t) = leg.poll_transmit() { socket.send_to(&t.data, t.to) }
//!     while let Some(e) = leg.poll_event() { ... }
//!     match wait(socket, leg.poll_timeout()) {
//!         Datagram(from, bytes) => if let Ok(Some(rtp)) = leg.handle_datagram(now, from, bytes) { store.push(now, rtp.payload); ... leg.queue_rtp(slot, &packet) }
//!         Timeout => leg.handle_timeout(now),
//!     }
//! }
//! ```
//!
//! Invariants: no clock, socket, lock, async or randomness of ours (the DTLS crate draws its own
//! inside the handshake); nothing that a peer sends panics or grows memory without a bound.
//! It does not know meetings, stages or other legs, and it never renegotiates.

mod answer;
mod certificate;
mod client_hello;
pub mod congestion;
mod crypto;
mod dependency;
mod dtls;
mod event;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod ice_lite;
mod leg;
mod media;
mod negotiate;
mod offer;
mod receive;
mod red;
mod rtcp;
mod rtp;
mod seed;
mod send;
mod srtp;
mod store;
#[cfg(test)]
mod test_support;
mod vp8;

pub use answer::host_candidates;
pub use certificate::{Certificate, CertificateError};
pub use event::{CloseReason, Ignored, LegEvent, Quality, TableSizes, Transmit};
pub use framing::{FrameReader, FrameTooLong, FrameWriter};
pub use ice_lite::stun_ufrag;
pub use leg::{IceCredentials, Leg, LegConfig, LegTurn};
pub use media::{Codec, OfferedSlot, OfferedSource, PicturePatch, QueuedRtp, ReceivedRtp, SourceKind};
pub use offer::{MAX_MEDIA, MAX_OFFER, OfferError};
pub use send::SendBatch;
#[doc(hidden)] // for benches/protect.rs
pub use srtp::{Profile, Srtp};
pub use store::{PacketStore, Place};

/// The longest RTP payload that [`Leg::queue_rtp`] takes, in bytes.
pub const MAX_PAYLOAD: usize = 1400;

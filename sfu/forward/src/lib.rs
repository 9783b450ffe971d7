//! The forwarding core of a relay: which packet of which source goes into which slot, and how it is renumbered.
//!
//! A [`Meeting`] is the state of one meeting on one worker. It is a value: packets, wishes and time go in,
//! [`Forwarded`] packets and [`Event`]s come out. It reads no clock, opens no socket, takes no lock and draws no
//! randomness, so a run with the same inputs gives the same outputs.
//!
//! **Drive it so:** call a `handle_*` or a mutator with the time, then drain [`Meeting::poll_event`] until `None`,
//! and call [`Meeting::handle_timeout`] no later than [`Meeting::poll_timeout`] says.
//!
//! It does *not* decide who may meet, speak or be seen (the stage says so), nor does it touch payload bytes, SSRCs,
//! payload types, header extensions or encryption: those belong to the leg.

mod allocation;
mod audio;
pub mod av1;
mod bits;
mod budget;
pub mod dependency;
mod described;
mod event;
mod forwarding;
mod frame;
pub mod h264;
mod index;
mod keyframes;
mod lane;
mod mapping;
mod meeting;
mod published;
pub mod quality;
mod rate;
mod rewrite;
mod sequence;
mod slab;
mod slot;
mod sounding;
mod source;
mod spatial;
mod stage;
mod tape;
mod telling;
mod thinning;
mod timing;
mod types;
pub mod vp8;
pub mod vp9;

pub use event::{Event, SlotReason, SlotState, SlotStatus};
pub use frame::starts_key_frame;
pub use meeting::Meeting;
pub use published::Published;
pub use types::{
    Codec, Forwarded, FramePatch, LayerSpec, LegId, Micros, Packet, Replayed, SlotId, SlotSpec, SourceId,
    SourceKind, SourceSpec, Stage, Stored, Wish, WishWhat,
};
pub use vp8::Vp8Patch;

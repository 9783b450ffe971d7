//! The test card of an edge agent: a drawn picture with a machine-readable mark, coded as VP8, and a tone coded
//! as Opus, both cut into RTP payloads.
//!
//! Everything here is a plain value driven by its caller: no clock is read, no socket opened, nothing random.
//! Times come in as milliseconds since the Unix epoch. `vpx` and `mapped` are the only modules with unsafe code.
//! It does **not** know relays, meetings or slots: see `muster-edge`.

pub mod card;
mod glyphs;
mod mapped;
pub mod mark;
pub mod picture;
pub mod rtp;
pub mod size;
pub mod tone;
pub mod vp8;
pub mod vpx;

pub use card::{Card, Names};
pub use mark::{Mark, site_number};
pub use picture::Picture;
pub use size::{PictureSize, UnknownSize};
pub use tone::{Tone, ToneFrame};
pub use vpx::{Decoder, EncodedFrame, Encoder, VpxError};

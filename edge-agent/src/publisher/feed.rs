//! What a camera's task tells the agent's loop.
//!
//! Events go over the loop's bounded queue; a task waits where it is full, and the camera with it. Words about a camera
//! are cleaned of its name and password before they come here.

use bytes::Bytes;

use super::Fault;
use super::page::PageEvent;

/// One access unit of H.264, each NAL unit with four bytes of length before it.
#[derive(Clone, Debug)]
pub struct Picture {
    pub data: Bytes,
    /// A decoder can begin here; the parameter sets are within.
    pub key: bool,
    /// 90 kHz, from anywhere, without end.
    pub ticks: i64,
}

/// How sound comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SoundFormat {
    /// G.711, one channel, with this many samples a second.
    Ulaw(u32),
    Alaw(u32),
    /// AAC-LC without ADTS, and its AudioSpecificConfig.
    Aac(Bytes),
    /// Signed 16 bits, little endian, one channel, 48,000 a second.
    Plain,
}

/// What a camera's task says. Layers count from the smallest.
#[derive(Clone, Debug)]
pub enum FeedEvent {
    /// Pixels; 0 by 0 if unknown.
    Size {
        layer: usize,
        width: u32,
        height: u32,
    },
    Picture {
        layer: usize,
        picture: Picture,
    },
    /// The sound comes so from now on; `None`: there is none.
    SoundFormat(Option<SoundFormat>),
    Sound(Bytes),
    /// There should be sound, and is none.
    NoSound(String),
    Fault {
        layer: usize,
        fault: Fault,
        detail: String,
    },
    /// Of the browser with the agent's page.
    Page(PageEvent),
}

//! What the site publishes, behind one seam: each kind of source is a [`Publish`].
//!
//! A source is a plain value: the time comes in, datagrams go out through a function, and what a camera sends is handed
//! over by the agent's loop as a [`FeedEvent`]. Sockets and children belong to the tasks of [`rtsp`], [`capture`] and [`page`], which
//! write into the loop's bounded queue and wait where it is full. A source says of itself what is wrong with it ([`Fault`]); who is
//! told, and how, is the agent's.

use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use muster_proto::media::v1::LinkSource;

pub mod camera;
pub mod capture;
pub mod card;
mod clock;
mod fault;
pub mod feed;
mod flv;
mod gop;
pub mod h264;
mod layer;
pub mod page;
pub mod rtsp;
mod sound;

pub use camera::Camera;
pub use card::Card;
pub use fault::Fault;
pub use feed::FeedEvent;
pub use page::PageCamera;

/// Flow of the first camera layer, the smallest; the others follow.
pub const CAMERA_FLOW: u64 = 1;
/// Flow of the sound.
pub const AUDIO_FLOW: u64 = 8;

/// Sends one datagram.
pub type Send<'a> = &'a mut dyn FnMut(Bytes);

/// Random numbers that seed sequence numbers, timestamps and picture ids.
pub type Seed = [u16; 6];

/// What a look at camera and microphone has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub camera: Result<(), Fault>,
    /// Whether the microphone delivers; `None` where there is none to look at.
    pub microphone: Option<bool>,
}

/// The source of an agent.
pub type Publisher = Box<dyn Publish>;

/// A source: camera and microphone of a site, or what stands for them.
pub trait Publish: fmt::Debug + std::marker::Send {
    /// What goes into the join; of a site that is asked for sound alone, no camera.
    fn sources(&self, audio_only: bool) -> Vec<LinkSource>;

    /// Starts publishing into a fresh leg, with a key frame of each layer as soon as there is one. For sound alone no
    /// camera is opened.
    fn start(&mut self, now: Instant, audio_only: bool);

    /// Stops publishing. What makes for a quick return is kept.
    fn stop(&mut self, now: Instant);

    /// Looks at camera and microphone without a sign to anybody; what is in use is left alone.
    fn check(&mut self) -> Checked;

    /// What is wrong with the camera now.
    fn fault(&self) -> Option<Fault>;

    /// Gives back what has been idle for long. Called about once a second.
    fn rest(&mut self, now: Instant);

    /// Somebody needs a key frame of a layer.
    fn request_key_frame(&mut self, now: Instant, flow: u64);

    /// Nobody watches a layer, or somebody does again.
    fn pause(&mut self, now: Instant, flow: u64, paused: bool);

    /// Muted sites send silence.
    fn mute(&mut self, muted: bool);

    /// Whether every layer is paused.
    fn is_paused(&self) -> bool;

    /// When something is due next; `None` while nothing is.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Makes and sends what is due; returns the number of pictures. `now_ms` is the time since the Unix epoch.
    fn handle_timeout(&mut self, now: Instant, now_ms: i64, send: Send<'_>) -> u64;

    /// Takes what the source's own tasks say.
    fn handle_feed(&mut self, _now: Instant, _event: FeedEvent) {}
}

/// Where an RTP stream stands.
#[derive(Clone, Copy, Debug)]
struct Stream {
    seq: u16,
    /// Random offset of the timestamps.
    timestamp: u32,
}

//! What QUIC may have in flight, as its own congestion control is told: the repair core decides the rate, and paces.
//!
//! quinn asks a [`LinkWindow`] for its window of bytes in flight. It takes no notice of losses: the window is several round
//! trips of the rate that [`crate::repair::rate`] finds, so that QUIC holds nothing back that the core lets go, and a control
//! stream cannot flood a path whose rate is known. Before anything is known it is [`LEAST`].

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};

/// Bytes in flight that are always allowed: a few seconds of probes on a dead path, and the handshake.
const LEAST: u64 = 128 * 1024;
/// At most, whatever the rate.
const MOST: u64 = 16 * 1024 * 1024;

/// The window, written by the media task.
#[derive(Debug)]
pub(crate) struct Shared(AtomicU64);

impl Shared {
    /// Follows a rate (bits a second) over a round trip: what is sent in two round trips and a second.
    pub fn follow(&self, rate: u64, rtt: Duration) {
        let seconds = 1.0 + 2.0 * rtt.as_secs_f64();
        let bytes = (rate as f64 / 8.0 * seconds) as u64;
        self.0.store(bytes.clamp(LEAST, MOST), Ordering::Relaxed);
    }
}

/// A connection's window.
#[derive(Debug, Clone)]
pub(crate) struct LinkWindow(Arc<Shared>);

impl LinkWindow {
    pub fn shared(&self) -> Arc<Shared> {
        self.0.clone()
    }
}

impl Controller for LinkWindow {
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        LEAST
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Makes a window for each path.
#[derive(Debug, Default)]
pub(crate) struct LinkWindows;

impl ControllerFactory for LinkWindows {
    fn build(self: Arc<Self>, _: Instant, _: u16) -> Box<dyn Controller> {
        Box::new(LinkWindow(Arc::new(Shared(AtomicU64::new(LEAST)))))
    }
}

//! What is told outside of the links to other relays: who is there, and what has crossed.
//!
//! Written by the workers, read by metrics, tests and the bench. It holds atomics and names; it decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A relay at the other end of a link, and what has crossed since it was made. Bytes are of the datagrams (flow id, RTP
/// header, payload), without QUIC, UDP and IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The name in its certificate.
    pub name: String,
    /// It is the relay that this one dialled.
    pub above: bool,
    pub packets_out: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
    /// Packets that have come by their sequence numbers: less than `packets_in` if any came twice, more if some were lost.
    pub numbers_in: u64,
    /// Flows (a layer of a source each) in which something has come.
    pub layers_in: u64,
    /// Key frames that it asked for.
    pub key_frames_asked: u64,
}

#[derive(Debug)]
pub(crate) struct Counts {
    name: Arc<str>,
    above: bool,
    pub packets_out: AtomicU64,
    pub bytes_out: AtomicU64,
    pub packets_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub numbers_in: AtomicU64,
    pub layers_in: AtomicU64,
    pub key_frames_asked: AtomicU64,
}

pub(crate) fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

/// The links to other relays that stand now.
#[derive(Debug, Default)]
pub(crate) struct Cascade(Mutex<Vec<Arc<Counts>>>);

impl Cascade {
    pub fn enter(&self, name: &Arc<str>, above: bool) -> Arc<Counts> {
        let counts = Arc::new(Counts {
            name: name.clone(),
            above,
            packets_out: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            packets_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            numbers_in: AtomicU64::new(0),
            layers_in: AtomicU64::new(0),
            key_frames_asked: AtomicU64::new(0),
        });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(counts.clone());
        counts
    }

    pub fn leave(&self, counts: &Arc<Counts>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !Arc::ptr_eq(other, counts));
    }

    /// The name of the relay above; empty while there is none.
    pub fn above(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let above = all.iter().find(|counts| counts.above);
        above.map(|counts| counts.name.to_string()).unwrap_or_default()
    }

    pub fn neighbours(&self) -> Vec<Neighbour> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        all.iter()
            .map(|counts| Neighbour {
                name: counts.name.to_string(),
                above: counts.above,
                packets_out: read(&counts.packets_out),
                bytes_out: read(&counts.bytes_out),
                packets_in: read(&counts.packets_in),
                bytes_in: read(&counts.bytes_in),
                numbers_in: read(&counts.numbers_in),
                layers_in: read(&counts.layers_in),
                key_frames_asked: read(&counts.key_frames_asked),
            })
            .collect()
    }
}

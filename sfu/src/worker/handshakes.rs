//! Datagrams of DTLS handshakes, which wait while there is media to send: agreeing on keys takes a fraction of a
//! millisecond, and two hundred may come at once.
//!
//! Invariant: bounded as a whole and for each leg, so that a peer who sends junk takes no place of another's. Only addresses that passed
//! a connectivity check get here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_forward::LegId;

use super::state::{LegEntry, Wire, Worker};

/// Datagrams that wait.
const MAX_WAITING: usize = 2048;
/// Of these, of one leg: more than a flight has.
const MAX_OF_LEG: usize = 16;
/// A longer one is no part of a handshake, in bytes.
const MAX_LENGTH: usize = 2048;
/// Time for handshakes in one turn.
const TURN: Duration = Duration::from_micros(400);

#[derive(Default)]
pub(crate) struct Handshakes(VecDeque<(LegId, SocketAddr, Vec<u8>)>);

impl Handshakes {
    pub fn wait(&self) -> bool {
        !self.0.is_empty()
    }
}

/// DTLS, by its first byte (RFC 7983).
pub(super) fn is_dtls(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (20..=63).contains(first))
}

impl Worker {
    /// Keeps a datagram for a turn in which there is time.
    pub(super) fn defer_handshake(&mut self, id: LegId, from: SocketAddr, datagram: &[u8]) {
        let Some(LegEntry {
            wire: Wire::WebRtc(wire),
            ..
        }) = self.legs.get_mut(&id)
        else {
            return;
        };
        let full = self.handshakes.0.len() >= MAX_WAITING || wire.handshakes >= MAX_OF_LEG;
        if full || datagram.len() > MAX_LENGTH {
            self.drops.handshakes_full.increment(1);
            return;
        }
        wire.handshakes += 1;
        self.handshakes.0.push_back((id, from, datagram.to_vec()));
        self.rouse.notify_one();
    }

    /// Takes some of those that wait, at least one.
    pub fn take_handshakes(&mut self) {
        let began = Instant::now();
        let mut now = began;
        while let Some((id, from, mut datagram)) = self.handshakes.0.pop_front() {
            if let Some(LegEntry {
                wire: Wire::WebRtc(wire),
                ..
            }) = self.legs.get_mut(&id)
            {
                wire.handshakes = wire.handshakes.saturating_sub(1);
                if let Err(ignored) = wire.leg.handle_datagram(now, from, &mut datagram) {
                    self.count_ignored(ignored);
                }
                self.touch(id);
            }
            now = Instant::now();
            if now.saturating_duration_since(began) >= TURN {
                break;
            }
        }
        self.flush(now);
    }
}

//! The ids that one end's connection goes by: what a packet of the peer's bears, and nothing that a stranger sends.
//!
//! They are random, and the peer is told of them inside the encryption (in a tunnel all of them, by UDP all but the first). So
//! a datagram that bears one is the peer's, or of somebody who has seen one of the peer's come this way: either shows that the
//! way works. Whether QUIC can open it is not asked. Of the ids given out the newest [`MOST`] are known; QUIC has 8 in use.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, RandomConnectionIdGenerator};

use crate::transport::ID_BYTES;

const MOST: usize = 64;

/// The ids that were given out.
#[derive(Debug, Default)]
pub(crate) struct Ids(Mutex<VecDeque<ConnectionId>>);

impl Ids {
    fn lock(&self) -> MutexGuard<'_, VecDeque<ConnectionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes ids that are known here.
    pub fn generator(self: &Arc<Self>) -> Box<dyn ConnectionIdGenerator> {
        Box::new(Generator {
            ids: self.clone(),
            random: RandomConnectionIdGenerator::new(ID_BYTES),
        })
    }

    /// Whether a datagram begins with a packet of the connection after its handshake (a short header, RFC 9000 section 17.3).
    pub fn are_of(&self, datagram: &[u8]) -> bool {
        let is_short = datagram.first().is_some_and(|first| first & 0x80 == 0);
        let id = datagram.get(1..=ID_BYTES).filter(|_| is_short);
        id.is_some_and(|id| self.lock().iter().rev().any(|known| **known == *id))
    }
}

struct Generator {
    ids: Arc<Ids>,
    random: RandomConnectionIdGenerator,
}

impl ConnectionIdGenerator for Generator {
    fn generate_cid(&mut self) -> ConnectionId {
        let id = self.random.generate_cid();
        let mut known = self.ids.lock();
        if known.len() == MOST {
            known.pop_front();
        }
        known.push_back(id);
        id
    }

    fn cid_len(&self) -> usize {
        self.random.cid_len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        self.random.cid_lifetime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, id: &[u8]) -> Vec<u8> {
        [&[first], id, b"sealed"].concat()
    }

    #[test]
    fn a_packet_that_bears_an_id_of_ours_is_known_and_nothing_else() {
        let ids = Arc::<Ids>::default();
        let mut generator = ids.generator();
        let first = generator.generate_cid();
        let second = generator.generate_cid();
        // The second bit is fixed, or greased (RFC 9287).
        for id in [first, second] {
            assert!(ids.are_of(&packet(0x4a, &id)) && ids.are_of(&packet(0x0a, &id)));
        }
        assert!(!ids.are_of(&packet(0xca, &first)), "a handshake");
        assert!(!ids.are_of(&packet(0x40, &[0x5a; ID_BYTES])));
        for length in 0..=ID_BYTES {
            assert!(!ids.are_of(&packet(0x40, &first)[..length]), "{length}");
        }
        let strangers = Arc::<Ids>::default();
        assert!(!strangers.are_of(&packet(0x40, &first)));
    }

    #[test]
    fn what_is_known_is_bounded_and_the_newest_stay() {
        let ids = Arc::<Ids>::default();
        let mut generator = ids.generator();
        let all: Vec<_> = (0..MOST + 1).map(|_| generator.generate_cid()).collect();
        assert_eq!(ids.lock().len(), MOST);
        assert!(!ids.are_of(&packet(0x40, &all[0])));
        assert!(all[1..].iter().all(|id| ids.are_of(&packet(0x40, id))));
    }
}

//! Recomputing a stream's hash chain from its stored bytes, so that a server which says "all is well" need not be
//! believed.
//!
//! Invariants: the hash of an event is SHA-256(hash before || payload), before the first are 32 zero bytes; numbers go
//! from 1 without a gap; the number and stream inside the bytes are those under which they are stored. A chain that was
//! rewritten from some event to its end is only found by a hash that was noted elsewhere.

use aws_lc_rs::digest;
use muster_proto::command::v1::{MeetingEvent, ReadLogResponse, UnitEvent};
use prost::Message as _;

/// The log's two kinds of event.
#[derive(Debug, PartialEq)]
pub enum Stored {
    Meeting(Box<MeetingEvent>),
    Unit(Box<UnitEvent>),
}

impl Stored {
    /// Reads the stored bytes of an event of this stream.
    pub fn read(stream: &str, payload: &[u8]) -> Result<Self, String> {
        if stream.starts_with("unit:") {
            let event = UnitEvent::decode(payload).map_err(|error| error.to_string())?;
            Ok(Self::Unit(Box::new(event)))
        } else {
            let event = MeetingEvent::decode(payload).map_err(|error| error.to_string())?;
            Ok(Self::Meeting(Box::new(event)))
        }
    }

    fn place(&self) -> (String, u64) {
        match self {
            Self::Meeting(event) => (event.meeting.clone(), event.seq),
            Self::Unit(event) => (format!("unit:{}", event.unit), event.seq),
        }
    }
}

/// A chain as far as it was read.
pub struct Chain {
    stream: String,
    /// The last number that fits, and its hash.
    pub seq: u64,
    pub head: [u8; 32],
    /// The first event that does not, and what is wrong with it.
    pub broken: Option<(u64, String)>,
}

impl Chain {
    pub fn new(stream: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            seq: 0,
            head: [0; 32],
            broken: None,
        }
    }

    /// Takes the next event; after the first that does not fit nothing is looked at.
    pub fn take(&mut self, event: &ReadLogResponse) {
        if self.broken.is_some() {
            return;
        }
        let expected = self.seq + 1;
        let hash = next(&self.head, &event.payload);
        if event.seq != expected {
            let found = format!("event {expected} is missing: the next one is {}", event.seq);
            self.broken = Some((expected, found));
        } else if event.hash != hash {
            let found = "its bytes, or its hash, or those of the event before were altered".to_owned();
            self.broken = Some((expected, found));
        } else if let Err(found) = self.check_inside(event) {
            self.broken = Some((expected, found));
        } else {
            (self.seq, self.head) = (expected, hash);
        }
    }

    fn check_inside(&self, event: &ReadLogResponse) -> Result<(), String> {
        let stored =
            Stored::read(&self.stream, &event.payload).map_err(|error| format!("no event: {error}"))?;
        let (stream, seq) = stored.place();
        if (stream.as_str(), seq) != (self.stream.as_str(), event.seq) {
            return Err(format!("says of itself that it is event {seq} of {stream}"));
        }
        Ok(())
    }
}

fn next(before: &[u8; 32], payload: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(before);
    context.update(payload);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: u64) -> Vec<ReadLogResponse> {
        let mut head = [0; 32];
        let event = |seq| {
            let event = MeetingEvent {
                meeting: "m".to_owned(),
                seq,
                actor: "wang".to_owned(),
                ..MeetingEvent::default()
            };
            let payload = event.encode_to_vec();
            head = next(&head, &payload);
            ReadLogResponse {
                seq,
                payload,
                hash: head.to_vec(),
            }
        };
        (1..=count).map(event).collect()
    }

    fn verify(events: &[ReadLogResponse]) -> Chain {
        let mut chain = Chain::new("m");
        events.iter().for_each(|event| chain.take(event));
        chain
    }

    #[test]
    fn a_whole_chain_ends_with_its_last_hash() {
        let events = events(3);
        let chain = verify(&events);
        assert_eq!((chain.seq, chain.broken), (3, None));
        assert_eq!(chain.head.as_slice(), &events[2].hash[..]);
    }

    #[test]
    fn an_altered_event_is_named_whatever_was_altered() {
        let mut other = events(4);
        *other[1].payload.last_mut().expect("bytes") ^= 1;
        assert_eq!(verify(&other).broken.expect("broken").0, 2);

        let mut other = events(4);
        other.remove(2);
        let (seq, found) = verify(&other).broken.expect("broken");
        assert!(seq == 3 && found.contains("missing"), "{found}");

        let mut other = events(4);
        other.swap(0, 1);
        assert_eq!(verify(&other).broken.expect("broken").0, 1);
    }

    #[test]
    fn an_event_of_another_stream_is_found_though_its_hash_fits() {
        let mut chain = Chain::new("other");
        events(1).iter().for_each(|event| chain.take(event));
        let (seq, found) = chain.broken.expect("broken");
        assert!(seq == 1 && found.contains("of m"), "{found}");
    }
}

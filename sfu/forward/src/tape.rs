//! A layer's packets since its last key frame, as far as a newcomer must know them: who begins to watch is shown the
//! picture at once, and the publisher is not asked for another key frame.
//!
//! The payloads are the shell's; what is kept is where it has them. Invariant: at most [`MOST`] packets, in the order of
//! their numbers; played only if none is missing and the key frame is no older than [`OLDEST_US`]. The frames are played as fast as
//! they can be sent: their timestamps are drawn together towards the newest, so that the viewer is not behind afterwards.

use std::collections::VecDeque;

use crate::frame::Picture;
use crate::lane::{Incoming, Tag};
use crate::meeting::Meeting;
use crate::sequence::Accepted;
use crate::slot::Feed;
use crate::source::SlotKey;
use crate::types::{Micros, Packet, Replayed, Stored};

const MOST: usize = 300;
const OLDEST_US: u64 = 1_000_000;
/// Copies of one call, over all slots; slots beyond wait for a key frame.
const MOST_COPIES: usize = 8192;
/// Frames are this much closer in time than they were.
const FASTER: u32 = 8;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub number: i64,
    pub timestamp: u32,
    pub marker: bool,
    /// A viewer can begin with it.
    pub entry: bool,
    pub picture: Picture,
    pub stored: Stored,
}

#[derive(Debug, Default)]
pub(crate) struct Tape {
    began: Micros,
    kept: VecDeque<Kept>,
}

impl Tape {
    pub fn keep(&mut self, now: Micros, packet: Kept) {
        let first = self.kept.front();
        if packet.entry && first.is_none_or(|first| first.timestamp != packet.timestamp) {
            self.kept.clear();
            self.began = now;
        } else if first.is_none_or(|first| packet.number < first.number) {
            return;
        }
        if self.kept.len() == MOST {
            return self.kept.clear();
        }
        let at = self.kept.partition_point(|kept| kept.number < packet.number);
        self.kept.insert(at, packet);
    }

    fn is_whole(&self, now: Micros) -> bool {
        let (Some(first), Some(last)) = (self.kept.front(), self.kept.back()) else {
            return false;
        };
        now.since(self.began) <= OLDEST_US && last.number - first.number == self.kept.len() as i64 - 1
    }
}

impl Meeting {
    /// Plays the tape of a layer to a slot that waits for it and shows nothing of its source. False if it cannot.
    pub(crate) fn replay(&mut self, now: Micros, key: SlotKey, feed: Feed) -> bool {
        let (Some(lane), Some(source)) = (self.lanes.get_mut(key), self.sources.get(feed.source)) else {
            return false;
        };
        let Some(layer) = source.layers.get(feed.layer) else {
            return false;
        };
        let shown = lane
            .current()
            .is_some_and(|current| current.source == feed.source);
        let room = self.replays.len() + layer.tape.kept.len() <= MOST_COPIES;
        let newest = layer.tape.kept.back().map(|last| last.timestamp);
        let Some(newest) = newest.filter(|_| !shown && room && layer.tape.is_whole(now)) else {
            return false;
        };
        for kept in &layer.tape.kept {
            let packet = Packet {
                seq: kept.number as u16,
                timestamp: newest.wrapping_sub(newest.wrapping_sub(kept.timestamp) / FASTER),
                marker: kept.marker,
                payload: &[],
                descriptor: &[],
                audio_level: None,
            };
            let incoming = Incoming {
                now,
                tag: Tag::of(feed),
                codec: source.codec,
                packet: &packet,
                accepted: Accepted {
                    number: kept.number,
                    newest: true,
                },
                run_start: layer.sequence.run_start(),
                entry: kept.entry,
                picture: kept.picture,
            };
            lane.take(&incoming, &mut self.copies);
            self.replays.extend(self.copies.drain(..).map(|copy| Replayed {
                copy,
                stored: kept.stored,
                starts_key_frame: kept.entry,
            }));
        }
        !lane.is_switching()
    }

    /// Copies of packets that were handled before, for slots that begin to show a layer: to be sent before what
    /// [`Meeting::handle_stored`] gives from now on. Takes them out, into `out`, which is emptied first.
    pub fn take_replays(&mut self, out: &mut Vec<Replayed>) {
        out.clear();
        std::mem::swap(&mut self.replays, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: i64, entry: bool) -> Kept {
        Kept {
            number,
            timestamp: number as u32 / 2,
            marker: false,
            entry,
            picture: Picture::PLAIN,
            stored: Stored(0, 0, 0),
        }
    }

    fn numbers(tape: &Tape) -> Vec<i64> {
        tape.kept.iter().map(|kept| kept.number).collect()
    }

    #[test]
    fn it_begins_at_the_last_key_frame_and_has_all_since_in_order() {
        let mut tape = Tape::default();
        let t = Micros(0);
        tape.keep(t, packet(3, false));
        assert!(!tape.is_whole(t), "no key frame yet");
        for number in [4, 5, 7] {
            tape.keep(t, packet(number, number == 4));
        }
        assert!(!tape.is_whole(t), "one is missing");
        tape.keep(t, packet(6, false));
        tape.keep(t, packet(2, false));
        assert_eq!(numbers(&tape), [4, 5, 6, 7]);
        assert!(tape.is_whole(t));
        assert!(!tape.is_whole(Micros(OLDEST_US + 1)));
        tape.keep(t, packet(8, true));
        tape.keep(t, packet(9, true));
        assert_eq!(numbers(&tape), [8, 9], "two packets of one key frame");
    }

    #[test]
    fn it_is_bounded() {
        let mut tape = Tape::default();
        tape.keep(Micros(0), packet(0, true));
        for number in 1..10_000 {
            tape.keep(Micros(0), packet(number, false));
            assert!(tape.kept.len() <= MOST);
        }
        assert!(!tape.is_whole(Micros(0)));
    }
}

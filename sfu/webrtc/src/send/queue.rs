//! What a leg is still to send: sound first, then what was asked for again, then pictures.
//!
//! Invariant: each of the three has a bound. Where pictures find it full, all that waits for the slot which has waited
//! longest is dropped, and nothing more is taken for that slot until a key frame begins: a decoder has no use for the rest.

use std::collections::VecDeque;
use std::time::Instant;

use crate::media::QueuedRtp;

/// Sound that waits: more than a second of one voice.
const MAX_AUDIO: usize = 64;
/// Packets asked for again that wait.
const MAX_AGAIN: usize = 256;
/// Pictures that wait: a second of 5 Mbit/s.
const MAX_VIDEO: usize = 512;

/// Packets of a slot that wait in ordinary times.
const BACKLOG: usize = 8;

/// What a packet takes beyond its payload, and what a repeated one takes, in bytes: about.
const HEADERS: usize = 40;
const REPEATED: usize = 1200;

/// A packet for a slot.
#[derive(Clone, Copy)]
pub(super) struct Queued {
    pub slot: u16,
    pub rtp: QueuedRtp,
    pub at: Instant,
}

/// What is to be sent next.
pub(super) enum Next {
    New(Queued),
    /// Slot and sequence number of a packet that was sent before.
    Again(u16, u16),
}

#[derive(Default)]
pub(super) struct Queue {
    audio: VecDeque<Queued>,
    again: VecDeque<(u16, u16)>,
    video: VecDeque<Queued>,
    /// Payload bytes in `video`.
    bytes: usize,
    /// Packets of all three that were dropped since the start.
    dropped: u64,
}

impl Queue {
    pub(super) fn push_audio(&mut self, packet: Queued) {
        if self.audio.len() >= MAX_AUDIO {
            self.audio.pop_front();
            self.dropped += 1;
        }
        self.audio.push_back(packet);
    }

    /// The slot whose packets had to go, this one's not among them unless it is of that slot.
    pub(super) fn push_video(&mut self, packet: Queued) -> Option<u16> {
        if packet.rtp.starts_key_frame {
            self.begin_again(packet.slot);
        }
        let full = self.video.len() >= MAX_VIDEO;
        let cut = self.video.front().filter(|_| full).map(|oldest| oldest.slot);
        if let Some(slot) = cut {
            let before = self.video.len();
            self.video.retain(|waiting| waiting.slot != slot);
            self.dropped += (before - self.video.len()) as u64;
            self.bytes = self.video.iter().map(|waiting| waiting.rtp.place.len()).sum();
        }
        if cut == Some(packet.slot) && !packet.rtp.starts_key_frame {
            self.dropped += 1;
        } else {
            self.bytes += packet.rtp.place.len();
            self.video.push_back(packet);
        }
        cut
    }

    /// What is before a key frame is of no use once there is one: what was asked for again, and what waits if that is much,
    /// since then the path has just become thin. What waits in ordinary times is the end of the picture before.
    fn begin_again(&mut self, slot: u16) {
        let before = self.len();
        self.again.retain(|(of, _)| *of != slot);
        if self.video.iter().filter(|waiting| waiting.slot == slot).count() > BACKLOG {
            self.video.retain(|waiting| waiting.slot != slot);
            self.bytes = self.video.iter().map(|waiting| waiting.rtp.place.len()).sum();
        }
        self.dropped += (before - self.len()) as u64;
    }

    pub(super) fn push_again(&mut self, slot: u16, seq: u16) {
        if self.again.len() < MAX_AGAIN {
            self.again.push_back((slot, seq));
        } else {
            self.dropped += 1;
        }
    }

    /// The next to send; sound only unless `paced` packets may leave too.
    pub(super) fn pop(&mut self, paced: bool) -> Option<Next> {
        if let Some(packet) = self.audio.pop_front() {
            return Some(Next::New(packet));
        }
        if !paced {
            return None;
        }
        if let Some((slot, seq)) = self.again.pop_front() {
            return Some(Next::Again(slot, seq));
        }
        let packet = self.video.pop_front()?;
        self.bytes -= packet.rtp.place.len();
        Some(Next::New(packet))
    }

    pub(super) fn has_no_audio(&self) -> bool {
        self.audio.is_empty()
    }

    /// About how many bytes wait for the pacer.
    pub(super) fn paced_bytes(&self) -> usize {
        self.bytes + self.video.len() * HEADERS + self.again.len() * REPEATED
    }

    pub(super) fn len(&self) -> usize {
        self.audio.len() + self.again.len() + self.video.len()
    }

    pub(super) fn drop_one(&mut self) {
        self.dropped += 1;
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Place;
    use crate::{Codec, PicturePatch};

    fn packet(slot: u16, seq: u16, starts_key_frame: bool) -> Queued {
        let rtp = QueuedRtp {
            place: Place::from_numbers((0, 0)),
            codec: Codec::Vp8,
            descriptor: 0,
            redundancy: 0,
            age_us: 0,
            seq,
            timestamp: 0,
            marker: false,
            audio_level: None,
            patch: None::<PicturePatch>,
            starts_key_frame,
        };
        Queued {
            slot,
            rtp,
            at: crate::test_support::instant(),
        }
    }

    fn drain(queue: &mut Queue) -> Vec<(u16, u16)> {
        let name = |next| match next {
            Next::New(q) => (q.slot, q.rtp.seq),
            Next::Again(slot, seq) => (slot, seq),
        };
        std::iter::from_fn(|| queue.pop(true).map(name)).collect()
    }

    #[test]
    fn sound_passes_and_repairs_go_before_new_pictures() {
        let mut queue = Queue::default();
        queue.push_video(packet(1, 10, false));
        queue.push_again(1, 5);
        queue.push_audio(packet(0, 20, false));
        queue.push_video(packet(1, 11, false));
        assert!(queue.paced_bytes() > REPEATED);
        assert!(queue.pop(false).is_some(), "sound asks no pacer");
        assert!(queue.pop(false).is_none());
        queue.push_audio(packet(0, 21, false));
        assert_eq!(drain(&mut queue), [(0, 21), (1, 5), (1, 10), (1, 11)]);
        assert_eq!(queue.paced_bytes(), 0);
    }

    #[test]
    fn a_key_frame_passes_what_it_makes_useless() {
        let mut queue = Queue::default();
        queue.push_video(packet(1, 10, false));
        queue.push_video(packet(2, 10, false));
        queue.push_again(1, 5);
        queue.push_again(2, 5);
        queue.push_video(packet(1, 11, true));
        assert_eq!(queue.dropped(), 1);
        assert_eq!(
            drain(&mut queue),
            [(2, 5), (1, 10), (2, 10), (1, 11)],
            "a short wait is none"
        );
        for seq in 0..20 {
            queue.push_video(packet(1, seq, false));
            queue.push_video(packet(2, seq, false));
        }
        queue.push_video(packet(1, 20, true));
        assert_eq!((queue.len(), queue.dropped()), (21, 21));
        assert_eq!(drain(&mut queue).last(), Some(&(1, 20)));
        assert_eq!(queue.paced_bytes(), 0);
    }

    #[test]
    fn a_full_queue_drops_all_of_the_slot_that_waited_longest() {
        let mut queue = Queue::default();
        for seq in 0..MAX_VIDEO as u16 {
            assert_eq!(queue.push_video(packet(seq % 2, seq, false)), None);
        }
        assert_eq!(queue.push_video(packet(1, 1000, false)), Some(0));
        assert_eq!(
            (queue.len(), queue.dropped()),
            (MAX_VIDEO / 2 + 1, MAX_VIDEO as u64 / 2)
        );
        assert!(drain(&mut queue).iter().all(|(slot, _)| *slot == 1));

        for seq in 0..MAX_VIDEO as u16 {
            queue.push_video(packet(3, seq, false));
        }
        assert_eq!(queue.push_video(packet(3, 1000, false)), Some(3));
        assert_eq!(queue.len(), 0, "the rest of a picture is of no use");
        for seq in 0..MAX_VIDEO as u16 {
            queue.push_video(packet(3, seq, false));
        }
        assert_eq!(
            queue.push_video(packet(3, 1000, true)),
            None,
            "it made its room itself"
        );
        assert_eq!(drain(&mut queue), [(3, 1000)]);
    }

    #[test]
    fn sound_and_repairs_are_bounded() {
        let mut queue = Queue::default();
        for seq in 0..1000 {
            queue.push_audio(packet(0, seq, false));
            queue.push_again(1, seq);
        }
        let left = drain(&mut queue);
        assert_eq!(left.len(), MAX_AUDIO + MAX_AGAIN);
        assert_eq!(left[0], (0, 1000 - MAX_AUDIO as u16), "the oldest sound went");
        assert_eq!(queue.dropped(), 2000 - (MAX_AUDIO + MAX_AGAIN) as u64);
    }
}

//! One RTP stream with numbers that go on, although who sends it begins anew: a reloaded page, a new leg at the relay.
//!
//! A *segment* is what one sender sends. Inside it numbers are only shifted, so gaps stay gaps and a late packet keeps its
//! place. A segment of pictures begins with a key frame: there sequence number, picture id and TL0PICIDX go on by one, the
//! timestamp by the time that has passed. Pure: the time comes in. It finds no lost packets and repairs none.

use std::time::{Duration, Instant};

use muster_link::rtp::{LinkRtp, PT_OPUS, PT_VP8};

use crate::valve::starts_key_frame;

/// Longest step of the timestamp over a pause, well within half of its range.
const LONGEST_STEP: Duration = Duration::from_secs(3600);
/// The least: a picture at 30 a second, a frame of sound.
const VIDEO_STEP: Duration = Duration::from_millis(33);
const SOUND_STEP: Duration = Duration::from_millis(20);

/// Where an outgoing stream stands.
#[derive(Debug)]
pub struct Splice {
    seq: u16,
    timestamp: u32,
    at: Option<Instant>,
    picture: u16,
    tl0: u8,
    segment: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    /// Whose it is.
    of: u64,
    newest: u16,
    /// How far the newest is from the first.
    length: i64,
    seq_shift: u16,
    timestamp_shift: u32,
    picture_shift: Option<u16>,
    tl0_shift: Option<u8>,
}

impl Splice {
    /// That begins with these numbers.
    pub fn new(seq: u16, timestamp: u32) -> Self {
        Self {
            // The lower half leaves a receiver no doubt about the rollover counter (RFC 3711, 3.3.1).
            seq: seq & 0x7fff,
            timestamp,
            at: None,
            picture: seq & 0x7fff,
            tl0: seq as u8,
            segment: None,
        }
    }

    /// The next packet does not follow the last one.
    pub fn interrupt(&mut self) {
        self.segment = None;
    }

    /// Whether nothing can be sent of a picture before a key frame begins.
    pub fn waits(&self, of: u64) -> bool {
        self.segment.as_ref().is_none_or(|segment| segment.of != of)
    }

    /// Sequence number and timestamp that a packet of this sender gets; what describes its picture is written into `payload`,
    /// which is that of `rtp`. `None`: it is of before the segment, or a segment cannot begin with it.
    pub fn map(
        &mut self,
        now: Instant,
        of: u64,
        rtp: &LinkRtp<'_>,
        payload: &mut [u8],
    ) -> Option<(u16, u32)> {
        if self.waits(of) {
            self.begin(now, of, rtp)?;
        }
        let segment = self.segment.as_mut()?;
        let step = rtp.seq.wrapping_sub(segment.newest) as i16;
        if segment.length + i64::from(step) < 0 {
            return None;
        }
        let seq = rtp.seq.wrapping_add(segment.seq_shift);
        let timestamp = rtp.timestamp.wrapping_add(segment.timestamp_shift);
        let newest = step > 0 || segment.length == 0;
        if newest {
            segment.newest = rtp.seq;
            segment.length += i64::from(step);
            self.seq = seq;
            if timestamp.wrapping_sub(self.timestamp) as i32 >= 0 {
                (self.timestamp, self.at) = (timestamp, Some(now));
            }
        }
        if rtp.payload_type == PT_VP8 {
            self.renumber(newest, payload);
        }
        Some((seq, timestamp))
    }

    fn begin(&mut self, now: Instant, of: u64, rtp: &LinkRtp<'_>) -> Option<()> {
        let (rate, least) = match rtp.payload_type {
            PT_OPUS => (48_000, SOUND_STEP),
            _ if starts_key_frame(rtp.payload_type, rtp.payload) => (90_000, VIDEO_STEP),
            _ => return None,
        };
        let first = self.at.map_or(self.timestamp, |at| {
            let passed = now.saturating_duration_since(at).clamp(least, LONGEST_STEP);
            self.timestamp
                .wrapping_add((passed.as_micros() as u64 * rate / 1_000_000) as u32)
        });
        self.segment = Some(Segment {
            of,
            newest: rtp.seq,
            length: 0,
            seq_shift: self.seq.wrapping_add(1).wrapping_sub(rtp.seq),
            timestamp_shift: first.wrapping_sub(rtp.timestamp),
            picture_shift: None,
            tl0_shift: None,
        });
        Some(())
    }

    /// Writes the picture's numbers into the payload descriptor (RFC 7741, 4.2).
    fn renumber(&mut self, newest: bool, payload: &mut [u8]) {
        let Some(segment) = &mut self.segment else { return };
        let Some(described) = Described::read(payload) else {
            return;
        };
        if let Some(at) = described.picture
            && let Some([high, low]) = payload.get_mut(at..at + 2)
        {
            let told = u16::from_be_bytes([*high & 0x7f, *low]);
            let next = self.picture.wrapping_add(1);
            let shift = *segment
                .picture_shift
                .get_or_insert_with(|| next.wrapping_sub(told));
            let picture = told.wrapping_add(shift) & 0x7fff;
            [*high, *low] = (picture | 0x8000).to_be_bytes();
            if newest {
                self.picture = picture;
            }
        }
        if let Some(byte) = described.tl0.and_then(|at| payload.get_mut(at)) {
            let next = self.tl0.wrapping_add(1);
            let shift = *segment.tl0_shift.get_or_insert_with(|| next.wrapping_sub(*byte));
            *byte = byte.wrapping_add(shift);
            if newest {
                self.tl0 = *byte;
            }
        }
    }
}

/// Where the numbers of a picture stand in a VP8 payload.
struct Described {
    /// A picture id of 15 bits.
    picture: Option<usize>,
    tl0: Option<usize>,
}

impl Described {
    fn read(payload: &[u8]) -> Option<Self> {
        let none = Self {
            picture: None,
            tl0: None,
        };
        if payload.first()? & 0x80 == 0 {
            return Some(none);
        }
        let flags = *payload.get(1)?;
        let mut at = 2;
        let mut picture = None;
        if flags & 0x80 != 0 {
            let wide = payload.get(at)? & 0x80 != 0;
            picture = wide.then_some(at);
            at += 1 + usize::from(wide);
        }
        let tl0 = (flags & 0x40 != 0).then_some(at);
        Some(Self { picture, tl0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A packet of VP8 with picture id and TL0PICIDX: S, X; I, L, T.
    fn picture(id: u16, tl0: u8, key: bool) -> Vec<u8> {
        let [high, low] = (id | 0x8000).to_be_bytes();
        let head = if key { 0x10 } else { 0x11 };
        vec![
            0x90, 0xe0, high, low, tl0, 0, head, 2, 0, 0x9d, 1, 0x2a, 64, 0, 64, 0,
        ]
    }

    fn send(
        splice: &mut Splice,
        now: Instant,
        of: u64,
        (seq, timestamp): (u16, u32),
        payload: &[u8],
    ) -> Option<(u16, u32, u16, u8)> {
        let mut written = payload.to_vec();
        let rtp = LinkRtp {
            payload_type: PT_VP8,
            marker: true,
            seq,
            timestamp,
            audio_level: None,
            payload,
        };
        let (seq, timestamp) = splice.map(now, of, &rtp, &mut written)?;
        assert_eq!(written[5..], payload[5..], "no more is written than the numbers");
        let id = u16::from_be_bytes([written[2] & 0x7f, written[3]]);
        Some((seq, timestamp, id, written[4]))
    }

    #[test]
    fn another_sender_goes_on_where_the_last_one_stopped() {
        let (mut splice, now) = (Splice::new(99, 1000), Instant::now());
        assert_eq!(send(&mut splice, now, 1, (7, 0), &picture(5, 5, false)), None);
        let first = send(&mut splice, now, 1, (65_535, 0), &picture(0x7fff, 255, true));
        assert_eq!(first, Some((100, 1000, 100, 100)));
        let second = send(&mut splice, now, 1, (1, 3000), &picture(1, 1, false));
        assert_eq!(second, Some((102, 4000, 102, 102)), "a gap stays a gap");
        let late = send(&mut splice, now, 1, (0, 3000), &picture(0, 0, false));
        assert_eq!(late, Some((101, 4000, 101, 101)));
        // The page is opened again: other numbers, and no picture before its key frame.
        let later = now + SECOND;
        assert!(splice.waits(2) && !splice.waits(1));
        assert_eq!(
            send(&mut splice, later, 2, (500, 77), &picture(9, 9, false)),
            None
        );
        let again = send(&mut splice, later, 2, (501, 80), &picture(10, 200, true));
        assert_eq!(again, Some((103, 4000 + 90_000, 103, 103)));
        // What is of before the segment has no place.
        assert_eq!(
            send(&mut splice, later, 2, (499, 70), &picture(8, 199, false)),
            None
        );
    }

    #[test]
    fn a_long_segment_does_not_forget_where_it_began() {
        let (mut splice, now) = (Splice::new(0, 0), Instant::now());
        send(&mut splice, now, 1, (0, 0), &picture(0, 0, true)).expect("begun");
        for seq in 1..=40_000_u32 {
            let sent = send(
                &mut splice,
                now,
                1,
                (seq as u16, seq * 3000),
                &picture(1, 1, false),
            );
            assert_eq!(sent.map(|sent| sent.0), Some(1 + seq as u16));
        }
        assert!(send(&mut splice, now, 1, (39_990, 0), &picture(1, 1, false)).is_some());
    }

    #[test]
    fn sound_begins_anywhere() {
        let (mut splice, now) = (Splice::new(0, 0), Instant::now());
        let mut rtp = LinkRtp {
            payload_type: PT_OPUS,
            marker: false,
            seq: 9,
            timestamp: 960,
            audio_level: None,
            payload: &[1, 2],
        };
        assert_eq!(splice.map(now, 1, &rtp, &mut [1, 2]), Some((1, 0)));
        splice.interrupt();
        (rtp.seq, rtp.timestamp) = (30, 9600);
        assert_eq!(splice.map(now + SECOND, 1, &rtp, &mut [1, 2]), Some((2, 48_000)));
    }

    #[test]
    fn cut_off_descriptors_are_left_alone() {
        let whole = picture(1, 1, true);
        for length in 0..whole.len() {
            let mut payload = whole[..length].to_vec();
            let mut splice = Splice::new(0, 0);
            let rtp = LinkRtp {
                payload_type: PT_VP8,
                marker: false,
                seq: 0,
                timestamp: 0,
                audio_level: None,
                payload: &whole[..length],
            };
            splice.map(Instant::now(), 1, &rtp, &mut payload);
            assert_eq!(payload.len(), length);
        }
    }
}

//! What is sent: pictures like those of a 1080p camera whose encoder follows the link, and Opus. Sans I/O.
//!
//! 30 frames a second where the rate allows, 10 and 2 below; a key frame is three times as long as another and comes first,
//! after an outage, and when it is asked for. Each packet's payload begins with its frame's number, how many packets the frame
//! has, and whether it is a key frame. What the bytes cost is real, what they show is not.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use muster_link::rtp::{LinkRtp, PT_OPUS, PT_VP8};

pub const VIDEO_FLOW: u64 = 1;
pub const AUDIO_FLOW: u64 = 8;
/// RTP payload of a packet of a picture, at most.
const PAYLOAD: usize = 1100;
/// Opus at 32 kbit/s.
const OPUS_PAYLOAD: usize = 80;
const OPUS_PERIOD: Duration = Duration::from_millis(20);
/// Bits a second that are left to sound.
const OPUS_BPS: u64 = 40_000;
/// Bytes before the payload's filling.
const LABEL: usize = 8;

/// One frame, of pictures or of sound, as the source knows it.
#[derive(Debug, Clone)]
pub struct Made {
    pub number: u32,
    pub video: bool,
    pub key: bool,
    pub packets: u16,
    pub captured: Instant,
    /// Until the next of its kind.
    pub period: Duration,
    /// RTP packets, each behind its flow's id (one byte).
    pub datagrams: Vec<Bytes>,
}

/// The label of a packet: the frame's number, its packets, and whether it is a key frame.
pub fn label(payload: &[u8]) -> Option<(u32, u16, bool)> {
    let label = payload.first_chunk::<LABEL>()?;
    let number = u32::from_be_bytes([label[0], label[1], label[2], label[3]]);
    Some((number, u16::from_be_bytes([label[4], label[5]]), label[6] == 1))
}

/// A camera and a microphone.
#[derive(Debug)]
pub struct Source {
    most_bps: u64,
    number: u32,
    key: bool,
    next_picture: Instant,
    next_sound: Instant,
    picture_seq: u16,
    sound_seq: u16,
    began: Instant,
    end: Instant,
}

impl Source {
    /// Of at most `most_bps`, for so long.
    pub fn new(now: Instant, most_bps: u64, length: Duration) -> Self {
        Self {
            most_bps,
            number: 0,
            key: true,
            next_picture: now,
            next_sound: now,
            picture_seq: 0,
            sound_seq: 0,
            began: now,
            end: now + length,
        }
    }

    /// The next picture is a key frame.
    pub fn want_key(&mut self) {
        self.key = true;
    }

    /// When the next frame is due; `None` after the end.
    pub fn next(&self) -> Option<Instant> {
        Some(self.next_picture.min(self.next_sound)).filter(|&next| next < self.end)
    }

    /// The frame that is due now; `rate_bps` is what the link says that a source should make, sound included.
    pub fn make(&mut self, now: Instant, rate_bps: u64) -> Option<Made> {
        if self.next_sound <= now && self.next_sound < self.end {
            let captured = self.next_sound;
            self.next_sound += OPUS_PERIOD;
            return Some(self.frame(captured, false, false, OPUS_PAYLOAD, OPUS_PERIOD));
        }
        if self.next_picture > now || self.next_picture >= self.end {
            return None;
        }
        let rate = rate_bps.min(self.most_bps).saturating_sub(OPUS_BPS);
        let fps = match rate {
            300_000.. => 30,
            100_000.. => 10,
            20_000.. => 2,
            _ => 0,
        };
        if fps == 0 {
            // Nothing to be seen now; what comes next begins anew.
            self.next_picture = now + Duration::from_millis(33);
            self.key = true;
            return None;
        }
        let captured = self.next_picture;
        let period = Duration::from_secs(1) / fps;
        self.next_picture = if captured + period > now {
            captured + period
        } else {
            now
        };
        let bytes = (rate / u64::from(fps) / 8) as usize;
        let key = std::mem::take(&mut self.key);
        Some(self.frame(captured, true, key, if key { bytes * 3 } else { bytes }, period))
    }

    fn frame(&mut self, captured: Instant, video: bool, key: bool, bytes: usize, period: Duration) -> Made {
        let number = self.number;
        self.number += 1;
        let packets = bytes.div_ceil(PAYLOAD).max(1);
        let size = bytes.div_ceil(packets).max(LABEL);
        let ticks = captured.saturating_duration_since(self.began).as_micros() as u64;
        let (seq, timestamp) = if video {
            (&mut self.picture_seq, (ticks * 9 / 100) as u32)
        } else {
            (&mut self.sound_seq, (ticks * 48 / 1000) as u32)
        };
        let mut payload = BytesMut::with_capacity(size);
        payload.put_u32(number);
        payload.put_u16(packets as u16);
        payload.put_u8(key.into());
        payload.resize(size, 0xa5);
        let mut datagrams = Vec::with_capacity(packets);
        for packet in 1..=packets {
            let written = LinkRtp {
                payload_type: if video { PT_VP8 } else { PT_OPUS },
                marker: video && packet == packets,
                seq: *seq,
                timestamp,
                audio_level: (!video).then_some(30),
                payload: &payload,
            };
            *seq = seq.wrapping_add(1);
            let mut out = BytesMut::new();
            written.write(if video { VIDEO_FLOW } else { AUDIO_FLOW }, &mut out);
            datagrams.push(out.freeze());
        }
        Made {
            video,
            key,
            packets: packets as u16,
            captured,
            period,
            number,
            datagrams,
        }
    }
}

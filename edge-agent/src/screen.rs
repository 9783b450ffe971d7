//! What comes in: the stage's pictures, whose mark is read for the status, and packets of the audio slots, counted.
//!
//! A plain value that reads no clock. Its work is bounded whatever the stage carries: pictures over 640x360 are decoded
//! only if they are key frames, and at most ten a second are decoded at all; what is left out costs the rest of
//! the group of pictures, up to the next key frame. Damaged pictures are counted, never fatal.

use std::time::{Duration, Instant};

use muster_testcard::rtp::Depacketizer;
use muster_testcard::{Decoder, Mark, vp8};

/// Pictures decoded a second, at most.
const PICTURES_A_SECOND: u32 = 10;
/// Larger pictures are decoded only if they are key frames.
const INTER_PIXELS: u32 = 640 * 360;
/// A key frame is asked for at most this often.
const REQUEST_GAP: Duration = Duration::from_secs(1);

/// The stage's slot as the site's screen would show it.
#[derive(Debug, Default)]
pub struct Screen {
    depacketizer: Depacketizer,
    decoder: Option<Decoder>,
    /// Frames are left out until the next key frame.
    skipping: bool,
    large: bool,
    second: Option<(Instant, u32)>,
    last_request: Option<Instant>,
    mark: Option<Mark>,
    pictures: u64,
    damaged: u64,
}

impl Screen {
    /// Takes an RTP packet of the stage. `true`: a key frame is to be asked for.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        seq: u16,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
    ) -> bool {
        let needed_before = self.depacketizer.needs_key_frame();
        if let Some(frame) = self.depacketizer.push(seq, timestamp, marker, payload) {
            let key = vp8::key_frame_size(frame);
            if let Some((width, height)) = key {
                self.skipping = false;
                self.large = u32::from(width) * u32::from(height) > INTER_PIXELS;
            }
            let wanted = !self.skipping && (key.is_some() || !self.large);
            if !wanted || !room_in_second(&mut self.second, now) {
                self.skipping = true;
            } else if let Err(error) = show(&mut self.decoder, frame, &mut self.mark, &mut self.pictures) {
                tracing::debug!(%error, "a picture of the stage is damaged");
                self.damaged += 1;
                self.skipping = true;
                return self.may_request(now);
            }
        }
        needed_before && self.depacketizer.needs_key_frame() && self.may_request(now)
    }

    /// The mark of the last picture that carried one.
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Pictures decoded.
    pub fn pictures(&self) -> u64 {
        self.pictures
    }

    /// Something else is shown, or nothing: what was seen is no longer what is on the stage.
    pub fn clear(&mut self) {
        self.mark = None;
    }

    fn may_request(&mut self, now: Instant) -> bool {
        let may = self
            .last_request
            .is_none_or(|last| now.duration_since(last) >= REQUEST_GAP);
        if may {
            self.last_request = Some(now);
        }
        may
    }
}

/// Counts a picture; `false` if this second had enough.
fn room_in_second(second: &mut Option<(Instant, u32)>, now: Instant) -> bool {
    match second {
        Some((start, count)) if now.duration_since(*start) < Duration::from_secs(1) => {
            *count += 1;
            *count <= PICTURES_A_SECOND
        }
        _ => {
            *second = Some((now, 1));
            true
        }
    }
}

fn show(
    decoder: &mut Option<Decoder>,
    frame: &[u8],
    mark: &mut Option<Mark>,
    pictures: &mut u64,
) -> Result<(), muster_testcard::VpxError> {
    let decoder = match decoder {
        Some(decoder) => decoder,
        none => none.insert(Decoder::new()?),
    };
    if let Some(luma) = decoder.decode(frame)? {
        *pictures += 1;
        *mark = Mark::read(luma.data, luma.width, luma.height, luma.stride);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_testcard::rtp::Packetizer;
    use muster_testcard::{Card, Encoder, Names, PictureSize};

    use super::*;

    /// Sends `seconds` of a test card to a screen; `lose` names packets that get lost.
    fn watch(size: PictureSize, seconds: u32, key_every: u32, lose: impl Fn(u16) -> bool) -> (Screen, u32) {
        let mut card = Card::new(
            size,
            42,
            Names {
                chinese: "",
                english: "X",
            },
            0,
        );
        let mut encoder = Encoder::new(size).expect("an encoder");
        let mut packetizer = Packetizer::new(0);
        let (mut screen, start, mut seq, mut requests) = (Screen::default(), Instant::now(), 0, 0);
        let period = Duration::from_secs(1) / u32::from(size.fps);
        for index in 0..seconds * u32::from(size.fps) {
            let now = period * index;
            let ms = now.as_millis() as i64;
            let picture = card.draw(1_000_000 + ms);
            let frame = encoder
                .encode(picture, ms * 90, index % key_every == 0)
                .expect("encodes")
                .expect("a frame");
            packetizer.packetize(frame.data, |payload, marker| {
                if !lose(seq) {
                    let asked = screen.handle_packet(start + now, seq, (ms * 90) as u32, marker, payload);
                    requests += u32::from(asked);
                }
                seq += 1;
            });
        }
        (screen, requests)
    }

    #[test]
    fn every_picture_of_a_small_stage_is_seen() {
        let (screen, requests) = watch(PictureSize::P180_5, 3, 1000, |_| false);
        assert_eq!((screen.pictures(), requests), (15, 0));
        assert_eq!(
            screen.mark(),
            Some(Mark {
                site: 42,
                time_ms: 1_002_800
            })
        );
    }

    #[test]
    fn a_loss_asks_for_a_key_frame_now_and_then() {
        let (screen, requests) = watch(PictureSize::P180_5, 4, 1000, |seq| seq == 12);
        assert!((1..=4).contains(&requests), "{requests} requests");
        assert!(screen.pictures() < 10);
    }

    #[test]
    fn a_large_stage_costs_only_its_key_frames() {
        let (screen, _) = watch(PictureSize::P720_30, 2, 30, |_| false);
        assert_eq!(screen.pictures(), 2);
        assert!(screen.mark().is_some());
    }

    #[test]
    fn a_fast_stage_is_decoded_ten_times_a_second_at_most() {
        let (screen, requests) = watch(
            PictureSize {
                fps: 30,
                ..PictureSize::P180_5
            },
            3,
            15,
            |_| false,
        );
        assert!((10..=30).contains(&screen.pictures()), "{}", screen.pictures());
        assert_eq!(requests, 0);
    }
}

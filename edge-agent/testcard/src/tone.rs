//! The sound of a test card: a beep of 240 ms about every two seconds, at a pitch that depends on the site, and
//! silence between, as Opus at 48 kHz mono in frames of 60 ms.
//!
//! The loop (33 frames, 1.98 s) is encoded once, when the value is made, and played again and again: an encoder that
//! runs all the time costs 140 agents more than their pictures. Some silence goes before it, so that the encoder's
//! state at its start is about the one at its end. Silence is not sent (Opus DTX) but for a packet each 400 ms.

use opus::{Application, Bitrate, Channels};

/// RTP clock ticks (48 kHz) in a frame.
pub const FRAME_TICKS: u32 = 2880;
/// Milliseconds in a frame.
pub const FRAME_MS: u32 = 60;
/// RFC 6464: silence.
pub const SILENCE: u8 = 127;

const LOOP_FRAMES: usize = 33;
/// Frames of silence encoded before the loop.
const RUN_IN: usize = 4;
const BEEP_FRAMES: usize = 4;
const BITRATE_BPS: i32 = 16_000;
const AMPLITUDE: f32 = 0.1;
/// Opus marks "do not send me" by a packet of one or two bytes.
const DTX_BYTES: usize = 2;

/// One frame of 60 ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToneFrame {
    /// The Opus packet; empty where nothing is to be sent.
    pub payload: Vec<u8>,
    /// RFC 6464 level: the negative of dBov, 0 (loudest) to 127 (silence).
    pub level: u8,
    /// Part of the beep: not to be sent while the site is muted.
    pub sounds: bool,
    /// The first packet after silence, to be sent with the RTP marker.
    pub marker: bool,
}

/// The loop.
#[derive(Clone, Debug)]
pub struct Tone {
    frames: Vec<ToneFrame>,
}

impl Tone {
    /// Encodes the loop of a site.
    ///
    /// # Errors
    /// What libopus says, if it refuses.
    pub fn new(site: u16) -> Result<Self, opus::Error> {
        let mut encoder = opus::Encoder::new(48_000, Channels::Mono, Application::Voip)?;
        encoder.set_bitrate(Bitrate::Bits(BITRATE_BPS))?;
        encoder.set_dtx(true)?;
        encoder.set_complexity(0)?;
        // Two octaves from 330 Hz, in quarter tones.
        let pitch = 330.0 * 2_f32.powf(f32::from(site % 48) / 24.0);
        let mut frames = Vec::with_capacity(LOOP_FRAMES);
        let mut packet = [0; 400];
        let mut run_in = RUN_IN;
        for index in (LOOP_FRAMES - RUN_IN..LOOP_FRAMES).chain(0..LOOP_FRAMES) {
            let sounds = index < BEEP_FRAMES;
            let samples = frame_samples(index, pitch);
            let length = encoder.encode(&samples, &mut packet)?;
            if run_in > 0 {
                run_in -= 1;
                continue;
            }
            let payload = if length > DTX_BYTES {
                packet[..length].to_vec()
            } else {
                Vec::new()
            };
            frames.push(ToneFrame {
                payload,
                level: level(&samples),
                sounds,
                marker: index == 0,
            });
        }
        Ok(Self { frames })
    }

    /// The frame of a running count, which may start anywhere.
    pub fn frame(&self, count: u64) -> &ToneFrame {
        &self.frames[(count % LOOP_FRAMES as u64) as usize]
    }
}

fn frame_samples(index: usize, pitch: f32) -> Vec<i16> {
    let ticks = FRAME_TICKS as usize;
    if index >= BEEP_FRAMES {
        return vec![0; ticks];
    }
    let length = (BEEP_FRAMES * ticks) as f32;
    (index * ticks..(index + 1) * ticks)
        .map(|tick| {
            let tick = tick as f32;
            // 10 ms up and down, so that it does not click.
            let envelope = (tick.min(length - tick) / 480.0).min(1.0);
            let wave = (tick / 48_000.0 * pitch * std::f32::consts::TAU).sin();
            (wave * envelope * AMPLITUDE * 32_767.0) as i16
        })
        .collect()
}

/// The RFC 6464 level of a frame: root mean square against full scale.
pub fn level(samples: &[i16]) -> u8 {
    let sum: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    let rms = (sum / samples.len().max(1) as f64).sqrt() / 32_768.0;
    if rms <= 0.0 {
        SILENCE
    } else {
        (-20.0 * rms.log10()).round().clamp(0.0, 127.0) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_decibels_below_full_scale() {
        assert_eq!(level(&[0; 480]), SILENCE);
        assert_eq!(level(&[i16::MIN; 480]), 0);
        assert_eq!(level(&[3277; 480]), 20);
        assert_eq!(level(&[]), SILENCE);
    }

    #[test]
    fn the_beep_is_loud_and_silence_is_seldom_sent() {
        let tone = Tone::new(3).expect("libopus encodes");
        assert!((15..30).contains(&tone.frame(1).level));
        assert_eq!(tone.frame(20).level, SILENCE);
        let sent = (0..LOOP_FRAMES as u64)
            .filter(|&count| !tone.frame(count).payload.is_empty())
            .count();
        assert!(
            (BEEP_FRAMES + 2..20).contains(&sent),
            "{sent} of {LOOP_FRAMES} frames are sent"
        );
        let longest_gap = (0..2 * LOOP_FRAMES as u64)
            .scan(0, |gap, count| {
                *gap = if tone.frame(count).payload.is_empty() {
                    *gap + FRAME_MS
                } else {
                    0
                };
                Some(*gap)
            })
            .max();
        assert!(longest_gap < Some(900), "{longest_gap:?} ms without a packet");
    }

    #[test]
    fn the_beep_is_heard_after_decoding_and_differs_by_site() {
        let mut decoder = opus::Decoder::new(48_000, Channels::Mono).expect("libopus decodes");
        let tone = Tone::new(3).expect("libopus encodes");
        let mut samples = vec![0; FRAME_TICKS as usize];
        let mut loudest = SILENCE;
        for count in 0..BEEP_FRAMES as u64 {
            let length = decoder
                .decode(&tone.frame(count).payload, &mut samples, false)
                .expect("a packet of Opus");
            loudest = loudest.min(level(&samples[..length]));
        }
        assert!(loudest < 30, "-{loudest} dBov");
        let other = Tone::new(4).expect("libopus encodes");
        assert_ne!(tone.frame(1), other.frame(1));
    }
}

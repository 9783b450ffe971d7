//! The sound of a camera or microphone, made into Opus: G.711 and AAC are decoded, plain samples are taken as they are.
//!
//! Opus takes 8, 12, 16, 24 and 48 kHz; other rates are drawn out to 48 kHz between neighbouring samples, which is good
//! enough for speech. A muted site sends but a packet of silence each 400 ms (Opus DTX). Memory is bounded: no more than one
//! packet of the camera waits beside an unfinished frame. What cannot be decoded is left out and counted.

use bytes::{Bytes, BytesMut};
use muster_link::rtp::{LinkRtp, PT_OPUS};
use opus::{Application, Bitrate, Channels, Encoder};
use symphonia_codec_aac::AacDecoder;
use symphonia_core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia_core::codecs::audio::{AudioCodecParameters, AudioDecoder as _, AudioDecoderOptions};
use symphonia_core::packet::PacketRef;
use symphonia_core::units;

use super::clock::Clock;
use super::feed::SoundFormat;
use super::{AUDIO_FLOW, Stream};

pub const BITRATE_BPS: u32 = 24_000;
/// 48 kHz ticks in a frame of 20 ms.
const FRAME_TICKS: u32 = 960;
/// Frames a second.
const FRAMES: u32 = 50;
const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// Opus marks "do not send me" by a packet of one or two bytes.
const DTX_BYTES: usize = 2;
/// A camera's packet with more samples than this is not believed.
const MOST_SAMPLES: usize = 48_000;
const SILENCE: u8 = 127;

/// Makes packets of a camera's sound.
#[derive(Debug)]
pub struct Sound {
    coder: Option<Coder>,
    stream: Stream,
    clock: Clock,
    /// 48 kHz ticks sent since the coder was made.
    ticks: i64,
    muted: bool,
    /// The last frame was not sent.
    resting: bool,
    lost: u64,
}

impl Sound {
    pub fn new(stream: Stream) -> Self {
        Self {
            coder: None,
            stream,
            clock: Clock::new(48_000),
            ticks: 0,
            muted: false,
            resting: true,
            lost: 0,
        }
    }

    /// The sound comes so from now on.
    pub fn set_format(&mut self, format: Option<&SoundFormat>) {
        self.coder = format.and_then(|format| {
            Coder::new(format)
                .inspect_err(|why| tracing::warn!(why, "no sound from the camera"))
                .ok()
        });
        self.clock.lose();
        self.mute(self.muted);
    }

    pub fn is_there(&self) -> bool {
        self.coder.is_some()
    }

    pub fn mute(&mut self, muted: bool) {
        self.muted = muted;
        if let Some(coder) = &mut self.coder {
            coder.rest_in_silence(muted);
        }
    }

    /// What comes next does not follow what came last.
    pub fn interrupt(&mut self) {
        self.clock.lose();
        if let Some(coder) = &mut self.coder {
            coder.samples.clear();
        }
    }

    /// Takes a packet of the camera's, and when it came; what is to be sent goes to `out`.
    pub fn push(
        &mut self,
        since_start: std::time::Duration,
        data: &[u8],
        scratch: &mut BytesMut,
        mut out: impl FnMut(Bytes),
    ) {
        let Some(coder) = &mut self.coder else { return };
        if !coder.decode(data, self.muted) {
            self.lost += 1;
            tracing::debug!(lost = self.lost, "sound that cannot be decoded");
        }
        let mut packet = [0; 400];
        while let Some((length, level)) = coder.next_frame(&mut packet) {
            let (timestamp, jumped) = self.clock.map(since_start, self.ticks);
            self.ticks += i64::from(FRAME_TICKS);
            if length <= DTX_BYTES {
                self.resting = true;
                continue;
            }
            let rtp = LinkRtp {
                payload_type: PT_OPUS,
                marker: jumped | std::mem::take(&mut self.resting),
                seq: self.stream.seq,
                timestamp: self.stream.timestamp.wrapping_add(timestamp as u32),
                audio_level: Some(level),
                payload: &packet[..length],
            };
            self.stream.seq = self.stream.seq.wrapping_add(1);
            out(rtp.to_datagram(AUDIO_FLOW, scratch));
        }
    }
}

/// From one format to Opus.
struct Coder {
    decoder: Decoder,
    encoder: Encoder,
    /// Of the samples that wait.
    rate: u32,
    stretch: Option<Stretch>,
    samples: Vec<i16>,
}

impl std::fmt::Debug for Coder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coder")
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

enum Decoder {
    Ulaw,
    Alaw,
    Aac(Box<AacDecoder>, Vec<i16>),
    Plain,
}

impl Coder {
    fn new(format: &SoundFormat) -> Result<Self, String> {
        let (decoder, rate) = match format {
            SoundFormat::Ulaw(rate) => (Decoder::Ulaw, *rate),
            SoundFormat::Alaw(rate) => (Decoder::Alaw, *rate),
            SoundFormat::Plain => (Decoder::Plain, 48_000),
            SoundFormat::Aac(config) => {
                let (decoder, rate) = aac(config)?;
                (Decoder::Aac(Box::new(decoder), Vec::new()), rate)
            }
        };
        if !(4_000..=192_000).contains(&rate) {
            return Err(format!("{rate} samples a second"));
        }
        let as_it_is = OPUS_RATES.contains(&rate);
        let coded = if as_it_is { rate } else { 48_000 };
        let made = || -> Result<Encoder, opus::Error> {
            let mut encoder = Encoder::new(coded, Channels::Mono, Application::Voip)?;
            encoder.set_bitrate(Bitrate::Bits(BITRATE_BPS as i32))?;
            encoder.set_complexity(5)?;
            Ok(encoder)
        };
        Ok(Self {
            decoder,
            encoder: made().map_err(|error| error.to_string())?,
            rate: coded,
            stretch: (!as_it_is).then(|| Stretch::new(rate)),
            samples: Vec::new(),
        })
    }

    /// Only in silence that is known as such: by itself Opus takes a steady tone for one.
    fn rest_in_silence(&mut self, rest: bool) {
        if let Err(error) = self.encoder.set_dtx(rest) {
            tracing::debug!(%error, "silence costs as much as sound");
        }
    }

    /// Adds the samples of a packet; `false` if it cannot be decoded.
    fn decode(&mut self, data: &[u8], muted: bool) -> bool {
        let begin = self.samples.len();
        let (samples, stretch) = (&mut self.samples, &mut self.stretch);
        let mut add = |sample: i16| {
            let sample = if muted { 0 } else { sample };
            match stretch {
                Some(stretch) => stretch.push(sample, samples),
                None => samples.push(sample),
            }
        };
        let data = &data[..data.len().min(2 * MOST_SAMPLES)];
        match &mut self.decoder {
            Decoder::Ulaw => data.iter().for_each(|byte| add(from_ulaw(*byte))),
            Decoder::Alaw => data.iter().for_each(|byte| add(from_alaw(*byte))),
            Decoder::Plain => {
                let (whole, _) = data.as_chunks::<2>();
                whole.iter().for_each(|pair| add(i16::from_le_bytes(*pair)));
            }
            Decoder::Aac(decoder, interleaved) => {
                let packet = PacketRef::new(0, units::Timestamp::ZERO, units::Duration::ZERO, data);
                let Ok(decoded) = decoder.decode_ref(&packet) else {
                    return false;
                };
                let channels = decoded.spec().channels().count().max(1);
                decoded.copy_to_vec_interleaved(interleaved);
                for frame in interleaved.chunks_exact(channels) {
                    let sum: i32 = frame.iter().map(|sample| i32::from(*sample)).sum();
                    add((sum / channels as i32) as i16);
                }
            }
        }
        // One packet's samples and the unfinished frame before it.
        self.samples.truncate(begin + 12 * MOST_SAMPLES);
        true
    }

    /// Encodes the next 20 ms, if they are there: bytes of the packet, and its level.
    fn next_frame(&mut self, packet: &mut [u8]) -> Option<(usize, u8)> {
        let size = (self.rate / FRAMES) as usize;
        let frame = self.samples.get(..size)?;
        let coded = self.encoder.encode(frame, packet).unwrap_or(0);
        let level = level(frame);
        self.samples.drain(..size);
        Some((coded, level))
    }
}

fn aac(config: &Bytes) -> Result<(AacDecoder, u32), String> {
    let mut parameters = AudioCodecParameters::new();
    parameters
        .for_codec(CODEC_ID_AAC)
        .with_extra_data(config.to_vec().into_boxed_slice());
    let decoder = AacDecoder::try_new(&parameters, &AudioDecoderOptions::default())
        .map_err(|error| error.to_string())?;
    let rate = decoder.codec_params().sample_rate.ok_or("AAC without a rate")?;
    Ok((decoder, rate))
}

/// Draws samples out to 48 kHz.
#[derive(Debug)]
struct Stretch {
    rate: u32,
    last: i16,
    /// Where the next sample stands between the last two, in parts of 48,000.
    at: u32,
}

impl Stretch {
    fn new(rate: u32) -> Self {
        Self { rate, last: 0, at: 0 }
    }

    fn push(&mut self, sample: i16, out: &mut Vec<i16>) {
        while self.at < 48_000 {
            let (from, to) = (i64::from(self.last), i64::from(sample));
            out.push((from + (to - from) * i64::from(self.at) / 48_000) as i16);
            self.at += self.rate;
        }
        self.at -= 48_000;
        self.last = sample;
    }
}

/// ITU-T G.711, mu-law.
fn from_ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = ((i16::from(byte & 0x0F) << 3) + 0x84) << (byte >> 4 & 7);
    if byte & 0x80 == 0 {
        magnitude - 0x84
    } else {
        0x84 - magnitude
    }
}

/// ITU-T G.711, A-law.
fn from_alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (mantissa, exponent) = (i16::from(byte & 0x0F) << 4, byte >> 4 & 7);
    let magnitude = match exponent {
        0 => mantissa + 8,
        _ => (mantissa + 0x108) << (exponent - 1),
    };
    if byte & 0x80 == 0 { -magnitude } else { magnitude }
}

/// RFC 6464: the negative of dBov.
fn level(samples: &[i16]) -> u8 {
    let power: f64 = samples
        .iter()
        .map(|sample| f64::from(*sample).powi(2))
        .sum::<f64>()
        / samples.len().max(1) as f64;
    if power < 1.0 {
        return SILENCE;
    }
    (-10.0 * (power / 32_768_f64.powi(2)).log10()).clamp(0.0, 127.0) as u8
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_link::framing::split_flow;

    use super::*;

    const STREAM: Stream = Stream {
        seq: 65_535,
        timestamp: u32::MAX,
    };

    /// Sends packets of 20 ms, and returns (timestamp, level, marker, bytes) of what comes out.
    fn run(sound: &mut Sound, packets: impl Iterator<Item = Vec<u8>>) -> Vec<(u32, u8, bool, Vec<u8>)> {
        let (mut sent, mut scratch) = (Vec::new(), BytesMut::new());
        for (index, packet) in packets.enumerate() {
            sound.push(
                Duration::from_millis(20 * index as u64),
                &packet,
                &mut scratch,
                |datagram| {
                    let (flow, rtp) = split_flow(datagram).expect("a flow");
                    let rtp = LinkRtp::parse(&rtp).expect("RTP");
                    assert_eq!((flow, rtp.payload_type), (AUDIO_FLOW, PT_OPUS));
                    sent.push((
                        rtp.timestamp,
                        rtp.audio_level.expect("a level"),
                        rtp.marker,
                        rtp.payload.to_vec(),
                    ));
                },
            );
        }
        sent
    }

    fn tone(rate: usize, index: usize) -> Vec<i16> {
        (index * rate / 50..(index + 1) * rate / 50)
            .map(|tick| ((tick as f32 * 440.0 * std::f32::consts::TAU / rate as f32).sin() * 8000.0) as i16)
            .collect()
    }

    #[test]
    fn g711_is_what_the_standard_says() {
        assert_eq!([0x00, 0x7F, 0x80, 0xFF].map(from_ulaw), [-32_124, 0, 32_124, 0]);
        assert_eq!([0x2A, 0x55, 0xAA, 0xD5].map(from_alaw), [-32_256, -8, 32_256, 8]);
    }

    #[test]
    fn a_tone_is_heard_and_a_muted_one_is_not() {
        let plain = |index| {
            tone(48_000, index)
                .iter()
                .flat_map(|sample| sample.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let mut sound = Sound::new(STREAM);
        sound.set_format(Some(&SoundFormat::Plain));
        let heard = run(&mut sound, (0..100).map(plain));
        assert_eq!(heard.len(), 100);
        // Timestamps go on by 20 ms, over their end.
        assert!(
            heard
                .windows(2)
                .all(|pair| pair[1].0.wrapping_sub(pair[0].0) == FRAME_TICKS)
        );
        assert!(heard[0].2 && heard[1..].iter().all(|sent| !sent.2));
        assert!(
            heard.iter().all(|sent| (12..=18).contains(&sent.1)),
            "{:?}",
            heard[5].1
        );
        let mut decoder = opus::Decoder::new(48_000, Channels::Mono).expect("a decoder");
        let mut pcm = [0_i16; 960];
        let loudest = heard.iter().map(|sent| {
            decoder.decode(&sent.3, &mut pcm, false).expect("Opus");
            pcm.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0)
        });
        assert!(loudest.max() > Some(6000));
        sound.mute(true);
        let muted = run(&mut sound, (0..100).map(plain));
        assert!(
            muted.len() < 30 && muted[1..].iter().all(|sent| sent.1 == SILENCE),
            "{}",
            muted.len()
        );
    }

    #[test]
    fn odd_rates_are_drawn_out_to_the_same_length() {
        let mut stretch = Stretch::new(44_100);
        let mut out = Vec::new();
        tone(44_100, 0)
            .iter()
            .chain(&tone(44_100, 1))
            .for_each(|sample| stretch.push(*sample, &mut out));
        assert!(out.len().abs_diff(1920) <= 2, "{}", out.len());
        let steps = out.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max();
        assert!(steps < Some(600), "{steps:?}");
    }

    #[test]
    fn noise_for_aac_is_left_out() {
        let mut sound = Sound::new(STREAM);
        sound.set_format(Some(&SoundFormat::Aac(Bytes::from_static(&[0x12, 0x10]))));
        assert!(sound.is_there());
        let noise = (0..50).map(|index| {
            (0..200)
                .map(|byte| (byte * 31 + index * 7) as u8)
                .collect::<Vec<u8>>()
        });
        run(&mut sound, noise);
        sound.set_format(Some(&SoundFormat::Aac(Bytes::from_static(&[0xFF]))));
        assert!(!sound.is_there());
    }
}

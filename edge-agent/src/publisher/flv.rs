//! Reads H.264 out of an FLV stream (Adobe FLV 10.1, annex E), as ffmpeg writes it into a pipe.
//!
//! FLV says how long each picture is before it comes, so that no picture waits for the next. Input comes in any pieces;
//! one picture is held at most. Sound and notes in the stream are passed over. It opens and reads nothing itself.

use super::feed::Picture;
use super::h264;

/// A picture beyond this many bytes ends the stream.
const LARGEST_TAG: usize = 2 * 1024 * 1024;
const FILE_HEADER: usize = 13;
const TAG_HEADER: usize = 11;
/// The length of the tag, repeated behind it.
const TAG_TRAILER: usize = 4;
const VIDEO: u8 = 9;
const AVC: u8 = 7;
/// Frame type, codec, packet type and composition time.
const AVC_HEADER: usize = 5;

/// Bytes that are no FLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the program writes is no FLV")]
pub struct NoFlv;

/// Takes a stream in pieces.
#[derive(Debug, Default)]
pub struct Flv {
    waiting: Vec<u8>,
    begun: bool,
    /// Parameter sets, each with four bytes of length before it.
    sets: Vec<u8>,
}

impl Flv {
    /// Takes the next piece; calls `out` for each picture that it completes.
    ///
    /// # Errors
    /// [`NoFlv`]; nothing can be read any more.
    pub fn push(&mut self, bytes: &[u8], mut out: impl FnMut(Picture)) -> Result<(), NoFlv> {
        self.waiting.extend_from_slice(bytes);
        let mut used = 0;
        if !self.begun {
            if self.waiting.len() < FILE_HEADER {
                return Ok(());
            }
            if !self.waiting.starts_with(b"FLV\x01") {
                return Err(NoFlv);
            }
            (self.begun, used) = (true, FILE_HEADER);
        }
        while let Some((header, rest)) = self.waiting[used..].split_first_chunk::<TAG_HEADER>() {
            let length = usize::try_from(u32::from_be_bytes([0, header[1], header[2], header[3]]))
                .map_err(|_| NoFlv)?;
            if length > LARGEST_TAG {
                return Err(NoFlv);
            }
            if rest.len() < length + TAG_TRAILER {
                break;
            }
            let millis = i32::from_be_bytes([header[7], header[4], header[5], header[6]]);
            if header[0] & 0x1F == VIDEO
                && let Some(picture) = take_video(&mut self.sets, millis, &rest[..length])
            {
                out(picture);
            }
            used += TAG_HEADER + length + TAG_TRAILER;
        }
        self.waiting.drain(..used);
        Ok(())
    }

    /// Pixels of the picture, as its parameter sets say.
    pub fn size(&self) -> Option<(u32, u32)> {
        let of = |kind: u8| h264::nals(&self.sets).find(move |nal| nal[0] & 0x1F == kind);
        let framing = retina::codec::h26x::Framing::default();
        let parameters = retina::codec::h264::parameters_from_sps_and_pps(of(7)?, of(8)?, framing).ok()?;
        Some(parameters.pixel_dimensions())
    }
}

fn take_video(sets: &mut Vec<u8>, millis: i32, tag: &[u8]) -> Option<Picture> {
    let (header, data) = tag.split_first_chunk::<AVC_HEADER>()?;
    if header[0] & 0x0F != AVC {
        return None;
    }
    match header[1] {
        0 => {
            *sets = parameter_sets(data).unwrap_or_default();
            None
        }
        1 => {
            let key = h264::is_key(data);
            let shown_after = i32::from_be_bytes([header[2], header[3], header[4], 0]) >> 8;
            let data = if key { [sets, data].concat() } else { data.to_vec() };
            Some(Picture {
                data: data.into(),
                key,
                ticks: (i64::from(millis) + i64::from(shown_after)) * 90,
            })
        }
        _ => None,
    }
}

/// Out of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15). `None`: cut short, or lengths of another size.
fn parameter_sets(record: &[u8]) -> Option<Vec<u8>> {
    let (header, mut rest) = record.split_first_chunk::<5>()?;
    if header[0] != 1 || header[4] & 3 != 3 {
        return None;
    }
    let mut sets = Vec::new();
    for mask in [0x1F, 0xFF] {
        let (&count, tail) = rest.split_first()?;
        rest = tail;
        for _ in 0..count & mask {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (set, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = tail;
            sets.extend_from_slice(&(set.len() as u32).to_be_bytes());
            sets.extend_from_slice(set);
        }
    }
    Some(sets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag(kind: u8, millis: u32, data: &[u8]) -> Vec<u8> {
        let (length, at) = ((data.len() as u32).to_be_bytes(), millis.to_be_bytes());
        let header = [
            kind, length[1], length[2], length[3], at[1], at[2], at[3], at[0], 0, 0, 0,
        ];
        [&header[..], data, &[0; 4]].concat()
    }

    fn stream() -> Vec<u8> {
        let record = [1, 100, 0, 31, 0xFF, 0xE1, 0, 3, 0x67, 1, 2, 1, 0, 2, 0x68, 3];
        let key = [0x17, 1, 0, 0, 40, 0, 0, 0, 2, 0x65, 9];
        let other = [0x27, 1, 0, 0, 0, 0, 0, 0, 2, 0x41, 9];
        [
            b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec(),
            tag(18, 0, b"notes"),
            tag(VIDEO, 0, &[&[0x17, 0, 0, 0, 0][..], &record].concat()),
            tag(VIDEO, 1000, &key),
            tag(8, 1000, b"sound"),
            tag(VIDEO, 1040, &other),
        ]
        .concat()
    }

    #[test]
    fn pictures_come_out_in_whatever_pieces_they_go_in() {
        for size in [1, 7, 1000] {
            let (mut flv, mut pictures) = (Flv::default(), Vec::new());
            for piece in stream().chunks(size) {
                flv.push(piece, |picture| pictures.push(picture)).expect("FLV");
            }
            let [key, other] = &pictures[..] else {
                panic!("{pictures:?}")
            };
            assert_eq!(
                (key.key, key.ticks, other.key, other.ticks),
                (true, 93_600, false, 93_600)
            );
            assert_eq!(
                key.data[..],
                [0, 0, 0, 3, 0x67, 1, 2, 0, 0, 0, 2, 0x68, 3, 0, 0, 0, 2, 0x65, 9]
            );
        }
        assert_eq!(Flv::default().push(b"ffmpeg version 5.1", |_| {}), Err(NoFlv));
    }

    proptest! {
        #[test]
        fn noise_never_panics_nor_grows(noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut flv = Flv::default();
            let mut all = b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec();
            all.extend(noise);
            let _ = flv.push(&all, |_| {});
            prop_assert!(flv.waiting.len() <= LARGEST_TAG + TAG_HEADER + TAG_TRAILER);
            flv.size();
        }
    }
}

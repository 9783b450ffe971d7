//! The last group of pictures of a camera that obeys no request for a key frame: it is sent again for who comes late.
//!
//! Bounded in bytes and in time; a group that grows beyond is let go, and who comes late waits for the next key frame.

use super::feed::Picture;

/// Bytes that are kept at most.
pub const MOST_BYTES: usize = 1536 * 1024;
/// 90 kHz ticks from the first to the last picture that are kept at most: 6 s.
pub const LONGEST_TICKS: i64 = 6 * 90_000;

/// The pictures from the last key frame on.
#[derive(Debug, Default)]
pub struct Gop {
    pictures: Vec<Picture>,
    bytes: usize,
}

impl Gop {
    /// Takes the next picture.
    pub fn push(&mut self, picture: &Picture) {
        if picture.key {
            self.clear();
        }
        let Some(first) = self
            .pictures
            .first()
            .map_or(picture.key.then_some(picture.ticks), |first| Some(first.ticks))
        else {
            return;
        };
        self.bytes += picture.data.len();
        if self.bytes > MOST_BYTES || picture.ticks.saturating_sub(first) > LONGEST_TICKS {
            self.clear();
            return;
        }
        self.pictures.push(picture.clone());
    }

    /// Key frame first; empty while there is nothing to begin with.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    pub fn clear(&mut self) {
        self.pictures = Vec::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn picture(key: bool, ticks: i64, size: usize) -> Picture {
        Picture {
            data: Bytes::from(vec![0; size]),
            key,
            ticks,
        }
    }

    fn kept(gop: &Gop) -> Vec<i64> {
        gop.pictures().iter().map(|picture| picture.ticks).collect()
    }

    #[test]
    fn it_begins_with_the_last_key_frame() {
        let mut gop = Gop::default();
        gop.push(&picture(false, 0, 10));
        assert!(kept(&gop).is_empty());
        for (key, ticks) in [(true, 10), (false, 20), (false, 30)] {
            gop.push(&picture(key, ticks, 10));
        }
        assert_eq!(kept(&gop), [10, 20, 30]);
        gop.push(&picture(true, 40, 10));
        assert_eq!(kept(&gop), [40]);
    }

    #[test]
    fn what_grows_too_large_or_too_long_is_let_go_until_the_next_key_frame() {
        for (size, step) in [(MOST_BYTES / 3, 3000), (10, LONGEST_TICKS / 3)] {
            let mut gop = Gop::default();
            for index in 0..5 {
                gop.push(&picture(index == 0, index * step + index, size));
            }
            assert!(kept(&gop).is_empty());
            gop.push(&picture(true, 9_000_000, size));
            assert_eq!(kept(&gop), [9_000_000]);
        }
    }
}

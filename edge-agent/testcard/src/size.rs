//! Sizes of the test card, by name: `180p5` is 320x180 at 5 pictures a second.

use std::fmt;
use std::str::FromStr;

/// Width and height in pixels (both even), pictures a second, and the bit rate to encode at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSize {
    pub width: u16,
    pub height: u16,
    pub fps: u16,
    pub bitrate_bps: u32,
}

impl PictureSize {
    /// 320x180 at 5 pictures a second, 150 kbit/s: 140 of them run on one machine.
    pub const P180_5: Self = Self {
        width: 320,
        height: 180,
        fps: 5,
        bitrate_bps: 150_000,
    };
    pub const P360_15: Self = Self {
        width: 640,
        height: 360,
        fps: 15,
        bitrate_bps: 500_000,
    };
    pub const P720_30: Self = Self {
        width: 1280,
        height: 720,
        fps: 30,
        bitrate_bps: 1_500_000,
    };
    pub const P1080_30: Self = Self {
        width: 1920,
        height: 1080,
        fps: 30,
        bitrate_bps: 3_000_000,
    };

    /// The simulcast layers that are published at this size, smallest first: itself alone below 360 lines; from
    /// 360 lines on also one of half the width and height at a fifth of the bit rate.
    pub fn layers(self) -> Vec<Self> {
        if self.height < 360 {
            return vec![self];
        }
        let half = Self {
            width: (self.width / 2) & !1,
            height: (self.height / 2) & !1,
            fps: self.fps,
            bitrate_bps: self.bitrate_bps / 5,
        };
        vec![half, self]
    }
}

/// The text named no size of a test card.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown picture size {0:?}: expected 180p5, 360p15, 720p30 or 1080p30")]
pub struct UnknownSize(pub String);

impl FromStr for PictureSize {
    type Err = UnknownSize;

    fn from_str(text: &str) -> Result<Self, UnknownSize> {
        match text {
            "180p5" => Ok(Self::P180_5),
            "360p15" => Ok(Self::P360_15),
            "720p30" => Ok(Self::P720_30),
            "1080p30" => Ok(Self::P1080_30),
            other => Err(UnknownSize(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for PictureSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}p{}", self.height, self.fps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for name in ["180p5", "360p15", "720p30", "1080p30"] {
            let size: PictureSize = name.parse().expect(name);
            assert_eq!(size.to_string(), name);
        }
        let error = "4k".parse::<PictureSize>().expect_err("4k is no size");
        assert!(error.to_string().contains("180p5"), "{error}");
    }

    #[test]
    fn small_sizes_have_one_layer_and_large_ones_two() {
        assert_eq!(PictureSize::P180_5.layers(), [PictureSize::P180_5]);
        let layers = PictureSize::P360_15.layers();
        assert_eq!((layers[0].width, layers[0].height, layers.len()), (320, 180, 2));
        assert_eq!(layers[1], PictureSize::P360_15);
    }
}

//! Writing into a dependency descriptor, the header extension of AV1 (RTP payload format for AV1, version 1.0, A.8.2),
//! what a viewer is to be told of a frame.
//!
//! Two things are written: the frame's number, and the decode targets that are to be had. The structure of a stream is
//! left as it came: the core, which knows it, says how many targets there are. It does not judge what it reads.

use crate::media::PicturePatch;

/// The longest value of a header extension, in bytes.
pub(crate) const MAX_VALUE: usize = 255;
/// Start, end and template; the number of the frame.
const MANDATORY: usize = 3;

/// The value for one viewer.
pub(crate) struct Value {
    bytes: [u8; MAX_VALUE],
    length: usize,
}

impl Value {
    /// A packet that has none, or whose descriptor is not to go out.
    pub(crate) const NONE: Value = Value {
        bytes: [0; MAX_VALUE],
        length: 0,
    };

    /// `descriptor` with what `patch` says. [`Value::NONE`] without a patch that is for it, and where it would be longer
    /// than an extension may be.
    pub(crate) fn new(descriptor: &[u8], patch: Option<PicturePatch>) -> Self {
        let Some(PicturePatch::Frame {
            number,
            active,
            targets,
        }) = patch
        else {
            return Self::NONE;
        };
        let written = Self::with_targets(descriptor, active, targets.min(16));
        let mut value = written.unwrap_or_else(|| Self::copied(descriptor));
        if value.length >= MANDATORY {
            value.bytes[1..3].copy_from_slice(&number.to_be_bytes());
        }
        value
    }

    pub(crate) fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn copied(descriptor: &[u8]) -> Self {
        let mut value = Self::NONE;
        if (MANDATORY..=MAX_VALUE).contains(&descriptor.len()) {
            value.bytes[..descriptor.len()].copy_from_slice(descriptor);
            value.length = descriptor.len();
        }
        value
    }

    /// None if there is nothing to write: the structure is in this packet, or nobody knows it.
    fn with_targets(descriptor: &[u8], active: u16, targets: u8) -> Option<Self> {
        let targets = usize::from(targets);
        let flags = match descriptor.get(MANDATORY) {
            None if descriptor.len() == MANDATORY => 0,
            None => return None,
            Some(flags) => flags >> 3,
        };
        let (brings_structure, says_active, own) = (flags & 0x10 != 0, flags & 0x08 != 0, flags & 0x07);
        if targets == 0 || brings_structure {
            return None;
        }
        let rest = MANDATORY * 8 + 5 + if says_active { targets } else { 0 };
        let left = (descriptor.len() * 8).saturating_sub(rest);
        if MANDATORY * 8 + 5 + targets + left > MAX_VALUE * 8 {
            return None;
        }
        let mut value = Self::NONE;
        value.bytes[..MANDATORY].copy_from_slice(&descriptor[..MANDATORY]);
        let mut at = MANDATORY * 8;
        value.put(&mut at, (0x08 | own).into(), 5);
        value.put(&mut at, active, targets);
        for bit in rest..rest + left {
            value.put(&mut at, (descriptor[bit / 8] >> (7 - bit % 8) & 1).into(), 1);
        }
        value.length = at.div_ceil(8);
        Some(value)
    }

    /// Appends the low bits of `value`; the caller has made sure that there is room.
    fn put(&mut self, at: &mut usize, value: u16, bits: usize) {
        for bit in (0..bits).rev() {
            self.bytes[*at / 8] |= ((value >> bit & 1) as u8) << (7 - *at % 8);
            *at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(number: u16, active: u16, targets: u8) -> Option<PicturePatch> {
        Some(PicturePatch::Frame {
            number,
            active,
            targets,
        })
    }

    fn bits(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:08b}")).collect()
    }

    #[test]
    fn a_short_one_is_told_the_targets() {
        let value = Value::new(&[0xc7, 0, 9], frame(0x1234, 0b1_1100_0000, 9));
        assert_eq!(
            bits(value.get()),
            "110001110001001000110100".to_owned() + "01000" + "111000000" + "00"
        );
        assert_eq!(
            Value::new(&[0xc7, 0, 9], frame(0x1234, 0, 0)).get(),
            [0xc7, 0x12, 0x34]
        );
    }

    #[test]
    fn what_a_frame_says_itself_moves_on() {
        // Targets (six bits), and its own differences and chains.
        let own = [0x87, 0, 9, 0b0101_1101, 0b0101_0110, 0xff];
        let value = Value::new(&own, frame(1, 0b10_0001, 6));
        assert_eq!(bits(value.get())[24..35], *"01011100001");
        assert_eq!(
            bits(value.get())[35..],
            bits(&own)[35..],
            "it stands where it stood"
        );
        let without = [0x87, 0, 9, 0b0001_1101, 0b0101_0110, 0xff];
        let value = Value::new(&without, frame(1, 0b10_0001, 6));
        assert_eq!(bits(value.get())[24..35], *"01011100001");
        assert!(bits(value.get())[35..].starts_with(&bits(&without)[29..]));
    }

    #[test]
    fn a_structure_is_left_alone_and_without_a_patch_nothing_goes_out() {
        let structure = [0x80, 0, 9, 0b1000_0000, 1, 2, 3];
        let value = Value::new(&structure, frame(0x0102, 1, 9));
        assert_eq!(value.get(), [0x80, 1, 2, 0b1000_0000, 1, 2, 3]);
        assert_eq!(Value::new(&structure, None).get(), []);
        let of_vp8 = PicturePatch::Picture {
            picture_id: 1,
            tl0_pic_idx: 2,
        };
        assert_eq!(Value::new(&structure, Some(of_vp8)).get(), []);
        assert_eq!(Value::new(&[0x80, 0], frame(1, 1, 9)).get(), []);
    }

    proptest! {
        #[test]
        fn any_descriptor_stays_within_bounds(
            descriptor in prop::collection::vec(any::<u8>(), 0..300),
            number in any::<u16>(),
            active in any::<u16>(),
            targets in any::<u8>(),
        ) {
            let value = Value::new(&descriptor, frame(number, active, targets));
            prop_assert!(value.get().len() <= MAX_VALUE);
            if let [first, high, low, ..] = value.get() {
                prop_assert_eq!((*first, [*high, *low]), (descriptor[0], number.to_be_bytes()));
            }
        }
    }
}

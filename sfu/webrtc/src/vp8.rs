//! Writing new numbers into a VP8 payload descriptor (RFC 7741, section 4.2), or VP9's (RFC 9628, section 4.2).

use crate::media::{Codec, PicturePatch};

/// Picture id and TL0PICIDX.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    pub picture_id: u16,
    pub tl0_pic_idx: u8,
}

impl PicturePatch {
    /// Changes the payload descriptor at the start of `payload` in place, as the codec has it. Fields that it
    /// has not, and a descriptor cut short, are left alone.
    pub(crate) fn apply_to(self, codec: Codec, payload: &mut [u8]) {
        let PicturePatch::Picture {
            picture_id,
            tl0_pic_idx,
        } = self
        else {
            return;
        };
        let numbers = Numbers {
            picture_id,
            tl0_pic_idx,
        };
        match codec {
            Codec::Vp8 => numbers.apply(payload),
            Codec::Vp9 => numbers.apply_vp9(payload),
            Codec::H264 | Codec::Av1 | Codec::Opus => {}
        }
    }
}

impl Numbers {
    fn apply_vp9(self, payload: &mut [u8]) {
        let Some(&first) = payload.first() else { return };
        let (has_id, has_layers, flexible) = (first & 0x80 != 0, first & 0x20 != 0, first & 0x10 != 0);
        let mut at = 1;
        if has_id {
            match payload.get_mut(at..) {
                Some([high, low, ..]) if *high & 0x80 != 0 => {
                    [*high, *low] = (self.picture_id | 0x8000).to_be_bytes();
                    at += 2;
                }
                Some([short, ..]) if *short & 0x80 == 0 => {
                    *short = (self.picture_id & 0x7f) as u8;
                    at += 1;
                }
                _ => return,
            }
        }
        // After the layer indices, and only in the non-flexible mode.
        if has_layers
            && !flexible
            && let Some(index) = payload.get_mut(at + 1)
        {
            *index = self.tl0_pic_idx;
        }
    }

    /// Changes the descriptor at the start of `payload` in place. Fields that it has not, and a
    /// descriptor cut short, are left alone.
    pub(crate) fn apply(self, payload: &mut [u8]) {
        let Some([first, flags]) = payload.first_chunk::<2>().copied() else {
            return;
        };
        if first & 0x80 == 0 {
            return; // no extended control bits
        }
        let mut at = 2;
        if flags & 0x80 != 0 {
            match payload.get_mut(at..) {
                Some([high, low, ..]) if *high & 0x80 != 0 => {
                    [*high, *low] = (self.picture_id | 0x8000).to_be_bytes();
                    at += 2;
                }
                Some([short, ..]) if *short & 0x80 == 0 => {
                    *short = (self.picture_id & 0x7f) as u8;
                    at += 1;
                }
                _ => return,
            }
        }
        if flags & 0x40 != 0
            && let Some(index) = payload.get_mut(at)
        {
            *index = self.tl0_pic_idx;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(codec: Codec, before: &[u8]) -> Vec<u8> {
        let mut payload = before.to_vec();
        PicturePatch::Picture {
            picture_id: 0x1234,
            tl0_pic_idx: 9,
        }
        .apply_to(codec, &mut payload);
        payload
    }

    fn check(before: &[u8], after: &[u8]) {
        assert_eq!(patched(Codec::Vp8, before), after);
    }

    #[test]
    fn vp9_has_its_own_places() {
        let check = |before: &[u8], after: &[u8]| assert_eq!(patched(Codec::Vp9, before), after);
        check(&[0x0c, 1, 2], &[0x0c, 1, 2]);
        check(&[0x8c, 0x80, 5, 7], &[0x8c, 0x92, 0x34, 7]);
        check(&[0x8c, 5, 7], &[0x8c, 0x34, 7]);
        check(&[0xac, 0x80, 5, 0x40, 1, 7], &[0xac, 0x92, 0x34, 0x40, 9, 7]);
        check(&[0xbc, 0x80, 5, 0x40, 1, 7], &[0xbc, 0x92, 0x34, 0x40, 1, 7]);
        check(&[0x2c, 0x40, 1, 7], &[0x2c, 0x40, 9, 7]);
        for cut in [&[0x8c][..], &[0x8c, 0x80], &[0xac, 5, 0x40], &[0x2c]] {
            assert_eq!(patched(Codec::Vp9, cut).len(), cut.len());
        }
        assert_eq!(patched(Codec::Av1, &[0x80, 5, 1]), [0x80, 5, 1]);
    }

    #[test]
    fn only_fields_that_exist_are_written() {
        check(&[0x10, 1, 2], &[0x10, 1, 2]);
        check(&[0x90, 0x80, 0x80, 5, 7], &[0x90, 0x80, 0x92, 0x34, 7]);
        check(&[0x90, 0x80, 5, 7], &[0x90, 0x80, 0x34, 7]);
        check(&[0x90, 0xc0, 0x80, 5, 1, 7], &[0x90, 0xc0, 0x92, 0x34, 9, 7]);
        check(&[0x90, 0x40, 1, 7], &[0x90, 0x40, 9, 7]);
    }

    #[test]
    fn a_descriptor_cut_short_is_left_alone() {
        check(&[], &[]);
        check(&[0x90], &[0x90]);
        check(&[0x90, 0x80], &[0x90, 0x80]);
        check(&[0x90, 0x80, 0x80], &[0x90, 0x80, 0x80]);
        check(&[0x90, 0x40], &[0x90, 0x40]);
    }
}

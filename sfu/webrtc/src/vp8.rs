//! Writing new numbers into a VP8 payload descriptor (RFC 7741, section 4.2).

use crate::media::PicturePatch;

impl PicturePatch {
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

    fn check(before: &[u8], after: &[u8]) {
        let mut payload = before.to_vec();
        PicturePatch {
            picture_id: 0x1234,
            tl0_pic_idx: 9,
        }
        .apply(&mut payload);
        assert_eq!(payload, after);
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

//! Finding the start of an H.264 key frame in RTP payloads (RFC 6184: single NAL unit, STAP-A, FU-A), and the picture
//! size in a sequence parameter set (ITU-T H.264 section 7.3.2.1.1).
//!
//! Bytes are from the network: what is malformed or cut short is no key frame, never a panic. Interleaved packets
//! (STAP-B, MTAP, FU-B) are not offered in our SDP and count as no key frame. Nothing is decoded.

const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFrame {
    None,
    /// A parameter set: the key frame begins with this packet.
    ParameterSet {
        size: Option<(u16, u16)>,
    },
    /// The first byte of a slice of an IDR picture: the key frame begins here if the picture does.
    Slice,
}

/// What of a key frame begins in this payload.
pub fn key_frame(payload: &[u8]) -> KeyFrame {
    let Some(&header) = payload.first() else {
        return KeyFrame::None;
    };
    match header & 0x1f {
        FU_A => match payload.get(1) {
            Some(fu) if fu & 0x80 != 0 && fu & 0x1f == IDR => KeyFrame::Slice,
            Some(fu) if fu & 0x80 != 0 && fu & 0x1f == SPS => KeyFrame::ParameterSet { size: None },
            _ => KeyFrame::None,
        },
        STAP_A => aggregate(&payload[1..]),
        _ => single(payload),
    }
}

fn single(nal: &[u8]) -> KeyFrame {
    match nal.first().map(|header| header & 0x1f) {
        Some(IDR) if nal.len() > 1 => KeyFrame::Slice,
        Some(SPS) => KeyFrame::ParameterSet {
            size: picture_size(nal),
        },
        _ => KeyFrame::None,
    }
}

fn aggregate(mut rest: &[u8]) -> KeyFrame {
    let mut found = KeyFrame::None;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((nal, after)) = after.split_at_checked(length) else {
            break;
        };
        match single(nal) {
            set @ KeyFrame::ParameterSet { .. } => return set,
            KeyFrame::Slice => found = KeyFrame::Slice,
            KeyFrame::None => {}
        }
        rest = after;
    }
    found
}

/// Profiles whose parameter set carries chroma format and scaling lists (H.264 section 7.3.2.1.1).
const HIGH_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// Width and height in pixels, cropping applied; `None` if the set is malformed or the picture larger than 16384.
pub fn picture_size(sps: &[u8]) -> Option<(u16, u16)> {
    let mut bits = Bits {
        data: sps.get(1..)?,
        at: 0,
        zeros: 0,
    };
    let profile = bits.take(8)?;
    bits.take(16)?; // constraint flags, level
    bits.unsigned()?; // seq_parameter_set_id
    let mut chroma = 1;
    if HIGH_PROFILES.contains(&profile) {
        chroma = bits.unsigned()?;
        if chroma == 3 {
            bits.take(1)?;
        }
        bits.unsigned()?; // bit depths
        bits.unsigned()?;
        bits.take(1)?;
        if bits.take(1)? == 1 {
            skip_scaling_lists(&mut bits, if chroma == 3 { 12 } else { 8 })?;
        }
    }
    bits.unsigned()?; // log2_max_frame_num_minus4
    match bits.unsigned()? {
        0 => {
            bits.unsigned()?;
        }
        1 => {
            bits.take(1)?;
            bits.signed()?;
            bits.signed()?;
            let cycle = bits.unsigned()?;
            for _ in 0..cycle.min(255) {
                bits.signed()?;
            }
        }
        _ => {}
    }
    bits.unsigned()?; // max_num_ref_frames
    bits.take(1)?;
    let width_mbs = bits.unsigned()?.checked_add(1)?;
    let height_units = bits.unsigned()?.checked_add(1)?;
    let frame_only = bits.take(1)?;
    if frame_only == 0 {
        bits.take(1)?;
    }
    bits.take(1)?;
    let field = 2 - frame_only;
    let mut width = width_mbs.checked_mul(16)?;
    let mut height = height_units.checked_mul(16 * field)?;
    if bits.take(1)? == 1 {
        let (unit_x, unit_y) = match chroma {
            1 => (2, 2 * field),
            2 => (2, field),
            _ => (1, field),
        };
        let [left, right, top, bottom] = [
            bits.unsigned()?,
            bits.unsigned()?,
            bits.unsigned()?,
            bits.unsigned()?,
        ];
        width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
    }
    let fits = |side: u32| (1..=16384).contains(&side);
    (fits(width) && fits(height)).then_some((width as u16, height as u16))
}

fn skip_scaling_lists(bits: &mut Bits<'_>, lists: usize) -> Option<()> {
    for list in 0..lists {
        if bits.take(1)? == 0 {
            continue;
        }
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + i64::from(bits.signed()?)).rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
    }
    Some(())
}

/// Reads bits, most significant first, leaving out emulation prevention bytes (H.264 section 7.4.1.1).
struct Bits<'a> {
    data: &'a [u8],
    /// Bits read, in all bytes of `data`.
    at: usize,
    /// Zero bytes in a row before the present byte.
    zeros: u8,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        if self.at.is_multiple_of(8) && self.zeros >= 2 && self.data.get(self.at / 8) == Some(&3) {
            self.at += 8;
            self.zeros = 0;
        }
        let byte = *self.data.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        if self.at.is_multiple_of(8) {
            self.zeros = if byte == 0 {
                self.zeros.saturating_add(1)
            } else {
                0
            };
        }
        Some(u32::from(bit))
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |value: u32, _| Some(value << 1 | self.bit()?))
    }

    /// ue(v), H.264 section 9.1.
    fn unsigned(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.take(zeros)?)
    }

    /// se(v), H.264 section 9.1.1.
    fn signed(&mut self) -> Option<i32> {
        let code = i64::from(self.unsigned()?);
        let value = if code % 2 == 1 {
            (code + 1) / 2
        } else {
            -(code / 2)
        };
        i32::try_from(value).ok()
    }
}

//! Pictures that are none, but look like VP8 to a relay: one packet each, with a mark that says whose they are.

/// One packet that is a whole picture of 320 by 180: descriptor with a 15-bit picture id (RFC 7741), frame header
/// (RFC 6386 section 9.1), then `mark`.
pub fn picture(picture_id: u16, key: bool, mark: &str) -> Vec<u8> {
    let [high, low] = (picture_id & 0x7fff).to_be_bytes();
    let mut payload = vec![0x90, 0x80, 0x80 | high, low];
    if key {
        payload.extend_from_slice(&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 1, 180, 0]);
    } else {
        payload.extend_from_slice(&[0x11, 0, 0]);
    }
    payload.extend_from_slice(mark.as_bytes());
    payload
}

/// Whether the picture carries this mark.
pub fn has_mark(payload: &[u8], mark: &str) -> bool {
    payload.ends_with(mark.as_bytes())
}

pub fn is_key(payload: &[u8]) -> bool {
    payload.get(4).is_some_and(|first| first & 1 == 0)
}

//! What of a VP8 frame can be read without decoding it (RFC 6386 section 9.1).

/// Whether the frame (or its first payload) is a key frame with a sound start code.
pub fn is_key_frame(data: &[u8]) -> bool {
    key_frame_size(data).is_some()
}

/// Width and height in pixels of a key frame; `None` for any other.
pub fn key_frame_size(data: &[u8]) -> Option<(u16, u16)> {
    let header: &[u8; 10] = data.first_chunk()?;
    if header[0] & 1 != 0 || header[3..6] != [0x9D, 0x01, 0x2A] {
        return None;
    }
    let size = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]) & 0x3FFF;
    Some((size(6), size(8)))
}

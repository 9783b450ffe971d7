//! RTP packets of a camera: VP8 with the descriptor that browsers send (RFC 7741: 15-bit picture id, TL0PICIDX, layer
//! and key index), true heads of frames, and a stamp at the end of each packet instead of coded pixels.

/// Of an RTP packet, header and all, before SRTP.
pub const PACKET: usize = 1200;
pub const PAYLOAD_TYPE: u8 = 96;
pub const SSRC: u32 = 0x1234_5678;
pub const WIDTH: u16 = 1920;
pub const HEIGHT: u16 = 1080;
const RTP_HEADER: usize = 12;
const DESCRIPTOR: usize = 6;
const STAMP: usize = 16;
const MAGIC: u32 = 0x6d75_7374;
/// Of 90 kHz, at 30 frames a second.
const FRAME_TICKS: u32 = 3000;

/// What a packet carries to its viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was sent, in microseconds of the measurement's own clock.
    pub sent_us: u64,
    /// How many were sent before it.
    pub index: u32,
}

impl Stamp {
    /// Out of a whole plain RTP packet; None if it has none.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (_, stamp) = packet.split_last_chunk::<STAMP>()?;
        let (time, rest) = stamp.split_first_chunk::<8>()?;
        let (index, magic) = rest.split_first_chunk::<4>()?;
        (magic == MAGIC.to_be_bytes()).then(|| Self {
            sent_us: u64::from_be_bytes(*time),
            index: u32::from_be_bytes(*index),
        })
    }
}

/// The camera's numbers.
#[derive(Default)]
pub struct Camera {
    frame: u32,
    packet: u32,
    key_frames: u32,
    buffer: Vec<u8>,
}

impl Camera {
    /// Packets made so far.
    pub fn packets(&self) -> u32 {
        self.packet
    }

    /// Hands each packet of the next frame to `send`. `clock` gives the time in microseconds just before.
    pub fn frame(&mut self, packets: u32, key: bool, clock: impl Fn() -> u64, mut send: impl FnMut(&[u8])) {
        self.key_frames += u32::from(key);
        for place in 0..packets {
            self.write(place, place + 1 == packets, key, clock());
            send(&self.buffer);
            self.packet += 1;
        }
        self.frame += 1;
    }

    fn write(&mut self, place: u32, last: bool, key: bool, sent_us: u64) {
        let out = &mut self.buffer;
        out.clear();
        out.extend([0x80, PAYLOAD_TYPE | u8::from(last) << 7]);
        out.extend((self.packet as u16).to_be_bytes());
        out.extend(self.frame.wrapping_mul(FRAME_TICKS).to_be_bytes());
        out.extend(SSRC.to_be_bytes());
        let picture_id = 0x8000 | (self.frame as u16 & 0x7fff);
        // X, and S at the start; then I, L, T and K.
        out.extend([0x80 | u8::from(place == 0) << 4, 0xf0]);
        out.extend(picture_id.to_be_bytes());
        // Layer 0 with Y set.
        out.extend([self.frame as u8, 0x20 | (self.key_frames as u8 & 0x1f)]);
        if place == 0 {
            // RFC 6386, 9.1: shown, a first partition of 2000 bytes; bit 0 is clear in a key frame.
            let tag = u32::from(!key) | 1 << 4 | 2000 << 5;
            out.extend(&tag.to_le_bytes()[..3]);
            if key {
                out.extend([0x9d, 0x01, 0x2a]);
                out.extend(WIDTH.to_le_bytes());
                out.extend(HEIGHT.to_le_bytes());
            }
        }
        out.resize(PACKET - STAMP, self.packet as u8);
        out.extend(sent_us.to_be_bytes());
        out.extend(self.packet.to_be_bytes());
        out.extend(MAGIC.to_be_bytes());
        debug_assert!(out.len() == PACKET && PACKET > RTP_HEADER + DESCRIPTOR + 10 + STAMP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(camera: &mut Camera, packets: u32, key: bool) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        camera.frame(packets, key, || 77, |packet| all.push(packet.to_vec()));
        all
    }

    #[test]
    fn a_frame_is_packets_of_one_size_with_one_end() {
        let mut camera = Camera::default();
        frame(&mut camera, 9, true);
        let packets = frame(&mut camera, 9, false);
        assert!(packets.iter().all(|packet| packet.len() == PACKET));
        let markers: Vec<bool> = packets.iter().map(|packet| packet[1] & 0x80 != 0).collect();
        assert_eq!(
            markers,
            [false, false, false, false, false, false, false, false, true]
        );
        let seqs: Vec<u8> = packets.iter().map(|packet| packet[3]).collect();
        assert_eq!(seqs, (9..18).collect::<Vec<u8>>());
        assert!(packets.iter().all(|packet| packet[4..8] == 3000u32.to_be_bytes()));
        assert_eq!(camera.packets(), 18);
    }

    #[test]
    fn a_key_frame_begins_with_its_size() {
        let packets = frame(&mut Camera::default(), 2, true);
        let head = &packets[0][RTP_HEADER..];
        assert_eq!(head[..DESCRIPTOR], [0x90, 0xf0, 0x80, 0, 0, 0x21]);
        assert_eq!(head[DESCRIPTOR] & 1, 0);
        assert_eq!(
            head[DESCRIPTOR + 3..][..7],
            [0x9d, 0x01, 0x2a, 0x80, 0x07, 0x38, 0x04]
        );
        assert_eq!(packets[1][RTP_HEADER], 0x80, "S is set in the first packet only");
        let other = frame(&mut Camera::default(), 1, false);
        assert_eq!(other[0][RTP_HEADER + DESCRIPTOR] & 1, 1);
    }

    #[test]
    fn the_stamp_is_read_back_and_nothing_else_is_one() {
        let mut camera = Camera::default();
        frame(&mut camera, 9, true);
        let packets = frame(&mut camera, 1, false);
        assert_eq!(
            Stamp::read(&packets[0]),
            Some(Stamp {
                sent_us: 77,
                index: 9
            })
        );
        assert_eq!(Stamp::read(&packets[0][..PACKET - 1]), None);
        assert_eq!(Stamp::read(&[1, 2]), None);
    }
}

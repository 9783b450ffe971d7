//! A camera with three simulcast layers of VP8, three temporal layers each, that sends a key frame
//! in a layer when it is asked: the publisher of the whole path.

pub const HEIGHTS: [u16; 3] = [180, 360, 720];
/// What the layers send, bits per second of payload.
pub const RATES: [u64; 3] = [150_000, 500_000, 2_000_000];
/// Base, upper, middle, upper: temporal layer, and whether it needs the base alone (RFC 7741, Y).
const TIDS: [(u8, bool); 4] = [(0, false), (2, true), (1, true), (2, false)];
/// A key frame takes this many times what an ordinary one takes.
const KEY_TIMES: usize = 6;
const PACKET: usize = 1150;

pub struct CameraPacket {
    pub layer: usize,
    pub seq: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
}

struct Layer {
    seq: u16,
    picture: u16,
    tl0: u8,
    frame: usize,
    key_at: Option<u64>,
}

pub struct Camera {
    layers: Vec<Layer>,
    pub key_frames: u32,
}

impl Camera {
    pub fn new() -> Self {
        let layer = |n: u16| Layer {
            seq: 1000 * n,
            picture: 100 * n,
            tl0: 0,
            frame: 0,
            key_at: Some(0),
        };
        Self {
            layers: (1..=3).map(layer).collect(),
            key_frames: 0,
        }
    }

    /// The next frame of this layer is a key frame, from `at` (milliseconds) on.
    pub fn ask(&mut self, layer: usize, at: u64) {
        self.layers[layer].key_at.get_or_insert(at);
    }

    /// A frame of each layer.
    pub fn frames(&mut self, ms: u64) -> Vec<CameraPacket> {
        (0..3).flat_map(|layer| self.frame(ms, layer)).collect()
    }

    fn frame(&mut self, ms: u64, index: usize) -> Vec<CameraPacket> {
        let layer = &mut self.layers[index];
        let key = layer.key_at.is_some_and(|at| at <= ms);
        if key {
            layer.key_at = None;
            layer.frame = 0;
            self.key_frames += 1;
        }
        let (tid, sync) = TIDS[layer.frame % 4];
        layer.frame += 1;
        layer.picture = (layer.picture + 1) & 0x7fff;
        layer.tl0 = layer.tl0.wrapping_add(u8::from(tid == 0));
        let bytes = RATES[index] as usize * 33 / 8000 * if key { KEY_TIMES } else { 1 };
        let count = bytes.div_ceil(PACKET);
        let packet = |n: usize| {
            let mut payload = vec![
                0x80 | if n == 0 { 0x10 } else { 0 },
                0xe0,
                0x80 | (layer.picture >> 8) as u8,
                layer.picture as u8,
                layer.tl0,
                tid << 6 | u8::from(sync) << 5,
            ];
            if n == 0 {
                // RFC 6386, 9.1: bit 0 is clear in a key frame.
                payload.extend([u8::from(!key) | 0x10, 0, 0]);
                if key {
                    payload.extend([0x9d, 1, 0x2a]);
                    payload.extend((HEIGHTS[index] / 9 * 16).to_le_bytes());
                    payload.extend(HEIGHTS[index].to_le_bytes());
                }
            }
            payload.resize((bytes / count).max(30), 0x11);
            CameraPacket {
                layer: index,
                seq: layer.seq.wrapping_add(n as u16),
                timestamp: (ms * 90) as u32,
                marker: n + 1 == count,
                payload,
            }
        };
        let packets = (0..count).map(packet).collect();
        layer.seq = layer.seq.wrapping_add(count as u16);
        packets
    }
}

//! RTP packets of one layer of a camera: VP8 with the descriptor that browsers send (RFC 7741: 15-bit picture id,
//! TL0PICIDX, temporal layer and key index), true heads of frames, and a stamp at the end of each packet instead of
//! coded pixels.

pub const PAYLOAD_TYPE: u8 = 96;
/// Of retransmissions (RFC 4588) to viewers.
pub const RTX_PAYLOAD_TYPE: u8 = 97;
/// Of the smallest layer; the next has the next.
pub const SSRC: u32 = 0x1234_5678;
/// Heights of up to three layers, smallest first.
pub const HEIGHTS: [u16; 3] = [270, 540, 1080];
/// Their names in SDP.
pub const RIDS: [&str; 3] = ["q", "h", "f"];
/// Ids of header extensions, the same in all offers here.
pub const TWCC_ID: u8 = 3;
pub const MID_ID: u8 = 4;
pub const RID_ID: u8 = 5;

const DESCRIPTOR: usize = 6;
/// Frame tag, start code and size of a key frame (RFC 6386, 9.1).
const HEAD: usize = 10;
const STAMP: usize = 16;
const MAGIC: u16 = 0x6d75;
/// What a payload has at least.
pub const SMALLEST: usize = DESCRIPTOR + HEAD + STAMP;

/// What a packet carries to its viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was sent, in microseconds of the measurement's own clock.
    pub sent_us: u64,
    /// How many of its layer were sent before it.
    pub index: u32,
    /// The layer: of which peer, and which.
    pub source: SourceId,
}

/// One layer of one publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u16);

impl SourceId {
    /// Of the publisher `publisher`, below 2^14; `layer` is 0 to 2.
    pub fn new(publisher: usize, layer: usize) -> Self {
        Self((publisher << 2 | layer & 3) as u16)
    }

    pub fn publisher(self) -> usize {
        (self.0 >> 2).into()
    }

    pub fn layer(self) -> usize {
        (self.0 & 3).into()
    }
}

impl Stamp {
    /// Out of a whole plain RTP packet; None if it has none.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (_, stamp) = packet.split_last_chunk::<STAMP>()?;
        let (time, rest) = stamp.split_first_chunk::<8>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let (source, magic) = rest.split_first_chunk::<2>()?;
        (magic == MAGIC.to_be_bytes()).then(|| Self {
            sent_us: u64::from_be_bytes(*time),
            index: u32::from_be_bytes(*index),
            source: SourceId(u16::from_be_bytes(*source)),
        })
    }
}

/// What all packets of a frame have in common.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    pub key: bool,
    /// Of 90 kHz.
    pub timestamp: u32,
    /// Temporal layer, 0 to 3, and whether one may climb to it here.
    pub temporal: u8,
    pub sync: bool,
}

/// Where a packet stands in its frame, and what it has.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub first: bool,
    pub last: bool,
    /// Bytes of the payload; fewer than [`SMALLEST`] become that.
    pub payload: usize,
    pub sent_us: u64,
    /// Transport-wide sequence number, where the relay takes them.
    pub transport: Option<u16>,
}

/// A layer's numbers.
pub struct Layer {
    source: SourceId,
    rid: Option<&'static str>,
    index: u32,
    frames: u32,
    key_frames: u32,
    base_frames: u32,
    frame: Frame,
    buffer: Vec<u8>,
}

impl Layer {
    /// `rid` is written into each packet where there is one.
    pub fn new(source: SourceId, rid: Option<&'static str>) -> Self {
        Self {
            source,
            rid,
            index: 0,
            frames: 0,
            key_frames: 0,
            base_frames: 0,
            frame: Frame::default(),
            buffer: Vec::new(),
        }
    }

    pub fn ssrc(&self) -> u32 {
        SSRC + self.source.layer() as u32
    }

    /// Packets made so far.
    pub fn packets(&self) -> u32 {
        self.index
    }

    /// Of the RTP header with its extensions, in bytes.
    pub fn header(&self, transport: bool) -> usize {
        let extensions = self.rid.map_or(0, |rid| 1 + rid.len()) + if transport { 3 } else { 0 };
        12 + if extensions == 0 {
            0
        } else {
            4 + extensions.next_multiple_of(4)
        }
    }

    pub fn begin(&mut self, frame: Frame) {
        self.frames += 1;
        self.key_frames += u32::from(frame.key);
        self.base_frames += u32::from(frame.temporal == 0);
        self.frame = frame;
    }

    /// The next packet of the frame that was begun.
    pub fn packet(&mut self, part: Part) -> &[u8] {
        let frame = self.frame;
        self.buffer.clear();
        self.write_header(part);
        let out = &mut self.buffer;
        let end = out.len() + part.payload.max(SMALLEST);
        // X, and S at the start; then I, L, T and K.
        out.extend([0x80 | u8::from(part.first) << 4, 0xf0]);
        out.extend((0x8000 | (self.frames as u16 & 0x7fff)).to_be_bytes());
        let layer = frame.temporal << 6 | u8::from(frame.sync) << 5;
        out.extend([self.base_frames as u8, layer | (self.key_frames as u8 & 0x1f)]);
        if part.first {
            // RFC 6386, 9.1: shown, a first partition of 2000 bytes; bit 0 is clear in a key frame.
            let tag = u32::from(!frame.key) | 1 << 4 | 2000 << 5;
            out.extend(&tag.to_le_bytes()[..3]);
            if frame.key {
                let height = HEIGHTS[if self.rid.is_some() {
                    self.source.layer()
                } else {
                    2
                }];
                out.extend([0x9d, 0x01, 0x2a]);
                out.extend((height / 9 * 16).to_le_bytes());
                out.extend(height.to_le_bytes());
            }
        }
        out.resize(end - STAMP, self.index as u8);
        out.extend(part.sent_us.to_be_bytes());
        out.extend(self.index.to_be_bytes());
        out.extend(self.source.0.to_be_bytes());
        out.extend(MAGIC.to_be_bytes());
        self.index += 1;
        &self.buffer
    }

    fn write_header(&mut self, part: Part) {
        let length = self.header(part.transport.is_some());
        let (ssrc, out) = (self.ssrc(), &mut self.buffer);
        let extended = length > 12;
        out.extend([
            0x80 | u8::from(extended) << 4,
            PAYLOAD_TYPE | u8::from(part.last) << 7,
        ]);
        out.extend((self.index as u16).to_be_bytes());
        out.extend(self.frame.timestamp.to_be_bytes());
        out.extend(ssrc.to_be_bytes());
        if extended {
            // RFC 8285, 4.2
            out.extend([0xbe, 0xde, 0, ((length - 16) / 4) as u8]);
            if let Some(rid) = self.rid {
                out.push(RID_ID << 4 | (rid.len() as u8 - 1));
                out.extend(rid.as_bytes());
            }
            if let Some(number) = part.transport {
                out.push(TWCC_ID << 4 | 1);
                out.extend(number.to_be_bytes());
            }
            out.resize(length, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Part = Part {
        first: true,
        last: false,
        payload: 1000,
        sent_us: 77,
        transport: None,
    };

    #[test]
    fn a_frame_is_numbered_and_has_one_end() {
        let mut layer = Layer::new(SourceId::new(0, 0), None);
        layer.begin(Frame {
            timestamp: 3000,
            ..Frame::default()
        });
        for place in 0..9u8 {
            let part = Part {
                first: place == 0,
                last: place == 8,
                ..PART
            };
            let packet = layer.packet(part);
            assert_eq!(packet.len(), 12 + 1000);
            assert_eq!(
                (packet[0], packet[1] & 0x80 != 0, packet[3]),
                (0x80, place == 8, place)
            );
            assert_eq!(packet[4..8], 3000u32.to_be_bytes());
        }
        assert_eq!(layer.packets(), 9);
    }

    #[test]
    fn a_key_frame_begins_with_its_size() {
        let mut layer = Layer::new(SourceId::new(0, 0), None);
        let key = Frame {
            key: true,
            sync: true,
            ..Frame::default()
        };
        layer.begin(key);
        let head = &layer.packet(PART)[12..];
        assert_eq!(head[..DESCRIPTOR], [0x90, 0xf0, 0x80, 1, 1, 0x21]);
        assert_eq!(head[DESCRIPTOR] & 1, 0);
        let size = [0x9d, 0x01, 0x2a, 0x80, 0x07, 0x38, 0x04];
        assert_eq!(head[DESCRIPTOR + 3..][..7], size);
        let second = layer.packet(Part { first: false, ..PART });
        assert_eq!(second[12], 0x80, "S is set in the first packet only");
        layer.begin(Frame {
            temporal: 2,
            ..Frame::default()
        });
        let other = layer.packet(PART);
        assert_eq!(other[12 + DESCRIPTOR] & 1, 1);
        assert_eq!(
            other[12..][4..6],
            [1, 0x81],
            "not counted as a frame of the base layer"
        );
    }

    #[test]
    fn extensions_come_where_they_were_agreed() {
        let mut layer = Layer::new(SourceId::new(0, 2), Some("f"));
        layer.begin(Frame::default());
        let packet = layer.packet(Part {
            transport: Some(0x0102),
            ..PART
        });
        let packet = packet.to_vec();
        assert_eq!(packet[0], 0x90);
        assert_eq!(
            packet[12..24],
            [0xbe, 0xde, 0, 2, 0x50, b'f', 0x31, 1, 2, 0, 0, 0]
        );
        assert_eq!(packet.len(), layer.header(true) + 1000);
        assert_eq!((layer.header(true), layer.header(false)), (24, 20));
        assert_eq!(packet[8..12], (SSRC + 2).to_be_bytes());
    }

    #[test]
    fn the_stamp_is_read_back_and_nothing_else_is_one() {
        let source = SourceId::new(3, 2);
        let mut layer = Layer::new(source, None);
        layer.begin(Frame::default());
        layer.packet(PART);
        let small = Part { payload: 1, ..PART };
        let packet = layer.packet(small).to_vec();
        let expect = Stamp {
            sent_us: 77,
            index: 1,
            source,
        };
        assert_eq!(Stamp::read(&packet), Some(expect));
        assert_eq!((source.publisher(), source.layer()), (3, 2));
        assert_eq!(Stamp::read(&packet[..packet.len() - 1]), None);
        assert_eq!(Stamp::read(&[1, 2]), None);
    }
}

//! The container of a recording: WebM with VP8 and Opus, or Matroska with H.264 and Opus, written front to back.
//!
//! The segment has no length and no index, and each cluster is whole in itself with its length before it: what was
//! written up to any cluster plays, whatever became of the rest. Pure: packets and times in, bytes out. It encodes
//! nothing, and knows no file.

/// Number of a track in the file.
pub const VIDEO: u8 = 1;
pub const AUDIO: u8 = 2;

/// Bytes of a cluster, at most.
pub const MAX_CLUSTER: usize = 4 * 1024 * 1024;
/// Times in a cluster are counted from its own in 16 bits.
const MAX_SPAN_MS: i64 = 30_000;
/// From the Unix epoch to that of the container, 2001, in seconds.
const EPOCH_S: i64 = 978_307_200;

/// Begins an element: its id, and its length in 8 bytes.
fn element(id: u32, body: &[u8], to: &mut Vec<u8>) {
    let bytes = id.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    to.extend_from_slice(&bytes[zeros..]);
    to.extend_from_slice(&(body.len() as u64 | 1 << 56).to_be_bytes());
    to.extend_from_slice(body);
}

fn number(id: u32, value: u64, to: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    element(id, &bytes[zeros..], to);
}

fn text(id: u32, value: &str, to: &mut Vec<u8>) {
    element(id, value.as_bytes(), to);
}

/// The pictures of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Video {
    pub width: u16,
    pub height: u16,
    /// Of H.264 the parameter sets (`avcC`); none for VP8.
    pub avc: Option<Vec<u8>>,
}

/// What stands before the clusters. `begun_ms` is since the Unix epoch.
pub fn header(video: Option<&Video>, begun_ms: i64) -> Vec<u8> {
    let mut file = Vec::new();
    let mut body = Vec::new();
    // EBML: version, read version, longest id, longest length; type, its version and read version.
    for (id, value) in [(0x4286, 1), (0x42f7, 1), (0x42f2, 4), (0x42f3, 8)] {
        number(id, value, &mut body);
    }
    let is_avc = video.is_some_and(|video| video.avc.is_some());
    text(0x4282, if is_avc { "matroska" } else { "webm" }, &mut body);
    number(0x4287, 4, &mut body);
    number(0x4285, 2, &mut body);
    element(0x1a45_dfa3, &body, &mut file);
    // The segment, of unknown length.
    file.extend_from_slice(&[
        0x18, 0x53, 0x80, 0x67, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ]);

    body.clear();
    number(0x002a_d7b1, 1_000_000, &mut body);
    text(0x4d80, "muster", &mut body);
    text(0x5741, "muster-edge", &mut body);
    let date = (begun_ms - EPOCH_S * 1000).saturating_mul(1_000_000);
    element(0x4461, &date.to_be_bytes(), &mut body);
    element(0x1549_a966, &body, &mut file);

    body.clear();
    if let Some(video) = video {
        element(0xae, &video_track(video), &mut body);
    }
    element(0xae, &audio_track(), &mut body);
    element(0x1654_ae6b, &body, &mut file);
    file
}

fn track(track: u8, kind: u64, codec: &str) -> Vec<u8> {
    let mut body = Vec::new();
    number(0xd7, track.into(), &mut body);
    number(0x73c5, track.into(), &mut body);
    number(0x83, kind, &mut body);
    number(0x9c, 0, &mut body);
    text(0x86, codec, &mut body);
    body
}

fn video_track(video: &Video) -> Vec<u8> {
    let codec = if video.avc.is_some() {
        "V_MPEG4/ISO/AVC"
    } else {
        "V_VP8"
    };
    let mut body = track(VIDEO, 1, codec);
    if let Some(private) = &video.avc {
        element(0x63a2, private, &mut body);
    }
    let mut picture = Vec::new();
    number(0xb0, video.width.into(), &mut picture);
    number(0xba, video.height.into(), &mut picture);
    element(0xe0, &picture, &mut body);
    body
}

fn audio_track() -> Vec<u8> {
    let mut body = track(AUDIO, 2, "A_OPUS");
    number(0x56bb, 80_000_000, &mut body);
    // OpusHead: version 1, 2 channels, no pre-skip, 48 kHz, no gain, mapping 0.
    let head = [b"OpusHead".as_slice(), &[1, 2, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0]].concat();
    element(0x63a2, &head, &mut body);
    let mut sound = Vec::new();
    element(0xb5, &48_000_f64.to_be_bytes(), &mut sound);
    number(0x9f, 2, &mut sound);
    element(0xe1, &sound, &mut body);
    body
}

/// Packets of a stretch of time.
#[derive(Debug)]
pub struct Cluster {
    /// Since the file began.
    start_ms: i64,
    blocks: Vec<u8>,
}

impl Cluster {
    /// One that begins at this time of the file.
    pub fn new(start_ms: i64) -> Self {
        Self {
            start_ms,
            blocks: Vec::new(),
        }
    }

    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// Takes a packet in. `false`: it does not fit, and wants a cluster of its own.
    pub fn push(&mut self, track: u8, at_ms: i64, key: bool, data: &[u8]) -> bool {
        let after = at_ms - self.start_ms;
        if !(0..=MAX_SPAN_MS).contains(&after) || self.blocks.len() + data.len() > MAX_CLUSTER {
            return false;
        }
        let after = i16::try_from(after).unwrap_or(i16::MAX).to_be_bytes();
        let flags = if key { 0x80 } else { 0 };
        let block = [&[0x80 | track, after[0], after[1], flags], data].concat();
        element(0xa3, &block, &mut self.blocks);
        true
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The whole cluster.
    pub fn finish(self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.blocks.len() + 16);
        number(0xe7, self.start_ms.max(0).unsigned_abs(), &mut body);
        body.extend_from_slice(&self.blocks);
        let mut file = Vec::with_capacity(body.len() + 12);
        element(0x1f43_b675, &body, &mut file);
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_their_lengths_and_numbers_no_zeros_before_them() {
        let mut bytes = Vec::new();
        number(0xd7, 0, &mut bytes);
        number(0x002a_d7b1, 1_000_000, &mut bytes);
        assert_eq!(
            bytes,
            [
                0xd7, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0x2a, 0xd7, 0xb1, 1, 0, 0, 0, 0, 0, 0, 3, 0x0f, 0x42, 0x40
            ]
        );
    }

    #[test]
    fn a_cluster_takes_what_fits_its_time_and_its_size() {
        let mut cluster = Cluster::new(1000);
        assert!(cluster.push(VIDEO, 1000, true, b"key"));
        assert!(cluster.push(AUDIO, 31_000, true, b"sound"));
        assert!(!cluster.push(AUDIO, 999, true, b"before"));
        assert!(!cluster.push(AUDIO, 31_001, true, b"later"));
        assert!(!cluster.push(VIDEO, 1001, true, &vec![0; MAX_CLUSTER]));
        let bytes = cluster.finish();
        let length = u64::from_be_bytes(bytes[4..12].try_into().expect("8")) & !(1 << 56);
        assert_eq!(length as usize, bytes.len() - 12);
    }
}

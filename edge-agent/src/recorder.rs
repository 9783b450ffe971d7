//! The record of an outage: what the site would have sent, kept on the box until it is of use to somebody.
//!
//! It takes the source's own packets, puts frames together and cuts them into clusters of two seconds; a thread of its own
//! writes those ([`disk`]). Invariants: nothing here waits for the disk, and what waits to be written is bounded; a disk
//! that is too slow costs clusters, which are counted. It asks nothing of the encoder but a key frame at the start of each
//! file; a camera that makes none on demand begins it with its next one.

mod avc;
pub mod disk;
mod webm;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_link::rtp::LinkRtp;
use muster_proto::media::v1::{LinkSource, SourceKind};
use muster_testcard::rtp::Depacketizer;
use muster_testcard::vp8;
use serde::Serialize;
use tokio::sync::watch;

use disk::Disk;
pub use disk::{Limits, Recording};
use webm::{AUDIO, Cluster, VIDEO, Video};

/// A cluster is written after so long: what a power cut costs, at most.
const CLUSTER: Duration = Duration::from_secs(2);
/// A file is followed by another after so long, so that the oldest can go.
const FILE: Duration = Duration::from_secs(300);
/// Between two requests for the key frame with which the next file begins.
const KEY_GAP: Duration = Duration::from_secs(2);
/// Clusters that wait for the disk.
const QUEUE: usize = 8;

/// What is recorded, as it is told.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Told {
    /// Since when a recording goes on, milliseconds since the Unix epoch; none while none does.
    pub since_ms: Option<i64>,
    /// Oldest first.
    pub list: Vec<Recording>,
    /// Why the last one ended, or did not begin, where the disk was the reason.
    pub fault: Option<String>,
}

enum Job {
    /// When, and what stands before the clusters.
    Begin(i64, Vec<u8>),
    /// When it ends.
    Cluster(i64, Vec<u8>),
    End(i64),
}

/// Records while it is told to.
#[derive(Debug)]
pub struct Recorder {
    jobs: SyncSender<Job>,
    told: watch::Receiver<Told>,
    take: Option<Take>,
}

/// A recording that goes on, perhaps over several files.
#[derive(Debug)]
struct Take {
    video: Option<u64>,
    audio: Option<u64>,
    pictures: Pictures,
    file: Option<Open>,
    asked: Option<Instant>,
}

/// What puts the pictures together.
#[derive(Debug)]
enum Pictures {
    Vp8(Depacketizer),
    /// With the size that the source tells.
    Avc(avc::Assembler, (u16, u16)),
}

impl Pictures {
    /// The picture that this packet makes whole; with a key frame what a file that begins with it has to say.
    fn push(&mut self, rtp: &LinkRtp<'_>) -> Option<(Vec<u8>, Option<Video>)> {
        match self {
            Self::Vp8(depacketizer) => {
                let frame = depacketizer.push(rtp.seq, rtp.timestamp, rtp.marker, rtp.payload)?;
                let video = vp8::key_frame_size(frame).map(|(width, height)| Video {
                    width,
                    height,
                    avc: None,
                });
                Some((frame.to_vec(), video))
            }
            Self::Avc(assembler, (width, height)) => {
                let picture = assembler.push(rtp.seq, rtp.timestamp, rtp.marker, rtp.payload)?;
                let video = picture.private.map(|private| Video {
                    width: *width,
                    height: *height,
                    avc: Some(private),
                });
                Some((picture.data, video))
            }
        }
    }
}

#[derive(Debug)]
struct Open {
    begun: Instant,
    video: Option<Video>,
    cluster: Cluster,
}

impl Recorder {
    /// Records into this folder. The thread that writes ends with it.
    pub fn new(dir: PathBuf, limits: Limits) -> Self {
        Self::with_queue(dir, limits, QUEUE)
    }

    fn with_queue(dir: PathBuf, limits: Limits, length: usize) -> Self {
        let (jobs, queue) = sync_channel(length);
        let first = Told {
            list: disk::list(&dir).unwrap_or_default(),
            ..Told::default()
        };
        let (teller, told) = watch::channel(first);
        let writer = std::thread::Builder::new().name("recorder".into());
        if let Err(error) = writer.spawn(move || write(&dir, limits, &queue, &teller)) {
            tracing::error!(%error, "nothing can be recorded");
        }
        Self {
            jobs,
            told,
            take: None,
        }
    }

    /// What there is, now and from now on.
    pub fn subscribe(&self) -> watch::Receiver<Told> {
        self.told.clone()
    }

    pub fn is_on(&self) -> bool {
        self.take.is_some()
    }

    /// Begins to record the largest layer of the camera, and the sound. The first file begins with the next key frame.
    pub fn begin(&mut self, sources: &[LinkSource]) {
        let of = |kind: SourceKind, codec: &str| {
            let source = sources
                .iter()
                .find(|source| source.kind() == kind && source.codec.eq_ignore_ascii_case(codec))?;
            source.layers.iter().max_by_key(|layer| layer.width)
        };
        let camera = of(SourceKind::Camera, "VP8");
        let h264 = of(SourceKind::Camera, "H264");
        let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX).max(1);
        let pictures = match h264.filter(|_| camera.is_none()) {
            Some(layer) => Pictures::Avc(avc::Assembler::default(), (side(layer.width), side(layer.height))),
            None => Pictures::Vp8(Depacketizer::default()),
        };
        self.take = Some(Take {
            video: camera.or(h264).map(|layer| layer.flow),
            audio: of(SourceKind::Audio, "opus").map(|layer| layer.flow),
            pictures,
            file: None,
            asked: None,
        });
    }

    /// Takes in a datagram as it would go to the relay: flow and RTP packet.
    pub fn push(&mut self, now: Instant, now_ms: i64, datagram: &Bytes) {
        let Some(take) = &mut self.take else { return };
        let Some((flow, packet)) = split(datagram) else {
            return;
        };
        let Ok(rtp) = LinkRtp::parse(packet) else { return };
        if take.video == Some(flow) {
            if let Some((frame, video)) = take.pictures.push(&rtp) {
                self.take_frame(now, now_ms, &frame, video);
            }
        } else if take.audio == Some(flow) && !rtp.payload.is_empty() {
            if take.video.is_none() && take.file.as_ref().is_none_or(|file| now >= file.begun + FILE) {
                self.open(now, now_ms, None);
            }
            self.add(now, now_ms, (AUDIO, true), rtp.payload);
        }
    }

    /// The flow of which the next file wants a key frame.
    pub fn wants_key(&mut self, now: Instant) -> Option<u64> {
        let take = self.take.as_mut()?;
        let due = take.file.as_ref().is_none_or(|file| now >= file.begun + FILE);
        if !due || take.asked.is_some_and(|asked| now < asked + KEY_GAP) {
            return None;
        }
        take.asked = Some(now);
        take.video
    }

    /// Ends the recording.
    pub fn end(&mut self, now_ms: i64) {
        self.close(now_ms);
        self.take = None;
        // The thread takes what came before; while its queue is full it is not in time to be told, but ends by itself.
        self.put(Job::End(now_ms));
    }

    /// `video`: of a key frame.
    fn take_frame(&mut self, now: Instant, now_ms: i64, frame: &[u8], video: Option<Video>) {
        let is_key = video.is_some();
        let file = self.take.as_ref().and_then(|take| take.file.as_ref());
        let follows = file.is_none_or(|file| now >= file.begun + FILE || file.video != video);
        if is_key && follows {
            self.open(now, now_ms, video);
        }
        self.add(now, now_ms, (VIDEO, is_key), frame);
    }

    fn open(&mut self, now: Instant, now_ms: i64, video: Option<Video>) {
        self.close(now_ms);
        if self.put(Job::Begin(now_ms, webm::header(video.as_ref(), now_ms)))
            && let Some(take) = &mut self.take
        {
            take.file = Some(Open {
                begun: now,
                video,
                cluster: Cluster::new(0),
            });
        }
    }

    /// Adds a packet to the file, if there is one.
    fn add(&mut self, now: Instant, now_ms: i64, (track, key): (u8, bool), data: &[u8]) {
        let Some(file) = self.take.as_mut().and_then(|take| take.file.as_mut()) else {
            return;
        };
        let at_ms = i64::try_from(now.duration_since(file.begun).as_millis()).unwrap_or(i64::MAX);
        let is_old = at_ms - file.cluster.start_ms() >= CLUSTER.as_millis() as i64;
        if !is_old && file.cluster.push(track, at_ms, key, data) {
            return;
        }
        let full = std::mem::replace(&mut file.cluster, Cluster::new(at_ms));
        if !file.cluster.push(track, at_ms, key, data) {
            tracing::warn!(bytes = data.len(), "a frame is too large to be recorded");
        }
        if !full.is_empty() {
            self.put(Job::Cluster(now_ms, full.finish()));
        }
    }

    fn close(&mut self, now_ms: i64) {
        if let Some(file) = self.take.as_mut().and_then(|take| take.file.take())
            && !file.cluster.is_empty()
        {
            self.put(Job::Cluster(now_ms, file.cluster.finish()));
        }
    }

    /// Hands a job on; `false` if it is lost.
    fn put(&self, job: Job) -> bool {
        match self.jobs.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                tracing::warn!("the disk is too slow for the recording: a piece is lost");
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Does the jobs until nobody has any more; what goes on then is ended.
fn write(dir: &std::path::Path, limits: Limits, jobs: &Receiver<Job>, told: &watch::Sender<Told>) {
    // Only once there is something to record: most boxes never have.
    let mut disk = None;
    while let Ok(job) = jobs.recv() {
        let (since_ms, result) = do_job(dir, limits, &mut disk, job);
        if let Err(error) = &result {
            tracing::error!(%error, "recording");
        }
        let list = disk.as_ref().map(Disk::list).unwrap_or_default();
        told.send_modify(|told| {
            let goes_on = list.iter().any(|one| one.going);
            told.since_ms = told.since_ms.or(since_ms).filter(|_| goes_on);
            told.list = list;
            told.fault = result
                .err()
                .map(|error| error.to_string())
                .or(told.fault.take().filter(|_| !goes_on));
        });
    }
}

fn do_job(
    dir: &std::path::Path,
    limits: Limits,
    disk: &mut Option<Disk>,
    job: Job,
) -> (Option<i64>, std::io::Result<()>) {
    let disk = match disk {
        Some(disk) => disk,
        none => match Disk::open(dir, limits) {
            Ok(opened) => none.insert(opened),
            Err(error) => return (None, Err(error)),
        },
    };
    match job {
        Job::Begin(from_ms, header) => (Some(from_ms), disk.begin(from_ms, &header)),
        Job::Cluster(to_ms, cluster) => (None, disk.add(to_ms, &cluster)),
        Job::End(to_ms) => (None, disk.end(to_ms)),
    }
}

/// Flow and packet of a datagram: the flow is a QUIC varint (RFC 9000 section 16).
fn split(datagram: &[u8]) -> Option<(u64, &[u8])> {
    let first = *datagram.first()?;
    let length = 1 << (first >> 6);
    let (flow, packet) = datagram.split_at_checked(length)?;
    let value = flow[1..].iter().fold(u64::from(first & 0x3f), |value, byte| {
        value << 8 | u64::from(*byte)
    });
    Some((value, packet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::{Card, Publish as _};
    use muster_testcard::{Names, PictureSize};
    use std::path::Path;
    use std::process::Command;

    const PLENTY: Limits = Limits {
        most: 1 << 30,
        keep_free: 0,
    };

    /// Records the test card for so many seconds of its own time. Returns when all is written.
    fn recorded(dir: &Path, seconds: u64) -> Vec<Recording> {
        let names = Names {
            chinese: "三号",
            english: "Three",
        };
        let mut card = Card::new(PictureSize::P180_5, "S1", names, 480, [1, 2, 3, 4, 5, 6]);
        // Virtual time is faster than a disk.
        let mut recorder = Recorder::with_queue(dir.to_owned(), PLENTY, 10_000);
        let told = recorder.subscribe();
        let begun = Instant::now();
        recorder.begin(&card.sources(false));
        card.start(begun, false);
        let mut now = begun;
        while now < begun + Duration::from_secs(seconds) {
            let now_ms = 1_000_000 + (now - begun).as_millis() as i64;
            card.handle_timeout(now, now_ms, &mut |datagram| recorder.push(now, now_ms, &datagram));
            if let Some(flow) = recorder.wants_key(now) {
                card.request_key_frame(now, flow);
            }
            now = card
                .poll_timeout()
                .map_or(now + CLUSTER, |next| next.max(now + Duration::from_millis(1)));
        }
        let end_ms = 1_000_000 + seconds as i64 * 1000;
        recorder.end(end_ms);
        let ended = |told: &Told| {
            told.list
                .last()
                .is_some_and(|last| !last.going && last.to_ms == end_ms)
        };
        while !ended(&told.borrow()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        told.borrow().list.clone()
    }

    /// How many packets of picture and sound there are, and whether all that was decoded was whole.
    fn probe(file: &Path) -> (u64, u64, String) {
        let output = Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-count_frames",
                "-show_entries",
                "stream=codec_name,nb_read_frames",
            ])
            .args(["-of", "csv=p=0"])
            .arg(file)
            .output()
            .expect("ffprobe");
        let text = String::from_utf8_lossy(&output.stdout);
        let count = |codec: &str| {
            let line = text.lines().find(|line| line.starts_with(codec));
            line.and_then(|line| line.split(',').nth(1)?.trim().parse().ok())
                .unwrap_or(0)
        };
        (
            count("vp8"),
            count("opus"),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    #[test]
    fn a_recording_plays_whole_and_cut_at_any_cluster_up_to_there() {
        let dir = tempfile::tempdir().expect("folder");
        let all = recorded(dir.path(), 9);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(
            (1_000_000..1_000_300).contains(&all[0].from_ms) && all[0].to_ms == 1_009_000,
            "{all:?}"
        );
        let path = dir.path().join(&all[0].name);
        let (pictures, sounds, errors) = probe(&path);
        assert!(
            (40..=46).contains(&pictures) && sounds > 20,
            "{pictures} pictures, {sounds} sounds: {errors}"
        );
        assert_eq!(errors, "");

        let bytes = std::fs::read(&path).expect("read");
        let id = [0x1f, 0x43, 0xb6, 0x75];
        let clusters: Vec<_> = (0..bytes.len())
            .filter(|at| bytes[*at..].starts_with(&id))
            .collect();
        assert!(clusters.len() >= 4, "{clusters:?}");
        let mut last = 0;
        // In the middle of each cluster but the first: what came before it plays.
        for (before, pair) in clusters.windows(2).enumerate().skip(1) {
            let cut = dir.path().join("cut");
            std::fs::write(&cut, &bytes[..usize::midpoint(pair[0], pair[1])]).expect("cut");
            let (pictures, _, _) = probe(&cut);
            assert!(
                pictures >= 8 * before as u64 && pictures >= last,
                "{pictures} pictures of {before} clusters"
            );
            last = pictures;
        }
    }

    /// A camera's H.264 as ffmpeg makes it, an access unit with lengths each.
    fn camera() -> Vec<Vec<u8>> {
        let made = Command::new("ffmpeg")
            .args("-v error -f lavfi -i testsrc2=size=320x180:rate=15:duration=6 -c:v libx264 -preset ultrafast".split(' '))
            .args("-bf 0 -g 30 -threads 1 -pix_fmt yuv420p -x264-params aud=1:sliced-threads=0 -f h264 -".split(' '))
            .output()
            .expect("ffmpeg");
        let bytes = made.stdout;
        let starts: Vec<usize> = (3..bytes.len())
            .filter(|at| bytes[at - 3..*at] == [0, 0, 1])
            .collect();
        let mut units: Vec<Vec<u8>> = Vec::new();
        for (place, &start) in starts.iter().enumerate() {
            let end = starts.get(place + 1).map_or(bytes.len(), |next| next - 3);
            let nal = bytes[start..end].strip_suffix(&[0]).unwrap_or(&bytes[start..end]);
            if nal[0] & 0x1f == 9 {
                units.push(Vec::new());
            }
            let unit = units.last_mut().expect("a delimiter first");
            unit.extend_from_slice(&(nal.len() as u32).to_be_bytes());
            unit.extend_from_slice(nal);
        }
        units
    }

    #[test]
    fn a_cameras_h264_is_recorded_and_a_lost_packet_costs_it_up_to_the_next_key_frame() {
        use crate::publisher::{AUDIO_FLOW, CAMERA_FLOW, h264};
        use muster_link::rtp::{PT_H264, PT_OPUS};
        use muster_proto::media::v1::LinkLayer;

        let source = |kind: SourceKind, codec: &str, flow| LinkSource {
            kind: kind.into(),
            codec: codec.into(),
            layers: vec![LinkLayer {
                flow,
                width: 320,
                height: 180,
                max_bps: 1,
            }],
        };
        let dir = tempfile::tempdir().expect("folder");
        let mut recorder = Recorder::with_queue(dir.path().to_owned(), PLENTY, 1000);
        let told = recorder.subscribe();
        recorder.begin(&[
            source(SourceKind::Camera, "H264", CAMERA_FLOW),
            source(SourceKind::Audio, "opus", AUDIO_FLOW),
        ]);
        let (begun, mut scratch, mut seq) = (Instant::now(), bytes::BytesMut::new(), 0u16);
        for (index, unit) in camera().iter().enumerate() {
            let now = begun + Duration::from_millis(1000 * index as u64 / 15);
            let now_ms = 1_000_000 + (now - begun).as_millis() as i64;
            let mut push = |flow, payload_type, seq, marker, payload: &[u8]| {
                let packet = LinkRtp {
                    payload_type,
                    marker,
                    seq,
                    timestamp: index as u32 * 6000,
                    audio_level: None,
                    payload,
                };
                recorder.push(now, now_ms, &packet.to_datagram(flow, &mut scratch));
            };
            push(AUDIO_FLOW, PT_OPUS, index as u16, false, &[0xf8, 0xff, 0xfe]);
            h264::packetize(unit, |payload, marker| {
                seq += 1;
                // A packet of the 40th picture is lost: 20 pictures until the next key frame.
                if index != 40 || !marker {
                    push(CAMERA_FLOW, PT_H264, seq, marker, payload);
                }
            });
        }
        recorder.end(1_006_000);
        while told
            .borrow()
            .list
            .last()
            .is_none_or(|last| last.going || last.to_ms != 1_006_000)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let name = told.borrow().list[0].name.clone();
        assert_eq!(name, "1000000-1006000.mkv");
        let path = dir.path().join(&name);
        let (_, sounds, errors) = probe(&path);
        // The file begins with the first picture, which came after the first sound.
        assert_eq!((sounds, errors.as_str()), (89, ""));
        let pictures = Command::new("ffprobe")
            .args("-v error -select_streams v -count_frames -show_entries stream=nb_read_frames,codec_name,width -of csv=p=0".split(' '))
            .arg(&path)
            .output()
            .expect("ffprobe");
        assert_eq!(String::from_utf8_lossy(&pictures.stdout).trim(), "h264,320,70");
    }

    #[test]
    fn a_long_recording_is_cut_into_files_that_begin_with_a_key_frame() {
        let dir = tempfile::tempdir().expect("folder");
        let all = recorded(dir.path(), 303);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].to_ms <= all[1].from_ms + 2000 && all[1].to_ms == 1_303_000);
        for one in &all {
            let (pictures, _, errors) = probe(&dir.path().join(&one.name));
            assert!(pictures > 5 && errors.is_empty(), "{one:?}: {pictures}, {errors}");
        }
    }

    #[test]
    fn flows_are_read_as_they_are_written() {
        for flow in [1, 63, 64, 16_383, 16_384, 1 << 30] {
            let packet = LinkRtp {
                payload_type: 96,
                marker: true,
                seq: 1,
                timestamp: 2,
                audio_level: None,
                payload: b"x",
            };
            let mut scratch = bytes::BytesMut::new();
            let datagram = packet.to_datagram(flow, &mut scratch);
            assert_eq!(split(&datagram).map(|(flow, _)| flow), Some(flow));
        }
        assert_eq!(split(&[]), None);
        assert_eq!(split(&[0xc0, 1]), None);
    }
}

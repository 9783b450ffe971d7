//! The repair core over the link profiles, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use muster_link::repair::wire::Datagram;
use muster_link::repair::{Budget, Class, Micros, Packet, Receiver, Sender, Terms, rate::Bounds};
use muster_linkshape::{Direction, Network, Profile};

const QUIC: usize = 29;

struct Frame {
    captured: Micros,
    missing: usize,
    complete: Option<Micros>,
    key: bool,
    audio: bool,
}

/// Bodies begin with the frame's id: what a body costs is real, what it says is for the test.
struct Source {
    frames: BTreeMap<u32, Frame>,
    next: u32,
    next_video: Micros,
    next_audio: Micros,
    bytes: u64,
    key: bool,
    most: u64,
}

impl Source {
    fn new(most: u64) -> Self {
        Self {
            frames: BTreeMap::new(),
            next: 0,
            next_video: 0,
            next_audio: 0,
            bytes: 0,
            key: true,
            most,
        }
    }

    fn body(&mut self, frame: u32, len: usize) -> Bytes {
        let mut body = BytesMut::with_capacity(len);
        body.put_u32(frame);
        body.resize(len.max(16), 0);
        self.bytes += body.len() as u64 - 1;
        body.freeze()
    }

    fn tick(&mut self, now: Micros, sender: &mut Sender) {
        if now >= self.next_audio {
            self.next_audio += 20_000;
            let id = self.next;
            self.next += 1;
            let body = self.body(id, 93);
            self.frames.insert(
                id,
                Frame {
                    captured: now,
                    missing: 1,
                    complete: None,
                    key: false,
                    audio: true,
                },
            );
            sender.push(
                now,
                Packet {
                    class: Class::Audio,
                    captured: now,
                    end: false,
                    body,
                },
            );
        }
        if now >= self.next_video {
            let rate = sender.source_rate(now).min(self.most).saturating_sub(40_000);
            let fps = match rate {
                300_000.. => 30,
                100_000.. => 10,
                20_000.. => 2,
                _ => 0,
            };
            if fps == 0 {
                self.next_video = now + 33_333;
                return;
            }
            self.next_video = now + 1_000_000 / fps;
            let size = (rate / fps / 8) as usize;
            let size = if self.key { size * 3 } else { size };
            let id = self.next;
            self.next += 1;
            let packets = size.div_ceil(1157).max(1);
            self.frames.insert(
                id,
                Frame {
                    captured: now,
                    missing: packets,
                    complete: None,
                    key: self.key,
                    audio: false,
                },
            );
            self.key = false;
            for packet in 0..packets {
                let body = self.body(id, size / packets);
                let end = packet + 1 == packets;
                sender.push(
                    now,
                    Packet {
                        class: Class::Video,
                        captured: now,
                        end,
                        body,
                    },
                );
            }
        }
    }
}

fn run(profile: &str, seed: u64, seconds: u64, terms: Terms, most: u64) {
    let text = std::fs::read_to_string(format!("../../data/links/{profile}.csv")).expect("profile");
    let profile_data = Arc::new(Profile::parse(profile, &text).expect("profile"));
    let mut network = Network::new(profile_data, seed);
    let mut sender = Sender::new(Budget::Fixed(terms), Bounds::default());
    let mut receiver = Receiver::new();
    let mut source = Source::new(most);
    let mut scratch = BytesMut::new();
    let mut now = 0;
    let verbose = std::env::var("VERBOSE").is_ok();
    let mut next_print = 0;
    let end = seconds * 1_000_000;
    let mut fb_bytes = 0usize;
    let mut queue_max = 0;
    while now < end + 1_000_000 {
        if now < end {
            source.tick(now, &mut sender);
        }
        while let Some((direction, bytes)) = network.pop(now).map(|a| (a.0, a.1)) {
            let bytes = bytes.slice(..bytes.len() - QUIC);
            match (direction, Datagram::read(&bytes).expect("ours")) {
                (Direction::Down, Datagram::Feedback(feedback)) => sender.feedback(now, &feedback),
                (Direction::Up, datagram) => receiver
                    .take(now + 77_000_000, datagram, &mut |body: Bytes| {
                        let id = u32::from_be_bytes(*body.first_chunk().expect("id"));
                        let frame = source.frames.get_mut(&id).expect("frame");
                        frame.missing -= 1;
                        if frame.missing == 0 {
                            frame.complete = Some(now);
                        }
                    })
                    .expect("ours"),
                other => panic!("{other:?}"),
            }
        }
        let pad = |datagram: Bytes| {
            let mut out = BytesMut::from(&datagram[..]);
            out.resize(datagram.len() + QUIC, 0);
            out.freeze()
        };
        while let Some(feedback) = receiver.poll(now + 77_000_000, &mut scratch) {
            fb_bytes += feedback.len() + QUIC + 28;
            network.send(now, Direction::Down, pad(feedback));
        }
        while let Some(datagram) = sender.poll(now, &mut scratch) {
            network.send(now, Direction::Up, pad(datagram));
        }
        if verbose && now >= next_print {
            next_print = now + 500_000;
            eprintln!(
                "{:.1}s rate {} src {} rtt {} queue {} jitter {} loss {:.3} dark {}",
                now as f64 / 1e6,
                sender.rate() / 1000,
                sender.source_rate(now) / 1000,
                sender.path().rtt() / 1000,
                sender.path().queue() / 1000,
                sender.path().jitter() / 1000,
                sender.loss().share(),
                sender.is_dark(now)
            );
        }
        queue_max = queue_max.max(sender.path().queue());
        now += 250;
    }
    let video: Vec<_> = source.frames.values().filter(|f| !f.audio).collect();
    let audio: Vec<_> = source.frames.values().filter(|f| f.audio).collect();
    let miss = video
        .iter()
        .filter(|f| f.complete.is_none_or(|at| at > f.captured + terms.video_deadline))
        .count();
    let kept = audio
        .iter()
        .filter(|f| {
            f.complete
                .is_some_and(|at| at <= f.captured + terms.audio_deadline)
        })
        .count();
    let mut delays: Vec<_> = video
        .iter()
        .filter_map(|f| f.complete.map(|at| at - f.captured))
        .collect();
    delays.sort_unstable();
    let stats = sender.stats();
    let p = |q: f64| {
        delays
            .get(((delays.len() as f64 - 1.0) * q) as usize)
            .copied()
            .unwrap_or(0)
            / 1000
    };
    eprintln!(
        "{profile:11} seed {seed}: frames {} miss {:.2}% audio {:.2}% overhead {:.1}% delay p50 {} p95 {} p99 {} kbps {} qmax {} fb_kbps {} again {} parity {} exp {} aband {} {:?}",
        video.len(),
        miss as f64 * 100.0 / video.len() as f64,
        kept as f64 * 100.0 / audio.len() as f64,
        (stats.wire_bytes as f64 / source.bytes as f64 - 1.0) * 100.0,
        p(0.5),
        p(0.95),
        p(0.99),
        source.bytes * 8000 / end.max(1),
        queue_max / 1000,
        fb_bytes as u64 * 8 * 1000 / end,
        stats.again,
        stats.parity,
        stats.expired,
        stats.abandoned,
        receiver.stats()
    );
    let _ = video.iter().filter(|f| f.key).count();
}

#[test]
fn profiles() {
    let only = std::env::var("PROFILE").unwrap_or_default();
    let t = |v, a| Terms {
        video_deadline: v,
        audio_deadline: a,
    };
    for (profile, terms) in [
        ("clean", t(200_000, 400_000)),
        ("loss10", t(200_000, 400_000)),
        ("loss30", t(200_000, 400_000)),
        ("loss80", t(200_000, 400_000)),
        ("village-4g", t(400_000, 400_000)),
        ("adsl-rain", t(400_000, 400_000)),
        ("satellite", t(800_000, 800_000)),
        ("thin", t(1_000_000, 400_000)),
        ("flap", t(200_000, 400_000)),
    ] {
        if only.is_empty() || only == profile {
            for seed in 1..3 {
                run(profile, seed, 60, terms, 2_500_000);
            }
        }
    }
}

//! A camera as a source: its H.264 passed on as it comes, in one or two layers, and its sound made into Opus.
//!
//! A camera obeys no request for a key frame. So of each layer the last group of pictures is kept, and sent again at once,
//! for who comes late (see [`Layer`]). A plain value: what the camera says comes in as [`FeedEvent`].

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use muster_proto::media::v1::{LinkLayer, LinkSource, SourceKind};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::feed::{FeedEvent, Picture};
use super::layer::Layer;
use super::sound::{self, Sound};
use super::{AUDIO_FLOW, Checked, Fault, Publish, Seed, Send, Stream};

/// Sound packets that wait, at most; older ones are let go.
const MOST_SOUND: usize = 50;

/// What the agent wants of a camera that is only opened when it is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub pictures: bool,
    pub sound: bool,
}

/// The camera of a site.
#[derive(Debug)]
pub struct Camera {
    /// The smallest first.
    layers: Vec<Layer>,
    sound: Sound,
    sound_out: VecDeque<Bytes>,
    /// Where timestamps count from: the first start.
    origin: Option<Instant>,
    /// In a leg.
    live: bool,
    audio_only: bool,
    demand: watch::Sender<Demand>,
    /// Of a camera that is open only while it is wanted.
    device: Option<PathBuf>,
    /// The microphone delivered nothing when it was wanted last.
    deaf: bool,
    /// Feed the camera; they end with it.
    _tasks: JoinSet<()>,
    scratch: BytesMut,
}

impl Camera {
    /// Of `layers` streams, fed by `tasks`.
    pub fn new(layers: usize, demand: watch::Sender<Demand>, tasks: JoinSet<()>, seed: Seed) -> Self {
        Self {
            layers: (0..layers)
                .map(|index| Layer::new(index, index + 1 == layers, seed))
                .collect(),
            sound: Sound::new(Stream {
                seq: seed[4],
                timestamp: u32::from(seed[5]) << 8,
            }),
            sound_out: VecDeque::new(),
            origin: None,
            live: false,
            audio_only: false,
            demand,
            device: None,
            deaf: false,
            _tasks: tasks,
            scratch: BytesMut::new(),
        }
    }

    /// One that is opened only while it is wanted; whether its device is there can be seen all the same.
    pub fn on_demand(self, device: PathBuf) -> Self {
        Self {
            device: Some(device),
            ..self
        }
    }

    fn layer(&mut self, flow: u64) -> Option<&mut Layer> {
        self.layers.iter_mut().find(|layer| layer.flow == flow)
    }

    fn since_start(&self, now: Instant) -> Duration {
        self.origin
            .map_or(Duration::ZERO, |origin| now.saturating_duration_since(origin))
    }

    fn handle_picture(&mut self, now: Instant, layer: usize, picture: Picture) {
        let since_start = self.since_start(now);
        let wanted = self.live && !self.audio_only;
        if let Some(layer) = self.layers.get_mut(layer) {
            layer.keep(&picture);
            if wanted && !layer.paused {
                layer.enqueue(now, since_start, picture);
            }
        }
    }

    fn handle_sound(&mut self, now: Instant, data: &[u8]) {
        if !self.live {
            return;
        }
        let (since_start, out) = (self.since_start(now), &mut self.sound_out);
        self.sound.push(since_start, data, &mut self.scratch, |datagram| {
            if out.len() == MOST_SOUND {
                out.pop_front();
            }
            out.push_back(datagram);
        });
    }
}

impl Publish for Camera {
    fn sources(&self, audio_only: bool) -> Vec<LinkSource> {
        let layers = self.layers.iter().map(|layer| LinkLayer {
            flow: layer.flow,
            width: layer.size.0,
            height: layer.size.1,
            max_bps: layer.most_bps(),
        });
        let camera = LinkSource {
            kind: SourceKind::Camera.into(),
            codec: "H264".into(),
            layers: layers.collect(),
        };
        let sound = LinkSource {
            kind: SourceKind::Audio.into(),
            codec: "opus".into(),
            layers: vec![LinkLayer {
                flow: AUDIO_FLOW,
                width: 0,
                height: 0,
                max_bps: sound::BITRATE_BPS,
            }],
        };
        let camera = (!audio_only).then_some(camera);
        camera.into_iter().chain([sound]).collect()
    }

    fn start(&mut self, now: Instant, audio_only: bool) {
        self.origin.get_or_insert(now);
        (self.live, self.audio_only) = (true, audio_only);
        self.sound.mute(false);
        self.sound.interrupt();
        self.sound_out.clear();
        let since_start = self.since_start(now);
        let on_demand = self.device.is_some();
        for layer in &mut self.layers {
            layer.stop();
            layer.paused = false;
            if on_demand {
                // What was wrong the last time may be well by now.
                layer.fault = None;
            }
            if !audio_only {
                layer.begin_again(now, since_start);
            }
        }
        self.demand.send_if_modified(|demand| {
            let wanted = Demand {
                pictures: !audio_only,
                sound: true,
            };
            std::mem::replace(demand, wanted) != wanted
        });
    }

    fn stop(&mut self, _: Instant) {
        self.live = false;
        self.sound_out.clear();
        self.layers.iter_mut().for_each(Layer::stop);
        self.demand
            .send_if_modified(|demand| std::mem::take(demand) != Demand::default());
    }

    fn check(&mut self) -> Checked {
        let camera = match (self.fault(), &self.device) {
            (Some(fault), _) => Err(fault),
            (None, Some(device)) if device.exists() => Ok(()),
            (None, Some(_)) => Err(Fault::Missing),
            (None, _)
                if self
                    .layers
                    .iter()
                    .all(|layer| layer.seen || layer.fault.is_some()) =>
            {
                Ok(())
            }
            (None, _) => Err(Fault::Silent),
        };
        Checked {
            camera,
            microphone: self
                .sound
                .is_there()
                .then_some(true)
                .or(self.deaf.then_some(false)),
        }
    }

    fn fault(&self) -> Option<Fault> {
        // Of a camera that nobody wants nothing is known.
        if self.device.is_some() && !self.live {
            return None;
        }
        let alive = self.layers.iter().any(|layer| layer.fault.is_none());
        self.layers.last().and_then(|main| main.fault).filter(|_| !alive)
    }

    fn rest(&mut self, _: Instant) {}

    fn request_key_frame(&mut self, now: Instant, flow: u64) {
        let since_start = self.since_start(now);
        let wanted = self.live && !self.audio_only;
        if let Some(layer) = self.layer(flow).filter(|layer| wanted && !layer.paused) {
            layer.begin_again(now, since_start);
        }
    }

    fn pause(&mut self, now: Instant, flow: u64, paused: bool) {
        let (since_start, live) = (self.since_start(now), self.live);
        let Some(layer) = self.layer(flow).filter(|layer| layer.paused != paused) else {
            return;
        };
        layer.paused = paused;
        if paused {
            layer.stop();
        } else if live {
            layer.begin_again(now, since_start);
        }
    }

    fn mute(&mut self, muted: bool) {
        self.sound.mute(muted);
    }

    fn is_paused(&self) -> bool {
        self.layers.iter().all(|layer| layer.paused)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        // The sound that waits is due with the time that it came.
        let sound = self.origin.filter(|_| !self.sound_out.is_empty());
        self.layers
            .iter()
            .filter_map(|layer| layer.next)
            .chain(sound)
            .min()
    }

    fn handle_timeout(&mut self, now: Instant, _: i64, send: Send<'_>) -> u64 {
        self.sound_out.drain(..).for_each(&mut *send);
        let mut pictures = 0;
        for layer in &mut self.layers {
            if layer.next.is_some_and(|next| next <= now) {
                pictures += layer.run(now, &mut self.scratch, send);
            }
        }
        pictures
    }

    fn handle_feed(&mut self, now: Instant, event: FeedEvent) {
        match event {
            FeedEvent::Picture { layer, picture } => self.handle_picture(now, layer, picture),
            FeedEvent::Sound(data) => self.handle_sound(now, &data),
            FeedEvent::SoundFormat(format) => {
                self.sound.set_format(format.as_ref());
                self.deaf = false;
            }
            FeedEvent::NoSound(why) => {
                if !self.deaf {
                    tracing::warn!(why, "no sound from the microphone");
                }
                self.sound.set_format(None);
                self.deaf = true;
            }
            FeedEvent::Size { layer, width, height } => {
                if let Some(layer) = self.layers.get_mut(layer) {
                    layer.size = (width, height);
                    // A session begins.
                    layer.clock.lose();
                }
            }
            FeedEvent::Fault { layer, fault, detail } => {
                let Some(layer) = self.layers.get_mut(layer) else {
                    return;
                };
                if layer.fault != Some(fault) {
                    tracing::warn!(
                        flow = layer.flow,
                        fault = fault.word(),
                        detail,
                        "no picture of a layer"
                    );
                }
                layer.fault = Some(fault);
                layer.seen = false;
                // What is kept would be shown as if it were now.
                layer.gop.clear();
            }
            // Of another source.
            FeedEvent::Page(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_link::framing::split_flow;
    use muster_link::rtp::LinkRtp;

    use super::super::layer::LARGEST_QUEUE;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A camera of 25 pictures a second with a key frame each two seconds, and what is sent of it.
    struct Bench {
        camera: Camera,
        start: Instant,
        /// 40 ms each.
        steps: u32,
        /// (step, timestamp, sequence number, begins a key frame)
        sent: Vec<(u32, u32, u16, bool)>,
    }

    impl Bench {
        fn new() -> Self {
            let (demand, _) = watch::channel(Demand::default());
            Self {
                camera: Camera::new(1, demand, JoinSet::new(), [7; 6]),
                start: Instant::now(),
                steps: 0,
                sent: Vec::new(),
            }
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_millis(40) * self.steps
        }

        fn step(&mut self, size: usize) {
            let key = self.steps.is_multiple_of(50);
            let nals: Vec<Vec<u8>> = match key {
                true => vec![vec![0x67; 20], vec![0x68; 5], vec![0x65; size]],
                false => vec![vec![0x41; size]],
            };
            let unit = nals
                .iter()
                .flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat());
            let picture = Picture {
                data: unit.collect(),
                key,
                ticks: i64::from(self.steps) * 3600,
            };
            let now = self.now();
            self.camera
                .handle_feed(now, FeedEvent::Picture { layer: 0, picture });
            self.drain(now);
            self.steps += 1;
        }

        fn drain(&mut self, now: Instant) {
            let (step, sent) = (self.steps, &mut self.sent);
            // What is due within this step.
            while let Some(due) = self
                .camera
                .poll_timeout()
                .filter(|due| *due < now + Duration::from_millis(40))
            {
                let mut take = |datagram: Bytes| {
                    let (_, rtp) = split_flow(datagram).expect("a flow");
                    let rtp = LinkRtp::parse(&rtp).expect("RTP");
                    sent.push((step, rtp.timestamp, rtp.seq, rtp.payload[0] & 0x1F == 24));
                };
                self.camera.handle_timeout(due.max(now), 0, &mut take);
            }
        }

        fn run(&mut self, steps: u32) {
            (0..steps).for_each(|_| self.step(2000));
        }

        fn keys(&self) -> Vec<u32> {
            self.sent
                .iter()
                .filter(|sent| sent.3)
                .map(|sent| sent.0)
                .collect()
        }
    }

    #[test]
    fn who_comes_late_gets_the_kept_pictures_and_nothing_is_out_of_order() {
        let mut bench = Bench::new();
        bench.run(70);
        assert!(bench.sent.is_empty(), "nobody has asked");
        bench.camera.start(bench.now(), false);
        bench.run(10);
        assert_eq!(bench.keys(), [70]);
        // The second viewer.
        bench.camera.request_key_frame(bench.now(), 1);
        bench.run(1);
        assert_eq!(bench.keys(), [70], "once a second");
        bench.run(15);
        bench.camera.request_key_frame(bench.now(), 1);
        bench.run(10);
        assert_eq!(bench.keys(), [70, 96, 100]);
        for pair in bench.sent.windows(2) {
            assert_eq!(pair[1].2, pair[0].2.wrapping_add(1));
            assert!(pair[1].1.wrapping_sub(pair[0].1) < 90_000, "{pair:?}");
        }
        let first = bench.sent.iter().take_while(|sent| sent.0 == 70);
        assert!(first.map(|sent| sent.1).max().expect("sent") - bench.sent[0].1 <= 3600 + 20);
    }

    #[test]
    fn a_paused_layer_sends_nothing_and_comes_back_with_what_is_kept() {
        let mut bench = Bench::new();
        bench.camera.start(bench.now(), false);
        bench.run(30);
        bench.camera.pause(bench.now(), 1, true);
        assert!(bench.camera.is_paused());
        let before = bench.sent.len();
        bench.run(40);
        assert_eq!(bench.sent.len(), before);
        bench.camera.pause(bench.now(), 1, false);
        bench.run(5);
        assert_eq!(bench.keys(), [0, 70]);
    }

    #[test]
    fn a_camera_whose_pictures_are_too_large_to_keep_is_waited_for() {
        let mut bench = Bench::new();
        (0..40).for_each(|_| bench.step(100_000));
        bench.camera.start(bench.now(), false);
        (0..20).for_each(|_| bench.step(2000));
        assert_eq!(bench.keys(), [50]);
        assert_eq!(bench.sent[0].0, 50, "nothing without its key frame");
    }

    #[test]
    fn a_queue_that_nobody_empties_is_bounded() {
        let mut bench = Bench::new();
        bench.camera.start(bench.now(), false);
        for index in 0..200 {
            let picture = Picture {
                data: Bytes::from(vec![0; 100_000]),
                key: index % 50 == 0,
                ticks: index * 3600,
            };
            bench
                .camera
                .handle_feed(bench.now(), FeedEvent::Picture { layer: 0, picture });
            assert!(bench.camera.layers[0].queued <= LARGEST_QUEUE);
        }
        assert!(bench.camera.layers[0].dropped > 0);
    }

    #[test]
    fn what_a_layer_takes_is_measured() {
        let mut bench = Bench::new();
        let told = |bench: &Bench| bench.camera.sources(false)[0].layers[0].max_bps;
        assert_eq!(told(&bench), 2_500_000);
        bench.run(101);
        // 25 pictures of 2000 bytes a second, and a fifth.
        assert!((470_000..500_000).contains(&told(&bench)), "{}", told(&bench));
    }

    #[test]
    fn a_fault_lasts_until_the_next_picture() {
        let mut bench = Bench::new();
        assert_eq!(bench.camera.check().camera, Err(Fault::Silent));
        bench.run(1);
        assert_eq!(bench.camera.check().camera, Ok(()));
        let fault = FeedEvent::Fault {
            layer: 0,
            fault: Fault::Refused,
            detail: String::new(),
        };
        bench.camera.handle_feed(bench.now() + SECOND, fault);
        assert_eq!(
            (bench.camera.fault(), bench.camera.check().camera),
            (Some(Fault::Refused), Err(Fault::Refused))
        );
        bench.run(1);
        assert_eq!(bench.camera.fault(), None);
    }
}

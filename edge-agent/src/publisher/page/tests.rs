use std::time::{Duration, Instant};

use muster_link::framing::split_flow;

use super::desk::{DriverEnd, Order};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The source with the desk's other end in hand.
struct Bench {
    camera: PageCamera,
    end: DriverEnd,
    now: Instant,
    seq: u16,
}

impl Bench {
    fn new() -> Self {
        let (desk, end) = Desk::open();
        let now = Instant::now();
        Self {
            camera: PageCamera::new(now, desk, JoinSet::new(), [7, 8, 9, 10, 11, 12]),
            end,
            now,
            seq: 100,
        }
    }

    fn connected() -> Self {
        let mut bench = Self::new();
        bench.feed(PageEvent::Connected(1));
        bench.camera_is(Device::On);
        bench
    }

    fn feed(&mut self, event: PageEvent) {
        self.camera.handle_feed(self.now, FeedEvent::Page(event));
    }

    fn camera_is(&mut self, camera: Device) {
        self.feed(PageEvent::Words(Words {
            session: 1,
            camera,
            microphone: Device::On,
            width: 640,
            height: 480,
            ..Words::default()
        }));
    }

    /// One packet; returns (flow, sequence number, payload) of what leaves.
    fn send(&mut self, session: u64, layer: Option<usize>, payload: &[u8]) -> Vec<(u64, u16, Vec<u8>)> {
        self.seq += 1;
        let packet = Packet {
            session,
            layer,
            seq: self.seq,
            timestamp: u32::from(self.seq) * 3000,
            marker: true,
            audio_level: layer.is_none().then_some(30),
            payload: Bytes::copy_from_slice(payload),
        };
        self.feed(PageEvent::Packet(packet));
        let mut sent = Vec::new();
        self.camera.handle_timeout(self.now, 0, &mut |datagram| {
            let (flow, rtp) = split_flow(datagram).expect("a flow");
            let rtp = LinkRtp::parse(&rtp).expect("RTP");
            sent.push((flow, rtp.seq, rtp.payload.to_vec()));
        });
        assert_eq!(self.camera.poll_timeout(), None);
        sent
    }

    fn key_frames_asked(&mut self) -> Vec<usize> {
        let mut asked = Vec::new();
        while let Ok(order) = self.end.orders.try_recv() {
            if let Order::KeyFrame(layer) = order {
                asked.push(layer);
            }
        }
        asked
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.camera.rest(self.now);
    }
}

const KEY: [u8; 14] = [0x90, 0x80, 0x80, 1, 0x10, 2, 0, 0x9d, 1, 0x2a, 64, 0, 64, 0];
const INTER: [u8; 6] = [0x90, 0x80, 0x80, 2, 0x11, 2];

#[test]
fn a_layer_leaves_from_its_key_frame_on_and_only_while_it_is_wanted() {
    let mut bench = Bench::connected();
    assert!(bench.send(1, Some(0), &KEY).is_empty(), "nobody has asked");
    assert_eq!(bench.end.desk.wanted().layers, [false, false]);
    bench.camera.start(bench.now, false);
    assert_eq!(bench.end.desk.wanted().layers, [true, true]);
    assert_eq!(bench.key_frames_asked(), [0, 1]);
    assert!(bench.send(1, Some(1), &INTER).is_empty());
    assert_eq!(bench.key_frames_asked(), [1], "it is asked for again");
    let first = bench.send(1, Some(1), &KEY);
    let second = bench.send(1, Some(1), &INTER);
    assert_eq!((first[0].0, second[0].0), (2, 2));
    assert_eq!(second[0].1, first[0].1 + 1);
    bench.camera.pause(bench.now, 2, true);
    assert_eq!(bench.end.desk.wanted().layers, [true, false]);
    assert!(bench.send(1, Some(1), &KEY).is_empty());
    assert!(!bench.camera.is_paused());
    bench.camera.pause(bench.now, 2, false);
    assert_eq!(bench.key_frames_asked(), [1]);
    let third = bench.send(1, Some(1), &KEY);
    assert_eq!(third[0].1, second[0].1 + 1, "what rested was not lost");
    bench.camera.stop(bench.now);
    assert_eq!(bench.end.desk.wanted().layers, [false, false]);
}

#[test]
fn a_page_that_was_opened_again_is_no_new_source() {
    let mut bench = Bench::connected();
    bench.camera.start(bench.now, false);
    let before = bench.send(1, Some(0), &KEY);
    bench.feed(PageEvent::Gone);
    bench.seq = 40_000;
    bench.feed(PageEvent::Connected(2));
    assert_eq!(bench.key_frames_asked(), [0, 1, 0, 1]);
    let after = bench.send(2, Some(0), &KEY);
    assert_eq!(after[0].1, before[0].1 + 1);
    assert_eq!(after[0].2[3], before[0].2[3] + 1, "its picture is the next");
}

#[test]
fn muted_means_silence_whatever_the_browser_sends() {
    let mut bench = Bench::connected();
    bench.camera.start(bench.now, true);
    assert!(bench.send(1, Some(0), &KEY).is_empty(), "sound alone");
    let heard = bench.send(1, None, &[1, 2, 3, 4]);
    assert_eq!((heard[0].0, heard[0].2.as_slice()), (8, &[1, 2, 3, 4][..]));
    bench.camera.mute(true);
    let muted: Vec<_> = (0..100)
        .flat_map(|_| bench.send(1, None, &[1, 2, 3, 4]))
        .collect();
    assert_eq!(muted.len(), 5);
    assert!(muted.iter().all(|sent| sent.2 == OPUS_SILENCE));
    assert_eq!(muted[4].1, heard[0].1 + 5, "nothing looks lost");
    bench.camera.mute(false);
    assert_eq!(bench.send(1, None, &[9])[0].2, [9]);
}

#[test]
fn what_is_wrong_with_the_browser_is_a_fault() {
    let mut bench = Bench::new();
    assert_eq!(bench.camera.fault(), None, "it may be starting");
    assert_eq!(bench.camera.check().camera, Err(Fault::PageClosed));
    bench.wait(COMES_BACK);
    assert_eq!(bench.camera.fault(), Some(Fault::PageClosed));
    bench.feed(PageEvent::Connected(1));
    assert_eq!(bench.camera.fault(), None);
    for (device, fault) in [
        (Device::Missing, Fault::Missing),
        (Device::Busy, Fault::Busy),
        (Device::Denied, Fault::Denied),
    ] {
        bench.camera_is(device);
        assert_eq!(bench.camera.fault(), Some(fault));
        assert_eq!(bench.camera.check().camera, Err(fault));
        // While the page tries again.
        bench.camera_is(Device::Asking);
        assert_eq!(bench.camera.fault(), Some(fault));
    }
    bench.camera_is(Device::On);
    assert_eq!(
        (bench.camera.fault(), bench.camera.check().camera),
        (None, Ok(()))
    );
    // On, as it says, and yet no picture.
    bench.camera.start(bench.now, false);
    bench.wait(SILENCE);
    assert_eq!(bench.camera.fault(), Some(Fault::Silent));
    bench.send(1, Some(0), &KEY);
    bench.wait(Duration::ZERO);
    assert_eq!(bench.camera.fault(), None);
    // The page may come back for a while before it counts.
    bench.feed(PageEvent::Gone);
    bench.wait(COMES_BACK - SECOND);
    assert_eq!(bench.camera.fault(), None);
    bench.wait(SECOND);
    assert_eq!(bench.camera.fault(), Some(Fault::PageClosed));
}

#[test]
fn a_question_for_the_camera_that_nobody_answers_is_a_fault_in_a_meeting() {
    let mut bench = Bench::new();
    bench.feed(PageEvent::Connected(1));
    bench.camera_is(Device::Asking);
    bench.wait(Duration::from_secs(3600));
    assert_eq!(bench.camera.fault(), None, "nobody waits for it");
    bench.camera.start(bench.now, true);
    bench.wait(ANSWERED_WITHIN);
    assert_eq!(bench.camera.fault(), None, "sound alone");
    bench.camera.start(bench.now, false);
    bench.wait(ANSWERED_WITHIN - SECOND);
    // What the page says again is no new question, nor is a layer that rests for a while.
    bench.camera_is(Device::Asking);
    bench.camera.pause(bench.now, 2, true);
    bench.camera.pause(bench.now, 2, false);
    bench.wait(Duration::ZERO);
    assert_eq!(bench.camera.fault(), None, "there is time yet");
    bench.wait(SECOND);
    assert_eq!(bench.camera.fault(), Some(Fault::Silent));
    bench.camera_is(Device::On);
    assert_eq!(bench.camera.fault(), None, "answered");
}

#[test]
fn what_is_published_has_the_size_of_the_camera() {
    let mut bench = Bench::new();
    let sizes = |bench: &Bench| {
        let sources = bench.camera.sources(false);
        assert_eq!((sources.len(), sources[0].codec.as_str()), (2, "VP8"));
        let layers = sources[0].layers.iter();
        layers
            .map(|layer| (layer.flow, layer.width, layer.height))
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(&bench), [(1, 640, 360), (2, 1280, 720)]);
    bench.feed(PageEvent::Connected(1));
    bench.camera_is(Device::On);
    assert_eq!(sizes(&bench), [(1, 480, 360), (2, 640, 480)]);
    assert_eq!(bench.camera.sources(true).len(), 1);
}

#[test]
fn what_nobody_sends_on_is_bounded() {
    let mut bench = Bench::connected();
    bench.camera.start(bench.now, false);
    for seq in 0..2 * MOST_WAITING as u16 {
        let packet = Packet {
            session: 1,
            layer: Some(0),
            seq,
            timestamp: 0,
            marker: false,
            audio_level: None,
            payload: Bytes::from_static(&KEY),
        };
        bench.feed(PageEvent::Packet(packet));
    }
    assert_eq!(bench.camera.waiting.len(), MOST_WAITING);
    assert_eq!(bench.camera.dropped, MOST_WAITING as u64);
}

#[tokio::test]
async fn a_desk_without_a_driver_refuses_and_words_of_another_session_are_over() {
    let (desk, end) = Desk::open();
    let words = |session| Words {
        session,
        ..Words::default()
    };
    assert_eq!(desk.say(words(0)).expect_err("none is served").word, "over");
    desk.serve(5);
    assert_eq!(desk.say(words(4)).expect_err("another").word, "over");
    assert_eq!(desk.say(words(5)), Ok(()));
    let version = desk.wanted().version;
    let asked = tokio::spawn({
        let desk = desk.clone();
        async move { desk.wanted_after(version).await }
    });
    tokio::task::yield_now().await;
    desk.want_layers([true, false]);
    assert_eq!(asked.await.expect("no panic").layers, [true, false]);
    (0..100).for_each(|_| desk.ask_key_frame(0));
    let refused = desk
        .offer("v=0".into(), [127, 0, 0, 1].into())
        .await
        .expect_err("full");
    assert_eq!(refused.word, "busy");
    drop(end);
}

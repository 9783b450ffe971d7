//! A network camera that nobody here wrote (GStreamer's RTSP server) as the source of an agent.

use std::io::BufRead as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_edge::Source;
use muster_edge::publisher::rtsp::CameraAddress;
use muster_proto::command::v1::{
    Check, DrillCall, DrillResult, SummonsReason, SummonsState, attach_response,
};
use muster_proto::media::v1::{KeyFrameRequest, LayerPause, link_down};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::h264::{begins_key_frame, decode, in_order, loudest, of};
use crate::world::{RunningAgent, World};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/edge/camera.py");
/// Flows of the small and of the large picture.
const SUB: u64 = 1;
const MAIN: u64 = 2;

/// A camera; it ends with its handle.
pub struct Camera {
    child: Child,
    pub port: u16,
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

impl Camera {
    pub fn start(flags: &[&str]) -> Self {
        Self::start_at(free_port(), flags)
    }

    fn start_at(port: u16, flags: &[&str]) -> Self {
        let mut child = Command::new("/usr/bin/python3")
            .args([SCRIPT, &port.to_string()])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        let told = child.stdout.take().expect("piped");
        std::io::BufReader::new(told)
            .read_line(&mut line)
            .expect("a line");
        assert_eq!(
            line, "ready\n",
            "deploy/setup test installs what the camera needs"
        );
        Self { child, port }
    }

    /// `login` with its `@`.
    fn address(&self, login: &str, path: &str) -> CameraAddress {
        let address = format!("rtsp://{login}127.0.0.1:{}/{path}", self.port);
        address.parse().expect("an address")
    }

    /// Both streams, the smallest first.
    fn source(&self, login: &str) -> Source {
        Source::Rtsp(["sub", "main"].map(|path| self.address(login, path)).into())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }
}

async fn ready(source: Source) -> (World, RunningAgent) {
    let world = World::new().await;
    let agent = RunningAgent::start(world.config_of(source));
    world
        .until("a warm link", |world| world.status()["relay"].is_string())
        .await;
    (world, agent)
}

/// What the agent finds of itself. It attaches anew now and then, so that a question may be lost.
async fn drill(world: &World) -> DrillResult {
    let before = world.seen().drills.len();
    let asked = std::cell::Cell::new(None::<Instant>);
    world
        .until("the drill", |world| {
            if asked.get().is_none_or(|at| at.elapsed() > Duration::from_secs(2)) {
                asked.set(Some(Instant::now()));
                let drill = "d".into();
                world.push(attach_response::Event::Drill(DrillCall {
                    drill,
                    server_time_ms: 0,
                }));
            }
            world.seen().drills.len() > before
        })
        .await;
    world.seen().drills[before].clone()
}

/// In a meeting, with some of both pictures seen.
async fn on_air(source: Source) -> (World, RunningAgent) {
    let (world, agent) = ready(source).await;
    let start = Instant::now();
    while drill(&world).await.camera() != Check::Ok {
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "no camera: {}",
            world.status()
        );
    }
    world.summon();
    world
        .until("both pictures", |world| {
            let seen = world.seen();
            [SUB, MAIN].iter().all(|flow| of(&seen.h264, *flow).count() > 20)
        })
        .await;
    (world, agent)
}

#[tokio::test]
async fn a_cameras_h264_arrives_in_two_layers_and_decodes() {
    let camera = Camera::start(&[]);
    let (world, agent) = on_air(camera.source("")).await;
    world
        .until("two seconds of it", |world| {
            of(&world.seen().h264, MAIN)
                .filter(|packet| packet.marker)
                .count()
                > 50
        })
        .await;
    let join = world.seen().joins[0].clone();
    assert_eq!(join.sources[0].codec, "H264");
    let sizes: Vec<_> = join.sources[0]
        .layers
        .iter()
        .map(|layer| (layer.flow, layer.width, layer.height))
        .collect();
    assert_eq!(sizes, [(SUB, 320, 180), (MAIN, 640, 360)]);
    for flow in [SUB, MAIN] {
        let packets = in_order(&world.seen().h264, flow);
        let whole = packets
            .iter()
            .rposition(|packet| packet.marker)
            .expect("a picture")
            + 1;
        assert!(begins_key_frame(&packets[0]));
        assert!(
            packets
                .windows(2)
                .all(|pair| pair[1].seq == pair[0].seq.wrapping_add(1))
        );
        assert!(
            packets
                .iter()
                .all(|packet| packet.payload.len() <= muster_link::rtp::MAX_PAYLOAD)
        );
        let steps = packets
            .windows(2)
            .map(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp));
        assert!(steps.max() < Some(9000), "90 kHz, without a jump");
        let pictures = packets.iter().filter(|packet| packet.marker).count();
        let (decoded, profile) = decode(&world, &packets[..whole]);
        assert_eq!((decoded, profile.as_str()), (pictures, "High"), "flow {flow}");
    }
    // 440 Hz by A-law, as Opus.
    world.until("sound", |world| world.seen().sounds.len() > 30).await;
    assert!(loudest(&world) > 1000);
    agent.stop().await;
}

#[tokio::test]
async fn aac_is_heard_too() {
    let camera = Camera::start(&["--sound", "aac"]);
    let (world, agent) = on_air(camera.source("")).await;
    world.until("sound", |world| world.seen().sounds.len() > 60).await;
    assert!(loudest(&world) > 1000);
    agent.stop().await;
}

#[tokio::test]
async fn who_comes_late_or_back_gets_a_key_frame_at_once() {
    let camera = Camera::start(&[]);
    let (world, agent) = on_air(camera.source("")).await;
    // Far from the camera's next key frame.
    world
        .until("a second of it", |world| {
            let seen = world.seen();
            let first = of(&seen.h264, MAIN).next().expect("seen").at;
            first.elapsed() > Duration::from_millis(1100)
        })
        .await;
    let before = world.seen().h264.len();
    let asked = Instant::now();
    world.tell_leg(link_down::Message::KeyFrame(KeyFrameRequest { flow: MAIN }));
    world
        .until("a key frame", |world| {
            of(&world.seen().h264[before..], MAIN).any(begins_key_frame)
        })
        .await;
    assert!(
        asked.elapsed() < Duration::from_millis(800),
        "{:?}",
        asked.elapsed()
    );

    let pause = |paused| link_down::Message::LayerPause(LayerPause { flow: SUB, paused });
    world.tell_leg(pause(true));
    world
        .until("a quiet layer", |world| {
            let seen = world.seen();
            of(&seen.h264, SUB).last().expect("seen").at.elapsed() > Duration::from_millis(300)
        })
        .await;
    let before = world.seen().h264.len();
    world.tell_leg(pause(false));
    world
        .until("the layer", |world| {
            of(&world.seen().h264[before..], SUB).count() > 20
        })
        .await;
    assert!(
        of(&world.seen().h264[before..], SUB)
            .next()
            .is_some_and(begins_key_frame)
    );
    // All of it, with what was sent twice, is one stream.
    let packets = in_order(&world.seen().h264, MAIN);
    let whole = packets
        .iter()
        .rposition(|packet| packet.marker)
        .expect("a picture")
        + 1;
    let pictures = packets.iter().filter(|packet| packet.marker).count();
    assert_eq!(decode(&world, &packets[..whole]).0, pictures);
    agent.stop().await;
}

#[tokio::test]
async fn a_camera_that_dies_is_told_and_comes_back_by_itself() {
    let camera = Camera::start(&[]);
    let (world, agent) = on_air(camera.source("")).await;
    let port = camera.port;
    let died = Instant::now();
    drop(camera);
    let told = (SummonsState::Answered, SummonsReason::CameraUnreachable);
    world
        .until("the reason", |world| world.seen().reasons.contains(&told))
        .await;
    assert!(died.elapsed() < Duration::from_secs(5), "{:?}", died.elapsed());
    assert_eq!(world.status()["camera_fault"], "unreachable");
    assert_eq!(world.status()["state"], "on_air", "its sound and its screen stay");

    let camera = Camera::start_at(port, &[]);
    let before = world.seen().h264.len();
    world
        .until("pictures again", |world| {
            of(&world.seen().h264[before..], MAIN).count() > 20
        })
        .await;
    let well = (SummonsState::Answered, SummonsReason::Unspecified);
    world
        .until("taken back", |world| world.seen().reasons.last() == Some(&well))
        .await;
    assert!(
        of(&world.seen().h264[before..], MAIN)
            .next()
            .is_some_and(begins_key_frame)
    );
    assert!(world.status()["camera_fault"].is_null());

    camera.signal(Signal::SIGSTOP);
    let told = (SummonsState::Answered, SummonsReason::CameraSilent);
    world
        .until("that it is silent", |world| world.seen().reasons.contains(&told))
        .await;
    camera.signal(Signal::SIGCONT);
    world
        .until("taken back", |world| world.seen().reasons.last() == Some(&well))
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_the_reason_and_stands_nowhere() {
    let camera = Camera::start(&["--user", "admin", "--password", "right"]);
    let (world, agent) = ready(camera.source("admin:hush@")).await;
    world
        .until("the fault", |world| world.status()["camera_fault"] == "refused")
        .await;
    let result = drill(&world).await;
    assert_eq!(
        (result.camera(), result.camera_reason()),
        (Check::Failed, SummonsReason::CameraRefused)
    );
    world.summon();
    let refused = (SummonsState::Refused, SummonsReason::CameraRefused);
    world
        .until("the refusal", |world| world.seen().reasons.contains(&refused))
        .await;
    assert!(world.seen().joins.is_empty(), "nobody waits for a picture");
    assert!(!world.status().to_string().contains("hush"));
    agent.stop().await;

    let (world, agent) = on_air(camera.source("admin:right@")).await;
    assert!(world.status()["camera_fault"].is_null());
    agent.stop().await;
}

#[tokio::test]
async fn a_stream_that_the_camera_has_not_is_missing() {
    let camera = Camera::start(&["--sound", "none"]);
    let (world, agent) = ready(Source::Rtsp(vec![camera.address("", "other")])).await;
    world
        .until("the fault", |world| world.status()["camera_fault"] == "missing")
        .await;
    agent.stop().await;
}

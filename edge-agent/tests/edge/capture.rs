//! A camera and a microphone at the box, with ffmpeg's own test sources for devices.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use muster_edge::Source;
use muster_edge::publisher::capture::Capture;
use muster_proto::command::v1::{Check, DrillCall, SummonsReason, SummonsState, attach_response};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::h264::{begins_key_frame, decode, in_order, loudest, of};
use crate::world::{RunningAgent, World};

const CAMERA: u64 = 1;

fn texts(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

fn test_sources() -> Capture {
    Capture {
        input: Some(texts(&[
            "-re",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=640x360:rate=25",
        ])),
        microphone_input: Some(texts(&["-re", "-f", "lavfi", "-i", "sine=frequency=440"])),
        ..Capture::new("/dev/null".into())
    }
}

async fn ready(capture: Capture) -> (World, RunningAgent) {
    let world = World::new().await;
    let agent = RunningAgent::start(world.config_of(Source::Capture(Box::new(capture))));
    world
        .until("a warm link", |world| world.status()["relay"].is_string())
        .await;
    (world, agent)
}

/// The children of this process that capture pictures.
fn cameras() -> Vec<Pid> {
    let is_camera = |process: &Path| {
        let own = format!("PPid:\t{}\n", std::process::id());
        let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        status.contains(&own) && String::from_utf8_lossy(&line).contains("testsrc2")
    };
    let processes = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .map(|entry| entry.path());
    processes
        .filter(|process| is_camera(process))
        .filter_map(|process| process.file_name()?.to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

#[tokio::test]
async fn a_captured_camera_is_seen_and_heard_and_only_while_it_is_wanted() {
    let (world, agent) = ready(test_sources()).await;
    assert!(cameras().is_empty(), "nobody has called");
    world.summon();
    world
        .until("two seconds of it", |world| {
            let seen = world.seen();
            of(&seen.h264, CAMERA).filter(|packet| packet.marker).count() > 60 && seen.sounds.len() > 60
        })
        .await;
    let packets = in_order(&world.seen().h264, CAMERA);
    let whole = packets
        .iter()
        .rposition(|packet| packet.marker)
        .expect("a picture")
        + 1;
    assert!(begins_key_frame(&packets[0]));
    let pictures = packets.iter().filter(|packet| packet.marker).count();
    assert_eq!(decode(&world, &packets[..whole]), (pictures, "High".to_owned()));
    assert!(loudest(&world) > 1000);
    assert_eq!(cameras().len(), 1);
    agent.stop().await;
    world.until("an end of the child", |_| cameras().is_empty()).await;
}

#[tokio::test]
async fn a_child_that_dies_is_told_of_and_started_again() {
    let (world, agent) = ready(test_sources()).await;
    world.summon();
    world
        .until("pictures", |world| world.seen().h264.len() > 30)
        .await;
    let before = world.seen().h264.len();
    let died = Instant::now();
    kill(cameras()[0], Signal::SIGKILL).expect("it runs");
    let told = (SummonsState::Answered, SummonsReason::CameraSilent);
    let well = (SummonsState::Answered, SummonsReason::Unspecified);
    world
        .until("the reason", |world| world.seen().reasons.contains(&told))
        .await;
    assert!(died.elapsed() < Duration::from_secs(5), "{:?}", died.elapsed());
    world
        .until("taken back", |world| world.seen().reasons.last() == Some(&well))
        .await;
    world
        .until("pictures again", |world| world.seen().h264.len() > before + 60)
        .await;
    let seen = world.seen().h264.clone();
    assert!(seen[before..].iter().any(begins_key_frame));
    agent.stop().await;
}

#[tokio::test]
async fn a_device_that_is_not_there_is_missing() {
    let (world, agent) = ready(Capture::new("/dev/video-that-is-not-there".into())).await;
    world.push(attach_response::Event::Drill(DrillCall {
        drill: "d".into(),
        server_time_ms: 0,
    }));
    world
        .until("the drill", |world| !world.seen().drills.is_empty())
        .await;
    let found = world.seen().drills[0].clone();
    assert_eq!(
        (found.camera(), found.camera_reason()),
        (Check::Failed, SummonsReason::CameraMissing)
    );
    refused(&world, SummonsReason::CameraMissing).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_device_that_another_program_has_is_busy() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("ffmpeg");
    let script = "#!/bin/sh\necho '[video4linux2] ioctl: Device or resource busy' >&2\necho '/dev/null: Device or resource busy' >&2\nexit 1\n";
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("set");
    let capture = Capture {
        program,
        ..Capture::new("/dev/null".into())
    };
    let (world, agent) = ready(capture).await;
    refused(&world, SummonsReason::CameraBusy).await;
    agent.stop().await;
}

/// The agent says why there is no picture to join with.
async fn refused(world: &World, reason: SummonsReason) {
    world.summon();
    let told = (SummonsState::Refused, reason);
    world
        .until("the refusal", |world| world.seen().reasons.contains(&told))
        .await;
    world.until_state("attached").await;
}

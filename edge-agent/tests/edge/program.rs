//! The program itself: exit codes, what it says, what it weighs, and how it ends.

use std::process::{Command, Output, Stdio};

use crate::world::World;
use muster_testcard::PictureSize;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn muster_edge(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muster-edge"))
        .env_clear()
        .args(flags)
        .output()
        .expect("the program starts")
}

fn check(flags: &[&str], code: i32, says: &str) {
    let output = muster_edge(flags);
    let text = String::from_utf8_lossy(if code == 0 { &output.stdout } else { &output.stderr }).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(says), "expected {says:?} in: {text}");
}

#[test]
fn help_teaches_the_first_start_and_the_exit_codes() {
    check(&["--help"], 0, "First start: ask an engineer");
    check(&["--help"], 0, "Exit codes:");
}

#[test]
fn sources_of_later_versions_are_named_as_such() {
    let flags = [
        "--control-plane",
        "127.0.0.1:1",
        "--identity",
        "/nonexistent",
        "--source",
        "rtsps://camera/1",
    ];
    check(&flags, 2, "not in this version");
}

#[test]
fn missing_settings_and_tokens_say_what_to_do() {
    check(&[], 2, "missing control plane");
    let folder = tempfile::tempdir().expect("a folder");
    let identity = folder.path().to_str().expect("a name");
    check(
        &["--control-plane", "127.0.0.1:1", "--identity", identity],
        3,
        "MUSTER_ENROL_TOKEN",
    );
}

#[test]
fn a_log_filter_that_is_none_is_refused_by_whatever_way_it_comes() {
    let base = ["--control-plane", "127.0.0.1:1", "--identity", "/nonexistent"];
    let says = "muster-edge: log: found `===`, expected off, error, warn, info, debug, trace, or a filter";
    check(&[&base[..], &["--log", "==="]].concat(), 2, says);
    check(
        &[&base[..], &["--log", "===", "--print-config"]].concat(),
        2,
        says,
    );
    let output = Command::new(env!("CARGO_BIN_EXE_muster-edge"))
        .env_clear()
        .env("MUSTER_LOG", "===")
        .args(base)
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(says), "{text}");
}

/// Resident memory of a process, kB, shared pages of libraries and fonts left out.
fn private_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .expect("a line of RssAnon");
    line.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

#[tokio::test]
async fn the_program_goes_on_air_stays_small_and_ends_at_sigterm() {
    let world = World::new().await;
    let config = world.config(PictureSize::P180_5);
    let mut child = Command::new(env!("CARGO_BIN_EXE_muster-edge"))
        .args([
            "--control-plane",
            &config.control_plane[0],
            "--log",
            "warn",
            "--die-with-parent",
        ])
        .arg("--identity")
        .arg(&config.identity_dir)
        .arg("--status")
        .arg(world.status_file())
        .env("MUSTER_ENROL_TOKEN", world.token().to_string())
        .stdin(Stdio::null())
        .spawn()
        .expect("the program starts");
    world
        .until("a warm link", |world| world.status()["relay"].is_string())
        .await;
    world.summon();
    world
        .until("pictures", |world| world.seen().pictures.len() > 5)
        .await;
    let size = private_kb(child.id());
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    let ended = tokio::task::spawn_blocking(move || child.wait())
        .await
        .expect("no panic")
        .expect("its end");
    assert_eq!(ended.code(), Some(0));
    world
        .until("a closed link", |world| world.seen().links_lost == 1)
        .await;
    println!("private memory on air: {size} kB");
    assert!(size < 16 * 1024, "{size} kB");
}

//! `muster-edge doctor`, `--print-config` and what systemd is told, by the program itself.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use muster_identity::Authority;
use muster_testcard::PictureSize;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::{RunningAgent, World};

async fn program(flags: Vec<String>) -> Output {
    let run = move || {
        Command::new(env!("CARGO_BIN_EXE_muster-edge"))
            .env_clear()
            .args(flags)
            .output()
            .expect("the program starts")
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn flags(control_plane: &str, identity: &Path, more: &[&str]) -> Vec<String> {
    let identity = identity.display().to_string();
    let flags = ["--control-plane", control_plane, "--identity", &identity];
    flags.iter().chain(more).map(|flag| (*flag).to_owned()).collect()
}

/// What the doctor found of each thing: whether it is well, and its words.
async fn doctor(control_plane: &str, identity: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let more = [more, &["doctor", "--json"]].concat();
    let output = program(flags(control_plane, identity, &more)).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = serde_json::from_str(&text).unwrap_or_else(|_| {
        panic!("{text} {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), found)
}

fn of<'a>(found: &'a Value, check: &str) -> (bool, &'a str) {
    let checks = found["checks"].as_array().expect("a list");
    let one = checks.iter().find(|one| one["check"] == check);
    let one = one.unwrap_or_else(|| panic!("nothing of {check}: {found}"));
    (
        one["ok"].as_bool().expect("yes or no"),
        one["says"].as_str().expect("words"),
    )
}

/// A world whose agent has enrolled.
async fn enrolled() -> World {
    let world = World::new().await;
    let agent = RunningAgent::start(world.config(PictureSize::P180_5));
    world.until_state("attached").await;
    agent.stop().await;
    world
}

#[tokio::test]
async fn a_box_that_is_well_is_told_so() {
    let world = enrolled().await;
    let identity = world.dir.path().join("edge");
    let (code, found) = doctor(&world.control_plane.to_string(), &identity, &[]).await;
    assert_eq!((code, &found["ok"]), (Some(0), &Value::Bool(true)), "{found}");
    for check in ["certificate", "names", "control_plane", "clock", "udp", "camera"] {
        assert!(of(&found, check).0, "{found}");
    }
    assert!(of(&found, "certificate").1.contains("WH-EL-GD-01"));
    let output = program(flags(&world.control_plane.to_string(), &identity, &["doctor"])).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.lines().all(|line| line.starts_with("ok ")), "{text}");
}

#[tokio::test]
async fn each_thing_that_is_wrong_is_named() {
    let mut world = enrolled().await;
    let identity = world.dir.path().join("edge");
    let address = world.control_plane.to_string();
    world.seen().clock_ahead_ms = 7_200_000;
    world.kill_relay();
    let camera = ["--source", "v4l2:/dev/video-that-is-not-there"];
    let (code, found) = doctor(&address, &identity, &camera).await;
    assert_eq!(code, Some(1));
    let (ok, says) = of(&found, "clock");
    assert!(!ok && says.contains("s behind the control plane's"), "{says}");
    let (ok, says) = of(&found, "udp");
    assert!(!ok && says.contains("UDP"), "{says}");
    let (ok, says) = of(&found, "camera");
    assert!(!ok && says.contains("no camera was found"), "{says}");

    let (code, found) = doctor("no-such-name.invalid:8443", &identity, &[]).await;
    assert_eq!(code, Some(1));
    assert!(!of(&found, "names").0 && !of(&found, "control_plane").0);
    assert!(of(&found, "udp").1.starts_with("not looked at"), "{found}");

    let (code, found) = doctor(&address, &world.dir.path().join("empty"), &[]).await;
    let (ok, says) = of(&found, "certificate");
    assert!(
        code == Some(1) && !ok && says.contains("MUSTER_ENROL_TOKEN"),
        "{says}"
    );
    for check in ["control_plane", "clock", "udp", "tcp"] {
        let (ok, says) = of(&found, check);
        assert!(
            !ok && says.starts_with("not looked at, because there is no certificate"),
            "{check}: {says}"
        );
    }
}

#[tokio::test]
async fn the_link_is_tried_over_the_interfaces_that_the_agent_takes() {
    let world = enrolled().await;
    let identity = world.dir.path().join("edge");
    let address = world.control_plane.to_string();
    let (code, found) = doctor(&address, &identity, &["--uplink", "lo"]).await;
    assert_eq!(code, Some(0), "{found}");
    assert_eq!(of(&found, "uplink"), (true, "lo is there"));
    let (code, found) = doctor(&address, &identity, &["--uplink", "nosuch0"]).await;
    assert_eq!(code, Some(1));
    let (ok, says) = of(&found, "uplink");
    assert!(!ok && says.contains("no network interface nosuch0"), "{says}");
    assert!(!of(&found, "udp").0 && !of(&found, "tcp").0, "{found}");
}

#[tokio::test]
async fn blocked_udp_is_told_apart_from_a_relay_that_is_away() {
    let mut world = enrolled().await;
    world.block_udp();
    let identity = world.dir.path().join("edge");
    let address = world.control_plane.to_string();
    let (code, found) = doctor(&address, &identity, &[]).await;
    assert_eq!(code, Some(1), "UDP should be opened");
    let (ok, says) = of(&found, "udp");
    assert!(!ok && says.contains("fall back to TCP, which works"), "{says}");
    let (ok, says) = of(&found, "tcp");
    assert!(ok && says.contains("the link goes this way"), "{says}");

    world.kill_relay();
    let (_, found) = doctor(&address, &identity, &[]).await;
    let (ok, says) = of(&found, "tcp");
    assert!(!ok && says.contains("cannot fall back to TCP either"), "{says}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_told_as_such() {
    let world = enrolled().await;
    let stranger = world.dir.path().join("stranger");
    let other = Authority::in_memory().expect("an authority");
    let identity = muster_identity::Identity::Agent(crate::world::SITE.into());
    let credentials = other.credentials(identity).expect("a certificate");
    credentials.save(&stranger).expect("saved");
    let (code, found) = doctor(&world.control_plane.to_string(), &stranger, &[]).await;
    let (ok, says) = of(&found, "control_plane");
    assert!(
        code == Some(1) && !ok && says.contains("different authorities"),
        "{says}"
    );
}

#[tokio::test]
async fn a_wrong_password_of_the_camera_is_told_without_it() {
    let camera = crate::rtsp::Camera::start(&["--user", "admin", "--password", "right"]);
    let world = enrolled().await;
    let identity = world.dir.path().join("edge");
    let address = world.control_plane.to_string();
    let source = |password: &str| format!("rtsp://admin:{password}@127.0.0.1:{}/main", camera.port);
    let (code, found) = doctor(&address, &identity, &["--source", &source("hush")]).await;
    let (ok, says) = of(&found, "camera");
    assert!(
        code == Some(1) && !ok && says.contains("does not take the name or password"),
        "{says}"
    );
    assert!(
        !found.to_string().contains("hush") && !found.to_string().contains("/main"),
        "{found}"
    );
    let (code, found) = doctor(&address, &identity, &["--source", &source("right")]).await;
    assert_eq!(code, Some(0), "{found}");

    let more = ["--source", &source("hush"), "--print-config"];
    let output = program(flags(&address, &identity, &more)).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text.contains(&format!("control_plane = [\"{address}\"]")),
        "{text}"
    );
    assert!(
        text.contains("rtsp://127.0.0.1:") && !text.contains("hush"),
        "{text}"
    );
}

#[tokio::test]
async fn systemd_hears_that_the_agent_runs_and_lives() {
    let world = World::new().await;
    let socket = world.dir.path().join("notify");
    let heard = UnixDatagram::bind(&socket).expect("bound");
    heard
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    let mut child = Command::new(env!("CARGO_BIN_EXE_muster-edge"))
        .env_clear()
        .env("NOTIFY_SOCKET", &socket)
        .env("MUSTER_ENROL_TOKEN", world.token().to_string())
        .args(flags(
            &world.control_plane.to_string(),
            &world.dir.path().join("edge"),
            &["--die-with-parent", "--page", "off"],
        ))
        .stdin(Stdio::null())
        .spawn()
        .expect("the program starts");
    let listen = tokio::task::spawn_blocking(move || {
        let mut told = Vec::new();
        let mut words = [0; 200];
        // It goes on telling without anything that happens.
        while told
            .iter()
            .filter(|words: &&String| words.contains("attached"))
            .count()
            < 3
        {
            let length = heard.recv(&mut words).expect("told within 10 s");
            told.push(String::from_utf8_lossy(&words[..length]).into_owned());
        }
        (told, heard)
    });
    let (told, heard) = listen.await.expect("no panic");
    assert_eq!(told[0], "READY=1");
    assert!(
        told[1..]
            .iter()
            .all(|words| words.starts_with("WATCHDOG=1\nSTATUS=")),
        "{told:?}"
    );
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    let stopping = tokio::task::spawn_blocking(move || {
        let mut words = [0; 200];
        loop {
            let length = heard.recv(&mut words).expect("told within 10 s");
            if &words[..length] == b"STOPPING=1" {
                return;
            }
        }
    });
    stopping.await.expect("told");
    let ended = tokio::task::spawn_blocking(move || child.wait()).await;
    assert!(ended.expect("no panic").expect("its end").success());
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/muster-edge.service");
    let text = std::fs::read_to_string(unit).expect("the unit");
    // The program itself stands elsewhere on a site's box.
    let own = text.replace("/usr/local/bin/muster-edge", env!("CARGO_BIN_EXE_muster-edge"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("muster-edge.service");
    std::fs::write(&path, own).expect("written");
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_screen_s_unit_is_one_that_systemd_takes_and_its_policy_is_of_the_same_page() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let unit = std::fs::read_to_string(deploy.join("muster-edge-page.service")).expect("the unit");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("muster-edge-page.service");
    // The browser need not be on the machine that builds.
    std::fs::write(&path, unit.replace("/usr/bin/chromium", "/bin/true")).expect("written");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--user", "--man=no"])
        .arg(&path)
        .env("XDG_RUNTIME_DIR", folder.path())
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
    let policy = std::fs::read(deploy.join("muster-edge-page.json")).expect("the policy");
    let policy: serde_json::Value = serde_json::from_slice(&policy).expect("JSON");
    for (_, pages) in policy.as_object().expect("an object") {
        let page = pages[0].as_str().expect("a page");
        assert!(unit.contains(&format!("  {page}/\n")), "{page}");
    }
}

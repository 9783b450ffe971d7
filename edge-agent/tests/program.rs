//! The program itself: exit codes and what it says.

use std::process::{Command, Output};

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
    for source in ["v4l2:/dev/video0", "rtsp://camera/1", "page"] {
        let flags = [
            "--control-plane",
            "127.0.0.1:1",
            "--identity",
            "/nonexistent",
            "--source",
            source,
        ];
        check(&flags, 2, "not in this version");
    }
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

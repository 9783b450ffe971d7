//! The program: what it says to bad input, and its lines of counters.

#![expect(clippy::disallowed_types, reason = "the program is tested with sockets")]

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    process::{Command, Stdio},
    time::Duration,
};

fn linkshape() -> Command {
    Command::new(env!("CARGO_BIN_EXE_linkshape"))
}

fn profile(name: &str) -> String {
    format!("{}/../../data/links/{name}.csv", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn bad_input_is_named_with_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken.csv");
    let text = std::fs::read_to_string(profile("loss30"))
        .expect("a profile")
        .replace("0.3,0.3", "0.3,3");
    std::fs::write(&broken, text).expect("written");
    let (broken, clean) = (broken.display().to_string(), profile("clean"));
    let (listen, to) = ("127.0.0.1:0", "127.0.0.1:9");
    for (args, says) in [
        (vec!["--listen", listen, "--to", to], "--profile"),
        (vec!["--listen", "x", "--to", to, "--profile", &clean], "'x'"),
        (
            vec!["--listen", listen, "--to", "127.0.0.1:0", "--profile", &clean],
            "expected a port to pass on to",
        ),
        (
            vec!["--listen", listen, "--to", to, "--profile", "no.csv"],
            "no.csv: cannot be read: ",
        ),
        (
            vec!["--listen", listen, "--to", to, "--profile", &broken],
            "line 2, loss_bad: expected a number from 0 to 1",
        ),
        (
            vec!["--listen", "192.0.2.1:1", "--to", to, "--profile", &clean],
            "cannot listen at 192.0.2.1:1: ",
        ),
        (
            vec![
                "--listen",
                listen,
                "--to",
                to,
                "--profile",
                &clean,
                "--report",
                "5",
            ],
            "such as 1s or 500ms",
        ),
        (
            vec!["--listen", listen, "--to", to, "--profile", &clean, "--seed=-1"],
            "--seed",
        ),
    ] {
        let output = linkshape().args(&args).output().expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn the_help_teaches_with_an_example() {
    let output = linkshape().arg("--help").output().expect("it runs");
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert!(
        help.contains(
            "linkshape --listen 127.0.0.1:5000 --to 127.0.0.1:6000 --profile data/links/loss30.csv"
        )
    );
}

#[test]
fn it_passes_on_counts_and_ends_at_a_signal() {
    let [server, client] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    server
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let to = server.local_addr().expect("an address").to_string();
    let mut child = linkshape()
        .args([
            "--listen",
            "127.0.0.1:0",
            "--to",
            &to,
            "--profile",
            &profile("loss80"),
        ])
        .args(["--report", "50ms", "--hold"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let pid = Pid::from_raw(child.id() as i32);
    let stdout = child.stdout.take().expect("its output");
    let mut lines = BufReader::new(stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("JSON"));
    let ready = lines.next().expect("a line");
    let listen = ready["listen"].as_str().expect("an address").to_owned();
    let mut buffer = [0; 100];
    for _ in 0..50 {
        client.send_to(b"hello", &listen).expect("sent");
        assert_eq!(server.recv(&mut buffer).expect("nothing is lost while held"), 5);
    }
    kill(pid, Signal::SIGUSR1).expect("a signal");
    // The profile has begun when something is lost.
    let mut sent = 50;
    let counted = lines.by_ref().find(|line| {
        client.send_to(b"hello", &listen).expect("sent");
        sent += 1;
        line["up"]["lost"].as_u64() > Some(0)
    });
    assert!(counted.is_some_and(|line| line["last"] == false));
    kill(pid, Signal::SIGINT).expect("a signal");
    let last = lines.last().expect("a last line");
    assert_eq!(last["last"], true);
    let count = |field: &str| last["up"][field].as_u64().expect("a number");
    assert!(count("offered") > 50 && count("offered") <= sent);
    assert_eq!(count("offered"), count("delivered") + count("lost"));
    assert_eq!(count("offered_bytes"), count("offered") * 33);
    assert!(child.wait().expect("it ends").success());
}

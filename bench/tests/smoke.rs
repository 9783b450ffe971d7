//! Each measurement once, as small as it can be: the lines have what is promised, and everything came. Nothing here
//! looks at times, which other work on the machine spoils.

use std::process::Command;

use serde_json::Value;

/// The lines that `muster-bench` prints.
fn run(args: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_muster-bench"))
        .args(args)
        .output()
        .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

/// A relay that hears late from its viewers, since the machine is busy with other things, thinks their links narrow and
/// leaves something out: so there is more than one attempt.
const ATTEMPTS: usize = 4;

/// One line, whose packets all came.
fn complete(args: &[&str]) -> Value {
    let mut line = Value::Null;
    for _ in 0..ATTEMPTS {
        let mut lines = run(args);
        assert_eq!(lines.len(), 1, "{args:?}");
        line = lines.remove(0);
        if line["delivered"] == 1.0 {
            break;
        }
    }
    assert_eq!(line["delivered"], 1.0, "{line}");
    let numbers = ["ns_per_packet", "user_ns", "sys_ns", "p50_ms", "p99_ms", "rss_mb"];
    for name in numbers
        .into_iter()
        .chain(["climb_s", "relay_load", "generator_load"])
    {
        assert!(line[name].is_number(), "{name} in {line}");
    }
    assert!(line["ns_per_packet"].as_u64() > Some(0), "{line}");
    for name in ["generator_limited", "gro", "wake"] {
        assert!(line[name].is_boolean(), "{name} in {line}");
    }
    line
}

#[test]
fn even_packets_reach_all_subscribers_of_all_meetings() {
    let line = complete(&["forward", "--subs", "3", "--seconds", "1", "--meetings", "2"]);
    assert_eq!(
        (&line["bench"], &line["subs"], &line["meetings"]),
        (&"forward".into(), &3.into(), &2.into())
    );
    assert_eq!((&line["gro"], &line["wake"]), (&true.into(), &false.into()));
    let line = complete(&[
        "forward",
        "--subs",
        "2",
        "--seconds",
        "1",
        "--workers",
        "2",
        "--gro",
        "off",
        "--wake",
        "on",
    ]);
    assert_eq!((&line["workers"], &line["gro"]), (&2.into(), &false.into()));
}

#[test]
fn recorded_packets_reach_the_subscribers_in_the_largest_layer() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/data/chromium-1080p-simulcast.csv");
    let line = complete(&["forward", "--subs", "2", "--seconds", "1", "--trace", trace]);
    assert_eq!(
        (&line["load"], &line["top_layer"]),
        (&"trace".into(), &1.0.into())
    );
}

#[test]
fn everyone_sees_everyone_and_the_wall_its_cameras() {
    let line = complete(&["mesh", "--n", "3", "--seconds", "1"]);
    assert_eq!(
        (&line["bench"], &line["n"], &line["slots"]),
        (&"mesh".into(), &3.into(), &6.into())
    );
    let line = complete(&["mesh", "--n", "4", "--wall", "--seconds", "1"]);
    assert_eq!((&line["wall"], &line["slots"]), (&true.into(), &6.into()));
}

#[test]
fn all_who_join_at_once_have_media() {
    let lines = run(&["surge", "--joins", "5"]);
    let line = &lines[0];
    assert_eq!(
        (&line["joins"], &line["joined"]),
        (&5.into(), &5.into()),
        "{line}"
    );
    assert!(
        line["viewers_p99_before_ms"].is_number() && line["cpu_ms_per_join"].is_number(),
        "{line}"
    );
}

#[test]
fn all_legs_that_come_and_go_are_gone() {
    let lines = run(&["churn", "--cycles", "80", "--warm-up", "0"]);
    let line = &lines[0];
    assert_eq!(
        (&line["done"], &line["failed"], &line["legs_left"]),
        (&80.into(), &0.into(), &0.into()),
        "{line}"
    );
    assert!(
        line["rss_growth_mb"].is_number() && line["cpu_ms_per_cycle"].is_number(),
        "{line}"
    );
}

#[test]
fn a_flood_is_dropped_and_to_strangers_unanswered() {
    let lines = run(&["flood", "--subs", "2", "--seconds", "1", "--rate", "500"]);
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!(kinds, ["stun", "hello", "rtp", "proved"]);
    for line in &lines {
        // Of those to the leg that has proved its address a few are answered, and then no more.
        assert!(line["dropped"].as_u64() > Some(50), "{line}");
        let most = if line["kind"] == "proved" { 20 } else { 0 };
        assert!(line["answered"].as_u64() <= Some(most), "{line}");
    }
}

//! The program `muster` against a control plane in this process, as a script would use it. No endpoint and no relay is
//! there: what is tested is that every command reaches its call, and that answers, exit codes and files are as told.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use muster_control_plane::{Bootstrap, Config, ControlPlane};
use muster_proto::command::v1::Role;
use serde_json::Value;
use tempfile::TempDir;

const PASSWORD: &str = "correct horse battery";
const TREE: &str = "\
external_id,kind,tier,parent,name_zh,name_en,lat,lon,access,phase
D,unit,district,,区,District,30.5,114.4,,existing
A,unit,street,D,甲街,Street A,30.5,114.4,,existing
D1,site,district,D,区指挥部,District centre,30.5,114.4,fibre,existing
A1,site,street,A,甲一,A one,30.5,114.4,fibre,existing
A2,site,street,A,甲二,A two,30.5,114.4,adsl,new
";

/// A running control plane, and the account `wang`, a commander of all.
struct World {
    control_plane: ControlPlane,
    folder: TempDir,
}

async fn start(folder: &Path) -> ControlPlane {
    let bootstrap = Bootstrap {
        account: "wang".to_owned(),
        password: PASSWORD.to_owned(),
        role: Role::Commander,
        unit: "D".to_owned(),
    };
    let config = Config {
        bootstrap: Some(bootstrap),
        ..Config::local(folder.join("data"))
    };
    ControlPlane::start(config).await.expect("started")
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let control_plane = start(folder.path()).await;
        std::fs::write(folder.path().join("password"), PASSWORD).expect("written");
        std::fs::write(folder.path().join("tree.csv"), TREE).expect("written");
        let world = Self {
            control_plane,
            folder,
        };
        let tree = world.path("tree.csv");
        world
            .json(&["site", "import", tree.to_str().expect("text")])
            .await;
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, account: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command
            .args(words)
            .env("MUSTER_SERVER", format!("http://{}", self.control_plane.addr()))
            .env("MUSTER_ACCOUNT", account)
            .env("MUSTER_PASSWORD_FILE", self.path("password"))
            .env_remove("MUSTER_PASSWORD")
            .env_remove("MUSTER_MEETING");
        command
    }

    async fn run_as(&self, account: &str, words: &[&str]) -> Output {
        let mut command = self.command(account, words);
        let run = tokio::task::spawn_blocking(move || command.output());
        run.await.expect("ran").expect("started")
    }

    async fn run(&self, words: &[&str]) -> Output {
        self.run_as("wang", words).await
    }

    /// What a command that succeeds prints.
    async fn text(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        assert!(output.status.success(), "{words:?}: {}", errors(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    async fn json(&self, words: &[&str]) -> Value {
        let words: Vec<_> = ["-o", "json"].iter().chain(words).copied().collect();
        serde_json::from_str(&self.text(&words).await).expect("one document")
    }

    /// The exit code and the message of a command that fails.
    async fn failure(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words).await;
        assert!(!output.status.success(), "{words:?} did not fail");
        (output.status.code().expect("no signal"), errors(&output))
    }

    /// Convenes a site; gives the meeting's id.
    async fn convene(&self, site: &str, title: &str) -> String {
        let meeting = self.json(&["convene", "--site", site, "--title", title]).await;
        meeting["id"].as_str().expect("an id").to_owned()
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_live_meeting_needs_no_name_and_one_of_two_does() {
    let world = World::new().await;
    let (code, message) = world.failure(&["mute", "--all"]).await;
    assert!(
        code == 1 && message.contains("no meeting is live"),
        "{code} {message}"
    );

    let first = world.convene("A1", "First").await;
    assert_eq!(world.json(&["mute", "--all"]).await["meeting"], first.as_str());
    assert_eq!(world.json(&["broadcast", "A1"]).await["broadcast_site"], "A1");
    world.json(&["call-unconnected"]).await;
    let status = world.json(&["status"]).await;
    assert_eq!(status[0]["stage"]["broadcast_site"], "A1");
    assert_eq!(status[0]["muted_sites"], serde_json::json!(["A1"]));
    world.json(&["unmute", "A1"]).await;
    world.json(&["broadcast", "--off"]).await;

    let second = world.convene("A2", "Second").await;
    let (code, message) = world.failure(&["mute", "--all"]).await;
    assert!(
        code == 2 && message.contains("2 meetings are live"),
        "{code} {message}"
    );
    assert!(message.contains(&first) && message.contains(&second), "{message}");
    assert_eq!(world.json(&["end", &first]).await["ended"], true);
    assert_eq!(world.json(&["end"]).await["meeting"], second.as_str());
}

/// A program that prints lines of JSON, ended with the test.
struct Lines {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Lines {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// The next line of which this holds.
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).expect("read") > 0, "it ended");
            let value: Value = serde_json::from_str(&line).expect("JSON");
            if wanted(&value) {
                return value;
            }
        }
    }

    /// Ends it as a service manager does, which writes its cursor.
    fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("told");
        assert!(self.child.wait().expect("ended").success());
    }
}

fn event_of<'a>(meeting: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |line| line["type"] == "meeting_event" && line["stream"] == meeting
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_goes_on_at_its_cursor_with_nothing_lost_or_repeated() {
    let world = World::new().await;
    let cursor = world.path("cursor.json");
    let words = ["watch", "--cursor", cursor.to_str().expect("text")];
    let mut lines = Lines::start(world.command("wang", &words));
    lines.until(|line| line["type"] == "snapshot");
    let meeting = world.convene("A1", "Flood").await;
    let last = lines.until(event_of(&meeting));
    assert_eq!(
        (last["seq"].as_u64(), last["kind"].as_str()),
        (Some(1), Some("convened"))
    );
    assert_eq!(
        (last["actor"].as_str(), last["event"]["title"].as_str()),
        (Some("wang"), Some("Flood"))
    );
    lines.stop();
    let kept: Value = serde_json::from_slice(&std::fs::read(&cursor).expect("kept")).expect("JSON");
    let told = kept["live"][&meeting].as_u64().expect("a position");

    world.json(&["mute", "--all"]).await;
    world.json(&["end"]).await;
    let mut lines = Lines::start(world.command("wang", &words));
    assert_eq!(lines.until(|line| line["type"] == "snapshot")["resumed"], true);
    let mut next = told + 1;
    loop {
        let line = lines.until(event_of(&meeting));
        assert_eq!(line["seq"].as_u64(), Some(next));
        next += 1;
        if line["kind"] == "ended" {
            break;
        }
    }
    lines.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_of_a_meeting_is_done_and_seen_in_its_state() {
    let world = World::new().await;
    let words = ["convene", "--site", "A1", "--title", "Flood", "--minutes", "60"];
    let meeting = world.json(&words).await["id"].as_str().expect("an id").to_owned();
    for words in [
        vec!["add", "--site", "A2"],
        vec!["lock"],
        vec!["extend", "30"],
        vec!["layout", "1+7"],
        vec!["polling", "on", "--interval", "20", "--per-page", "4"],
        vec!["polling", "pause"],
        vec!["voice-switching", "on"],
        vec!["watch-site", "A1"],
        vec!["content", "A1"],
        vec!["hang-up", "A2"],
    ] {
        assert_eq!(world.json(&words).await["meeting"], meeting.as_str(), "{words:?}");
    }
    let state = &world.json(&["status"]).await[0];
    let stage = &state["stage"];
    assert_eq!(
        (state["locked"].as_bool(), state["sites"].as_u64()),
        (Some(true), Some(2))
    );
    assert!(state["ends_ms"].as_i64() > Some(0));
    assert_eq!(
        (stage["layout"].as_str(), stage["voice_switching"].as_bool()),
        (Some("1+7"), Some(true))
    );
    assert_eq!(
        (
            stage["polling"]["interval_s"].as_u64(),
            stage["polling"]["paused"].as_bool()
        ),
        (Some(20), Some(true))
    );
    assert_eq!(
        (stage["watched_site"].as_str(), stage["content_site"].as_str()),
        (Some("A1"), Some("A1"))
    );
    for words in [vec!["unlock"], vec!["polling", "off"], vec!["layout", "own"]] {
        world.json(&words).await;
    }
    assert_eq!(world.json(&["floor", "list"]).await, serde_json::json!([]));
    assert_eq!(
        world.failure(&["floor", "grant", "A1"]).await.0,
        1,
        "who is not on air cannot speak"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_call_and_the_attendance_are_told_as_json_and_csv() {
    let world = World::new().await;
    world.convene("A1", "Flood").await;
    world.json(&["roll-call", "start", "--answer", "3"]).await;
    let result = world.json(&["roll-call", "result"]).await;
    assert_eq!(
        (result["number"].as_u64(), result["by"].as_str()),
        (Some(1), Some("wang"))
    );
    assert_eq!(result["entries"][0]["result"], "unreachable");
    assert_eq!(result["entries"][0]["reason"], "never seen");
    let csv = world.text(&["roll-call", "result", "--csv"]).await;
    assert!(
        csv.starts_with("\u{feff}roll_call,site,name_zh,name_en,result"),
        "{csv}"
    );
    assert!(
        csv.contains("\r\n1,A1,甲一,A one,unreachable,false,false,"),
        "{csv}"
    );
    assert_eq!(
        world.failure(&["roll-call", "result", "--number", "9"]).await.0,
        1
    );
    let attendance = world.json(&["attendance"]).await;
    assert!(
        attendance
            .as_array()
            .is_some_and(|all| all.iter().all(|site| site["total_ms"] == 0)),
        "{attendance}"
    );
    assert!(
        world
            .text(&["attendance", "--csv"])
            .await
            .starts_with("\u{feff}site,name_zh,name_en,what,from")
    );
    let csv = world.text(&["attendance", "--csv"]).await;
    assert!(
        csv.contains("A1,甲一,A one,never,,,"),
        "one that never came is in it: {csv}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chair_is_requested_given_taken_over_and_handed_back() {
    let world = World::new().await;
    let password = world.path("password");
    let file = password.to_str().expect("text");
    for name in ["li", "zhao"] {
        world
            .json(&["account", "put", name, "--new-password-file", file])
            .await;
    }
    world
        .json(&["account", "grant", "li", "duty-officer", "A", "--until", "+4h"])
        .await;
    world
        .json(&["account", "grant", "zhao", "duty-officer", "A"])
        .await;
    let done = async |account: &str, words: &[&str]| {
        let output = world.run_as(account, words).await;
        assert!(
            output.status.success(),
            "{account} {words:?}: {}",
            errors(&output)
        );
    };
    done("li", &["convene", "--site", "A1"]).await;
    assert_eq!(world.json(&["status"]).await[0]["chair"], "li");
    done("zhao", &["chair", "request"]).await;
    assert_eq!(
        world.json(&["status"]).await[0]["chair_requests"],
        serde_json::json!(["zhao"])
    );
    done("li", &["chair", "give", "zhao"]).await;
    assert_eq!(world.json(&["status"]).await[0]["chair"], "zhao");
    done("wang", &["chair", "take-over"]).await;
    let state = &world.json(&["status"]).await[0];
    assert_eq!(
        (state["chair"].as_str(), state["taken_from"].as_str()),
        (Some("wang"), Some("zhao"))
    );
    done("wang", &["chair", "hand-back"]).await;
    assert_eq!(world.json(&["status"]).await[0]["chair"], "zhao");
    let refused = world.run_as("li", &["chair", "take-over"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", errors(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_sessions_and_refusals_are_managed() {
    let world = World::new().await;
    let password = world.path("password");
    let file = password.to_str().expect("text");
    let put = world
        .json(&[
            "account",
            "put",
            "li",
            "--display-name",
            "李",
            "--new-password-file",
            file,
        ])
        .await;
    assert_eq!(
        (put["name"].as_str(), put["display_name"].as_str()),
        (Some("li"), Some("李"))
    );
    let granted = world
        .json(&["account", "grant", "li", "auditor", "A", "--until", "+4h"])
        .await;
    assert_eq!(
        (
            granted["grants"][0]["role"].as_str(),
            granted["grants"][0]["unit"].as_str()
        ),
        (Some("auditor"), Some("A"))
    );
    assert!(granted["grants"][0]["expires_ms"].as_i64() > Some(0));
    let refused = world.run_as("li", &["convene", "--site", "A1"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", errors(&refused));
    let mut seen = false;
    for _ in 0..100 {
        // It is recorded beside the answer, not before it.
        let refusals = world.json(&["refusals"]).await;
        seen = refusals.as_array().is_some_and(|all| {
            all.iter()
                .any(|r| r["account"] == "li" && r["action"] == "convene")
        });
        if seen {
            break;
        }
    }
    assert!(seen, "the refusal is told");
    let revoked = world.json(&["account", "revoke", "li", "auditor", "A"]).await;
    assert_eq!(revoked["grants"], serde_json::json!([]));
    let sessions = world.json(&["account", "sessions"]).await;
    assert!(
        sessions
            .as_array()
            .is_some_and(|all| all.iter().any(|s| s["current"] == true)),
        "{sessions}"
    );
    world.json(&["account", "end-sessions", "li"]).await;
    let accounts = world.json(&["account", "list"]).await;
    assert!(
        accounts
            .as_array()
            .is_some_and(|all| all.iter().any(|a| a["name"] == "li")),
        "{accounts}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preset_is_saved_convened_scheduled_and_drilled() {
    let world = World::new().await;
    let saved = world
        .json(&[
            "preset",
            "save",
            "flood",
            "--unit",
            "D",
            "--subtree",
            "A",
            "--layout",
            "16",
            "--mute-all",
        ])
        .await;
    let preset = saved["id"].as_str().expect("an id");
    assert_eq!(
        (
            saved["layout"].as_str(),
            saved["selector"]["subtrees"][0].as_str()
        ),
        (Some("16"), Some("A"))
    );
    let meeting = world.json(&["preset", "convene", preset]).await;
    assert_eq!(
        (meeting["sites"].as_u64(), meeting["preset"].as_str()),
        (Some(2), Some(preset))
    );
    assert_eq!(meeting["stage"]["layout"], "16");
    world.json(&["end"]).await;

    let schedule = world
        .json(&[
            "schedule", "save", "--preset", preset, "--at", "+2d", "--repeat", "daily",
        ])
        .await;
    assert_eq!(
        (schedule["unit"].as_str(), schedule["repeat"].as_str()),
        (Some("D"), Some("daily"))
    );
    let id = schedule["id"].as_str().expect("an id");
    assert_eq!(world.json(&["schedule", "list"]).await[0]["id"], id);
    world.json(&["schedule", "delete", id]).await;

    let drill = world
        .json(&["drill", "start", "--preset", preset, "--wait"])
        .await;
    let results = drill["results"].as_array().expect("results");
    assert!(
        results.len() == 2 && results.iter().all(|r| r["reason"] == "never seen"),
        "{drill}"
    );
    assert_eq!(world.json(&["drill", "result"]).await["id"], drill["id"]);
    assert_eq!(
        world.json(&["site", "answer", "ring", "--site", "A1"]).await["sites"],
        1
    );
    let sites = world.json(&["site", "list"]).await;
    assert!(
        sites
            .as_array()
            .is_some_and(|all| all.iter().any(|s| s["id"] == "A1")),
        "{sites}"
    );
    world.json(&["preset", "delete", preset]).await;
    assert_eq!(world.json(&["preset", "list"]).await, serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_is_replayed_at_every_event() {
    let world = World::new().await;
    let meeting = world.convene("A1", "Flood").await;
    world.json(&["broadcast", "A1"]).await;
    world.json(&["end"]).await;
    let log = world.text(&["-o", "json", "log", "read", &meeting]).await;
    let events: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let at: BTreeMap<_, _> = events
        .iter()
        .map(|e| {
            (
                e["kind"].as_str().expect("a kind"),
                e["seq"].as_u64().expect("a number"),
            )
        })
        .collect();
    let replay = async |seq: u64| {
        world
            .json(&["log", "replay", &meeting, "--seq", &seq.to_string()])
            .await
    };
    assert_eq!(replay(1).await["broadcast_site"], "");
    assert_eq!(replay(at["stage"]).await["broadcast_site"], "A1");
    assert_eq!(replay(at["stage"]).await["ended_ms"], 0);
    assert!(replay(at["ended"]).await["ended_ms"].as_i64() > Some(0));
    for (words, code, text) in [
        (
            ["--at", "2020-01-01T00:00Z"],
            1,
            "had not begun at 2020-01-01 00:00:00Z",
        ),
        (["--at", "1970-01-01T00:00Z"], 1, "had not begun"),
        (["--seq", "9999"], 2, "the last event of meeting"),
        (["--seq", "0"], 2, "1.."),
    ] {
        let (found, message) = world
            .failure(&["log", "replay", &meeting, words[0], words[1]])
            .await;
        assert!(
            found == code && message.contains(text),
            "{words:?}: {found} {message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_were_kept_elsewhere_find_a_log_that_was_cut_or_written_anew() {
    let world = World::new().await;
    let meeting = world.convene("A1", "Flood").await;
    world.json(&["end"]).await;
    let heads = world.text(&["log", "verify", "--print-heads"]).await;
    let own = heads
        .lines()
        .find(|line| line.starts_with(&meeting))
        .expect("its head")
        .to_owned();
    let file = world.path("heads.txt");
    let name = file.to_str().expect("text");
    std::fs::write(&file, &heads).expect("kept");
    world.text(&["log", "verify", "--against", name]).await;
    // What is appended after is no alteration.
    world.convene("A1", "Storm").await;
    world.text(&["log", "verify", "--against", name]).await;

    let words: Vec<_> = own.split(' ').collect();
    let seq: u64 = words[1].parse().expect("a number");
    for (line, text) in [
        (format!("{meeting} {} {}", seq + 5, words[2]), "cut off"),
        (format!("{meeting} {seq} {}", "ab".repeat(32)), "written anew"),
        (format!("m-gone 3 {}", words[2]), "there is no such stream"),
    ] {
        std::fs::write(&file, line).expect("kept");
        let (code, message) = world.failure(&["log", "verify", "--against", name]).await;
        assert!(code == 1 && message.contains(text), "{code} {message}");
    }
    std::fs::write(&file, "no heads").expect("kept");
    assert_eq!(world.failure(&["log", "verify", "--against", name]).await.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_is_requested_by_the_link_of_a_site() {
    let world = World::new().await;
    let meeting = world.convene("A1", "Flood").await;
    let link = world.json(&["site", "link", "A1"]).await;
    let url = link["url"].as_str().expect("a link");
    let (code, message) = world
        .failure(&["floor", "request", "-m", &meeting, "--link", url])
        .await;
    assert!(
        code == 1 && message.contains("A1"),
        "it is not on air: {code} {message}"
    );
    let bad = format!("{url}x");
    assert_eq!(
        world
            .failure(&["floor", "request", "-m", &meeting, "--link", &bad])
            .await
            .0,
        5
    );
    assert_eq!(
        world
            .failure(&["floor", "request", "-m", &meeting, "--link", "x"])
            .await
            .0,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_sent_by_a_link_and_listed_once() {
    let world = World::new().await;
    let link = world.json(&["site", "link", "A1"]).await;
    let url = link["url"].as_str().expect("a link").to_owned();
    let send = ["report", "send", "--link", &url, "--id", "r1", "水漫进地下室"];
    let first = world.json(&send).await;
    assert_eq!(world.json(&send).await, first, "the same again");
    let listed = world.json(&["report", "list"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&listed[0]["site"], &listed[0]["text"], &listed[0]["kind"]),
        (
            &Value::from("A1"),
            &Value::from("水漫进地下室"),
            &Value::from("words")
        )
    );
    let shown = world.text(&["report", "list", "--site", "A1"]).await;
    assert!(shown.contains("水漫进地下室"), "{shown}");
    let none = world.json(&["report", "list", "--site", "A2"]).await;
    assert_eq!(none.as_array().map(Vec::len), Some(0));
    let (code, message) = world.failure(&["report", "send", "--link", &url, " "]).await;
    assert!(code == 2 && message.contains("500"), "{code} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_altered_in_the_store_is_named() {
    let world = World::new().await;
    let meeting = world.convene("A1", "Flood of the river").await;
    world.json(&["end"]).await;
    let whole = world.text(&["-o", "json", "log", "verify", &meeting]).await;
    let whole: Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!(whole["broken_at"], 0);
    let head = whole["head"].as_str().expect("a hash").to_owned();
    world.text(&["log", "verify", &meeting, "--head", &head]).await;
    let (code, message) = world
        .failure(&["log", "verify", &meeting, "--head", "00ff"])
        .await;
    assert!(code == 1 && message.contains("altered"), "{code} {message}");

    let World {
        control_plane,
        folder,
    } = world;
    control_plane.shutdown().await;
    for entry in std::fs::read_dir(folder.path().join("data")).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_file() {
            let bytes = std::fs::read(&path).expect("read");
            std::fs::write(&path, altered(bytes)).expect("written");
        }
    }
    let control_plane = start(folder.path()).await;
    let world = World {
        control_plane,
        folder,
    };
    let (code, message) = world.failure(&["log", "verify", &meeting]).await;
    assert!(
        code == 1 && message.contains(&format!("{meeting}, event 1")),
        "{code} {message}"
    );
}

/// The same with one letter of the title changed, wherever it stands.
fn altered(mut bytes: Vec<u8>) -> Vec<u8> {
    let title = b"Flood of the river";
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(title.len())
        .position(|window| window == title)
    {
        bytes[at + found] = b'B';
        at += found + 1;
    }
    bytes
}

//! `muster demo` as a person meets it: the check, a port in use, the second start, Ctrl-C.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use muster_e2e::field::until;
use muster_e2e::program::{Running, command, is_running, run};
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn the_check_convenes_twelve_sites_and_sees_every_one_of_them() -> Result<()> {
    let output = run(
        command("muster")?.args(["demo", "--check", "--sites", "12", "--hold-s", "4"]),
        Duration::from_secs(150),
    )?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
    let report: Value = serde_json::from_str(text.lines().last().context("no line")?)?;
    assert_eq!(
        (report["sites"].as_u64(), report["on_air"].as_u64()),
        (Some(12), Some(12)),
        "{report}"
    );
    assert_eq!(report["frames_ok"], true);
    let (p50, p95) = (
        report["p50_ms"].as_i64().context("p50")?,
        report["p95_ms"].as_i64().context("p95")?,
    );
    assert!(0 < p50 && p50 <= p95, "{report}");
    Ok(())
}

#[test]
fn a_port_in_use_gets_one_line_that_says_what_to_do() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let folder = tempfile::tempdir()?;
    let listen = taken.local_addr()?.to_string();
    let mut command = command("muster")?;
    command
        .args(["demo", "--sites", "1", "--listen", &listen, "--data"])
        .arg(folder.path().join("data"));
    let output = run(&mut command, Duration::from_secs(20))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains(&format!("{listen} is in use")) && said.contains("PORT="),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_second_start_keeps_the_data_and_ctrl_c_leaves_no_child() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first = one_run(folder.path(), &[])?;
    let certificates = agent_certificates(folder.path())?;
    let second = one_run(folder.path(), &[])?;
    assert_eq!(first, second, "the password is kept");
    assert_eq!(
        certificates,
        agent_certificates(folder.path())?,
        "the agents are enrolled once"
    );
    let third = one_run(folder.path(), &["--fresh"])?;
    assert_ne!(first, third, "a fresh start begins anew");
    assert_ne!(certificates, agent_certificates(folder.path())?);
    Ok(())
}

/// Starts, waits until two agents are online, ends by Ctrl-C; gives the password.
fn one_run(folder: &Path, more: &[&str]) -> Result<String> {
    let announced = folder.join("announce.json");
    let _ = std::fs::remove_file(&announced);
    let mut command = command("muster")?;
    command
        .args(["demo", "--sites", "2", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.join("data"));
    command
        .arg("--announce")
        .arg(&announced)
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let mut demo = Running::spawn(&mut command)?;
    let announcement = || -> Option<Value> { serde_json::from_slice(&std::fs::read(&announced).ok()?).ok() };
    until("two agents run", Duration::from_secs(40), || {
        anyhow::ensure!(!demo.has_ended()?, "the demonstration ended by itself");
        Ok(
            announcement()
                .is_some_and(|all| all["agents"].as_array().is_some_and(|agents| agents.len() == 2)),
        )
    })?;
    let all = announcement().context("the announcement")?;
    let password = all["password"].as_str().context("a password")?.to_owned();
    until("two agents are online", Duration::from_secs(40), || {
        Ok(online(&all, &password)? == 2)
    })?;
    let children: Vec<_> = announcement().context("the announcement")?["agents"]
        .as_array()
        .context("agents")?
        .iter()
        .filter_map(|agent| agent["pid"].as_i64())
        .collect();
    assert!(children.iter().all(|pid| is_running(*pid)), "{children:?}");
    let began = Instant::now();
    demo.signal(Signal::SIGINT)?;
    let status = demo.wait(Duration::from_secs(6))?;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "the end took {:?}",
        began.elapsed()
    );
    assert_eq!(status.code(), Some(0));
    assert!(
        !children.iter().any(|pid| is_running(*pid)),
        "a child is left of {children:?}"
    );
    Ok(password)
}

fn online(all: &Value, password: &str) -> Result<usize> {
    let mut command = command("muster")?;
    command.args(["site", "list", "--online", "-o", "json", "--account", "duty"]);
    command
        .args(["--server", all["url"].as_str().context("an address")?])
        .env("MUSTER_PASSWORD", password);
    let output = run(&mut command, Duration::from_secs(20))?;
    let sites: Value = serde_json::from_slice(&output.stdout)?;
    Ok(sites.as_array().context("a list")?.len())
}

fn agent_certificates(folder: &Path) -> Result<BTreeSet<Vec<u8>>> {
    let mut certificates = BTreeSet::new();
    for agent in std::fs::read_dir(folder.join("data/agents"))? {
        for file in std::fs::read_dir(agent?.path())? {
            let path = file?.path();
            // What the box keeps beside its identity has folders of its own.
            if path.is_dir() {
                continue;
            }
            let text = std::fs::read(&path)?;
            if path.to_string_lossy().contains("cert") {
                certificates.insert(text);
            }
        }
    }
    assert_eq!(certificates.len(), 2, "one certificate an agent");
    Ok(certificates)
}

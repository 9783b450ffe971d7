//! `clients/peer.py`: a GStreamer peer as a process, and what it tells in lines of JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::dev_relay::{DevRelay, TOKEN};
use crate::field::until;
use crate::program::Running;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/peer.py");

/// A peer; it ends with its handle.
pub struct Peer {
    running: Running,
    told: PathBuf,
}

impl Peer {
    pub fn publish(relay: &DevRelay, meeting: &str) -> Result<Self> {
        Self::start(relay, "publish", &format!("{}/whip/{meeting}", relay.url()), &[])
    }

    pub fn view(relay: &DevRelay, meeting: &str, videos: usize) -> Result<Self> {
        let url = format!("{}/whep/{meeting}", relay.url());
        Self::start(relay, "view", &url, &["--videos", &videos.to_string()])
    }

    fn start(relay: &DevRelay, role: &str, url: &str, more: &[&str]) -> Result<Self> {
        let (told, log) = relay.log_of(&format!("peer-{role}"))?;
        let mut command = Command::new("/usr/bin/python3");
        // The peer ends when its input does: with this process at the latest.
        command
            .args([SCRIPT, role, url, TOKEN])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        let running = Running::spawn(&mut command)?;
        Ok(Self { running, told })
    }

    /// Ends its input, upon which it deletes its session.
    pub fn leave(&mut self, limit: Duration) -> Result<()> {
        self.running.end_input();
        let status = self.running.wait(limit)?;
        anyhow::ensure!(status.success(), "the peer ended with {status}");
        Ok(())
    }

    /// Waits for a line that is as it should be.
    pub fn until(&mut self, what: &str, limit: Duration, check: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut found = Value::Null;
        until(what, limit, || {
            for line in lines(&self.told) {
                if line["error"].is_string() {
                    bail!("the peer says {line}");
                }
                if check(&line) {
                    found = line;
                    return Ok(true);
                }
            }
            if self.running.has_ended()? {
                bail!("the peer ended by itself");
            }
            Ok(false)
        })
        .with_context(|| format!("the peer told last {:?}", lines(&self.told).last()))?;
        Ok(found)
    }

    /// Waits until every video slot has shown this many pictures, and some sound was decoded.
    pub fn until_decoded(&mut self, frames: u64, limit: Duration) -> Result<Value> {
        self.until("all videos and the sound are decoded", limit, |line| {
            let videos = line["video"].as_array();
            videos.is_some_and(|videos| videos.iter().all(|n| n.as_u64() >= Some(frames)))
                && line["audio"].as_u64() > Some(10)
        })
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

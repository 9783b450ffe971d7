//! What the agent says of itself: a small JSON document for people, tests and `muster demo`.
//!
//! As a file it is replaced whole (written beside, then renamed), so that a reader never sees half of it. As `-` each
//! change is one line on standard output. Failing to write is logged once and never stops the agent.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::sync::watch;

use crate::ladder::{Rung, Why};
use crate::notify::Notifier;

/// Where the agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Enrolling,
    /// Neither attached nor in a meeting.
    Offline,
    Attached,
    /// Called, until somebody of the site answers.
    Ringing,
    /// Summoned, and on its way into the meeting (also: back into it).
    Joining,
    /// In the meeting, and its first picture is sent.
    OnAir,
}

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    pub state: State,
    /// The site's id; empty before enrolment.
    pub site: String,
    /// Its names; empty until the control plane has told them.
    pub name_zh: String,
    pub name_en: String,
    pub meeting: Option<String>,
    pub meeting_title: String,
    /// Since when `state` holds, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Site number in the mark of the last picture on the stage (see `muster_testcard::mark`).
    pub stage_site_number: Option<u16>,
    /// How old that picture is now, by its own clock.
    pub stage_mark_age_ms: Option<u32>,
    /// `empty`, `waiting`, `live`, `stale`, `absent` or `refused`, as the relay says.
    pub stage_status: &'static str,
    /// Site whose picture the relay says is on the stage.
    pub stage_site: Option<String>,
    /// Pictures of the stage that were decoded, or handed to the browser that shows it.
    pub stage_pictures: u64,
    /// Packets that came into the audio slots a0, a1, a2.
    pub audio_packets: [u64; 3],
    /// Pictures sent, all layers together.
    pub pictures_sent: u64,
    /// The camera is paused: nobody watches it.
    pub paused: bool,
    /// What is wrong with the camera: `missing`, `busy`, `silent`, `refused`, `unreachable`, `format`, `denied` or `page_closed`.
    pub camera_fault: Option<&'static str>,
    /// Since when, milliseconds since the Unix epoch; 0 while nothing is.
    pub camera_since_ms: i64,
    /// How much of camera and microphone is sent: `full`, `small`, `stills`, `audio` or `text`.
    pub rung: Rung,
    /// Why it is not more: `narrow` or `dark`.
    pub rung_why: Option<Why>,
    /// How the way to the relay is, in a meeting.
    pub way: Option<Way>,
    /// What the link goes over while it is up: `udp`, or `tcp` where UDP is blocked.
    pub transport: Option<&'static str>,
    /// The network interface that is sent by, where some were named.
    pub interface: Option<String>,
    /// Further ones over which the relay answers.
    pub warm_interfaces: usize,
    /// The site sends sound alone, as it was asked to.
    pub audio_only: bool,
    /// The chair has muted the site.
    pub muted: bool,
    /// What the site's person must know of the meeting.
    pub notice: Notice,
    /// A call that nobody has answered yet.
    pub ringing: Option<Called>,
    /// Why the site is out of its last meeting, where it did not leave by itself: "ended", "called away", …
    pub left: Option<String>,
    /// Address of the control plane that the agent is attached to.
    pub control_plane: Option<String>,
    /// When it will attach again, milliseconds since the Unix epoch; 0 while it is attached.
    pub attach_at_ms: i64,
    /// Since when it is not attached, milliseconds since the Unix epoch; 0 while it is.
    pub detached_since_ms: i64,
    /// Address of the relay that the link leads to, while it is up.
    pub relay: Option<String>,
    pub link: Link,
    pub last_error: Option<String>,
    /// Reports that wait to be sent.
    pub reports_waiting: usize,
}

/// The way to the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Way {
    /// What it is thought to carry, kbit/s.
    pub rate_kbps: u64,
    /// Datagrams lost, in thousandths.
    pub loss_permille: u32,
    pub rtt_ms: u64,
    /// Since when nothing comes back, milliseconds since the Unix epoch; 0 while something does.
    pub dark_since_ms: i64,
}

/// The way to a relay. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Address that it leads to, up or not.
    pub wanted: Option<String>,
    /// Since when it is not up although it is wanted; 0 otherwise.
    pub away_since_ms: i64,
    /// When it is tried again, or was tried last; 0 while it is up.
    pub try_at_ms: i64,
}

/// A call that rings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Called {
    pub meeting: String,
    pub title: String,
    /// Who calls.
    pub from: String,
}

/// Roll call, floor and chair, as the control plane says. Times are milliseconds since the Unix epoch, 0 for none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The site is called, and has until `answer_by_ms` to answer.
    pub roll_called: bool,
    /// Number of that roll call, and when the site was called; 0 for none.
    pub roll_call: u32,
    pub called_ms: i64,
    pub answer_by_ms: i64,
    /// `none`, `waiting` or `granted`.
    pub floor: &'static str,
    /// Place in the queue, from 1.
    pub floor_place: u32,
    pub floor_until_ms: i64,
    pub locked: bool,
    /// Display name.
    pub chair: String,
    pub ends_ms: i64,
}

impl Default for Notice {
    fn default() -> Self {
        Self {
            roll_called: false,
            roll_call: 0,
            called_ms: 0,
            answer_by_ms: 0,
            floor: "none",
            floor_place: 0,
            floor_until_ms: 0,
            locked: false,
            chair: String::new(),
            ends_ms: 0,
        }
    }
}

impl Status {
    /// For `systemctl status`.
    fn in_words(&self) -> String {
        let state = match self.state {
            State::Enrolling => "enrolling",
            State::Offline => "offline",
            State::Attached => "attached",
            State::Ringing => "ringing",
            State::Joining => "joining",
            State::OnAir => "on air",
        };
        let camera = self.camera_fault.map(|word| format!(", camera {word}"));
        let blocked = (self.transport == Some("tcp")).then(|| ", UDP blocked: link over TCP".to_owned());
        let error = self.last_error.as_ref().map(|error| format!(", {error}"));
        [Some(state.to_owned()), camera, blocked, error]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Whether something changed that a person would call a change; counters and ages are not.
    pub fn differs(&self, other: &Self) -> bool {
        let plain = |status: &Self| Self {
            stage_mark_age_ms: None,
            stage_pictures: 0,
            audio_packets: [0; 3],
            pictures_sent: 0,
            way: status.way.map(|way| Way {
                dark_since_ms: way.dark_since_ms,
                ..Way::default()
            }),
            attach_at_ms: 0,
            link: Link {
                try_at_ms: 0,
                ..status.link.clone()
            },
            ..status.clone()
        };
        plain(self) != plain(other)
    }
}

/// Writes the document where it was asked for.
#[derive(Debug)]
pub struct StatusWriter {
    target: Option<PathBuf>,
    watchers: Option<watch::Sender<Status>>,
    notifier: Option<Notifier>,
    failed: bool,
}

impl StatusWriter {
    /// `None` writes to no file; `-` is standard output.
    pub fn new(
        target: Option<PathBuf>,
        watchers: Option<watch::Sender<Status>>,
        notifier: Option<Notifier>,
    ) -> Self {
        Self {
            target,
            watchers,
            notifier,
            failed: false,
        }
    }

    /// Writes the document. On standard output only if it `changed`.
    pub fn write(&mut self, status: &Status, changed: bool) {
        if let Some(watchers) = &self.watchers {
            watchers.send_replace(status.clone());
        }
        if let Some(notifier) = &self.notifier {
            notifier.alive(&status.in_words());
        }
        let Some(target) = self.target.as_deref() else {
            return;
        };
        let result = if target == Path::new("-") {
            if !changed {
                return;
            }
            print_line(status)
        } else {
            replace(target, status)
        };
        match result {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(%error, target = %target.display(), "cannot write the status");
            }
            Err(_) => {}
        }
    }
}

fn print_line(status: &Status) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(status)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

fn replace(target: &Path, status: &Status) -> std::io::Result<()> {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    std::fs::write(&part, serde_json::to_vec_pretty(status)?)?;
    std::fs::rename(&part, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("status.json");
        let mut writer = StatusWriter::new(Some(path.clone()), None, None);
        for (state, text) in [(State::Attached, "attached"), (State::OnAir, "on_air")] {
            writer.write(
                &Status {
                    state,
                    ..Status::default()
                },
                false,
            );
            let json: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&path).expect("written")).expect("JSON");
            assert_eq!(json["state"], text);
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn counters_and_ages_are_no_change() {
        let before = Status::default();
        let counted = Status {
            audio_packets: [1, 2, 3],
            stage_mark_age_ms: Some(9),
            ..Status::default()
        };
        assert!(!before.differs(&counted));
        assert!(before.differs(&Status {
            muted: true,
            ..counted
        }));
    }
}

//! `muster watch`: everything that happens, a line of JSON each, resuming where it was left.
//!
//! The cursor file holds the last event printed of each meeting, and up to which meeting all were told. It is written at most 100 ms after the line and at the
//! end, so that only a crash of this program makes it print an event again; each event has its stream and number. A
//! control plane that goes away is asked again until it is back, and nothing is lost meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::command::v1::watch_response::Event;
use muster_proto::command::v1::{Position, WatchRequest, WatchResponse, meeting_event};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Streaming;

use crate::args::Follow;
use crate::client::Client;
use crate::event_json::watched;
use crate::failure::Failure;
use crate::output::print_json;
use crate::session::write_private;

const WRITE_AFTER: Duration = Duration::from_millis(100);
/// Between two tries while the control plane is away.
const AGAIN: Duration = Duration::from_millis(500);
/// The server beats every second: after so long without a word it is gone.
const SILENCE: Duration = Duration::from_millis(2500);
/// The first word of a stream may be a long one, on a slow network.
const OPENING: Duration = Duration::from_secs(8);
/// Meetings that have ended stay in the cursor, so that it never runs empty, but not all of them.
const MOST_ENDED: usize = 100;

/// What was printed last.
#[derive(Default, Serialize, Deserialize, Debug, PartialEq)]
struct Cursor {
    live: BTreeMap<String, u64>,
    /// Oldest first.
    ended: Vec<(String, u64)>,
    /// Every meeting up to this number was told; none in a file of an earlier version.
    #[serde(default)]
    position: Option<u64>,
}

impl Cursor {
    fn positions(&self) -> Vec<Position> {
        let live = self.live.iter().map(|(stream, &seq)| (stream.clone(), seq));
        let all = live.chain(self.ended.iter().cloned());
        all.map(|(stream, seq)| Position { stream, seq }).collect()
    }

    /// Whether it changed.
    fn note(&mut self, event: &Event) -> bool {
        match event {
            Event::Snapshot(snapshot) if !snapshot.resumed => {
                // Nothing before it will be told any more.
                *self = Self::default();
                let seqs = snapshot
                    .meetings
                    .iter()
                    .map(|meeting| (meeting.id.clone(), meeting.seq));
                self.live.extend(seqs);
            }
            Event::MeetingEvent(event) => {
                if matches!(event.event, Some(meeting_event::Event::Ended(_))) {
                    self.live.remove(&event.meeting);
                    self.ended.push((event.meeting.clone(), event.seq));
                    if self.ended.len() > MOST_ENDED {
                        self.ended.remove(0);
                    }
                } else {
                    self.live.insert(event.meeting.clone(), event.seq);
                }
            }
            _ => return false,
        }
        true
    }
}

/// The cursor and its file.
struct Kept {
    cursor: Cursor,
    file: Option<PathBuf>,
    /// When the file is to be written.
    due: Option<Instant>,
}

impl Kept {
    fn open(file: Option<PathBuf>) -> Result<Self, Failure> {
        let cursor = match &file {
            Some(file) => read(file)?,
            None => Cursor::default(),
        };
        Ok(Self {
            cursor,
            file,
            due: None,
        })
    }

    fn note(&mut self, event: &Event, position: u64) {
        let moved = self.cursor.position != Some(position);
        let changed = self.cursor.note(event) || moved;
        self.cursor.position = Some(position);
        if changed && self.due.is_none() {
            self.due = Some(Instant::now() + WRITE_AFTER);
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        if self.due.take().is_none() {
            return Ok(());
        }
        match &self.file {
            Some(file) => {
                let text = serde_json::to_vec(&self.cursor).map_err(|e| Failure::Refused(e.to_string()))?;
                write_private(file, &text)
            }
            None => Ok(()),
        }
    }
}

fn read(file: &Path) -> Result<Cursor, Failure> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| {
            Failure::Usage(format!("{}: no cursor of muster watch: {error}", file.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Cursor::default()),
        Err(error) => Err(Failure::Usage(format!("{}: {error}", file.display()))),
    }
}

pub async fn follow(client: &Client, options: Follow) -> Result<(), Failure> {
    let mut kept = Kept::open(options.cursor)?;
    let failed = |error| Failure::Refused(format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let outcome = tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
        outcome = for_ever(client, &options.unit, &mut kept) => outcome,
    };
    outcome.and(kept.write())
}

async fn for_ever(client: &Client, units: &[String], kept: &mut Kept) -> Result<(), Failure> {
    let mut away = false;
    loop {
        let request = WatchRequest {
            cursor: kept.cursor.positions(),
            units: units.to_vec(),
            position: kept.cursor.position,
        };
        let ended = match client.watch().watch(request).await {
            Ok(stream) => {
                away = false;
                one(stream.into_inner(), kept).await
            }
            Err(status) => Err(status.into()),
        };
        kept.write()?;
        match ended {
            // A stream that ends by itself, or falls behind, goes on at the cursor.
            Ok(()) | Err(Failure::Unreachable(_)) => {}
            Err(Failure::Refused(text)) if text.starts_with("not now") || text.contains("cursor") => {}
            Err(other) => return Err(other),
        }
        if !away {
            eprintln!("muster: the stream ended; trying again");
            away = true;
        }
        sleep(AGAIN).await;
    }
}

/// Prints one stream to its end, or until it is silent for too long.
async fn one(mut stream: Streaming<WatchResponse>, kept: &mut Kept) -> Result<(), Failure> {
    let mut silent_at = Instant::now() + OPENING;
    loop {
        let until = kept.due.map_or(silent_at, |due| due.min(silent_at));
        let Ok(next) = timeout_at(until, stream.message()).await else {
            kept.write()?;
            if Instant::now() < silent_at {
                continue;
            }
            return Err(Failure::Unreachable("no heartbeat of the control plane".into()));
        };
        silent_at = Instant::now() + SILENCE;
        let Some(message) = next? else {
            return Ok(());
        };
        let (position, Some(event)) = (message.position, message.event) else {
            continue;
        };
        if let Some(line) = watched(&event) {
            print_json(&line)?;
        }
        kept.note(&event, position);
        if kept.due.is_some_and(|due| due <= Instant::now()) {
            kept.write()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::command::v1::{Meeting, MeetingEnded, MeetingEvent, WatchHeartbeat, WatchSnapshot};

    fn event(meeting: &str, seq: u64, ended: bool) -> Event {
        let end = ended.then(|| meeting_event::Event::Ended(MeetingEnded::default()));
        Event::MeetingEvent(MeetingEvent {
            meeting: meeting.to_owned(),
            seq,
            event: end,
            ..MeetingEvent::default()
        })
    }

    fn snapshot(resumed: bool) -> Event {
        let meeting = Meeting {
            id: "s".to_owned(),
            seq: 5,
            ..Meeting::default()
        };
        Event::Snapshot(WatchSnapshot {
            meetings: vec![meeting],
            resumed,
            ..WatchSnapshot::default()
        })
    }

    #[test]
    fn a_cursor_follows_what_is_printed() {
        let mut cursor = Cursor::default();
        assert!(cursor.note(&snapshot(false)));
        assert!(cursor.note(&event("a", 1, false)) && cursor.note(&event("a", 2, false)));
        assert!(!cursor.note(&Event::Heartbeat(WatchHeartbeat::default())));
        assert_eq!(
            cursor.live,
            BTreeMap::from([("a".to_owned(), 2), ("s".to_owned(), 5)])
        );
        // A snapshot that resumes repeats no meeting; one that does not makes the cursor anew.
        cursor.note(&snapshot(true));
        assert_eq!(cursor.live.len(), 2);
        cursor.note(&snapshot(false));
        assert_eq!(cursor.live.len(), 1);
    }

    #[test]
    fn what_has_ended_stays_in_the_cursor_but_not_for_ever() {
        let mut cursor = Cursor::default();
        for n in 0..MOST_ENDED + 5 {
            cursor.note(&event(&n.to_string(), 1, false));
            cursor.note(&event(&n.to_string(), 2, true));
        }
        assert!(cursor.live.is_empty());
        let positions = cursor.positions();
        assert_eq!(positions.len(), MOST_ENDED);
        assert_eq!((positions[0].stream.as_str(), positions[0].seq), ("5", 2));
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_anything_else_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("cursor.json");
        let mut kept = Kept::open(Some(file.clone())).expect("none yet");
        kept.note(&event("a", 3, false), 7);
        kept.write().expect("written");
        let read = Kept::open(Some(file.clone())).expect("read").cursor;
        assert_eq!((&read, read.position), (&kept.cursor, Some(7)));
        std::fs::write(&file, r#"{"live":{"a":3},"ended":[]}"#).expect("written");
        let old = Kept::open(Some(file.clone())).expect("of an earlier version");
        assert_eq!(old.cursor.position, None);
        std::fs::write(&file, "{").expect("written");
        assert!(matches!(Kept::open(Some(file)), Err(Failure::Usage(_))));
    }
}

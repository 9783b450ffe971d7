//! What is recorded on the box while the link is away: begun when the site is out of a meeting for a moment, ended when it
//! is back in, or the meeting is over for it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::Config;
use crate::recorder::Recorder;

use super::{Agent, epoch_ms};

/// The recordings' folder in the state folder.
pub const FOLDER: &str = "recordings";
/// A link that is back by then leaves no recording.
const AFTER: Duration = Duration::from_secs(2);

/// A recorder, where there is a folder and it may take any room.
pub(super) fn open(config: &Config) -> Option<Recorder> {
    let dir = config.state_dir.as_deref()?.join(FOLDER);
    let limits = config.recordings?;
    Some(Recorder::new(dir, limits))
}

impl Agent {
    /// Begins or ends the recording; says when to look again.
    pub(super) fn look_at_recording(&mut self, now: Instant) -> Option<Instant> {
        let recorder = self.recorder.as_mut()?;
        let meeting = self.meeting.as_ref().filter(|meeting| !meeting.is_in());
        let Some(meeting) = meeting.filter(|_| self.was_on_air) else {
            self.out_since = None;
            if recorder.is_on() {
                recorder.end(epoch_ms());
                tracing::info!("the recording of the outage has ended");
            }
            return None;
        };
        let begins = *self.out_since.get_or_insert(now) + AFTER;
        if recorder.is_on() {
            return None;
        }
        if now < begins {
            return Some(begins);
        }
        let publisher = self.publisher.as_mut()?;
        tracing::info!(
            meeting = meeting.id,
            "the link is away: what the site would send is recorded here"
        );
        recorder.begin(&publisher.sources(meeting.audio_only));
        publisher.start(now, meeting.audio_only);
        None
    }

    /// Records what is due. `false`: nothing is recorded now.
    pub(super) fn record(&mut self, now: Instant) -> bool {
        let (Some(publisher), Some(recorder)) = (&mut self.publisher, &mut self.recorder) else {
            return false;
        };
        if !recorder.is_on() {
            return false;
        }
        let now_ms = epoch_ms();
        let mut keep = |datagram: Bytes| recorder.push(now, now_ms, &datagram);
        publisher.handle_timeout(now, now_ms, &mut keep);
        if let Some(flow) = recorder.wants_key(now) {
            publisher.request_key_frame(now, flow);
        }
        true
    }
}

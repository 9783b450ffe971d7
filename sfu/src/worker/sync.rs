//! What the directory says has changed in a meeting, done here: sources of other workers come and go, the stage is taken,
//! legs that must go are closed, the relays at links of this worker hear of it.
//!
//! It works on state and not on messages, so it may run at any time and any number of times.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_forward::{Meeting, SourceId, Stage};
use muster_proto::command::v1::StageDocument;
use muster_proto::media::v1::{MeetingNotice, Speakers};

use crate::directory::{Relayed, order};

use super::state::{Home, LocalMeeting, MeetingKey, Worker};

/// From the end of a meeting here to the end of its legs, so that the notice is read.
const GRACE: Duration = Duration::from_millis(500);

impl Worker {
    /// Does what the difference between the directory and this worker asks for.
    pub fn sync(&mut self, now: Instant, name: &Arc<str>) {
        let view = self.shared.directory.look(name, self.index);
        self.sync_above(now, name, view.needed);
        let Some(&key) = self.meeting_keys.get(name) else {
            return;
        };
        if let Some(stage) = &view.stage {
            self.take_stage(now, key, stage, view.moved);
        }
        let Some(meeting) = self.meetings.get_mut(&key) else {
            return;
        };
        let present: HashSet<SourceId> = view
            .sources
            .iter()
            .flat_map(|(_, specs)| specs.iter())
            .map(|spec| spec.id)
            .chain(
                view.relayed
                    .iter()
                    .flat_map(|(_, some)| some.iter())
                    .map(|one| one.spec.id),
            )
            .collect();
        let (kept, gone): (Vec<_>, Vec<_>) = meeting.remote.iter().partition(|known| present.contains(known));
        meeting.remote = kept;
        for id in gone {
            meeting.core.remove_source(self.shared.micros(now), id);
            self.sources.remove(&id);
        }
        for (worker, specs) in &view.sources {
            for spec in specs.iter() {
                if !self.sources.contains_key(&spec.id) {
                    let relay = self.shared.directory.relay().clone();
                    self.add_source(now, key, Home::Worker(*worker), spec.clone(), relay);
                }
            }
        }
        for (worker, relayed) in &view.relayed {
            for Relayed { spec, relay } in relayed.iter() {
                if !self.sources.contains_key(&spec.id) {
                    self.add_source(now, key, Home::Worker(*worker), spec.clone(), relay.clone());
                }
            }
        }
        self.forget_absent_workers(now, key, view.workers);
        for (id, reason) in view.ordered_out {
            self.close(id, reason);
        }
        if let Some(speaker) = &view.speaker
            && let Some(meeting) = self.meetings.get_mut(&key)
        {
            meeting.core.adopt_speaker(self.shared.micros(now), speaker);
        }
        self.follow(now, key);
        self.drain_core(now, key);
        self.announce(key);
    }

    /// The meeting's key here; it opens if it was not.
    pub(super) fn open_meeting(&mut self, name: &Arc<str>) -> MeetingKey {
        if let Some(&key) = self.meeting_keys.get(name) {
            return key;
        }
        let key = MeetingKey(self.shared.directory.next_id());
        let meeting = LocalMeeting {
            name: name.clone(),
            core: Meeting::new(),
            legs: Vec::new(),
            remote: Vec::new(),
            stage: None,
            speakers: Speakers::default(),
            close_at: None,
        };
        self.meetings.insert(key, meeting);
        self.meeting_keys.insert(name.clone(), key);
        key
    }

    /// Forgets a meeting that has neither a leg here nor another relay at a link of ours.
    pub(super) fn close_if_idle(&mut self, key: MeetingKey) {
        let idle = |meeting: &&LocalMeeting| meeting.legs.is_empty() && !self.has_part(key);
        let Some(name) = self.meetings.get(&key).filter(idle).map(|m| m.name.clone()) else {
            return;
        };
        self.meeting_keys.remove(&name);
        let remote = self.meetings.remove(&key).map(|meeting| meeting.remote);
        for source in remote.unwrap_or_default() {
            self.sources.remove(&source);
        }
    }

    /// A worker that has no leg of the meeting any more wants nothing of it, even if it could not say so.
    fn forget_absent_workers(&mut self, now: Instant, key: MeetingKey, present: u64) {
        let mut changed = Vec::new();
        for (&id, source) in self
            .sources
            .iter_mut()
            .filter(|(_, source)| source.meeting == key)
        {
            for (layer, place) in source.layers.iter_mut().enumerate() {
                if place.wanted_by & !present != 0 {
                    place.wanted_by &= present;
                    changed.push((id, layer));
                }
            }
        }
        for (id, layer) in changed {
            self.apply_want(now, id, layer);
        }
    }

    fn take_stage(&mut self, now: Instant, key: MeetingKey, stage: &Arc<StageDocument>, moved: bool) {
        let Some(meeting) = self.meetings.get_mut(&key) else {
            return;
        };
        if meeting
            .stage
            .as_ref()
            .is_some_and(|old| order(old) >= order(stage))
        {
            return;
        }
        meeting.stage = Some(stage.clone());
        let at = self.shared.micros(now);
        let broadcast = (!stage.broadcast_site.is_empty()).then(|| stage.broadcast_site.as_str().into());
        meeting.core.set_stage(
            at,
            Stage {
                version: stage.version,
                broadcast,
                chair: stage.chair.as_str().into(),
                muted: stage
                    .muted_sites
                    .iter()
                    .map(|site| site.as_str().into())
                    .collect(),
                voice_switching: stage.voice_switching,
                content: Some(stage.content_site.as_str().into()),
            },
        );
        let over = match (stage.ended, moved) {
            (true, _) => Some("ended"),
            (false, true) => Some("moved"),
            (false, false) => None,
        };
        // One that has come back goes on.
        meeting.close_at = over.map(|reason| (now + GRACE, reason));
        for id in &meeting.legs {
            let Some(leg) = self.legs.get_mut(id) else {
                continue;
            };
            leg.notice = notice(stage, &leg.site, moved);
            leg.posts.iter().for_each(|post| post.notice(leg.notice.clone()));
        }
    }
}

/// What the stage means for one site.
pub(super) fn notice(stage: &StageDocument, site: &str, moved: bool) -> MeetingNotice {
    MeetingNotice {
        ended: stage.ended,
        muted: stage.muted_sites.iter().any(|muted| muted == site),
        broadcast_site: stage.broadcast_site.clone(),
        content_site: stage.content_site.clone(),
        voice_switching: stage.voice_switching,
        locked: stage.locked,
        moved,
    }
}

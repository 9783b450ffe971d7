//! What a tab is told that its person may do: at all, and in each meeting that they see.
//!
//! Only what changed is told. It is a hint for what to show; every command is put to `authorize` again.

use crate::core::target_of;
use muster_domain::{Action, Actor, Meeting, Millis, Tree};
use muster_proto::command::v1 as pb;
use std::collections::HashMap;
use std::sync::Arc;

/// What was told last, by meeting; the empty name is what may be done at all.
#[derive(Default)]
pub struct Told(HashMap<String, Vec<Action>>);

impl Told {
    /// What there is to tell now, given the meetings that may be seen.
    pub fn news(
        &mut self,
        actor: &Actor,
        meetings: &[Arc<Meeting>],
        tree: &Tree,
        now: Millis,
    ) -> Vec<pb::Permissions> {
        let mut all = vec![(String::new(), actor.permitted_anywhere(now))];
        for meeting in meetings {
            if let Ok(target) = target_of(meeting) {
                all.push((meeting.id().to_string(), actor.permitted(&target, tree, now)));
            }
        }
        let mut news = Vec::new();
        let mut told = HashMap::with_capacity(all.len());
        for (meeting, actions) in all {
            let before = self.0.remove(&meeting);
            if before.as_ref() != Some(&actions) {
                news.push(permissions(&meeting, &actions));
            }
            told.insert(meeting, actions);
        }
        // Nothing is left to do in what has ended or is out of sight.
        for (meeting, actions) in self.0.drain() {
            if !actions.is_empty() {
                news.push(permissions(&meeting, &[]));
            }
        }
        self.0 = told;
        news
    }
}

/// Whether somebody may do something else after this event.
pub fn changes_permissions(event: &pb::MeetingEvent) -> bool {
    use pb::meeting_event::Event;
    matches!(
        event.event,
        Some(Event::Convened(_) | Event::SitesAdded(_) | Event::Chair(_) | Event::Ended(_))
    )
}

fn permissions(meeting: &str, actions: &[Action]) -> pb::Permissions {
    pb::Permissions {
        meeting: meeting.to_owned(),
        actions: actions.iter().map(|action| action.as_str().to_owned()).collect(),
    }
}

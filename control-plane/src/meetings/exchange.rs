//! Sites that move between meetings: a meeting of higher priority takes them, and they return when it lets them go.
//!
//! A step that takes or frees sites has the claims moved in its own transaction. The other meetings concerned then look
//! at the claims anew, and each says for itself what became of its sites; so nothing is lost if that is interrupted: the
//! same look, at any later time, finds the same. A losing meeting has told its endpoints "called away" before the
//! taking one pages them. What a meeting makes of it is the domain's.

use super::actor::MeetingActor;
use super::draft::Draft;
use super::{Ask, Fact, Meetings, Shared, invitee};
use muster_domain::claims::{returning, taken};
use muster_domain::{Claims, Command, Event, MeetingId, SiteId};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a meeting that takes sites waits for those that lose them.
const WAIT: Duration = Duration::from_secs(1);

/// Which other meetings a step concerns.
#[derive(Default)]
pub(super) struct Concerned {
    losing: BTreeMap<MeetingId, Vec<SiteId>>,
    /// Sites were let go, for which others may wait.
    frees: bool,
}

impl Concerned {
    /// Told before the claims follow the events.
    pub fn of(meeting: &MeetingId, events: &[Event], claims: &Claims) -> Self {
        let frees = |event: &Event| match event {
            Event::SummonsChanged { summons } => !summons.holds_claim(),
            Event::Ended { .. } => true,
            _ => false,
        };
        Self {
            losing: claims.moved(meeting, events),
            frees: events.iter().any(frees),
        }
    }
}

impl Shared {
    /// Has the meetings that a step concerns look at the claims anew; returns when those that lose sites have.
    pub(super) async fn exchange(&self, by: &MeetingId, concerned: Concerned) {
        if concerned.losing.is_empty() && !concerned.frees {
            return;
        }
        let waits = |view: &muster_domain::Meeting| {
            let other = |s: &muster_domain::Summons| s.other.as_ref().is_some_and(|o| o.meeting == *by);
            concerned.frees && view.summonses().iter().any(other)
        };
        let (done, mut pending) = mpsc::channel(1);
        let mut waiting = Vec::new();
        for (id, handle) in self.live.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let view = handle.view.get();
            if view.id() == by {
                continue;
            }
            if concerned.losing.contains_key(id.as_str()) {
                handle.look_at_claims(Some(done.clone()));
            } else if waits(&view) {
                waiting.push((view.terms().priority, view.started(), handle.clone()));
            }
        }
        drop(done);
        // The most urgent first, then the oldest.
        waiting.sort_by_key(|(priority, started, _)| (std::cmp::Reverse(*priority), *started));
        for (_, _, handle) in waiting {
            handle.look_at_claims(None);
        }
        if tokio::time::timeout(WAIT, pending.recv()).await.is_err() {
            tracing::warn!(meeting = %by, "a meeting that loses sites is slow to say so");
        }
    }
}

impl super::Handle {
    fn look_at_claims(&self, done: Option<mpsc::Sender<()>>) {
        if self
            .queue
            .try_send(Ask::Fact(Fact::Claims { _done: done }))
            .is_err()
        {
            metrics::counter!("muster_meeting_queue_full").increment(1);
        }
    }
}

impl Meetings {
    /// All meetings look at the claims: what was interrupted by a stop is made up for.
    pub(super) fn look_at_all_claims(&self) {
        for handle in self.handles(|_| true) {
            handle.look_at_claims(None);
        }
    }
}

impl MeetingActor {
    /// Says which sites of this meeting others have taken, and calls those that are free again.
    pub(super) fn look_at_claims(&mut self, claims: &Claims, draft: &mut Draft) {
        let lost: Vec<_> = taken(&self.meeting, claims)
            .map(|(site, by)| (site.clone(), by))
            .collect();
        for (site, by) in lost {
            self.system(Command::SiteTaken { site, by }, draft);
        }
        let free: Vec<SiteId> = returning(&self.meeting, claims).cloned().collect();
        for site in free {
            let site = invitee(&self.shared.endpoints, site, claims);
            self.system(Command::SiteReturned { site }, draft);
        }
    }

    /// A command as it stands at this moment: sites to be called with what is known of them now.
    pub(super) fn fresh(&self, command: Command, claims: &Claims) -> Command {
        let fresh = |sites: Vec<muster_domain::Invitee>| {
            let now = |known: muster_domain::Invitee| invitee(&self.shared.endpoints, known.site, claims);
            sites.into_iter().map(now).collect()
        };
        match command {
            Command::AddSites { sites, over } => Command::AddSites {
                sites: fresh(sites),
                over,
            },
            Command::CallUnconnected { sites } => Command::CallUnconnected { sites: fresh(sites) },
            other => other,
        }
    }
}

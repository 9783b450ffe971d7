//! Which meeting has a site: the one place where that is known, asked, and made so.
//!
//! Invariant: a site has one live meeting; of those whose streams claim it that of the highest priority, of equals the
//! one that the store's table of claims names. The table is the truth: a step that takes or frees sites has the rows
//! moved in its own transaction, and the store refuses the second of two that may not both be. [`Claims`] here is what
//! the streams read so far say, in whatever order. Nothing holds it across a wait: a step decides under the lock, then
//! stores, and a race that it loses is decided anew.
//!
//! A meeting that has lost a site says so itself, by an event. It is told to look when either of the two streams moves
//! on here ([`Shared::exchange`]; also when it is heard of last), when it is first known here, and once a second by
//! [`Meetings::reconcile`], which also asks the store where the streams do not tell. So nothing is lost if any of that
//! is interrupted: the same look, at any later time, finds the same. A losing meeting has told its endpoints "called
//! away" before the taking one pages them, and a meeting pages nobody that another has ([`MeetingActor::holds`]): such
//! a page is held back, and sent when the other has let go, as a replica may read that of the two streams in either
//! order. For the same reason the store refuses a meeting's word that it lost a site which the table still gives it.
//! What a meeting makes of it is the domain's.

use super::actor::MeetingActor;
use super::draft::Draft;
use super::{Ask, Fact, Meetings, Shared, invitee};
use crate::store::StoreError;
use muster_domain::claims::{returning, taken};
use muster_domain::{Claims, Command, Event, Meeting, MeetingId, SiteId, Summons};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a meeting that takes sites waits for those that lose them.
const WAIT: Duration = Duration::from_secs(1);

/// The claims as the streams read here have them.
#[derive(Default)]
pub(crate) struct Book(Mutex<Claims>);

impl Book {
    pub fn lock(&self) -> MutexGuard<'_, Claims> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn frees(event: &Event) -> bool {
    match event {
        Event::SummonsChanged { summons } => !summons.holds_claim(),
        Event::Ended { .. } => true,
        _ => false,
    }
}

impl Shared {
    /// Has the other meetings that a step concerns look at the claims; returns when those that lose sites have. True, if
    /// the meeting itself has lost some.
    pub(super) async fn exchange(&self, by: &MeetingId, draft: &Draft) -> bool {
        let mut beaten = self.claims.lock().beaten(&draft.touched);
        let own = beaten.remove(by);
        if draft.events.iter().any(frees) {
            self.tell_waiting(by, draft);
        }
        let (done, mut pending) = mpsc::channel(1);
        self.have_look(&beaten, Some(&done));
        drop(done);
        if tokio::time::timeout(WAIT, pending.recv()).await.is_err() {
            tracing::warn!(meeting = %by, "a meeting that loses sites is slow to say so");
        }
        own
    }

    /// Those that wait for sites of this meeting look, the most urgent first, then the oldest: also those that know
    /// already that it let go of them, and whose pages were held back here.
    fn tell_waiting(&self, by: &MeetingId, draft: &Draft) {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let own = live.get(by.as_str()).map(|handle| handle.view.get());
        let over = own.filter(|view| !view.is_live());
        let freed = |site: &SiteId| match &over {
            Some(ended) => ended.summons(site).is_some(),
            None => draft.touched.contains(site),
        };
        let waits = |view: &Meeting| {
            let waits = |s: &Summons| match &s.other {
                Some(other) => other.meeting == *by,
                None => s.holds_claim() && freed(&s.site),
            };
            view.id() != by && view.summonses().iter().any(waits)
        };
        let mut waiting = Vec::new();
        for handle in live.values() {
            let view = handle.view.get();
            if waits(&view) {
                waiting.push((view.terms().priority, view.started(), handle.clone()));
            }
        }
        waiting.sort_by_key(|(priority, started, _)| (std::cmp::Reverse(*priority), *started));
        for (_, _, handle) in waiting {
            handle.look_at_claims(None);
        }
    }

    fn have_look(&self, meetings: &BTreeSet<MeetingId>, done: Option<&mpsc::Sender<()>>) {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        for handle in meetings.iter().filter_map(|id| live.get(id.as_str())) {
            handle.look_at_claims(done.cloned());
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

    /// Meetings that have lost sites and did not say so are told to look; where the streams do not tell who has a site,
    /// the store does.
    pub(super) async fn reconcile(&self) -> Result<(), StoreError> {
        if self.shared.claims.lock().is_open() {
            let rows = self.shared.store.claims().await?;
            let mut claims = self.shared.claims.lock();
            for row in rows {
                claims.settle(&row.site, &row.meeting);
            }
        }
        let beaten = self.shared.claims.lock().all_beaten();
        self.shared.have_look(&beaten, None);
        // What was taken may have been read after the end of the meeting that took it.
        let waiting = {
            let claims = self.shared.claims.lock();
            self.handles(|view| returning(view, &claims).next().is_some())
        };
        for handle in waiting {
            handle.look_at_claims(None);
        }
        Ok(())
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

    /// Whether the site is this meeting's to page.
    pub(super) fn holds(&self, site: &SiteId) -> bool {
        self.shared.claims.lock().holder(site) == Some(self.meeting.id())
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

//! Who may speak (发言权): the queue of sites that have requested the floor, in order, and those that have it.
//!
//! Invariants: a site is in it once; requests keep the order in which they came, whatever is granted or taken in
//! between. A granted site's microphone is open until its time. Each change gives the whole new queue.

use crate::ids::{Millis, SiteId};

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FloorState {
    Waiting,
    Granted,
}

/// A site that has requested the floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorRequest {
    pub site: SiteId,
    pub state: FloorState,
    pub requested: Millis,
    pub granted: Option<Millis>,
    /// When the floor goes back by itself; none: no limit.
    pub until: Option<Millis>,
}

/// The queue, first come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floor(pub Vec<FloorRequest>);

impl Floor {
    pub fn of(&self, site: &str) -> Option<&FloorRequest> {
        self.0.iter().find(|request| request.site.as_str() == site)
    }

    /// Whether the site may speak.
    pub fn has(&self, site: &str) -> bool {
        self.of(site)
            .is_some_and(|request| request.state == FloorState::Granted)
    }

    /// Place among those that wait, from 1.
    pub fn place(&self, site: &str) -> Option<usize> {
        let mut waiting = self.0.iter().filter(|r| r.state == FloorState::Waiting);
        waiting
            .position(|request| request.site.as_str() == site)
            .map(|at| at + 1)
    }

    /// The site asks; none if it has asked already.
    pub fn requested(&self, site: &SiteId, now: Millis) -> Option<Floor> {
        if self.of(site).is_some() {
            return None;
        }
        let mut next = self.clone();
        next.0.push(FloorRequest {
            site: site.clone(),
            state: FloorState::Waiting,
            requested: now,
            granted: None,
            until: None,
        });
        Some(next)
    }

    /// The site may speak until then; one that has not asked is asked to. None if that is so already.
    pub fn granted(&self, site: &SiteId, until: Option<Millis>, now: Millis) -> Option<Floor> {
        let mut next = self.requested(site, now).unwrap_or_else(|| self.clone());
        let request = next.0.iter_mut().find(|request| request.site == *site)?;
        request.granted = request.granted.or(Some(now));
        request.state = FloorState::Granted;
        request.until = until;
        (next != *self).then_some(next)
    }

    /// Without these sites; none if none of them is in it.
    pub fn without(&self, gone: impl Fn(&FloorRequest) -> bool) -> Option<Floor> {
        if !self.0.iter().any(&gone) {
            return None;
        }
        let kept = self.0.iter().filter(|request| !gone(request));
        Some(Floor(kept.cloned().collect()))
    }

    /// Without those whose time is over.
    pub fn ticked(&self, now: Millis) -> Option<Floor> {
        self.without(|request| request.until.is_some_and(|until| until <= now))
    }

    /// When the next one's time is over.
    pub fn due(&self) -> Option<Millis> {
        self.0.iter().filter_map(|request| request.until).min()
    }
}

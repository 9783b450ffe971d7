//! What is asked of the directory: a meeting as a worker must see it, legs by their name or secret, and all of them.
//!
//! Nothing is changed here.

use std::sync::Arc;

use muster_forward::{LegId, SourceKind, SourceSpec};
use muster_proto::command::v1::{LegReport, LegState, StageDocument};

use super::{Directory, LegRecord, Relayed};

/// Where a leg is, for those who hold its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub id: LegId,
    pub worker: usize,
}

/// A meeting as one worker sees it.
#[derive(Default)]
pub(crate) struct View {
    pub stage: Option<Arc<StageDocument>>,
    /// The meeting is placed at another relay.
    pub moved: bool,
    /// Whom other workers show where the stage follows the voice.
    pub speaker: Option<Arc<str>>,
    /// What other workers' legs publish.
    pub sources: Vec<(usize, Arc<[SourceSpec]>)>,
    /// What came from other relays to other workers.
    pub relayed: Vec<(usize, Arc<[Relayed]>)>,
    /// There is a leg of the meeting here, or at a relay below.
    pub needed: bool,
    /// The worker's own legs that must go, and why.
    pub ordered_out: Vec<(LegId, &'static str)>,
    /// Bit set of the workers that have legs of the meeting, or another relay with a part in it.
    pub workers: u64,
}

impl Directory {
    /// The meeting as `worker` must see it.
    pub fn look(&self, meeting: &str, worker: usize) -> View {
        let inner = self.inner();
        let Some(record) = inner.meetings.get(meeting) else {
            return View::default();
        };
        let mut view = View {
            stage: record.stage.clone(),
            moved: record.moved,
            speaker: record.speaker.clone(),
            needed: !record.legs.is_empty() || record.relays.values().any(|relay| !relay.above),
            ..View::default()
        };
        for relay in record.relays.values() {
            view.workers |= 1 << relay.worker;
            if relay.worker != worker {
                view.relayed.push((relay.worker, relay.sources.clone()));
            }
        }
        for (&id, leg) in &record.legs {
            view.workers |= 1 << leg.worker;
            if leg.worker != worker {
                view.sources.push((leg.worker, leg.sources.clone()));
            } else if let Some(reason) = leg.ordered_out {
                view.ordered_out.push((id, reason));
            }
        }
        view
    }

    /// The sites that publish a camera, in the order they came.
    pub fn cameras(&self, meeting: &str) -> Vec<Arc<str>> {
        let inner = self.inner();
        let Some(record) = inner.meetings.get(meeting) else {
            return Vec::new();
        };
        let films = |leg: &LegRecord| {
            leg.ordered_out.is_none() && leg.sources.iter().any(|s| s.kind == SourceKind::Camera)
        };
        let mut cameras: Vec<(LegId, Arc<str>)> = record
            .legs
            .iter()
            .filter(|(_, leg)| films(leg))
            .map(|(&id, leg)| (id, leg.site.clone()))
            .collect();
        // Ids are given in the order of joining.
        cameras.sort_by_key(|(id, _)| id.0);
        cameras.into_iter().map(|(_, site)| site).collect()
    }

    /// The leg of this name in the meeting: for callers who may touch every leg there.
    pub fn find_in(&self, meeting: &str, name: &str) -> Option<Found> {
        let inner = self.inner();
        let (id, found) = inner.names.get(name)?;
        let leg = inner.meetings.get(found)?.legs.get(id)?;
        (**found == *meeting).then_some(Found {
            id: *id,
            worker: leg.worker,
        })
    }

    /// The leg of this name, if `secret` (its SHA-256) is the leg's own.
    pub fn find(&self, name: &str, secret: &str) -> Option<Found> {
        let inner = self.inner();
        let (id, meeting) = inner.names.get(name)?;
        let leg = inner.meetings.get(meeting)?.legs.get(id)?;
        let same =
            aws_lc_rs::constant_time::verify_slices_are_equal(leg.secret.as_bytes(), secret.as_bytes());
        same.is_ok().then_some(Found {
            id: *id,
            worker: leg.worker,
        })
    }

    /// The leg whose secret has this SHA-256.
    pub fn find_by_secret(&self, secret: &str) -> Option<Found> {
        let name = self.inner().secrets.get(secret)?.clone();
        self.find(&name, secret)
    }

    /// Every leg as it stands: what a control plane that has just come back must know.
    pub fn all_legs(&self) -> Vec<LegReport> {
        let inner = self.inner();
        let mut reports = Vec::new();
        for (meeting, record) in &inner.meetings {
            let there = |leg: &&LegRecord| leg.ordered_out.is_none() && leg.state != LegState::Left;
            let legs = record.legs.values().filter(there);
            reports.extend(legs.map(|leg| leg.report(meeting, leg.state, "")));
        }
        reports
    }
}

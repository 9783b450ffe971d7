//! A silent drill: which sites are asked, what each found of itself, and when it is over.
//!
//! Sites that are not attached are told at once with their reason; those that were asked and did not answer get theirs
//! when the drill ends. Each site has one result; the first one counts. Pushing and waiting are the shell's.

use std::collections::BTreeSet;

use crate::ids::{AccountName, Millis, SiteId, cut};
use crate::presence::Reach;
use crate::summons::Reason;

/// How long endpoints have to answer, milliseconds.
pub const DRILL_MS: i64 = 10_000;
/// The longest detail of a result, in characters.
const MAX_DETAIL: usize = 200;

/// What was found of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// The endpoint does not check it.
    #[default]
    Unknown,
    Ok,
    Failed,
    /// In use, so not looked at.
    Busy,
}

/// What a drill found at one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillResult {
    pub site: SiteId,
    pub link: Check,
    pub camera: Check,
    pub microphone: Check,
    pub clock: Check,
    /// Difference of the endpoint's clock, milliseconds.
    pub clock_off_ms: i64,
    /// Round trip of the endpoint to its relay, milliseconds; 0 if unknown.
    pub rtt_ms: u32,
    pub at: Millis,
    /// Why there is no answer: never seen, offline, no answer.
    pub reason: Option<Reason>,
    pub detail: String,
    /// What is wrong with the camera, where the endpoint knows.
    pub camera_reason: Option<Reason>,
}

impl DrillResult {
    /// One of a site that did not answer.
    pub fn none(site: SiteId, reason: Reason, at: Millis) -> DrillResult {
        DrillResult {
            site,
            link: Check::Unknown,
            camera: Check::Unknown,
            microphone: Check::Unknown,
            clock: Check::Unknown,
            clock_off_ms: 0,
            rtt_ms: 0,
            at,
            reason: Some(reason),
            detail: String::new(),
            camera_reason: None,
        }
    }

    /// The endpoint answered, and nothing that it checked has failed.
    pub fn is_ready(&self) -> bool {
        let checks = [self.link, self.camera, self.microphone, self.clock];
        self.reason.is_none() && !checks.contains(&Check::Failed)
    }
}

/// A drill of one unit's, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    pub by: AccountName,
    pub started: Millis,
    pub ended: Option<Millis>,
    /// How many sites it is about.
    pub asked: usize,
    /// In the order in which they were found.
    pub results: Vec<DrillResult>,
    waiting: BTreeSet<SiteId>,
}

impl Drill {
    /// Begins: sites that can be reached are waited for.
    pub fn start(by: AccountName, sites: &[(SiteId, Reach)], now: Millis) -> Drill {
        let mut drill = Drill {
            by,
            started: now,
            ended: None,
            asked: sites.len(),
            results: Vec::new(),
            waiting: BTreeSet::new(),
        };
        for (site, reach) in sites {
            let reason = match reach {
                Reach::Online => None,
                Reach::NeverSeen => Some(Reason::NeverSeen),
                _ => Some(Reason::Offline),
            };
            match reason {
                None => {
                    drill.waiting.insert(site.clone());
                }
                Some(reason) => drill.results.push(DrillResult::none(site.clone(), reason, now)),
            }
        }
        drill
    }

    /// A drill as it was kept: of one that has not ended, those of `sites` without a result are still waited for.
    pub fn restore(
        by: AccountName,
        started: Millis,
        ended: Option<Millis>,
        asked: usize,
        results: Vec<DrillResult>,
        sites: &[SiteId],
    ) -> Drill {
        let mut waiting = BTreeSet::new();
        if ended.is_none() {
            waiting.extend(sites.iter().cloned());
            for result in &results {
                waiting.remove(&result.site);
            }
        }
        Drill {
            by,
            started,
            ended,
            asked,
            results,
            waiting,
        }
    }

    /// The sites that have not answered yet.
    pub fn waiting(&self) -> impl Iterator<Item = &SiteId> {
        self.waiting.iter()
    }

    /// Takes in what a site found. False if it is not waited for (any more).
    pub fn report(&mut self, mut result: DrillResult) -> bool {
        if self.ended.is_some() || !self.waiting.remove(&result.site) {
            return false;
        }
        let printable: String = result.detail.chars().filter(|c| !c.is_control()).collect();
        result.detail = cut(&printable, MAX_DETAIL);
        // An endpoint that answers is neither offline nor silent.
        result.reason = None;
        self.results.push(result);
        true
    }

    /// Whether all have answered, or the time is over.
    pub fn is_over(&self, now: Millis) -> bool {
        self.waiting.is_empty() || now >= self.started.plus(DRILL_MS)
    }

    /// Ends it: who is still waited for did not answer.
    pub fn end(&mut self, now: Millis) {
        for site in std::mem::take(&mut self.waiting) {
            self.results.push(DrillResult::none(site, Reason::NoAnswer, now));
        }
        self.ended.get_or_insert(now.max(self.started));
    }

    /// Sites that are ready.
    pub fn ready(&self) -> usize {
        self.results.iter().filter(|result| result.is_ready()).count()
    }
}

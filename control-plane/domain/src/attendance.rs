//! Who was on air when, with gaps: read from a meeting's events.
//!
//! A span begins when a summons comes on air and ends when it leaves that state, whatever the cause (left, lost, called
//! away), or when the meeting ends. A site that is silent is still on air. Spans of a site are in order and do not
//! overlap; the last one is open while the site is on air.
//!
//! Desks have no summons and so no attendance.

use std::collections::BTreeMap;

use crate::ids::{Millis, SiteId};
use crate::meeting::Event;
use crate::summons::SummonsState;

/// A time on air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Millis,
    /// None: still.
    pub to: Option<Millis>,
}

impl Span {
    /// Its length in milliseconds; of an open one up to `now`.
    pub fn length_ms(&self, now: Millis) -> i64 {
        self.to.unwrap_or(now).0.saturating_sub(self.from.0).max(0)
    }
}

/// One site's times on air.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attendance {
    pub site: SiteId,
    /// Empty: it never came.
    pub spans: Vec<Span>,
}

impl Attendance {
    /// Milliseconds on air in all; an open span counts up to `now`.
    pub fn total_ms(&self, now: Millis) -> i64 {
        self.spans.iter().map(|span| span.length_ms(now)).sum()
    }

    /// The times between its spans.
    pub fn gaps(&self) -> Vec<Span> {
        let pairs = self.spans.iter().zip(self.spans.iter().skip(1));
        pairs
            .filter_map(|(before, after)| {
                Some(Span {
                    from: before.to?,
                    to: Some(after.from),
                })
            })
            .collect()
    }

    fn is_open(&self) -> bool {
        self.spans.last().is_some_and(|span| span.to.is_none())
    }

    fn open(&mut self, at: Millis) {
        if self.is_open() {
            return;
        }
        // A clock that was set back never makes spans overlap.
        let before = self.spans.last().and_then(|span| span.to);
        let from = before.map_or(at, |before| before.max(at));
        self.spans.push(Span { from, to: None });
    }

    fn close(&mut self, at: Millis) {
        if let Some(span) = self.spans.last_mut()
            && span.to.is_none()
        {
            span.to = Some(at.max(span.from));
        }
    }
}

/// The attendance of every site of a meeting in calling order, from its events from the first on.
pub fn attendance<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<Attendance> {
    let mut all: Vec<Attendance> = Vec::new();
    let mut index: BTreeMap<SiteId, usize> = BTreeMap::new();
    let mut begun = false;
    for event in events {
        match event {
            Event::Convened { sites, .. } if !begun => {
                begun = true;
                add(&mut all, &mut index, sites);
            }
            Event::SitesAdded { sites, .. } if begun => add(&mut all, &mut index, sites),
            Event::SummonsChanged { summons } => {
                let Some(one) = index.get(&summons.site).and_then(|at| all.get_mut(*at)) else {
                    continue;
                };
                if summons.state == SummonsState::OnAir {
                    one.open(summons.at);
                } else {
                    one.close(summons.at);
                }
            }
            Event::Ended { at, .. } => {
                all.iter_mut().for_each(|one| one.close(*at));
                // Nothing follows.
                break;
            }
            _ => {}
        }
    }
    all
}

fn add(all: &mut Vec<Attendance>, index: &mut BTreeMap<SiteId, usize>, sites: &[SiteId]) {
    for site in sites {
        if !index.contains_key(site) {
            index.insert(site.clone(), all.len());
            all.push(Attendance {
                site: site.clone(),
                spans: Vec::new(),
            });
        }
    }
}

//! How the legs of live meetings fare, as relays tell it: the newest of each site, in memory only.
//!
//! Invariants: nothing here outlives the relay's stream that told it, or the leg; what is known is bounded, and a relay
//! is heard for sites of live meetings only. Watchers get the newest of each site and then the changes; what a mark
//! means and how often it changes is the relay's.

use crate::bus::{Bus, Hint};
use muster_proto::command::v1 as pb;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sites whose quality is known at once; of more nothing is known.
const MOST: usize = 50_000;

struct Known {
    /// The relay's stream that told it.
    connection: u64,
    quality: pb::SiteQuality,
}

/// By meeting and site.
type Meetings = BTreeMap<String, BTreeMap<String, Known>>;

pub struct Qualities {
    meetings: Mutex<Meetings>,
    bus: Bus,
    /// What relays here have told and other replicas have not heard, where there are any.
    news: Mutex<Option<BTreeMap<(String, String), pb::SiteQuality>>>,
}

/// What other replicas told is known under numbers from here on.
const REMOTE: u64 = 1 << 63;

impl Qualities {
    pub fn new(bus: Bus) -> Self {
        Self {
            meetings: Mutex::default(),
            bus,
            news: Mutex::default(),
        }
    }

    /// There are other replicas to be told.
    pub(crate) fn keep_news(&self) {
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(BTreeMap::new());
    }

    /// All that relays here have told.
    pub(crate) fn local(&self) -> Vec<pb::SiteQuality> {
        let meetings = self.lock();
        let known = meetings.values().flat_map(BTreeMap::values);
        let local = known.filter(|known| known.connection < REMOTE);
        local.map(|known| known.quality.clone()).collect()
    }

    /// What relays here have told since this was asked last.
    pub(crate) fn take_local_news(&self) -> Vec<pb::SiteQuality> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(news) = &mut *news else {
            return Vec::new();
        };
        std::mem::take(news).into_values().collect()
    }

    /// Takes what another replica says; what it does not know any more is forgotten.
    pub(crate) fn take_remote(&self, stream: u64, sites: &[pb::SiteQuality]) {
        if sites.is_empty() {
            return;
        }
        let named = |known: &Known| {
            let of = &known.quality;
            known.connection == stream
                && sites.iter().any(|site| {
                    site.quality.is_none() && (&site.meeting, &site.site) == (&of.meeting, &of.site)
                })
        };
        self.forget(named);
        let report = pb::QualityReport {
            sites: sites.to_vec(),
        };
        self.take(stream, report, |_| true);
    }

    /// All that is known of a meeting.
    pub fn of(&self, meeting: &str) -> Vec<pb::SiteQuality> {
        let meetings = self.lock();
        let sites = meetings.get(meeting).into_iter().flat_map(BTreeMap::values);
        sites.map(|known| known.quality.clone()).collect()
    }

    /// Takes what a relay says, of the sites of which it may speak.
    pub fn take(&self, connection: u64, report: pb::QualityReport, may: impl Fn(&pb::SiteQuality) -> bool) {
        let mut taken = Vec::new();
        let mut meetings = self.lock();
        let mut room = MOST.saturating_sub(meetings.values().map(BTreeMap::len).sum());
        for quality in report.sites {
            if quality.quality.is_none() || !may(&quality) {
                continue;
            }
            let is_known = meetings
                .get(&quality.meeting)
                .is_some_and(|sites| sites.contains_key(&quality.site));
            if !is_known && room == 0 {
                metrics::counter!("muster_quality_dropped").increment(1);
                continue;
            }
            room -= usize::from(!is_known);
            let known = Known {
                connection,
                quality: quality.clone(),
            };
            let sites = meetings.entry(quality.meeting.clone()).or_default();
            sites.insert(quality.site.clone(), known);
            taken.push(quality);
        }
        drop(meetings);
        if connection < REMOTE {
            self.note(&taken);
        }
        self.tell(taken);
    }

    fn note(&self, sites: &[pb::SiteQuality]) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(news) = &mut *news {
            for site in sites {
                news.insert((site.meeting.clone(), site.site.clone()), site.clone());
            }
        }
    }

    /// Forgets the legs that have left.
    pub fn left(&self, legs: &[pb::LegReport]) {
        let left = |known: &Known| {
            let of = &known.quality;
            legs.iter().any(|leg| {
                leg.state() == pb::LegState::Left
                    && (&leg.leg, &leg.site, &leg.meeting) == (&of.leg, &of.site, &of.meeting)
            })
        };
        self.forget(left);
    }

    /// The stream of a relay is gone, and with it what it told.
    pub fn relay_gone(&self, connection: u64) {
        self.forget(|known| known.connection == connection);
    }

    fn forget(&self, gone: impl Fn(&Known) -> bool) {
        let (mut forgotten, mut local) = (Vec::new(), Vec::new());
        self.lock().retain(|_, sites| {
            for (_, known) in sites.extract_if(.., |_, known| gone(known)) {
                let site = pb::SiteQuality {
                    quality: None,
                    ..known.quality
                };
                if known.connection < REMOTE {
                    local.push(site.clone());
                }
                forgotten.push(site);
            }
            !sites.is_empty()
        });
        self.note(&local);
        self.tell(forgotten);
    }

    fn tell(&self, changed: Vec<pb::SiteQuality>) {
        if !changed.is_empty() {
            self.bus.publish(Hint::Quality(Arc::new(changed)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Meetings> {
        self.meetings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::media::v1::LegQuality;

    fn quality(site: &str, leg: &str, up_bps: u32) -> pb::SiteQuality {
        pb::SiteQuality {
            meeting: "m".into(),
            site: site.into(),
            leg: leg.into(),
            quality: Some(LegQuality {
                up_bps,
                ..Default::default()
            }),
        }
    }

    fn report(sites: &[pb::SiteQuality]) -> pb::QualityReport {
        pb::QualityReport {
            sites: sites.to_vec(),
        }
    }

    fn left(site: &str, leg: &str) -> [pb::LegReport; 1] {
        [pb::LegReport {
            meeting: "m".into(),
            site: site.into(),
            leg: leg.into(),
            state: pb::LegState::Left.into(),
            ..Default::default()
        }]
    }

    #[test]
    fn the_newest_of_each_site_is_known_until_its_leg_leaves() {
        let qualities = Qualities::new(Bus::default());
        qualities.take(1, report(&[quality("a", "a1", 5), quality("b", "b1", 6)]), |_| {
            true
        });
        qualities.take(1, report(&[quality("a", "a2", 7)]), |_| true);
        assert_eq!(qualities.of("m"), [quality("a", "a2", 7), quality("b", "b1", 6)]);
        qualities.left(&left("a", "a1"));
        assert_eq!(qualities.of("m").len(), 2, "the leg before");
        qualities.left(&left("a", "a2"));
        assert_eq!(qualities.of("m"), [quality("b", "b1", 6)]);
    }

    #[tokio::test]
    async fn what_a_relay_told_goes_with_its_stream() {
        let bus = Bus::default();
        let mut hints = bus.subscribe();
        let qualities = Qualities::new(bus);
        qualities.take(1, report(&[quality("a", "a1", 5), quality("b", "b1", 6)]), |_| {
            true
        });
        qualities.take(2, report(&[quality("b", "b1", 6)]), |_| true);
        qualities.relay_gone(1);
        assert_eq!(qualities.of("m"), [quality("b", "b1", 6)]);
        let mut last = Vec::new();
        while let Ok(Hint::Quality(sites)) = hints.try_recv() {
            last = sites.to_vec();
        }
        let gone = pb::SiteQuality {
            quality: None,
            ..quality("a", "a1", 5)
        };
        assert_eq!(last, [gone]);
    }

    #[test]
    fn what_a_relay_may_not_say_is_not_taken_and_memory_is_bounded() {
        let qualities = Qualities::new(Bus::default());
        qualities.take(1, report(&[quality("a", "a1", 5)]), |_| false);
        assert!(qualities.of("m").is_empty());
        let many: Vec<_> = (0..MOST + 10).map(|n| quality(&n.to_string(), "l", 1)).collect();
        qualities.take(1, report(&many), |_| true);
        assert_eq!(qualities.of("m").len(), MOST);
        qualities.take(1, report(&[quality("0", "l", 9)]), |_| true);
        assert_eq!(
            qualities.of("m")[0],
            quality("0", "l", 9),
            "what is known is kept up"
        );
    }
}

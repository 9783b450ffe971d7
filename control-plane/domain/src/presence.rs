//! Which sites have an endpoint attached, since when, and of which kind.
//!
//! A site is online while any of its endpoints is attached. Presence is no event: it lives in memory, only its
//! transitions are worth storing. Attachments are told apart by a number that the shell gives each stream, so a
//! late detach of an old stream never takes a newer one down. At most [`MAX_ENDPOINTS`] a site.

use std::collections::BTreeMap;

use crate::ids::{Millis, SiteId};
use crate::refusal::Refusal;
use crate::words::EndpointKind;

/// The most endpoints that one site may have attached.
pub const MAX_ENDPOINTS: usize = 16;

/// Whether a site can be called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Online,
    Offline {
        since: Millis,
    },
    /// The part of the control plane to which its endpoint is attached cannot be reached.
    CutOff {
        since: Millis,
    },
    NeverSeen,
}

/// What is known of one site's endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    pub online: bool,
    /// When it came or went; none if no endpoint was ever seen.
    pub since: Option<Millis>,
    /// Kind of the endpoint that is or was last attached.
    pub endpoint: Option<EndpointKind>,
}

impl Presence {
    /// Whether a summons would reach the site.
    pub fn reach(&self) -> Reach {
        match (self.online, self.since) {
            (true, _) => Reach::Online,
            (false, Some(since)) => Reach::Offline { since },
            (false, None) => Reach::NeverSeen,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Attached {
    /// Oldest first.
    streams: Vec<(u64, EndpointKind)>,
    presence: Presence,
}

/// The presence of all sites that were ever seen.
#[derive(Clone, Debug, Default)]
pub struct PresenceBook {
    sites: BTreeMap<SiteId, Attached>,
}

impl PresenceBook {
    /// Nobody has been seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of a site; the default for one that was never seen.
    pub fn presence(&self, site: &str) -> Presence {
        self.sites.get(site).map(|s| s.presence).unwrap_or_default()
    }

    /// Whether a summons would reach the site.
    pub fn reach(&self, site: &str) -> Reach {
        self.presence(site).reach()
    }

    /// All sites that were ever seen, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&SiteId, Presence)> {
        self.sites.iter().map(|(id, s)| (id, s.presence))
    }

    /// How many sites are online.
    pub fn online(&self) -> usize {
        self.sites.values().filter(|s| s.presence.online).count()
    }

    /// Restores what was stored of a site before a restart: nothing is attached then, so it is offline.
    pub fn restore(&mut self, site: SiteId, since: Millis, endpoint: Option<EndpointKind>) {
        let entry = self.sites.entry(site).or_default();
        if entry.streams.is_empty() {
            entry.presence = Presence {
                online: false,
                since: Some(since),
                endpoint,
            };
        }
    }

    /// An endpoint attached. Gives the new presence if that changed what others see; the same stream again
    /// changes nothing.
    pub fn attached(
        &mut self,
        site: SiteId,
        stream: u64,
        kind: EndpointKind,
        now: Millis,
    ) -> Result<Option<Presence>, Refusal> {
        let entry = self.sites.entry(site.clone()).or_default();
        if entry.streams.iter().any(|(id, _)| *id == stream) {
            return Ok(None);
        }
        if entry.streams.len() >= MAX_ENDPOINTS {
            return Err(Refusal::TooManyEndpoints {
                site,
                limit: MAX_ENDPOINTS,
            });
        }
        entry.streams.push((stream, kind));
        let since = if entry.presence.online {
            entry.presence.since
        } else {
            Some(now)
        };
        Ok(entry.update(Presence {
            online: true,
            since,
            endpoint: Some(kind),
        }))
    }

    /// An endpoint's stream ended. Gives the new presence if that changed what others see.
    pub fn detached(&mut self, site: &str, stream: u64, now: Millis) -> Option<Presence> {
        let entry = self.sites.get_mut(site)?;
        let at = entry.streams.iter().position(|(id, _)| *id == stream)?;
        entry.streams.remove(at);
        let presence = match entry.streams.last() {
            Some((_, kind)) => Presence {
                endpoint: Some(*kind),
                ..entry.presence
            },
            None => Presence {
                online: false,
                since: Some(now),
                ..entry.presence
            },
        };
        entry.update(presence)
    }
}

impl Attached {
    fn update(&mut self, presence: Presence) -> Option<Presence> {
        let changed = self.presence != presence;
        self.presence = presence;
        changed.then_some(presence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EndpointKind::{Agent, Browser};

    fn site() -> SiteId {
        SiteId::new("S01").unwrap()
    }

    #[test]
    fn a_site_is_online_while_any_endpoint_is() {
        let mut book = PresenceBook::new();
        assert_eq!(book.reach("S01"), Reach::NeverSeen);
        let came = book.attached(site(), 1, Agent, Millis(10)).unwrap().unwrap();
        assert_eq!(
            (came.online, came.since, came.endpoint),
            (true, Some(Millis(10)), Some(Agent))
        );
        let second = book.attached(site(), 2, Browser, Millis(20)).unwrap().unwrap();
        assert_eq!((second.since, second.endpoint), (Some(Millis(10)), Some(Browser)));
        assert!(book.detached("S01", 1, Millis(30)).is_none());
        assert_eq!(book.reach("S01"), Reach::Online);
        assert_eq!(book.online(), 1);
        let gone = book.detached("S01", 2, Millis(40)).unwrap();
        assert_eq!(
            (gone.online, gone.since, gone.endpoint),
            (false, Some(Millis(40)), Some(Browser))
        );
        assert_eq!(book.reach("S01"), Reach::Offline { since: Millis(40) });
    }

    #[test]
    fn a_late_detach_of_an_old_stream_changes_nothing() {
        let mut book = PresenceBook::new();
        book.attached(site(), 1, Agent, Millis(10)).unwrap();
        book.detached("S01", 1, Millis(11));
        book.attached(site(), 2, Agent, Millis(12)).unwrap();
        assert_eq!(book.detached("S01", 1, Millis(13)), None);
        assert_eq!(book.detached("nobody", 1, Millis(13)), None);
        assert_eq!(book.presence("S01").since, Some(Millis(12)));
    }

    #[test]
    fn the_number_of_endpoints_is_bounded_and_the_same_stream_counts_once() {
        let mut book = PresenceBook::new();
        for stream in 0..MAX_ENDPOINTS as u64 {
            assert!(book.attached(site(), stream, Agent, Millis(1)).is_ok());
        }
        assert_eq!(book.attached(site(), 0, Agent, Millis(2)), Ok(None));
        let refusal = book.attached(site(), 99, Agent, Millis(2)).unwrap_err();
        assert_eq!(refusal.code(), "too_many_endpoints");
    }

    #[test]
    fn restoring_never_overrides_what_is_attached() {
        let mut book = PresenceBook::new();
        book.restore(site(), Millis(5), Some(Agent));
        assert_eq!(book.reach("S01"), Reach::Offline { since: Millis(5) });
        book.attached(site(), 1, Browser, Millis(9)).unwrap();
        book.restore(site(), Millis(7), Some(Agent));
        assert_eq!(book.presence("S01").endpoint, Some(Browser));
    }
}

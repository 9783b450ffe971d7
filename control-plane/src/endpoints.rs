//! Endpoints that are attached, and with them the presence of sites.
//!
//! A site is online while a stream of one of its endpoints lives. Invariants: an endpoint's queue is bounded, and an
//! endpoint that does not drain it loses its stream (it attaches again and is told everything anew); what changed
//! is kept as a set of sites, so that it stays bounded too. Summonses are decided elsewhere.

use crate::clock::Clock;
use crate::convert::presence_to_wire;
use crate::store::SeenRow;
use muster_domain::{EndpointKind, Millis, Presence, PresenceBook, Reach, Refusal, SiteId};
use muster_proto::command::v1 as pb;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Messages an endpoint may be behind.
const QUEUE: usize = 32;

/// What an endpoint showed to prove that it is one of a site. Endpoints with the same proof count as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The certificate of the site's agent.
    Certificate,
    /// The hash of a site link's secret.
    Link(String),
}

impl Proof {
    /// As it stands in the log: "agent", or "browser:" and eight characters that tell it from others.
    pub fn shown(&self) -> String {
        match self {
            Self::Certificate => "agent".to_owned(),
            Self::Link(hash) => format!("browser:{}", hash.get(..8).unwrap_or(hash)),
        }
    }
}

struct Endpoint {
    id: u64,
    proof: Proof,
    queue: mpsc::Sender<pb::AttachResponse>,
}

#[derive(Default)]
struct State {
    book: PresenceBook,
    attached: HashMap<SiteId, Vec<Endpoint>>,
    /// What changed of what others see; true if it was here, or nobody else is left to say so.
    changed: BTreeMap<SiteId, bool>,
    /// Sites that came or went here and have not been told to other replicas.
    local_news: BTreeSet<SiteId>,
    /// Sites that other replicas have, by the stream that stands for the replica.
    remote: HashMap<u64, HashSet<SiteId>>,
    /// Sites whose replica is away.
    cut_off: HashSet<SiteId>,
}

/// The registry of attached endpoints.
#[derive(Default)]
pub struct Endpoints {
    clock: Clock,
    state: Mutex<State>,
    next: AtomicU64,
    changes: Notify,
}

impl State {
    fn follow_remote(&mut self, stream: u64, site: &pb::Presence, now: Millis) {
        let (Ok(id), since) = (SiteId::new(&site.site), Millis(site.since_ms)) else {
            return;
        };
        if !site.online {
            return self.remote_left(stream, &id, now, false);
        }
        let kind = site.endpoint.parse().unwrap_or(EndpointKind::Agent);
        self.cut_off.remove(&id);
        self.remote.entry(stream).or_default().insert(id.clone());
        // A site with as many endpoints as there may be is online without this one.
        if let Ok(Some(_)) = self.book.attached(id.clone(), stream, kind, since) {
            self.changed.entry(id).or_insert(false);
        }
    }

    fn remote_left(&mut self, stream: u64, site: &SiteId, now: Millis, cut_off: bool) {
        if let Some(sites) = self.remote.get_mut(&stream) {
            sites.remove(site);
        }
        if self.book.detached(site, stream, now).is_some() {
            let ours = self.changed.entry(site.clone()).or_insert(false);
            *ours |= cut_off;
            if cut_off && !self.book.presence(site).online {
                self.cut_off.insert(site.clone());
            }
        }
    }
}

/// One attached endpoint; dropping it detaches.
pub struct Attachment {
    registry: Arc<Endpoints>,
    pub site: SiteId,
    pub id: u64,
    pub queue: mpsc::Receiver<pb::AttachResponse>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.registry
            .detach(&self.site, self.id, self.registry.clock.now());
    }
}

/// Which endpoints of a site a message goes to.
#[derive(Debug, Clone, Copy)]
pub enum To<'a> {
    All,
    /// The one of this number.
    One(u64),
    /// All but those that the log calls so.
    Others(&'a str),
}

impl Endpoints {
    /// Starts from when the sites were last seen; rows that make no sense any more are passed over.
    pub fn new(seen: Vec<SeenRow>) -> Arc<Self> {
        Self::with_clock(seen, Clock::default())
    }

    /// The same, dating by another clock.
    pub fn with_clock(seen: Vec<SeenRow>, clock: Clock) -> Arc<Self> {
        let mut book = PresenceBook::new();
        for row in seen {
            if let Ok(site) = SiteId::new(&row.site) {
                book.restore(site, Millis(row.since_ms), row.endpoint.parse().ok());
            }
        }
        let state = State {
            book,
            ..State::default()
        };
        Arc::new(Self {
            clock,
            state: Mutex::new(state),
            ..Self::default()
        })
    }

    /// The site has one endpoint more.
    pub fn attach(
        self: &Arc<Self>,
        site: SiteId,
        kind: EndpointKind,
        proof: Proof,
        now: Millis,
    ) -> Result<Attachment, Refusal> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (queue, receiver) = mpsc::channel(QUEUE);
        let mut state = self.lock();
        if state.book.attached(site.clone(), id, kind, now)?.is_some() {
            state.changed.insert(site.clone(), true);
        }
        state.cut_off.remove(&site);
        state.local_news.insert(site.clone());
        state
            .attached
            .entry(site.clone())
            .or_default()
            .push(Endpoint { id, proof, queue });
        drop(state);
        self.changes.notify_one();
        Ok(Attachment {
            registry: self.clone(),
            site,
            id,
            queue: receiver,
        })
    }

    fn detach(&self, site: &SiteId, id: u64, now: Millis) {
        let mut state = self.lock();
        if let Some(attached) = state.attached.get_mut(site) {
            attached.retain(|endpoint| endpoint.id != id);
            if attached.is_empty() {
                state.attached.remove(site);
            }
        }
        state.local_news.insert(site.clone());
        if state.book.detached(site, id, now).is_some() {
            state.changed.insert(site.clone(), true);
            drop(state);
            self.changes.notify_one();
        }
    }

    /// Whether an endpoint of the site is attached to this replica.
    pub fn is_here(&self, site: &str) -> bool {
        self.lock().attached.contains_key(site)
    }

    /// Whether the endpoint that the log calls so may still be there: it is attached here, or the site is attached to
    /// another replica, which does not tell by what.
    pub fn may_be_there(&self, site: &str, shown: &str) -> bool {
        let state = self.lock();
        let here = state.attached.get(site).into_iter().flatten();
        let elsewhere = || state.remote.values().any(|sites| sites.contains(site));
        here.into_iter().any(|endpoint| endpoint.proof.shown() == shown) || elsewhere()
    }

    /// All sites that are attached here, for other replicas.
    pub(crate) fn local(&self) -> Vec<pb::Presence> {
        let mut state = self.lock();
        state.local_news.clear();
        let here = state.attached.keys();
        here.map(|site| presence_to_wire(site, state.book.presence(site)))
            .collect()
    }

    /// The sites that came or went here since this was asked last.
    pub(crate) fn take_local_news(&self) -> Vec<pb::Presence> {
        let mut state = self.lock();
        let news = std::mem::take(&mut state.local_news);
        news.iter()
            .map(|site| pb::Presence {
                online: state.attached.contains_key(site),
                ..presence_to_wire(site, state.book.presence(site))
            })
            .collect()
    }

    /// Another replica says what came and went there.
    pub(crate) fn remote(&self, stream: u64, presence: &[pb::Presence], now: Millis) {
        let mut state = self.lock();
        for site in presence {
            state.follow_remote(stream, site, now);
        }
        drop(state);
        self.changes.notify_one();
    }

    /// Another replica says all that it has.
    pub(crate) fn remote_all(&self, stream: u64, presence: &[pb::Presence], now: Millis) {
        let named: HashSet<&str> = presence.iter().map(|site| site.site.as_str()).collect();
        let mut state = self.lock();
        let had = state.remote.entry(stream).or_default();
        let gone: Vec<SiteId> = had
            .iter()
            .filter(|site| !named.contains(site.as_str()))
            .cloned()
            .collect();
        for site in gone {
            state.remote_left(stream, &site, now, false);
        }
        drop(state);
        self.remote(stream, presence, now);
    }

    /// Another replica has been away for too long: what it had is not reached any more.
    pub(crate) fn remote_gone(&self, stream: u64, now: Millis) {
        let mut state = self.lock();
        for site in state.remote.remove(&stream).unwrap_or_default() {
            state.remote_left(stream, &site, now, true);
        }
        drop(state);
        self.changes.notify_one();
    }

    /// Pushes a message, made anew for each, to endpoints of a site. Returns how many got it.
    pub fn push(&self, site: &str, to: To<'_>, make: impl Fn(&Proof) -> pb::AttachResponse) -> usize {
        let mut state = self.lock();
        let Some(attached) = state.attached.get_mut(site) else {
            return 0;
        };
        let mut reached = 0;
        attached.retain(|endpoint| {
            let meant = match to {
                To::All => true,
                To::One(id) => endpoint.id == id,
                To::Others(shown) => endpoint.proof.shown() != shown,
            };
            if !meant {
                return true;
            }
            let sent = endpoint.queue.try_send(make(&endpoint.proof)).is_ok();
            if sent {
                reached += 1;
            } else {
                // Its queue closes with this, so that its stream ends and it is detached then.
                metrics::counter!("muster_endpoints_too_slow").increment(1);
                tracing::warn!(site, "an endpoint does not read what it is told; its stream ends");
            }
            sent
        });
        reached
    }

    /// Whether a summons would reach the site.
    pub fn reach(&self, site: &str) -> Reach {
        let state = self.lock();
        match state.book.reach(site) {
            Reach::Offline { since } if state.cut_off.contains(site) => Reach::CutOff { since },
            reach => reach,
        }
    }

    /// Presence of many sites under one lock.
    pub fn presences<'a>(&self, sites: impl Iterator<Item = &'a str>) -> Vec<pb::Presence> {
        let state = self.lock();
        sites
            .map(|site| presence_to_wire(site, state.book.presence(site)))
            .collect()
    }

    /// Waits until something changed, then takes the new state of every site that did; with it, whether it is for this
    /// replica to say so in meetings.
    pub async fn changed(&self) -> Vec<(SiteId, Presence, bool)> {
        loop {
            let notified = self.changes.notified();
            {
                let mut state = self.lock();
                let changed = std::mem::take(&mut state.changed);
                if !changed.is_empty() {
                    let now = |(site, ours): (SiteId, bool)| {
                        let presence = state.book.presence(&site);
                        (site, presence, ours)
                    };
                    return changed.into_iter().map(now).collect();
                }
            }
            notified.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(_: &Proof) -> pb::AttachResponse {
        let heartbeat = pb::AttachHeartbeat { server_time_ms: 1 };
        pb::AttachResponse {
            event: Some(pb::attach_response::Event::Heartbeat(heartbeat)),
        }
    }

    fn attach(endpoints: &Arc<Endpoints>, kind: EndpointKind, proof: Proof, now: i64) -> Attachment {
        let site = SiteId::new("S1").expect("id");
        endpoints
            .attach(site, kind, proof, Millis(now))
            .expect("attached")
    }

    #[tokio::test]
    async fn a_site_is_online_until_its_last_endpoint_goes() {
        let endpoints = Endpoints::new(Vec::new());
        let agent = attach(&endpoints, EndpointKind::Agent, Proof::Certificate, 10);
        let browser = attach(&endpoints, EndpointKind::Browser, Proof::Link("x".into()), 20);
        drop(agent);
        assert_eq!(endpoints.reach("S1"), Reach::Online);
        drop(browser);
        assert_ne!(endpoints.reach("S1"), Reach::Online);
        let changed = endpoints.changed().await;
        assert_eq!(changed.len(), 1, "changes of one site are one");
        assert!(!changed[0].1.online);
    }

    #[tokio::test]
    async fn an_endpoint_that_does_not_read_loses_its_stream() {
        let endpoints = Endpoints::new(Vec::new());
        let mut attachment = attach(&endpoints, EndpointKind::Agent, Proof::Certificate, 10);
        for _ in 0..QUEUE {
            assert_eq!(endpoints.push("S1", To::All, heartbeat), 1);
        }
        assert_eq!(endpoints.push("S1", To::All, heartbeat), 0);
        for _ in 0..QUEUE {
            assert!(attachment.queue.recv().await.is_some());
        }
        assert!(attachment.queue.recv().await.is_none(), "the queue is closed");
        drop(attachment);
        assert_ne!(endpoints.reach("S1"), Reach::Online);
    }

    #[tokio::test]
    async fn what_one_endpoint_took_is_withdrawn_from_the_others_only() {
        let endpoints = Endpoints::new(Vec::new());
        let mut agent = attach(&endpoints, EndpointKind::Agent, Proof::Certificate, 10);
        let mut browser = attach(&endpoints, EndpointKind::Browser, Proof::Link("x".into()), 20);
        assert_eq!(endpoints.push("S1", To::Others("agent"), heartbeat), 1);
        assert!(browser.queue.try_recv().is_ok());
        assert!(agent.queue.try_recv().is_err());
        assert_eq!(endpoints.push("S1", To::One(agent.id), heartbeat), 1);
        assert!(agent.queue.try_recv().is_ok());
    }
}

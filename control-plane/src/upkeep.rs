//! What goes on besides calls: presence is told and kept, relays are looked at, refusals are recorded.

use crate::bus::{Hint, PresenceNews};
use crate::convert::{presence_to_wire, tree_of};
use crate::core::{Core, Refused};
use crate::meetings::GRACE;
use crate::replicas::News;
use crate::store::{AuditRow, SeenRow, Store};
use crate::units::By;
use muster_domain::unit::LINK;
use muster_domain::{EndpointKind, Order, Presence, Record, SiteId};
use muster_identity::random_secret;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Changes of presence within this time are told together.
const COALESCE: Duration = Duration::from_millis(100);
/// When sites were seen is stored this often.
const KEEP_SEEN: Duration = Duration::from_secs(2);
/// The tree is read again this often, where others may change it.
const REREAD: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);
/// A relay that has been away for this long has lost its legs.
const AWAY: Duration = GRACE;

/// Tells meetings and watchers which sites came and went, and keeps since when.
pub async fn presence(core: Arc<Core>) {
    loop {
        let changed = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            changed = core.endpoints.changed() => changed,
        };
        for (site, presence, ours) in &changed {
            if *ours && !presence.online {
                core.meetings.detached(site).await;
            }
        }
        let states = changed
            .iter()
            .map(|(site, presence, _)| presence_to_wire(site, *presence));
        let news = PresenceNews::new(core.tree(), states);
        core.bus.publish(Hint::Presence(Arc::new(news)));
        core.seen.note(changed.into_iter().filter(|(_, _, ours)| *ours));
        tokio::time::sleep(COALESCE).await;
    }
}

/// When sites came or went, until it is stored: the newest of each.
#[derive(Default)]
pub struct Seen(Mutex<BTreeMap<String, SeenRow>>);

impl Seen {
    fn note(&self, changed: impl Iterator<Item = (SiteId, Presence, bool)>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (site, presence, _) in changed {
            let endpoint = presence.endpoint.map(EndpointKind::as_str).unwrap_or_default();
            if let Some(since) = presence.since {
                let row = SeenRow {
                    site: site.into(),
                    since_ms: since.0,
                    endpoint: endpoint.to_owned(),
                };
                seen.insert(row.site.clone(), row);
            }
        }
    }

    /// Stores what is noted; what cannot be stored stays, unless newer came.
    async fn keep(&self, store: &Store) {
        let rows = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if rows.is_empty() {
            return;
        }
        let rows: Vec<SeenRow> = rows.into_values().collect();
        if let Err(error) = store.put_seen(&rows).await {
            // Only "offline since" after a restart depends on it.
            tracing::warn!(%error, "cannot keep when sites were seen");
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for row in rows {
                seen.entry(row.site.clone()).or_insert(row);
            }
        }
    }
}

/// Keeps since when sites are here or away.
pub async fn keep_seen(core: Arc<Core>) {
    while !core.shutdown.is_cancelled() {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => {}
            () = tokio::time::sleep(KEEP_SEEN) => {}
        }
        core.seen.keep(&core.store).await;
    }
}

/// What another replica says that it has stored, but for events of meetings.
pub fn changed_elsewhere(core: &Core, news: &News) {
    match news {
        News::Directory => core.tree_news.notify_one(),
        News::Stored { .. } => {}
    }
}

/// Reads the tree again when another replica has changed it, and now and then in case that it was not heard.
pub async fn reread_tree(core: Arc<Core>) {
    if !core.replicas.are_several() {
        return;
    }
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = core.tree_news.notified() => {}
            () = tokio::time::sleep(REREAD) => {}
        }
        let _not_while_importing = core.import.lock().await;
        match tree_of(&core.store).await {
            Ok(tree) if tree != *core.tree() => {
                core.set_tree(tree);
                core.bus.publish_here(Hint::Directory);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot read the tree again"),
        }
    }
}

/// Suspects relays that are silent, and tells meetings of those that have been away for too long.
pub async fn watch_relays(core: Arc<Core>) {
    let started = Instant::now();
    let mut starting = true;
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        for relay in core.relays.look(AWAY) {
            tracing::warn!(relay, "the relay has been away for too long");
            core.meetings.relay_lost(Some(&relay)).await;
        }
        if starting && started.elapsed() >= AWAY {
            starting = false;
            core.meetings.relay_lost(None).await;
        }
    }
}

/// Writes first uses of site links to their units' streams.
pub async fn record_links(core: Arc<Core>, mut used: mpsc::Receiver<SiteId>) {
    loop {
        let site = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            site = used.recv() => match site { Some(site) => site, None => return },
        };
        let Some(unit) = core.tree().site(&site).map(|site| site.unit.clone()) else {
            continue;
        };
        let identity = format!("{LINK}{site}");
        let actor = format!("site:{site}");
        let by = By {
            actor: &actor,
            cause: "attach",
        };
        let order = Order::Record(Record::SecretUsed { identity });
        if let Err(error) = core.units.act(&unit, by, order, Vec::new()).await {
            tracing::warn!(%error, "cannot record that a link was used");
        }
    }
}

/// Writes refusals to the audit table.
pub async fn record_refusals(core: Arc<Core>, mut refusals: mpsc::Receiver<Refused>) {
    loop {
        let refused = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            refused = refusals.recv() => match refused { Some(refused) => refused, None => return },
        };
        let Refused {
            actor,
            action,
            reason,
        } = refused;
        let row = AuditRow {
            at_ms: core.clock.now_ms(),
            actor,
            action,
            reason,
        };
        if let Err(error) = core.store.audit(&random_secret(), &row).await {
            tracing::warn!(%error, "cannot record a refusal");
        }
    }
}

//! What goes on besides calls: presence is told and kept, relays are looked at, refusals are recorded.

use crate::bus::Hint;
use crate::clock::now_ms;
use crate::convert::presence_to_wire;
use crate::core::{Core, Refused};
use crate::meetings::GRACE;
use crate::store::{AuditRow, SeenRow};
use crate::units::By;
use muster_domain::unit::LINK;
use muster_domain::{Order, Record, SiteId};
use muster_identity::random_secret;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Changes of presence within this time are told together.
const COALESCE: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(250);
/// A relay that has been away for this long has lost its legs.
const AWAY: Duration = GRACE;

/// Tells meetings and watchers which sites came and went, and keeps since when.
pub async fn presence(core: Arc<Core>) {
    loop {
        let changed = tokio::select! {
            () = core.shutdown.cancelled() => return,
            changed = core.endpoints.changed() => changed,
        };
        for (site, presence) in &changed {
            if !presence.online {
                core.meetings.detached(site).await;
            }
        }
        let wire = changed
            .iter()
            .map(|(site, presence)| presence_to_wire(site, *presence))
            .collect();
        core.bus.publish(Hint::Presence(Arc::new(wire)));
        let rows: Vec<SeenRow> = changed
            .into_iter()
            .filter_map(|(site, presence)| {
                let endpoint = presence
                    .endpoint
                    .map(|kind| kind.as_str().to_owned())
                    .unwrap_or_default();
                Some(SeenRow {
                    site: site.into(),
                    since_ms: presence.since?.0,
                    endpoint,
                })
            })
            .collect();
        if let Err(error) = core.store.put_seen(&rows).await {
            // Only "offline since" after a restart depends on it.
            tracing::warn!(%error, "cannot keep when sites were seen");
        }
        tokio::time::sleep(COALESCE).await;
    }
}

/// Suspects relays that are silent, and tells meetings of those that have been away for too long.
pub async fn watch_relays(core: Arc<Core>) {
    let started = Instant::now();
    let mut starting = true;
    loop {
        tokio::select! {
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
            () = core.shutdown.cancelled() => return,
            refused = refusals.recv() => match refused { Some(refused) => refused, None => return },
        };
        let Refused {
            actor,
            action,
            reason,
        } = refused;
        let row = AuditRow {
            at_ms: now_ms(),
            actor,
            action,
            reason,
        };
        if let Err(error) = core.store.audit(&random_secret(), &row).await {
            tracing::warn!(%error, "cannot record a refusal");
        }
    }
}

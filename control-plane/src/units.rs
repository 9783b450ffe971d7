//! What is administered in units, and the log of it.
//!
//! Every act goes through [`Units::act`]: the unit's events so far are taken in, the domain decides, and its events are
//! appended to the stream `unit:ID` in one transaction with the rows that they change. Where another was first, it is
//! decided anew. Invariant: nothing is administered that is not in the log. Who may do it is settled before.

use crate::bus::{Bus, Hint};
use crate::clock::Clock;
use crate::convert::{
    Done, answer_to_wire, drill_to_wire, preset_to_wire, report_to_wire, role_to_wire, schedule_to_wire,
    unit_event_from_wire, unit_event_to_wire,
};
use crate::status::Failure;
use crate::store::{
    ChainHead, DrillRow, GrantRow, NewEvent, PresetRow, ReportRow, ScheduleRow, Store, StoreError,
    UnitAppend, UnitEffect,
};
use muster_domain::{Administration, Millis, Order, Record, SiteId, UnitEvent, UnitId};
use muster_proto::command::v1 as pb;
use prost::Message as _;
use std::collections::HashMap;
use tokio::sync::{Mutex, mpsc, watch};

/// Times that another may be first before it is told to the caller.
const TRIES: u32 = 8;
/// First uses of site links that wait to be recorded; more are counted only.
const LINK_QUEUE: usize = 4096;

/// Who does something, and by which verb.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub actor: &'a str,
    pub cause: &'static str,
}

/// A unit as far as it is known here.
struct Known {
    state: Administration,
    head: ChainHead,
}

/// The administration of all units.
pub struct Units {
    store: Store,
    bus: Bus,
    clock: Clock,
    /// Caught up with the store before anything is decided; held while it is stored.
    known: Mutex<HashMap<UnitId, Known>>,
    links: mpsc::Sender<SiteId>,
}

/// The stream of a unit's administration.
pub fn stream_of(unit: &str) -> String {
    format!("unit:{unit}")
}

impl Units {
    /// With the sites whose links were used, for [`crate::upkeep::record_links`].
    pub fn new(store: Store, bus: Bus, clock: Clock) -> (Self, mpsc::Receiver<SiteId>) {
        let (links, used) = mpsc::channel(LINK_QUEUE);
        let units = Self {
            store,
            bus,
            clock,
            known: Mutex::default(),
            links,
        };
        (units, used)
    }

    /// What tells it the time.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Carries out an order, with rows that change besides those of its events. No event: it was so already.
    pub async fn act(
        &self,
        unit: &UnitId,
        by: By<'_>,
        order: Order,
        also: Vec<UnitEffect>,
    ) -> Result<Vec<UnitEvent>, Failure> {
        self.carry(unit, by, vec![order], also, None).await
    }

    /// Several orders that do not depend on each other, together or not at all.
    pub async fn act_all(
        &self,
        unit: &UnitId,
        by: By<'_>,
        orders: Vec<Order>,
        also: Vec<UnitEffect>,
    ) -> Result<Vec<UnitEvent>, Failure> {
        self.carry(unit, by, orders, also, None).await
    }

    /// As [`Units::act`], telling how many of the rows' effects are carried out so far.
    pub async fn act_telling(
        &self,
        unit: &UnitId,
        by: By<'_>,
        order: Order,
        also: Vec<UnitEffect>,
        progress: Option<watch::Sender<usize>>,
    ) -> Result<Vec<UnitEvent>, Failure> {
        self.carry(unit, by, vec![order], also, progress).await
    }

    async fn carry(
        &self,
        unit: &UnitId,
        by: By<'_>,
        orders: Vec<Order>,
        also: Vec<UnitEffect>,
        progress: Option<watch::Sender<usize>>,
    ) -> Result<Vec<UnitEvent>, Failure> {
        let mut all = self.known.lock().await;
        let known = all.entry(unit.clone()).or_insert_with(|| Known {
            state: Administration::new(unit.clone()),
            head: ChainHead::default(),
        });
        let mut tries = 0;
        loop {
            self.catch_up(unit, known).await?;
            let at = self.clock.now();
            let mut events = Vec::new();
            for order in &orders {
                events.extend(known.state.decide(order.clone(), at)?);
            }
            if events.is_empty() {
                return Ok(events);
            }
            let mut append = append_of(unit, by, known, &events, &also, at);
            append.progress.clone_from(&progress);
            match self.store.append_unit(&append).await {
                Ok(head) => {
                    events.iter().for_each(|event| known.state.apply(event));
                    known.head = head;
                    drop(all);
                    self.tell(&events);
                    return Ok(events);
                }
                Err(StoreError::Conflict(_)) if tries < TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Looks at a unit's administration as it is stored now.
    pub async fn look<T>(
        &self,
        unit: &UnitId,
        read: impl FnOnce(&Administration) -> T,
    ) -> Result<T, StoreError> {
        let mut all = self.known.lock().await;
        let known = all.entry(unit.clone()).or_insert_with(|| Known {
            state: Administration::new(unit.clone()),
            head: ChainHead::default(),
        });
        self.catch_up(unit, known).await?;
        Ok(read(&known.state))
    }

    /// A link of the site was used: to be recorded when there is time.
    pub fn link_used(&self, site: &SiteId) {
        if self.links.try_send(site.clone()).is_err() {
            metrics::counter!("muster_link_uses_dropped").increment(1);
        }
    }

    async fn catch_up(&self, unit: &UnitId, known: &mut Known) -> Result<(), StoreError> {
        // Read before the events: of those there may be more, never fewer.
        let kept = self.store.kept_head(&stream_of(unit)).await?;
        for stored in self.store.events_after(&stream_of(unit), known.head.seq).await? {
            let wire = pb::UnitEvent::decode(stored.payload.as_slice()).map_err(|error| {
                StoreError::Corrupt(format!("event {} of unit {unit}: {error}", stored.seq))
            })?;
            known.state.apply(&unit_event_from_wire(wire)?);
            known.head = ChainHead {
                seq: stored.seq,
                hash: stored.hash,
            };
        }
        if let Some(kept) = kept.filter(|kept| kept.seq > known.head.seq) {
            // Somebody cut the log off. What follows goes behind the gap, which stays for `log verify` to find.
            tracing::error!(%unit, from = known.head.seq + 1, to = kept.seq, "events of a unit are gone: verify the log");
            known.head = kept;
        }
        Ok(())
    }

    fn tell(&self, events: &[UnitEvent]) {
        for event in events {
            match event {
                UnitEvent::PresetSaved { .. }
                | UnitEvent::PresetDeleted { .. }
                | UnitEvent::ScheduleSaved { .. }
                | UnitEvent::ScheduleDeleted { .. }
                | UnitEvent::DrillStarted { .. }
                | UnitEvent::DrillEnded { .. } => self.bus.publish(Hint::Plans),
                UnitEvent::Granted { account, .. }
                | UnitEvent::Revoked { account, .. }
                | UnitEvent::Recorded(
                    Record::AccountPut { account, .. } | Record::SessionsRevoked { account, .. },
                ) => self.bus.publish(Hint::Account(account.as_str().into())),
                // Who changes the tree tells it, once it is in use.
                UnitEvent::AnswerSet { .. } | UnitEvent::Recorded(_) => {}
            }
        }
    }
}

fn append_of(
    unit: &UnitId,
    by: By<'_>,
    known: &Known,
    events: &[UnitEvent],
    also: &[UnitEffect],
    at: Millis,
) -> UnitAppend {
    let mut append = UnitAppend {
        stream: stream_of(unit),
        head: known.head,
        effects: also.to_vec(),
        ..UnitAppend::default()
    };
    for (seq, event) in (known.head.seq + 1..).zip(events) {
        let done = Done {
            unit,
            seq,
            at,
            actor: by.actor,
            cause: by.cause,
        };
        append.events.push(NewEvent {
            seq,
            at_ms: at.0,
            actor: by.actor.to_owned(),
            payload: unit_event_to_wire(&done, event).encode_to_vec(),
        });
        append.effects.extend(effect_of(&done, event));
        if let (UnitEvent::DrillStarted { .. }, Some(old)) = (event, known.state.outdated_drill()) {
            append.effects.push(UnitEffect::DeleteDrill(old.to_string()));
        }
    }
    append
}

/// The row that changes with an event.
fn effect_of(done: &Done<'_>, event: &UnitEvent) -> Option<UnitEffect> {
    let unit = done.unit;
    Some(match event {
        UnitEvent::PresetSaved { id, preset } => UnitEffect::PutPreset(PresetRow {
            id: id.to_string(),
            unit: unit.to_string(),
            body: preset_to_wire(unit, id, preset).encode_to_vec(),
        }),
        UnitEvent::PresetDeleted { id } => UnitEffect::DeletePreset(id.to_string()),
        UnitEvent::ScheduleSaved { id, schedule } => UnitEffect::PutSchedule(ScheduleRow {
            id: id.to_string(),
            unit: unit.to_string(),
            next_ms: schedule.next.map_or(0, |next| next.0),
            body: schedule_to_wire(unit, id, schedule).encode_to_vec(),
        }),
        UnitEvent::ScheduleDeleted { id } => UnitEffect::DeleteSchedule(id.to_string()),
        UnitEvent::DrillEnded { id, drill } => UnitEffect::PutDrill(DrillRow {
            id: id.to_string(),
            unit: unit.to_string(),
            started_ms: drill.started.0,
            body: drill_to_wire(unit, id, drill).encode_to_vec(),
        }),
        UnitEvent::AnswerSet { sites, answer } => UnitEffect::SetAnswer {
            sites: sites.iter().map(ToString::to_string).collect(),
            answer: answer_to_wire(*answer).into(),
        },
        UnitEvent::Granted { account, grant } => UnitEffect::PutGrant {
            account: account.to_string(),
            grant: GrantRow {
                role: role_to_wire(grant.role).into(),
                unit: grant.unit.to_string(),
                expires_ms: grant.expires.map_or(0, |end| end.0),
                granted_by: done.actor.to_owned(),
                granted_ms: done.at.0,
            },
        },
        UnitEvent::Revoked { account, role } => UnitEffect::DeleteGrant {
            account: account.to_string(),
            role: role_to_wire(*role).into(),
            unit: unit.to_string(),
        },
        UnitEvent::Recorded(Record::Reported(report)) => UnitEffect::AddReport(ReportRow {
            site: report.site.to_string(),
            id: report.id.to_string(),
            received_ms: done.at.0,
            body: report_to_wire(done, report).encode_to_vec(),
        }),
        // Their rows come with the order.
        UnitEvent::DrillStarted { .. } | UnitEvent::Recorded(_) => return None,
    })
}

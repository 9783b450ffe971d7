//! Drills under way: pushed to the endpoints of the chosen sites, collected until all have answered or the time is over.
//!
//! The replica that began a drill collects it; every replica pushes to what is attached to it, and passes on what its
//! endpoints report. A drill that its replica left behind is ended by whichever replica looks next. Invariant: a drill
//! ends once, with one result a site.

use crate::bus::Hint;
use crate::convert::{drill_from_wire, drill_result_from_wire, drill_result_to_wire, drill_to_wire};
use crate::core::Core;
use crate::endpoints::To;
use crate::status::Failure;
use crate::store::{DrillRow, UnitEffect};
use crate::units::By;
use muster_domain::unit::DRILL_MS;
use muster_domain::{
    AccountName, Drill, DrillResult, Millis, Order, PlanId, Refusal, SiteId, UnitEvent, UnitId,
};
use muster_proto::command::v1 as pb;
use prost::Message as _;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

/// Drills at once in one replica.
const MAX_RUNNING: usize = 32;
/// A drill that is this much older than its time was left behind.
const LEFT_BEHIND_MS: i64 = 2 * DRILL_MS;
/// How many of the newest are looked through for such.
const LOOK_AT: i64 = 10;

struct Running {
    unit: UnitId,
    drill: Drill,
    answered: Arc<Notify>,
}

/// The drills that this replica collects.
#[derive(Default)]
pub struct Drills(Mutex<HashMap<PlanId, Running>>);

impl Drills {
    fn lock(&self) -> MutexGuard<'_, HashMap<PlanId, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A drill that is under way here, as far as it has come.
    pub fn view(&self, id: &str) -> Option<pb::Drill> {
        let running = self.lock();
        let (id, running) = running.iter().find(|(known, _)| known.as_str() == id)?;
        Some(drill_to_wire(&running.unit, id, &running.drill))
    }

    /// Takes in a result. False if the drill is not collected here.
    fn report(&self, id: &PlanId, result: DrillResult) -> bool {
        let mut running = self.lock();
        let Some(running) = running.get_mut(id) else {
            return false;
        };
        if running.drill.report(result) {
            running.answered.notify_one();
        }
        true
    }

    fn is_over(&self, id: &PlanId, now: Millis) -> bool {
        self.lock()
            .get(id)
            .is_none_or(|running| running.drill.is_over(now))
    }
}

/// Begins a drill of these sites, and goes on collecting it by itself. The same id again is refused as done already.
pub async fn start(
    core: &Arc<Core>,
    unit: UnitId,
    by: AccountName,
    id: PlanId,
    sites: Vec<SiteId>,
) -> Result<pb::Drill, Failure> {
    if core.drills.lock().len() >= MAX_RUNNING {
        return Err(Failure::Busy);
    }
    let reached: Vec<_> = sites
        .iter()
        .map(|site| (site.clone(), core.endpoints.reach(site)))
        .collect();
    let drill = Drill::start(by.clone(), &reached, core.clock.now());
    let wire = drill_to_wire(&unit, &id, &drill);
    let row = DrillRow {
        id: id.to_string(),
        unit: unit.to_string(),
        started_ms: drill.started.0,
        body: wire.encode_to_vec(),
    };
    let order = Order::StartDrill {
        id: id.clone(),
        sites,
    };
    let made = By {
        actor: &by,
        cause: "start_drill",
    };
    core.units
        .act(&unit, made, order, vec![UnitEffect::PutDrill(row)])
        .await?;
    let started = pb::DrillStarted {
        drill: id.to_string(),
        sites: drill.waiting().map(ToString::to_string).collect(),
    };
    let answered = Arc::new(Notify::new());
    let running = Running {
        unit: unit.clone(),
        drill,
        answered: answered.clone(),
    };
    core.drills.lock().insert(id.clone(), running);
    core.bus.publish(Hint::DrillStarted(Arc::new(started)));
    tokio::spawn(collect(core.clone(), unit, id, answered));
    Ok(wire)
}

async fn collect(core: Arc<Core>, unit: UnitId, id: PlanId, answered: Arc<Notify>) {
    let over = tokio::time::sleep(Duration::from_millis(DRILL_MS.unsigned_abs()));
    tokio::pin!(over);
    while !core.drills.is_over(&id, core.clock.now()) {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = &mut over => break,
            () = answered.notified() => {}
        }
    }
    let Some(drill) = core.drills.lock().get(&id).map(|running| running.drill.clone()) else {
        return;
    };
    let ended = end(&core, &unit, id.clone(), drill).await;
    core.drills.lock().remove(&id);
    match ended {
        Ok(_) | Err(Failure::Refused(Refusal::AlreadyDone)) => {}
        // Somebody who looks later ends it.
        Err(error) => tracing::warn!(drill = %id, %error, "cannot store what a drill found"),
    }
}

async fn end(core: &Core, unit: &UnitId, id: PlanId, drill: Drill) -> Result<Vec<UnitEvent>, Failure> {
    let by = By {
        actor: "system",
        cause: "end_drill",
    };
    core.units
        .act(unit, by, Order::EndDrill { id, drill }, Vec::new())
        .await
}

/// What an endpoint of a site found of itself.
pub fn report(core: &Core, site: SiteId, drill: &str, result: &pb::DrillResult) -> Result<(), Failure> {
    let id = PlanId::new(drill)?;
    let found = drill_result_from_wire(site, core.clock.now(), result);
    if !core.drills.report(&id, found.clone()) {
        let passed_on = pb::ReportDrillRequest {
            drill: id.to_string(),
            result: Some(drill_result_to_wire(&found)),
        };
        core.bus.publish(Hint::DrillReported(Arc::new(passed_on)));
    }
    Ok(())
}

/// Pushes drills to what is attached here, and takes in what others pass on.
pub async fn follow(core: Arc<Core>) {
    let mut hints = core.bus.subscribe();
    loop {
        let hint = tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            hint = hints.recv() => hint,
        };
        match hint {
            Ok(Hint::DrillStarted(started)) => {
                for site in &started.sites {
                    core.endpoints
                        .push(site, To::All, |_| call(&core, &started.drill));
                }
            }
            Ok(Hint::DrillReported(passed_on)) => take_in(&core, &passed_on),
            // Those who were not pushed to do not answer, and the drill says so.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn call(core: &Core, drill: &str) -> pb::AttachResponse {
    let call = pb::DrillCall {
        drill: drill.to_owned(),
        server_time_ms: core.clock.now_ms(),
    };
    pb::AttachResponse {
        event: Some(pb::attach_response::Event::Drill(call)),
    }
}

fn take_in(core: &Core, passed_on: &pb::ReportDrillRequest) {
    let Some(result) = &passed_on.result else {
        return;
    };
    if let (Ok(id), Ok(site)) = (PlanId::new(&passed_on.drill), SiteId::new(&result.site)) {
        let result = drill_result_from_wire(site, core.clock.now(), result);
        core.drills.report(&id, result);
    }
}

/// Ends drills that the replica which began them left behind.
pub async fn end_left_behind(core: &Core) -> Result<(), Failure> {
    for row in core.store.drills(LOOK_AT).await? {
        if row.started_ms > core.clock.now_ms() - LEFT_BEHIND_MS {
            continue;
        }
        let Ok(wire) = pb::Drill::decode(row.body.as_slice()) else {
            continue;
        };
        let (unit, id) = (UnitId::new(&row.unit)?, PlanId::new(&row.id)?);
        if wire.ended_ms > 0 || core.drills.lock().contains_key(&id) {
            continue;
        }
        let sites = core
            .units
            .look(&unit, |state| state.drill_sites(&id).map(<[SiteId]>::to_vec))
            .await?;
        let drill = drill_from_wire(&wire, &sites.unwrap_or_default())?;
        match end(core, &unit, id, drill).await {
            Ok(_) | Err(Failure::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

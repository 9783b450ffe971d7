//! Carries out schedules: convenes the preset, or holds the drill, when its time comes.
//!
//! Every replica looks; the idempotency key `schedule:ID:TIME` (and the drill's id, which is made of both) makes each
//! time happen once, whoever comes first and whoever dies in between. What came of it is kept in the schedule; a refusal
//! too. A time that is long past is not made up for. It is convened with what the schedule's account may do then.

use crate::convert::{schedule_from_wire, selector_to_wire};
use crate::core::{Caller, Core};
use crate::drills;
use crate::services::{chosen_for, convening, plan};
use crate::status::Failure;
use crate::store::ScheduleRow;
use crate::units::By;
use muster_domain::unit::LATE_MS;
use muster_domain::{Action, Millis, Order, Outcome, PlanId, Refusal, Schedule, Target, UnitId, authorize};
use muster_proto::command::v1 as pb;
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);
/// Looks for drills that were left behind come once in so many.
const SELDOM: u32 = 20;

/// Looks until the control plane stops.
pub async fn run(core: Arc<Core>) {
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Err(error) = look(&core).await {
            tracing::warn!(%error, "cannot look for schedules");
        }
        if looks.is_multiple_of(SELDOM)
            && let Err(error) = drills::end_left_behind(&core).await
        {
            tracing::warn!(%error, "cannot look for drills");
        }
        looks = looks.wrapping_add(1);
    }
}

async fn look(core: &Arc<Core>) -> Result<(), Failure> {
    for row in core.store.due_schedules(core.clock.now_ms()).await? {
        let ScheduleRow {
            id,
            unit,
            next_ms,
            body,
        } = row;
        // One that cannot be carried out must not keep the others.
        if let Err(error) = carry_out(core, &id, &unit, Millis(next_ms), &body).await {
            tracing::warn!(schedule = id, %error, "cannot carry a schedule out");
        }
    }
    Ok(())
}

async fn carry_out(core: &Arc<Core>, id: &str, unit: &str, due: Millis, body: &[u8]) -> Result<(), Failure> {
    let (id, unit) = (PlanId::new(id)?, UnitId::new(unit)?);
    let wire =
        pb::Schedule::decode(body).map_err(|error| Failure::BadRequest(format!("schedule {id}: {error}")))?;
    let schedule = schedule_from_wire(&wire)?;
    let outcome = if core.clock.now() > due.plus(LATE_MS) {
        Outcome::Refused("its time passed while the control plane, or what it needs, was away".to_owned())
    } else {
        match happen(core, &id, &unit, due, &schedule).await {
            Ok(what) => Outcome::Done(what),
            // The store or the way to it is away: the next look tries again.
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Aborted) => {
                return Err(Failure::Busy);
            }
            Err(status) => Outcome::Refused(status.message().to_owned()),
        }
    };
    tracing::info!(schedule = %id, ?outcome, "schedule carried out");
    let by = By {
        actor: "system",
        cause: "schedule",
    };
    match core
        .units
        .act(&unit, by, Order::Carried { id, due, outcome }, Vec::new())
        .await
    {
        // Another replica was first, or it was changed or deleted meanwhile.
        Ok(_) | Err(Failure::Refused(Refusal::AlreadyDone | Refusal::UnknownPlan { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The id of the meeting, or of the drill.
async fn happen(
    core: &Arc<Core>,
    id: &PlanId,
    unit: &UnitId,
    due: Millis,
    schedule: &Schedule,
) -> Result<String, Status> {
    let account = core.store.account(&schedule.account).await?;
    let account = account.ok_or_else(|| Failure::NoAccount(schedule.account.to_string()))?;
    let caller = Caller::without_session(account)?;
    let action = if schedule.drill {
        Action::Drill
    } else {
        Action::Convene
    };
    if let Err(refusal) = authorize(
        &caller.actor,
        action,
        &Target::Unit(unit.clone()),
        &core.tree(),
        core.clock.now(),
    ) {
        core.refused(&caller, action, refusal.clone());
        let text = format!(
            "{}, whose schedule this is, may do so no more: {refusal}",
            schedule.account
        );
        return Err(Status::permission_denied(text));
    }
    if schedule.drill {
        let preset = plan::preset_for(core, &caller, action, &schedule.preset).await?;
        let sites = chosen_for(
            core,
            &caller,
            Action::Drill,
            Some(selector_to_wire(&preset.selector)),
        )?;
        let drill = PlanId::new(format!("{id}-{due}", due = due.0)).map_err(Failure::from)?;
        return match drills::start(core, unit.clone(), schedule.account.clone(), drill.clone(), sites).await {
            Ok(_) | Err(Failure::Refused(Refusal::AlreadyDone)) => Ok(drill.to_string()),
            Err(failure) => Err(failure.into()),
        };
    }
    let request = pb::ConveneRequest {
        preset: schedule.preset.to_string(),
        idempotency_key: format!("schedule:{id}:{due}", due = due.0),
        ..pb::ConveneRequest::default()
    };
    let meeting = convening::convene(core, &caller, request, id).await?;
    Ok(meeting.id)
}

//! Convening, from a request or a preset: the one way to a new meeting, for people and for schedules.

use super::plan;
use crate::convert::{
    fallback_from_wire, fallback_to_wire, priority_from_wire, priority_to_wire, selector_to_wire,
};
use crate::core::{Caller, Core};
use crate::meetings::Convening;
use crate::status::Failure;
use muster_domain::{Action, Millis, Opening, Terms};
use muster_proto::command::v1 as pb;
use tonic::Status;

/// The most seconds to a deadline (a day) and minutes to an end (a week).
const MAX_DEADLINE_S: u32 = 24 * 3600;
const MAX_MINUTES: u32 = 7 * 24 * 60;

/// Convenes; `schedule` is the id of the schedule that does, else empty.
pub async fn convene(
    core: &Core,
    caller: &Caller,
    mut request: pb::ConveneRequest,
    schedule: &str,
) -> Result<pb::Meeting, Status> {
    let opening = if request.preset.is_empty() {
        Opening::default()
    } else {
        fill_in(core, caller, &mut request).await?
    };
    let terms = terms_of(&request, schedule, core.clock.now())?;
    let action = Action::Convene;
    let sites = super::chosen_for(core, caller, action, request.selector)?;
    let unit = caller
        .actor
        .convening_unit(&sites, &core.tree(), core.clock.now());
    let unit = unit.map_err(|refusal| core.refused(caller, action, refusal))?;
    let convening = Convening {
        title: request.title,
        chair: caller.actor.account.clone(),
        chair_shown: caller.account.display_name.clone(),
        unit,
        sites,
        idempotency_key: request.idempotency_key,
        terms,
        opening,
    };
    let meeting = core.meetings.convene(convening).await?;
    tracing::info!(
        meeting = meeting.id,
        sites = meeting.summonses.len(),
        "meeting convened"
    );
    Ok(meeting)
}

/// Fills in from the preset what the request leaves open.
pub(super) async fn fill_in(
    core: &Core,
    caller: &Caller,
    request: &mut pb::ConveneRequest,
) -> Result<Opening, Status> {
    let preset = plan::preset_for(core, caller, Action::Convene, &request.preset).await?;
    let given = request.selector.as_ref();
    if given.is_none_or(|selector| selector == &pb::Selector::default()) {
        request.selector = Some(selector_to_wire(&preset.selector));
    }
    if request.title.is_empty() {
        preset.meeting_title().clone_into(&mut request.title);
    }
    if request.priority == 0 {
        request.priority = priority_to_wire(preset.priority).into();
    }
    if request.fallback == 0 {
        request.fallback = fallback_to_wire(preset.fallback).into();
    }
    if request.deadline_s == 0 {
        request.deadline_s = preset.deadline_s;
    }
    if request.minutes == 0 {
        request.minutes = preset.minutes;
    }
    Ok(preset.opening())
}

fn terms_of(request: &pb::ConveneRequest, schedule: &str, now: Millis) -> Result<Terms, Failure> {
    let within = |field: &str, found: u32, most: u32| {
        if found <= most {
            return Ok(());
        }
        Err(Failure::BadRequest(format!(
            "{field}: found {found}, expected {most} at most"
        )))
    };
    within("deadline_s", request.deadline_s, MAX_DEADLINE_S)?;
    within("minutes", request.minutes, MAX_MINUTES)?;
    let after = |seconds: u32| (seconds > 0).then(|| now.plus(i64::from(seconds) * 1000));
    Ok(Terms {
        priority: priority_from_wire(request.priority).unwrap_or_default(),
        deadline: after(request.deadline_s),
        ends_at: after(request.minutes * 60),
        fallback: fallback_from_wire(request.fallback).unwrap_or_default(),
        preset: request.preset.clone(),
        schedule: schedule.to_owned(),
    })
}

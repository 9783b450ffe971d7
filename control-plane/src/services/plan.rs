//! Presets, schedules, drills and how sites answer. Each belongs to a unit, and who may see the unit may use it.

use super::chosen_for;
use crate::bus::Hint;
use crate::convert::{
    answer_from_wire, preset_from_wire, preset_to_wire, repeat_from_wire, schedule_to_wire, selector_to_wire,
};
use crate::core::{Caller, Core};
use crate::drills;
use crate::status::Failure;
use crate::store::StoreError;
use crate::units::By;
use muster_domain::{
    Action, Administration, Answer, Millis, Order, PlanId, Preset, Refusal, Schedule, Site, SiteId, Target,
    Tree, UnitEvent, UnitId,
};
use muster_proto::command::v1 as pb;
use pb::plan_service_server::PlanService;
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Drills in one answer.
const MAX_DRILLS: i64 = 50;

pub struct Plans(pub Arc<Core>);

fn decoded<T: prost::Message + Default>(what: &str, body: &[u8]) -> Result<T, StoreError> {
    T::decode(body).map_err(|error| StoreError::Corrupt(format!("{what}: {error}")))
}

fn unknown(what: &'static str, id: &str) -> Failure {
    let id = id.chars().take(80).collect();
    Refusal::UnknownPlan { what, id }.into()
}

/// A name for something new.
fn new_id(letter: char) -> Result<PlanId, Failure> {
    Ok(PlanId::new(format!("{letter}{:016x}", rand::random::<u64>()))?)
}

/// The answer for what the caller may not see: as of what is not there, and recorded.
fn unseen(core: &Core, caller: &Caller, action: Action, what: &'static str, id: &str) -> Status {
    let id = id.chars().take(80).collect();
    core.refused(caller, action, Refusal::UnknownPlan { what, id })
}

/// The preset of this id, for this action, if the caller may see its unit; one that may not be seen is as one that is
/// not there.
pub async fn preset_for(core: &Core, caller: &Caller, action: Action, id: &str) -> Result<Preset, Status> {
    let row = core
        .store
        .preset(id)
        .await?
        .ok_or_else(|| unknown("preset", id))?;
    let target = Target::Unit(UnitId::new(&row.unit).map_err(Failure::from)?);
    if !core.permits(caller, Action::View, &target) {
        return Err(unseen(core, caller, action, "preset", id));
    }
    let wire: pb::Preset = decoded("a preset", &row.body)?;
    Ok(preset_from_wire(wire).map_err(StoreError::Corrupt)?)
}

/// Tree with another answer policy for some sites.
fn with_answer(tree: &Tree, sites: &[SiteId], answer: Answer) -> Result<Tree, StoreError> {
    let changed: BTreeSet<&SiteId> = sites.iter().collect();
    let set = |site: &Site| Site {
        answer: if changed.contains(&site.id) {
            answer
        } else {
            site.answer
        },
        ..site.clone()
    };
    Tree::new(tree.units().cloned().collect(), tree.sites().map(set).collect())
        .map_err(|_| StoreError::Corrupt("the tree is none any more".into()))
}

impl Plans {
    fn may_see(&self, caller: &Caller, unit: &str) -> bool {
        UnitId::new(unit).is_ok_and(|unit| self.0.permits(caller, Action::View, &Target::Unit(unit)))
    }

    async fn act(
        &self,
        caller: &Caller,
        unit: &UnitId,
        cause: &'static str,
        order: Order,
    ) -> Result<Vec<UnitEvent>, Failure> {
        let by = By {
            actor: &caller.account.name,
            cause,
        };
        self.0.units.act(unit, by, order, Vec::new()).await
    }

    /// The unit of a plan that is there, or of one that is to be made; and whether it is new. A plan stays in its unit.
    fn place(
        &self,
        caller: &Caller,
        action: Action,
        known: Option<String>,
        asked: &str,
    ) -> Result<UnitId, Status> {
        let unit = match known {
            Some(unit) if asked.is_empty() || asked == unit => unit,
            Some(unit) => {
                let text = format!("unit: found {asked:?}, expected {unit}: a plan stays in its unit");
                return Err(Failure::BadRequest(text).into());
            }
            None => asked.to_owned(),
        };
        let unit = UnitId::new(unit).map_err(Failure::from)?;
        self.0.authorize(caller, action, &Target::Unit(unit.clone()))?;
        Ok(unit)
    }

    /// The unit of a preset that the caller may see; none of one that is to be made.
    async fn preset_unit(&self, caller: &Caller, id: &str) -> Result<Option<String>, Status> {
        if id.is_empty() {
            return Ok(None);
        }
        let row = self.0.store.preset(id).await?;
        let unit = row.ok_or_else(|| unknown("preset", id))?.unit;
        if !self.may_see(caller, &unit) {
            return Err(unseen(&self.0, caller, Action::ManagePresets, "preset", id));
        }
        Ok(Some(unit))
    }

    /// The same of a schedule.
    async fn schedule_unit(&self, caller: &Caller, id: &str) -> Result<Option<String>, Status> {
        if id.is_empty() {
            return Ok(None);
        }
        let row = self.0.store.schedule(id).await?;
        let unit = row.ok_or_else(|| unknown("schedule", id))?.unit;
        if !self.may_see(caller, &unit) {
            return Err(unseen(&self.0, caller, Action::Schedule, "schedule", id));
        }
        Ok(Some(unit))
    }

    /// A preset is of sites that its maker may call, and broadcasts one of them.
    fn check_preset(&self, caller: &Caller, preset: &Preset) -> Result<(), Status> {
        let selector = Some(selector_to_wire(&preset.selector));
        let sites = chosen_for(&self.0, caller, Action::ManagePresets, selector)?;
        match &preset.broadcast {
            Some(site) if !sites.contains(site) => Err(Failure::from(Refusal::BadText {
                field: "broadcast",
                expected: "one of the preset's sites",
            })
            .into()),
            _ => Ok(()),
        }
    }

    async fn set_answer(&self, caller: Caller, sites: Vec<SiteId>, answer: Answer) -> Result<u32, Status> {
        let action = Action::SetAnswerPolicy;
        let core = &self.0;
        let _one_at_a_time = core.import.lock().await;
        let tree = core.tree();
        let is_other = |site: &SiteId| tree.site(site).is_some_and(|site| site.answer != answer);
        let sites: Vec<SiteId> = sites.into_iter().filter(is_other).collect();
        if sites.is_empty() {
            return Ok(0);
        }
        let unit = caller.actor.unit_over(action, &sites, &tree, self.0.clock.now());
        let unit = unit.ok_or_else(|| {
            core.refused(
                &caller,
                action,
                caller.actor.without_role(action, self.0.clock.now()),
            )
        })?;
        let changed = with_answer(&tree, &sites, answer)?;
        let count = u32::try_from(sites.len()).unwrap_or(u32::MAX);
        self.act(
            &caller,
            &unit,
            "set_answer_policy",
            Order::SetAnswer { sites, answer },
        )
        .await?;
        core.set_tree(changed);
        core.bus.publish(Hint::Directory);
        Ok(count)
    }

    async fn drill_of(&self, caller: &Caller, id: &str) -> Result<pb::Drill, Status> {
        let row = self
            .0
            .store
            .drill(id)
            .await?
            .ok_or_else(|| unknown("drill", id))?;
        if !self.may_see(caller, &row.unit) {
            return Err(unknown("drill", id).into());
        }
        match self.0.drills.view(id) {
            Some(drill) => Ok(drill),
            None => Ok(decoded("a drill", &row.body)?),
        }
    }
}

#[tonic::async_trait]
impl PlanService for Plans {
    async fn list_plans(
        &self,
        request: Request<pb::ListPlansRequest>,
    ) -> Result<Response<pb::ListPlansResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let store = &self.0.store;
        let mut answer = pb::ListPlansResponse::default();
        for row in store.presets().await? {
            if self.may_see(&caller, &row.unit) {
                answer.presets.push(decoded("a preset", &row.body)?);
            }
        }
        for row in store.schedules().await? {
            if self.may_see(&caller, &row.unit) {
                answer.schedules.push(decoded("a schedule", &row.body)?);
            }
        }
        for row in store.drills(MAX_DRILLS).await? {
            if self.may_see(&caller, &row.unit) {
                let stored: pb::Drill = decoded("a drill", &row.body)?;
                let mut drill = self.0.drills.view(&row.id).unwrap_or(stored);
                drill.results.clear();
                answer.drills.push(drill);
            }
        }
        Ok(Response::new(answer))
    }

    async fn save_preset(
        &self,
        request: Request<pb::SavePresetRequest>,
    ) -> Result<Response<pb::SavePresetResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let wire = request.into_inner().preset.unwrap_or_default();
        let known = self.preset_unit(&caller, &wire.id).await?;
        let is_new = known.is_none();
        let unit = self.place(&caller, Action::ManagePresets, known, &wire.unit)?;
        let id = if is_new {
            new_id('p')?
        } else {
            PlanId::new(&wire.id).map_err(Failure::from)?
        };
        let preset = preset_from_wire(wire).map_err(Failure::BadRequest)?;
        self.check_preset(&caller, &preset)?;
        let saved = preset_to_wire(&unit, &id, &preset);
        let order = Order::SavePreset { id, is_new, preset };
        self.act(&caller, &unit, "save_preset", order).await?;
        Ok(Response::new(pb::SavePresetResponse { preset: Some(saved) }))
    }

    async fn delete_preset(
        &self,
        request: Request<pb::DeletePresetRequest>,
    ) -> Result<Response<pb::DeletePresetResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let id = PlanId::new(request.into_inner().preset).map_err(Failure::from)?;
        let known = self.preset_unit(&caller, &id).await?;
        let unit = self.place(&caller, Action::ManagePresets, known, "")?;
        self.act(&caller, &unit, "delete_preset", Order::DeletePreset { id })
            .await?;
        Ok(Response::new(pb::DeletePresetResponse {}))
    }

    async fn save_schedule(
        &self,
        request: Request<pb::SaveScheduleRequest>,
    ) -> Result<Response<pb::SaveScheduleResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let wire = request.into_inner().schedule.unwrap_or_default();
        let known = self.schedule_unit(&caller, &wire.id).await?;
        let is_new = known.is_none();
        let unit = self.place(&caller, Action::Schedule, known, &wire.unit)?;
        let preset = PlanId::new(&wire.preset).map_err(Failure::from)?;
        preset_for(&self.0, &caller, Action::Schedule, &preset).await?;
        let id = if is_new {
            new_id('s')?
        } else {
            PlanId::new(&wire.id).map_err(Failure::from)?
        };
        let repeat = repeat_from_wire(wire.repeat).ok_or_else(|| {
            let found = wire.repeat;
            Failure::BadRequest(format!("repeat: found {found}, expected once, daily or weekly"))
        })?;
        let schedule = Schedule {
            preset,
            next: (wire.next_ms > 0).then_some(Millis(wire.next_ms)),
            repeat,
            account: caller.actor.account.clone(),
            drill: wire.drill,
            last: None,
        };
        let order = Order::SaveSchedule {
            id: id.clone(),
            is_new,
            schedule,
        };
        self.act(&caller, &unit, "save_schedule", order).await?;
        let find = |state: &Administration| {
            let schedule = state.schedule(&id)?;
            Some(schedule_to_wire(&unit, &id, schedule))
        };
        let saved = self.0.units.look(&unit, find).await?;
        Ok(Response::new(pb::SaveScheduleResponse { schedule: saved }))
    }

    async fn delete_schedule(
        &self,
        request: Request<pb::DeleteScheduleRequest>,
    ) -> Result<Response<pb::DeleteScheduleResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let id = PlanId::new(request.into_inner().schedule).map_err(Failure::from)?;
        let known = self.schedule_unit(&caller, &id).await?;
        let unit = self.place(&caller, Action::Schedule, known, "")?;
        self.act(&caller, &unit, "delete_schedule", Order::DeleteSchedule { id })
            .await?;
        Ok(Response::new(pb::DeleteScheduleResponse {}))
    }

    async fn start_drill(
        &self,
        request: Request<pb::StartDrillRequest>,
    ) -> Result<Response<pb::StartDrillResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::StartDrillRequest { selector, preset } = request.into_inner();
        let action = Action::Drill;
        let selector = if preset.is_empty() {
            selector
        } else {
            let preset = preset_for(&self.0, &caller, action, &preset).await?;
            Some(selector_to_wire(&preset.selector))
        };
        let sites = chosen_for(&self.0, &caller, action, selector)?;
        let unit = caller
            .actor
            .unit_over(action, &sites, &self.0.tree(), self.0.clock.now());
        let unit = unit.ok_or_else(|| {
            let refusal = caller.actor.without_role(action, self.0.clock.now());
            self.0.refused(&caller, action, refusal)
        })?;
        let by = caller.actor.account.clone();
        let drill = drills::start(&self.0, unit, by, new_id('d')?, sites).await?;
        Ok(Response::new(pb::StartDrillResponse { drill: Some(drill) }))
    }

    async fn get_drill(
        &self,
        request: Request<pb::GetDrillRequest>,
    ) -> Result<Response<pb::GetDrillResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let drill = self.drill_of(&caller, &request.into_inner().drill).await?;
        Ok(Response::new(pb::GetDrillResponse { drill: Some(drill) }))
    }

    async fn set_answer_policy(
        &self,
        request: Request<pb::SetAnswerPolicyRequest>,
    ) -> Result<Response<pb::SetAnswerPolicyResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::SetAnswerPolicyRequest { selector, answer } = request.into_inner();
        let answer = answer_from_wire(answer).ok_or_else(|| {
            Failure::BadRequest(format!("answer: found {answer}, expected a policy from 0 to 2"))
        })?;
        let sites = chosen_for(&self.0, &caller, Action::SetAnswerPolicy, selector)?;
        // A task of its own: a caller that goes away must not leave a tree that is stored and not in use.
        let this = Self(self.0.clone());
        let set = tokio::spawn(async move { this.set_answer(caller, sites, answer).await });
        let sites = set.await.map_err(|_| Failure::Busy)??;
        Ok(Response::new(pb::SetAnswerPolicyResponse { sites }))
    }
}

//! Every verb of a meeting beside those that have a call of their own: which action it takes, and which command it is.
//!
//! Invariant: nothing is asked of the meeting before the caller may. What a verb does is the domain's.

use super::chosen_for;
use super::meeting::{MeetingCalls, sites};
use crate::convert::{actor_from_row, layout_from_wire, polling_order_from_wire};
use crate::core::{Caller, target_of};
use crate::status::Failure;
use muster_domain::{
    Able, AccountName, Action, Actor, Command, Invitee, Meeting, Reach, Refusal, Seat, SiteId, UnitId,
    authorize,
};
use muster_proto::command::v1 as pb;
use pb::act_request::Verb;
use std::collections::BTreeSet;
use tonic::Status;

/// An id, where the empty text is none.
fn optional_site(name: String) -> Result<Option<SiteId>, Failure> {
    if name.is_empty() {
        return Ok(None);
    }
    Ok(Some(SiteId::new(name)?))
}

/// The action that a verb takes.
fn action_of(verb: &Verb) -> Action {
    match verb {
        Verb::AddSites(_) => Action::AddSites,
        Verb::HangUp(_) => Action::HangUp,
        Verb::Lock(_) => Action::Lock,
        Verb::Extend(_) => Action::Extend,
        Verb::RequestChair(_) => Action::RequestChair,
        Verb::AnswerChairRequest(_) | Verb::ReleaseChair(_) => Action::ReleaseChair,
        Verb::TakeOver(_) => Action::TakeOver,
        Verb::HandBack(_) => Action::HandBack,
        Verb::SetLayout(_)
        | Verb::SetPolling(_)
        | Verb::TurnPage(_)
        | Verb::SetVoiceSwitching(_)
        | Verb::SetContent(_) => Action::SetStage,
        Verb::WatchSite(_) => Action::WatchSite,
        Verb::StartRollCall(_)
        | Verb::NextRollCall(_)
        | Verb::AcknowledgeRollCall(_)
        | Verb::EndRollCall(_) => Action::RollCall,
        Verb::GrantFloor(_) | Verb::TakeFloor(_) => Action::Floor,
    }
}

impl MeetingCalls {
    /// Carries a verb out; answers the meeting's last event afterwards, and how many sites it touched.
    pub(super) async fn carry_out(
        &self,
        caller: &Caller,
        request: pb::ActRequest,
    ) -> Result<pb::ActResponse, Status> {
        let pb::ActRequest { meeting: id, verb } = request;
        let verb =
            verb.ok_or_else(|| Failure::BadRequest("verb: found none, expected what is to be done".into()))?;
        let before = self.0.meeting_for(caller, &id, action_of(&verb)).await?;
        let command = self.command_of(caller, &before, verb).await?;
        let named = touched(&command, &before);
        let by = caller.account.name.clone();
        self.0.meetings.command(&id, command, by).await?;
        let seq = match self.0.meetings.view(&id) {
            Some(view) => view.seq(),
            None => self.0.meetings.find(&id).await?.seq,
        };
        Ok(pb::ActResponse {
            seq,
            sites: u32::try_from(named).unwrap_or(u32::MAX),
        })
    }

    async fn command_of(&self, caller: &Caller, meeting: &Meeting, verb: Verb) -> Result<Command, Status> {
        let by = caller.actor.account.clone();
        Ok(match verb {
            Verb::AddSites(add) => self.add_sites(caller, meeting, add)?,
            Verb::Lock(lock) => Command::Lock {
                locked: lock.locked,
                desks: self.desks_in(meeting),
            },
            Verb::RequestChair(request) => {
                let able = self.able(meeting).await?;
                Command::RequestChair {
                    held: meeting.chair().is_some_and(|chair| able.contains(chair)),
                    withdraw: request.withdraw,
                    by,
                }
            }
            Verb::AnswerChairRequest(answer) => Command::AnswerChairRequest {
                account: AccountName::new(answer.account).map_err(Failure::from)?,
                granted: answer.granted,
                able: self.able(meeting).await?,
            },
            Verb::ReleaseChair(_) => Command::ReleaseChair {
                able: self.able(meeting).await?,
                by,
            },
            Verb::TakeOver(_) => Command::TakeOver { by },
            Verb::HandBack(_) => Command::HandBack {
                able: self.able(meeting).await?,
                by,
            },
            Verb::SetContent(set) => self.set_content(meeting, set).await?,
            Verb::StartRollCall(start) => Command::StartRollCall {
                by,
                answer_s: start.answer_s,
                sites: sites(start.sites)?,
            },
            Verb::AcknowledgeRollCall(acknowledge) => Command::Acknowledge {
                site: SiteId::new(acknowledge.site).map_err(Failure::from)?,
                by: Some(by),
            },
            other => plain_command(other)?,
        })
    }

    /// Who may have the chair now, of all who could come to it or have it.
    async fn able(&self, meeting: &Meeting) -> Result<Able, Failure> {
        let unit = meeting.unit().ok_or(Refusal::NotConvened)?;
        self.0
            .able_to_chair(meeting.chairs(), unit, meeting.sites())
            .await
    }

    /// A desk shows content if it can take part: the chair's, and those of accounts that may come in.
    async fn set_content(&self, meeting: &Meeting, set: pb::SetContent) -> Result<Command, Status> {
        if set.site.is_empty() {
            return Ok(Command::SetContent { seat: None });
        }
        let seat = set.site.parse::<Seat>().map_err(Failure::from)?;
        if let Seat::Desk(account) = &seat {
            let row = self.0.store.account(account).await?;
            let actor = row.as_ref().map(actor_from_row).transpose()?;
            let target = target_of(meeting)?;
            let may = |actor: &Actor| {
                authorize(
                    actor,
                    Action::JoinAsDesk,
                    &target,
                    &self.0.tree(),
                    self.0.clock.now(),
                )
                .is_ok()
            };
            if !actor.as_ref().is_some_and(may) {
                return Err(Failure::from(Refusal::UnknownDesk(account.clone())).into());
            }
        }
        Ok(Command::SetContent { seat: Some(seat) })
    }

    fn add_sites(&self, caller: &Caller, meeting: &Meeting, add: pb::AddSites) -> Result<Command, Status> {
        let chosen = chosen_for(&self.0, caller, Action::AddSites, add.selector)?;
        let over = self.widened(meeting, &chosen)?;
        // What is known of each is put in when it is decided.
        let invitee = |site| Invitee {
            site,
            reach: Reach::NeverSeen,
            claimed_by: None,
        };
        Ok(Command::AddSites {
            sites: chosen.into_iter().map(invitee).collect(),
            over,
        })
    }

    /// The meeting's unit and the one that has these sites too, where that is another.
    fn widened(&self, meeting: &Meeting, chosen: &[SiteId]) -> Result<Option<(UnitId, UnitId)>, Failure> {
        let tree = self.0.tree();
        let own = meeting.unit().ok_or(Refusal::NotConvened)?;
        let places = chosen
            .iter()
            .filter_map(|site| tree.site(site))
            .map(|site| &site.unit);
        let outside: Vec<_> = places.filter(|unit| !tree.is_within(unit, own)).collect();
        if outside.is_empty() {
            return Ok(None);
        }
        let over = tree.common_unit(outside.into_iter().chain([own]));
        Ok(Some((own.clone(), over.ok_or(Refusal::NoCommonUnit)?)))
    }

    /// The consoles that are in a meeting, as relays tell it.
    fn desks_in(&self, meeting: &Meeting) -> Vec<AccountName> {
        let known = self.0.qualities.of(meeting.id());
        let desks = known
            .iter()
            .filter_map(|quality| quality.site.strip_prefix("desk:"));
        desks
            .filter_map(|account| AccountName::new(account).ok())
            .collect()
    }
}

/// The command of a verb that needs nothing but its own words.
fn plain_command(verb: Verb) -> Result<Command, Failure> {
    Ok(match verb {
        Verb::HangUp(hang_up) => Command::HangUp {
            sites: sites(hang_up.sites)?,
        },
        Verb::Extend(extend) => Command::Extend {
            minutes: extend.minutes,
        },
        Verb::SetLayout(set) => Command::SetLayout {
            layout: match set.layout {
                0 => None,
                number => Some(layout_from_wire(number).ok_or_else(|| {
                    Failure::BadRequest(format!("layout: found {number}, expected a layout from 0 to 8"))
                })?),
            },
        },
        Verb::SetPolling(set) => Command::SetPolling {
            polling: polling_order_from_wire(&set),
        },
        Verb::TurnPage(turn) if turn.by == 1 || turn.by == -1 => Command::TurnPage {
            forward: turn.by == 1,
        },
        Verb::TurnPage(turn) => {
            let text = format!("by: found {}, expected 1 or -1", turn.by);
            return Err(Failure::BadRequest(text));
        }
        Verb::SetVoiceSwitching(set) => Command::SetVoiceSwitching { on: set.on },
        Verb::WatchSite(watch) => Command::WatchSite {
            site: optional_site(watch.site)?,
        },
        Verb::NextRollCall(next) => Command::NextRollCall {
            site: optional_site(next.site)?,
        },
        Verb::EndRollCall(_) => Command::EndRollCall,
        Verb::GrantFloor(grant) => Command::GrantFloor {
            site: SiteId::new(grant.site)?,
            seconds: grant.seconds,
        },
        Verb::TakeFloor(take) => Command::TakeFloor {
            site: SiteId::new(take.site)?,
        },
        other => return Err(Failure::BadRequest(format!("verb: {other:?} needs its caller"))),
    })
}

/// How many sites a command touches, as far as that is told.
fn touched(command: &Command, meeting: &Meeting) -> usize {
    match command {
        Command::AddSites { sites, .. } => {
            let new = |invitee: &&Invitee| meeting.summons(&invitee.site).is_none();
            sites.iter().filter(new).count()
        }
        Command::HangUp { sites } => {
            let named: BTreeSet<&SiteId> = sites.iter().collect();
            let is_in = |site: &&&SiteId| meeting.summons(site).is_some_and(|summons| !summons.is_hung_up());
            named.iter().filter(is_in).count()
        }
        Command::StartRollCall { sites, .. } if sites.is_empty() => meeting.summonses().len(),
        Command::StartRollCall { sites, .. } => sites.iter().collect::<BTreeSet<_>>().len(),
        _ => 0,
    }
}

//! Between the domain's types and the wire's; and the store's rows. Nothing is decided here.
//!
//! Stored events are wire messages: reading one that makes no sense is an error, never a guess.

use crate::store::{AccountRow, GrantRow, SiteRow, StoreError, UnitRow};
use muster_domain::{
    Access, AccountName, Actor, EndpointKind, Event, Grant, Meeting, MeetingId, Millis, Presence, Reason,
    Role, Selector, Site, SiteId, Stage, StageDocument, Summons, SummonsState, Tier, Tree, Unit, UnitId,
};
use muster_proto::command::v1 as pb;
use pb::meeting_event::Event as Wire;

/// A closed set of words on both sides.
macro_rules! paired {
    ($domain:ty, $wire:ty, $to:ident, $from:ident, { $($variant:ident = $other:ident),+ $(,)? }) => {
        pub fn $to(value: $domain) -> $wire {
            match value { $(<$domain>::$variant => <$wire>::$other),+ }
        }

        /// `None` for "unspecified" and for numbers of a newer schema.
        pub fn $from(number: i32) -> Option<$domain> {
            match <$wire>::try_from(number).ok()? {
                $(<$wire>::$other => Some(<$domain>::$variant),)+
                _ => None,
            }
        }
    };
}

paired!(Tier, pb::Tier, tier_to_wire, tier_from_wire, {
    City = City, District = District, Street = Street, Community = Community,
});
paired!(Access, pb::Access, access_to_wire, access_from_wire, {
    Fibre = Fibre, Adsl = Adsl, FourG = Access4g, Satellite = Satellite,
});
paired!(Role, pb::Role, role_to_wire, role_from_wire, {
    Commander = Commander, DutyOfficer = DutyOfficer, Engineer = Engineer, Auditor = Auditor,
});
paired!(SummonsState, pb::SummonsState, state_to_wire, state_from_wire, {
    Paged = Paged, Delivered = Delivered, Ringing = Ringing, Answered = Answered, Joining = Joining,
    OnAir = OnAir, Declined = Declined, Unreachable = Unreachable, TimedOut = TimedOut, Refused = Refused,
    Left = Left,
});
paired!(Reason, pb::SummonsReason, reason_to_wire, reason_from_wire, {
    NeverSeen = NeverSeen, Offline = Offline, NoAnswer = NoAnswer, Declined = Declined, NoMedia = NoMedia,
    CameraBusy = CameraBusy, CameraMissing = CameraMissing, LinkLost = LinkLost,
    InOtherMeeting = InOtherMeeting, NoRelay = NoRelay, JoinFailed = JoinFailed, NoDelivery = NoDelivery,
    HungUp = HungUp,
});

fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(what.to_string())
}

pub fn unit_to_wire(unit: &Unit) -> pb::Unit {
    pb::Unit {
        id: unit.id.to_string(),
        tier: tier_to_wire(unit.tier).into(),
        parent: unit.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        name_zh: unit.name_zh.clone(),
        name_en: unit.name_en.clone(),
        lat: unit.lat,
        lon: unit.lon,
    }
}

pub fn site_to_wire(site: &Site) -> pb::Site {
    pb::Site {
        id: site.id.to_string(),
        unit: site.unit.to_string(),
        tier: tier_to_wire(site.tier).into(),
        name_zh: site.name_zh.clone(),
        name_en: site.name_en.clone(),
        lat: site.lat,
        lon: site.lon,
        access: access_to_wire(site.access).into(),
        tags: site.tags.iter().cloned().collect(),
        ..Default::default()
    }
}

pub fn unit_to_row(unit: &Unit) -> UnitRow {
    let wire = unit_to_wire(unit);
    UnitRow {
        id: wire.id,
        tier: wire.tier,
        parent: wire.parent,
        name_zh: wire.name_zh,
        name_en: wire.name_en,
        lat: wire.lat,
        lon: wire.lon,
    }
}

pub fn site_to_row(site: &Site) -> SiteRow {
    let wire = site_to_wire(site);
    SiteRow {
        id: wire.id,
        unit: wire.unit,
        tier: wire.tier,
        name_zh: wire.name_zh,
        name_en: wire.name_en,
        lat: wire.lat,
        lon: wire.lon,
        access: wire.access,
        tags: wire.tags,
        answer: wire.answer,
    }
}

fn unit_from_row(row: UnitRow) -> Result<Unit, StoreError> {
    let parent = if row.parent.is_empty() {
        None
    } else {
        Some(UnitId::new(&row.parent).map_err(corrupt)?)
    };
    Ok(Unit {
        id: UnitId::new(&row.id).map_err(corrupt)?,
        tier: tier_from_wire(row.tier)
            .ok_or_else(|| corrupt(format!("unit {}: tier {}", row.id, row.tier)))?,
        parent,
        name_zh: row.name_zh,
        name_en: row.name_en,
        lat: row.lat,
        lon: row.lon,
    })
}

fn site_from_row(row: SiteRow) -> Result<Site, StoreError> {
    Ok(Site {
        id: SiteId::new(&row.id).map_err(corrupt)?,
        unit: UnitId::new(&row.unit).map_err(corrupt)?,
        tier: tier_from_wire(row.tier)
            .ok_or_else(|| corrupt(format!("site {}: tier {}", row.id, row.tier)))?,
        access: access_from_wire(row.access)
            .ok_or_else(|| corrupt(format!("site {}: access {}", row.id, row.access)))?,
        name_zh: row.name_zh,
        name_en: row.name_en,
        lat: row.lat,
        lon: row.lon,
        tags: row.tags.into_iter().collect(),
    })
}

/// The tree as it is stored.
pub fn tree_from_rows(units: Vec<UnitRow>, sites: Vec<SiteRow>) -> Result<Tree, StoreError> {
    let units = units.into_iter().map(unit_from_row).collect::<Result<_, _>>()?;
    let sites = sites.into_iter().map(site_from_row).collect::<Result<_, _>>()?;
    Tree::new(units, sites)
        .map_err(|errors| corrupt(errors.first().map(ToString::to_string).unwrap_or_default()))
}

pub fn account_to_wire(account: &AccountRow) -> pb::Account {
    pb::Account {
        name: account.name.clone(),
        display_name: account.display_name.clone(),
        grants: account
            .grants
            .iter()
            .map(|grant| pb::Grant {
                role: grant.role,
                unit: grant.unit.clone(),
                expires_ms: grant.expires_ms,
                granted_by: grant.granted_by.clone(),
                granted_ms: grant.granted_ms,
            })
            .collect(),
    }
}

pub fn actor_from_row(account: &AccountRow) -> Result<Actor, StoreError> {
    let grant = |row: &GrantRow| {
        Ok(Grant {
            role: role_from_wire(row.role)
                .ok_or_else(|| corrupt(format!("a grant's role is {}", row.role)))?,
            unit: UnitId::new(&row.unit).map_err(corrupt)?,
            expires: (row.expires_ms > 0).then_some(Millis(row.expires_ms)),
        })
    };
    Ok(Actor {
        account: AccountName::new(&account.name).map_err(corrupt)?,
        grants: account
            .grants
            .iter()
            .map(grant)
            .collect::<Result<_, StoreError>>()?,
    })
}

pub fn presence_to_wire(site: &str, presence: Presence) -> pb::Presence {
    pb::Presence {
        site: site.to_owned(),
        online: presence.online,
        since_ms: presence.since.map_or(0, |since| since.0),
        endpoint: presence
            .endpoint
            .map(EndpointKind::as_str)
            .unwrap_or_default()
            .to_owned(),
    }
}

/// Numbers of tiers that are not known are told as an error.
pub fn selector_from_wire(selector: pb::Selector) -> Result<Selector, String> {
    let tier = |number: &i32| {
        tier_from_wire(*number)
            .ok_or_else(|| format!("selector.tiers: found {number}, expected a tier from 1 to 4"))
    };
    Ok(Selector {
        subtrees: selector.subtrees,
        tiers: selector.tiers.iter().map(tier).collect::<Result<_, _>>()?,
        sites: selector.sites,
        tags: selector.tags,
        exclude_subtrees: selector.exclude_subtrees,
        exclude_sites: selector.exclude_sites,
    })
}

pub fn summons_to_wire(summons: &Summons) -> pb::Summons {
    pb::Summons {
        site: summons.site.to_string(),
        state: state_to_wire(summons.state).into(),
        reason: summons
            .reason
            .map_or(pb::SummonsReason::Unspecified, reason_to_wire)
            .into(),
        at_ms: summons.at.0,
        reason_since_ms: summons.reason_since.map_or(0, |at| at.0),
        paged_ms: summons.paged.map_or(0, |at| at.0),
        on_air_ms: summons.on_air.map_or(0, |at| at.0),
        detail: summons.detail.clone(),
        ..Default::default()
    }
}

fn known_time(ms: i64) -> Option<Millis> {
    (ms != 0).then_some(Millis(ms))
}

fn summons_from_wire(wire: pb::Summons) -> Result<Summons, StoreError> {
    Ok(Summons {
        site: SiteId::new(&wire.site).map_err(corrupt)?,
        state: state_from_wire(wire.state).ok_or_else(|| corrupt(format!("summons state {}", wire.state)))?,
        reason: reason_from_wire(wire.reason),
        at: Millis(wire.at_ms),
        reason_since: known_time(wire.reason_since_ms),
        paged: known_time(wire.paged_ms),
        on_air: known_time(wire.on_air_ms),
        detail: wire.detail,
    })
}

fn stage_to_wire(stage: &Stage) -> pb::Stage {
    pb::Stage {
        broadcast_site: stage
            .broadcast
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        muted_sites: stage.muted.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn stage_from_wire(wire: pb::Stage) -> Result<Stage, StoreError> {
    let broadcast = match wire.broadcast_site.as_str() {
        "" => None,
        site => Some(SiteId::new(site).map_err(corrupt)?),
    };
    let muted = wire
        .muted_sites
        .iter()
        .map(|site| SiteId::new(site).map_err(corrupt))
        .collect::<Result<_, _>>()?;
    Ok(Stage { broadcast, muted })
}

/// An event as it is stored and told to watchers.
pub fn event_to_wire(
    meeting: &MeetingId,
    seq: u64,
    now: Millis,
    actor: &str,
    event: &Event,
) -> pb::MeetingEvent {
    let (at, wire) = match event {
        Event::Convened {
            at,
            title,
            chair,
            unit,
            sites,
            idempotency_key,
        } => (
            *at,
            Wire::Convened(pb::MeetingConvened {
                title: title.clone(),
                unit: unit.to_string(),
                chair: chair.to_string(),
                sites: sites.iter().map(ToString::to_string).collect(),
                idempotency_key: idempotency_key.clone(),
                ..Default::default()
            }),
        ),
        Event::SummonsChanged { summons } => (
            now,
            Wire::Summons(pb::SummonsChanged {
                summons: Some(summons_to_wire(summons)),
            }),
        ),
        Event::StageChanged { stage } => (
            now,
            Wire::Stage(pb::StageChanged {
                stage: Some(stage_to_wire(stage)),
            }),
        ),
        Event::Ended { at, reason } => (
            *at,
            Wire::Ended(pb::MeetingEnded {
                reason: reason.clone(),
            }),
        ),
    };
    pb::MeetingEvent {
        meeting: meeting.to_string(),
        seq,
        at_ms: at.0,
        actor: actor.to_owned(),
        event: Some(wire),
        ..Default::default()
    }
}

/// A stored event as the domain knows it.
pub fn event_from_wire(wire: pb::MeetingEvent) -> Result<Event, StoreError> {
    let at = Millis(wire.at_ms);
    let missing = || corrupt(format!("event {} of meeting {} is empty", wire.seq, wire.meeting));
    Ok(match wire.event.ok_or_else(missing)? {
        Wire::Convened(convened) => Event::Convened {
            at,
            title: convened.title,
            chair: AccountName::new(&convened.chair).map_err(corrupt)?,
            unit: UnitId::new(&convened.unit).map_err(corrupt)?,
            sites: convened
                .sites
                .iter()
                .map(|site| SiteId::new(site).map_err(corrupt))
                .collect::<Result<_, _>>()?,
            idempotency_key: convened.idempotency_key,
        },
        Wire::Summons(changed) => Event::SummonsChanged {
            summons: summons_from_wire(changed.summons.unwrap_or_default())?,
        },
        Wire::Stage(changed) => Event::StageChanged {
            stage: stage_from_wire(changed.stage.unwrap_or_default())?,
        },
        Wire::Ended(ended) => Event::Ended {
            at,
            reason: ended.reason,
        },
        other => return Err(corrupt(format!("an event of a newer version: {other:?}"))),
    })
}

pub fn meeting_to_wire(meeting: &Meeting) -> pb::Meeting {
    pb::Meeting {
        id: meeting.id().to_string(),
        title: meeting.title().to_owned(),
        chair: meeting.chair().map(ToString::to_string).unwrap_or_default(),
        unit: meeting.unit().map(ToString::to_string).unwrap_or_default(),
        started_ms: meeting.started().map_or(0, |at| at.0),
        ended_ms: meeting.ended().map_or(0, |(at, _)| at.0),
        summonses: meeting.summonses().iter().map(summons_to_wire).collect(),
        stage: Some(stage_to_wire(meeting.stage())),
        seq: meeting.seq(),
        ..Default::default()
    }
}

pub fn stage_document_to_wire(document: &StageDocument) -> pb::StageDocument {
    pb::StageDocument {
        meeting: document.meeting.to_string(),
        version: document.version,
        ended: document.ended,
        broadcast_site: document
            .broadcast
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        muted_sites: document.muted.iter().map(ToString::to_string).collect(),
        chair: document.chair.clone(),
        expelled_sites: document.expelled.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

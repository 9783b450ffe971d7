//! Units, sites, accounts, presence and selectors, on the wire and as rows of the store.
//!
//! A row that makes no sense is an error, never a guess.

use super::{corrupt, known_time, paired};
use crate::store::{AccountRow, GrantRow, SiteRow, Store, StoreError, UnitRow};
use muster_domain::{
    Access, AccountName, Actor, Answer, EndpointKind, Grant, Presence, Role, Selector, Site, SiteId, TagPool,
    Tier, Tree, Unit, UnitId,
};
use muster_proto::command::v1 as pb;
use std::collections::HashMap;

paired!(Tier, pb::Tier, tier_to_wire, tier_from_wire, {
    City = City, District = District, Street = Street, Community = Community,
});
paired!(Access, pb::Access, access_to_wire, access_from_wire, {
    Fibre = Fibre, Adsl = Adsl, FourG = Access4g, Satellite = Satellite,
});
paired!(Role, pb::Role, role_to_wire, role_from_wire, {
    Commander = Commander, DutyOfficer = DutyOfficer, Engineer = Engineer, Auditor = Auditor,
});
// Unspecified is what holds where nothing was set.
pub fn answer_to_wire(answer: Answer) -> pb::AnswerPolicy {
    match answer {
        Answer::Default => pb::AnswerPolicy::Unspecified,
        Answer::Auto => pb::AnswerPolicy::Auto,
        Answer::Ring => pb::AnswerPolicy::Ring,
    }
}

/// `None` for numbers of a newer schema.
pub fn answer_from_wire(number: i32) -> Option<Answer> {
    Some(match pb::AnswerPolicy::try_from(number).ok()? {
        pb::AnswerPolicy::Unspecified => Answer::Default,
        pb::AnswerPolicy::Auto => Answer::Auto,
        pb::AnswerPolicy::Ring => Answer::Ring,
    })
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
        name_zh: site.name_zh.to_string(),
        name_en: site.name_en.to_string(),
        lat: site.lat,
        lon: site.lon,
        access: access_to_wire(site.access).into(),
        tags: site.tags.iter().cloned().collect(),
        answer: answer_to_wire(site.answer).into(),
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

/// The tree, put together from rows as they come, so that few rows are there at a time and what sites have in common
/// is there once.
#[derive(Default)]
pub struct TreeFromRows {
    units: Vec<Unit>,
    by_id: HashMap<String, UnitId>,
    sites: Vec<Site>,
    tags: TagPool,
}

impl TreeFromRows {
    /// With all units.
    pub fn new(rows: Vec<UnitRow>) -> Result<Self, StoreError> {
        let mut tree = Self::default();
        for row in rows {
            let unit = unit_from_row(row)?;
            tree.by_id.insert(unit.id.to_string(), unit.id.clone());
            tree.units.push(unit);
        }
        Ok(tree)
    }

    /// Takes one site more.
    pub fn site(&mut self, row: SiteRow) -> Result<(), StoreError> {
        let unit = match self.by_id.get(&row.unit) {
            Some(unit) => unit.clone(),
            None => UnitId::new(&row.unit).map_err(corrupt)?,
        };
        self.sites.push(Site {
            id: SiteId::new(&row.id).map_err(corrupt)?,
            unit,
            tier: tier_from_wire(row.tier)
                .ok_or_else(|| corrupt(format!("site {}: tier {}", row.id, row.tier)))?,
            access: access_from_wire(row.access)
                .ok_or_else(|| corrupt(format!("site {}: access {}", row.id, row.access)))?,
            name_zh: row.name_zh.into(),
            name_en: row.name_en.into(),
            lat: row.lat,
            lon: row.lon,
            tags: self.tags.shared(row.tags.into_iter().collect()),
            answer: answer_from_wire(row.answer)
                .ok_or_else(|| corrupt(format!("site {}: answer {}", row.id, row.answer)))?,
        });
        Ok(())
    }

    pub fn finish(self) -> Result<Tree, StoreError> {
        Tree::new(self.units, self.sites)
            .map_err(|errors| corrupt(errors.first().map(ToString::to_string).unwrap_or_default()))
    }
}

/// The tree as it is stored.
pub async fn tree_of(store: &Store) -> Result<Tree, StoreError> {
    let mut tree = TreeFromRows::new(store.units().await?)?;
    store.each_site(&mut |row| tree.site(row)).await?;
    tree.finish()
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
            expires: known_time(row.expires_ms.max(0)),
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

pub fn selector_to_wire(selector: &Selector) -> pb::Selector {
    pb::Selector {
        subtrees: selector.subtrees.clone(),
        tiers: selector
            .tiers
            .iter()
            .map(|tier| tier_to_wire(*tier).into())
            .collect(),
        sites: selector.sites.clone(),
        tags: selector.tags.clone(),
        exclude_subtrees: selector.exclude_subtrees.clone(),
        exclude_sites: selector.exclude_sites.clone(),
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

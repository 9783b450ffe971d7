//! Rows against each other and against the tree as it is: parents exist, are units, and stand above.
//!
//! Each error is told at the line that a person would mend; a row under a bad row is not blamed for it.

use std::collections::{BTreeMap, BTreeSet};

use super::row::{File, Record, RecordKind};
use super::{Errors, ImportError};
use crate::ids::UnitId;
use crate::tree::{Tree, Unit};
use crate::words::Tier;

/// How far up a ring of parents is looked for. A longer ring still fails, by its tiers.
const RING: usize = 64;

/// What the tree would be, for looking things up.
struct After<'a> {
    units: BTreeMap<&'a str, (Tier, Option<&'a UnitId>)>,
    sites: BTreeSet<&'a str>,
    bad: &'a BTreeSet<String>,
}

pub(super) fn check(file: &File, current: &Tree, errors: &mut Errors) {
    let mut after = After {
        units: BTreeMap::new(),
        sites: BTreeSet::new(),
        bad: &file.bad,
    };
    let mut lines: BTreeMap<&str, u32> = BTreeMap::new();
    after.sites.extend(current.sites().map(|s| s.id.as_str()));
    let file_units = file.records.iter().filter_map(Record::unit);
    for unit in current.units().chain(file_units) {
        after.units.insert(&unit.id, (unit.tier, unit.parent.as_ref()));
    }
    for record in &file.records {
        match &record.kind {
            RecordKind::Unit(unit) => {
                lines.insert(&unit.id, record.line);
            }
            RecordKind::Site(site) => {
                lines.insert(&site.id, record.line);
                after.sites.insert(&site.id);
            }
        }
    }
    for record in &file.records {
        if let Some(error) = after.check(record) {
            errors.push(error);
        }
    }
    untouched_below(&after, &lines, current, errors);
}

impl Record {
    fn unit(&self) -> Option<&Unit> {
        match &self.kind {
            RecordKind::Unit(unit) => Some(unit),
            RecordKind::Site(_) => None,
        }
    }
}

impl After<'_> {
    fn check(&self, record: &Record) -> Option<ImportError> {
        let (parent, tier, is_site) = match &record.kind {
            RecordKind::Unit(unit) => (unit.parent.as_ref()?, unit.tier, false),
            RecordKind::Site(site) => (&site.unit, site.tier, true),
        };
        if self.bad.contains(parent.as_str()) {
            return None;
        }
        let at = |column: &str, found: &str, expected: String| {
            Some(ImportError::new(record.line, column, found, expected))
        };
        let Some((parent_tier, _)) = self.units.get(parent.as_str()) else {
            let expected = if self.sites.contains(parent.as_str()) {
                "the external_id of a unit: this is a site"
            } else {
                "the external_id of a unit in this file or imported before"
            };
            return at("parent", parent, expected.to_owned());
        };
        if let Some(unit) = record.unit()
            && self.is_below_itself(unit)
        {
            return at(
                "parent",
                parent,
                format!("a unit that is not {} itself or below it", unit.id),
            );
        }
        let fits = if is_site {
            tier >= *parent_tier
        } else {
            tier > *parent_tier
        };
        if fits {
            return None;
        }
        let rule = if is_site {
            format!("{parent_tier} or a lower tier")
        } else {
            format!("a tier below {parent_tier}")
        };
        at(
            "tier",
            tier.as_str(),
            format!("{rule}, as the parent {parent} is a {parent_tier}"),
        )
    }

    fn is_below_itself(&self, unit: &Unit) -> bool {
        let mut next = unit.parent.as_ref();
        for _ in 0..RING {
            match next {
                Some(above) if *above == unit.id => return true,
                Some(above) => next = self.units.get(above.as_str()).and_then(|(_, parent)| *parent),
                None => return false,
            }
        }
        false
    }
}

/// A unit of the file may not sink to or below the tier of what stays under it.
fn untouched_below(after: &After<'_>, lines: &BTreeMap<&str, u32>, current: &Tree, errors: &mut Errors) {
    let units = current
        .units()
        .filter_map(|u| Some((u.id.as_str(), u.tier, u.parent.as_deref()?, false)));
    let sites = current
        .sites()
        .map(|s| (s.id.as_str(), s.tier, s.unit.as_str(), true));
    for (id, tier, parent, is_site) in units.chain(sites) {
        if lines.contains_key(id) || after.bad.contains(id) {
            continue;
        }
        let (Some(line), Some((parent_tier, _))) = (lines.get(parent), after.units.get(parent)) else {
            continue;
        };
        let fits = if is_site {
            tier >= *parent_tier
        } else {
            tier > *parent_tier
        };
        if !fits {
            let expected =
                format!("a tier above that of what is below it: {id} is a {tier} and not in this file");
            errors.push(ImportError::new(*line, "tier", parent_tier.as_str(), expected));
        }
    }
}

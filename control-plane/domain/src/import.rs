//! Units and sites from a table, all or nothing.
//!
//! The columns are those of `data/eastlake.csv`, in any order; rows may come in any order too. Rows are known
//! by their external id: the same file again changes nothing, and what is not in the file stays as it is.
//! Every bad line is named with its column, what was found and what was expected ([`MAX_ERRORS`] of them at
//! most); if there is any, nothing is imported.
//!
//! Reading CSV (quotes, line numbers, the size limit) is the shell's; storing the plan too.

mod relations;
mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::ids::{SiteId, UnitId, cut};
use crate::tree::{Site, Tree, Unit};
use row::{Columns, Record, RecordKind};

/// The columns, in the order of the example file.
pub const COLUMNS: [&str; 10] = [
    "external_id",
    "kind",
    "tier",
    "parent",
    "name_zh",
    "name_en",
    "lat",
    "lon",
    "access",
    "phase",
];
/// The most errors told of one file; the last then says how many more there are.
pub const MAX_ERRORS: usize = 1000;
/// The longest name, in characters.
pub const MAX_NAME: usize = 200;

/// One line of the file after the header, split into fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRow {
    /// Where it begins in the file; the header is 1.
    pub line: u32,
    pub fields: Vec<String>,
}

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImportError {
    /// 1 is the header.
    pub line: u32,
    /// Empty where it is the line as a whole.
    pub column: String,
    /// Cut to 80 characters.
    pub found: String,
    pub expected: String,
}

impl ImportError {
    fn new(line: u32, column: &str, found: &str, expected: impl Into<String>) -> Self {
        ImportError {
            line,
            column: cut(column, 80),
            found: cut(found, 80),
            expected: expected.into(),
        }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.column.is_empty() {
            write!(f, ", column {}", self.column)?;
        }
        write!(f, ": found {:?}, expected {}", self.found, self.expected)
    }
}

impl std::error::Error for ImportError {}

/// What an import would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportPlan {
    /// The whole tree afterwards.
    pub tree: Tree,
    pub units_added: usize,
    pub units_changed: usize,
    pub sites_added: usize,
    pub sites_changed: usize,
    /// Units and sites of the file that are so already.
    pub unchanged: usize,
    /// Added and changed units, to be stored; in tree order, so parents come first.
    pub units: Vec<Unit>,
    /// Added and changed sites, to be stored; in tree order.
    pub sites: Vec<Site>,
}

/// Checks a file against itself and the tree as it is, and says what importing it would do.
///
/// Errors come by line. With a bad header only that is told, since no column can be trusted then. A line whose
/// fields are all empty is passed over.
pub fn plan_import(
    current: &Tree,
    header: &[String],
    rows: &[RawRow],
) -> Result<ImportPlan, Vec<ImportError>> {
    let columns = Columns::read(header)?;
    let mut errors = Errors::default();
    let mut file = row::File::default();
    let is_blank = |raw: &RawRow| raw.fields.iter().all(|field| field.trim().is_empty());
    for raw in rows.iter().filter(|raw| !is_blank(raw)) {
        file.take(&columns, raw, current, &mut errors);
    }
    relations::check(&file, current, &mut errors);
    errors.none_or()?;
    merge(current, file.records)
}

/// What is wrong so far. Keeps so many, and counts the rest.
#[derive(Default)]
struct Errors {
    kept: Vec<ImportError>,
    more: usize,
    /// Line of the first that was not kept.
    more_from: u32,
}

impl Errors {
    fn push(&mut self, error: ImportError) {
        if self.kept.len() < MAX_ERRORS - 1 {
            self.kept.push(error);
        } else {
            if self.more == 0 {
                self.more_from = error.line;
            }
            self.more += 1;
        }
    }

    fn count(&self) -> usize {
        self.kept.len() + self.more
    }

    /// All of them by line, if there are any.
    fn none_or(mut self) -> Result<(), Vec<ImportError>> {
        if self.count() == 0 {
            return Ok(());
        }
        self.kept.sort();
        if self.more > 0 {
            let found = format!("{} more errors", self.more);
            let expected = "the others to be mended first";
            self.kept
                .push(ImportError::new(self.more_from, "", &found, expected));
        }
        Err(self.kept)
    }
}

fn merge(current: &Tree, records: Vec<Record>) -> Result<ImportPlan, Vec<ImportError>> {
    let mut units: BTreeMap<UnitId, Unit> = current.units().map(|u| (u.id.clone(), u.clone())).collect();
    let mut sites: BTreeMap<SiteId, Site> = current.sites().map(|s| (s.id.clone(), s.clone())).collect();
    let mut plan = ImportPlan::default();
    let mut touched: BTreeSet<String> = BTreeSet::new();
    for record in records {
        let (id, effect, added, changed) = match record.kind {
            RecordKind::Unit(unit) => {
                let (id, effect) = (unit.id.clone().into(), put(&mut units, unit.id.clone(), unit));
                (id, effect, &mut plan.units_added, &mut plan.units_changed)
            }
            RecordKind::Site(site) => {
                let (id, effect) = (site.id.clone().into(), put(&mut sites, site.id.clone(), site));
                (id, effect, &mut plan.sites_added, &mut plan.sites_changed)
            }
        };
        match effect {
            Effect::Unchanged => {
                plan.unchanged += 1;
                continue;
            }
            Effect::Added => *added += 1,
            Effect::Changed => *changed += 1,
        }
        touched.insert(id);
    }
    let (units, sites) = (units.into_values().collect(), sites.into_values().collect());
    // Every line was checked before; this only keeps a slip there from becoming a bad tree.
    plan.tree = Tree::new(units, sites).map_err(|errors| {
        let expected = "units and sites that make a tree";
        let as_import = |e| ImportError::new(1, "", &format!("{e}"), expected);
        errors.iter().take(MAX_ERRORS).map(as_import).collect::<Vec<_>>()
    })?;
    plan.units = plan
        .tree
        .units()
        .filter(|u| touched.contains(u.id.as_str()))
        .cloned()
        .collect();
    plan.sites = plan
        .tree
        .sites()
        .filter(|s| touched.contains(s.id.as_str()))
        .cloned()
        .collect();
    Ok(plan)
}

enum Effect {
    Added,
    Changed,
    Unchanged,
}

fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Effect {
    let effect = match map.get(&key) {
        None => Effect::Added,
        Some(old) if *old == value => Effect::Unchanged,
        Some(_) => Effect::Changed,
    };
    map.insert(key, value);
    effect
}

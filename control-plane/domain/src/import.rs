//! Units and sites from a table, all or nothing.
//!
//! The columns are those of `data/eastlake.csv`, in any order; rows may come in any order too. Rows are known
//! by their external id: the same file again changes nothing, and what is not in the file stays as it is.
//! Every bad line is named with its column, what was found and what was expected (the first [`MAX_ERRORS`] of
//! them); if there is any, nothing is imported.
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
#[derive(Clone, Debug, PartialEq)]
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
    let mut errors = Vec::new();
    let mut file = row::File::default();
    for raw in rows
        .iter()
        .filter(|raw| raw.fields.iter().any(|field| !field.trim().is_empty()))
    {
        file.take(&columns, raw, current, &mut errors);
    }
    relations::check(&file, current, &mut errors);
    if !errors.is_empty() {
        return Err(limited(errors));
    }
    merge(current, file.records).map_err(|error| vec![error])
}

fn merge(current: &Tree, records: Vec<Record>) -> Result<ImportPlan, ImportError> {
    let mut units: BTreeMap<UnitId, Unit> = current.units().map(|u| (u.id.clone(), u.clone())).collect();
    let mut sites: BTreeMap<SiteId, Site> = current.sites().map(|s| (s.id.clone(), s.clone())).collect();
    let mut plan = ImportPlan {
        tree: Tree::default(),
        units_added: 0,
        units_changed: 0,
        sites_added: 0,
        sites_changed: 0,
        unchanged: 0,
        units: Vec::new(),
        sites: Vec::new(),
    };
    let mut touched: BTreeSet<String> = BTreeSet::new();
    for record in records {
        let (id, added, changed) = match record.kind {
            RecordKind::Unit(unit) => {
                let id = unit.id.to_string();
                let counts = (&mut plan.units_added, &mut plan.units_changed);
                let same = current.unit(&id) == Some(&unit);
                units.insert(unit.id.clone(), unit);
                if same {
                    plan.unchanged += 1;
                    continue;
                }
                (id, counts.0, counts.1)
            }
            RecordKind::Site(site) => {
                let id = site.id.to_string();
                let counts = (&mut plan.sites_added, &mut plan.sites_changed);
                let same = current.site(&id) == Some(&site);
                sites.insert(site.id.clone(), site);
                if same {
                    plan.unchanged += 1;
                    continue;
                }
                (id, counts.0, counts.1)
            }
        };
        let known = current.unit(&id).is_some() || current.site(&id).is_some();
        *(if known { changed } else { added }) += 1;
        touched.insert(id);
    }
    plan.tree =
        Tree::new(units.into_values().collect(), sites.into_values().collect()).map_err(|errors| {
            // Every line was checked before; this only keeps a slip there from becoming a bad tree.
            let text = errors.first().map(ToString::to_string).unwrap_or_default();
            ImportError::new(1, "", &text, "units and sites that make a tree")
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

/// By line, each once, and no more than a person (or a message) can take.
fn limited(mut errors: Vec<ImportError>) -> Vec<ImportError> {
    errors.sort();
    errors.dedup();
    if errors.len() > MAX_ERRORS {
        let rest = errors.len() - (MAX_ERRORS - 1);
        let line = errors.get(MAX_ERRORS - 1).map_or(1, |e| e.line);
        errors.truncate(MAX_ERRORS - 1);
        errors.push(ImportError::new(
            line,
            "",
            &format!("{rest} more errors from here on"),
            "the lines above to be mended first",
        ));
    }
    errors
}

//! One row by itself: each field into its type, or an error that names line, column, found and expected.
//!
//! Whether parents exist and tiers fit is `relations`' business.

use std::collections::{BTreeMap, BTreeSet};

use super::{COLUMNS, Errors, ImportError, MAX_NAME, RawRow};
use crate::ids::{ID_EXPECTED, SiteId, UnitId};
use crate::tree::{Site, Tree, Unit};
use crate::words::{Access, Answer, Tier};

/// The values of the phase column; a site carries its own as a tag.
const PHASES: [&str; 2] = ["existing", "new"];

/// Where each column is in this file.
pub(super) struct Columns {
    /// Place in the file, by place in [`COLUMNS`].
    places: [usize; COLUMNS.len()],
}

impl Columns {
    pub(super) fn read(header: &[String]) -> Result<Columns, Vec<ImportError>> {
        let mut errors = Errors::default();
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, name) in header.iter().enumerate() {
            let name = name.trim_start_matches('\u{feff}').trim();
            if !COLUMNS.contains(&name) {
                errors.push(ImportError::new(
                    1,
                    name,
                    name,
                    format!("one of the columns {}", COLUMNS.join(", ")),
                ));
            } else if found.insert(name, place).is_some() {
                errors.push(ImportError::new(1, name, name, "this column once"));
            }
        }
        let mut places = [0; COLUMNS.len()];
        for (slot, name) in places.iter_mut().zip(COLUMNS) {
            match found.get(name) {
                Some(place) => *slot = *place,
                None => errors.push(ImportError::new(1, name, "", "this column in the header")),
            }
        }
        errors.none_or()?;
        Ok(Columns { places })
    }

    /// The trimmed text of a column; empty where the row is too short.
    fn get<'a>(&self, raw: &'a RawRow, column: &str) -> &'a str {
        let place = COLUMNS
            .iter()
            .position(|c| *c == column)
            .and_then(|at| self.places.get(at));
        place
            .and_then(|place| raw.fields.get(*place))
            .map_or("", |field| field.trim())
    }
}

/// A good row.
pub(super) struct Record {
    pub line: u32,
    pub kind: RecordKind,
}

pub(super) enum RecordKind {
    Unit(Unit),
    Site(Site),
}

/// What was read so far.
#[derive(Default)]
pub(super) struct File {
    pub records: Vec<Record>,
    /// Ids of rows that are bad by themselves: rows below them are not blamed for that.
    pub bad: BTreeSet<String>,
    /// Where each id is first.
    lines: BTreeMap<String, u32>,
}

impl File {
    pub(super) fn take(&mut self, columns: &Columns, raw: &RawRow, current: &Tree, errors: &mut Errors) {
        if raw.fields.len() != COLUMNS.len() {
            // Its fields may stand in the wrong columns, so no more is said of them.
            let found = format!("{} fields", raw.fields.len());
            let expected = format!("{} fields, as in the header", COLUMNS.len());
            errors.push(ImportError::new(raw.line, "", &found, expected));
            self.bad.insert(columns.get(raw, "external_id").to_owned());
            return;
        }
        let before = errors.count();
        let mut fields = Fields { columns, raw, errors };
        let id = fields.get("external_id").to_owned();
        let record = fields.record(current);
        if let Some(first) = self.lines.get(&id).filter(|_| !id.is_empty()) {
            let expected = format!("each external_id once: line {first} has it already");
            errors.push(ImportError::new(raw.line, "external_id", &id, expected));
        } else {
            self.lines.insert(id.clone(), raw.line);
        }
        match record {
            Some(kind) if errors.count() == before => self.records.push(Record { line: raw.line, kind }),
            _ => {
                self.bad.insert(id);
            }
        }
    }
}

struct Fields<'a> {
    columns: &'a Columns,
    raw: &'a RawRow,
    errors: &'a mut Errors,
}

impl<'a> Fields<'a> {
    fn get(&self, column: &str) -> &'a str {
        self.columns.get(self.raw, column)
    }

    fn error(&mut self, column: &str, expected: impl Into<String>) {
        let found = self.get(column);
        self.errors
            .push(ImportError::new(self.raw.line, column, found, expected));
    }

    fn record(&mut self, current: &Tree) -> Option<RecordKind> {
        match self.get("kind") {
            "unit" => self.unit(current).map(RecordKind::Unit),
            "site" => self.site(current).map(RecordKind::Site),
            _ => {
                self.error("kind", "unit or site");
                None
            }
        }
    }

    fn unit(&mut self, current: &Tree) -> Option<Unit> {
        let id = UnitId::new(self.get("external_id")).ok();
        if id.is_none() {
            self.error("external_id", ID_EXPECTED);
        }
        if current.site(self.get("external_id")).is_some() {
            self.error("kind", "site: it is one already, and a site cannot become a unit");
        }
        let parent = match self.get("parent") {
            "" => None,
            text => Some(UnitId::new(text).ok()),
        };
        if parent == Some(None) {
            self.error("parent", format!("empty for a root, or {ID_EXPECTED}"));
        }
        if !self.get("access").is_empty() {
            self.error("access", "nothing: only sites have it");
        }
        let (tier, names, place, _) = (self.tier(), self.names(), self.place(), self.phase());
        let ((name_zh, name_en), (lat, lon)) = (names?, place?);
        Some(Unit {
            id: id?,
            tier: tier?,
            parent: parent.flatten(),
            name_zh,
            name_en,
            lat,
            lon,
        })
    }

    fn site(&mut self, current: &Tree) -> Option<Site> {
        let id = SiteId::new(self.get("external_id")).ok();
        if id.is_none() {
            self.error("external_id", ID_EXPECTED);
        }
        if current.unit(self.get("external_id")).is_some() {
            self.error("kind", "unit: it is one already, and a unit cannot become a site");
        }
        let unit = UnitId::new(self.get("parent")).ok();
        if unit.is_none() {
            self.error("parent", "the external_id of the site's unit");
        }
        let access = self.get("access").parse::<Access>().ok();
        if access.is_none() {
            self.error("access", Access::EXPECTED);
        }
        let (tier, names, place, phase) = (self.tier(), self.names(), self.place(), self.phase());
        let ((name_zh, name_en), (lat, lon)) = (names?, place?);
        let (id, phase) = (id?, phase?);
        let known = current.site(&id);
        let kept = known.iter().flat_map(|site| site.tags.iter());
        let kept = kept.filter(|tag| !PHASES.contains(&tag.as_str())).cloned();
        let tags = kept.chain([phase.to_owned()]).collect();
        Some(Site {
            id,
            unit: unit?,
            tier: tier?,
            name_zh: name_zh.into(),
            name_en: name_en.into(),
            lat,
            lon,
            access: access?,
            tags,
            answer: known.map_or(Answer::Default, |site| site.answer),
        })
    }

    fn tier(&mut self) -> Option<Tier> {
        let tier = self.get("tier").parse::<Tier>().ok();
        if tier.is_none() {
            self.error("tier", Tier::EXPECTED);
        }
        tier
    }

    /// Chinese and English; where one is empty the other stands for it.
    fn names(&mut self) -> Option<(String, String)> {
        let (zh, en) = (self.get("name_zh"), self.get("name_en"));
        let mut good = true;
        for (column, name) in [("name_zh", zh), ("name_en", en)] {
            if name.chars().count() > MAX_NAME || name.chars().any(is_hidden) {
                self.error(
                    column,
                    format!("{MAX_NAME} characters at most, no control characters, none that turns the direction of writing"),
                );
                good = false;
            }
        }
        if zh.is_empty() && en.is_empty() {
            self.error("name_zh", "a name, here or in name_en");
            good = false;
        }
        let or = |name: &str, other: &str| {
            if name.is_empty() {
                other.to_owned()
            } else {
                name.to_owned()
            }
        };
        good.then(|| (or(zh, en), or(en, zh)))
    }

    fn place(&mut self) -> Option<(f64, f64)> {
        let (lat, lon) = (self.degrees("lat", 90.0), self.degrees("lon", 180.0));
        lat.zip(lon)
    }

    fn degrees(&mut self, column: &str, most: f64) -> Option<f64> {
        let degrees = self.get(column).parse::<f64>().ok().filter(|d| d.abs() <= most);
        if degrees.is_none() {
            self.error(column, format!("degrees, -{most} to {most}"));
        }
        degrees
    }

    fn phase(&mut self) -> Option<&'a str> {
        let phase = self.get("phase");
        if PHASES.contains(&phase) {
            return Some(phase);
        }
        self.error("phase", "existing or new");
        None
    }
}

/// Characters that nobody sees and that make a name look like another: controls, and those that turn the direction of
/// writing (embeddings, overrides and isolates).
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

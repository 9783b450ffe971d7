//! The conditions of a link over time, read from a table of the kind of `data/links/*.csv`.
//!
//! A row holds from its `t_ms` until the next; the last row ends the profile, which then repeats, so the values of the
//! last row are never in force. Reading is strict: the first thing that is not as it should be is named by line and
//! field, with what was expected there.
//!
//! A profile also knows how much the bottleneck carries over time ([`Profile::carried`]), exactly, in thousandths of a
//! bit: a rate in kbit/s is that many thousandths of a bit in a microsecond.

use std::{fmt, io::Read, path::Path};

/// The columns, in their order.
const COLUMNS: [&str; 10] = [
    "t_ms",
    "rate_kbps",
    "queue_ms",
    "delay_ms",
    "jitter_ms",
    "loss_good",
    "loss_bad",
    "p_gb",
    "p_bg",
    "up",
];
/// A day.
const MAX_T_MS: u64 = 86_400_000;
/// 10 Gbit/s.
const MAX_RATE_KBPS: u64 = 10_000_000;
/// A minute, for queue, delay and jitter.
const MAX_WAIT_MS: u64 = 60_000;
const MAX_ROWS: usize = 100_000;
/// More than [`MAX_ROWS`] lines of sensible length.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The conditions of a link from a moment on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Since when they hold, microseconds from the start of the profile.
    pub from_us: u64,
    /// Rate of the bottleneck, kbit/s of IP packets; at least 1.
    pub rate_kbps: u32,
    /// How long a packet may have to wait before the bottleneck, milliseconds at `rate_kbps`; who would wait longer is
    /// dropped.
    pub queue_ms: u32,
    /// One way, without the bottleneck's own queue and sending time, microseconds.
    pub delay_us: u64,
    /// Uniform, plus or minus, microseconds; at most `delay_us`.
    pub jitter_us: u64,
    /// Chance that a packet is lost in the good state.
    pub loss_good: f64,
    /// Chance that a packet is lost in the bad state.
    pub loss_bad: f64,
    /// Chance, before each packet, to go from the good state to the bad one.
    pub p_gb: f64,
    /// Chance, before each packet, to go from the bad state to the good one.
    pub p_bg: f64,
    /// Whether the link takes packets at all.
    pub up: bool,
}

impl Default for Row {
    /// A clean link: 50 Mbit/s, 100 ms of queue, 10 ms one way, nothing lost.
    fn default() -> Self {
        Self {
            from_us: 0,
            rate_kbps: 50_000,
            queue_ms: 100,
            delay_us: 10_000,
            jitter_us: 0,
            loss_good: 0.0,
            loss_bad: 0.0,
            p_gb: 0.0,
            p_bg: 1.0,
            up: true,
        }
    }
}

/// Why a text is not a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ProfileError {
    /// The name given to the profile: a path, mostly.
    pub name: String,
    /// Counted from 1; `None` where the whole is meant.
    pub line: Option<usize>,
    /// The column's name, where one field is to blame.
    pub field: Option<&'static str>,
    /// What was expected and what was found.
    pub problem: String,
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(field) = self.field {
            write!(f, ", {field}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// The conditions of a link over time; repeats without end.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    name: String,
    rows: Vec<Row>,
    duration_us: u64,
    /// What the bottleneck carries from the start until each row begins, thousandths of a bit.
    carried: Vec<u128>,
    /// What it carries in one repetition.
    carried_all: u128,
}

impl Profile {
    /// Reads a profile from its text. `name` is for messages.
    ///
    /// # Errors
    /// Where the text is not exactly a profile: the first line and field that are wrong, and what was expected.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let blame = |line, (field, problem)| ProfileError {
            name: name.to_owned(),
            line: Some(line),
            field,
            problem,
        };
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let header = COLUMNS.join(",");
        match lines.next() {
            Some((_, line)) if line == header => {}
            Some((line, found)) => {
                return Err(blame(
                    line,
                    (
                        None,
                        format!("expected the header {header:?}, found {}", quoted(found)),
                    ),
                ));
            }
            None => {
                return Err(blame(
                    1,
                    (None, format!("expected the header {header:?}, found nothing")),
                ));
            }
        }
        let mut rows: Vec<Row> = Vec::new();
        for (line, content) in lines {
            let row = parse_row(content).map_err(|fault| blame(line, fault))?;
            if let Some(problem) = wrong_time(rows.last(), &row) {
                return Err(blame(line, (Some("t_ms"), problem)));
            }
            if rows.len() == MAX_ROWS {
                return Err(blame(line, (None, format!("expected at most {MAX_ROWS} rows"))));
            }
            rows.push(row);
        }
        let whole = |problem: &str| ProfileError {
            line: None,
            ..blame(0, (None, problem.to_owned()))
        };
        let end = rows
            .pop()
            .ok_or_else(|| whole("expected rows after the header, found none"))?;
        if rows.is_empty() {
            return Err(whole(
                "expected a last row that ends the profile, found only the first",
            ));
        }
        Ok(Self::assemble(name, rows, end.from_us))
    }

    /// Reads a profile from a file.
    ///
    /// # Errors
    /// As [`Profile::parse`], and where the file cannot be read, is over 16 MiB or is not UTF-8.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ProfileError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let whole = |problem: String| ProfileError {
            name: name.clone(),
            line: None,
            field: None,
            problem,
        };
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| whole(format!("cannot be read: {error}")))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(whole(format!("expected at most {MAX_FILE_BYTES} bytes")));
        }
        let mut profile = Self::parse(&name, &text)?;
        if let Some(stem) = path.file_stem() {
            profile.name = stem.to_string_lossy().into_owned();
        }
        Ok(profile)
    }

    /// A profile from rows made by hand, for tests. The first row begins at 0, each later than the one before;
    /// `duration_us` ends the last and with it the profile.
    ///
    /// # Errors
    /// What is wrong, with the number of the row as its line, counted from 1.
    pub fn from_rows(name: &str, rows: Vec<Row>, duration_us: u64) -> Result<Self, ProfileError> {
        let blame = |line, field, problem| ProfileError {
            name: name.to_owned(),
            line,
            field,
            problem,
        };
        for (index, row) in rows.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|before| rows.get(before));
            let fault = wrong_time(before, row)
                .map(|problem| ("t_ms", problem))
                .or_else(|| wrong_value(row));
            if let Some((field, problem)) = fault {
                return Err(blame(Some(index + 1), Some(field), problem));
            }
        }
        match rows.last() {
            Some(last) if duration_us > last.from_us && duration_us <= MAX_T_MS * 1000 => {}
            Some(_) => {
                return Err(blame(
                    None,
                    None,
                    "expected an end after the last row, within a day".into(),
                ));
            }
            None => return Err(blame(None, None, "expected a row, found none".into())),
        }
        Ok(Self::assemble(name, rows, duration_us))
    }

    /// A link that is always the same, for tests; `from_us` is ignored. Its values are brought into range: a rate of at
    /// least 1 kbit/s, jitter of at most the delay, chances between 0 and 1.
    pub fn constant(row: Row) -> Self {
        let chance = |p: f64| if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) };
        let delay_us = row.delay_us.min(MAX_WAIT_MS * 1000);
        let row = Row {
            from_us: 0,
            rate_kbps: row.rate_kbps.clamp(1, MAX_RATE_KBPS as u32),
            queue_ms: row.queue_ms.min(MAX_WAIT_MS as u32),
            delay_us,
            jitter_us: row.jitter_us.min(delay_us),
            loss_good: chance(row.loss_good),
            loss_bad: chance(row.loss_bad),
            p_gb: chance(row.p_gb),
            p_bg: chance(row.p_bg),
            up: row.up,
        };
        Self::assemble("constant", vec![row], 60_000_000)
    }

    /// Takes rows that were checked: at least one, the first at 0, times increasing, rates above 0.
    fn assemble(name: &str, rows: Vec<Row>, duration_us: u64) -> Self {
        let ends = rows.iter().skip(1).map(|row| row.from_us).chain([duration_us]);
        let mut carried = Vec::with_capacity(rows.len());
        let mut sum = 0u128;
        for (row, end) in rows.iter().zip(ends) {
            carried.push(sum);
            sum += u128::from(row.rate_kbps) * u128::from(end - row.from_us);
        }
        Self {
            name: name.to_owned(),
            rows,
            duration_us,
            carried,
            carried_all: sum,
        }
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rows, without the one that ends the profile.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// After how many microseconds it repeats; never 0.
    pub fn duration_us(&self) -> u64 {
        self.duration_us
    }

    /// The conditions `us` microseconds after the profile began for the first time.
    pub fn at(&self, us: u64) -> &Row {
        let within = us % self.duration_us;
        let index = self.rows.partition_point(|row| row.from_us <= within);
        // The first row begins at 0, so the index is at least 1.
        &self.rows[index.saturating_sub(1)]
    }

    /// How much the bottleneck can carry in the first `us` microseconds, in thousandths of a bit.
    pub fn carried(&self, us: u64) -> u128 {
        let within = us % self.duration_us;
        let index = self
            .rows
            .partition_point(|row| row.from_us <= within)
            .saturating_sub(1);
        let row = &self.rows[index];
        u128::from(us / self.duration_us) * self.carried_all
            + self.carried[index]
            + u128::from(row.rate_kbps) * u128::from(within - row.from_us)
    }

    /// The first microsecond by which the bottleneck can have carried `amount` thousandths of a bit: the inverse of
    /// [`Profile::carried`], rounded up.
    pub fn carried_by(&self, amount: u128) -> u64 {
        let within = amount % self.carried_all;
        let index = self
            .carried
            .partition_point(|sum| *sum <= within)
            .saturating_sub(1);
        let row = &self.rows[index];
        let in_row = (within - self.carried[index]).div_ceil(u128::from(row.rate_kbps));
        let us = (amount / self.carried_all)
            .saturating_mul(u128::from(self.duration_us))
            .saturating_add(u128::from(row.from_us) + in_row);
        u64::try_from(us).unwrap_or(u64::MAX)
    }

    /// The most bytes of IP packets that one direction holds at a time: what waits before the bottleneck and what is on
    /// its way behind it, with one packet of `largest` bytes over the brim.
    pub fn most_in_flight(&self, largest: usize) -> u64 {
        // Milliseconds at kbit/s are bits.
        let of = |ms: u64, rate: u32| (ms * u64::from(rate)).div_ceil(8);
        let queued = self
            .rows
            .iter()
            .map(|row| of(u64::from(row.queue_ms), row.rate_kbps))
            .max()
            .unwrap_or(0);
        let rate = self.rows.iter().map(|row| row.rate_kbps).max().unwrap_or(0);
        let travel = self
            .rows
            .iter()
            .map(|row| row.delay_us + row.jitter_us)
            .max()
            .unwrap_or(0);
        queued + of(travel.div_ceil(1000), rate) + 2 * largest as u64
    }
}

/// A field and what is wrong with it; no field where the whole line is.
type Fault = (Option<&'static str>, String);

fn parse_row(line: &str) -> Result<Row, Fault> {
    let fields: Vec<&str> = line.splitn(COLUMNS.len() + 1, ',').collect();
    let fields: [&str; COLUMNS.len()] = fields.try_into().map_err(|_| {
        let count = line.split(',').count();
        (
            None,
            format!(
                "expected {} fields, found {count}: {}",
                COLUMNS.len(),
                quoted(line)
            ),
        )
    })?;
    let [t, rate, queue, delay, jitter, loss_good, loss_bad, p_gb, p_bg, up] = fields;
    let row = Row {
        from_us: whole_number("t_ms", t, 0, MAX_T_MS)? * 1000,
        rate_kbps: whole_number("rate_kbps", rate, 1, MAX_RATE_KBPS)? as u32,
        queue_ms: whole_number("queue_ms", queue, 0, MAX_WAIT_MS)? as u32,
        delay_us: whole_number("delay_ms", delay, 0, MAX_WAIT_MS)? * 1000,
        jitter_us: whole_number("jitter_ms", jitter, 0, MAX_WAIT_MS)? * 1000,
        loss_good: chance("loss_good", loss_good)?,
        loss_bad: chance("loss_bad", loss_bad)?,
        p_gb: chance("p_gb", p_gb)?,
        p_bg: chance("p_bg", p_bg)?,
        up: match up {
            "0" => false,
            "1" => true,
            _ => return Err((Some("up"), format!("expected 0 or 1, found {}", quoted(up)))),
        },
    };
    match wrong_value(&row) {
        Some((field, problem)) => Err((Some(field), problem)),
        None => Ok(row),
    }
}

fn whole_number(field: &'static str, text: &str, least: u64, most: u64) -> Result<u64, Fault> {
    // `parse` alone would take a plus sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if digits { text.parse().ok() } else { None };
    value
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| {
            (
                Some(field),
                format!(
                    "expected a whole number from {least} to {most}, found {}",
                    quoted(text)
                ),
            )
        })
}

fn chance(field: &'static str, text: &str) -> Result<f64, Fault> {
    // `parse` alone would take "inf", "1e-3" and "+.5".
    let plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: Option<f64> = if plain { text.parse().ok() } else { None };
    value.filter(|value| (0.0..=1.0).contains(value)).ok_or_else(|| {
        (
            Some(field),
            format!("expected a number from 0 to 1, found {}", quoted(text)),
        )
    })
}

/// What is wrong with the time of a row that follows `before`.
fn wrong_time(before: Option<&Row>, row: &Row) -> Option<String> {
    match before {
        None if row.from_us != 0 => Some(format!(
            "expected the first row at 0, found {}",
            row.from_us / 1000
        )),
        Some(before) if row.from_us <= before.from_us => {
            let (last, found) = (before.from_us / 1000, row.from_us / 1000);
            Some(format!(
                "expected a time after the row before, which has {last}, found {found}"
            ))
        }
        _ => None,
    }
}

/// What is wrong with the values of a row, each for itself and together.
fn wrong_value(row: &Row) -> Option<(&'static str, String)> {
    let longest = MAX_WAIT_MS * 1000;
    if row.rate_kbps == 0 || u64::from(row.rate_kbps) > MAX_RATE_KBPS {
        return Some((
            "rate_kbps",
            format!("expected 1 to {MAX_RATE_KBPS}, found {}", row.rate_kbps),
        ));
    }
    if u64::from(row.queue_ms) > MAX_WAIT_MS {
        return Some((
            "queue_ms",
            format!("expected at most {MAX_WAIT_MS}, found {}", row.queue_ms),
        ));
    }
    if row.delay_us > longest {
        return Some((
            "delay_ms",
            format!("expected at most {MAX_WAIT_MS}, found {}", row.delay_us / 1000),
        ));
    }
    if row.jitter_us > row.delay_us {
        let (jitter, delay) = (row.jitter_us / 1000, row.delay_us / 1000);
        return Some((
            "jitter_ms",
            format!("expected at most the delay_ms, which is {delay}, found {jitter}"),
        ));
    }
    let chances = [
        ("loss_good", row.loss_good),
        ("loss_bad", row.loss_bad),
        ("p_gb", row.p_gb),
        ("p_bg", row.p_bg),
    ];
    let (field, p) = chances.into_iter().find(|(_, p)| !(0.0..=1.0).contains(p))?;
    Some((field, format!("expected a number from 0 to 1, found {p}")))
}

/// Text from a file for a message: quoted, escaped, short.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

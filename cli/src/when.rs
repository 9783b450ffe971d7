//! Times on the command line: a point in time, or so long from now.
//!
//! One without a zone is meant in the zone of this machine, which the system's `date` knows with all its rules; where
//! that cannot say (no such program, an hour that the clocks skip), a zone has to be given.

use std::process::{Command, Stdio};
use std::str::FromStr;

/// What was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Milliseconds since the Unix epoch.
    At(i64),
    /// Milliseconds from now.
    In(i64),
}

impl When {
    /// As milliseconds since the Unix epoch.
    pub fn ms(self, now_ms: i64) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::In(ms) => now_ms.saturating_add(ms),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((date, clock)) = text.split_once(['T', ' '])
            && !clock.contains(['Z', '+', '-'])
            // Whether it is a time at all does not depend on the zone.
            && point_ms(&format!("{text}Z")).is_some()
        {
            return local_ms(date, clock).map(Self::At).ok_or_else(|| {
                format!(
                    "cannot tell when {text} is in the zone of this machine: add one, such as Z or +08:00"
                )
            });
        }
        let parsed = match text.strip_prefix('+') {
            Some(span) => span_ms(span).map(Self::In),
            None => point_ms(text).map(Self::At),
        };
        parsed.ok_or_else(|| {
            "expected a time such as 2026-02-05T14:00+08:00 or 2026-02-05 06:00:30Z (without a zone: that of this \
             machine), or from now: +30m, +4h, +2d"
                .to_owned()
        })
    }
}

/// A time in the zone of this machine; both parts are digits and separators alone.
fn local_ms(date: &str, clock: &str) -> Option<i64> {
    let output = Command::new("date")
        .args(["-d", &format!("{date} {clock}"), "+%s"])
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let seconds: i64 = std::str::from_utf8(&output.stdout).ok()?.trim().parse().ok()?;
    seconds.checked_mul(1000)
}

fn span_ms(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let ms = match unit {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    let number = text.strip_suffix(unit)?;
    digits(number)?.checked_mul(ms)
}

/// Digits alone, so that no sign slips in.
fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn point_ms(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut parts = date.split('-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && parts.next().is_none();
    if !in_range || day < 1 || day > days_of(year, month) {
        return None;
    }
    let (clock, offset_s) = zone(rest)?;
    let mut parts = clock.split(':').map(digits);
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if hour > 23 || minute > 59 || second > 59 || parts.next().is_some() {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds - offset_s) * 1000)
}

/// Splits the zone off: `Z` or `+08:00`.
fn zone(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let at = text.find(['+', '-'])?;
    let (clock, offset) = text.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours <= 14 && minutes <= 59).then_some((clock, sign * (hours * 3600 + minutes * 60)))
}

fn days_of(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::time;

    #[test]
    fn a_time_is_read_as_it_is_printed() {
        for text in [
            "2020-02-05 14:03:22Z",
            "2024-02-29 00:00:00Z",
            "2024-12-31 23:59:59Z",
            "2100-03-01 00:00:00Z",
        ] {
            let When::At(ms) = text.parse().expect("a time") else {
                panic!("{text}");
            };
            assert_eq!(time(ms), text);
        }
    }

    #[test]
    fn zones_and_spans() {
        assert_eq!(
            "2020-02-05T22:03+08:00".parse(),
            "2020-02-05 14:03:00Z".parse::<When>()
        );
        // Without one it is the zone of this machine, whichever that is: off by whole minutes, 14 hours at most.
        let (local, utc) = (
            "2020-02-05T14:03".parse::<When>(),
            "2020-02-05 14:03:00Z".parse::<When>(),
        );
        let off = local.expect("a time").ms(0) - utc.expect("a time").ms(0);
        assert!(off % 60_000 == 0 && off.abs() <= 14 * 3_600_000, "{off}");
        assert_eq!("+4h".parse(), Ok(When::In(14_400_000)));
        assert_eq!("+90s".parse::<When>().expect("a span").ms(10_000), 100_000);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "+",
            "+4",
            "+-4h",
            "4h",
            "2026-02-30T10:00",
            "2026-13-01T10:00",
            "2026-02-05",
            "2026-02-05T24:00",
            "2026-02-05T10:00+99:00",
            "2026-02-05T10:00:00:00",
            "+99999999999999999999d",
            "2026-02-05T10:00+8",
        ] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }
}

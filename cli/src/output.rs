//! Tables for people and JSON for programs.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Prints one JSON document on one line.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::Refused(error.to_string()))?;
    show(&format!("{text}\n"))
}

/// Writes to the standard output. A reader that has gone (`| head`) is no error: the exit code still tells.
pub fn show(text: &str) -> Result<(), Failure> {
    write_all(&mut std::io::stdout().lock(), text)
}

fn write_all(output: &mut impl Write, text: &str) -> Result<(), Failure> {
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Refused(format!("cannot write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Left-aligned columns, two spaces apart, with a heading. Chinese characters are two columns wide.
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(width);
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            widths[column] = widths[column].max(width(cell));
        }
    }
    let mut text = String::new();
    let mut line = |cells: &[&str]| {
        let mut row = String::new();
        for (column, cell) in cells.iter().enumerate() {
            row.push_str(cell);
            row.extend(std::iter::repeat_n(' ', widths[column] - width(cell) + 2));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(&heading);
    for row in rows {
        line(&row.each_ref().map(String::as_str));
    }
    text
}

/// RFC 4180, with a heading, as the console writes it: a byte order mark, without which Excel takes Chinese for something
/// else, and no cell that a spreadsheet would take for a formula.
pub fn csv<const N: usize>(heading: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| csv_cell(cell)).collect();
        cells.join(",") + "\r\n"
    };
    let mut text = "\u{feff}".to_owned() + &line(&heading.map(str::to_owned));
    rows.for_each(|row| text.push_str(&line(&row)));
    text
}

fn csv_cell(cell: &str) -> String {
    let guard = if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        "'"
    } else {
        ""
    };
    let cell = &format!("{guard}{cell}");
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// Columns that the text takes on a terminal. Control characters, which no name should hold, count as none.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    match u32::from(c) {
        0..0x20 | 0x7f..0xa0 | 0x300..0x370 | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        // East Asian Width W and F (Unicode Annex 11), by block.
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// A time of day in UTC with its date, for tables: `2026-02-05 14:03:22Z`.
pub fn time(ms: i64) -> String {
    if ms <= 0 {
        return "-".to_owned();
    }
    let (days, second) = (ms.div_euclid(86_400_000), ms.div_euclid(1000).rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Days since 1970-01-01 as year, month, day of the Gregorian calendar (Hinnant, "chrono-compatible
/// low-level date algorithms").
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let month = if m < 10 { m + 3 } else { m - 9 };
    (
        year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day_of_year - (153 * m + 2) / 5 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is() {
        assert_eq!(write_all(&mut Broken(ErrorKind::BrokenPipe), "x"), Ok(()));
        let full = write_all(&mut Broken(ErrorKind::StorageFull), "x");
        assert!(matches!(full, Err(Failure::Refused(_))), "{full:?}");
    }

    #[test]
    fn columns_line_up_under_wide_characters() {
        let rows = [
            ["佛祖岭".to_owned(), "a".to_owned()],
            ["b".to_owned(), "c".to_owned()],
        ];
        assert_eq!(table(["site", "x"], &rows), "site    x\n佛祖岭  a\nb       c\n");
    }

    #[test]
    fn cells_with_commas_quotes_and_lines_are_quoted() {
        let row = ["a,b".to_owned(), "say \"x\"\n".to_owned()];
        assert_eq!(
            csv(["x", "y"], [row].into_iter()),
            "\u{feff}x,y\r\n\"a,b\",\"say \"\"x\"\"\n\"\r\n"
        );
    }

    #[test]
    fn no_cell_is_a_formula() {
        for cell in ["=HYPERLINK(A1)", "+1+cmd", "-2", "@SUM", "\t=1", "\r=1"] {
            let text = csv(["x"], [[cell.to_owned()]].into_iter());
            let cell = text
                .lines()
                .nth(1)
                .expect("a row")
                .trim_start_matches('"')
                .to_owned();
            assert!(cell.starts_with('\''), "{text:?}");
        }
    }

    #[test]
    fn times_are_read_as_utc() {
        assert_eq!(time(0), "-");
        assert_eq!(time(1_580_911_402_999), "2020-02-05 14:03:22Z");
        assert_eq!(time(1_709_164_800_000), "2024-02-29 00:00:00Z");
        assert_eq!(time(1_735_689_599_000), "2024-12-31 23:59:59Z");
    }
}

//! Bytes of a CSV file to rows with their line numbers; what the rows mean is the domain's.

use muster_domain::RawRow;
use muster_proto::command::v1::ImportError;

/// The largest file, as the schema says.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// More lines than this are refused: a tree of 10,000 sites fits many times.
const MAX_ROWS: usize = 200_000;
/// A line of more values than this is no line of a table of sites, and would cost much memory.
const MAX_FIELDS: usize = 64;

/// The header and the rows after it, or what keeps the file from being read. A byte order mark, CRLF and quoted
/// line breaks are fine; rows may be of any length (the domain says which are not).
pub fn read(bytes: &[u8]) -> Result<(Vec<String>, Vec<RawRow>), ImportError> {
    if bytes.len() > MAX_BYTES {
        return Err(error(
            1,
            format!("{} bytes", bytes.len()),
            "a file of 8 MiB at most",
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|bad| {
        let before = &bytes[..bad.valid_up_to()];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let found = format!("byte 0x{:02x}", bytes[bad.valid_up_to()]);
        error(line, found, "UTF-8 (save the table as \"CSV UTF-8\")")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    let mut lines = Lines {
        text: text.as_bytes(),
        at: 0,
        line: 1,
    };
    for record in reader.records() {
        let record = record.map_err(|bad| {
            let line = bad.position().map_or(1, csv::Position::line);
            error(
                usize::try_from(line).unwrap_or(usize::MAX),
                String::new(),
                "a line of comma-separated values",
            )
        })?;
        let begins = record.position().map_or(0, csv::Position::byte);
        let line = lines.of(usize::try_from(begins).unwrap_or(usize::MAX));
        if rows.len() > MAX_ROWS {
            return Err(error(
                usize::try_from(line).unwrap_or(usize::MAX),
                format!("more than {MAX_ROWS} lines"),
                "fewer lines",
            ));
        }
        if record.len() > MAX_FIELDS {
            let line = usize::try_from(line).unwrap_or(usize::MAX);
            return Err(error(
                line,
                format!("{} values", record.len()),
                "a line of at most 64 values",
            ));
        }
        rows.push(RawRow {
            line,
            fields: record.iter().map(str::to_owned).collect(),
        });
    }
    if rows.is_empty() {
        return Err(error(
            1,
            "an empty file".to_owned(),
            "a header line and a line for each unit and site",
        ));
    }
    let header = rows.remove(0);
    Ok((header.fields, rows))
}

/// Counts lines as an editor does: a record's position in the reader is before the empty lines that it passed over.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
}

impl Lines<'_> {
    /// The line of the first byte that is no line break, from `begins` on. Offsets come in order.
    fn of(&mut self, begins: usize) -> u32 {
        while let Some(&byte) = self.text.get(self.at) {
            if self.at >= begins && byte != b'\n' && byte != b'\r' {
                break;
            }
            self.line += u32::from(byte == b'\n');
            self.at += 1;
        }
        self.line
    }
}

fn error(line: usize, found: String, expected: &str) -> ImportError {
    ImportError {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: String::new(),
        found,
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<u32> {
        read(text).expect("read").1.iter().map(|row| row.line).collect()
    }

    #[test]
    fn lines_are_those_of_the_file() {
        assert_eq!(lines(b"a,b\n1,2\n\n3,4\n"), [2, 4]);
        assert_eq!(lines(b"a,b\r\n1,2\r\n3,4"), [2, 3]);
        assert_eq!(lines(b"a,b\n\"1\nstill\",2\n3,4\n"), [2, 4]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_column() {
        let (header, _) = read("\u{feff}external_id,kind\n".as_bytes()).expect("read");
        assert_eq!(header, ["external_id", "kind"]);
    }

    #[test]
    fn what_is_not_utf_8_is_named_with_its_line() {
        let bad = read(b"a,b\n1,2\n\xce\xe4,2\n").expect_err("refused");
        assert_eq!((bad.line, bad.found.as_str()), (3, "byte 0xce"));
        assert!(bad.expected.contains("UTF-8"));
    }

    #[test]
    fn a_line_of_very_many_values_is_refused_before_it_costs_memory() {
        let bad = read(format!("a,b\n1,2\n{}\n", ",".repeat(1000)).as_bytes()).expect_err("refused");
        assert_eq!((bad.line, bad.found.as_str()), (3, "1001 values"));
    }

    #[test]
    fn an_empty_file_is_no_import() {
        assert_eq!(read(b"").expect_err("refused").found, "an empty file");
    }
}

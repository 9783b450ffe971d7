//! What is a profile and what is not, and what is said of what is not.

use muster_linkshape::{Profile, ProfileError, Row};
use proptest::prelude::*;

const HEADER: &str = "t_ms,rate_kbps,queue_ms,delay_ms,jitter_ms,loss_good,loss_bad,p_gb,p_bg,up";
const ROW: &str = "0,8000,200,25,3,0.1,0.2,0.3,0.4,1";
const END: &str = "60000,8000,200,25,3,0.1,0.2,0.3,0.4,1";

fn parse(lines: &[&str]) -> Result<Profile, ProfileError> {
    Profile::parse("test.csv", &lines.join("\n"))
}

fn refused(lines: &[&str]) -> String {
    parse(lines).expect_err("not a profile").to_string()
}

#[test]
fn a_profile_is_read() {
    let down = "1500,1,0,0,0,0,1,1,0,0";
    let profile = parse(&[HEADER, ROW, down, END, ""]).expect("a profile");
    assert_eq!(profile.name(), "test.csv");
    assert_eq!(profile.duration_us(), 60_000_000);
    let first = Row {
        from_us: 0,
        rate_kbps: 8000,
        queue_ms: 200,
        delay_us: 25_000,
        jitter_us: 3_000,
        loss_good: 0.1,
        loss_bad: 0.2,
        p_gb: 0.3,
        p_bg: 0.4,
        up: true,
    };
    let second = Row {
        from_us: 1_500_000,
        rate_kbps: 1,
        queue_ms: 0,
        delay_us: 0,
        jitter_us: 0,
        loss_good: 0.0,
        loss_bad: 1.0,
        p_gb: 1.0,
        p_bg: 0.0,
        up: false,
    };
    assert_eq!(profile.rows(), [first, second]);
    assert_eq!(profile.at(0), &first);
    assert_eq!(profile.at(1_499_999), &first);
    assert_eq!(profile.at(1_500_000), &second);
    assert_eq!(profile.at(59_999_999), &second);
    assert_eq!(profile.at(60_000_000), &first, "it repeats");
    assert_eq!(
        profile.at(u64::MAX).rate_kbps,
        second.rate_kbps,
        "and goes on repeating"
    );
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_field() {
    let with = |row: &str| refused(&[HEADER, ROW, row, END]);
    for (row, says) in [
        (
            "x,8000,200,25,0,0,0,0,1,1",
            "line 3, t_ms: expected a whole number from 0 to 86400000, found \"x\"",
        ),
        (
            "0,8000,200,25,0,0,0,0,1,1",
            "line 3, t_ms: expected a time after the row before, which has 0, found 0",
        ),
        (
            "500,0,200,25,0,0,0,0,1,1",
            "line 3, rate_kbps: expected a whole number from 1 to 10000000, found \"0\"",
        ),
        (
            "500,+1,200,25,0,0,0,0,1,1",
            "line 3, rate_kbps: expected a whole number from 1 to 10000000, found \"+1\"",
        ),
        (
            "500,1,2.5,25,0,0,0,0,1,1",
            "line 3, queue_ms: expected a whole number from 0 to 60000, found \"2.5\"",
        ),
        (
            "500,1,2,-1,0,0,0,0,1,1",
            "line 3, delay_ms: expected a whole number from 0 to 60000, found \"-1\"",
        ),
        (
            "500,1,2,25,26,0,0,0,1,1",
            "line 3, jitter_ms: expected at most the delay_ms, which is 25, found 26",
        ),
        (
            "500,1,2,25,0,1.01,0,0,1,1",
            "line 3, loss_good: expected a number from 0 to 1, found \"1.01\"",
        ),
        (
            "500,1,2,25,0,0,inf,0,1,1",
            "line 3, loss_bad: expected a number from 0 to 1, found \"inf\"",
        ),
        (
            "500,1,2,25,0,0,0,NaN,1,1",
            "line 3, p_gb: expected a number from 0 to 1, found \"NaN\"",
        ),
        (
            "500,1,2,25,0,0,0,0,,1",
            "line 3, p_bg: expected a number from 0 to 1, found \"\"",
        ),
        (
            "500,1,2,25,0,0,0,0,1,yes",
            "line 3, up: expected 0 or 1, found \"yes\"",
        ),
        ("500,1,2", "line 3: expected 10 fields, found 3: \"500,1,2\""),
        (
            "500,1,2,25,0,0,0,0,1,1,",
            "line 3: expected 10 fields, found 11: \"500,1,2,25,0,0,0,0,1,1,\"",
        ),
        ("", "line 3: expected 10 fields, found 1: \"\""),
    ] {
        assert_eq!(with(row), format!("test.csv, {says}"));
    }
}

#[test]
fn a_text_without_its_ends_is_not_a_profile() {
    let header = format!("{HEADER:?}");
    assert_eq!(
        refused(&[]),
        format!("test.csv, line 1: expected the header {header}, found nothing")
    );
    assert_eq!(
        refused(&["t_ms"]),
        format!("test.csv, line 1: expected the header {header}, found \"t_ms\"")
    );
    assert_eq!(
        refused(&[HEADER]),
        "test.csv: expected rows after the header, found none"
    );
    assert_eq!(
        refused(&[HEADER, ROW]),
        "test.csv: expected a last row that ends the profile, found only the first"
    );
    assert_eq!(
        refused(&[HEADER, END]),
        "test.csv, line 2, t_ms: expected the first row at 0, found 60000"
    );
    let long = "x".repeat(1000);
    assert!(refused(&[HEADER, &long]).len() < 200, "messages stay short");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("no.csv");
    let error = Profile::read(&missing).expect_err("there is none").to_string();
    assert!(
        error.starts_with(&format!("{}: cannot be read: ", missing.display())),
        "{error}"
    );
    let binary = folder.path().join("binary.csv");
    std::fs::write(&binary, [0xff, 0xfe]).expect("written");
    let error = Profile::read(&binary).expect_err("not text").to_string();
    assert!(error.contains("cannot be read: "), "{error}");
}

#[test]
fn rows_made_by_hand_are_checked_as_well() {
    let row = Row::default();
    let refused = |rows, end| {
        Profile::from_rows("hand", rows, end)
            .expect_err("not a profile")
            .to_string()
    };
    assert_eq!(refused(vec![], 1), "hand: expected a row, found none");
    assert_eq!(
        refused(vec![row], 0),
        "hand: expected an end after the last row, within a day"
    );
    let late = Row {
        from_us: 5_000,
        ..row
    };
    assert_eq!(
        refused(vec![late], 9),
        "hand, line 1, t_ms: expected the first row at 0, found 5"
    );
    let slow = Row { rate_kbps: 0, ..row };
    assert_eq!(
        refused(vec![slow], 9),
        "hand, line 1, rate_kbps: expected 1 to 10000000, found 0"
    );
    let odd = Row {
        from_us: 10,
        loss_bad: f64::NAN,
        ..row
    };
    assert_eq!(
        refused(vec![row, odd], 99),
        "hand, line 2, loss_bad: expected a number from 0 to 1, found NaN"
    );
    let wild = Profile::constant(Row {
        rate_kbps: 0,
        jitter_us: 9,
        delay_us: 5,
        p_gb: 7.0,
        loss_bad: f64::NAN,
        ..row
    });
    let tame = Row {
        rate_kbps: 1,
        jitter_us: 5,
        delay_us: 5,
        p_gb: 1.0,
        loss_bad: 0.0,
        ..row
    };
    assert_eq!(wild.rows(), [tame]);
}

fn any_row() -> impl Strategy<Value = Row> {
    (
        1..=2_000u64,
        1..=10_000_000u32,
        0..=60_000u32,
        0..=60_000u64,
        0..=60_000u64,
        any::<[u16; 4]>(),
        any::<bool>(),
    )
        .prop_map(
            |(gap_ms, rate_kbps, queue_ms, delay_ms, jitter_ms, chances, up)| {
                let [loss_good, loss_bad, p_gb, p_bg] = chances.map(|c| f64::from(c) / 65535.0);
                let (delay_us, jitter_us) = (delay_ms * 1000, jitter_ms.min(delay_ms) * 1000);
                // `from_us` is the gap to the row before, for now.
                let from_us = gap_ms * 1000;
                Row {
                    from_us,
                    rate_kbps,
                    queue_ms,
                    delay_us,
                    jitter_us,
                    loss_good,
                    loss_bad,
                    p_gb,
                    p_bg,
                    up,
                }
            },
        )
}

/// Rows at increasing times from 0, and the end.
fn any_rows() -> impl Strategy<Value = (Vec<Row>, u64)> {
    prop::collection::vec(any_row(), 1..20).prop_map(|mut rows| {
        let mut time = 0;
        for row in &mut rows {
            time += std::mem::replace(&mut row.from_us, time);
        }
        (rows, time)
    })
}

fn line(row: &Row) -> String {
    let Row {
        rate_kbps,
        queue_ms,
        loss_good,
        loss_bad,
        p_gb,
        p_bg,
        ..
    } = row;
    let [from, delay, jitter] = [row.from_us, row.delay_us, row.jitter_us].map(|us| us / 1000);
    let up = u8::from(row.up);
    format!("{from},{rate_kbps},{queue_ms},{delay},{jitter},{loss_good},{loss_bad},{p_gb},{p_bg},{up}\n")
}

fn text((rows, end): &(Vec<Row>, u64)) -> String {
    let last = rows.last().map(|row| Row {
        from_us: *end,
        ..*row
    });
    let lines: String = rows.iter().chain(&last).map(line).collect();
    format!("{HEADER}\n{lines}")
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>(), rest in "[0-9,.\\-a-z\r\n]{0,300}") {
        let _ = Profile::parse("fuzz", &text);
        let _ = Profile::parse("fuzz", &format!("{HEADER}\n{text}"));
        let _ = Profile::parse("fuzz", &format!("{HEADER}\n{ROW}\n{rest}"));
    }

    #[test]
    fn what_is_written_is_what_is_read(rows in any_rows()) {
        let profile = Profile::parse("round", &text(&rows)).expect("a profile");
        prop_assert_eq!(profile.duration_us(), rows.1);
        prop_assert_eq!(profile.rows(), &rows.0[..]);
        prop_assert_eq!(&profile, &Profile::from_rows("round", rows.0, rows.1).expect("a profile"));
    }

    #[test]
    fn a_changed_byte_is_still_a_profile_or_is_named(rows in any_rows(), at in any::<prop::sample::Index>(), to in 0..128u8) {
        let mut bytes = text(&rows).into_bytes();
        let index = at.index(bytes.len());
        bytes[index] = to;
        let text = String::from_utf8(bytes).expect("ASCII");
        match Profile::parse("fuzz", &text) {
            Ok(profile) => {
                let times: Vec<u64> = profile.rows().iter().map(|row| row.from_us).collect();
                prop_assert!(times[0] == 0 && times.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(profile.rows().iter().all(|row| row.rate_kbps > 0 && row.jitter_us <= row.delay_us));
            }
            // A line break more or less moves the fault, by one line at most.
            Err(error) => prop_assert!(error.line.is_none_or(|line| line >= 1 && line <= text.lines().count().max(1))),
        }
    }

    #[test]
    fn what_the_bottleneck_carries_is_the_sum_over_time(rows in any_rows(), us in 0..400_000_000u64, more in 0..10_000_000u64) {
        let profile = Profile::from_rows("sum", rows.0, rows.1).expect("a profile");
        let carried = profile.carried(us);
        // Monotonous, at the rate in force.
        let step = profile.carried(us + 1) - carried;
        prop_assert_eq!(step, u128::from(profile.at(us).rate_kbps));
        prop_assert!(profile.carried(us + more) >= carried + u128::from(more));
        // And its inverse is the first microsecond by which it is carried.
        prop_assert_eq!(profile.carried_by(carried), us);
        prop_assert_eq!(profile.carried_by(carried + 1), us + 1);
        prop_assert!(profile.carried_by(u128::MAX) == u64::MAX);
    }
}

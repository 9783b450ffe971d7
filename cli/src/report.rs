//! What a meeting leaves behind: the result of a roll call and the attendance, as tables, JSON and CSV.

use std::collections::BTreeMap;

use muster_proto::command::v1::{
    Attendance, GetAttendanceRequest, ListRollCallsRequest, RollCall, RollCallEntry, RollCallResult, Site,
};

use crate::args::{Attendance as AttendanceArgs, Form};
use crate::client::Client;
use crate::failure::Failure;
use crate::json::{self, word_of};
use crate::meeting::{id_of, names_of, reason_name, site_names};
use crate::output::{csv, print_json, show, table, time};

type Names = BTreeMap<String, Site>;

/// `muster roll-call result`.
pub async fn roll_call(
    client: &Client,
    meeting: Option<String>,
    number: Option<u32>,
    as_csv: bool,
    form: Form,
) -> Result<(), Failure> {
    let meeting = id_of(client, meeting).await?;
    let request = ListRollCallsRequest {
        meeting: meeting.clone(),
    };
    let calls = client
        .log()
        .list_roll_calls(request)
        .await?
        .into_inner()
        .roll_calls;
    let call = choose(calls, number).ok_or_else(|| {
        let which = number.map_or_else(|| "no roll call".to_owned(), |n| format!("no roll call {n}"));
        Failure::Refused(format!("{which} in meeting {meeting}"))
    })?;
    if as_csv {
        return show(&roll_call_csv(&call, &site_names(client).await?));
    }
    match form {
        Form::Json => print_json(&json::roll_call(&call)),
        Form::Table => show(&roll_call_table(&call, &site_names(client).await?)),
    }
}

fn choose(calls: Vec<RollCall>, number: Option<u32>) -> Option<RollCall> {
    match number {
        Some(number) => calls.into_iter().find(|call| call.number == number),
        None => calls.into_iter().max_by_key(|call| call.number),
    }
}

fn seen(entry: &RollCallEntry) -> &'static str {
    match (entry.seen_up, entry.seen_down) {
        (true, true) => "both ways",
        (true, false) => "up alone",
        (false, true) => "down alone",
        (false, false) => "-",
    }
}

fn roll_call_table(call: &RollCall, names: &Names) -> String {
    let rows: Vec<_> = call
        .entries
        .iter()
        .map(|entry| {
            let (en, zh) = names_of(names, &entry.site);
            [
                entry.site.clone(),
                en,
                zh,
                word_of!(entry.result(), "ROLL_CALL_RESULT_"),
                seen(entry).to_owned(),
                entry.acknowledged_by.clone(),
                time(entry.answered_ms),
                reason_name(entry.reason()).to_owned(),
            ]
        })
        .collect();
    let heading = [
        "site", "name", "名称", "result", "media", "heard by", "at", "reason",
    ];
    let mut text = table(heading, &rows);
    let count = |result| {
        call.entries
            .iter()
            .filter(|entry| entry.result() == result)
            .count()
    };
    text.push_str(&format!(
        "roll call {} by {}, {}: {} of {} present, {} absent, {} unreachable, {} broken\n",
        call.number,
        call.by,
        time(call.started_ms),
        count(RollCallResult::Present),
        call.entries.len(),
        count(RollCallResult::Absent),
        count(RollCallResult::Unreachable),
        count(RollCallResult::Broken),
    ));
    text
}

fn roll_call_csv(call: &RollCall, names: &Names) -> String {
    let rows = call.entries.iter().map(|entry| {
        let (en, zh) = names_of(names, &entry.site);
        [
            call.number.to_string(),
            entry.site.clone(),
            zh,
            en,
            word_of!(entry.result(), "ROLL_CALL_RESULT_"),
            entry.seen_up.to_string(),
            entry.seen_down.to_string(),
            entry.acknowledged_by.clone(),
            moment(entry.called_ms),
            moment(entry.answered_ms),
            reason_name(entry.reason()).to_owned(),
        ]
    });
    let heading = [
        "roll_call",
        "site",
        "name_zh",
        "name_en",
        "result",
        "seen_up",
        "seen_down",
        "acknowledged_by",
        "called",
        "answered",
        "reason",
    ];
    csv(heading, rows)
}

/// As [`time`], and nothing where it is not known.
fn moment(ms: i64) -> String {
    if ms > 0 { time(ms) } else { String::new() }
}

/// `muster attendance`.
pub async fn attendance(client: &Client, options: AttendanceArgs, form: Form) -> Result<(), Failure> {
    let meeting = id_of(client, options.meeting).await?;
    let request = GetAttendanceRequest { meeting };
    let all = client
        .log()
        .get_attendance(request)
        .await?
        .into_inner()
        .attendances;
    if options.csv {
        return show(&attendance_csv(&all, &site_names(client).await?));
    }
    match form {
        Form::Json => print_json(&json::list(&all, json::attendance)),
        Form::Table => show(&attendance_table(&all, &site_names(client).await?)),
    }
}

fn attendance_table(all: &[Attendance], names: &Names) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|attendance| {
            let (en, zh) = names_of(names, &attendance.site);
            let spans = &attendance.on_air;
            let last = match spans.last() {
                Some(span) if span.to_ms == 0 => "still".to_owned(),
                Some(span) => time(span.to_ms),
                None => "never".to_owned(),
            };
            [
                attendance.site.clone(),
                en,
                zh,
                spans
                    .first()
                    .map_or_else(|| "-".to_owned(), |span| time(span.from_ms)),
                last,
                span_of(attendance.total_ms),
                spans.len().saturating_sub(1).to_string(),
            ]
        })
        .collect();
    table(
        ["site", "name", "名称", "from", "until", "on air for", "gaps"],
        &rows,
    )
}

/// A line for each time on air and for each gap between two of them; one for a site that never came.
fn attendance_csv(all: &[Attendance], names: &Names) -> String {
    let rows = all.iter().flat_map(|attendance| {
        let (en, zh) = names_of(names, &attendance.site);
        let line = |what: &str, from_ms: i64, to_ms: i64| {
            let seconds = match (from_ms, to_ms) {
                (0, _) | (_, 0) => String::new(),
                (from, to) => ((to - from).max(0) / 1000).to_string(),
            };
            [
                attendance.site.clone(),
                zh.clone(),
                en.clone(),
                what.to_owned(),
                moment(from_ms),
                moment(to_ms),
                seconds,
            ]
        };
        let mut lines = Vec::new();
        let mut left = 0;
        for span in &attendance.on_air {
            if left > 0 {
                lines.push(line("gap", left, span.from_ms));
            }
            lines.push(line("on_air", span.from_ms, span.to_ms));
            left = span.to_ms;
        }
        if lines.is_empty() {
            lines.push(line("never", 0, 0));
        }
        lines
    });
    csv(
        ["site", "name_zh", "name_en", "what", "from", "until", "seconds"],
        rows,
    )
}

/// A span of time: `1:02:03`.
fn span_of(ms: i64) -> String {
    let s = ms.max(0) / 1000;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::command::v1::{Span, SummonsReason};

    fn entry(site: &str, result: RollCallResult) -> RollCallEntry {
        RollCallEntry {
            site: site.to_owned(),
            result: result.into(),
            seen_up: true,
            ..RollCallEntry::default()
        }
    }

    fn call() -> RollCall {
        let mut away = entry("B", RollCallResult::Unreachable);
        away.reason = SummonsReason::Offline.into();
        RollCall {
            number: 2,
            by: "wang".to_owned(),
            entries: vec![entry("A", RollCallResult::Present), away],
            ..RollCall::default()
        }
    }

    #[test]
    fn a_roll_call_counts_each_result_and_keeps_apart_what_is_unreachable() {
        let text = roll_call_table(&call(), &Names::new());
        assert!(
            text.contains("1 of 2 present, 0 absent, 1 unreachable, 0 broken"),
            "{text}"
        );
        assert!(text.contains("up alone"), "{text}");
        let csv = roll_call_csv(&call(), &Names::new());
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2], "2,B,,,unreachable,true,false,,,,offline");
    }

    #[test]
    fn the_last_roll_call_is_shown_unless_another_is_named() {
        let first = RollCall {
            number: 1,
            ..RollCall::default()
        };
        let number = |chosen: Option<RollCall>| chosen.map(|call| call.number);
        assert_eq!(number(choose(vec![call(), first.clone()], None)), Some(2));
        assert_eq!(number(choose(vec![call(), first], Some(1))), Some(1));
        assert_eq!(number(choose(vec![call()], Some(9))), None);
    }

    #[test]
    fn attendance_has_its_gaps_and_says_who_is_still_there() {
        let span = |from_ms, to_ms| Span { from_ms, to_ms };
        let all = [Attendance {
            site: "A".to_owned(),
            on_air: vec![
                span(1_580_911_402_000, 1_580_911_462_000),
                span(1_580_911_500_000, 0),
            ],
            total_ms: 3_723_000,
        }];
        let table = attendance_table(&all, &Names::new());
        assert!(
            table.contains("still") && table.contains("1:02:03") && table.contains("  1\n"),
            "{table}"
        );
        let csv = attendance_csv(&all, &Names::new());
        let lines: Vec<&str> = csv.lines().skip(1).collect();
        let expected = [
            "A,,,on_air,2020-02-05 14:03:22Z,2020-02-05 14:04:22Z,60",
            "A,,,gap,2020-02-05 14:04:22Z,2020-02-05 14:05:00Z,38",
            "A,,,on_air,2020-02-05 14:05:00Z,,",
        ];
        assert_eq!(lines, expected);
    }
}

//! What the page reads twice a second, as JSON.

use muster_proto::command::v1::{HandInReportRequest, ReportKind};
use serde::Serialize;

use crate::outbox::{Contents, Done, Outcome};
use crate::recorder::{Recording, Told};
use crate::status::Status;

use super::Sources;

/// The newest of those that wait; the others are counted.
const SHOWN: usize = 50;

#[derive(Serialize)]
pub struct State {
    /// By this box's clock, so that the page can count from it.
    now_ms: i64,
    status: Status,
    source: String,
    /// A browser is the camera, and connected.
    browser: bool,
    reports: Reports,
    /// The roll call in which the site is called is answered already.
    answered: bool,
    /// Since when the local camera is recorded; none while it is not.
    recording: Option<i64>,
    /// Newest first.
    recordings: Vec<Recording>,
    /// Why the disk takes no recording.
    recording_fault: Option<String>,
}

#[derive(Serialize)]
struct Reports {
    /// They can be kept.
    able: bool,
    /// How many wait.
    count: usize,
    /// Oldest first, as `recent`.
    waiting: Vec<Report>,
    recent: Vec<Report>,
}

#[derive(Serialize)]
struct Report {
    id: String,
    /// `words` or `answer`.
    kind: &'static str,
    text: String,
    written_ms: i64,
    /// When the control plane had it first; 0: not yet, or never.
    sent_ms: i64,
    /// Why it is never taken.
    refused: Option<String>,
}

impl Report {
    fn of(report: &HandInReportRequest, outcome: Option<&Outcome>) -> Self {
        let (sent_ms, refused) = match outcome {
            Some(Outcome::Sent(sent_ms)) => (*sent_ms, None),
            Some(Outcome::Refused(reason)) => (0, Some(reason.clone())),
            None => (0, None),
        };
        Self {
            id: report.id.clone(),
            kind: if is_answer(report) { "answer" } else { "words" },
            text: report.text.clone(),
            written_ms: report.written_ms,
            sent_ms,
            refused,
        }
    }
}

fn is_answer(report: &HandInReportRequest) -> bool {
    report.kind() == ReportKind::RollCallAnswer
}

/// Everything at this moment.
pub fn of(sources: &Sources, now_ms: i64) -> State {
    let status = sources.status.borrow().clone();
    let contents = sources
        .outbox
        .as_ref()
        .map(|outbox| outbox.subscribe().borrow().clone());
    let able = contents.is_some();
    let Contents { waiting, recent } = contents.unwrap_or_default();
    let answers = |report: &HandInReportRequest| {
        is_answer(report)
            && status.meeting.as_deref() == Some(report.meeting.as_str())
            && report.roll_call == status.notice.roll_call
            && report.written_ms >= status.notice.called_ms
    };
    let answered =
        waiting.iter().any(|report| answers(report)) || recent.iter().any(|done| answers(&done.report));
    let told = sources.recordings.as_ref().map(|told| told.borrow().clone());
    let Told {
        since_ms,
        list,
        fault,
    } = told.unwrap_or_default();
    let newest = waiting.len().saturating_sub(SHOWN);
    State {
        now_ms,
        source: sources.source.clone(),
        browser: sources
            .desk
            .as_ref()
            .is_some_and(|desk| desk.wanted().session != 0),
        reports: Reports {
            able,
            count: waiting.len(),
            waiting: waiting[newest..]
                .iter()
                .map(|report| Report::of(report, None))
                .collect(),
            recent: recent
                .iter()
                .map(|Done { report, outcome }| Report::of(report, Some(outcome)))
                .collect(),
        },
        answered,
        recording: since_ms,
        recordings: list.into_iter().rev().take(SHOWN).collect(),
        recording_fault: fault,
        status,
    }
}

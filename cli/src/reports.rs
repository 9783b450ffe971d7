//! What the front line raises (上报): listed for whoever sees the site, and sent by a site's link.

use muster_proto::command::v1::{HandInReportRequest, ListReportsRequest, Report, ReportKind};
use serde_json::json;

use crate::act::{by_link, endpoint};
use crate::args::{Access, Form};
use crate::client::Client;
use crate::failure::Failure;
use crate::json;
use crate::meeting::site_names;
use crate::output::{print_json, show, table, time};
use crate::session::now_ms;

/// What the control plane gives at once.
const PAGE: u32 = 500;

/// `muster report list`.
pub async fn list(
    client: &Client,
    site: String,
    unit: String,
    limit: u32,
    form: Form,
) -> Result<(), Failure> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut reports: Vec<Report> = Vec::new();
    let mut page = String::new();
    while reports.len() < wanted {
        let left = u32::try_from(wanted - reports.len()).unwrap_or(PAGE);
        let request = ListReportsRequest {
            site: site.clone(),
            unit: unit.clone(),
            limit: left.min(PAGE),
            page,
        };
        let answer = client.reports().list_reports(request).await?.into_inner();
        reports.extend(answer.reports);
        page = answer.next_page;
        if page.is_empty() {
            break;
        }
    }
    if form == Form::Json {
        return print_json(&json::list(&reports, json::report));
    }
    let names = site_names(client).await?;
    let rows: Vec<_> = reports
        .iter()
        .map(|report| {
            let name = names
                .get(&report.site)
                .map_or_else(String::new, |site| site.name_zh.clone());
            [
                time(report.written_ms),
                time(report.received_ms),
                report.site.clone(),
                name,
                words(report),
            ]
        })
        .collect();
    show(&table(["written", "received", "site", "", "report"], &rows))
}

fn words(report: &Report) -> String {
    match report.kind() {
        ReportKind::RollCallAnswer => format!(
            "(answered roll call {} of meeting {})",
            report.roll_call,
            report.meeting.escape_debug()
        ),
        ReportKind::Words | ReportKind::Unspecified => report.text.escape_debug().to_string(),
    }
}

/// `muster report send`.
pub async fn send(
    access: &Access,
    link: &str,
    text: String,
    id: Option<String>,
    form: Form,
) -> Result<(), Failure> {
    let id = id.unwrap_or_else(|| format!("cli-{:032x}", rand::random::<u128>()));
    let request = HandInReportRequest {
        id: id.clone(),
        kind: ReportKind::Words.into(),
        text,
        written_ms: now_ms(),
        ..HandInReportRequest::default()
    };
    let answer = endpoint(access, link).await?.hand_in_report(request).await;
    let received_ms = answer.map_err(by_link)?.into_inner().received_ms;
    match form {
        Form::Json => print_json(&json!({ "id": id, "received_ms": received_ms })),
        Form::Table => show(&format!("received at {}\n", time(received_ms))),
    }
}

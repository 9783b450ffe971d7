//! Reports of sites (上报): handed in by endpoints, listed for whoever sees the site.
//!
//! Invariants: a report is stored once, with its event in the unit's stream, and answered only then; a site that hands in
//! too many is told to come later, and nothing of it is lost. Whether an answer to a roll call counts there is for the
//! meeting to decide.

use super::scope::Scope;
use crate::bus::Hint;
use crate::convert::report_from_wire;
use crate::core::Core;
use crate::status::Failure;
use crate::store::{ReportPlace, ReportRow, StoreError};
use crate::units::By;
use muster_domain::{Action, Order, Record, Refusal, ReportKind, SiteId, SiteReport, Target, UnitId};
use muster_proto::command::v1 as pb;
use pb::report_service_server::ReportService;
use prost::Message as _;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Reports that a site may hand in within an hour: twice what a box can keep.
const MOST_AN_HOUR: i64 = 2000;
const HOUR_MS: i64 = 3_600_000;
/// Reports in one answer.
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 500;
/// Rows read at once, and looked through for one answer.
const ROWS: usize = 200;
const MAX_ROWS: usize = 4000;

pub struct ReportCalls(pub Arc<Core>);

fn decoded(row: &ReportRow) -> Result<pb::Report, StoreError> {
    pb::Report::decode(row.body.as_slice())
        .map_err(|error| StoreError::Corrupt(format!("report {} of {}: {error}", row.id, row.site)))
}

/// Takes a report in, unless it is there already. Returns it as it is stored.
pub async fn take(core: &Core, report: SiteReport) -> Result<pb::Report, Failure> {
    let (site, id) = (report.site.clone(), report.id.clone());
    if let Some(row) = core.store.report(&site, &id).await? {
        return Ok(decoded(&row)?);
    }
    let since = core.clock.now_ms().saturating_sub(HOUR_MS);
    if core.store.reports_since(&site, since).await? >= MOST_AN_HOUR {
        return Err(Failure::Busy);
    }
    let unit = core.tree().site(&site).map(|known| known.unit.clone());
    let unit = unit.ok_or_else(|| Refusal::UnknownSite(site.to_string()))?;
    let actor = format!("site:{site}");
    let by = By {
        actor: &actor,
        cause: "hand_in_report",
    };
    let order = Order::Record(Record::Reported(report));
    match core.units.act(&unit, by, order, Vec::new()).await {
        // It was handed in twice at once.
        Ok(_) | Err(Failure::Store(StoreError::Conflict(_))) => {}
        Err(failure) => return Err(failure),
    }
    let row = core.store.report(&site, &id).await?.ok_or(Failure::Busy)?;
    let stored = decoded(&row)?;
    metrics::counter!("muster_reports_taken").increment(1);
    core.bus.publish(Hint::Report(Arc::new(stored.clone())));
    Ok(stored)
}

/// What a site hands in, checked.
pub fn checked(site: SiteId, request: pb::HandInReportRequest) -> Result<SiteReport, Failure> {
    let report = report_from_wire(site, request).map_err(Failure::BadRequest)?;
    report.check()?;
    Ok(report)
}

/// Whether this answer is to the roll call that goes on in its meeting.
pub fn is_to_present_roll_call(core: &Core, kind: &ReportKind) -> bool {
    let ReportKind::RollCallAnswer { meeting, roll_call } = kind else {
        return false;
    };
    let view = core.meetings.view(meeting);
    let present = view.as_ref().and_then(|view| view.roll_call());
    present.is_some_and(|present| present.is_on() && present.number == *roll_call)
}

fn place_of(row: &ReportRow) -> ReportPlace {
    ReportPlace {
        received_ms: row.received_ms,
        site: row.site.clone(),
        id: row.id.clone(),
    }
}

/// A place as it stands in an answer: ids hold no slash.
fn page_of(place: &ReportPlace) -> String {
    format!("{}/{}/{}", place.received_ms, place.site, place.id)
}

fn place_from(page: &str) -> Result<Option<ReportPlace>, Failure> {
    if page.is_empty() {
        return Ok(None);
    }
    let mut parts = page.splitn(3, '/');
    let place = (|| {
        Some(ReportPlace {
            received_ms: parts.next()?.parse().ok()?,
            site: parts.next()?.to_owned(),
            id: parts.next()?.to_owned(),
        })
    })();
    place
        .map(Some)
        .ok_or_else(|| Failure::BadRequest("page: expected next_page of the answer before".to_owned()))
}

#[tonic::async_trait]
impl ReportService for ReportCalls {
    async fn list_reports(
        &self,
        request: Request<pb::ListReportsRequest>,
    ) -> Result<Response<pb::ListReportsResponse>, Status> {
        let core = &self.0;
        let caller = core.caller(&request).await?;
        let pb::ListReportsRequest {
            site,
            unit,
            limit,
            page,
        } = request.into_inner();
        let mut only = Vec::new();
        if !unit.is_empty() {
            let unit = UnitId::new(unit).map_err(Failure::from)?;
            core.authorize(&caller, Action::View, &Target::Unit(unit.clone()))?;
            only.push(unit);
        }
        let wanted = match usize::try_from(limit).unwrap_or(MAX_PAGE) {
            0 => DEFAULT_PAGE,
            limit => limit.min(MAX_PAGE),
        };
        let mut after = place_from(&page)?;
        let tree = core.tree();
        let scope = Scope::of(&caller.actor, &tree, &only, core.clock.now());
        let site = (!site.is_empty()).then_some(site.as_str());
        let mut reports = Vec::new();
        for _ in 0..MAX_ROWS / ROWS {
            let rows = core
                .store
                .reports(site, after.as_ref(), i64::try_from(ROWS).unwrap_or(i64::MAX))
                .await?;
            let are_all = rows.len() < ROWS;
            for row in &rows {
                after = Some(place_of(row));
                if scope.has_site(&tree, &row.site) {
                    reports.push(decoded(row)?);
                }
                if reports.len() == wanted {
                    let next_page = after.as_ref().map(page_of).unwrap_or_default();
                    return Ok(Response::new(pb::ListReportsResponse { reports, next_page }));
                }
            }
            if are_all {
                let next_page = String::new();
                return Ok(Response::new(pb::ListReportsResponse { reports, next_page }));
            }
        }
        let next_page = after.as_ref().map(page_of).unwrap_or_default();
        Ok(Response::new(pb::ListReportsResponse { reports, next_page }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_and_read_again_and_nothing_else_is_one() {
        let place = ReportPlace {
            received_ms: 5,
            site: "WH-S1".into(),
            id: "r.1".into(),
        };
        assert_eq!(place_from(&page_of(&place)).expect("read"), Some(place));
        assert_eq!(place_from("").expect("read"), None);
        for bad in ["5", "5/a", "x/a/b", "/a/b"] {
            assert!(matches!(place_from(bad), Err(Failure::BadRequest(_))), "{bad}");
        }
    }
}

//! Reports of sites over real gRPC: stored once, seen by whoever sees the site, listed in pages, logged, and bounded.

use crate::admin::{code_of, now_ms, someone};
use crate::replicas::Cluster;
use crate::support::{Endpoint, Person, attached, small};
use muster_proto::command::v1 as pb;
use pb::report_service_client::ReportServiceClient;
use pb::watch_response::Event;
use prost::Message as _;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::{Code, Status, Streaming};

pub fn words(id: &str, text: &str) -> pb::HandInReportRequest {
    pb::HandInReportRequest {
        id: id.into(),
        text: text.into(),
        written_ms: 7,
        ..Default::default()
    }
}

async fn list(person: &Person, request: pb::ListReportsRequest) -> Result<pb::ListReportsResponse, Status> {
    let mut reports = ReportServiceClient::new(person.channel.clone());
    Ok(reports.list_reports(person.request(request)).await?.into_inner())
}

async fn all(person: &Person) -> Vec<pb::Report> {
    let answer = list(person, pb::ListReportsRequest::default()).await;
    answer.expect("listed").reports
}

async fn told(stream: &mut Streaming<pb::WatchResponse>) -> pb::Report {
    let found = async {
        loop {
            let message = stream.message().await.expect("stream").expect("not over");
            if let Some(Event::Report(report)) = message.event {
                return report;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found)
        .await
        .expect("told within 10 s")
}

/// The events of a unit's stream that are reports.
async fn logged(person: &Person, unit: &str) -> Vec<(u64, pb::Report)> {
    let mut log = pb::log_service_client::LogServiceClient::new(person.channel.clone());
    let request = pb::ReadLogRequest {
        stream: format!("unit:{unit}"),
        after: 0,
    };
    let mut events = log
        .read_log(person.request(request))
        .await
        .expect("read")
        .into_inner();
    let mut reports = Vec::new();
    while let Some(read) = events.message().await.expect("stream") {
        let event = pb::UnitEvent::decode(read.payload.as_slice()).expect("an event");
        if let Some(pb::unit_event::Event::ReportTaken(taken)) = event.event {
            assert_eq!(
                (event.actor.as_str(), event.cause.as_str()),
                ("site:A1", "hand_in_report")
            );
            reports.push((read.seq, taken.report.expect("a report")));
        }
    }
    reports
}

#[tokio::test]
async fn a_report_is_stored_once_and_seen_by_whoever_sees_the_site() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let of_a = someone(&fixture, "li", pb::Role::DutyOfficer, "A").await;
    let of_b = someone(&fixture, "zhao", pb::Role::DutyOfficer, "B").await;
    let mut watch = of_a.watch(Vec::new()).await;
    let mut elsewhere = of_b.watch(Vec::new()).await;
    let mut sites = attached(&fixture, &["A1", "B1"]).await;

    let before = now_ms();
    let received = sites[0]
        .hand_in(words("r1", "水漫进地下室\n需要沙袋"))
        .await
        .expect("taken");
    let again = sites[0]
        .hand_in(words("r1", "something else"))
        .await
        .expect("the same");
    assert_eq!(received, again);
    assert!((before..=now_ms()).contains(&received));
    let report = told(&mut watch).await;
    assert_eq!(
        (
            report.site.as_str(),
            report.id.as_str(),
            report.text.as_str(),
            report.unit.as_str()
        ),
        ("A1", "r1", "水漫进地下室\n需要沙袋", "A")
    );
    assert_eq!((report.written_ms, report.received_ms), (7, received));
    assert_eq!(all(&of_a).await, std::slice::from_ref(&report));
    assert_eq!(all(&chief).await, std::slice::from_ref(&report));
    assert!(all(&of_b).await.is_empty());

    // The id is the site's own: another one may use it too.
    sites[1].hand_in(words("r1", "no light")).await.expect("taken");
    let other = told(&mut elsewhere).await;
    assert_eq!(other.site, "B1", "what A1 reported is not told there");
    assert_eq!(all(&chief).await.len(), 2);

    let events = logged(&chief, "A").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].1, report);
    assert!(events[0].0 > 0);
    // A restart finds all of it, and goes on with the streams.
    let fixture = fixture.restarted().await;
    let chief = fixture.person().await;
    let mut site = attached(&fixture, &["A1"]).await.remove(0);
    assert_eq!(
        site.hand_in(words("r1", "")).await.expect_err("empty").code(),
        Code::InvalidArgument
    );
    assert_eq!(site.hand_in(words("r1", "x")).await.expect("the same"), received);
    site.hand_in(words("r2", "y")).await.expect("taken");
    assert_eq!(all(&chief).await.len(), 3);
}

#[tokio::test]
async fn reports_are_listed_in_pages_and_only_to_who_may() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let of_b = someone(&fixture, "zhao", pb::Role::Auditor, "B").await;
    let mut sites = attached(&fixture, &["A1", "B1"]).await;
    for number in 0..7 {
        for site in &mut sites {
            site.hand_in(words(&format!("r{number}"), "x"))
                .await
                .expect("taken");
        }
    }
    let (mut seen, mut page, mut last) = (BTreeSet::new(), String::new(), i64::MAX);
    for _ in 0..5 {
        let request = pb::ListReportsRequest {
            limit: 3,
            page,
            ..Default::default()
        };
        let answer = list(&chief, request).await.expect("listed");
        for report in answer.reports {
            assert!(report.received_ms <= last, "newest first");
            last = report.received_ms;
            assert!(seen.insert((report.site, report.id)), "told once");
        }
        page = answer.next_page;
    }
    assert_eq!((seen.len(), page.as_str()), (14, ""));
    let of_unit = |unit: &str, site: &str| pb::ListReportsRequest {
        unit: unit.into(),
        site: site.into(),
        ..Default::default()
    };
    assert_eq!(
        list(&chief, of_unit("A", ""))
            .await
            .expect("listed")
            .reports
            .len(),
        7
    );
    assert_eq!(
        list(&chief, of_unit("A", "B1"))
            .await
            .expect("listed")
            .reports
            .len(),
        0
    );
    assert_eq!(
        list(&of_b, of_unit("", "")).await.expect("listed").reports.len(),
        7
    );
    assert_eq!(
        list(&of_b, of_unit("", "A1"))
            .await
            .expect("listed")
            .reports
            .len(),
        0
    );
    let outside = list(&of_b, of_unit("A", "")).await.expect_err("not theirs");
    assert_eq!(code_of(&outside), "outside_authority");
    let bad = pb::ListReportsRequest {
        page: "x".into(),
        ..Default::default()
    };
    assert_eq!(
        list(&chief, bad).await.expect_err("no page").code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn what_is_no_report_is_refused() {
    let fixture = small().await;
    let mut site = attached(&fixture, &["A1"]).await.remove(0);
    let long = "水".repeat(500);
    site.hand_in(words("r1", &long)).await.expect("500 characters");
    for bad in [
        words("r2", &format!("{long}水")),
        words("r2", "  "),
        words("r2", "a\u{7}b"),
        words("", "x"),
        words("a/b", "x"),
        pb::HandInReportRequest {
            kind: 99,
            ..words("r2", "x")
        },
        pb::HandInReportRequest {
            kind: pb::ReportKind::RollCallAnswer.into(),
            ..words("r2", "")
        },
    ] {
        let refused = site.hand_in(bad.clone()).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}");
    }
    let chief = fixture.person().await;
    assert_eq!(all(&chief).await.len(), 1);
    let mut stranger = Endpoint::attach(fixture.channel().await, &site.secret)
        .await
        .expect("attached");
    stranger.secret = "no secret".into();
    let refused = stranger.hand_in(words("r3", "x")).await.expect_err("nobody");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_report_handed_in_at_two_replicas_at_once_is_one_and_told_at_all() {
    let cluster = Cluster::start().await;
    let chief = cluster.person(0).await;
    let mut watch = chief.watch(Vec::new()).await;
    let secret = chief.site_link("A1").await;
    let mut here = Endpoint::attach(cluster.channel(1).await, &secret)
        .await
        .expect("attached");
    let mut there = Endpoint::attach(cluster.channel(2).await, &secret)
        .await
        .expect("attached");
    for number in 0..5 {
        let report = words(&format!("r{number}"), "at once");
        let (left, right) = tokio::join!(here.hand_in(report.clone()), there.hand_in(report));
        assert_eq!(left.expect("taken"), right.expect("the same"));
    }
    assert_eq!(told(&mut watch).await.text, "at once");
    assert_eq!(all(&chief).await.len(), 5);
    assert_eq!(logged(&chief, "A").await.len(), 5);
}

use crate::support::{FakeRelay, Person, SMALL, add_account, small};
use muster_identity::{connect, enrol};
use muster_proto::command::v1 as pb;
use pb::create_enrol_token_request::Target;
use pb::endpoint_service_client::EndpointServiceClient;
use pb::fleet_service_client::FleetServiceClient;
use tonic::Code;

#[tokio::test]
async fn a_street_may_not_call_another_street_and_does_not_see_it() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    add_account(fixture.dir.path(), "street-a", pb::Role::DutyOfficer, "A").await;
    let street = Person::sign_in(fixture.channel().await, "street-a").await;
    let refused = street.convene(&["A1", "B1"]).await.expect_err("outside");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("B1"), "{refused}");
    let own = street.convene(&["A1"]).await.expect("its own");
    assert_eq!(own.unit, "A");
    let tree = street
        .directory()
        .list_sites(street.request(pb::ListSitesRequest {}))
        .await
        .expect("listed");
    let seen: Vec<_> = tree.into_inner().sites.into_iter().map(|site| site.id).collect();
    assert_eq!(seen, ["A1", "A2", "A3"]);

    let district = fixture.person().await;
    let above = district.convene(&["B1"]).await.expect("convened");
    let end = pb::EndMeetingRequest {
        meeting: above.id.clone(),
    };
    let refused = street
        .meetings()
        .end_meeting(street.request(end))
        .await
        .expect_err("not theirs");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let listed = pb::ListMeetingsRequest { include_ended: true };
    let listed = street
        .meetings()
        .list_meetings(street.request(listed))
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(
        listed.meetings.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(),
        [own.id.as_str()]
    );
    let end = pb::EndMeetingRequest { meeting: own.id };
    district
        .meetings()
        .end_meeting(district.request(end))
        .await
        .expect("from above");
}

#[tokio::test]
async fn a_role_that_lacks_an_action_is_refused_and_it_is_recorded() {
    let fixture = small().await;
    add_account(fixture.dir.path(), "audit", pb::Role::Auditor, "D").await;
    let auditor = Person::sign_in(fixture.channel().await, "audit").await;
    assert_eq!(
        auditor.convene(&["A1"]).await.expect_err("refused").code(),
        Code::PermissionDenied
    );
    assert_eq!(
        auditor
            .import(SMALL.as_bytes())
            .await
            .expect_err("refused")
            .code(),
        Code::PermissionDenied
    );
    let store = muster_control_plane::store::Store::open(fixture.dir.path())
        .await
        .expect("store");
    let mut rows = Vec::new();
    for _ in 0..100 {
        rows = store.audit_rows(10).await.expect("rows");
        if rows.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(rows.iter().all(|row| row.actor == "audit"), "{rows:?}");
    let mut actions: Vec<_> = rows.iter().map(|row| row.action.as_str()).collect();
    actions.sort_unstable();
    assert_eq!(actions, ["convene", "import sites"]);
}

#[tokio::test]
async fn an_enrolment_token_works_once_and_its_certificate_is_for_its_site() {
    let fixture = small().await;
    let person = fixture.person().await;
    let authority = fixture.control_plane.agents_addr().to_string();
    let token = person.enrol_token(Target::Site("A1".into())).await;
    let credentials = enrol(&authority, &token).await.expect("enrolled");
    assert_eq!(credentials.identity.to_string(), "agent:A1");
    let again = enrol(&authority, &token).await.expect_err("used");
    assert!(
        matches!(again, muster_identity::EnrolError::Refused(_)),
        "{again}"
    );

    let channel = connect(&authority, &credentials).await.expect("channel");
    let message = pb::AttachRequest {
        endpoint: "agent".into(),
        version: "test".into(),
    };
    let mut events = EndpointServiceClient::new(channel.clone())
        .attach(message)
        .await
        .expect("attached")
        .into_inner();
    let first = events.message().await.expect("stream").expect("greeting").event;
    let Some(pb::attach_response::Event::Attached(attached)) = first else {
        panic!("{first:?}")
    };
    assert_eq!(attached.site.expect("site").id, "A1");
    let relay = FleetServiceClient::new(channel)
        .serve(tokio_stream::empty())
        .await
        .expect_err("no relay");
    assert_eq!(relay.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_endpoint_without_proof_is_not_let_in() {
    let fixture = small().await;
    let message = || pb::AttachRequest {
        endpoint: "browser".into(),
        version: "test".into(),
    };
    let mut client = EndpointServiceClient::new(fixture.channel().await);
    assert_eq!(
        client.attach(message()).await.expect_err("refused").code(),
        Code::Unauthenticated
    );
    let wrong = crate::support::Endpoint::attach(fixture.channel().await, "made-up")
        .await
        .err()
        .expect("refused");
    assert_eq!(wrong.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_site_that_is_not_called_gets_no_ticket() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let mut endpoints = crate::support::attached(&fixture, &["A1"]).await;
    let meeting = fixture.person().await.convene(&["B1"]).await.expect("convened");
    assert_eq!(
        endpoints[0]
            .ticket(&meeting.id)
            .await
            .expect_err("refused")
            .code(),
        Code::FailedPrecondition
    );
    assert_eq!(
        endpoints[0].ticket("m0").await.expect_err("refused").code(),
        Code::NotFound
    );
}

//! The log over real gRPC: what was administered is in it, an altered byte is found, a meeting is replayed.

use crate::admin::{code_of, grant, put, someone};
use crate::support::{
    EASTLAKE, FakeRelay, Fixture, PASSWORD, Person, SMALL, add_account, attached, sign_in, small, start_in,
};
use muster_proto::command::v1 as pb;
use pb::import_sites_with_progress_response::Step;
use pb::log_service_client::LogServiceClient;
use prost::Message as _;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status};

fn log(person: &Person) -> LogServiceClient<Channel> {
    LogServiceClient::new(person.channel.clone())
}

async fn read(person: &Person, stream: &str, after: u64) -> Result<Vec<pb::ReadLogResponse>, Status> {
    let message = pb::ReadLogRequest {
        stream: stream.into(),
        after,
    };
    let mut answers = log(person).read_log(person.request(message)).await?.into_inner();
    let mut events = Vec::new();
    while let Some(event) = answers.message().await? {
        events.push(event);
    }
    Ok(events)
}

async fn unit_events(person: &Person, unit: &str) -> Vec<pb::UnitEvent> {
    let events = read(person, &format!("unit:{unit}"), 0).await.expect("read");
    events
        .iter()
        .map(|event| pb::UnitEvent::decode(event.payload.as_slice()).expect("an event"))
        .collect()
}

pub async fn verify(person: &Person, stream: &str) -> Result<Vec<pb::VerifyLogResponse>, Status> {
    let message = pb::VerifyLogRequest {
        stream: stream.into(),
    };
    let mut answers = log(person)
        .verify_log(person.request(message))
        .await?
        .into_inner();
    let mut lines = Vec::new();
    while let Some(line) = answers.message().await? {
        lines.push(line);
    }
    Ok(lines)
}

async fn replay(person: &Person, meeting: &str, at_ms: i64, seq: u64) -> Result<pb::Meeting, Status> {
    let message = pb::ReplayMeetingRequest {
        meeting: meeting.into(),
        at_ms: (at_ms != 0).then_some(at_ms),
        seq: (seq != 0).then_some(seq),
    };
    let answer = log(person).replay_meeting(person.request(message)).await?;
    Ok(answer.into_inner().meeting.expect("a meeting"))
}

async fn until_causes(person: &Person, unit: &str, expected: &[&str]) -> Vec<pb::UnitEvent> {
    let mut events = Vec::new();
    for _ in 0..200 {
        events = unit_events(person, unit).await;
        if events
            .iter()
            .map(|event| event.cause.as_str())
            .eq(expected.iter().copied())
        {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("expected {expected:?}, found {events:?}");
}

#[tokio::test]
async fn accounts_made_on_the_machine_itself_are_in_the_log_and_stay_so_over_a_restart() {
    use pb::unit_event::Event;
    let fixture = small().await;
    let Fixture { control_plane, dir } = fixture;
    control_plane.shutdown().await;
    add_account(dir.path(), "li", pb::Role::DutyOfficer, "A").await;
    add_account(dir.path(), "li", pb::Role::Auditor, "D").await;
    // The bootstrap account is there already: another start writes nothing.
    let control_plane = start_in(dir.path()).await;
    let fixture = Fixture { control_plane, dir };
    let chief = fixture.person().await;
    let told = |events: &[pb::UnitEvent]| -> Vec<String> {
        let words = events
            .iter()
            .map(|event| match event.event.as_ref().expect("an event") {
                Event::AccountPut(put) => format!("{} {} {}", event.cause, put.account, put.new_password),
                Event::RoleGranted(given) => {
                    let grant = given.grant.as_ref().expect("a grant");
                    assert_eq!(
                        (grant.granted_by.as_str(), grant.granted_ms),
                        (event.actor.as_str(), event.at_ms)
                    );
                    format!("{} {} {:?}", event.cause, given.account, grant.role())
                }
                Event::RoleRevoked(taken) => format!("{} {} -{:?}", event.cause, taken.account, taken.role()),
                Event::Imported(_) => event.cause.clone(),
                other => panic!("{other:?}"),
            });
        words.collect()
    };
    assert_eq!(
        told(&unit_events(&chief, "D").await),
        [
            "bootstrap_account wang true",
            "bootstrap_account wang Commander",
            "import_sites",
            "account_add li true",
            "account_add li Auditor",
        ]
    );
    assert_eq!(
        told(&unit_events(&chief, "A").await),
        [
            "account_add li true",
            "account_add li DutyOfficer",
            "account_add li -DutyOfficer",
        ]
    );
    let roles = |account: pb::Account| {
        account
            .grants
            .iter()
            .map(|grant| grant.role())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        roles(
            sign_in(fixture.channel().await, "li", PASSWORD)
                .await
                .expect("signed in")
                .account
                .expect("an account")
        ),
        [pb::Role::Auditor]
    );
}

#[tokio::test]
async fn every_administrative_act_is_an_event_of_its_unit() {
    let fixture = small().await;
    let chief = fixture.person().await;
    put(&chief, "li", PASSWORD).await.expect("made");
    grant(&chief, "li", pb::Role::DutyOfficer, "A", 0)
        .await
        .expect("given");
    let _endpoints = attached(&fixture, &["A1"]).await;
    let _again = attached(&fixture, &["A1"]).await;
    let token = chief
        .enrol_token(pb::create_enrol_token_request::Target::Site("A2".into()))
        .await;
    let authority = fixture.control_plane.agents_addr().to_string();
    muster_identity::enrol(&authority, &token)
        .await
        .expect("enrolled");

    let district = unit_events(&chief, "D").await;
    let expected = [
        ("host:control-plane", "bootstrap_account"),
        ("host:control-plane", "bootstrap_account"),
        ("wang", "import_sites"),
        ("wang", "put_account"),
    ];
    let found: Vec<_> = district
        .iter()
        .map(|event| (event.actor.as_str(), event.cause.as_str()))
        .collect();
    assert_eq!(found, expected);
    assert!(district.iter().all(|event| event.at_ms > 0));
    let Some(pb::unit_event::Event::Imported(imported)) = &district[2].event else {
        panic!("{:?}", district[2])
    };
    assert_eq!(
        (imported.units_added, imported.sites_added, imported.sha256.len()),
        (3, 5, 64)
    );

    let causes = [
        "grant_role",
        "create_site_link",
        "attach",
        "create_site_link",
        "attach",
        "create_enrol_token",
        "enrol",
    ];
    let street = until_causes(&chief, "A", &causes).await;
    let seqs: Vec<_> = street.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=7).collect::<Vec<_>>());
    let Some(pb::unit_event::Event::SecretMade(made)) = &street[1].event else {
        panic!("{:?}", street[1])
    };
    assert_eq!(made.identity, "site_link:A1");
    assert_eq!(street[2].actor, "site:A1");
    assert_eq!(street[6].actor, "agent:A2");
    // Nothing that opens anything is in the log.
    let secret = token.secret.as_bytes();
    for event in read(&chief, "unit:A", 0).await.expect("read") {
        assert!(!event.payload.windows(secret.len()).any(|bytes| bytes == secret));
    }
    assert_eq!(
        read(&chief, "unit:A", 5).await.expect("read").len(),
        2,
        "after a number"
    );
}

#[tokio::test]
async fn an_altered_byte_is_found_and_named() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let chief = fixture.person().await;
    let _endpoints = attached(&fixture, &["A1", "A2"]).await;
    let meeting = chief.convene(&["A1", "A2", "B1"]).await.expect("convened");
    let end = pb::EndMeetingRequest {
        meeting: meeting.id.clone(),
    };
    chief
        .meetings()
        .end_meeting(chief.request(end))
        .await
        .expect("ended");
    let lines = verify(&chief, "").await.expect("verified");
    let names: Vec<_> = lines.iter().map(|line| line.stream.as_str()).collect();
    assert!(names.contains(&"unit:D") && names.contains(&"unit:A") && names.contains(&meeting.id.as_str()));
    assert!(
        lines.iter().all(|line| line.broken_at == 0 && line.events > 0),
        "{lines:?}"
    );
    let before = read(&chief, &meeting.id, 0).await.expect("read");
    let whole = lines
        .iter()
        .find(|line| line.stream == meeting.id)
        .expect("its line");
    assert_eq!(whole.head, before.last().expect("events").hash);

    let statement = async |sql: &'static str, stream: &str, seq: i64| {
        let path = fixture.dir.path().join("muster.sqlite");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let pool = sqlx::SqlitePool::connect_with(options).await.expect("opened");
        let result = sqlx::query(sql)
            .bind(stream)
            .bind(seq)
            .execute(&pool)
            .await
            .expect("changed");
        assert_eq!(result.rows_affected(), 1);
        pool.close().await;
    };
    // The last byte of the third event becomes another one; so short a text is replaced whole.
    statement(
        "UPDATE events SET payload = substr(payload, 1, length(payload) - 1) || x'00' WHERE stream = $1 AND seq = $2",
        &meeting.id,
        3,
    )
    .await;
    let line = verify(&chief, &meeting.id).await.expect("verified").remove(0);
    assert_eq!((line.broken_at, line.events), (3, 2), "{line:?}");
    assert_eq!(line.head, before[1].hash);
    assert!(line.found.contains("hash"), "{line:?}");
    let others = verify(&chief, "").await.expect("verified");
    assert_eq!(
        others.iter().filter(|line| line.broken_at > 0).count(),
        1,
        "{others:?}"
    );

    // One that was taken out, and an end that was cut off.
    statement("DELETE FROM events WHERE stream = $1 AND seq = $2", "unit:A", 1).await;
    let line = verify(&chief, "unit:A").await.expect("verified").remove(0);
    assert_eq!(line.broken_at, 1, "{line:?}");
    let other = chief.convene(&["B1"]).await.expect("convened");
    let end = pb::EndMeetingRequest {
        meeting: other.id.clone(),
    };
    chief
        .meetings()
        .end_meeting(chief.request(end))
        .await
        .expect("ended");
    let last = read(&chief, &other.id, 0).await.expect("read").len() as u64;
    statement(
        "DELETE FROM events WHERE stream = $1 AND seq = $2",
        &other.id,
        i64::try_from(last).expect("small"),
    )
    .await;
    let line = verify(&chief, &other.id).await.expect("verified").remove(0);
    assert_eq!(line.broken_at, last, "{line:?}");
}

#[tokio::test]
async fn a_meeting_is_replayed_and_its_attendance_told() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let officer = someone(&fixture, "officer", pb::Role::DutyOfficer, "A").await;
    let chief = fixture.person().await;
    let _endpoints = attached(&fixture, &["A1", "A2"]).await;
    let meeting = officer.convene(&["A1", "A2"]).await.expect("convened");
    relay.leg(&meeting.id, "A1", pb::LegState::OnAir, "").await;
    let on_air = officer.until(&meeting.id, "A1", pb::SummonsState::OnAir).await;
    relay.leg(&meeting.id, "A1", pb::LegState::Left, "hung up").await;
    let left = officer.until(&meeting.id, "A1", pb::SummonsState::Left).await;
    let middle = officer.meeting(&meeting.id).await;
    let attendance = async |who: &Person| {
        let message = pb::GetAttendanceRequest {
            meeting: meeting.id.clone(),
        };
        let answer = log(who).get_attendance(who.request(message)).await?;
        Ok::<_, Status>(answer.into_inner().attendances)
    };
    let told = attendance(&officer).await.expect("the chair reads it");
    let names: Vec<_> = told.iter().map(|one| one.site.as_str()).collect();
    assert_eq!(names, ["A1", "A2"]);
    assert_eq!(told[0].on_air.len(), 1);
    assert_eq!(
        (told[0].on_air[0].from_ms, told[0].on_air[0].to_ms),
        (on_air.at_ms, left.at_ms)
    );
    assert_eq!(told[0].total_ms, left.at_ms - on_air.at_ms);
    assert!(told[1].on_air.is_empty());
    let end = pb::EndMeetingRequest {
        meeting: meeting.id.clone(),
    };
    officer
        .meetings()
        .end_meeting(officer.request(end))
        .await
        .expect("ended");

    let whole = replay(&chief, &meeting.id, 0, 0).await.expect("replayed");
    assert_eq!(
        whole,
        chief.meeting(&meeting.id).await,
        "the log gives what was told"
    );
    let then = replay(&chief, &meeting.id, 0, middle.seq)
        .await
        .expect("replayed");
    assert_eq!(then, middle);
    let first = replay(&chief, &meeting.id, 0, 1).await.expect("replayed");
    assert_eq!((first.seq, first.summonses.len(), first.ended_ms), (1, 2, 0));
    let before = replay(&chief, &meeting.id, 1, 0)
        .await
        .expect_err("before its beginning");
    assert!(
        before.code() == Code::InvalidArgument && before.message().contains("began at"),
        "{before}"
    );
    let after = replay(&chief, &meeting.id, 0, 9999)
        .await
        .expect_err("after its end");
    assert!(after.message().contains("the last event of meeting"), "{after}");
    for (at_ms, seq) in [(Some(0), None), (None, Some(0))] {
        let message = pb::ReplayMeetingRequest {
            meeting: meeting.id.clone(),
            at_ms,
            seq,
        };
        let refused = log(&chief)
            .replay_meeting(chief.request(message))
            .await
            .expect_err("not the newest");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let both = replay(&chief, &meeting.id, 1, 1).await.expect_err("one of them");
    assert_eq!(both.code(), Code::InvalidArgument);
    let message = pb::ListRollCallsRequest {
        meeting: meeting.id.clone(),
    };
    let calls = log(&officer)
        .list_roll_calls(officer.request(message))
        .await
        .expect("listed");
    assert!(calls.into_inner().roll_calls.is_empty());

    let street_b = someone(&fixture, "street-b", pb::Role::Auditor, "B").await;
    for refused in [
        attendance(&street_b).await.map(|_| ()),
        replay(&street_b, &meeting.id, 0, 0).await.map(|_| ()),
        read(&street_b, &meeting.id, 0).await.map(|_| ()),
        read(&street_b, "unit:A", 0).await.map(|_| ()),
        verify(&street_b, "unit:A").await.map(|_| ()),
    ] {
        let refused = refused.expect_err("not theirs");
        assert_eq!(
            (refused.code(), code_of(&refused).as_str()),
            (Code::PermissionDenied, "outside_authority")
        );
    }
    let lines = verify(&street_b, "").await.expect("what is theirs");
    assert!(lines.iter().all(|line| line.stream == "unit:B"), "{lines:?}");
    for refused in [
        read(&officer, &meeting.id, 0).await.map(|_| ()),
        verify(&officer, "").await.map(|_| ()),
        replay(&officer, &meeting.id, 0, 0).await.map(|_| ()),
    ] {
        assert_eq!(code_of(&refused.expect_err("no auditor")), "no_role");
    }
    assert_eq!(
        read(&chief, "nothing", 0).await.expect_err("unknown").code(),
        Code::NotFound
    );
}

async fn import_telling(person: &Person, csv: Vec<u8>) -> (Vec<pb::ImportProgress>, pb::ImportSitesResponse) {
    let message = pb::ImportSitesWithProgressRequest { csv, dry_run: false };
    let answers = person
        .directory()
        .import_sites_with_progress(person.request(message))
        .await
        .expect("begun");
    let mut answers = answers.into_inner();
    let (mut told, mut done) = (Vec::new(), None);
    while let Some(answer) = answers.message().await.expect("stream") {
        assert!(done.is_none(), "the end is last");
        match answer.step.expect("a step") {
            Step::Progress(progress) => told.push(progress),
            Step::Done(answer) => done = Some(answer),
        }
    }
    (told, done.expect("an end"))
}

#[tokio::test]
async fn ten_thousand_sites_are_imported_with_progress() {
    let dir = tempfile::tempdir().expect("folder");
    let control_plane = crate::support::start_in(dir.path()).await;
    let fixture = crate::support::Fixture { control_plane, dir };
    let chief = fixture.person().await;
    let mut csv = String::from("external_id,kind,tier,parent,name_zh,name_en,lat,lon,access,phase\n");
    csv.push_str("D,unit,district,,区,District,30.5,114.4,,existing\n");
    for street in 0..100 {
        csv.push_str(&format!(
            "S{street},unit,street,D,街,Street,30.5,114.4,,existing\n"
        ));
        for site in 0..100 {
            csv.push_str(&format!(
                "S{street}-{site},site,street,S{street},会场,Site,30.5,114.4,fibre,new\n"
            ));
        }
    }
    let begun = Instant::now();
    let (told, done) = import_telling(&chief, csv.clone().into_bytes()).await;
    println!("import of 10,000 sites: {} ms", begun.elapsed().as_millis());
    assert_eq!(
        (done.units_added, done.sites_added, done.errors.len()),
        (101, 10_000, 0)
    );
    assert!(told.len() > 2, "{told:?}");
    assert!(told.is_sorted_by_key(|progress| progress.done));
    assert!(told.iter().all(|progress| progress.done <= progress.total));
    assert_eq!(told.last().expect("progress").total, 10_101);
    let begun = Instant::now();
    let (_, again) = import_telling(&chief, csv.clone().into_bytes()).await;
    println!("the same again: {} ms", begun.elapsed().as_millis());
    assert_eq!((again.unchanged, again.sites_changed), (10_101, 0));
    let imports = unit_events(&chief, "D").await;
    let imports = imports.iter().filter(|event| event.cause.starts_with("import"));
    assert_eq!(imports.count(), 1, "what changes nothing is no event");
    let listed = chief.directory().max_decoding_message_size(64 << 20);
    let listed = { listed }
        .list_sites(chief.request(pb::ListSitesRequest {}))
        .await
        .expect("listed");
    assert_eq!(listed.into_inner().sites.len(), 10_000);
}

#[tokio::test]
async fn a_bad_file_and_a_refusal_are_told_on_the_stream_too() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let bad = SMALL.replace("A1,site,street,A", "A1,site,village,A");
    let (_, done) = import_telling(&chief, bad.into_bytes()).await;
    assert_eq!((done.errors.len(), done.errors[0].column.as_str()), (1, "tier"));
    let officer = someone(&fixture, "officer", pb::Role::DutyOfficer, "D").await;
    let message = pb::ImportSitesWithProgressRequest {
        csv: SMALL.as_bytes().to_vec(),
        dry_run: false,
    };
    let refused = officer
        .directory()
        .import_sites_with_progress(officer.request(message))
        .await
        .expect_err("no role");
    assert_eq!(
        (refused.code(), code_of(&refused).as_str()),
        (Code::PermissionDenied, "no_role")
    );
    // Outside the units that one is responsible for it is refused when it is planned.
    let engineer = someone(&fixture, "engineer", pb::Role::Engineer, "A").await;
    let message = pb::ImportSitesWithProgressRequest {
        csv: EASTLAKE.to_vec(),
        dry_run: false,
    };
    let mut answers = engineer
        .directory()
        .import_sites_with_progress(engineer.request(message))
        .await
        .expect("begun")
        .into_inner();
    let refused = loop {
        match answers.message().await {
            Ok(Some(answer)) => assert!(!matches!(answer.step, Some(Step::Done(_))), "not imported"),
            Ok(None) => panic!("no reason was told"),
            Err(status) => break status,
        }
    };
    assert_eq!(code_of(&refused), "outside_authority");
}

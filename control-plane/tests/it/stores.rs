//! One suite on all back ends of the store: what SQLite does, PostgreSQL and memory do.

use crate::servers::Postgres;
use muster_control_plane::store::{
    AccountRow, Append, AuditRow, ChainHead, Claim, DrillRow, EndedRow, Faults, GrantRow, MeetingRow, Memory,
    NewEvent, PresetRow, ReportPlace, ReportRow, ScheduleRow, SeenRow, SiteRow, Store, StoreError,
    UnitAppend, UnitEffect, UnitRow, chain_hash,
};
use std::time::{Duration, Instant};

fn event(seq: u64, text: &str) -> NewEvent {
    NewEvent {
        seq,
        at_ms: 5,
        actor: "wang".into(),
        payload: text.as_bytes().to_vec(),
    }
}

fn meeting(id: &str, key: Option<&str>, claims: &[(&str, i64)]) -> Append {
    Append {
        meeting: id.into(),
        events: vec![event(1, "convened"), event(2, "called")],
        convened: Some(MeetingRow {
            id: id.into(),
            title: "Flood".into(),
            unit: "D".into(),
            chair: "wang".into(),
            idempotency_key: key.map(str::to_owned),
            started_ms: 1,
        }),
        claims: claims.iter().map(|(site, p)| ((*site).to_owned(), *p)).collect(),
        ..Append::default()
    }
}

fn is_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict(_)))
}

fn account(name: &str) -> AccountRow {
    AccountRow {
        name: name.into(),
        display_name: "老王".into(),
        grants: vec![GrantRow::lasting(1, "D")],
    }
}

fn claim(site: &str, meeting: &str, priority: i64) -> Claim {
    Claim {
        site: site.into(),
        meeting: meeting.into(),
        priority,
    }
}

async fn one_of_two_events_with_a_number_is_stored(store: Store) {
    let head = store.append(&meeting("m1", None, &[])).await.expect("stored");
    assert_eq!(head.seq, 2);
    let next = |text: &str| Append {
        meeting: "m1".into(),
        head,
        events: vec![event(3, text)],
        ..Append::default()
    };
    let (left, right) = (next("left"), next("right"));
    let (left, right) = tokio::join!(store.append(&left), store.append(&right));
    assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
    assert!(is_conflict(left) || is_conflict(right));
    assert!(is_conflict(store.append(&next("late")).await));
    let stored = store.events_after("m1", 0).await.expect("read");
    let mut hash = [0; 32];
    for (at, event) in stored.iter().enumerate() {
        hash = chain_hash(&hash, &event.payload);
        assert_eq!((event.seq, event.hash), (at as u64 + 1, hash));
    }
    assert_eq!(stored.len(), 3);
    assert_eq!(store.head("m1").await.expect("head"), ChainHead { seq: 3, hash });
    assert_eq!(store.events_page("m1", 1, 1).await.expect("page"), stored[1..2]);
    let gap = Append {
        meeting: "m1".into(),
        head: ChainHead { seq: 3, hash },
        events: vec![event(5, "gap")],
        ..Append::default()
    };
    assert!(is_conflict(store.append(&gap).await));
}

async fn a_site_is_in_one_meeting_and_a_higher_one_takes_it(store: Store) {
    store
        .append(&meeting("m1", None, &[("A1", 1), ("A2", 1)]))
        .await
        .expect("stored");
    let same = store.append(&meeting("m2", None, &[("A3", 1), ("A2", 1)])).await;
    assert!(is_conflict(same));
    assert_eq!(
        store.head("m2").await.expect("head").seq,
        0,
        "nothing of it is stored"
    );
    assert_eq!(
        store.claims().await.expect("claims"),
        [claim("A1", "m1", 1), claim("A2", "m1", 1)]
    );
    store
        .append(&meeting("m3", None, &[("A2", 3)]))
        .await
        .expect("taken");
    assert_eq!(
        store.claims().await.expect("claims"),
        [claim("A1", "m1", 1), claim("A2", "m3", 3)]
    );
    // The one that lost it gives back what it has no more, and cannot have it again.
    let head = store.head("m1").await.expect("head");
    let back = Append {
        meeting: "m1".into(),
        head,
        events: vec![event(3, "called away")],
        released: vec!["A1".into(), "A2".into()],
        ..Append::default()
    };
    let head = store.append(&back).await.expect("stored");
    assert_eq!(store.claims().await.expect("claims"), [claim("A2", "m3", 3)]);
    let again = Append {
        meeting: "m1".into(),
        head,
        events: vec![event(4, "called")],
        claims: vec![("A2".into(), 1)],
        ..Append::default()
    };
    assert!(is_conflict(store.append(&again).await));
    // Nor does one lose what it holds.
    let held = Append {
        meeting: "m3".into(),
        head: store.head("m3").await.expect("head"),
        events: vec![event(3, "called away")],
        lost: vec!["A1".into(), "A2".into()],
        ..Append::default()
    };
    assert!(is_conflict(store.append(&held).await));
    let lost = Append {
        lost: vec!["A2".into()],
        released: Vec::new(),
        claims: Vec::new(),
        ..again
    };
    store.append(&lost).await.expect("another has it");
    // What one holds it may claim again.
    let own = Append {
        meeting: "m3".into(),
        head: store.head("m3").await.expect("head"),
        events: vec![event(3, "called")],
        claims: vec![("A2".into(), 3)],
        ..Append::default()
    };
    store.append(&own).await.expect("its own");
}

async fn two_that_take_the_same_sites_at_once_do_not_share_them(store: Store) {
    let sites = ["A1", "A2", "A3", "A4"];
    for round in 0..10 {
        let claims: Vec<_> = sites.iter().map(|site| (*site, 1 + round)).collect();
        let reversed: Vec<_> = claims.iter().rev().copied().collect();
        let left = meeting(&format!("l{round}"), None, &claims);
        let right = meeting(&format!("r{round}"), None, &reversed);
        let (left, right) = tokio::join!(store.append(&left), store.append(&right));
        assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
        assert!(is_conflict(left) || is_conflict(right));
        let holders = store.claims().await.expect("claims");
        assert_eq!(holders.len(), 4);
        assert!(
            holders.iter().all(|claim| claim.meeting == holders[0].meeting),
            "{holders:?}"
        );
    }
}

async fn a_key_gives_one_meeting(store: Store) {
    store
        .append(&meeting("m1", Some("k"), &[]))
        .await
        .expect("stored");
    assert!(is_conflict(store.append(&meeting("m2", Some("k"), &[])).await));
    let found = store.meeting_by_key("wang", "k").await.expect("read");
    assert_eq!(found.as_deref(), Some("m1"));
    assert_eq!(store.meeting_by_key("li", "k").await.expect("read"), None);
    // Meetings without a key are as many as one likes.
    store.append(&meeting("m3", None, &[])).await.expect("stored");
    store.append(&meeting("m4", None, &[])).await.expect("stored");
}

async fn live_meetings_are_told_with_their_last_events_until_they_end(store: Store) {
    let head = store
        .append(&meeting("m1", None, &[("A1", 1)]))
        .await
        .expect("stored");
    store.append(&meeting("m2", None, &[])).await.expect("stored");
    let heads = store.live_heads().await.expect("heads");
    let heads: Vec<_> = heads
        .iter()
        .map(|live| (live.meeting.as_str(), live.seq))
        .collect();
    assert_eq!(heads, [("m1", 2), ("m2", 2)]);
    let end = Append {
        meeting: "m1".into(),
        head,
        events: vec![event(3, "ended")],
        ended: Some(EndedRow {
            ended_ms: 9,
            final_state: b"final".to_vec(),
        }),
        released: vec!["A1".into()],
        ..Append::default()
    };
    assert_eq!(store.final_state("m1").await.expect("read"), None);
    store.append(&end).await.expect("stored");
    assert_eq!(store.live_heads().await.expect("heads").len(), 1);
    assert_eq!(
        store.final_state("m1").await.expect("read").as_deref(),
        Some(&b"final"[..])
    );
    assert_eq!(
        store.ended_meetings(0, 5).await.expect("read"),
        [("m1".to_owned(), Some(b"final".to_vec()))]
    );
    assert!(store.claims().await.expect("claims").is_empty());
    assert_eq!(store.streams().await.expect("streams"), ["m1", "m2"]);
    for stream in ["m1", "m2"] {
        let kept = store.kept_head(stream).await.expect("read");
        assert_eq!(
            kept,
            Some(store.head(stream).await.expect("head")),
            "noted with each append"
        );
    }
    assert_eq!(store.kept_head("m3").await.expect("read"), None);
}

async fn a_damaged_meeting_is_out_of_service_and_holds_no_site(store: Store) {
    store
        .append(&meeting("m1", None, &[("A1", 1)]))
        .await
        .expect("stored");
    store
        .append(&meeting("m2", None, &[("A2", 1)]))
        .await
        .expect("stored");
    store
        .quarantine("m1", "event 2 was altered")
        .await
        .expect("stored");
    store.quarantine("m1", "another").await.expect("stored");
    let live: Vec<_> = store
        .live_heads()
        .await
        .expect("heads")
        .into_iter()
        .map(|l| l.meeting)
        .collect();
    assert_eq!(live, ["m2"]);
    assert_eq!(store.claims().await.expect("claims"), [claim("A2", "m2", 1)]);
    let damaged = store.damaged_meetings(5).await.expect("listed");
    let told: Vec<_> = damaged
        .iter()
        .map(|m| (m.id.as_str(), m.reason.as_str()))
        .collect();
    assert_eq!(told, [("m1", "event 2 was altered")]);
    let row = store.kept_meeting("m1").await.expect("read").expect("a row");
    assert_eq!(
        (row.unit.as_str(), row.ended_ms, row.damaged.is_some()),
        ("D", None, true)
    );
}

async fn a_head_that_does_not_fit_stays_as_it_is(store: Store) {
    let head = store.append(&meeting("m1", None, &[])).await.expect("stored");
    // As if event 2 had been another one when it was appended.
    let before = ChainHead {
        seq: 2,
        hash: [7; 32],
    };
    let next = Append {
        meeting: "m1".into(),
        head: before,
        events: vec![event(3, "muted")],
        ..Append::default()
    };
    // In memory that is a conflict already.
    if store.append(&next).await.is_ok() {
        assert_eq!(store.head("m1").await.expect("head").seq, 3);
    }
    assert_eq!(store.kept_head("m1").await.expect("read"), Some(head));
}

async fn sessions_end_with_a_new_password_and_can_be_revoked(store: Store) {
    put_account(&store, "wang", "hash").await;
    let token = |n: u32| format!("{n:064x}").chars().rev().collect::<String>();
    for n in 1..=3 {
        store
            .add_session(&token(n), "wang", i64::from(n), 1000)
            .await
            .expect("opened");
    }
    store.extend_session(&token(1), 2000).await.expect("extended");
    assert_eq!(
        store.session(&token(1)).await.expect("read"),
        Some(("wang".into(), 2000))
    );
    let sessions = store.sessions("wang").await.expect("listed");
    assert_eq!(sessions.len(), 3);
    let ids: Vec<String> = sessions.into_iter().map(|session| session.id).collect();
    let revoke = async |only: Option<&str>, keep: Option<&str>| {
        let effect = UnitEffect::RevokeSessions {
            account: "wang".into(),
            only: only.map(str::to_owned),
            keep: keep.map(str::to_owned),
        };
        unit_step(&store, "D", vec![effect]).await.expect("revoked");
        store.sessions("wang").await.expect("listed").len()
    };
    assert_eq!(revoke(Some(&ids[1]), None).await, 2);
    assert_eq!(revoke(None, Some(&ids[0])).await, 1);
    assert_eq!(store.session(&token(3)).await.expect("read"), None);
    // One that has run out goes with the next that is opened.
    store
        .add_session(&token(4), "wang", 2000, 3000)
        .await
        .expect("opened");
    assert_eq!(store.session(&token(1)).await.expect("read"), None);
    store.remove_session(&token(4)).await.expect("removed");
    store
        .add_session(&token(5), "wang", 2000, 3000)
        .await
        .expect("opened");
    put_account(&store, "wang", "new").await;
    assert!(store.sessions("wang").await.expect("listed").is_empty());
    assert_eq!(
        store.password_hash("wang").await.expect("read").as_deref(),
        Some("new")
    );
    assert_eq!(store.password_hash("li").await.expect("read"), None);
}

/// Adds the account with its role, or gives it another password.
async fn put_account(store: &Store, name: &str, hash: &str) {
    let AccountRow {
        name,
        display_name,
        grants,
    } = account(name);
    let mut effects = vec![UnitEffect::PutAccount {
        name: name.clone(),
        display_name,
        password_hash: Some(hash.into()),
        now_ms: 1,
    }];
    effects.extend(grants.into_iter().map(|grant| UnitEffect::PutGrant {
        account: name.clone(),
        grant,
    }));
    unit_step(store, "D", effects).await.expect("stored");
}

async fn unit_step(store: &Store, unit: &str, effects: Vec<UnitEffect>) -> Result<ChainHead, StoreError> {
    let stream = format!("unit:{unit}");
    let head = store.head(&stream).await?;
    let append = UnitAppend {
        stream,
        head,
        events: vec![event(head.seq + 1, "administered")],
        effects,
        ..UnitAppend::default()
    };
    store.append_unit(&append).await
}

async fn a_units_stream_and_its_rows_change_together(store: Store) {
    let preset = |id: &str, body: &[u8]| PresetRow {
        id: id.into(),
        unit: "D".into(),
        body: body.to_vec(),
    };
    let put = UnitEffect::PutPreset;
    unit_step(
        &store,
        "D",
        vec![put(preset("p1", b"a")), put(preset("p2", b"b"))],
    )
    .await
    .expect("stored");
    unit_step(
        &store,
        "D",
        vec![put(preset("p1", b"c")), UnitEffect::DeletePreset("p2".into())],
    )
    .await
    .expect("stored");
    assert_eq!(store.presets().await.expect("read"), [preset("p1", b"c")]);
    assert_eq!(store.preset("p1").await.expect("read"), Some(preset("p1", b"c")));
    assert_eq!(store.head("unit:D").await.expect("head").seq, 2);
    // One effect that cannot be, and nothing of the step is there.
    let schedule = |next_ms: i64| ScheduleRow {
        id: "s1".into(),
        unit: "D".into(),
        next_ms,
        body: b"s".to_vec(),
    };
    let moved = |next_ms: i64, from_ms: i64| UnitEffect::MoveSchedule {
        row: schedule(next_ms),
        from_ms,
    };
    let step = vec![put(preset("p3", b"d")), moved(20, 10)];
    assert!(is_conflict(unit_step(&store, "D", step).await));
    assert_eq!(store.preset("p3").await.expect("read"), None);
    assert_eq!(store.head("unit:D").await.expect("head").seq, 2);
    unit_step(&store, "D", vec![UnitEffect::PutSchedule(schedule(10))])
        .await
        .expect("stored");
    assert!(store.due_schedules(9).await.expect("due").is_empty());
    assert_eq!(store.due_schedules(10).await.expect("due"), [schedule(10)]);
    unit_step(&store, "D", vec![moved(20, 10)])
        .await
        .expect("moved once");
    assert!(is_conflict(unit_step(&store, "D", vec![moved(20, 10)]).await));
    assert_eq!(store.schedule("s1").await.expect("read"), Some(schedule(20)));
    let drill = |id: &str, started_ms: i64| DrillRow {
        id: id.into(),
        unit: "D".into(),
        started_ms,
        body: b"r".to_vec(),
    };
    let drills = [drill("d1", 5), drill("d2", 6)];
    unit_step(
        &store,
        "D",
        drills.iter().cloned().map(UnitEffect::PutDrill).collect(),
    )
    .await
    .expect("stored");
    assert_eq!(store.drills(1).await.expect("read"), [drills[1].clone()]);
    assert_eq!(store.drill("d1").await.expect("read"), Some(drills[0].clone()));
    let end = vec![
        UnitEffect::DeleteSchedule("s1".into()),
        UnitEffect::DeleteDrill("d1".into()),
    ];
    unit_step(&store, "D", end).await.expect("stored");
    assert!(store.schedules().await.expect("read").is_empty());
    assert_eq!(store.drills(9).await.expect("read").len(), 1);
}

async fn a_report_is_stored_once_and_listed_from_the_newest(store: Store) {
    let report = |site: &str, id: &str, received_ms: i64| ReportRow {
        site: site.into(),
        id: id.into(),
        received_ms,
        body: "水".into(),
    };
    let rows = [
        report("A1", "r1", 5),
        report("A1", "r2", 6),
        report("B1", "r1", 6),
        report("B1", "r2", 7),
    ];
    for row in &rows {
        unit_step(&store, "D", vec![UnitEffect::AddReport(row.clone())])
            .await
            .expect("stored");
    }
    let again = vec![UnitEffect::AddReport(report("A1", "r1", 9))];
    assert!(is_conflict(unit_step(&store, "D", again).await));
    assert_eq!(store.head("unit:D").await.expect("head").seq, 4, "no event of it");
    assert_eq!(
        store.report("A1", "r1").await.expect("read"),
        Some(rows[0].clone())
    );
    assert_eq!(store.report("A1", "r3").await.expect("read"), None);
    let place = |row: &ReportRow| ReportPlace {
        received_ms: row.received_ms,
        site: row.site.clone(),
        id: row.id.clone(),
    };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.reports(None, after.as_ref(), 1).await.expect("read");
        let Some(row) = page.first() else { break };
        after = Some(place(row));
        found.push(row.clone());
    }
    let newest_first: Vec<_> = rows.iter().rev().cloned().collect();
    assert_eq!(found, newest_first);
    let of_b = store.reports(Some("B1"), None, 9).await.expect("read");
    assert_eq!(
        of_b,
        newest_first
            .iter()
            .filter(|row| row.site == "B1")
            .cloned()
            .collect::<Vec<_>>()
    );
    assert_eq!(store.reports_since("A1", 6).await.expect("counted"), 1);
    assert_eq!(store.reports_since("A1", 7).await.expect("counted"), 0);
}

async fn grants_are_given_with_an_end_and_taken(store: Store) {
    let put = |password: Option<&str>| UnitEffect::PutAccount {
        name: "li".into(),
        display_name: "Li".into(),
        password_hash: password.map(str::to_owned),
        now_ms: 1,
    };
    assert!(is_conflict(unit_step(&store, "D", vec![put(None)]).await));
    unit_step(&store, "D", vec![put(Some("hash"))])
        .await
        .expect("stored");
    let grant = |expires_ms: i64| GrantRow {
        role: 2,
        unit: "A".into(),
        expires_ms,
        granted_by: "wang".into(),
        granted_ms: 7,
    };
    for expires_ms in [50, 60] {
        let effect = UnitEffect::PutGrant {
            account: "li".into(),
            grant: grant(expires_ms),
        };
        unit_step(&store, "D", vec![effect]).await.expect("granted");
    }
    put_account(&store, "wang", "hash").await;
    let li = AccountRow {
        name: "li".into(),
        display_name: "Li".into(),
        grants: vec![grant(60)],
    };
    assert_eq!(store.account("li").await.expect("read"), Some(li.clone()));
    assert_eq!(store.accounts().await.expect("read"), [li, account("wang")]);
    let take = UnitEffect::DeleteGrant {
        account: "li".into(),
        role: 2,
        unit: "A".into(),
    };
    unit_step(&store, "D", vec![take, put(None)])
        .await
        .expect("taken");
    assert!(
        store
            .account("li")
            .await
            .expect("read")
            .expect("li")
            .grants
            .is_empty()
    );
    assert_eq!(
        store.password_hash("li").await.expect("read").as_deref(),
        Some("hash")
    );
}

async fn the_audit_table_is_bounded(store: Store) {
    let row = |at_ms: i64| AuditRow {
        at_ms,
        actor: "li".into(),
        action: "convene".into(),
        reason: "no".into(),
    };
    for at in 0..30 {
        store
            .audit(&format!("a{at:05}"), &row(at))
            .await
            .expect("recorded");
    }
    let rows = store.audit_rows(3).await.expect("read");
    assert_eq!(rows, [row(29), row(28), row(27)]);
}

async fn a_tree_is_imported_again_and_sites_keep_their_policies(store: Store) {
    let unit = |id: &str, parent: &str| UnitRow {
        id: id.into(),
        tier: 3,
        parent: parent.into(),
        name_zh: "区".into(),
        name_en: "District".into(),
        lat: 30.5,
        lon: 114.4,
    };
    let site = |n: usize, tags: &[&str]| SiteRow {
        id: format!("S{n:05}"),
        unit: "A".into(),
        tier: 4,
        name_zh: "村".into(),
        name_en: "Village".into(),
        lat: 30.5,
        lon: 114.4,
        access: 1,
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        answer: 0,
    };
    let units = [unit("D", ""), unit("A", "D")];
    let sites: Vec<SiteRow> = (0..2500).map(|n| site(n, &["new"])).collect();
    store.put_directory(&units, &sites).await.expect("stored");
    let set = UnitEffect::SetAnswer {
        sites: vec!["S00001".into()],
        answer: 2,
    };
    unit_step(&store, "A", vec![set]).await.expect("set");
    let changed: Vec<SiteRow> = (0..3).map(|n| site(n, &["existing", "hill"])).collect();
    store.put_directory(&[], &changed).await.expect("stored");
    let (read_units, read_sites) = store.directory().await.expect("read");
    assert_eq!(read_units, units);
    assert_eq!(read_sites.len(), 2500);
    assert_eq!(read_sites[1].answer, 2);
    assert_eq!(read_sites[2], changed[2]);
    assert_eq!(read_sites[3], sites[3]);
    let seen = |site: &str| SeenRow {
        site: site.into(),
        since_ms: 4,
        endpoint: "agent".into(),
    };
    store
        .put_seen(&[seen("S00001"), seen("nobody")])
        .await
        .expect("kept");
    assert_eq!(store.seen().await.expect("read"), [seen("S00001")]);
}

async fn a_token_is_used_once_and_a_link_runs_out(store: Store) {
    let units = [UnitRow {
        id: "D".into(),
        tier: 2,
        parent: String::new(),
        name_zh: String::new(),
        name_en: String::new(),
        lat: 0.0,
        lon: 0.0,
    }];
    let sites = [SiteRow {
        id: "D1".into(),
        unit: "D".into(),
        tier: 2,
        name_zh: String::new(),
        name_en: String::new(),
        lat: 0.0,
        lon: 0.0,
        access: 1,
        tags: Vec::new(),
        answer: 1,
    }];
    store.put_directory(&units, &sites).await.expect("stored");
    let token = || UnitEffect::AddEnrolToken {
        hash: "h".into(),
        identity: "agent:D1".into(),
        by: "wang".into(),
        expires_ms: 100,
    };
    unit_step(&store, "D", vec![token()]).await.expect("given");
    let before = store.head("unit:D").await.expect("head");
    unit_step(&store, "D", vec![token()])
        .await
        .expect_err("there is such a token");
    assert_eq!(
        store.head("unit:D").await.expect("head"),
        before,
        "nor an event of it"
    );
    assert!(
        !store.use_enrol_token("h", "f0", 100).await.expect("asked"),
        "too late"
    );
    let (left, right) = tokio::join!(
        store.use_enrol_token("h", "f1", 5),
        store.use_enrol_token("h", "f2", 5)
    );
    assert!(left.expect("asked") != right.expect("asked"));
    let row = store.enrol_token("h").await.expect("read").expect("there");
    assert!(row.used && row.identity == "agent:D1");
    let link = |hash: &str, now_ms, expires_ms| UnitEffect::AddSiteLink {
        hash: hash.into(),
        site: "D1".into(),
        by: "wang".into(),
        now_ms,
        expires_ms,
    };
    unit_step(&store, "D", vec![link("l1", 1, 10)])
        .await
        .expect("given");
    assert_eq!(
        store.site_link("l1").await.expect("read"),
        Some(("D1".into(), 10))
    );
    unit_step(&store, "D", vec![link("l2", 10, 20)])
        .await
        .expect("given");
    assert_eq!(store.site_link("l1").await.expect("read"), None);
}

macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let dir = tempfile::tempdir().expect("folder");
                let store = Store::open(dir.path()).await.expect("opened");
                super::$case(store.clone()).await;
                store.close().await;
            })*
        }

        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                super::$case(Store::memory(Memory::new())).await;
            })*
        }

        #[tokio::test]
        async fn postgresql_does_the_same() {
            let server = Postgres::start();
            $({
                let store = server.store().await;
                $case(store.clone()).await;
                store.close().await;
            })*
        }
    };
}

suite!(
    one_of_two_events_with_a_number_is_stored,
    a_site_is_in_one_meeting_and_a_higher_one_takes_it,
    two_that_take_the_same_sites_at_once_do_not_share_them,
    a_key_gives_one_meeting,
    live_meetings_are_told_with_their_last_events_until_they_end,
    a_damaged_meeting_is_out_of_service_and_holds_no_site,
    a_head_that_does_not_fit_stays_as_it_is,
    sessions_end_with_a_new_password_and_can_be_revoked,
    a_units_stream_and_its_rows_change_together,
    a_report_is_stored_once_and_listed_from_the_newest,
    grants_are_given_with_an_end_and_taken,
    the_audit_table_is_bounded,
    a_tree_is_imported_again_and_sites_keep_their_policies,
    a_token_is_used_once_and_a_link_runs_out,
);

#[tokio::test]
async fn what_is_stored_outlives_the_process() {
    let dir = tempfile::tempdir().expect("folder");
    let server = Postgres::start();
    let url = server.database();
    let open = async || {
        [
            Store::open(dir.path()).await.expect("opened"),
            Store::connect(&url).await.expect("connected"),
        ]
    };
    for store in open().await {
        store
            .append(&meeting("m1", Some("k"), &[("A1", 1)]))
            .await
            .expect("stored");
        store.close().await;
    }
    for store in open().await {
        assert_eq!(store.live_heads().await.expect("heads")[0].seq, 2);
        assert_eq!(store.claims().await.expect("claims"), [claim("A1", "m1", 1)]);
        store.close().await;
    }
}

#[tokio::test]
async fn three_that_start_at_once_bring_the_tables_up_to_date_once() {
    let server = Postgres::start();
    let url = server.database();
    let (a, b, c) = tokio::join!(Store::connect(&url), Store::connect(&url), Store::connect(&url));
    for store in [a, b, c] {
        store.expect("connected").ping().await.expect("there");
    }
}

#[tokio::test]
async fn a_database_server_that_was_killed_is_used_again_and_has_what_was_acknowledged() {
    let mut server = Postgres::start();
    let store = server.store().await;
    let mut head = store
        .append(&meeting("m1", None, &[("A1", 1)]))
        .await
        .expect("stored");
    let next = |head: ChainHead| Append {
        meeting: "m1".into(),
        head,
        events: vec![event(head.seq + 1, "next")],
        ..Append::default()
    };
    for _ in 0..20 {
        head = store.append(&next(head)).await.expect("stored");
    }
    server.kill();
    let began = Instant::now();
    let refused = store.append(&next(head)).await.expect_err("away");
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    assert!(!refused.to_string().contains("not-asked-for"), "{refused}");
    println!("away: told after {:?}", began.elapsed());
    server.resume();
    let began = Instant::now();
    let stored = loop {
        match store.append(&next(head)).await {
            Ok(stored) => break stored,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
        }
    };
    println!("back: taken after {:?}", began.elapsed());
    assert_eq!(stored.seq, head.seq + 1);
    let events = store.events_after("m1", 0).await.expect("read");
    assert_eq!(events.len() as u64, stored.seq);
}

#[tokio::test]
async fn an_address_that_makes_no_sense_is_not_repeated() {
    for url in ["postgres://u:secret@host:port/db", "secret"] {
        let error = Store::connect(url).await.expect_err("refused");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_there_all_the_same() {
    let memory = Memory::new();
    let store = Store::memory(memory.clone());
    memory.set_faults(Faults {
        lost_answers: 1,
        latency: Duration::from_millis(3),
        ..Faults::default()
    });
    store.append(&meeting("m1", None, &[])).await.expect_err("lost");
    assert_eq!(store.head("m1").await.expect("head").seq, 2);
    memory.set_faults(Faults {
        away: true,
        ..Faults::default()
    });
    assert!(matches!(store.head("m1").await, Err(StoreError::Unavailable(_))));
}

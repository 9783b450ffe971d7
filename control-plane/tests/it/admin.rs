//! Accounts, roles, sessions and refusals over real gRPC: what one may not do is refused with the reason and recorded.

use crate::support::{Fixture, PASSWORD, Person, add_account, sign_in, small};
use muster_proto::command::v1 as pb;
use pb::account_service_client::AccountServiceClient;
use pb::session_service_client::SessionServiceClient;
use std::time::{Duration, SystemTime};
use tonic::transport::Channel;
use tonic::{Code, Status};

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_millis()).expect("a time")
}

pub fn accounts(person: &Person) -> AccountServiceClient<Channel> {
    AccountServiceClient::new(person.channel.clone())
}

fn sessions(person: &Person) -> SessionServiceClient<Channel> {
    SessionServiceClient::new(person.channel.clone())
}

pub async fn put(person: &Person, name: &str, password: &str) -> Result<pb::Account, Status> {
    let message = pb::PutAccountRequest {
        name: name.into(),
        display_name: format!("{name} 同志"),
        password: password.into(),
    };
    let answer = accounts(person).put_account(person.request(message)).await?;
    Ok(answer.into_inner().account.expect("an account"))
}

pub async fn grant(
    person: &Person,
    account: &str,
    role: pb::Role,
    unit: &str,
    expires_ms: i64,
) -> Result<pb::Account, Status> {
    let message = pb::GrantRoleRequest {
        account: account.into(),
        role: role.into(),
        unit: unit.into(),
        expires_ms,
    };
    let answer = accounts(person).grant_role(person.request(message)).await?;
    Ok(answer.into_inner().account.expect("an account"))
}

pub async fn revoke(
    person: &Person,
    account: &str,
    role: pb::Role,
    unit: &str,
) -> Result<pb::Account, Status> {
    let message = pb::RevokeRoleRequest {
        account: account.into(),
        role: role.into(),
        unit: unit.into(),
    };
    let answer = accounts(person).revoke_role(person.request(message)).await?;
    Ok(answer.into_inner().account.expect("an account"))
}

async fn refusals(person: &Person) -> Result<Vec<pb::RefusalRecord>, Status> {
    let message = pb::ListRefusalsRequest { limit: 0 };
    let answer = accounts(person).list_refusals(person.request(message)).await?;
    Ok(answer.into_inner().refusals)
}

/// Waits until the newest refusals are these (account, action), newest first.
pub async fn until_refused(person: &Person, expected: &[(&str, &str)]) {
    let mut found = Vec::new();
    for _ in 0..200 {
        let rows = refusals(person).await.expect("listed");
        found = rows.into_iter().map(|row| (row.account, row.action)).collect();
        let mut sorted: Vec<(String, String)> = found.clone();
        let mut wanted: Vec<(String, String)> = expected
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect();
        sorted.sort();
        wanted.sort();
        if sorted == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("expected {expected:?}, found {found:?}");
}

pub fn code_of(status: &Status) -> String {
    let code = status.metadata().get("muster-code").expect("a code");
    code.to_str().expect("text").to_owned()
}

/// Somebody with one role, signed in.
pub async fn someone(fixture: &Fixture, name: &str, role: pb::Role, unit: &str) -> Person {
    add_account(fixture.dir.path(), name, role, unit).await;
    Person::sign_in(fixture.channel().await, name).await
}

#[tokio::test]
async fn an_account_is_made_given_roles_and_loses_them() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let none = put(&chief, "li", "").await.expect_err("a password is needed");
    assert_eq!(none.code(), Code::InvalidArgument);
    let weak = put(&chief, "li", "short").await.expect_err("too short");
    assert_eq!(weak.code(), Code::InvalidArgument);
    assert!(put(&chief, "li", PASSWORD).await.expect("made").grants.is_empty());
    let li = Person::sign_in(fixture.channel().await, "li").await;
    assert_eq!(
        li.convene(&["A1"]).await.expect_err("no role").code(),
        Code::PermissionDenied
    );

    let end = now_ms() + 3_600_000;
    let given = grant(&chief, "li", pb::Role::DutyOfficer, "A", end)
        .await
        .expect("given");
    assert_eq!(given.grants.len(), 1);
    assert_eq!(
        (given.grants[0].expires_ms, given.grants[0].granted_by.as_str()),
        (end, "wang")
    );
    assert!(given.grants[0].granted_ms > 0);
    li.convene(&["A1"]).await.expect("may now");
    let lasting = grant(&chief, "li", pb::Role::DutyOfficer, "A", 0)
        .await
        .expect("the new end");
    assert_eq!((lasting.grants.len(), lasting.grants[0].expires_ms), (1, 0));

    let listed = accounts(&chief)
        .list_accounts(chief.request(pb::ListAccountsRequest {}))
        .await
        .expect("listed")
        .into_inner()
        .accounts;
    let names: Vec<_> = listed.iter().map(|account| account.name.as_str()).collect();
    assert_eq!(names, ["li", "wang"]);

    let gone = revoke(&chief, "li", pb::Role::DutyOfficer, "A")
        .await
        .expect("taken away");
    assert!(gone.grants.is_empty());
    assert_eq!(
        li.convene(&["A2"]).await.expect_err("no role").code(),
        Code::PermissionDenied
    );
    let again = revoke(&chief, "li", pb::Role::DutyOfficer, "A")
        .await
        .expect_err("no such role");
    assert_eq!(
        (again.code(), code_of(&again).as_str()),
        (Code::NotFound, "unknown_grant")
    );
    let nobody = grant(&chief, "zhao", pb::Role::Auditor, "A", 0)
        .await
        .expect_err("no account");
    assert_eq!(
        (nobody.code(), code_of(&nobody).as_str()),
        (Code::NotFound, "unknown_account")
    );
    let past = grant(&chief, "li", pb::Role::Auditor, "A", 5)
        .await
        .expect_err("in the past");
    assert_eq!(
        (past.code(), code_of(&past).as_str()),
        (Code::InvalidArgument, "past_time")
    );
}

#[tokio::test]
async fn nobody_gives_beyond_their_own_and_every_try_is_recorded() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let street = someone(&fixture, "street", pb::Role::Commander, "A").await;
    let officer = someone(&fixture, "officer", pb::Role::DutyOfficer, "D").await;
    put(&chief, "deputy", PASSWORD).await.expect("made");
    let end = now_ms() + 3_600_000;
    grant(&chief, "deputy", pb::Role::Commander, "A", end)
        .await
        .expect("given");
    let deputy = Person::sign_in(fixture.channel().await, "deputy").await;
    put(&street, "li", PASSWORD).await.expect("made by the street");

    let refused = |result: Result<pb::Account, Status>| {
        let status = result.expect_err("refused");
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        (code_of(&status), status.message().to_owned())
    };
    let (code, reason) = refused(grant(&street, "li", pb::Role::Auditor, "D", 0).await);
    assert_eq!(code, "outside_authority");
    assert!(
        reason.contains("manage accounts") && reason.contains("unit D"),
        "{reason}"
    );
    let (code, _) = refused(grant(&street, "li", pb::Role::Auditor, "B", 0).await);
    assert_eq!(code, "outside_authority");
    let (code, reason) = refused(grant(&deputy, "li", pb::Role::Auditor, "A", end + 1).await);
    assert_eq!(code, "beyond_own_end");
    assert!(
        reason.contains(" ends at 20") && reason.contains(" UTC"),
        "{reason}"
    );
    grant(&deputy, "li", pb::Role::Auditor, "A", end)
        .await
        .expect("as long as their own");
    let (code, _) = refused(grant(&officer, "li", pb::Role::Auditor, "A", 0).await);
    assert_eq!(code, "no_role");
    // Whoever could not have given it cannot take it, nor get at the account by a new password.
    let (code, _) = refused(revoke(&deputy, "street", pb::Role::Commander, "A").await);
    assert_eq!(code, "beyond_own_end");
    let (code, _) = refused(put(&deputy, "street", "another password").await);
    assert_eq!(code, "beyond_own_end");
    let (code, _) = refused(put(&street, "wang", "another password").await);
    assert_eq!(code, "outside_authority");
    let (code, _) = refused(put(&officer, "li", "another password").await);
    assert_eq!(code, "no_role");
    sign_in(fixture.channel().await, "street", PASSWORD)
        .await
        .expect("the old password");

    until_refused(
        &chief,
        &[
            ("street", "manage accounts"),
            ("street", "manage accounts"),
            ("deputy", "manage accounts"),
            ("officer", "manage accounts"),
            ("deputy", "manage accounts"),
            ("deputy", "manage accounts"),
            ("street", "manage accounts"),
            ("officer", "manage accounts"),
        ],
    )
    .await;
    let none = refusals(&officer).await.expect_err("no auditor");
    assert_eq!(none.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_street_sees_its_own_accounts_and_refusals_only() {
    let fixture = small().await;
    let chief = fixture.person().await;
    let street = someone(&fixture, "street", pb::Role::Commander, "A").await;
    let other = someone(&fixture, "other", pb::Role::Engineer, "B").await;
    let inner = someone(&fixture, "inner", pb::Role::Engineer, "A").await;
    for person in [&other, &inner] {
        person.convene(&["A1"]).await.expect_err("no role");
    }
    until_refused(&chief, &[("other", "convene"), ("inner", "convene")]).await;
    let seen = refusals(&street).await.expect("listed");
    let seen: Vec<_> = seen.iter().map(|row| row.account.as_str()).collect();
    assert_eq!(seen, ["inner"]);
    let listed = accounts(&street)
        .list_accounts(street.request(pb::ListAccountsRequest {}))
        .await
        .expect("listed")
        .into_inner();
    let names: Vec<_> = listed
        .accounts
        .iter()
        .map(|account| account.name.as_str())
        .collect();
    assert_eq!(names, ["inner", "street"]);
}

#[tokio::test]
async fn a_new_password_and_a_revocation_end_sessions() {
    let fixture = small().await;
    let chief = fixture.person().await;
    put(&chief, "li", PASSWORD).await.expect("made");
    let first = Person::sign_in(fixture.channel().await, "li").await;
    let second = Person::sign_in(fixture.channel().await, "li").await;
    let list = async |who: &Person, account: &str| {
        let message = pb::ListSessionsRequest {
            account: account.into(),
        };
        let answer = sessions(who).list_sessions(who.request(message)).await?;
        Ok::<_, Status>(answer.into_inner().sessions)
    };
    let own = list(&first, "").await.expect("listed");
    assert_eq!(own.len(), 2);
    assert_eq!(own.iter().filter(|session| session.current).count(), 1);
    assert!(
        own.iter()
            .all(|session| session.account == "li" && session.expires_ms > now_ms())
    );
    let revoke = async |who: &Person, account: &str, session: &str| {
        let message = pb::RevokeSessionsRequest {
            account: account.into(),
            session: session.into(),
        };
        let answer = sessions(who).revoke_sessions(who.request(message)).await?;
        Ok::<_, Status>(answer.into_inner().revoked)
    };
    assert_eq!(
        revoke(&first, "", "").await.expect("revoked"),
        1,
        "all but the own one"
    );
    assert_eq!(
        list(&second, "").await.expect_err("over").code(),
        Code::Unauthenticated
    );
    let foreign = list(&first, "wang").await.expect_err("not theirs");
    assert_eq!(foreign.code(), Code::PermissionDenied);
    let foreign = revoke(&first, "wang", "").await.expect_err("not theirs");
    assert_eq!(foreign.code(), Code::PermissionDenied);
    let unknown = list(&first, "nobody").await.expect_err("not told");
    assert_eq!(unknown.code(), Code::PermissionDenied, "who there is is not told");
    let theirs = list(&chief, "li").await.expect("listed");
    assert_eq!(revoke(&chief, "li", &theirs[0].id).await.expect("revoked"), 1);
    assert_eq!(
        list(&first, "").await.expect_err("over").code(),
        Code::Unauthenticated
    );

    let third = Person::sign_in(fixture.channel().await, "li").await;
    put(&chief, "li", "another password")
        .await
        .expect("a new password");
    assert_eq!(
        list(&third, "").await.expect_err("over").code(),
        Code::Unauthenticated
    );
    let old = sign_in(fixture.channel().await, "li", PASSWORD)
        .await
        .expect_err("the old one");
    assert_eq!(old.code(), Code::Unauthenticated);
    sign_in(fixture.channel().await, "li", "another password")
        .await
        .expect("the new one");
    assert_eq!(revoke(&chief, "", "").await.expect("the one of the import"), 1);
    assert_eq!(revoke(&chief, "", "").await.expect("none"), 0);
}

use crate::support::{ACCOUNT, PASSWORD, Person, add_account, sign_in, small};
use muster_proto::command::v1 as pb;
use pb::session_service_client::SessionServiceClient;
use tonic::Code;

#[tokio::test]
async fn a_right_password_opens_a_session_and_signing_out_ends_it() {
    let fixture = small().await;
    let person = fixture.person().await;
    let mut client = SessionServiceClient::new(person.channel.clone());
    let who = client
        .who_am_i(person.request(pb::WhoAmIRequest {}))
        .await
        .expect("known")
        .into_inner();
    let account = who.account.expect("account");
    assert_eq!(account.name, ACCOUNT);
    let [grant] = account.grants.as_slice() else {
        panic!("{:?}", account.grants)
    };
    assert_eq!((grant.role(), grant.unit.as_str()), (pb::Role::Commander, "D"));
    assert_eq!(
        (grant.expires_ms, grant.granted_by.as_str()),
        (0, "host:control-plane")
    );
    assert!(who.expires_ms > 0);
    client
        .sign_out(person.request(pb::SignOutRequest {}))
        .await
        .expect("signed out");
    let after = client
        .who_am_i(person.request(pb::WhoAmIRequest {}))
        .await
        .expect_err("ended");
    assert_eq!(after.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_unknown_account_and_a_wrong_password_get_the_same_answer() {
    let fixture = small().await;
    let channel = fixture.channel().await;
    let wrong = sign_in(channel.clone(), ACCOUNT, "wrong password")
        .await
        .expect_err("refused");
    let unknown = sign_in(channel.clone(), "nobody", "wrong password")
        .await
        .expect_err("refused");
    assert_eq!(wrong.code(), Code::Unauthenticated);
    assert_eq!(
        (wrong.code(), wrong.message()),
        (unknown.code(), unknown.message())
    );
    let none = SessionServiceClient::new(channel)
        .who_am_i(pb::WhoAmIRequest {})
        .await
        .expect_err("refused");
    assert_eq!(none.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn guessing_is_braked_even_for_the_right_password() {
    let fixture = small().await;
    add_account(fixture.dir.path(), "li", pb::Role::Auditor, "D").await;
    let channel = fixture.channel().await;
    let guesses: Vec<_> = (0..12).map(|i| tokio::spawn(guess(channel.clone(), i))).collect();
    let mut braked = 0;
    for guess in guesses {
        braked += usize::from(guess.await.expect("ran") == Code::ResourceExhausted);
    }
    assert_eq!(braked, 2, "parallel guesses are counted before they are checked");
    let right = sign_in(channel.clone(), "li", PASSWORD)
        .await
        .expect_err("braked");
    assert_eq!(right.code(), Code::ResourceExhausted);
    Person::sign_in(channel, ACCOUNT).await;
}

async fn guess(channel: tonic::transport::Channel, number: u32) -> Code {
    sign_in(channel, "li", &format!("guess number {number}"))
        .await
        .expect_err("refused")
        .code()
}

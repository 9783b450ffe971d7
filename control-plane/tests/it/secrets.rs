//! Nothing secret and nobody's name reaches a log, however much is logged.

use crate::support::{ACCOUNT, Endpoint, FakeRelay, PASSWORD, Person, add_account_called, sign_in, small};
use muster_control_plane::logging;
use muster_identity::{enrol, renew};
use muster_proto::command::v1 as pb;
use pb::create_enrol_token_request::Target;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const NAME: &str = "Wang Xiaoming 王晓明";

#[tokio::test]
async fn a_log_at_trace_holds_no_password_token_secret_or_name() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter(logging::filter("trace"))
        .with_writer(move || writer.clone())
        .init();
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    add_account_called(fixture.dir.path(), "xiaoming", NAME, pb::Role::Commander, "D").await;
    let channel = fixture.channel().await;
    let person = Person::sign_in(channel.clone(), "xiaoming").await;
    sign_in(channel.clone(), ACCOUNT, "a wrong password")
        .await
        .expect_err("refused");
    let token = person.enrol_token(Target::Site("A2".into())).await;
    let address = fixture.control_plane.agents_addr().to_string();
    let agent = enrol(&address, &token).await.expect("enrolled");
    let relay_again = renew(&address, &relay.credentials, &[]).await.expect("made anew");
    let link = person.site_link("A1").await;
    let mut endpoint = Endpoint::attach(channel, &link).await.expect("attached");
    let meeting = person.convene(&["A1"]).await.expect("convened");
    let call = endpoint.summoned().await;
    endpoint
        .report(&meeting.id, pb::SummonsState::Answered)
        .await
        .expect("taken");
    let ticket = endpoint.ticket(&meeting.id).await.expect("a ticket");
    relay.leg(&meeting.id, "A1", pb::LegState::OnAir, "").await;
    person.until(&meeting.id, "A1", pb::SummonsState::OnAir).await;
    drop(endpoint);
    fixture.control_plane.shutdown().await;

    let text = log.text();
    for said in [
        "control plane started",
        "relay online",
        "enrolled",
        "certificate made anew",
    ] {
        assert!(text.contains(said), "the log of all this says {said:?}: {text}");
    }
    let key_line = |pem: &str| pem.lines().nth(1).expect("PEM").to_owned();
    let secrets = [
        ("the password", PASSWORD.to_owned()),
        ("a wrong password", "a wrong password".to_owned()),
        ("the session", person.token.clone()),
        ("the enrolment token", token.secret.clone()),
        ("the link", link.clone()),
        ("a join token", ticket.token.clone()),
        ("the join token of the call", call.ticket.expect("a ticket").token),
        ("the agent's key", key_line(&agent.key_pem)),
        ("the relay's key", key_line(&relay_again.key_pem)),
        ("the display name", NAME.to_owned()),
        ("a part of it", "晓明".to_owned()),
    ];
    for (what, secret) in secrets {
        if let Some(at) = text.find(&secret) {
            let line = text[..at].rfind('\n').map_or(0, |start| start + 1);
            panic!("{what} is in the log: {}", &text[line..at]);
        }
    }
}

//! Every way in at the control plane, over real sockets: what opens it, what does not, and that each refusal is counted by
//! its reason and says nothing secret.

use crate::support::{
    ACCOUNT, FakeRelay, Fixture, Person, attached, framed, http, http_from, sign_in, small, with_bearer,
};
use hyper_util::rt::TokioIo;
use muster_control_plane::store::{Store, UnitAppend, UnitEffect};
use muster_identity::{
    Authority, CONTROL_PLANE_NAME, Credentials, EnrolError, EnrolToken, Identity, connect, enrol, enrol_as,
    random_secret, renew, sha256_text,
};
use muster_proto::command::v1 as pb;
use pb::create_enrol_token_request::Target;
use pb::endpoint_service_client::EndpointServiceClient;
use pb::fleet_service_client::FleetServiceClient;
use pb::session_service_client::SessionServiceClient;
use rustls_pki_types::ServerName;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Uri};
use tonic::{Code, Request, Status};

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("in range")
}

/// How often something was refused for this reason.
async fn counted(fixture: &Fixture, way: &str, reason: &str) -> u64 {
    let (_, body) = http(fixture.control_plane.addr(), "GET /metrics HTTP/1.1\r\n", b"").await;
    let page = String::from_utf8(body).expect("text");
    let is_it = |line: &&str| {
        let named = [format!("way=\"{way}\""), format!("reason=\"{reason}\"")];
        line.starts_with("muster_ways_in_refused_total{") && named.iter().all(|label| line.contains(label))
    };
    let found = page.lines().find(is_it).and_then(|line| line.rsplit(' ').next());
    found.map_or(0, |count| count.parse().expect("a number"))
}

/// Waits until it was counted: a peer may hear of its refusal before that.
async fn until_counted(fixture: &Fixture, (way, reason): (&str, &str), before: u64) {
    for _ in 0..250 {
        if counted(fixture, way, reason).await > before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{way}/{reason} is not counted");
}

/// Tries, and expects a refusal of this code, counted under this way and reason, that repeats nothing of what was shown.
async fn refused<T>(
    fixture: &Fixture,
    (way, reason): (&str, &str),
    (code, shown): (Code, &str),
    attempt: impl Future<Output = Result<T, Status>>,
) {
    let before = counted(fixture, way, reason).await;
    let status = attempt
        .await
        .err()
        .unwrap_or_else(|| panic!("{way}/{reason} was let in"));
    assert_eq!(status.code(), code, "{way}/{reason}: {status}");
    assert!(
        shown.is_empty() || !format!("{status:?}").contains(shown),
        "{way}/{reason}: {status:?}"
    );
    until_counted(fixture, (way, reason), before).await;
}

async fn who_am_i(channel: &Channel, token: &str) -> Result<(), Status> {
    let mut request = Request::new(pb::WhoAmIRequest {});
    if !token.is_empty() {
        request = with_bearer(token, pb::WhoAmIRequest {});
    }
    SessionServiceClient::new(channel.clone())
        .who_am_i(request)
        .await
        .map(|_| ())
}

async fn store(fixture: &Fixture) -> Store {
    Store::open(fixture.dir.path()).await.expect("the store")
}

#[tokio::test]
async fn a_session_token_opens_while_it_lasts() {
    let fixture = small().await;
    let person = fixture.person().await;
    let channel = fixture.channel().await;
    who_am_i(&channel, &person.token).await.expect("let in");

    let signed_out = fixture.person().await;
    SessionServiceClient::new(channel.clone())
        .sign_out(signed_out.request(pb::SignOutRequest {}))
        .await
        .expect("signed out");
    // Last, since whoever signs in clears away what has expired.
    let expired = random_secret();
    let store = store(&fixture).await;
    let hash = sha256_text(expired.as_bytes());
    store
        .add_session(&hash, ACCOUNT, now_ms() - 2000, now_ms() - 1000)
        .await
        .expect("stored");
    let link = person.site_link("A1").await;
    for (reason, token) in [
        ("missing", String::new()),
        ("expired", expired),
        ("unknown", signed_out.token),
        ("unknown", random_secret()),
        ("unknown", link),
    ] {
        let attempt = who_am_i(&channel, &token);
        refused(
            &fixture,
            ("session", reason),
            (Code::Unauthenticated, &token),
            attempt,
        )
        .await;
    }
    refused(
        &fixture,
        ("sign_in", "wrong"),
        (Code::Unauthenticated, "a wrong password"),
        sign_in(channel.clone(), ACCOUNT, "a wrong password"),
    )
    .await;
    who_am_i(&channel, &person.token).await.expect("still let in");
}

async fn attach(channel: &Channel, secret: &str) -> Result<(), Status> {
    let message = pb::AttachRequest {
        endpoint: "browser".into(),
        version: "test".into(),
    };
    let request = if secret.is_empty() {
        Request::new(message)
    } else {
        with_bearer(secret, message)
    };
    EndpointServiceClient::new(channel.clone())
        .attach(request)
        .await
        .map(|_| ())
}

/// Stores a secret without anybody having asked for it.
async fn give_out(store: &Store, secret: UnitEffect) {
    let append = UnitAppend {
        effects: vec![secret],
        ..UnitAppend::default()
    };
    store.append_unit(&append).await.expect("stored");
}

#[tokio::test]
async fn a_site_link_opens_its_site_and_its_sites_meetings_alone() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let person = fixture.person().await;
    let channel = fixture.channel().await;
    let expired = random_secret();
    let hash = sha256_text(expired.as_bytes());
    let store = store(&fixture).await;
    let link = UnitEffect::AddSiteLink {
        hash,
        site: "A1".into(),
        by: ACCOUNT.into(),
        now_ms: now_ms() - 2000,
        expires_ms: now_ms() - 1000,
    };
    give_out(&store, link).await;
    for (reason, secret) in [
        ("missing", String::new()),
        ("link_expired", expired),
        ("link_unknown", random_secret()),
        ("link_unknown", person.token.clone()),
    ] {
        let attempt = attach(&channel, &secret);
        refused(
            &fixture,
            ("endpoint", reason),
            (Code::Unauthenticated, &secret),
            attempt,
        )
        .await;
    }

    let mut endpoints = attached(&fixture, &["A1", "B1"]).await;
    let meeting = person.convene(&["A1"]).await.expect("convened");
    endpoints[0].ticket(&meeting.id).await.expect("its own meeting");
    let stranger = &mut endpoints[1];
    let error = stranger
        .ticket(&meeting.id)
        .await
        .expect_err("another site's meeting");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let error = stranger
        .report(&meeting.id, pb::SummonsState::Answered)
        .await
        .expect_err("another's call");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let other = person.meeting(&meeting.id).await;
    assert_eq!(other.summonses.len(), 1, "{other:?}");
    assert_ne!(other.summonses[0].state(), pb::SummonsState::Answered);
}

/// Credentials for this key-holder as another CA, or this one with another validity, would sign them.
fn forged(fixture: &Fixture, identity: &Identity, expired: bool) -> Credentials {
    let real = Authority::load_or_create(&fixture.dir.path().join("ca")).expect("the CA");
    if !expired {
        let stranger = Authority::in_memory().expect("a CA");
        let mut credentials = stranger.credentials(identity.clone()).expect("signed");
        // Their server is ours.
        credentials.ca_pem = real.ca_pem().to_owned();
        return credentials;
    }
    let key = std::fs::read_to_string(fixture.dir.path().join("ca/ca-key.pem")).expect("the CA's key");
    let key = rcgen::KeyPair::from_pem(&key).expect("a key");
    let issuer = rcgen::Issuer::from_ca_cert_pem(real.ca_pem(), key).expect("an issuer");
    let own = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    let uri = format!("muster:{identity}").as_str().try_into().expect("ASCII");
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let hour = std::time::Duration::from_secs(3600);
    params.not_before = (SystemTime::now() - 48 * hour).into();
    params.not_after = (SystemTime::now() - hour).into();
    let cert = params.signed_by(&own, &issuer).expect("signed");
    Credentials {
        identity: identity.clone(),
        cert_pem: cert.pem(),
        key_pem: own.serialize_pem(),
        ca_pem: real.ca_pem().to_owned(),
        token_key_pem: real.token_key_pem(),
    }
}

async fn agents_channel(fixture: &Fixture, credentials: &Credentials) -> Channel {
    let address = fixture.control_plane.agents_addr().to_string();
    connect(&address, credentials).await.expect("a channel")
}

/// To the same port, without any certificate.
async fn bare_channel(fixture: &Fixture) -> Channel {
    let ca = Authority::load_or_create(&fixture.dir.path().join("ca")).expect("the CA");
    let mut config = muster_identity::web_client_config(ca.ca_pem().as_bytes()).expect("a CA");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connector, addr) = (
        TlsConnector::from(Arc::new(config)),
        fixture.control_plane.agents_addr(),
    );
    let service = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let name = ServerName::try_from(CONTROL_PLANE_NAME).map_err(std::io::Error::other)?;
            let stream = connector.connect(name, TcpStream::connect(addr).await?).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://control-plane");
    endpoint.connect_with_connector(service).await.expect("connected")
}

async fn agent(fixture: &Fixture, site: &str) -> Credentials {
    let token = fixture
        .person()
        .await
        .enrol_token(Target::Site(site.into()))
        .await;
    enrol(&fixture.control_plane.agents_addr().to_string(), &token)
        .await
        .expect("enrolled")
}

#[tokio::test]
async fn an_agents_certificate_is_of_this_ca_lasts_and_is_for_one_site() {
    let fixture = small().await;
    let _relay = FakeRelay::start(&fixture).await;
    let a1 = agent(&fixture, "A1").await;
    let channel = agents_channel(&fixture, &a1).await;
    attach(&channel, "").await.expect("its own certificate");

    for expired in [false, true] {
        let before = counted(&fixture, "tls", "handshake").await;
        let credentials = forged(&fixture, &a1.identity, expired);
        let error = attach(&agents_channel(&fixture, &credentials).await, "")
            .await
            .expect_err("refused");
        assert_ne!(error.code(), Code::Ok);
        until_counted(&fixture, ("tls", "handshake"), before).await;
    }

    let nobody = bare_channel(&fixture).await;
    refused(
        &fixture,
        ("endpoint", "missing"),
        (Code::Unauthenticated, ""),
        attach(&nobody, ""),
    )
    .await;
    let attempt = async { FleetServiceClient::new(nobody).serve(tokio_stream::empty()).await };
    refused(
        &fixture,
        ("relay", "not_a_relay"),
        (Code::Unauthenticated, ""),
        attempt,
    )
    .await;

    let person = fixture.person().await;
    let meeting = person.convene(&["A2"]).await.expect("convened");
    let mut client = EndpointServiceClient::new(channel);
    let message = pb::GetTicketRequest {
        meeting: meeting.id.clone(),
        ..Default::default()
    };
    let error = client.get_ticket(message).await.expect_err("another site's call");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let message = pb::ReportSummonsRequest {
        meeting: meeting.id,
        state: pb::SummonsState::Answered.into(),
        ..Default::default()
    };
    let error = client
        .report_summons(message)
        .await
        .expect_err("another site's call");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
}

#[tokio::test]
async fn an_agent_is_no_relay_and_a_relay_no_agent() {
    let fixture = small().await;
    let relay = FakeRelay::start(&fixture).await;
    let agents = agents_channel(&fixture, &agent(&fixture, "A1").await).await;
    let hello = pb::ServeRequest {
        message: Some(pb::serve_request::Message::Hello(pb::RelayHello {
            http_url: "https://192.0.2.1:1".into(),
            ..Default::default()
        })),
    };
    let attempt = async {
        FleetServiceClient::new(agents)
            .serve(tokio_stream::once(hello))
            .await
    };
    refused(
        &fixture,
        ("relay", "not_a_relay"),
        (Code::Unauthenticated, ""),
        attempt,
    )
    .await;
    let relays = agents_channel(&fixture, &relay.credentials).await;
    refused(
        &fixture,
        ("endpoint", "missing"),
        (Code::Unauthenticated, ""),
        attach(&relays, ""),
    )
    .await;
    for expired in [false, true] {
        let before = counted(&fixture, "tls", "handshake").await;
        let forged = forged(&fixture, &relay.credentials.identity, expired);
        let mut client = FleetServiceClient::new(agents_channel(&fixture, &forged).await);
        client.serve(tokio_stream::empty()).await.expect_err("refused");
        until_counted(&fixture, ("tls", "handshake"), before).await;
    }
}

/// Tries to enrol; gives what was said against it.
async fn not_enrolled(fixture: &Fixture, token: &EnrolToken, reason: &str) {
    let before = counted(fixture, "enrolment", reason).await;
    let address = fixture.control_plane.agents_addr().to_string();
    let error = enrol(&address, token).await.expect_err(reason);
    assert!(matches!(error, EnrolError::Refused(_)), "{reason}: {error}");
    assert!(!error.to_string().contains(&token.secret), "{reason}: {error}");
    until_counted(fixture, ("enrolment", reason), before).await;
}

#[tokio::test]
async fn an_enrolment_token_is_good_once_in_its_time_and_if_it_was_made_here() {
    let fixture = small().await;
    let person = fixture.person().await;
    let address = fixture.control_plane.agents_addr().to_string();
    let token = person.enrol_token(Target::Site("A1".into())).await;
    enrol(&address, &token).await.expect("enrolled");
    not_enrolled(&fixture, &token, "used").await;
    not_enrolled(
        &fixture,
        &EnrolToken::new(token.ca_fingerprint.clone()),
        "unknown",
    )
    .await;
    let expired = EnrolToken::new(token.ca_fingerprint.clone());
    let hash = sha256_text(expired.secret.as_bytes());
    let store = store(&fixture).await;
    let token = UnitEffect::AddEnrolToken {
        hash,
        identity: "agent:A1".into(),
        by: ACCOUNT.into(),
        expires_ms: now_ms() - 1,
    };
    give_out(&store, token).await;
    not_enrolled(&fixture, &expired, "expired").await;
    let elsewhere = EnrolToken::new(sha256_text(b"another CA"));
    let error = enrol(&address, &elsewhere)
        .await
        .expect_err("another installation's");
    assert!(matches!(error, EnrolError::WrongServer { .. }), "{error}");
}

#[tokio::test]
async fn a_relay_is_given_its_names_but_none_of_the_control_planes() {
    let dir = tempfile::tempdir().expect("folder");
    let fixture =
        crate::support::small_with(dir, |config| config.tls_names = vec!["cp.example".into()]).await;
    let address = fixture.control_plane.agents_addr().to_string();
    let token = fixture
        .person()
        .await
        .enrol_token(Target::RelayUnit("D".into()))
        .await;
    for own in ["cp.example", "muster-control-plane"] {
        let error = enrol_as(&address, &token, &[own.to_owned()])
            .await
            .expect_err("a name of its own");
        assert!(error.to_string().contains("--tls-cert"), "{error}");
    }
    assert_eq!(counted(&fixture, "enrolment", "request").await, 2);
    // The token was not spent by that.
    let names = ["relay.example".to_owned()];
    let first = enrol_as(&address, &token, &names).await.expect("enrolled");
    assert!(muster_identity::all_named(&first.names(), &names));
    let names = ["other.example".to_owned()];
    let second = renew(&address, &first, &names).await.expect("made anew");
    assert_eq!(second.identity, first.identity);
    assert!(muster_identity::all_named(&second.names(), &names));
    let error = renew(&address, &second, &["cp.example".to_owned()])
        .await
        .expect_err("a name of its own");
    assert!(matches!(error, EnrolError::RequestRefused(_)), "{error}");
    // Nobody else gets a certificate without a token.
    let agent = agent(&fixture, "A1").await;
    let error = renew(&address, &agent, &[]).await.expect_err("an agent");
    assert!(matches!(error, EnrolError::Refused(_)), "{error}");
}

/// A guess from this address of the loopback network; the gRPC status that it came to.
async fn guess(fixture: &Fixture, from: Ipv4Addr) -> String {
    let message = pb::SignInRequest {
        account: ACCOUNT.into(),
        password: "a wrong password".into(),
    };
    let head = "POST /muster.command.v1.SessionService/SignIn HTTP/1.1\r\nContent-Type: application/grpc-web+proto\r\n\
                X-Grpc-Web: 1\r\n";
    let (head, body) = http_from(from, fixture.control_plane.addr(), head, &framed(&message)).await;
    let told = head + &String::from_utf8_lossy(&body);
    let at = told.find("grpc-status:").expect("a status") + "grpc-status:".len();
    let status: String = told[at..]
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    status
}

#[tokio::test]
async fn guesses_from_elsewhere_do_not_keep_the_duty_officer_out() {
    let fixture = small().await;
    let attacker = Ipv4Addr::new(127, 0, 0, 2);
    let before = counted(&fixture, "sign_in", "too_many").await;
    for _ in 0..10 {
        assert_eq!(
            guess(&fixture, attacker).await,
            (Code::Unauthenticated as u8).to_string()
        );
    }
    assert_eq!(
        guess(&fixture, attacker).await,
        (Code::ResourceExhausted as u8).to_string()
    );
    assert!(counted(&fixture, "sign_in", "too_many").await > before);
    Person::sign_in(fixture.channel().await, ACCOUNT).await;
    // From an address that is not known it takes a moment longer, and no more than that.
    assert_eq!(
        guess(&fixture, Ipv4Addr::new(127, 0, 0, 3)).await,
        (Code::Unauthenticated as u8).to_string()
    );
}

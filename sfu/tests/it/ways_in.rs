//! Every way in at the relay, over real sockets: what a join token and a leg's secret open, what they do not, and that each
//! refusal is counted by its reason and repeats nothing of what was shown.

use muster_identity::{Authority, Identity, JoinClaims, Track, View};
use muster_proto::media::v1::media_service_client::MediaServiceClient;
use muster_proto::media::v1::{
    SetViewRequest, SlotStatus, SlotWish, SourceKind, SourceRef, StageRef, WatchLegRequest, slot_wish,
};
use muster_sfu::{HttpTls, Relay};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use crate::support::agent::{Agent, LARGE, slot, wish};
use crate::support::browser::Browser;
use crate::support::http::{Answer, post_offer, request};
use crate::support::{Bench, config, credentials, now_s, stage, until};

const SDP: (&str, &str) = ("content-type", "application/sdp");

/// How often something was refused with this code.
async fn counted(bench: &Bench, code: &str) -> u64 {
    let page = request(bench.relay.http_addr(), "GET", "/metrics", &[], "")
        .await
        .body;
    let series = format!("muster_relay_joins_refused_total{{reason=\"{code}\"}} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&series));
    found.map_or(0, |count| count.parse().expect("a number"))
}

fn claims(site: &str) -> JoinClaims {
    JoinClaims::new("m", site, false, true, now_s())
}

/// A token with another audience, which the signer itself would never make.
fn of_audience(bench: &Bench, audience: &str) -> String {
    let key = std::fs::read(bench._dir.path().join("authority/token-key.pem")).expect("the key");
    let key = jsonwebtoken::EncodingKey::from_ed_pem(&key).expect("a key");
    let mut claims = serde_json::to_value(claims("a")).expect("JSON");
    claims["aud"] = audience.into();
    jsonwebtoken::encode(
        &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA),
        &claims,
        &key,
    )
    .expect("signed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_opens_one_leg_here_and_now() {
    let bench = Bench::start(1).await;
    let relay = bench.relay.http_addr();
    let offer = Browser::join(&bench, "other", false, 1).await.offer.clone();
    let stranger = Authority::in_memory().expect("an authority");
    let forged = stranger
        .token_signer()
        .expect("a signer")
        .sign(&claims("a"))
        .expect("signed");
    let mut desk = claims("desk:wang");
    desk.role = muster_identity::Role::Site;
    let used = bench.token("m", "used");
    let first = post_offer(relay, &used, &offer).await;
    assert_eq!(first.status, 201, "{}", first.body);

    // The same POST again is the same leg, twice at once too.
    let (again, twin) = tokio::join!(post_offer(relay, &used, &offer), post_offer(relay, &used, &offer));
    assert_eq!((again.leg(), again.body), (first.leg(), first.body.clone()));
    assert_eq!(twin.leg(), first.leg());

    for (what, token, offer, status, code) in [
        ("forged", forged, &offer, 401, "token_invalid"),
        ("junk", "junk".to_owned(), &offer, 401, "token_invalid"),
        (
            "expired",
            bench.sign(&JoinClaims::new("m", "a", false, true, now_s() - 121)),
            &offer,
            401,
            "token_expired",
        ),
        (
            "another relay's",
            bench.sign(&claims("a").at_relay("r2")),
            &offer,
            401,
            "wrong_relay",
        ),
        (
            "another audience's",
            of_audience(&bench, "muster-console"),
            &offer,
            401,
            "token_invalid",
        ),
        (
            "a desk that says it is a site",
            bench.sign(&desk),
            &offer,
            401,
            "token_invalid",
        ),
        (
            "replayed with another offer",
            used,
            &offer.replace("s=-", "s=x"),
            409,
            "token_used",
        ),
    ] {
        let before = counted(&bench, code).await;
        let answer = post_offer(relay, &token, offer).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
        assert!(!answer.body.contains(&token), "{what}: {}", answer.body);
        assert_eq!(counted(&bench, code).await, before + 1, "{what}");
    }
    let before = counted(&bench, "token_missing").await;
    let answer = request(relay, "POST", "/v1/legs", &[SDP], &offer).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_missing"));
    assert_eq!(counted(&bench, "token_missing").await, before + 1);

    let ours = post_offer(relay, &bench.sign(&claims("b").at_relay("r1")), &offer).await;
    assert_eq!(ours.status, 201, "{}", ours.body);
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_one_meeting_shows_nothing_of_another() {
    let bench = Bench::start(1).await;
    let mut agent = Agent::in_meeting(&bench, 0, "a", Vec::new()).await;
    agent.publish_camera();
    let token = bench.sign(&JoinClaims::new("other", "b", false, true, now_s()));
    let mut stranger = Browser::join_at(&bench, "/v1/legs", &token, "b", false, 1).await;
    stranger
        .set_view(vec![wish("0", "a")])
        .await
        .expect("a wish may name anybody");
    stranger
        .slot_is("0", "absent", |slot| slot.status() == SlotStatus::Absent)
        .await;
    // Whoever is in the meeting sees it: nothing but the token makes the difference.
    let mut member = Browser::join(&bench, "c", false, 1).await;
    member.set_view(vec![wish("0", "a")]).await.expect("a good wish");
    member.sees(&format!("a/{LARGE}")).await;
    assert!(stranger.seen().payloads.is_empty());
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_the_token_does_not_grant_is_not_forwarded() {
    let bench = Bench::start(1).await;
    let sound_alone = bench.sign(&claims("a").publishing(&[Track::Audio]));
    let mut agent = Agent::connect(&bench, 0, "a").await;
    agent.join(sound_alone, Vec::new()).await;
    until("joined", || (bench.relay.leg_count() == 1).then_some(())).await;
    assert_eq!(counted(&bench, "source_not_granted").await, 1);
    agent.publish_camera();
    agent.publish_sound(10);
    let viewer = Agent::in_meeting(&bench, 0, "b", vec![slot("v", false), slot("s", true)]).await;
    viewer.set_view(vec![wish("v", "a")]).await;
    let packets = |slot: usize| {
        let flow = viewer.seen().flows.get(slot).copied();
        flow.map_or(0, |flow| viewer.seen().packets.get(&flow).map_or(0, Vec::len))
    };
    until("its sound is heard", || (packets(1) > 20).then_some(())).await;
    assert_eq!(packets(0), 0, "its camera is not seen");
    let state = viewer.seen().slots.get("v").map(|slot| slot.status());
    assert_eq!(state, Some(SlotStatus::Absent));
    bench.relay.shutdown().await;
}

fn stage_wish(slot: &str) -> SlotWish {
    SlotWish {
        slot: slot.into(),
        what: Some(slot_wish::What::Stage(StageRef::default())),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_the_token_does_not_grant_is_refused_and_the_stage_is_not() {
    let bench = Bench::start(1).await;
    let mut cameras = Vec::new();
    for site in ["a", "b"] {
        let mut agent = Agent::in_meeting(&bench, 0, site, Vec::new()).await;
        agent.publish_camera();
        cameras.push(agent);
    }
    let mut broadcast = stage("m", 1);
    broadcast.broadcast_site = "a".into();
    bench.relay.set_stage(broadcast);
    let token = bench.sign(&claims("c").viewing(View::Stage));
    let mut viewer = Browser::join_at(&bench, "/v1/legs", &token, "c", false, 1).await;
    viewer
        .set_view(vec![stage_wish("0")])
        .await
        .expect("the stage is for all");
    viewer.sees(&format!("a/{LARGE}")).await;
    let refused = viewer
        .set_view(vec![wish("0", "b")])
        .await
        .expect_err("not on the stage");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(counted(&bench, "view_not_granted").await, 1);
    // Whom the stage names everyone may see, and what was shown is shown still.
    viewer.set_view(vec![wish("0", "a")]).await.expect("on the stage");
    viewer.sees(&format!("a/{LARGE}")).await;
    let content = SlotWish {
        slot: "0".into(),
        what: Some(slot_wish::What::Source(SourceRef {
            site: "b".into(),
            kind: SourceKind::Content.into(),
        })),
        ..Default::default()
    };
    let refused = viewer
        .set_view(vec![content])
        .await
        .expect_err("not on the stage");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    // By link it is the same.
    let agent = Agent::connect(&bench, 0, "d").await;
    agent
        .join(
            bench.sign(&claims("d").viewing(View::Stage)),
            vec![slot("v", false)],
        )
        .await;
    until("joined", || (agent.seen().flows.len() == 1).then_some(())).await;
    agent.set_view(vec![wish("v", "b")]).await;
    let code = until("refused", || agent.seen().refused.clone()).await;
    assert_eq!(code, "view_not_granted");
    assert!(agent.seen().packets.is_empty());
    bench.relay.shutdown().await;
}

async fn with_secret(bench: &Bench, method: &str, path: &str, secret: &str) -> Answer {
    let bearer = format!("Bearer {secret}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/trickle-ice-sdpfrag"),
        ("if-match", "*"),
    ];
    request(
        bench.relay.http_addr(),
        method,
        path,
        &headers,
        "a=end-of-candidates\r\n",
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legs_secret_is_for_that_leg_while_it_lasts() {
    let bench = Bench::start(1).await;
    let (first, second) = (
        Browser::join(&bench, "a", false, 1).await,
        Browser::join(&bench, "b", false, 1).await,
    );
    let ((path, secret), (_, others)) = (first.leg(), second.leg());
    let token = bench.token("m", "c");
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", bench.relay.http_addr()));
    let mut media = MediaServiceClient::new(channel.expect("an address").connect_lazy());
    for shown in [others.as_str(), token.as_str(), "junk"] {
        for method in ["PATCH", "DELETE"] {
            let before = counted(&bench, "no_such_leg").await;
            let answer = with_secret(&bench, method, &path, shown).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (404, "no_such_leg"),
                "{method}"
            );
            assert!(!answer.body.contains(shown));
            assert_eq!(counted(&bench, "no_such_leg").await, before + 1);
        }
    }
    for method in ["PATCH", "DELETE"] {
        let answer = request(bench.relay.http_addr(), method, &path, &[], "").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "token_missing"),
            "{method}"
        );
    }
    assert_eq!(bench.relay.leg_count(), 2, "nobody was put out");

    assert_eq!(with_secret(&bench, "DELETE", &path, &secret).await.status, 200);
    until("it has left", || (bench.relay.leg_count() == 1).then_some(())).await;
    for method in ["PATCH", "DELETE"] {
        let answer = with_secret(&bench, method, &path, &secret).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, "no_such_leg"),
            "{method} after its end"
        );
    }
    for shown in [secret.as_str(), "junk"] {
        let bearer = |mut headers: tonic::metadata::MetadataMap| {
            headers.insert("authorization", format!("Bearer {shown}").parse().expect("text"));
            headers
        };
        let mut view = tonic::Request::new(SetViewRequest::default());
        *view.metadata_mut() = bearer(view.metadata().clone());
        let refused = media.set_view(view).await.expect_err("no leg of its own");
        assert_eq!(refused.code(), Code::Unauthenticated);
        let mut watch = tonic::Request::new(WatchLegRequest {});
        *watch.metadata_mut() = bearer(watch.metadata().clone());
        let refused = media.watch_leg(watch).await.expect_err("no leg of its own");
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(!format!("{refused:?}").contains(&secret));
    }
    bench.relay.shutdown().await;
}

/// One GET over TLS; what the relay answers.
async fn get_over_tls(relay: &Relay, ca_pem: &str, path: &str) -> std::io::Result<String> {
    let config = muster_identity::web_client_config(ca_pem.as_bytes()).expect("a CA");
    let address = format!("localhost:{}", relay.http_addr().port());
    let mut stream = muster_identity::connect_web(&address, Arc::new(config)).await?;
    let text = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_is_over_tls_with_the_certificate_of_the_enrolment() {
    let dir = tempfile::tempdir().expect("temp dir");
    let authority = Authority::load_or_create(&dir.path().join("authority")).expect("authority");
    let mut tls = config(&authority, dir.path());
    tls.http_tls = HttpTls::Own;
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = rcgen::KeyPair::generate().expect("a key");
    let csr = rcgen::CertificateParams::new(names)
        .expect("names")
        .serialize_request(&key)
        .expect("csr");
    let mut own = credentials(&authority, Identity::Relay("r1".into()));
    own.cert_pem = authority
        .issue(&csr.pem().expect("PEM"), &own.identity)
        .expect("signed");
    own.key_pem = key.serialize_pem();
    own.save(&tls.identity_dir).expect("saved");
    let relay = Relay::start(tls).await.expect("relay starts");

    let answer = get_over_tls(&relay, authority.ca_pem(), "/healthz")
        .await
        .expect("trusted");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let stranger = Authority::in_memory().expect("a CA");
    get_over_tls(&relay, stranger.ca_pem(), "/healthz")
        .await
        .expect_err("another CA");
    let plain = request(relay.http_addr(), "GET", "/healthz", &[], "").await;
    assert_eq!(plain.status, 400);
    assert!(plain.body.contains("https://"), "{}", plain.body);
    let page = get_over_tls(&relay, authority.ca_pem(), "/metrics")
        .await
        .expect("trusted");
    let failed = page
        .lines()
        .find(|line| line.starts_with("muster_relay_http_closed_total{reason=\"handshake\"}"));
    assert!(
        failed.is_some_and(|line| !line.ends_with(" 0")),
        "the plain one and the stranger are counted"
    );
    relay.shutdown().await;
}

#[tokio::test]
async fn plain_http_on_all_addresses_is_refused_with_words() {
    let dir = tempfile::tempdir().expect("temp dir");
    let authority = Authority::load_or_create(&dir.path().join("authority")).expect("authority");
    let mut plain = config(&authority, dir.path());
    plain.http_listen = "0.0.0.0:0".parse().expect("an address");
    let error = Relay::start(plain).await.err().expect("refused");
    assert!(
        error.to_string().contains("--insecure-plain-anywhere"),
        "{error:#}"
    );
}

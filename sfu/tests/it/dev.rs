//! Development mode: WHIP and WHEP (RFC 9725, draft-ietf-wish-whep) for whoever has the token.

use muster_proto::media::v1::SlotStatus;
use muster_sfu::DevToken;

use crate::support::browser::Browser;
use crate::support::http::{Answer, post_offer_to, request};
use crate::support::{Bench, until};

const TOKEN: &str = "let-me-in";
const BEARER: (&str, &str) = ("authorization", "Bearer let-me-in");
const SDP: (&str, &str) = ("content-type", "application/sdp");
const FRAGMENT: (&str, &str) = ("content-type", "application/trickle-ice-sdpfrag");

async fn dev_bench(workers: usize) -> Bench {
    Bench::start_with(|config| {
        config.workers = workers;
        config.dev = Some(DevToken::new(TOKEN).expect("a token"));
        config.identity_dir = config.identity_dir.join("nothing-here");
        config.ice_servers = [
            "stun:stun.example",
            "turn:turn.example?transport=tcp,username=u,credential=c",
        ]
        .map(|text| text.parse().expect("a server"))
        .to_vec();
    })
    .await
}

async fn publisher(bench: &Bench, mark: &str) -> Browser {
    let mut publisher = Browser::join_at(bench, "/whip/m", TOKEN, mark, true, 0).await;
    publisher.publish_camera();
    publisher
}

/// Who is live in the slot.
async fn live(viewer: &Browser, slot: &str, other_than: &str) -> String {
    let is = |s: &muster_proto::media::v1::SlotState| s.source.as_ref().map(|source| source.site.clone());
    let state = viewer
        .slot_is(slot, "is live", |s| {
            s.status() == SlotStatus::Live && is(s).is_some_and(|site| site != other_than)
        })
        .await;
    is(&state).expect("a source")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewers_slots_show_the_publishers_in_the_order_they_came() {
    let bench = dev_bench(2).await;
    let first = publisher(&bench, "first").await;
    let viewer = Browser::join_at(&bench, "/whep/m", TOKEN, "viewer", false, 2).await;
    viewer.sees("first").await;
    let site_of_first = live(&viewer, "0", "").await;
    let second = publisher(&bench, "second").await;
    viewer.sees("second").await;
    let site_of_second = live(&viewer, "1", "").await;
    assert_ne!(site_of_first, site_of_second);
    // Those in another meeting are not seen.
    let _stranger = Browser::join_at(&bench, "/whip/other", TOKEN, "stranger", true, 0).await;

    let (path, _) = first.leg();
    assert_eq!(
        request(bench.relay.http_addr(), "DELETE", &path, &[BEARER], "")
            .await
            .status,
        200
    );
    assert_eq!(
        live(&viewer, "0", &site_of_first).await,
        site_of_second,
        "the next moves up"
    );
    viewer
        .slot_is("1", "is empty", |s| s.status() == SlotStatus::Empty)
        .await;
    let _third = publisher(&bench, "third").await;
    viewer.sees("third").await;
    drop(second);
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_with_wishes_of_its_own_follows_no_more() {
    let bench = dev_bench(1).await;
    let _first = publisher(&bench, "first").await;
    let mut viewer = Browser::join_at(&bench, "/whep/m", TOKEN, "viewer", false, 1).await;
    let site = live(&viewer, "0", "").await;
    viewer.set_view(Vec::new()).await.expect("an empty view");
    viewer
        .slot_is("0", "is empty", |s| s.status() == SlotStatus::Empty)
        .await;
    let second = publisher(&bench, "second").await;
    let wish = crate::support::agent::wish("0", &site);
    viewer.set_view(vec![wish]).await.expect("a wish");
    viewer.sees("first").await;
    drop(second);
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_made_patched_and_deleted_as_the_rfc_says() {
    let bench = dev_bench(1).await;
    let relay = bench.relay.http_addr();
    let publisher = Browser::join_at(&bench, "/whip/East-Lake_1", TOKEN, "a", true, 0).await;
    let answer = &publisher.answer;
    assert_eq!(answer.headers["content-type"], "application/sdp");
    assert_eq!(
        answer.headers["link"],
        "<stun:stun.example>; rel=\"ice-server\", <turn:turn.example?transport=tcp>; rel=\"ice-server\"; \
         username=\"u\"; credential=\"c\"; credential-type=\"password\""
    );
    assert_eq!(answer.headers["accept-patch"], "application/trickle-ice-sdpfrag");
    for exposed in ["Location", "ETag", "Link"] {
        assert!(answer.headers["access-control-expose-headers"].contains(exposed));
    }
    let (path, secret) = publisher.leg();
    assert!(path.starts_with("/whip/East-Lake_1/"), "{path}");
    let etag = answer.headers["etag"].clone();
    let candidate = "m=video 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
    let patch =
        async |headers: &[(&str, &str)], body: &str| request(relay, "PATCH", &path, headers, body).await;
    assert_eq!(
        patch(&[BEARER, FRAGMENT, ("if-match", &etag)], candidate)
            .await
            .status,
        204
    );
    assert_eq!(patch(&[BEARER, FRAGMENT], candidate).await.status, 428);
    assert_eq!(
        patch(&[FRAGMENT, ("if-match", &etag)], candidate).await.status,
        401
    );
    let restart = format!("a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n{candidate}");
    let no_restart = patch(&[BEARER, FRAGMENT, ("if-match", &etag)], &restart).await;
    refused(&no_restart, 409, "ice_restart");
    let theirs = publisher
        .offer
        .lines()
        .filter(|l| l.starts_with("a=ice-ufrag:") || l.starts_with("a=ice-pwd:"));
    let same = theirs
        .take(2)
        .chain(candidate.lines())
        .collect::<Vec<_>>()
        .join("\r\n");
    let noted = patch(&[BEARER, FRAGMENT, ("if-match", &etag)], &same).await;
    assert_eq!(noted.status, 204, "{}", noted.body);
    let restarted = patch(&[BEARER, FRAGMENT, ("if-match", "*")], &restart).await;
    assert_eq!(restarted.status, 200);
    assert_ne!(restarted.headers["etag"], etag);
    assert!(
        restarted.body.contains("a=mid:0\r\na=ice-ufrag:"),
        "{}",
        restarted.body
    );
    assert!(
        restarted.body.contains(" typ host\r\na=end-of-candidates"),
        "{}",
        restarted.body
    );
    assert_eq!(
        patch(&[BEARER, FRAGMENT, ("if-match", &etag)], candidate)
            .await
            .status,
        412
    );

    let elsewhere = path.replace("East-Lake_1", "West-Lake");
    let delete = async |path: &str, bearer: &str| {
        let bearer = format!("Bearer {bearer}");
        request(relay, "DELETE", path, &[("authorization", &bearer)], "")
            .await
            .status
    };
    assert_eq!(delete(&elsewhere, TOKEN).await, 404);
    assert_eq!(
        delete(&path, &secret).await,
        401,
        "the leg's secret is for /v1/legs"
    );
    assert_eq!(delete(&path, TOKEN).await, 200);
    assert_eq!(delete(&path, TOKEN).await, 404);
    until("its events end", || publisher.seen().over.then_some(())).await;
    bench.relay.shutdown().await;
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (status, code),
        "{}",
        answer.body
    );
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(problem["status"], status);
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_the_right_status() {
    let bench = dev_bench(1).await;
    let relay = bench.relay.http_addr();
    let publishes = Browser::join_at(&bench, "/whip/m", TOKEN, "a", true, 0)
        .await
        .offer
        .clone();
    let views = Browser::join_at(&bench, "/whep/m", TOKEN, "a", false, 1)
        .await
        .offer
        .clone();

    let answer = request(relay, "POST", "/whip/m", &[SDP], &publishes).await;
    refused(&answer, 401, "token_missing");
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    let answer = post_offer_to(relay, "/whep/m", "let-me-on", &views).await;
    refused(&answer, 401, "token_invalid");
    assert_eq!(
        answer.headers["www-authenticate"],
        "Bearer error=\"invalid_token\""
    );
    let answer = request(
        relay,
        "POST",
        "/whip/m",
        &[BEARER, ("content-type", "text/plain")],
        &publishes,
    )
    .await;
    refused(&answer, 415, "content_type");
    let answer = request(relay, "POST", "/whip/m", &[BEARER, SDP], &"x".repeat(257 * 1024)).await;
    refused(&answer, 413, "too_large");
    for name in ["a%20b", "%2e%2e", &"x".repeat(65)] {
        let answer = post_offer_to(relay, &format!("/whip/{name}"), TOKEN, &publishes).await;
        refused(&answer, 404, "bad_meeting");
    }
    refused(
        &post_offer_to(relay, "/whip/m", TOKEN, "no offer").await,
        400,
        "bad_offer",
    );
    refused(
        &post_offer_to(relay, "/whip/m", TOKEN, &views).await,
        422,
        "bad_offer",
    );
    refused(
        &post_offer_to(relay, "/whep/m", TOKEN, &publishes).await,
        422,
        "bad_offer",
    );
    let unknown = publishes
        .replace("VP8/90000", "XYZ/90000")
        .replace("H264/90000", "XYZ/90000");
    refused(
        &post_offer_to(relay, "/whip/m", TOKEN, &unknown).await,
        422,
        "bad_offer",
    );
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let answer = request(relay, method, "/whip/m", &[BEARER], "").await;
        refused(&answer, 405, "method_not_allowed");
        assert_eq!(answer.headers["allow"], "POST");
    }
    let head = request(relay, "HEAD", "/whep/m", &[BEARER], "").await;
    assert_eq!((head.status, head.headers["allow"].as_str()), (405, "POST"));
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewers_query_is_understood_or_refused() {
    let bench = dev_bench(1).await;
    let relay = bench.relay.http_addr();
    let views = Browser::join_at(&bench, "/whep/m", TOKEN, "a", false, 1)
        .await
        .offer
        .clone();
    for (query, named) in [
        ("Max-Height=360", "`Max-Height`"),
        ("max-height", "max-height"),
        ("max-height=", "max-height"),
        ("max-width=640&max-height=tall", "max-height"),
        (
            "max-width=640&quality=low",
            "max-width=PIXELS or max-height=PIXELS",
        ),
    ] {
        let answer = post_offer_to(relay, &format!("/whep/m?{query}"), TOKEN, &views).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(named), "{query}: {}", answer.body);
    }
    for query in ["", "max-width=640&max-height=360"] {
        let answer = post_offer_to(relay, &format!("/whep/m?{query}"), TOKEN, &views).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_would_also_send_is_answered_as_one_who_views() {
    let bench = dev_bench(1).await;
    let views = Browser::join_at(&bench, "/whep/m", TOKEN, "a", false, 1)
        .await
        .offer
        .clone();
    for both in ["a=sendrecv\r\n", "a=sendrecv \r\n", ""] {
        let offer = views.replace("a=recvonly\r\n", both);
        assert_ne!(views, offer);
        let answer = post_offer_to(bench.relay.http_addr(), "/whep/m", TOKEN, &offer).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert!(answer.body.contains("a=sendonly") && !answer.body.contains("a=recvonly"));
    }
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_say_what_is_taken_and_show_ice_servers_to_who_has_the_token() {
    let bench = dev_bench(1).await;
    let relay = bench.relay.http_addr();
    let preflight = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "POST"),
        BEARER,
    ];
    let answer = request(relay, "OPTIONS", "/whip/m", &preflight, "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["accept-post"], "application/sdp");
    assert!(!answer.headers.contains_key("link"), "a preflight is no question");
    let answer = request(relay, "OPTIONS", "/whep/m", &[BEARER], "").await;
    assert!(answer.headers["link"].contains("stun:stun.example"));
    let answer = request(relay, "OPTIONS", "/whep/m", &[], "").await;
    assert!(
        !answer.headers.contains_key("link"),
        "credentials are for who has the token"
    );
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_in_production_has_no_such_paths() {
    let bench = Bench::start(1).await;
    let answer = post_offer_to(bench.relay.http_addr(), "/whip/m", TOKEN, "v=0").await;
    assert_eq!(answer.status, 404);
    bench.relay.shutdown().await;
}

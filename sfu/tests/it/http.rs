//! The HTTP surface: joining, leaving, patching, and everything that is refused.

use muster_identity::JoinClaims;

use crate::support::browser::Browser;
use crate::support::http::{post_offer, request};
use crate::support::{Bench, now_s, until};

const SDP: (&str, &str) = ("content-type", "application/sdp");
const FRAGMENT: (&str, &str) = ("content-type", "application/trickle-ice-sdpfrag");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_taken_once_and_the_same_post_gets_the_same_answer() {
    let bench = Bench::start(2).await;
    let relay = bench.relay.http_addr();
    let offer = Browser::join(&bench, "other", false, 1).await.offer.clone();
    let token = bench.token("m", "a");
    let (first, twin) = tokio::join!(
        post_offer(relay, &token, &offer),
        post_offer(relay, &token, &offer)
    );
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!(
        (&first.body, first.leg()),
        (&twin.body, twin.leg()),
        "sent twice at once it is one join"
    );
    assert_eq!(post_offer(relay, &token, &offer).await.leg(), first.leg());
    assert_eq!(bench.relay.leg_count(), 2);
    assert_eq!(first.headers["content-type"], "application/sdp");
    assert!(first.headers["etag"].starts_with('"'));
    assert_eq!(first.headers["access-control-allow-origin"], "*");
    assert!(first.body.contains("a=ice-lite"));

    let other = post_offer(relay, &token, &offer.replace("s=-", "s=x")).await;
    assert_eq!((other.status, other.code().as_str()), (409, "token_used"));
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_joins_are_refused_with_a_code() {
    let bench = Bench::start(1).await;
    let relay = bench.relay.http_addr();
    let expired = bench.sign(&JoinClaims::new("m", "a", false, true, now_s() - 1000));
    let answer = post_offer(relay, &expired, "v=0").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_expired"));
    let answer = post_offer(relay, "junk", "v=0").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_invalid"));
    assert_eq!(
        answer.headers["www-authenticate"],
        "Bearer error=\"invalid_token\""
    );
    let answer = request(relay, "POST", "/v1/legs", &[SDP], "v=0").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_missing"));
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    assert_eq!(answer.headers["content-type"], "application/problem+json");

    let token = bench.token("m", "a");
    let answer = post_offer(relay, &token, "this is no offer").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_offer"));
    let bearer = format!("Bearer {token}");
    let auth = ("authorization", bearer.as_str());
    let answer = request(
        relay,
        "POST",
        "/v1/legs",
        &[auth, ("content-type", "text/plain")],
        "v=0",
    )
    .await;
    assert_eq!((answer.status, answer.code().as_str()), (415, "content_type"));
    let answer = request(relay, "POST", "/v1/legs", &[auth, SDP], &"x".repeat(257 * 1024)).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    assert_eq!(bench.relay.leg_count(), 0);

    let text = request(relay, "GET", "/metrics", &[], "").await.body;
    assert!(
        text.contains(r#"muster_relay_joins_refused_total{reason="token_expired"} 1"#),
        "{text}"
    );
    assert_eq!(request(relay, "GET", "/healthz", &[], "").await.status, 200);
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_full_says_so() {
    let bench = Bench::start_with(|config| config.max_legs = 1).await;
    let first = Browser::join(&bench, "a", false, 1).await;
    let answer = post_offer(bench.relay.http_addr(), &bench.token("m", "b"), &first.offer).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "full"));
    assert_eq!(answer.headers["retry-after"], "5");
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_secret_of_the_leg_closes_it() {
    let bench = Bench::start(1).await;
    let relay = bench.relay.http_addr();
    let (browser, other) = (
        Browser::join(&bench, "a", false, 1).await,
        Browser::join(&bench, "b", false, 1).await,
    );
    let ((path, secret), (_, foreign)) = (browser.leg(), other.leg());
    let delete = async |secret: &str| {
        let bearer = format!("Bearer {secret}");
        request(relay, "DELETE", &path, &[("authorization", &bearer)], "")
            .await
            .status
    };
    assert_eq!(delete(&foreign).await, 404);
    assert_eq!(request(relay, "DELETE", &path, &[], "").await.status, 401);
    assert_eq!(bench.relay.leg_count(), 2);
    assert_eq!(delete(&secret).await, 200);
    assert_eq!(bench.relay.leg_count(), 1);
    assert_eq!(delete(&secret).await, 404);
    until("its events end", || browser.seen().over.then_some(())).await;
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patch_is_answered_as_the_rfc_says() {
    let bench = Bench::start(1).await;
    let relay = bench.relay.http_addr();
    let browser = Browser::join(&bench, "a", false, 1).await;
    let (path, secret) = browser.leg();
    let bearer = format!("Bearer {secret}");
    let auth = ("authorization", bearer.as_str());
    let etag = browser.answer.headers["etag"].clone();
    let patch =
        async |headers: &[(&str, &str)], body: &str| request(relay, "PATCH", &path, headers, body).await;
    let candidate =
        "m=video 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\n";
    let restart =
        "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=video 9 RTP/AVP 0\r\na=mid:0\r\n";

    assert_eq!(
        patch(&[auth, FRAGMENT, ("if-match", &etag)], candidate)
            .await
            .status,
        204
    );
    assert_eq!(patch(&[auth, FRAGMENT], candidate).await.status, 428);
    assert_eq!(
        patch(&[auth, FRAGMENT, ("if-match", "\"old\"")], candidate)
            .await
            .status,
        412
    );
    assert_eq!(
        patch(&[auth, SDP, ("if-match", &etag)], candidate).await.status,
        415
    );
    assert_eq!(
        patch(&[auth, FRAGMENT, ("if-match", &etag)], "junk").await.status,
        400
    );
    assert_eq!(
        patch(&[FRAGMENT, ("if-match", &etag)], candidate).await.status,
        401
    );

    let answer = patch(&[auth, FRAGMENT, ("if-match", "\"*\"")], restart).await;
    assert_eq!(answer.status, 200, "with quotes, as some clients send it");
    let answer = patch(&[auth, FRAGMENT, ("if-match", "*")], restart).await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.headers["etag"], etag);
    assert!(answer.body.contains("a=ice-ufrag:") && answer.body.contains("a=ice-pwd:"));
    let candidate_line = format!(
        " udp 2130706431 127.0.0.1 {} typ host",
        bench.relay.media_addrs()[0].port()
    );
    assert!(
        answer.body.contains("\r\nm=video 9 RTP/AVP 0\r\na=mid:0\r\n"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains(&candidate_line), "{}", answer.body);
    assert_eq!(
        patch(&[auth, FRAGMENT, ("if-match", &etag)], candidate)
            .await
            .status,
        412
    );
    for method in ["PUT", "GET", "POST"] {
        let answer = request(relay, method, &path, &[auth], "").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (405, "method_not_allowed")
        );
        let allow = &answer.headers["allow"];
        assert!(allow.contains("DELETE") && allow.contains("PATCH"), "{allow}");
    }
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_may_join() {
    let bench = Bench::start(1).await;
    let preflight = [
        ("origin", "https://console.example"),
        ("access-control-request-method", "POST"),
    ];
    let answer = request(bench.relay.http_addr(), "OPTIONS", "/v1/legs", &preflight, "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    assert!(answer.headers["access-control-allow-headers"].contains("authorization"));
    assert!(answer.headers["access-control-expose-headers"].contains("Muster-Leg-Secret"));
    assert_eq!(answer.headers["accept-post"], "application/sdp");
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_speaks_grpc_web() {
    let bench = Bench::start(1).await;
    let browser = Browser::join(&bench, "a", false, 1).await;
    let bearer = format!("Bearer {}", browser.leg().1);
    // An empty SetViewRequest in a gRPC-web frame.
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/grpc-web+proto"),
    ];
    let path = "/muster.media.v1.MediaService/SetView";
    let answer = request(bench.relay.http_addr(), "POST", path, &headers, "\0\0\0\0\0").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/grpc-web+proto");
    assert!(answer.body.contains("grpc-status:0"), "{:?}", answer.body);
    let stranger = [("authorization", "Bearer none"), headers[1]];
    let answer = request(bench.relay.http_addr(), "POST", path, &stranger, "\0\0\0\0\0").await;
    let told = answer.headers.get("grpc-status").cloned().unwrap_or(answer.body);
    assert!(told.contains("16"), "UNAUTHENTICATED, not {told:?}");
    bench.relay.shutdown().await;
}

//! The relay seen from outside: `/metrics`, `/healthz`, `/readyz`.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::agent::{Agent, LARGE, SMALL, slot, wish};
use crate::support::browser::Browser;
use crate::support::control_plane::ControlPlane;
use crate::support::http::{self, request};
use crate::support::{Bench, until, until_async, vp8};

pub async fn get(bench: &Bench, path: &str) -> http::Answer {
    request(bench.relay.http_addr(), "GET", path, &[], "").await
}

/// Name and labels of a line of a sample.
fn series(line: &str) -> (&str, Vec<(&str, &str)>) {
    let name = line.split(['{', ' ']).next().expect("a name");
    let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let pairs = labels
        .map(|(labels, _)| labels)
        .unwrap_or_default()
        .split(',')
        .filter(|l| !l.is_empty());
    let labels = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').expect("a label");
        (key, value.trim_matches('"'))
    });
    (name, labels.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_say_what_happens_and_nothing_of_whom() {
    let bench = Bench::start(2).await;
    let mut agent =
        Agent::in_meeting(&bench, 0, "site-that-is-nobodys-business", vec![slot("v", false)]).await;
    agent.publish_camera();
    let mut viewer = Browser::join(&bench, "desk:a-person", true, 1).await;
    viewer.publish_camera();
    viewer
        .set_view(vec![
            wish("0", "nowhere"),
            wish("1", "site-that-is-nobodys-business"),
        ])
        .await
        .expect_err("slot 0 is the camera");
    viewer
        .set_view(vec![wish("1", "site-that-is-nobodys-business")])
        .await
        .expect("a good wish");
    until("a picture of any size", || {
        let seen = viewer.seen();
        let (_, last) = seen.payloads.last()?;
        let mark = |layer: u64| format!("site-that-is-nobodys-business/{layer}");
        let any = [SMALL, LARGE]
            .iter()
            .any(|layer| vp8::has_mark(last, &mark(*layer)));
        any.then_some(())
    })
    .await;
    let (leg, secret) = viewer.leg();
    let text = until_async("a second passes", || async {
        let text = get(&bench, "/metrics").await.body;
        let quality = text.contains("muster_relay_publisher_loss_ratio_count");
        if quality { Ok(text) } else { Err(text) }
    })
    .await;

    let mut kinds = BTreeMap::new();
    let mut helped = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            helped.insert(rest.split_once(' ').expect("a text").0.to_owned());
        } else {
            let (name, labels) = series(line);
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            let family = base.filter(|base| kinds.contains_key(*base)).unwrap_or(name);
            assert!(kinds.contains_key(family), "{line}: no TYPE");
            assert!(helped.contains(family), "{line}: no HELP");
            assert!(family.starts_with("muster_relay_"), "{line}");
            for (key, value) in labels {
                assert!(
                    ["reason", "kind", "profile", "table", "worker", "le"].contains(&key),
                    "label {key} in {line}"
                );
                let plain = |c: char| c.is_ascii_alphanumeric() || "_.+".contains(c);
                assert!(value.chars().all(plain), "{line}");
            }
        }
    }
    for foreign in [
        "nobodys",
        "a-person",
        "nowhere",
        "127.0.0.1",
        "m\"",
        leg.rsplit('/').next().expect("a name"),
        &secret,
    ] {
        assert!(!text.contains(foreign), "{foreign} is in\n{text}");
    }
    for expected in [
        "muster_relay_legs{kind=\"webrtc\"} 1",
        "muster_relay_legs{kind=\"link\"} 1",
        "muster_relay_joins_total 2",
        "muster_relay_ready 1",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
    }
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_alone_is_healthy_and_ready() {
    let bench = Bench::start(1).await;
    assert_eq!(get(&bench, "/healthz").await.status, 200);
    let ready = get(&bench, "/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.body, r#"{"ready":true,"reasons":[]}"#);
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_ready_when_its_control_plane_was_there_once() {
    // A port that nothing listens on.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let bench = Bench::start_with(|config| config.control_plane = vec![address.clone()]).await;
    assert_eq!(get(&bench, "/healthz").await.status, 200, "it lives");
    let ready = get(&bench, "/readyz").await;
    assert_eq!(ready.status, 503);
    let told: serde_json::Value = serde_json::from_str(&ready.body).expect("JSON");
    assert_eq!(told["reasons"][0]["code"], "no_control_plane");
    assert!(
        get(&bench, "/metrics")
            .await
            .body
            .contains("\nmuster_relay_ready 0\n")
    );

    let control_plane = ControlPlane::start(&bench.authority, &address).await;
    let until_status = async |status: u16| {
        until_async(&format!("{status}"), || async {
            let ready = get(&bench, "/readyz").await;
            if ready.status == status {
                Ok(())
            } else {
                Err(ready)
            }
        })
        .await
    };
    until_status(200).await;
    control_plane.kill();
    // It goes on alone, so it may be given work.
    assert_eq!(get(&bench, "/readyz").await.status, 200);
    bench.relay.shutdown().await;
}

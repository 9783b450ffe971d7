//! The console's port over TLS: who is trusted, what is agreed, and what a browser is told.

use crate::support::{ACCOUNT, Fixture, PASSWORD, http, sign_in, small_with};
use muster_control_plane::ConsoleTls;
use muster_identity::{PairFiles, connect_web, web_channel, web_client_config};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn fixture(console: ConsoleTls) -> Fixture {
    let dir = tempfile::tempdir().expect("folder");
    small_with(dir, |config| config.console = console).await
}

fn ca(fixture: &Fixture) -> Vec<u8> {
    std::fs::read(fixture.dir.path().join("ca/ca.pem")).expect("ca.pem is made at the first start")
}

/// What a browser gets for `GET path`, in lower case, as `host`, with the protocol that was agreed.
async fn get(fixture: &Fixture, host: &str, path: &str, alpn: &[&str]) -> (Option<Vec<u8>>, String) {
    let mut config = web_client_config(&ca(fixture)).expect("a CA");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let address = format!("{host}:{}", fixture.control_plane.addr().port());
    let mut stream = connect_web(&address, Arc::new(config)).await.expect("trusted");
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    if agreed.as_deref() == Some(b"h2") {
        return (agreed, String::new());
    }
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answered");
    (agreed, String::from_utf8_lossy(&answer).to_lowercase())
}

#[tokio::test]
async fn people_are_served_over_tls_with_a_certificate_made_at_the_first_start() {
    let fixture = fixture(ConsoleTls::Own).await;
    assert!(fixture.control_plane.url().starts_with("https://"));
    let address = fixture.control_plane.addr().to_string();
    let channel = web_channel(&address, web_client_config(&ca(&fixture)).expect("a CA"))
        .await
        .expect("trusted");
    sign_in(channel, ACCOUNT, PASSWORD).await.expect("signed in");

    let (agreed, _) = get(&fixture, "127.0.0.1", "/", &["h2", "http/1.1"]).await;
    assert_eq!(
        agreed.as_deref(),
        Some(&b"h2"[..]),
        "a browser has all its streams on one connection"
    );
    for page in ["/", "/join", "/assets/absent.js"] {
        let (_, answer) = get(&fixture, "127.0.0.1", page, &["http/1.1"]).await;
        for header in [
            "strict-transport-security: max-age=31536000",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "x-frame-options: deny",
            "frame-ancestors 'none'",
            "default-src 'self'",
            "connect-src 'self' https:;",
        ] {
            assert!(answer.contains(header), "{page} lacks {header}: {answer}");
        }
    }
    // What a browser learns of localhost holds for every program there.
    let (_, answer) = get(&fixture, "localhost", "/", &["http/1.1"]).await;
    assert!(
        !answer.contains("strict-transport-security") && answer.contains("nosniff"),
        "{answer}"
    );

    let (head, body) = http(fixture.control_plane.addr(), "GET / HTTP/1.1\r\n", b"").await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("https://"));
}

#[tokio::test]
async fn a_certificate_by_file_is_taken_up_when_it_changes_and_streams_go_on() {
    let dir = tempfile::tempdir().expect("folder");
    let ca = muster_identity::Authority::load_or_create(&dir.path().join("other-ca")).expect("a CA");
    let files = ca
        .kept_server_certificate(dir.path(), &["localhost".to_owned()])
        .expect("made");
    let fixture = small_with(dir, |config| config.console = ConsoleTls::Files(files.clone())).await;
    let address = format!("localhost:{}", fixture.control_plane.addr().port());
    let trust = || web_client_config(ca.ca_pem().as_bytes()).expect("a CA");
    let channel = web_channel(&address, trust()).await.expect("trusted");
    sign_in(channel.clone(), ACCOUNT, PASSWORD)
        .await
        .expect("signed in");
    let shown = async || {
        let stream = connect_web(&address, Arc::new(trust())).await.expect("trusted");
        stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec()
    };
    let before = shown().await;
    let next = fixture.dir.path().join("next");
    let next = ca
        .kept_server_certificate(&next, &["localhost".to_owned()])
        .expect("made");
    for (from, to) in [(next.key, files.key), (next.cert, files.cert)] {
        std::fs::copy(from, to).expect("copied");
    }
    let changed = async {
        while shown().await == before {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), changed)
        .await
        .expect("taken up");
    sign_in(channel.clone(), ACCOUNT, PASSWORD)
        .await
        .expect("the old connection goes on");
    drop(channel);
    let stopping = std::time::Instant::now();
    fixture.control_plane.shutdown().await;
    assert!(
        stopping.elapsed() < Duration::from_secs(4),
        "nothing holds up the end"
    );
}

#[tokio::test]
async fn plain_http_on_all_addresses_and_files_that_are_none_are_refused_with_words() {
    let refused = async |change: fn(&mut muster_control_plane::Config)| {
        let dir = tempfile::tempdir().expect("folder");
        let mut config = muster_control_plane::Config::local(dir.path());
        change(&mut config);
        let started = muster_control_plane::ControlPlane::start(config).await;
        format!("{:#}", started.err().expect("refused"))
    };
    let error = refused(|config| config.listen.set_ip([0, 0, 0, 0].into())).await;
    assert!(error.contains("--insecure-plain-anywhere"), "{error}");
    let error = refused(|config| {
        let none = PairFiles {
            cert: "/nonexistent/cert.pem".into(),
            key: "/nonexistent/key.pem".into(),
        };
        config.console = ConsoleTls::Files(none);
    })
    .await;
    assert!(
        error.contains("--tls-cert") && error.contains("/nonexistent/cert.pem"),
        "{error}"
    );
}

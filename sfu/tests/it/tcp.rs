//! The TCP port for media (RFC 6544): announced after UDP, and closed to who names no leg. That media flows over it is shown
//! with a real browser, in the tests that cross programs.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::browser::Browser;
use crate::support::{Bench, http, in_time, until_async};

/// A frame of RFC 4571.
fn frame(datagram: &[u8]) -> Vec<u8> {
    let length = u16::try_from(datagram.len()).expect("short");
    [&length.to_be_bytes(), datagram].concat()
}

/// A binding request with USERNAME alone (RFC 8489).
fn check(username: &[u8; 8]) -> Vec<u8> {
    let header = [0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    [&header[..], &[7; 12], &[0, 6, 0, 8], username].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_names_no_leg_is_closed_unanswered_and_counted() {
    let bench = Bench::start_with(|config| {
        config.workers = 2;
        config.tcp_listen = Some("127.0.0.1:0".parse().expect("an address"));
    })
    .await;
    let browser = Browser::join(&bench, "a", false, 1).await;
    let answer = &browser.answer.body;
    let candidates: Vec<&str> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"))
        .collect();
    assert_eq!(candidates.len(), 2, "{answer}");
    assert!(candidates[0].contains(" udp "), "UDP is first: {answer}");
    assert!(candidates[1].ends_with(" typ host tcptype passive"), "{answer}");
    let port: u16 = candidates[1]
        .split(' ')
        .nth(5)
        .and_then(|port| port.parse().ok())
        .expect("a port");

    let strangers = [
        frame(b"junk"),
        frame(&check(b"nobo:dyy")),
        vec![0xff, 0xff, 1],
        Vec::new(),
    ];
    for bytes in &strangers {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        stream.write_all(bytes).await.expect("written");
        let mut said = Vec::new();
        // The last says nothing at all: it is closed when its time is over.
        let _ = in_time("the relay closes", stream.read_to_end(&mut said)).await;
        assert!(said.is_empty(), "answered {bytes:?} with {said:?}");
    }
    let counted = format!(
        "muster_relay_dropped_total{{reason=\"tcp_unknown\"}} {}",
        strangers.len()
    );
    until_async("they are counted", || async {
        let metrics = http::request(bench.relay.http_addr(), "GET", "/metrics", &[], "").await;
        metrics.body.contains(&counted).then_some(()).ok_or(())
    })
    .await;
    bench.relay.shutdown().await;
}

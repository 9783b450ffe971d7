//! Junk at every port changes nothing for those who behave.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};

use crate::support::agent::{Agent, LARGE, slot, wish};
use crate::support::browser::Browser;
use crate::support::{Bench, http};

/// Bytes that look random, the same in each run.
fn junk(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_to_every_port_harms_nobody() {
    let bench = Bench::start(2).await;
    let mut agent = Agent::in_meeting(&bench, 0, "a", vec![slot("v", false)]).await;
    agent.publish_camera();
    let mut viewer = Browser::join(&bench, "b", false, 1).await;
    viewer.set_view(vec![wish("0", "a")]).await.expect("a good wish");
    viewer.sees(&format!("a/{LARGE}")).await;

    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    for to in bench.relay.media_addrs().iter().chain(bench.relay.link_addrs()) {
        for n in 0..300u32 {
            let mut bytes = junk(n, (n as usize * 7) % 1400);
            if let Some(first) = bytes.first_mut().filter(|_| n % 3 == 0) {
                // Now and then it looks like STUN, DTLS, RTP or a QUIC Initial.
                *first = [0, 22, 0x80, 0xc0][n as usize / 3 % 4];
            }
            socket.send_to(&bytes, to).expect("sent");
        }
    }
    for n in 0..20 {
        let mut stream = TcpStream::connect(bench.relay.http_addr()).expect("connected");
        let _ = stream.write_all(&junk(n, 500));
    }
    // Datagrams of a true link: unknown flows, no RTP, and RTP of the wrong type.
    for n in 0..100u32 {
        let _ = agent.sender.send_datagram(junk(n, 40).into());
    }
    viewer.seen().payloads.clear();
    viewer.sees(&format!("a/{LARGE}")).await;
    assert_eq!(bench.relay.leg_count(), 2);
    let metrics = http::request(bench.relay.http_addr(), "GET", "/metrics", &[], "")
        .await
        .body;
    assert!(
        metrics.contains(r#"muster_relay_dropped_total{reason="unknown_address"}"#),
        "it is counted: {metrics}"
    );
    bench.relay.shutdown().await;
}

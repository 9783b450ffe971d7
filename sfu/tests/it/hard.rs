//! Hostile datagrams against a running relay: strangers, replays, forgeries, floods; and that nothing is left behind by
//! those who come and go.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::net::UdpSocket;

use crate::support::agent::wish;
use crate::support::browser::Browser;
use crate::support::http::{self, post_offer};
use crate::support::raw::{self, RawPeer};
use crate::support::{Bench, in_time, until, until_async, vp8};

/// A metric's value now, 0 where it is not there yet.
async fn metric(bench: &Bench, series: &str) -> f64 {
    let text = http::request(bench.relay.http_addr(), "GET", "/metrics", &[], "")
        .await
        .body;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or(0.0)
}

async fn dropped(bench: &Bench, reason: &str) -> u64 {
    metric(
        bench,
        &format!("muster_relay_dropped_total{{reason=\"{reason}\"}}"),
    )
    .await as u64
}

/// Waits until at least so many were dropped for this reason.
async fn until_dropped(bench: &Bench, reason: &str, least: u64) {
    until_async(&format!("{least} dropped: {reason}"), || async {
        let now = dropped(bench, reason).await;
        if now >= least { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_passed_no_check_is_not_answered() {
    let bench = Bench::start(1).await;
    let peer = RawPeer::join(&bench, "a").await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("socket");
    let mut srtp = vec![0x90, 96, 0, 1];
    srtp.extend([0x55; 80]);
    let mut rtcp = vec![0x81, 201, 0, 7];
    rtcp.extend([0x55; 44]);
    let others: [Vec<u8>; 6] = [
        srtp,
        rtcp,
        raw::client_hello(1),
        vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40],
        peer.check_with("wrong password wrong password"),
        vec![0xff; 30],
    ];
    for datagram in &others {
        stranger.send_to(datagram, peer.relay).await.expect("sent");
    }
    // Datagrams of one socket are taken in order: the first answer is to the check that came last.
    let check = peer.check();
    stranger.send_to(&check, peer.relay).await.expect("sent");
    let mut buffer = [0; 2000];
    let (length, from) = in_time("an answer", stranger.recv_from(&mut buffer))
        .await
        .expect("one");
    assert_eq!(from, peer.relay);
    assert_eq!(raw::success_of(&buffer[..length]), Some(raw::transaction(&check)));
    assert!(dropped(&bench, "unknown_address").await >= 5);
    assert_eq!(dropped(&bench, "stun_wrong_credentials").await, 1);
    bench.relay.shutdown().await;
}

/// What stands between a browser and the relay: it passes on all, and to the relay more than that.
struct Middle {
    address: SocketAddr,
    /// SRTP packets of the browser that were passed on.
    passed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Middle {
    /// Each SRTP packet is sent again as it was, with a bit flipped, with a number of its own, and from another address.
    async fn before(relay: SocketAddr) -> Self {
        let (near, far, other) = (
            UdpSocket::bind("127.0.0.1:0").await.expect("socket"),
            UdpSocket::bind("127.0.0.1:0").await.expect("socket"),
            UdpSocket::bind("127.0.0.1:0").await.expect("socket"),
        );
        let address = near.local_addr().expect("bound");
        let passed = Arc::new(AtomicU64::new(0));
        let count = passed.clone();
        let task = tokio::spawn(async move {
            let (mut up, mut down) = ([0; 2000], [0; 2000]);
            let mut browser = address;
            loop {
                tokio::select! {
                    got = near.recv_from(&mut up) => {
                        let Ok((length, from)) = got else { continue };
                        browser = from;
                        let datagram = &up[..length];
                        let _ = far.send_to(datagram, relay).await;
                        if raw::is_rtp(datagram) {
                            for forged in forgeries(datagram) {
                                let _ = far.send_to(&forged, relay).await;
                            }
                            let _ = other.send_to(datagram, relay).await;
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    got = far.recv_from(&mut down) => {
                        let Ok((length, _)) = got else { continue };
                        let _ = near.send_to(&down[..length], browser).await;
                    }
                }
            }
        });
        Self {
            address,
            passed,
            task,
        }
    }
}

/// A replay, a changed payload, a changed tag, and a later sequence number.
fn forgeries(datagram: &[u8]) -> [Vec<u8>; 4] {
    let changed = |change: &dyn Fn(&mut [u8])| {
        let mut copy = datagram.to_vec();
        change(&mut copy);
        copy
    };
    let middle = datagram.len() / 2;
    [
        datagram.to_vec(),
        changed(&|d| d[middle] ^= 0x10),
        changed(&|d| d[d.len() - 1] ^= 1),
        changed(&|d| d[2] = d[2].wrapping_add(8)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replayed_and_forged_packets_reach_nobody() {
    let bench = Bench::start(1).await;
    let middle = Middle::before(bench.relay.media_addrs()[0]).await;
    let real = bench.relay.media_addrs()[0].port().to_string();
    let through = middle.address.port().to_string();
    let mut publisher = Browser::join_with(
        &bench,
        ("/v1/legs", &bench.token("m", "a")),
        "a",
        true,
        0,
        |answer| answer.replace(&real, &through),
    )
    .await;
    publisher.publish_camera();
    let mut viewer = Browser::join(&bench, "b", false, 1).await;
    viewer.set_view(vec![wish("0", "a")]).await.expect("a good wish");
    viewer.sees("a").await;
    let enough = 100;
    until("enough was passed on", || {
        (middle.passed.load(Ordering::SeqCst) >= enough).then_some(())
    })
    .await;
    until_dropped(&bench, "replayed", enough).await;
    // Two of four do not hold; a number that is far ahead is none the relay can have seen.
    until_dropped(&bench, "not_authentic", enough).await;
    until_dropped(&bench, "unknown_address", enough).await;
    {
        let seen = viewer.seen();
        let distinct: HashSet<u16> = seen.payloads.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(distinct.len(), seen.payloads.len(), "no number comes twice");
        assert!(
            seen.payloads
                .iter()
                .all(|(_, payload)| vp8::has_mark(payload, "a")),
            "nothing was changed"
        );
    }
    let taken = metric(&bench, "muster_relay_packets_in_total").await as u64;
    let passed = middle.passed.load(Ordering::SeqCst);
    assert!(taken <= passed, "{taken} packets taken of {passed} true ones");
    middle.task.abort();
    bench.relay.shutdown().await;
}

/// Resident memory of this process, which is the relay's too.
fn resident_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("there");
    let kib: f64 = line
        .split_whitespace()
        .next()
        .expect("a number")
        .parse()
        .expect("a number");
    kib / 1024.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_costs_no_memory_and_good_legs_keep_their_media() {
    let bench = Bench::start(1).await;
    let mut publisher = Browser::join(&bench, "a", true, 0).await;
    publisher.publish_camera();
    let mut viewer = Browser::join(&bench, "b", false, 1).await;
    viewer.set_view(vec![wish("0", "a")]).await.expect("a good wish");
    viewer.sees("a").await;
    let victim = RawPeer::join(&bench, "victim").await;
    let first = viewer.seen().payloads.len();
    let before = resident_mb();

    // 60 sockets stand for as many sources as a /24 has in a second; the sizes of tables do not depend on which they are.
    let flooding = Arc::new(AtomicBool::new(true));
    let (relay, bad) = (
        victim.relay,
        victim.check_with("not the password, not the password"),
    );
    let stop = flooding.clone();
    let flood = std::thread::spawn(move || {
        let mut sent = 0u64;
        while stop.load(Ordering::Relaxed) {
            for _ in 0..50 {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
                for datagram in [&bad, &raw::client_hello(sent as u8), &vec![0u8; 40]] {
                    sent += u64::from(socket.send_to(datagram, relay).is_ok());
                }
            }
            std::thread::yield_now();
        }
        sent
    });
    until_dropped(&bench, "stun_wrong_credentials", 3000).await;
    until_dropped(&bench, "unknown_address", 6000).await;
    let during = viewer.seen().payloads.len();
    until("media goes on during the flood", || {
        (viewer.seen().payloads.len() >= during + 100).then_some(())
    })
    .await;
    flooding.store(false, Ordering::Relaxed);
    let sent = flood.join().expect("no panic");
    assert!(sent >= 9000);

    // Whatever the flood pushed out of the socket's buffer was asked for again: the numbers have no hole.
    let all: Vec<u16> = viewer.seen().payloads[first..]
        .iter()
        .map(|(seq, _)| *seq)
        .collect();
    let (from, to) = (all[0], all[all.len() - 1]);
    until("every packet came", || {
        let seen: HashSet<u16> = viewer.seen().payloads.iter().map(|(seq, _)| *seq).collect();
        (0..=to.wrapping_sub(from))
            .all(|n| seen.contains(&from.wrapping_add(n)))
            .then_some(())
    })
    .await;
    let grown = resident_mb() - before;
    assert!(grown < 30.0, "{grown:.1} MB more after {sent} hostile datagrams");
    let tables = |table: &str| format!("muster_relay_table_entries{{worker=\"0\",table=\"{table}\"}}");
    assert_eq!(
        metric(&bench, &tables("addresses")).await,
        2.0,
        "the publisher's and the viewer's"
    );
    assert_eq!(metric(&bench, &tables("ice_names")).await, 3.0);
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_never_ends_has_a_budget() {
    let bench = Bench::start(1).await;
    let peer = RawPeer::join(&bench, "half-open").await;
    let socket = peer.checked_socket().await;
    // Half a ClientHello again and again, each time of another message: nothing is ever whole.
    let mut n = 0;
    until_async("the budget is used up", || {
        n += 1;
        let part = raw::half_client_hello(n);
        let (socket, bench, to) = (&socket, &bench, peer.relay);
        async move {
            socket.send_to(&part, to).await.expect("sent");
            let refused = dropped(bench, "dtls_too_much").await;
            if refused >= 20 { Ok(()) } else { Err(refused) }
        }
    })
    .await;
    // Another leg's handshake is not held up.
    let mut viewer = Browser::join(&bench, "b", false, 1).await;
    viewer.set_view(vec![]).await.expect("taken");
    until_async("two legs", || async {
        if bench.relay.leg_count() == 2 {
            Ok(())
        } else {
            Err(())
        }
    })
    .await;
    bench.relay.shutdown().await;
}

/// The tables of a relay with one worker, all of them empty.
async fn until_empty(bench: &Bench) {
    until_async("the tables are empty again", || async {
        let mut left = Vec::new();
        for table in [
            "legs",
            "meetings",
            "sources",
            "slots",
            "addresses",
            "ice_names",
            "links",
        ] {
            let series = format!("muster_relay_table_entries{{worker=\"0\",table=\"{table}\"}}");
            left.push(metric(bench, &series).await);
        }
        for table in ["known_legs", "secrets"] {
            left.push(
                metric(
                    bench,
                    &format!("muster_relay_shared_entries{{table=\"{table}\"}}"),
                )
                .await,
            );
        }
        left.push(metric(bench, "muster_relay_legs{kind=\"webrtc\"}").await);
        if left.iter().all(|size| *size == 0.0) {
            Ok(())
        } else {
            Err(left)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_who_come_and_go_leave_nothing_behind() {
    let bench = Bench::start(1).await;
    for n in 0..10 {
        let browser = Browser::join(&bench, &format!("whole-{n}"), true, 2).await;
        until_async("connected", || async {
            let series = "muster_relay_table_entries{worker=\"0\",table=\"addresses\"}";
            if metric(&bench, series).await > 0.0 {
                Ok(())
            } else {
                Err(())
            }
        })
        .await;
        let (path, secret) = browser.leg();
        assert_eq!(raw::leave(&bench, &path, &secret).await, 200);
    }
    let mut warm = 0.0;
    for n in 0..300 {
        let peer = RawPeer::join(&bench, &format!("site-{n}")).await;
        peer.checked_socket().await;
        assert_eq!(raw::leave(&bench, &peer.path, &peer.secret).await, 200);
        if n == 100 {
            warm = resident_mb();
        }
    }
    until_empty(&bench).await;
    let tokens = metric(&bench, "muster_relay_shared_entries{table=\"tokens\"}").await;
    assert!(
        (1.0..=310.0).contains(&tokens),
        "used tokens are remembered until they expire: {tokens}"
    );
    let meetings = metric(&bench, "muster_relay_shared_entries{table=\"known_meetings\"}").await;
    assert_eq!(meetings, 1.0, "the one meeting is forgotten a minute later");
    let grown = resident_mb() - warm;
    assert!(grown < 10.0, "{grown:.1} MB more");
    bench.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_used_once_for_good() {
    let bench = Bench::start(1).await;
    let token = bench.token("m", "a");
    let offer = raw::offer("abcd");
    let first = post_offer(bench.relay.http_addr(), &token, &offer).await;
    let (path, secret) = first.leg();
    assert_eq!(raw::leave(&bench, &path, &secret).await, 200);
    let other = raw::offer("efgh");
    let again = post_offer(bench.relay.http_addr(), &token, &other).await;
    assert_eq!((again.status, again.code().as_str()), (409, "token_used"));
    bench.relay.shutdown().await;
}

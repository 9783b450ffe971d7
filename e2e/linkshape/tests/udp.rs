//! The relay between real sockets on the loopback: it does what the pure shaper of the same seed decides, never early.
//!
//! Senders wait until the relay has taken what they sent, so the kernel's buffers never overflow and every packet is
//! offered; how late packets are is not judged here, where other tests share the machine.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the relay is tested with sockets and by the clock"
)]

use muster_linkshape::{
    Cause, Counters, Direction, IP_UDP_OVERHEAD, MAX_CLIENTS, Profile, Relay, RelayCounters, Row, Shaper,
    Verdict,
};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);
const PAYLOAD: usize = 100;

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(any_port()).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// The number that a packet carries, and who sent it.
fn receive(socket: &UdpSocket) -> (u32, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("a packet in time");
    assert_eq!(length, PAYLOAD);
    (
        u32::from_be_bytes(buffer[..4].try_into().expect("four bytes")),
        from,
    )
}

fn send(socket: &UdpSocket, to: SocketAddr, number: u32) {
    let mut payload = [0; PAYLOAD];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    assert_eq!(socket.send_to(&payload, to).expect("sent"), PAYLOAD);
}

/// Waits until the counters are as wanted.
fn until(relay: &Relay, wanted: impl Fn(&RelayCounters) -> bool) -> RelayCounters {
    let began = Instant::now();
    loop {
        let counters = relay.counters();
        if wanted(&counters) {
            return counters;
        }
        assert!(began.elapsed() < PATIENCE && relay.is_running(), "{counters:?}");
        std::thread::yield_now();
    }
}

fn offered(counters: &Counters) -> u64 {
    counters.offered.packets
}

fn lossy() -> Row {
    Row {
        delay_us: 20_000,
        jitter_us: 5_000,
        loss_good: 0.05,
        loss_bad: 0.7,
        p_gb: 0.1,
        p_bg: 0.3,
        ..Row::default()
    }
}

/// Whether the pure shaper delivers each of the first packets.
fn decisions(profile: &Arc<Profile>, seed: u64, direction: Direction) -> impl Iterator<Item = bool> {
    let mut shaper = Shaper::new(Arc::clone(profile), direction.seed(seed));
    (0..).map(
        move |n: u64| match shaper.offer(n * 10_000, PAYLOAD + IP_UDP_OVERHEAD) {
            Verdict::Deliver { .. } => true,
            Verdict::Drop(cause) => {
                assert_eq!(cause, Cause::Loss);
                false
            }
        },
    )
}

#[test]
fn it_delays_and_loses_what_the_pure_shaper_does() {
    let profile = Arc::new(Profile::constant(lossy()));
    let (server, client) = (socket(), socket());
    let to = server.local_addr().expect("an address");
    let relay = Relay::start(any_port(), to, Arc::clone(&profile), 11).expect("a relay");
    let mut up = decisions(&profile, 11, Direction::Up).zip(0u32..);
    let mut most = Duration::ZERO;
    for window in 1..=20u64 {
        let began = Instant::now();
        let packets: Vec<(bool, u32)> = up.by_ref().take(50).collect();
        for (_, number) in &packets {
            send(&client, relay.addr(), *number);
        }
        until(&relay, |counters| offered(&counters.up) == window * 50);
        for (_, number) in packets.iter().filter(|(delivered, _)| *delivered) {
            assert_eq!(
                receive(&server).0,
                *number,
                "exactly what the shaper lets through, in order"
            );
            assert!(
                began.elapsed() >= Duration::from_millis(15),
                "never before the least delay"
            );
            most = most.max(began.elapsed());
        }
    }
    assert!(
        most >= Duration::from_millis(20),
        "of hundreds, some take longer than the mean"
    );
    let counters = relay.stop();
    let mut shaper = Shaper::new(Arc::clone(&profile), Direction::Up.seed(11));
    for n in 0..1_000 {
        shaper.offer(n * 10_000, PAYLOAD + IP_UDP_OVERHEAD);
    }
    let pure = shaper.counters();
    assert_eq!(
        (counters.up.offered, counters.up.delivered, counters.up.lost),
        (pure.offered, pure.delivered, pure.lost)
    );
    assert_eq!((counters.clients, counters.unsent), (1, 0));
    assert!(counters.late_p50_us > 0 && counters.late_p50_us <= counters.late_p99_us);
}

#[test]
fn the_way_back_has_losses_of_its_own() {
    let profile = Arc::new(Profile::constant(lossy()));
    let (server, client) = (socket(), socket());
    let to = server.local_addr().expect("an address");
    let relay = Relay::start(any_port(), to, Arc::clone(&profile), 11).expect("a relay");
    // Held, so that the server learns of the client for certain.
    relay.hold();
    send(&client, relay.addr(), 0);
    let (_, back) = receive(&server);
    relay.release();
    let mut down = decisions(&profile, 11, Direction::Down).zip(0u32..);
    for window in 1..=8u64 {
        let began = Instant::now();
        let packets: Vec<(bool, u32)> = down.by_ref().take(50).collect();
        for (_, number) in &packets {
            send(&server, back, *number);
        }
        until(&relay, |counters| offered(&counters.down) == window * 50);
        for (_, number) in packets.iter().filter(|(delivered, _)| *delivered) {
            assert_eq!(receive(&client), (*number, relay.addr()));
            assert!(
                began.elapsed() >= Duration::from_millis(15),
                "never before the least delay"
            );
        }
    }
    let lost = |direction| {
        decisions(&profile, 11, direction)
            .take(400)
            .map(|delivered| !delivered)
            .collect::<Vec<_>>()
    };
    assert_ne!(lost(Direction::Up), lost(Direction::Down));
    let count = lost(Direction::Down).into_iter().filter(|lost| *lost).count() as u64;
    assert_eq!(relay.stop().down.lost.packets, count);
}

#[test]
fn a_burst_leaves_at_the_rate_and_what_does_not_fit_is_dropped() {
    // 128 bytes are 8 ms; the queue takes 200 ms.
    let row = Row {
        rate_kbps: 128,
        queue_ms: 200,
        delay_us: 5_000,
        ..Row::default()
    };
    let (server, client) = (socket(), socket());
    let to = server.local_addr().expect("an address");
    let relay = Relay::start(any_port(), to, Arc::new(Profile::constant(row)), 1).expect("a relay");
    let began = Instant::now();
    for number in 0..200 {
        send(&client, relay.addr(), number);
    }
    let counters = until(&relay, |counters| offered(&counters.up) == 200);
    // What the link had sent meanwhile made room again.
    let sent_meanwhile = began.elapsed().as_millis() as u64 / 8 + 1;
    let taken = counters.up.delivered.packets;
    assert!(
        (26..=26 + sent_meanwhile).contains(&taken),
        "{taken} taken, {sent_meanwhile} sent meanwhile"
    );
    assert_eq!(counters.up.overflowed.packets, 200 - taken);
    for n in 1..=taken {
        receive(&server);
        assert!(
            began.elapsed() >= Duration::from_millis(5 + 8 * n),
            "packet {n} after {:?}",
            began.elapsed()
        );
    }
    assert!(
        counters.up.max_queue_us <= 200_000 && counters.up.max_queue_us > 190_000,
        "{counters:?}"
    );
}

#[test]
fn a_new_port_of_the_client_is_a_new_address_on_the_same_link() {
    let profile = Arc::new(Profile::constant(lossy()));
    let server = socket();
    let to = server.local_addr().expect("an address");
    let relay = Relay::start(any_port(), to, Arc::clone(&profile), 5).expect("a relay");
    let clients = [socket(), socket()];
    let mut seen: [Option<SocketAddr>; 2] = [None, None];
    // They take turns, and the losses are those of one stream.
    for (delivered, number) in decisions(&profile, 5, Direction::Up).zip(0u32..100) {
        let which = number as usize % 2;
        send(&clients[which], relay.addr(), number);
        until(&relay, |counters| offered(&counters.up) == u64::from(number) + 1);
        if delivered {
            let (received, from) = receive(&server);
            assert_eq!(received, number);
            assert_eq!(
                *seen[which].get_or_insert(from),
                from,
                "an address stays the same"
            );
        }
    }
    let seen = seen.map(|from| from.expect("packets of both arrived"));
    assert_ne!(seen[0], seen[1], "the server sees that the client has moved");
    // Answers go to the address asked.
    for (delivered, number) in decisions(&profile, 5, Direction::Down).zip(0u32..40) {
        let which = number as usize % 2;
        send(&server, seen[which], number);
        until(&relay, |counters| {
            offered(&counters.down) == u64::from(number) + 1
        });
        if delivered {
            assert_eq!(receive(&clients[which]), (number, relay.addr()));
        }
    }
    assert_eq!(relay.stop().clients, 2);
}

#[test]
fn the_profile_begins_at_the_first_packet_or_at_the_release() {
    let row = Row {
        loss_good: 0.8,
        loss_bad: 0.8,
        ..lossy()
    };
    let rows = vec![
        row,
        Row {
            from_us: 86_000_000,
            up: false,
            ..row
        },
    ];
    let profile = Arc::new(Profile::from_rows("late", rows, 86_400_000).expect("a profile"));
    for handshake in [0, 60] {
        let (server, client) = (socket(), socket());
        let to = server.local_addr().expect("an address");
        let relay = Relay::start(any_port(), to, Arc::clone(&profile), 3).expect("a relay");
        if handshake > 0 {
            relay.hold();
        }
        for number in 0..handshake {
            send(&client, relay.addr(), number);
            assert_eq!(receive(&server).0, number, "nothing is lost while held");
        }
        if handshake > 0 {
            relay.release();
        }
        for (delivered, number) in decisions(&profile, 3, Direction::Up).zip(handshake..handshake + 100) {
            send(&client, relay.addr(), number);
            until(&relay, |counters| offered(&counters.up) == u64::from(number) + 1);
            if delivered {
                assert_eq!(receive(&server).0, number);
            }
        }
        assert!(relay.stop().up.lost.packets > 50);
    }
}

#[test]
fn the_address_unused_for_longest_makes_room() {
    let server = socket();
    let to = server.local_addr().expect("an address");
    let relay =
        Relay::start(any_port(), to, Arc::new(Profile::constant(Row::default())), 1).expect("a relay");
    let clients: Vec<UdpSocket> = (0..=MAX_CLIENTS).map(|_| socket()).collect();
    let mut ports = Vec::new();
    for (number, client) in (0u32..).zip(&clients[..MAX_CLIENTS]) {
        send(client, relay.addr(), number);
        ports.push(receive(&server).1);
    }
    // The first is used again, so the second is the oldest when one more comes.
    send(&clients[0], relay.addr(), 0);
    assert_eq!(receive(&server), (0, ports[0]));
    send(&clients[MAX_CLIENTS], relay.addr(), 99);
    assert_eq!(receive(&server).0, 99);
    let counters = relay.counters();
    assert_eq!((counters.clients, counters.evicted), (MAX_CLIENTS as u64 + 1, 1));
    // The second is a new address when it comes back, and then the third has gone.
    send(&clients[1], relay.addr(), 7);
    let (number, from) = receive(&server);
    assert_eq!(number, 7);
    assert!(
        from != ports[0] && !ports[2..].contains(&from),
        "{from} is not another client's"
    );
    send(&server, ports[0], 8);
    assert_eq!(receive(&clients[0]).0, 8, "who stayed is still reached");
    assert_eq!(relay.stop().evicted, 2);
}

#[test]
fn strangers_do_not_get_through_to_a_client() {
    let (server, client, stranger) = (socket(), socket(), socket());
    let to = server.local_addr().expect("an address");
    let relay =
        Relay::start(any_port(), to, Arc::new(Profile::constant(Row::default())), 1).expect("a relay");
    send(&client, relay.addr(), 1);
    let (_, upstream) = receive(&server);
    send(&stranger, upstream, 66);
    send(&server, upstream, 2);
    assert_eq!(
        receive(&client).0,
        2,
        "the stranger's came first and was not passed on"
    );
    assert_eq!(relay.stop().down.offered.packets, 1);
}

#[test]
fn it_ends_at_once_and_frees_its_address() {
    let relay = Relay::start(
        any_port(),
        any_port(),
        Arc::new(Profile::constant(Row::default())),
        1,
    )
    .expect("a relay");
    let addr = relay.addr();
    let taken = Relay::start(addr, addr, Arc::new(Profile::constant(Row::default())), 1).expect_err("taken");
    assert!(
        taken
            .to_string()
            .starts_with(&format!("cannot listen at {addr}: ")),
        "{taken}"
    );
    assert!(relay.is_running());
    relay.stop();
    UdpSocket::bind(addr).expect("free again");
}

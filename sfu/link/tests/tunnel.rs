//! A link where UDP is blocked: through a tunnel of TLS over TCP, back to UDP, and what strangers can do to the port.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use muster_identity::{Authority, Credentials, Identity};
use muster_link::rtp::{LinkRtp, PT_VP8};
use muster_link::{Dial, EdgeLink, LinkError, LinkServer, RelayLink, Transport, Ways};
use muster_proto::media::v1::{LinkDown, LinkPing, LinkUp, link_down, link_up};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

const LOCALHOST: &str = "127.0.0.1:0";
const PATIENCE: Duration = Duration::from_secs(10);
const TUNNEL: &[u8] = b"muster-tunnel/1";

/// A relay whose UDP is elsewhere than edges look for it: at its TCP port's number nobody answers by UDP.
struct World {
    authority: Authority,
    server: Arc<LinkServer>,
    /// Where edges dial.
    address: SocketAddr,
    udp: SocketAddr,
    /// UDP packets to it vanish.
    blackhole: Option<UdpSocket>,
}

impl World {
    fn new() -> Self {
        let (blackhole, listener) = pair_of_ports();
        Self::with(listener, Some(blackhole))
    }

    fn with(listener: TcpListener, blackhole: Option<UdpSocket>) -> Self {
        let authority = Authority::in_memory().expect("authority");
        let relay = authority
            .credentials(Identity::Relay("r1".into()))
            .expect("certificate");
        let address = listener.local_addr().expect("address");
        let socket = UdpSocket::bind(LOCALHOST).expect("socket");
        let udp = socket.local_addr().expect("address");
        let server = LinkServer::bind_with(socket, Some(listener), &relay).expect("server");
        Self {
            authority,
            server: Arc::new(server),
            address,
            udp,
            blackhole,
        }
    }

    fn agent(&self) -> Credentials {
        self.of(Identity::Agent("site-1".into()))
    }

    fn of(&self, identity: Identity) -> Credentials {
        self.authority.credentials(identity).expect("certificate")
    }

    async fn link(&self, dial: Dial) -> (EdgeLink, RelayLink) {
        let (address, agent) = (self.address.to_string(), self.agent());
        let accept = async { self.server.accept().await.expect("open").finish().await };
        let (edge, relay) = tokio::join!(EdgeLink::dial(&address, &agent, dial), accept);
        (edge.expect("edge"), relay.expect("relay"))
    }

    /// A tunnel as a peer of our own making has it.
    async fn tunnel(&self, credentials: &Credentials, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut tls = muster_identity::link_client_config(credentials).expect("TLS");
        tls.alpn_protocols = vec![alpn.to_vec()];
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let tcp = socket.connect(self.address).await?;
        let name = "muster-relay".try_into().expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(tls))
            .connect(name, tcp)
            .await
    }

    async fn until(&self, what: &str, so: impl Fn(&LinkServer) -> bool) {
        let start = Instant::now();
        while !so(&self.server) {
            let stats = self.server.tunnel_stats();
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain for: {what}; {stats:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A UDP and a TCP port of the same number.
fn pair_of_ports() -> (UdpSocket, TcpListener) {
    let found = (0..50).find_map(|_| {
        let udp = UdpSocket::bind(LOCALHOST).expect("socket");
        let listener = TcpListener::bind(udp.local_addr().expect("address")).ok()?;
        Some((udp, listener))
    });
    found.expect("a number that is free for both")
}

fn tcp_alone() -> Dial {
    Dial {
        ways: Ways::TcpAlone,
        ..Dial::default()
    }
}

fn ping(nonce: u64) -> LinkUp {
    LinkUp {
        message: Some(link_up::Message::Ping(LinkPing { nonce })),
    }
}

fn picture(seq: u16) -> LinkRtp<'static> {
    LinkRtp {
        payload_type: PT_VP8,
        marker: true,
        seq,
        timestamp: u32::from(seq) * 900,
        audio_level: None,
        payload: &[7; muster_link::rtp::MAX_PAYLOAD],
    }
}

/// Control and media both ways.
async fn exchange(edge: &mut EdgeLink, relay: &mut RelayLink) {
    for nonce in 0..50 {
        edge.sender.send_control(&ping(nonce)).await.expect("sent");
        assert_eq!(relay.control.recv().await.expect("received"), ping(nonce));
    }
    let pong = LinkDown {
        message: Some(link_down::Message::Pong(LinkPing { nonce: 7 })),
    };
    relay.sender.try_send_control(&pong).expect("sent");
    assert_eq!(edge.control.recv().await.expect("received"), pong);
    for seq in 0..50 {
        edge.sender.send_rtp(300, &picture(seq)).expect("fits");
        let (flow, bytes) = relay.media.recv().await.expect("received");
        assert_eq!((flow, LinkRtp::parse(&bytes)), (300, Ok(picture(seq))));
        relay.sender.send_rtp(5, &picture(seq)).expect("fits");
        let (flow, bytes) = edge.media.recv().await.expect("received");
        assert_eq!((flow, LinkRtp::parse(&bytes)), (5, Ok(picture(seq))));
    }
}

#[tokio::test]
async fn where_udp_vanishes_the_link_goes_over_tcp_and_says_so() {
    let world = World::new();
    let start = Instant::now();
    let (mut edge, mut relay) = world.link(Dial::default()).await;
    let took = start.elapsed();
    eprintln!("UDP blackholed: linked over TCP in {} ms", took.as_millis());
    assert!(took > Duration::from_secs(3), "UDP was given its time: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(
        (edge.sender.transport(), relay.sender.transport()),
        (Transport::Tcp, Transport::Tcp)
    );
    assert_eq!(
        (&edge.peer, &relay.peer),
        (&Identity::Relay("r1".into()), &Identity::Agent("site-1".into()))
    );
    let from = relay.sender.peer_address();
    assert!(from.ip().is_loopback(), "the real address: {from}");
    exchange(&mut edge, &mut relay).await;
    let stats = world.server.tunnel_stats();
    assert_eq!((stats.open, stats.opened, stats.dropped), (1, 1, 0));
    edge.sender.close("hung up");
    assert!(matches!(relay.media.recv().await, Err(LinkError::Lost(_))));
    drop((edge, relay));
    world
        .until("the tunnel is gone", |server| server.tunnel_stats().open == 0)
        .await;
}

#[tokio::test]
async fn where_udp_is_refused_too() {
    let mut world = World::new();
    world.blackhole = None;
    let start = Instant::now();
    let (mut edge, mut relay) = world.link(Dial::default()).await;
    eprintln!(
        "UDP refused: linked over TCP in {} ms",
        start.elapsed().as_millis()
    );
    assert_eq!(edge.sender.transport(), Transport::Tcp);
    exchange(&mut edge, &mut relay).await;
}

#[tokio::test]
async fn tcp_alone_is_quick_and_udp_is_preferred_where_it_works() {
    let world = World::new();
    let start = Instant::now();
    let (edge, relay) = world.link(tcp_alone()).await;
    eprintln!("TCP alone: linked in {} ms", start.elapsed().as_millis());
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(edge.sender.transport(), Transport::Tcp);
    drop((edge, relay));

    let (udp, listener) = pair_of_ports();
    let authority = Authority::in_memory().expect("authority");
    let relay = authority
        .credentials(Identity::Relay("r".into()))
        .expect("certificate");
    let server = LinkServer::bind_with(udp, Some(listener), &relay).expect("server");
    let address = server.local_addr().expect("address").to_string();
    let agent = authority
        .credentials(Identity::Agent("s".into()))
        .expect("certificate");
    let accept = async { server.accept().await.expect("open").finish().await };
    let (edge, relay) = tokio::join!(EdgeLink::connect(&address, &agent), accept);
    let (edge, relay) = (edge.expect("edge"), relay.expect("relay"));
    assert_eq!(
        (edge.sender.transport(), relay.sender.transport()),
        (Transport::Udp, Transport::Udp)
    );
    assert_eq!(server.tunnel_stats().opened, 0);
}

#[tokio::test]
async fn udp_alone_never_goes_by_tcp() {
    let world = World::new();
    let dial = Dial {
        ways: Ways::UdpAlone,
        ..Dial::default()
    };
    let refused = EdgeLink::dial(&world.address.to_string(), &world.agent(), dial).await;
    assert!(matches!(refused, Err(LinkError::Timeout(_))), "{refused:?}");
    assert_eq!(world.server.tunnel_stats().opened, 0);
}

/// Sends a packet each 10 ms for `count` of them; the relay's end says how many came, and the longest time between two.
async fn stream(
    edge: &EdgeLink,
    relay: &mut RelayLink,
    count: u16,
    mut at: impl FnMut(u16),
) -> (usize, Duration) {
    let send = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        for seq in 0..count {
            tick.tick().await;
            at(seq);
            edge.sender.send_rtp(1, &picture(seq)).expect("the link lives");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let mut came = Vec::new();
    let receive = async {
        loop {
            relay.media.recv().await.expect("the link lives");
            came.push(Instant::now());
        }
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
    let gaps = came.windows(2).map(|pair| pair[1] - pair[0]);
    (came.len(), gaps.max().unwrap_or_default())
}

#[tokio::test]
async fn when_udp_works_again_the_link_moves_there_and_lives_on() {
    // Dark for 4.5 s from the first packet on, then open.
    let profile = "t_ms,rate_kbps,queue_ms,delay_ms,jitter_ms,loss_good,loss_bad,p_gb,p_bg,up
0,100000,200,1,0,0,0,0,1,0
4500,100000,200,1,0,0,0,0,1,1
900000,100000,200,1,0,0,0,0,1,1
";
    let mut world = World::new();
    // The path takes the place of the blackhole, at the TCP port's number.
    world.blackhole = None;
    let profile = Arc::new(muster_linkshape::Profile::parse("test", profile).expect("profile"));
    let _path = muster_linkshape::Relay::start(world.address, world.udp, profile, 1).expect("a path");
    let dial = Dial {
        udp_again: Duration::from_millis(300),
        ..Dial::default()
    };
    let (edge, mut relay) = world.link(dial).await;
    assert_eq!(edge.sender.transport(), Transport::Tcp);
    // UDP is tried by handshakes of their own.
    let server = world.server.clone();
    let _others = tokio::spawn(async move {
        while let Some(arriving) = server.accept().await {
            assert!(arriving.finish().await.is_err(), "it says no hello");
        }
    });
    let (came, gap) = stream(&edge, &mut relay, 400, |_| {}).await;
    eprintln!(
        "back to UDP: {came} of 400 packets, {} ms the longest gap",
        gap.as_millis()
    );
    assert_eq!(
        (edge.sender.transport(), relay.sender.transport()),
        (Transport::Udp, Transport::Udp)
    );
    assert!(came > 390, "{came}");
    assert!(gap < Duration::from_millis(500), "{gap:?}");
    world
        .until("the tunnel is closed", |server| server.tunnel_stats().open == 0)
        .await;
}

/// A network that lets whole handshakes by UDP through, and links that move there only when it is told to: until then they are
/// swallowed, and answered by junk from the relay's address. Counts what it swallowed.
struct Fickle {
    open: Arc<AtomicBool>,
    swallowed: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Fickle {
    async fn between(address: SocketAddr, relay: SocketAddr) -> Self {
        let outside = Arc::new(tokio::net::UdpSocket::bind(address).await.expect("the port"));
        let (open, swallowed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (lets, count) = (open.clone(), swallowed.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut flows = HashMap::new();
            let mut answers = JoinSet::new();
            let mut buffer = [0; 2048];
            loop {
                let (length, from) = outside.recv_from(&mut buffer).await.expect("received");
                let is_handshake = buffer[0] & 0x80 != 0;
                if !flows.contains_key(&from) && !is_handshake && !lets.load(Ordering::Relaxed) {
                    count.fetch_add(1, Ordering::Relaxed);
                    // As a packet of QUIC looks, of no connection.
                    let _ = outside.send_to(&[0x5a; 60], from).await;
                    continue;
                }
                if let Entry::Vacant(flow) = flows.entry(from) {
                    let inside = Arc::new(tokio::net::UdpSocket::bind(LOCALHOST).await.expect("socket"));
                    let (back, outside) = (inside.clone(), outside.clone());
                    answers.spawn(async move {
                        let mut buffer = [0; 2048];
                        while let Ok((length, _)) = back.recv_from(&mut buffer).await {
                            let _ = outside.send_to(&buffer[..length], from).await;
                        }
                    });
                    flow.insert(inside);
                }
                let _ = flows[&from].send_to(&buffer[..length], relay).await;
            }
        });
        Self {
            open,
            swallowed,
            _task: task,
        }
    }
}

#[tokio::test]
async fn junk_by_udp_is_no_proof_and_after_a_move_that_failed_udp_is_tried_again() {
    let mut world = World::new();
    world.blackhole = None;
    let network = Fickle::between(world.address, world.udp).await;
    let dial = Dial {
        ways: Ways::TcpAlone,
        udp_again: Duration::from_millis(300),
        ..Dial::default()
    };
    let (mut edge, mut relay) = world.link(dial).await;
    let server = world.server.clone();
    let _others = tokio::spawn(async move {
        while let Some(arriving) = server.accept().await {
            assert!(arriving.finish().await.is_err(), "it says no hello");
        }
    });
    for attempt in ["the first", "the second"] {
        let swallowed = network.swallowed.load(Ordering::Relaxed);
        world
            .until(attempt, |_| {
                network.swallowed.load(Ordering::Relaxed) > swallowed
                    && edge.sender.transport() == Transport::Udp
            })
            .await;
        world
            .until("it is back on TCP", |_| edge.sender.transport() == Transport::Tcp)
            .await;
        exchange(&mut edge, &mut relay).await;
    }
    network.open.store(true, Ordering::Relaxed);
    world
        .until("UDP for good: the tunnel is closed", |server| {
            server.tunnel_stats().open == 0
        })
        .await;
    assert_eq!(
        (edge.sender.transport(), relay.sender.transport()),
        (Transport::Udp, Transport::Udp)
    );
    exchange(&mut edge, &mut relay).await;
}

/// Carries UDP both ways until it is told to block it.
struct Wall {
    blocked: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Wall {
    async fn between(address: SocketAddr, relay: SocketAddr) -> Self {
        let outside = tokio::net::UdpSocket::bind(address).await.expect("the port");
        let inside = tokio::net::UdpSocket::bind(LOCALHOST).await.expect("socket");
        let blocked = Arc::<AtomicBool>::default();
        let blocks = blocked.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (mut up, mut down) = ([0; 2048], [0; 2048]);
            let mut edge = None;
            loop {
                let (bytes, to, by) = tokio::select! {
                    Ok((length, from)) = outside.recv_from(&mut up) => {
                        edge = Some(from);
                        (&up[..length], Some(relay), &inside)
                    }
                    Ok((length, _)) = inside.recv_from(&mut down) => (&down[..length], edge, &outside),
                };
                if let Some(to) = to
                    && !blocks.load(Ordering::Relaxed)
                {
                    let _ = by.send_to(bytes, to).await;
                }
            }
        });
        Self { blocked, _task: task }
    }
}

#[tokio::test]
async fn a_link_whose_udp_is_blocked_while_it_is_up_goes_over_tcp_and_lives_on() {
    let mut world = World::new();
    world.blackhole = None;
    let wall = Wall::between(world.address, world.udp).await;
    let (mut edge, mut relay) = world.link(Dial::default()).await;
    assert_eq!(edge.sender.transport(), Transport::Udp);
    exchange(&mut edge, &mut relay).await;
    assert_eq!(world.server.tunnel_stats().opened, 0);
    let (came, gap) = stream(&edge, &mut relay, 700, |seq| {
        if seq == 100 {
            wall.blocked.store(true, Ordering::Relaxed);
        }
    })
    .await;
    eprintln!(
        "UDP blocked in mid-link: {came} of 700 packets, {} ms the longest gap",
        gap.as_millis()
    );
    assert_eq!(
        (edge.sender.transport(), relay.sender.transport()),
        (Transport::Tcp, Transport::Tcp)
    );
    assert!(gap > Duration::from_secs(2), "UDP was given its time: {gap:?}");
    assert!(gap < Duration::from_secs(5), "{gap:?}");
    exchange(&mut edge, &mut relay).await;
}

#[tokio::test]
async fn an_outage_of_udp_and_tcp_ends_where_it_began() {
    let mut world = World::new();
    let (udp, _tcp_that_says_nothing) = pair_of_ports();
    world.address = udp.local_addr().expect("address");
    drop(udp);
    let wall = Wall::between(world.address, world.udp).await;
    let (mut edge, mut relay) = world.link(Dial::default()).await;
    exchange(&mut edge, &mut relay).await;
    let (came, gap) = stream(&edge, &mut relay, 700, |seq| {
        wall.blocked.store((100..600).contains(&seq), Ordering::Relaxed);
    })
    .await;
    eprintln!(
        "5 s without anything: {came} of 700 packets, {} ms the longest gap",
        gap.as_millis()
    );
    assert!(
        (Duration::from_millis(4900)..Duration::from_millis(6500)).contains(&gap),
        "{gap:?}"
    );
    assert_eq!(edge.sender.transport(), Transport::Udp);
    exchange(&mut edge, &mut relay).await;
}

#[tokio::test]
async fn a_tunnel_that_breaks_is_dialled_again_and_the_link_lives_on() {
    let mut world = World::new();
    let outside = tokio::net::TcpListener::bind(LOCALHOST).await.expect("port");
    let inside = std::mem::replace(&mut world.address, outside.local_addr().expect("address"));
    // A middlebox that can drop what it carries.
    let (cut, mut cuts) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let mut carried = JoinSet::new();
        loop {
            tokio::select! {
                Ok((mut edge, _)) = outside.accept() => {
                    carried.spawn(async move {
                        let mut relay = TcpStream::connect(inside).await.expect("the relay");
                        let _ = tokio::io::copy_bidirectional(&mut edge, &mut relay).await;
                    });
                }
                Some(()) = cuts.recv() => carried.abort_all(),
            }
        }
    });
    let (edge, mut relay) = world.link(tcp_alone()).await;
    let (came, gap) = stream(&edge, &mut relay, 400, |seq| {
        if seq == 100 {
            cut.try_send(()).expect("room");
        }
    })
    .await;
    eprintln!(
        "a cut tunnel: {came} of 400 packets, {} ms the longest gap",
        gap.as_millis()
    );
    assert_eq!(world.server.tunnel_stats().opened, 2);
    assert!(came > 370, "{came}");
    assert!(gap < Duration::from_secs(1), "{gap:?}");
}

#[tokio::test]
async fn strangers_and_nonsense_get_nothing_and_a_good_link_still_gets_in() {
    let world = World::new();
    // Garbage, half a hello, nothing at all.
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 3000],
        &[0x16, 3, 1, 2, 0],
        &[],
    ] {
        let mut tcp = TcpStream::connect(world.address).await.expect("connected");
        tcp.write_all(bytes).await.expect("written");
    }
    world
        .until("four refusals", |server| server.tunnel_stats().refused == 4)
        .await;

    // A certificate of another authority, none of an agent, and another protocol.
    let other = Authority::in_memory().expect("authority");
    let mut stranger = other
        .credentials(Identity::Agent("site-1".into()))
        .expect("certificate");
    stranger.ca_pem = world.authority.ca_pem().to_owned();
    let control_plane = world.of(Identity::ControlPlane);
    for (credentials, alpn) in [
        (&stranger, TUNNEL),
        (&control_plane, TUNNEL),
        (&world.agent(), b"muster/1"),
    ] {
        // With TLS 1.3 the edge learns of it when it reads.
        if let Ok(mut tunnel) = world.tunnel(credentials, alpn).await {
            let read = tokio::time::timeout(PATIENCE, tunnel.read_u8()).await;
            assert!(read.expect("an end").is_err());
        }
    }
    // No certificate at all.
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls_pki_types::pem::PemObject::from_pem_slice(world.authority.ca_pem().as_bytes());
    roots.add(ca.expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![TUNNEL.to_vec()];
    let tcp = TcpStream::connect(world.address).await.expect("connected");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    if let Ok(mut tunnel) = connector
        .connect("muster-relay".try_into().expect("name"), tcp)
        .await
    {
        assert!(tunnel.read_u8().await.is_err());
    }
    world
        .until("four more", |server| server.tunnel_stats().refused == 8)
        .await;
    assert_eq!(world.server.tunnel_stats().opened, 0);

    let (mut edge, mut relay) = world.link(tcp_alone()).await;
    exchange(&mut edge, &mut relay).await;
}

#[tokio::test]
async fn handshakes_of_one_address_are_bounded_in_number_and_time() {
    let world = World::new();
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(world.address).await.expect("connected"));
    }
    world
        .until("18 refusals at once", |server| {
            server.tunnel_stats().refused == 18
        })
        .await;
    let start = Instant::now();
    world
        .until("all are refused", |server| server.tunnel_stats().refused == 50)
        .await;
    assert!(start.elapsed() < Duration::from_secs(6));
    for mut tcp in idle {
        assert!(tcp.read_u8().await.is_err(), "closed");
    }
    let (edge, _relay) = world.link(tcp_alone()).await;
    assert_eq!(edge.sender.transport(), Transport::Tcp);
}

#[tokio::test]
async fn bad_frames_end_their_tunnel_alone() {
    let world = World::new();
    let (mut edge, mut relay) = world.link(tcp_alone()).await;
    for bytes in [&[0u8, 0][..], &[0xff, 0xff, 1], &[0x05, 0xc1]] {
        let mut tunnel = world.tunnel(&world.agent(), TUNNEL).await.expect("a tunnel");
        tunnel.write_all(bytes).await.expect("written");
        let read = tokio::time::timeout(PATIENCE, tunnel.read_u8()).await;
        assert!(read.expect("an end").is_err(), "{bytes:?}");
    }
    // Half a frame, and then nothing more: its end ends the tunnel.
    let mut half = world.tunnel(&world.agent(), TUNNEL).await.expect("a tunnel");
    half.write_all(&[0x04, 0xb0, 1, 2, 3]).await.expect("written");
    half.flush().await.expect("flushed");
    world
        .until("five tunnels were", |server| server.tunnel_stats().opened == 5)
        .await;
    drop(half);
    world
        .until("one is left", |server| server.tunnel_stats().open == 1)
        .await;
    // Frames that hold no QUIC are nothing to anybody.
    let mut junk = world.tunnel(&world.agent(), TUNNEL).await.expect("a tunnel");
    for _ in 0..1000 {
        junk.write_all(b"\0\x09some junk").await.expect("written");
    }
    exchange(&mut edge, &mut relay).await;
}

#[tokio::test]
async fn a_peer_has_four_tunnels_and_loses_its_oldest() {
    let world = World::new();
    let mut oldest = world.tunnel(&world.agent(), TUNNEL).await.expect("a tunnel");
    world
        .until("the first", |server| server.tunnel_stats().open == 1)
        .await;
    let mut more = Vec::new();
    for count in 2..=6 {
        more.push(world.tunnel(&world.agent(), TUNNEL).await.expect("a tunnel"));
        world
            .until("one more", |server| server.tunnel_stats().opened == count)
            .await;
    }
    world
        .until("four", |server| server.tunnel_stats().open == 4)
        .await;
    assert!(oldest.read_u8().await.is_err());
    assert_eq!(world.server.tunnel_stats().refused, 0);
}

#[tokio::test]
async fn a_peer_that_never_reads_costs_a_bounded_queue_and_is_counted() {
    let world = World::new();
    let mut deaf = world.tunnel(&world.agent(), TUNNEL).await.expect("a tunnel");
    // Each packet of an unknown version is answered by one that nobody reads.
    let mut frame = vec![0u8; 2 + 1200];
    frame[..2].copy_from_slice(&1200u16.to_be_bytes());
    frame[2] = 0xc0;
    frame[3..7].copy_from_slice(&[0xfa, 0xfa, 0xfa, 0xfa]);
    // Connection ids, ours as long as may be: so is the answer.
    frame[7] = 20;
    frame[28] = 20;
    let start = Instant::now();
    while world.server.tunnel_stats().dropped < 1000 {
        let stats = world.server.tunnel_stats();
        assert!(start.elapsed() < PATIENCE * 2, "nothing is dropped: {stats:?}");
        deaf.write_all(&frame).await.expect("the relay reads on");
    }
    let (mut edge, mut relay) = world.link(tcp_alone()).await;
    exchange(&mut edge, &mut relay).await;
}

//! A link whose address changes, and one with two interfaces of which one dies: two network namespaces joined by two cables.
//! Needs root, as the program's other tests of whole networks do.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use muster_identity::{Authority, Credentials, Identity};
use muster_link::rtp::{LinkRtp, PT_OPUS, PT_VP8};
use muster_link::{Dial, EdgeLink, LinkServer, Ways};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

const RELAY: &str = "10.77.9.1";
/// Four seconds.
const UDP: (Ways, u16) = (Ways::UdpAlone, 400);

/// What the two ends say to each other besides the link.
struct Ends {
    /// The agent's namespace, by its thread.
    agent: mpsc::Receiver<i32>,
    /// The relay's address and the agent's certificate.
    ready: mpsc::Sender<(String, Credentials)>,
    /// What is done to the cables, on the relay's side.
    order: mpsc::Receiver<&'static str>,
}

fn ip(arguments: &str) {
    let done = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("the program ip, of iproute2");
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {arguments}: {told}");
}

fn credentials(authority: &Authority, identity: Identity) -> Credentials {
    let key = rcgen::KeyPair::generate().expect("key");
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .expect("request")
        .pem()
        .expect("pem");
    Credentials {
        cert_pem: authority.issue(&request, &identity).expect("certificate"),
        key_pem: key.serialize_pem(),
        ca_pem: authority.ca_pem().to_owned(),
        token_key_pem: authority.token_key_pem(),
        identity,
    }
}

/// The relay's end: takes one link and says when each packet came, until the link ends.
fn relay(ends: Ends) -> Vec<(Instant, u16)> {
    unshare(CloneFlags::CLONE_NEWNET).expect("root, and namespaces");
    let agent = ends.agent.recv().expect("the agent's thread");
    ip("link set lo up");
    ip(&format!("addr add {RELAY}/32 dev lo"));
    for cable in 1..=2 {
        ip(&format!(
            "link add r{cable} type veth peer name a{cable} netns {agent}"
        ));
        ip(&format!("addr add 10.77.{cable}.1/24 dev r{cable}"));
        ip(&format!("link set r{cable} up"));
    }
    let folder = tempfile::tempdir().expect("folder");
    let authority = Authority::load_or_create(folder.path()).expect("authority");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let socket = UdpSocket::bind((RELAY, 0)).expect("socket");
        let relay = credentials(&authority, Identity::Relay("r".into()));
        let listener = TcpListener::bind(socket.local_addr().expect("address")).expect("a port");
        let server = LinkServer::bind_with(socket, Some(listener), &relay).expect("server");
        let address = server.local_addr().expect("address").to_string();
        let agent = credentials(&authority, Identity::Agent("s".into()));
        ends.ready.send((address, agent)).expect("the agent waits");
        let mut link = server
            .accept()
            .await
            .expect("open")
            .finish()
            .await
            .expect("a link");
        let mut came = Vec::new();
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            tokio::select! {
                packet = link.media.recv() => match packet {
                    Ok((_, rtp)) => came.push((Instant::now(), LinkRtp::parse(&rtp).expect("RTP").seq)),
                    Err(_) => return came,
                },
                _ = look.tick() => if let Ok(order) = ends.order.try_recv() {
                    ip(order);
                },
            }
        }
    })
}

/// Sends a packet each 10 ms, as many as `count`, does something after two seconds, and returns what the relay saw: the longest
/// time between two packets around it, how many came of those that were sent, and the interface at the end.
fn gap_after(
    (ways, count): (Ways, u16),
    interfaces: &[&str],
    here: Option<&str>,
    there: Option<&'static str>,
) -> (Duration, usize, Option<String>) {
    let (tell_agent, agent) = mpsc::channel();
    let (ready, address) = mpsc::channel();
    let (tell_order, order) = mpsc::channel();
    let ends = Ends { agent, ready, order };
    let relay = std::thread::spawn(move || relay(ends));
    let interfaces: Vec<String> = interfaces.iter().map(ToString::to_string).collect();
    let here = here.map(str::to_owned);
    let agent = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root, and namespaces");
        tell_agent.send(gettid().as_raw()).expect("the relay's thread");
        let (address, credentials) = address.recv().expect("the relay's address");
        ip("link set lo up");
        for cable in 1..=2 {
            ip(&format!("addr add 10.77.{cable}.2/24 dev a{cable}"));
            ip(&format!("link set a{cable} up"));
            ip(&format!(
                "route add {RELAY} via 10.77.{cable}.1 dev a{cable} metric {cable}"
            ));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let dial = Dial {
                ways,
                interfaces,
                ..Dial::default()
            };
            let link = EdgeLink::dial(&address, &credentials, dial)
                .await
                .expect("a link");
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            for seq in 0..count {
                tick.tick().await;
                if seq == 200 {
                    here.iter().for_each(|order| ip(order));
                    there
                        .iter()
                        .for_each(|order| tell_order.send(order).expect("the relay's end"));
                }
                let sound = seq % 2 == 0;
                let packet = LinkRtp {
                    payload_type: if sound { PT_OPUS } else { PT_VP8 },
                    marker: !sound,
                    seq,
                    timestamp: u32::from(seq) * 900,
                    audio_level: None,
                    payload: &[7; 300],
                };
                link.sender.send_rtp(1, &packet).expect("the link lives");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(!link.sender.health().dark);
            let interface = link.sender.interface();
            link.sender.close("done");
            tokio::time::sleep(Duration::from_millis(100)).await;
            interface
        })
    });
    let interface = agent.join().expect("the agent's end");
    let came = relay.join().expect("the relay's end");
    let gap = came
        .windows(2)
        .map(|pair| pair[1].0 - pair[0].0)
        .max()
        .unwrap_or_default();
    let numbers: std::collections::BTreeSet<u16> = came.iter().map(|(_, seq)| *seq).collect();
    (gap, numbers.len(), interface)
}

#[test]
fn a_new_address_costs_hardly_a_gap() {
    let (gap, came, interface) = gap_after(UDP, &[], Some("link del a1"), None);
    eprintln!(
        "a new address: {} ms without media, {came} of 400 packets",
        gap.as_millis()
    );
    assert_eq!(interface, None);
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    assert!(came > 380, "{came} of 400");
}

#[test]
fn a_primary_that_dies_without_notice_is_left_for_the_second_interface() {
    let (gap, came, interface) = gap_after(UDP, &["a1", "a2"], None, Some("link set r1 down"));
    eprintln!(
        "a dead primary: {} ms without media, {came} of 400 packets",
        gap.as_millis()
    );
    assert_eq!(interface.as_deref(), Some("a2"));
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    assert!(came > 370, "{came} of 400");
}

#[test]
fn an_interface_that_is_not_there_leaves_the_other() {
    let (_, came, interface) = gap_after(UDP, &["wwan9", "a2"], None, None);
    assert_eq!((came, interface.as_deref()), (400, Some("a2")));
}

#[test]
fn over_tcp_a_dead_interface_is_left_and_the_link_lives_on() {
    let (gap, came, interface) = gap_after(
        (Ways::TcpAlone, 800),
        &["a1", "a2"],
        None,
        Some("link set r1 down"),
    );
    eprintln!(
        "a dead interface under TCP: {} ms without media, {came} of 800 packets",
        gap.as_millis()
    );
    assert_eq!(interface.as_deref(), Some("a2"));
    assert!(gap < Duration::from_secs(5), "{gap:?}");
    assert!(came > 400, "{came} of 800");
}

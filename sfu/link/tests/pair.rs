//! A link's two ends on loopback: what they exchange, and what they refuse.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use muster_identity::{Authority, Credentials, Identity};
use muster_link::rtp::{LinkRtp, PT_VP8};
use muster_link::{EdgeLink, LinkError, LinkServer, RelayLink};
use muster_proto::media::v1::{LinkDown, LinkPing, LinkUp, SetViewRequest, SlotWish, link_down, link_up};

struct Ca {
    authority: Authority,
    _dir: tempfile::TempDir,
}

impl Ca {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        Self {
            authority: Authority::load_or_create(dir.path()).expect("authority"),
            _dir: dir,
        }
    }

    fn credentials(&self, identity: Identity) -> Credentials {
        let key = rcgen::KeyPair::generate().expect("key");
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .expect("csr")
            .pem()
            .expect("pem");
        Credentials {
            cert_pem: self.authority.issue(&csr, &identity).expect("certificate"),
            key_pem: key.serialize_pem(),
            ca_pem: self.authority.ca_pem().to_owned(),
            token_key_pem: self.authority.token_key_pem(),
            identity,
        }
    }

    fn server(&self) -> LinkServer {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
        LinkServer::bind(socket, &self.credentials(Identity::Relay("r1".into()))).expect("server")
    }

    fn agent(&self) -> Credentials {
        self.credentials(Identity::Agent("site-1".into()))
    }
}

async fn pair(ca: &Ca, server: &LinkServer) -> (EdgeLink, RelayLink) {
    let address = server.local_addr().expect("address").to_string();
    let agent = ca.agent();
    let accept = async { server.accept().await.expect("open").finish().await };
    let (edge, relay) = tokio::join!(EdgeLink::connect(&address, &agent), accept);
    (edge.expect("edge"), relay.expect("relay"))
}

fn ping(nonce: u64) -> LinkUp {
    LinkUp {
        message: Some(link_up::Message::Ping(LinkPing { nonce })),
    }
}

#[tokio::test]
async fn both_ends_know_each_other_and_exchange_control_and_media() {
    let ca = Ca::new();
    let server = ca.server();
    let (mut edge, mut relay) = pair(&ca, &server).await;
    assert_eq!(edge.peer, Identity::Relay("r1".into()));
    assert_eq!(relay.peer, Identity::Agent("site-1".into()));

    for nonce in 0..300 {
        edge.sender.send_control(&ping(nonce)).await.expect("sent");
        assert_eq!(relay.control.recv().await.expect("received"), ping(nonce));
    }
    let pong = LinkDown {
        message: Some(link_down::Message::Pong(LinkPing { nonce: 7 })),
    };
    relay.sender.try_send_control(&pong).expect("sent");
    assert_eq!(edge.control.recv().await.expect("received"), pong);

    let rtp = LinkRtp {
        payload_type: PT_VP8,
        marker: true,
        seq: 65535,
        timestamp: 90_000,
        audio_level: None,
        payload: &[7; muster_link::rtp::MAX_PAYLOAD],
    };
    edge.sender.send_rtp(300, &rtp).expect("fits");
    let (flow, bytes) = relay.media.recv().await.expect("received");
    assert_eq!((flow, LinkRtp::parse(&bytes)), (300, Ok(rtp)));
}

#[tokio::test]
async fn under_load_an_address_must_prove_itself_and_a_good_link_still_gets_in() {
    let ca = Ca::new();
    let server = ca.server();
    let address = server.local_addr().expect("address").to_string();
    let agent = ca.agent();
    let mut dialling = tokio::task::JoinSet::new();
    let mut arriving = Vec::new();
    let mut dial = || {
        let (address, agent) = (address.clone(), agent.clone());
        dialling.spawn(async move { EdgeLink::connect(&address, &agent).await });
    };
    for _ in 0..64 {
        dial();
        // Nobody finishes them: they stay open.
        arriving.push(server.accept().await.expect("open"));
    }
    assert!(arriving.iter().all(|a| !a.has_proved_its_address()));
    dial();
    let last = server.accept().await.expect("open");
    assert!(last.has_proved_its_address(), "it was sent a Retry and came back");
    let link = last.finish().await.expect("let in");
    assert_eq!(link.peer, Identity::Agent("site-1".into()));
    drop(arriving);
    dial();
    let next = server.accept().await.expect("open");
    assert!(!next.has_proved_its_address(), "the load is over");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_both_ends() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let server = ours.server();
    let address = server.local_addr().expect("address").to_string();
    let mut stranger = theirs.agent();
    let accept = || async { server.accept().await.expect("open").finish().await };

    let (edge, relay) = tokio::join!(EdgeLink::connect(&address, &stranger), accept());
    assert!(
        matches!(edge, Err(LinkError::Lost(_))),
        "the edge must not trust the relay: {edge:?}"
    );
    assert!(relay.is_err());

    // It trusts our relay, but its own certificate is not ours.
    stranger.ca_pem = ours.authority.ca_pem().to_owned();
    let (edge, relay) = tokio::join!(EdgeLink::connect(&address, &stranger), accept());
    assert!(edge.is_err());
    assert!(matches!(relay, Err(LinkError::Lost(_))), "{relay:?}");
}

#[tokio::test]
async fn an_agent_is_no_relay_and_a_server_needs_a_relays_certificate() {
    let ca = Ca::new();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let error = LinkServer::bind(socket, &ca.agent());
    assert!(matches!(error, Err(LinkError::Credentials(_))));
}

#[tokio::test]
async fn an_oversized_message_is_refused_before_it_is_sent() {
    let ca = Ca::new();
    let server = ca.server();
    let (edge, mut relay) = pair(&ca, &server).await;
    let wish = SlotWish {
        slot: "s".repeat(70_000),
        ..Default::default()
    };
    let view = LinkUp {
        message: Some(link_up::Message::SetView(SetViewRequest { wishes: vec![wish] })),
    };
    assert!(matches!(
        edge.sender.send_control(&view).await,
        Err(LinkError::ControlTooLarge(_))
    ));
    edge.sender
        .send_control(&ping(1))
        .await
        .expect("the link goes on");
    assert_eq!(relay.control.recv().await.expect("received"), ping(1));
}

#[tokio::test]
async fn junk_datagrams_are_skipped_and_too_large_ones_refused() {
    let ca = Ca::new();
    let server = ca.server();
    let (edge, mut relay) = pair(&ca, &server).await;
    edge.sender
        .send_datagram(bytes::Bytes::from_static(&[0xff, 1]))
        .expect("sent");
    edge.sender.send_datagram(bytes::Bytes::new()).expect("sent");
    edge.sender
        .send_datagram(bytes::Bytes::from_static(&[5, 0]))
        .expect("sent");
    let (flow, bytes) = relay.media.recv().await.expect("received");
    assert_eq!(flow, 5);
    assert!(LinkRtp::parse(&bytes).is_err());
    let huge = edge.sender.send_datagram(vec![0; 4000].into());
    assert!(matches!(
        huge,
        Err(LinkError::DatagramTooLarge { size: 4000, .. })
    ));
}

#[tokio::test]
async fn a_peer_that_does_not_read_fills_the_queue_and_no_more() {
    let ca = Ca::new();
    let server = ca.server();
    let (edge, _relay) = pair(&ca, &server).await;
    let wish = SlotWish {
        slot: "s".repeat(60_000),
        ..Default::default()
    };
    let view = LinkUp {
        message: Some(link_up::Message::SetView(SetViewRequest { wishes: vec![wish] })),
    };
    let mut refused = None;
    for _ in 0..2000 {
        if let Err(error) = edge.sender.try_send_control(&view) {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(LinkError::ControlFull)), "{refused:?}");
}

#[tokio::test]
async fn a_close_is_told_at_once() {
    let ca = Ca::new();
    let server = ca.server();
    let (edge, mut relay) = pair(&ca, &server).await;
    let start = Instant::now();
    edge.sender.close("hung up");
    assert!(matches!(relay.media.recv().await, Err(LinkError::Lost(_))));
    assert!(matches!(relay.control.recv().await, Err(LinkError::ControlEnded)));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn nobody_answers_on_a_dead_port() {
    let ca = Ca::new();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let address = socket.local_addr().expect("address").to_string();
    let result = EdgeLink::connect(&address, &ca.agent()).await;
    assert!(
        matches!(result, Err(LinkError::Lost(_) | LinkError::Timeout(_))),
        "{result:?}"
    );
    assert!(matches!(
        EdgeLink::connect("no port", &ca.agent()).await,
        Err(LinkError::Address(..))
    ));
}

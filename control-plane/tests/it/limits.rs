//! What somebody who has shown nothing can hold: connections, time and memory of the control plane, over real sockets.

use crate::support::{ACCOUNT, Fixture, framed, http, http_from, sign_in, small, small_with};
use muster_control_plane::ConsoleTls;
use muster_proto::command::v1 as pb;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

const SIGN_IN: &str = "POST /muster.command.v1.SessionService/SignIn HTTP/1.1\r\nhost: a\r\n\
                       content-type: application/grpc-web+proto\r\ncontent-length: 5000\r\n\r\n\0\0";

async fn over_tls(fixture: &Fixture, addr: SocketAddr, alpn: &str, server: &str) -> Box<dyn Stream> {
    let ca = std::fs::read(fixture.dir.path().join("ca/ca.pem")).expect("a CA");
    let mut config = muster_identity::web_client_config(&ca).expect("a CA");
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let name = rustls_pki_types::ServerName::try_from(server.to_owned()).expect("a name");
    let stream = TcpStream::connect(addr).await.expect("connected");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    Box::new(connector.connect(name, stream).await.expect("a handshake"))
}

/// Sends this and then nothing; how long it took until the connection was closed.
async fn held(mut stream: Box<dyn Stream>, sent: &[u8]) -> Duration {
    let began = Instant::now();
    stream.write_all(sent).await.expect("sent");
    let mut answer = [0; 4096];
    while matches!(stream.read(&mut answer).await, Ok(1..)) {}
    began.elapsed()
}

#[tokio::test]
async fn who_says_nothing_or_stops_halfway_is_cut_off() {
    let dir = tempfile::tempdir().expect("folder");
    let fixture = small_with(dir, |config| config.console = ConsoleTls::Own).await;
    let (console, agents) = (fixture.control_plane.addr(), fixture.control_plane.agents_addr());
    let own = muster_identity::CONTROL_PLANE_NAME;
    let mut all = tokio::task::JoinSet::new();
    for (what, addr, alpn, server, sent) in [
        ("silence", console, "http/1.1", "localhost", ""),
        ("silence of h2", console, "h2", "localhost", ""),
        (
            "half a head",
            console,
            "http/1.1",
            "localhost",
            "GET / HTTP/1.1\r\nhost: a\r\n",
        ),
        ("half a body", console, "http/1.1", "localhost", SIGN_IN),
        ("silence to the agents' port", agents, "h2", own, ""),
        ("half a preface", agents, "h2", own, "PRI * HTTP/2.0\r\n"),
        (
            "a preface alone",
            agents,
            "h2",
            own,
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ),
    ] {
        let stream = over_tls(&fixture, addr, alpn, server).await;
        all.spawn(async move {
            let ended = tokio::time::timeout(Duration::from_secs(20), held(stream, sent.as_bytes())).await;
            assert!(ended.is_ok(), "{what} is still open after 20 s");
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.expect("cut off");
    }
}

#[tokio::test]
async fn nobody_sends_a_body_before_they_have_shown_who_they_are() {
    let fixture = small().await;
    let addr = fixture.control_plane.addr();
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    let head = format!(
        "POST /muster.command.v1.DirectoryService/ImportSites HTTP/1.1\r\nhost: {addr}\r\n\
         content-type: application/grpc-web+proto\r\ncontent-length: 8388613\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    // The rest never comes: it is not waited for.
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    read.expect("answered at once").expect("read");
    let told = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(told.contains("grpc-status: 16"), "{told}");
}

#[tokio::test]
async fn a_message_is_as_large_as_its_call_may_need() {
    let fixture = small().await;
    let (channel, person) = (fixture.channel().await, fixture.person().await);
    let error = sign_in(channel, ACCOUNT, &"x".repeat(20_000))
        .await
        .expect_err("too large");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    let titled = pb::ConveneRequest {
        title: "x".repeat(2 << 20),
        ..Default::default()
    };
    let error = person
        .meetings()
        .convene(person.request(titled))
        .await
        .expect_err("too large");
    assert!(
        matches!(error.code(), Code::ResourceExhausted | Code::OutOfRange),
        "{error}"
    );
    let mut long = crate::support::SMALL.to_owned();
    long.push_str(&"\n".repeat(7 << 20));
    person.import(long.as_bytes()).await.expect("an import has room");
}

#[tokio::test]
async fn one_address_has_a_part_of_the_connections_and_the_others_get_in() {
    let dir = tempfile::tempdir().expect("folder");
    let fixture = small_with(dir, |config| {
        config.max_connections = 12;
        config.max_connections_per_address = 5;
    })
    .await;
    let addr = fixture.control_plane.addr();
    let from = async |last: u8| {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket
            .bind((Ipv4Addr::new(127, 9, 0, last), 0).into())
            .expect("bound");
        socket.connect(addr).await.expect("connected")
    };
    let mut holding = Vec::new();
    for _ in 0..9 {
        holding.push(from(1).await);
    }
    // Those beyond are closed at once, the others stay.
    let mut closed = 0;
    for stream in &mut holding {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut byte)).await;
        closed += usize::from(read.is_ok());
    }
    assert_eq!(closed, 4);
    let message = framed(&pb::SignInRequest {
        account: ACCOUNT.into(),
        password: "a wrong password".into(),
    });
    let head = "POST /muster.command.v1.SessionService/SignIn HTTP/1.1\r\nContent-Type: application/grpc-web+proto\r\n";
    let (told, _) = http_from(Ipv4Addr::new(127, 9, 0, 2), addr, head, &message).await;
    assert!(told.starts_with("http/1.1 200"), "{told}");
    let (_, page) = http(addr, "GET /metrics HTTP/1.1\r\n", b"").await;
    let page = String::from_utf8(page).expect("text");
    assert!(
        page.contains("way=\"connection\",reason=\"address_full\""),
        "{page}"
    );
    // What is given back is there again.
    drop(holding);
    let again = async {
        loop {
            let mut stream = from(1).await;
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut byte)).await;
            if read.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again)
        .await
        .expect("room again");
}

/// Signs in from there; the gRPC status, and what the device is to keep.
async fn sign_in_from(
    addr: SocketAddr,
    from: Ipv4Addr,
    (account, password): (&str, &str),
    device: &str,
) -> (String, String) {
    let message = pb::SignInRequest {
        account: account.into(),
        password: password.into(),
    };
    let head = format!(
        "POST /muster.command.v1.SessionService/SignIn HTTP/1.1\r\nContent-Type: application/grpc-web+proto\r\n\
         Muster-Device: {device}\r\n"
    );
    let (head, body) = http_from(from, addr, &head, &framed(&message)).await;
    let told = format!("{head}\r\n{}", String::from_utf8_lossy(&body));
    let named = |name: &str| {
        let after = told.split_once(name).map(|(_, after)| after).unwrap_or_default();
        after
            .trim_start()
            .split("\r\n")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    (named("grpc-status:"), named("muster-device:"))
}

/// Wrong guesses without end, one at a time from each of so many addresses.
fn attack(
    addr: SocketAddr,
    addresses: u8,
    network: u8,
    account: Option<&'static str>,
) -> tokio::task::JoinSet<()> {
    let mut all = tokio::task::JoinSet::new();
    for last in 1..=addresses {
        all.spawn(async move {
            for guess in 0_u32.. {
                let made_up = format!("u{last}x{guess}");
                let account = account.unwrap_or(&made_up);
                let from = Ipv4Addr::new(127, 5, network, last);
                let (status, _) = sign_in_from(addr, from, (account, "a wrong password"), "").await;
                if status == "8" {
                    tokio::time::sleep(Duration::from_millis(150)).await;
                }
            }
        });
    }
    all
}

#[tokio::test]
async fn forty_addresses_that_guess_do_not_keep_the_owner_out() {
    let fixture = small().await;
    let addr = fixture.control_plane.addr();
    let right = (ACCOUNT, crate::support::PASSWORD);
    let home = Ipv4Addr::new(127, 3, 0, 1);
    let (status, device) = sign_in_from(addr, home, right, "").await;
    assert_eq!(status, "0");
    let attack = attack(addr, 40, 0, Some(ACCOUNT));
    tokio::time::sleep(Duration::from_secs(4)).await;
    // A device that was here before: at once, from wherever it is now.
    let began = Instant::now();
    let (status, _) = sign_in_from(addr, Ipv4Addr::new(127, 3, 0, 2), right, &device).await;
    assert_eq!(status, "0");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // A stranger with the right password: in a bounded time.
    let stranger = async {
        while sign_in_from(addr, Ipv4Addr::new(127, 3, 0, 3), right, "").await.0 != "0" {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stranger)
        .await
        .expect("in within a minute");
    drop(attack);
}

#[tokio::test]
async fn a_crowd_that_signs_in_under_made_up_names_does_not_hold_up_who_is_known() {
    let fixture = small().await;
    let addr = fixture.control_plane.addr();
    let right = (ACCOUNT, crate::support::PASSWORD);
    let home = Ipv4Addr::new(127, 3, 0, 1);
    let (_, device) = sign_in_from(addr, home, right, "").await;
    let attack = attack(addr, 250, 1, None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (from, device) in [
        (home, ""),
        (home, ""),
        (Ipv4Addr::new(127, 3, 0, 2), device.as_str()),
    ] {
        let began = Instant::now();
        let (status, _) = sign_in_from(addr, from, right, device).await;
        assert_eq!(status, "0", "after {:?}", began.elapsed());
    }
    drop(attack);
}

//! A port with TLS whose certificate is exchanged while it serves.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_identity::{
    Authority, Hello, Identity, IdentityError, LAST_RANK, LiveCertificate, NameRefused, PairFiles,
    RELAY_NAME, Rank, accept_tls, all_named, connect_in_line, connect_web, web_client_config,
};
use muster_proto::command::v1::EnrolRequest;
use muster_proto::command::v1::enrol_service_client::EnrolServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;

const LOOK: Duration = Duration::from_millis(20);

fn authority(dir: &Path) -> Authority {
    Authority::load_or_create(dir).expect("authority")
}

/// Echoes what comes; follows the files.
async fn echo(files: &PairFiles) -> SocketAddr {
    let live = LiveCertificate::from_files(files).expect("a pair");
    let acceptor = TlsAcceptor::from(live.server_config().expect("TLS"));
    tokio::spawn(live.follow(files.clone(), LOOK));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = accept_tls(&acceptor, stream).await else {
                    return;
                };
                let mut byte = [0];
                while matches!(stream.read(&mut byte).await, Ok(1)) && stream.write_all(&byte).await.is_ok() {
                }
            });
        }
    });
    address
}

async fn connect(authority: &Authority, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let config = web_client_config(authority.ca_pem().as_bytes()).expect("a CA");
    connect_web(&address.to_string(), Arc::new(config)).await
}

/// The certificate that a new connection is shown.
async fn shown(authority: &Authority, address: SocketAddr) -> Vec<u8> {
    let stream = connect(authority, address).await.expect("trusted");
    let (_, session) = stream.get_ref();
    session.peer_certificates().expect("a chain")[0].to_vec()
}

async fn answers(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"x").await.expect("sent");
    let mut byte = [0];
    stream.read_exact(&mut byte).await.expect("echoed");
}

#[tokio::test]
async fn new_files_are_taken_up_bad_ones_are_not_and_old_connections_go_on() {
    let dir = tempfile::tempdir().expect("folder");
    let authority = authority(dir.path());
    let names = ["127.0.0.1".to_owned()];
    let make = |name: &str| {
        let files = authority
            .kept_server_certificate(&dir.path().join(name), &names)
            .expect("made");
        (
            std::fs::read(&files.cert).expect("cert"),
            std::fs::read(&files.key).expect("key"),
        )
    };
    let (first, second, third) = (make("first"), make("second"), make("third"));
    let files = PairFiles {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    let write = |cert: &[u8], key: &[u8]| {
        std::fs::write(&files.cert, cert).expect("written");
        std::fs::write(&files.key, key).expect("written");
    };
    write(&first.0, &first.1);
    let address = echo(&files).await;
    let mut old = connect(&authority, address).await.expect("trusted");
    let before = shown(&authority, address).await;

    write(&second.0, &second.1);
    let until_new = async {
        while shown(&authority, address).await == before {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), until_new)
        .await
        .expect("taken up");
    let now = shown(&authority, address).await;
    answers(&mut old).await;

    // A key of another certificate, rubbish, and a file that is gone: each is looked at several times.
    for (cert, key) in [
        (&third.0[..], &second.1[..]),
        (b"rubbish", b"rubbish"),
        (&third.0, b""),
    ] {
        write(cert, key);
        tokio::time::sleep(LOOK * 10).await;
        assert_eq!(shown(&authority, address).await, now);
    }
    std::fs::remove_file(&files.key).expect("removed");
    tokio::time::sleep(LOOK * 10).await;
    assert_eq!(shown(&authority, address).await, now);
    write(&third.0, &third.1);
    let until_third = async {
        while shown(&authority, address).await == now {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), until_third)
        .await
        .expect("taken up");
    answers(&mut old).await;
}

#[tokio::test]
async fn only_the_right_name_and_the_right_ca_are_trusted_and_plain_http_gets_words() {
    let dir = tempfile::tempdir().expect("folder");
    let authority = authority(&dir.path().join("ca"));
    let files = authority
        .kept_server_certificate(dir.path(), &["cp.example".to_owned()])
        .expect("made");
    let address = echo(&files).await;
    let error = connect(&authority, address).await.expect_err("another name");
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let stranger = Authority::in_memory().expect("a CA");
    let error = connect(&stranger, address).await.expect_err("another CA");
    // All such CAs have one name, so it may be the signature that gives it away.
    let told = error.to_string();
    assert!(
        told.contains("UnknownIssuer") || told.contains("BadSignature"),
        "{told}"
    );

    let mut plain = TcpStream::connect(address).await.expect("connected");
    plain
        .write_all(b"GET / HTTP/1.1\r\nauthorization: Bearer secret\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.expect("words");
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("https://"),
        "{answer}"
    );
    assert!(!answer.contains("secret"));
}

#[test]
fn a_kept_certificate_stays_until_a_name_is_missing_or_the_ca_is_another() {
    let dir = tempfile::tempdir().expect("folder");
    let authority = authority(&dir.path().join("ca"));
    let names = ["a.example".to_owned(), "192.0.2.7".to_owned()];
    let kept = |authority: &Authority, names: &[String]| {
        let files = authority
            .kept_server_certificate(dir.path(), names)
            .expect("made");
        std::fs::read(files.cert).expect("cert")
    };
    let first = kept(&authority, &names);
    assert_eq!(kept(&authority, &names[..1]), first);
    let more = [names.as_slice(), &["b.example".to_owned()]].concat();
    let second = kept(&authority, &more);
    assert_ne!(second, first);
    let third = kept(&Authority::in_memory().expect("a CA"), &more);
    assert_ne!(third, second);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(dir.path().join("server-key.pem"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0);
}

fn request(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new(names).expect("names");
    params.serialize_request(&key).expect("csr").pem().expect("pem")
}

#[test]
fn a_relay_gets_the_names_that_it_asks_for_but_never_the_control_planes() {
    let dir = tempfile::tempdir().expect("folder");
    let mut authority = authority(&dir.path().join("ca"));
    let files = authority
        .kept_server_certificate(dir.path(), &["real.city.example".to_owned()])
        .expect("made");
    let live = LiveCertificate::from_files(&files).expect("a pair");
    authority.set_own(vec!["cp.city.example".into(), "192.0.2.7".into()], Some(live));
    let relay = Identity::Relay("r1".into());
    let names_of = |pem: &str| names_in(&pem_to_der(pem));
    let cert = authority
        .issue(
            &request(&["relay.city.example", "192.0.2.8", "localhost"]),
            &relay,
        )
        .expect("signed");
    let names = names_of(&cert);
    let wanted = ["relay.city.example", "192.0.2.8", "localhost", RELAY_NAME].map(str::to_owned);
    assert!(all_named(&names, &wanted), "{names:?}");
    for own in [
        "cp.city.example",
        "CP.city.example",
        "192.0.2.7",
        "real.city.example",
        "muster-control-plane",
    ] {
        let refused = authority
            .issue(&request(&["relay.city.example", own]), &relay)
            .err();
        assert!(
            matches!(refused, Some(IdentityError::Name(NameRefused::ControlPlanes(_)))),
            "{own}: {refused:?}"
        );
    }
    // An agent serves nobody: what its request says is passed over.
    let agent = authority
        .issue(&request(&["cp.city.example"]), &Identity::Agent("s1".into()))
        .expect("signed");
    assert_eq!(names_of(&agent), Vec::<String>::new());
}

fn pem_to_der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject as _;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes())
        .expect("pem")
        .to_vec()
}

fn names_in(der: &[u8]) -> Vec<String> {
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
    let (_, cert) = X509Certificate::from_der(der).expect("a certificate");
    let Some(names) = cert.subject_alternative_name().expect("readable") else {
        return Vec::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress([a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

#[tokio::test]
async fn a_channel_asks_for_its_place_in_line_at_each_connection_and_speaks_h2() {
    let dir = tempfile::tempdir().expect("folder");
    let authority = authority(dir.path());
    let pem = authority.server_credentials(&[]).expect("made");
    let live = LiveCertificate::from_pem(&pem.cert_chain_pem, &pem.key_pem).expect("a pair");
    let config = live.server_config().expect("TLS");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address").to_string();
    let credentials = authority.credentials(Identity::Agent("A1".into())).expect("made");
    let rank = Rank::default();
    let channel = connect_in_line(&address, &credentials, rank.clone())
        .await
        .expect("an address");
    for wanted in [LAST_RANK, 0, 2] {
        rank.set(wanted);
        let mut client = EnrolServiceClient::new(channel.clone());
        let call = async { client.enrol(EnrolRequest::default()).await };
        let serve = async {
            let (stream, _) = listener.accept().await.expect("accepted");
            let hello = Hello::read(stream).await.expect("a hello");
            assert_eq!(hello.rank(), wanted);
            let stream = hello.finish(config.clone()).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        };
        let (answer, ()) = tokio::join!(call, serve);
        answer.expect_err("it was hung up");
    }
}

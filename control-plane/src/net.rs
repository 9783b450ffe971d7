//! The two listening ports: accept loops, TLS, keep-alive and an orderly end.
//!
//! Invariants: a handshake has a deadline, so many go on at a time, and the others wait in a line by rank for a bounded
//! time; connections are bounded in all and by address, and one where nothing goes on is ended; every request carries its [`Peer`]. What is asked and answered is not looked at here; whoever speaks plain HTTP to a
//! port with TLS is told so, and nothing that they sent is read.

use crate::config::Config;
use crate::counters::turned_away;
use crate::line::Line;
use crate::quiet::{Answer, Requests};
use crate::shares::{Full, Shares};
use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use muster_identity::{Authority, Hello, Identity, LiveCertificate, identity_of};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// From the end of the handshake to the head of the first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// Without a request or a stream under way. Browsers and commands connect again by themselves.
const IDLE: Duration = Duration::from_secs(120);
/// The head of a request of HTTP/1.1.
const MAX_HEAD: usize = 64 * 1024;
/// After an accept that failed, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Of its two parts each: until the ClientHello is there, and from the turn in the line to the end.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// The longest wait for a turn: then the peer has given up, or is about to.
const LONGEST_LINE: Duration = Duration::from_millis(4500);
/// A peer that vanished without a word is found within the sum of these.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// HTTP/1.1 has no pings: there, what is sent (heartbeats at least) must be acknowledged within this.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);
/// Streams end by themselves on shutdown; this bounds those that do not.
const GRACE: Duration = Duration::from_secs(2);

/// Who is at the other end of the connection, put into the extensions of each request.
#[derive(Debug, Clone)]
pub struct Peer {
    pub addr: SocketAddr,
    /// From a certificate of our CA, verified in the handshake.
    pub identity: Option<Identity>,
}

/// How a port speaks TLS, and who wait for it.
type Tls = (Arc<rustls::ServerConfig>, Line);

/// Connections that one port holds at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    connections: usize,
    per_address: usize,
}

impl Limits {
    /// As configured, and as the number of connections of the two ports together allows; one address has half at most.
    pub fn new(config: &Config, both_ports: usize) -> Self {
        let connections = config.max_connections.min(both_ports / 2).max(2);
        if connections < config.max_connections {
            tracing::warn!(
                connections,
                "the limit of open files (ulimit -n) allows fewer connections at a port than --max-connections"
            );
        }
        Self {
            connections,
            per_address: config.max_connections_per_address.min(connections / 2),
        }
    }
}

/// What both accept loops share.
#[derive(Clone)]
pub struct Acceptor {
    shutdown: CancellationToken,
    limits: Limits,
}

impl Acceptor {
    pub fn new(shutdown: CancellationToken, limits: Limits) -> Self {
        Self { shutdown, limits }
    }

    /// Serves plain HTTP/1.1 and h2c.
    pub async fn serve_plain(self, listener: TcpListener, router: axum::Router) {
        self.accept(listener, router, None).await;
    }

    /// Serves TLS as configured; a client certificate is verified if one is shown and the configuration has a verifier.
    pub async fn serve_tls(
        self,
        listener: TcpListener,
        router: axum::Router,
        tls: Arc<rustls::ServerConfig>,
    ) {
        self.accept(listener, router, Some((tls, Line::default()))).await;
    }

    async fn accept(self, listener: TcpListener, router: axum::Router, tls: Option<Tls>) {
        let mut connections = JoinSet::new();
        let shares = Shares::new(self.limits.connections, self.limits.per_address);
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let (stream, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    turned_away("connection", "accept");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = FIRST_PAUSE;
            let share = match shares.take(addr.ip(), 1) {
                Ok(share) => share,
                Err(Full::All) => {
                    turned_away("connection", "full");
                    continue;
                }
                Err(Full::Address) => {
                    turned_away("connection", "address_full");
                    continue;
                }
            };
            let connection = self.clone().connection(stream, addr, router.clone(), tls.clone());
            connections.spawn(async move {
                connection.await;
                drop(share);
            });
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn connection(self, stream: TcpStream, addr: SocketAddr, router: axum::Router, tls: Option<Tls>) {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "socket options");
        }
        let Some(tls) = tls else {
            return self.http(stream, Peer { addr, identity: None }, router).await;
        };
        match handshake(stream, tls).await {
            Ok(stream) => {
                let shown = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(|chain| chain.first());
                let identity = shown.and_then(|cert| identity_of(cert).ok());
                self.http(stream, Peer { addr, identity }, router).await;
            }
            Err(reason) => turned_away("tls", reason),
        }
    }

    async fn http<S>(self, stream: S, peer: Peer, router: axum::Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let requests = Requests::new();
        let begun = requests.clone();
        let service = tower::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let (under_way, router) = (begun.begin(), router.clone());
            async move {
                let answer = router.oneshot(request.map(Body::new)).await?;
                Ok::<_, Infallible>(answer.map(|body| Answer {
                    body,
                    _under_way: under_way,
                }))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .max_buf_size(MAX_HEAD)
            .header_read_timeout(HANDSHAKE_DEADLINE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(1024);
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection");
                }
                return;
            }
            () = requests.quiet(FIRST_REQUEST, IDLE) => {
                if !requests.any() {
                    return turned_away("connection", "silent");
                }
                connection.as_mut().graceful_shutdown();
            }
            () = self.shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        if tokio::time::timeout(GRACE, connection).await.is_err() {
            tracing::debug!("a connection did not end in time");
        }
    }
}

/// Hears what the client asks for, which costs little, waits for its turn, and goes through with it; or tells why not.
async fn handshake(stream: TcpStream, (config, line): Tls) -> Result<TlsStream<TcpStream>, &'static str> {
    let failed = |error| {
        tracing::debug!(%error, "TLS handshake");
        "handshake"
    };
    let hello = timeout(HANDSHAKE_DEADLINE, Hello::read(stream)).await;
    let hello = hello.map_err(|_| "too_slow")?.map_err(failed)?;
    let turn = timeout(LONGEST_LINE, line.turn(hello.rank())).await;
    let _turn = turn.map_err(|_| "long_line")?;
    let stream = timeout(HANDSHAKE_DEADLINE, hello.finish(config)).await;
    stream.map_err(|_| "too_slow")?.map_err(failed)
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

/// TLS 1.3 with a certificate of the built-in CA; client certificates are optional and must be of that CA. The
/// certificate is exchanged while the port serves, since it ends after a year.
pub fn agents_tls(
    authority: &Authority,
    names: &[String],
) -> anyhow::Result<(Arc<rustls::ServerConfig>, Arc<LiveCertificate>)> {
    let pem = authority.server_credentials(names)?;
    let certificate = LiveCertificate::from_pem(&pem.cert_chain_pem, &pem.key_pem)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.ca_pem.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((Arc::new(config), certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_browser_that_vanished_does_not_stay_for_the_kernels_quarter_of_an_hour() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.expect("accepted");
        prepare(&stream).expect("prepared");
        let timeout = socket2::SockRef::from(&stream).tcp_user_timeout().expect("read");
        assert_eq!(timeout, Some(UNACKNOWLEDGED));
    }
}

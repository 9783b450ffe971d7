//! The edge's end: dialling a relay.
//!
//! [`EdgeLink::connect`] opens the connection and the control stream, and has exchanged hello and welcome when it
//! returns; joining a meeting is the caller's. Each link has a socket of its own. UDP is tried first; where it brings no answer,
//! a tunnel over TCP ([`crate::tunnel`]) is tried beside it, and the first that works is the link. While it is up it moves from
//! the one to the other by itself.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_identity::{Credentials, Identity};
use muster_proto::media::v1::{LinkHello, LinkUp, link_down, link_up};
use quinn::AsyncUdpSocket;
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::ServerName;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::link::{EdgeLink, Over, peer_identity};
use crate::tunnel::{ALPN, Again, Detour, Route};
use crate::uplinks::Uplinks;
use crate::{LinkError, VERSION, socket, transport};

/// Name in every relay's certificate.
const RELAY_NAME: &str = "muster-relay";
/// From the first packet to the welcome, by one way.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// With no answer by UDP for so long TCP is tried too, and UDP anew.
const UDP_PATIENCE: Duration = Duration::from_secs(3);
/// On TCP, UDP is tried so often.
const UDP_AGAIN: Duration = Duration::from_secs(60);

/// By which ways a relay is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ways {
    /// UDP, and TCP where UDP brings no answer within 3 s, at the start or later.
    #[default]
    Both,
    UdpAlone,
    TcpAlone,
}

/// How a relay is dialled.
#[derive(Debug, Clone)]
pub struct Dial {
    pub ways: Ways,
    /// Network interfaces in the order of preference: it sends by the first, and by the next when nothing comes back. With none,
    /// the system's routes decide.
    pub interfaces: Vec<String>,
    /// On TCP, how often UDP is tried.
    pub udp_again: Duration,
}

impl Default for Dial {
    fn default() -> Self {
        Self {
            ways: Ways::default(),
            interfaces: Vec::new(),
            udp_again: UDP_AGAIN,
        }
    }
}

/// The first address of `HOST:PORT`.
///
/// # Errors
/// [`LinkError::Address`].
pub async fn resolve(address: &str) -> Result<SocketAddr, LinkError> {
    let bad = |error| LinkError::Address(address.to_owned(), error);
    let mut found = tokio::net::lookup_host(address).await.map_err(bad)?;
    found
        .next()
        .ok_or_else(|| bad(std::io::Error::other("the name has no address")))
}

impl EdgeLink {
    /// Connects to the relay at `address` (`HOST:PORT`) and says hello.
    ///
    /// # Errors
    /// [`LinkError`]; the relay's certificate must be of the same CA as `credentials`. Gives up after 8 s.
    pub async fn connect(address: &str, credentials: &Credentials) -> Result<Self, LinkError> {
        Self::dial(address, credentials, Dial::default()).await
    }

    /// The same by certain ways, or over certain network interfaces.
    ///
    /// # Errors
    /// As [`Self::connect`], [`LinkError::Socket`] where no interface can be used, and [`LinkError::Tunnel`] where TCP alone is
    /// asked for.
    pub async fn dial(address: &str, credentials: &Credentials, dial: Dial) -> Result<Self, LinkError> {
        let late = |_| LinkError::Timeout("answer");
        let to = timeout(CONNECT_TIMEOUT, resolve(address)).await.map_err(late)??;
        let ways = dial.ways;
        let caller = Caller::new(to, credentials, dial)?;
        let silent = Notify::new();
        match ways {
            Ways::Both => caller.by_either().await,
            Ways::UdpAlone => timeout(CONNECT_TIMEOUT, caller.by_udp(&silent))
                .await
                .map_err(late)?,
            Ways::TcpAlone => timeout(CONNECT_TIMEOUT, caller.by_tcp()).await.map_err(late)?,
        }
    }
}

/// The interfaces that a link goes over, where they were named.
type Interfaces = Option<Arc<Uplinks>>;

/// A socket by the system's routes, or over these interfaces.
fn open(to: SocketAddr, interfaces: &[String]) -> std::io::Result<(Arc<dyn AsyncUdpSocket>, Interfaces)> {
    if !interfaces.is_empty() {
        let uplinks = Arc::new(Uplinks::open(interfaces, to)?);
        return Ok((uplinks.clone(), Some(uplinks)));
    }
    let local: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(local)?;
    Ok((socket::wrap(socket)?, None))
}

/// What one link is dialled with.
#[derive(Clone)]
struct Caller {
    to: SocketAddr,
    identity: String,
    /// QUIC's.
    config: quinn::ClientConfig,
    /// The tunnel's.
    tls: tokio_rustls::TlsConnector,
    dial: Dial,
}

impl Caller {
    fn new(to: SocketAddr, credentials: &Credentials, dial: Dial) -> Result<Self, LinkError> {
        let bad = |error: String| LinkError::Credentials(error);
        let tls = muster_identity::link_client_config(credentials).map_err(|e| bad(e.to_string()))?;
        let mut outer = tls.clone();
        outer.alpn_protocols = vec![ALPN.to_vec()];
        // Sessions of QUIC are resumed by QUIC alone.
        outer.resumption = rustls::client::Resumption::in_memory_sessions(4);
        let crypto = QuicClientConfig::try_from(tls).map_err(|e| bad(e.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport::config());
        Ok(Self {
            to,
            identity: credentials.identity.to_string(),
            config,
            tls: Arc::new(outer).into(),
            dial,
        })
    }

    fn begin(
        &self,
        socket: Arc<dyn AsyncUdpSocket>,
        config: quinn::EndpointConfig,
    ) -> Result<quinn::Connecting, LinkError> {
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new_with_abstract_socket(config, None, socket, runtime)
            .map_err(LinkError::Socket)?;
        Ok(endpoint.connect_with(self.config.clone(), self.to, RELAY_NAME)?)
    }

    /// Begins through a socket that goes by UDP or through a tunnel, as it must.
    fn begin_by(&self, detour: Detour) -> Result<(quinn::Connecting, Over), LinkError> {
        let course = detour.course();
        let connecting = self.begin(Arc::new(detour), transport::endpoint_of(course.ids()))?;
        Ok((connecting, Over::Detour(course)))
    }

    /// By UDP, one handshake after the other until one is answered; `silent` is told of each that is not.
    async fn by_udp(&self, silent: &Notify) -> Result<EdgeLink, LinkError> {
        loop {
            let (socket, uplinks) = open(self.to, &self.dial.interfaces).map_err(LinkError::Socket)?;
            let (mut connecting, over) = if self.dial.ways == Ways::UdpAlone {
                (self.begin(socket, transport::endpoint())?, Over::Udp)
            } else {
                self.begin_by(Detour::by_udp(self.route()?, socket, self.again()))?
            };
            match timeout(UDP_PATIENCE, connecting.handshake_data()).await {
                Ok(answered) => answered?,
                Err(_) => {
                    silent.notify_one();
                    continue;
                }
            };
            return self.greet(connecting.await?, uplinks, over).await;
        }
    }

    fn route(&self) -> Result<Route, LinkError> {
        Ok(Route {
            to: self.to,
            name: ServerName::try_from(RELAY_NAME)
                .map_err(|error| LinkError::Tunnel(std::io::Error::other(error)))?,
            tls: self.tls.clone(),
            interfaces: self.dial.interfaces.clone(),
        })
    }

    fn again(&self) -> Again {
        let prober = self.clone();
        Again {
            every: self.dial.udp_again,
            works: Box::new(move || {
                let prober = prober.clone();
                Box::pin(async move { prober.udp_works().await })
            }),
        }
    }

    async fn by_tcp(&self) -> Result<EdgeLink, LinkError> {
        let (socket, uplinks) = open(self.to, &self.dial.interfaces).map_err(LinkError::Socket)?;
        let detour = Detour::dial(self.route()?, socket, self.again())
            .await
            .map_err(LinkError::Tunnel)?;
        let (connecting, over) = self.begin_by(detour)?;
        let connection = connecting.await?;
        tracing::warn!(relay = %self.to, "no answer by UDP: the link goes over TCP");
        self.greet(connection, uplinks, over).await
    }

    /// By UDP, and by TCP too where UDP brings no answer; the first that works.
    async fn by_either(&self) -> Result<EdgeLink, LinkError> {
        let silent = Notify::new();
        let first = async {
            silent.notified().await;
            self.by_tcp().await
        };
        let (mut udp, mut tcp) = (Box::pin(self.by_udp(&silent)), Box::pin(first));
        let late = |_| LinkError::Timeout("answer");
        let begun = tokio::time::Instant::now();
        let either = async {
            tokio::select! {
                linked = &mut udp => match linked {
                    // No socket for UDP: the network may take TCP all the same.
                    Err(LinkError::Socket(_) | LinkError::Start(_)) => {
                        silent.notify_one();
                        tcp.await
                    }
                    linked => linked,
                },
                linked = &mut tcp => match linked {
                    Ok(link) => Ok(link),
                    Err(error) => {
                        tracing::debug!(%error, "no link by TCP either");
                        tokio::time::timeout_at(begun + CONNECT_TIMEOUT, &mut udp).await.map_err(late)?
                    }
                },
            }
        };
        timeout(UDP_PATIENCE + CONNECT_TIMEOUT, either)
            .await
            .map_err(late)?
    }

    /// Whether a handshake by UDP gets through.
    async fn udp_works(&self) -> bool {
        let handshake = async {
            let (socket, _) = open(self.to, &self.dial.interfaces).map_err(LinkError::Socket)?;
            let connection = self.begin(socket, transport::endpoint())?.await?;
            connection.close(quinn::VarInt::from_u32(0), b"UDP works");
            Ok::<_, LinkError>(())
        };
        matches!(timeout(CONNECT_TIMEOUT, handshake).await, Ok(Ok(())))
    }

    /// Says hello on a connection.
    async fn greet(
        &self,
        connection: quinn::Connection,
        uplinks: Interfaces,
        over: Over,
    ) -> Result<EdgeLink, LinkError> {
        let peer = peer_identity(&connection)?;
        if !matches!(peer, Identity::Relay(_)) {
            return Err(LinkError::Stranger);
        }
        let (send, recv) = connection.open_bi().await?;
        let mut link = EdgeLink::assemble(peer, connection, (send, recv), uplinks, over);
        let hello = LinkHello {
            version: VERSION,
            agent: self.identity.clone(),
        };
        link.sender
            .send_control(&LinkUp {
                message: Some(link_up::Message::Hello(hello)),
            })
            .await?;
        match link.control.recv().await?.message {
            Some(link_down::Message::Welcome(welcome)) if welcome.version == VERSION => Ok(link),
            Some(link_down::Message::Welcome(welcome)) => Err(LinkError::Version {
                theirs: welcome.version,
            }),
            _ => Err(LinkError::Unexpected {
                expected: "a welcome",
            }),
        }
    }
}

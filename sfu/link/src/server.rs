//! The relay's end: a UDP port that takes links, and a TCP port beside it for those whose UDP is blocked.
//!
//! [`LinkServer::accept`] gives connections that are still arriving, so that a slow handshake holds up nobody:
//! finish each in a task of its own. Only agents and relays are let in. Everything runs on the runtime on which
//! [`LinkServer::bind`] was called, so a relay's worker keeps its links on its own thread.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use muster_identity::{Credentials, Identity};
use muster_proto::media::v1::{LinkDown, LinkWelcome, link_down, link_up};
use quinn::Runtime as _;
use quinn::crypto::rustls::QuicServerConfig;

use crate::link::{Over, RelayLink, peer_identity};
use crate::repair::parity;
use crate::tunnel::{ALPN, Junction, Table, TunnelStats};
use crate::{LinkError, VERSION, transport};

/// From the first packet to the hello.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes that may be open at once; more are not answered (the edge's QUIC tries again).
const MAX_ARRIVING: usize = 1024;
/// Bytes that may wait for handshakes to begin, of all peers.
const MAX_WAITING: u64 = 8 * 1024 * 1024;
/// With so many handshakes open a peer must show that its address is its own before more is done for it (QUIC Retry,
/// RFC 9000 section 8.1.2).
const RETRY_ABOVE: usize = 64;

/// A port that takes links.
#[derive(Debug)]
pub struct LinkServer {
    endpoint: quinn::Endpoint,
    tunnels: Option<Arc<Table>>,
    name: Arc<str>,
    /// One is held by each connection that is arriving.
    arriving: Arc<()>,
}

impl LinkServer {
    /// Serves links on `socket` on the current runtime. `credentials` must be a relay's.
    ///
    /// # Errors
    /// [`LinkError::Credentials`] or [`LinkError::Socket`].
    pub fn bind(socket: UdpSocket, credentials: &Credentials) -> Result<Self, LinkError> {
        Self::bind_with(socket, None, credentials)
    }

    /// The same, and takes links through tunnels on a TCP port. Edges dial the same number as UDP's.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_with(
        socket: UdpSocket,
        tcp: Option<TcpListener>,
        credentials: &Credentials,
    ) -> Result<Self, LinkError> {
        parity::for_many_links();
        let Identity::Relay(name) = &credentials.identity else {
            return Err(LinkError::Credentials(format!(
                "{} is not a relay",
                credentials.identity
            )));
        };
        let tls = muster_identity::link_server_config(credentials)
            .map_err(|e| LinkError::Credentials(e.to_string()))?;
        let mut outer = tls.clone();
        outer.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicServerConfig::try_from(tls).map_err(|e| LinkError::Credentials(e.to_string()))?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config
            .transport_config(transport::config())
            .max_incoming(MAX_ARRIVING)
            .incoming_buffer_size_total(MAX_WAITING);
        let runtime = Arc::new(quinn::TokioRuntime);
        let mut socket = runtime.wrap_udp_socket(socket).map_err(LinkError::Socket)?;
        let mut tunnels = None;
        if let Some(listener) = tcp {
            listener.set_nonblocking(true).map_err(LinkError::Socket)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(LinkError::Socket)?;
            let junction = Junction::new(socket, listener, Arc::new(outer).into());
            tunnels = Some(junction.table());
            socket = Arc::new(junction);
        }
        let endpoint =
            quinn::Endpoint::new_with_abstract_socket(transport::endpoint(), Some(config), socket, runtime)
                .map_err(LinkError::Socket)?;
        Ok(Self {
            endpoint,
            tunnels,
            name: name.as_str().into(),
            arriving: Arc::default(),
        })
    }

    /// The port that is served.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        self.endpoint.local_addr().map_err(LinkError::Socket)
    }

    /// The next connection; `None` after [`Self::close`].
    pub async fn accept(&self) -> Option<Arriving> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let many = Arc::strong_count(&self.arriving) > RETRY_ABOVE;
            if many && !incoming.remote_address_validated() && incoming.may_retry() {
                // Errs only where it may not retry.
                let _ = incoming.retry();
                continue;
            }
            return Some(Arriving {
                incoming,
                tunnels: self.tunnels.clone(),
                name: self.name.clone(),
                _arriving: self.arriving.clone(),
            });
        }
    }

    /// What was counted of tunnels; zeros where none are taken.
    pub fn tunnel_stats(&self) -> TunnelStats {
        self.tunnels
            .as_ref()
            .map(|table| table.stats())
            .unwrap_or_default()
    }

    /// Closes every link and takes no more.
    pub fn close(&self, reason: &str) {
        self.endpoint.close(quinn::VarInt::from_u32(0), reason.as_bytes());
    }

    /// Waits until the peers have been told of the close.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// A connection in its handshake.
#[derive(Debug)]
pub struct Arriving {
    incoming: quinn::Incoming,
    tunnels: Option<Arc<Table>>,
    name: Arc<str>,
    _arriving: Arc<()>,
}

impl Arriving {
    /// Whether the peer has shown that it receives at its address (by a Retry, or a token of an earlier connection).
    pub fn has_proved_its_address(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    /// Finishes the handshake: TLS, identity, control stream, hello and welcome. Gives up after 5 s.
    ///
    /// # Errors
    /// [`LinkError`]; the connection is closed then.
    pub async fn finish(self) -> Result<RelayLink, LinkError> {
        tokio::time::timeout(ARRIVAL_TIMEOUT, self.shake_hands())
            .await
            .map_err(|_| LinkError::Timeout("say hello"))?
    }

    async fn shake_hands(self) -> Result<RelayLink, LinkError> {
        let connection = self.incoming.accept()?.await?;
        let peer = peer_identity(&connection)?;
        if matches!(peer, Identity::ControlPlane) {
            return Err(LinkError::Stranger);
        }
        let (send, recv) = connection.accept_bi().await?;
        let over = self.tunnels.map_or(Over::Udp, Over::Junction);
        let mut link = RelayLink::assemble(peer, connection, (send, recv), None, over);
        match link.control.recv().await?.message {
            Some(link_up::Message::Hello(hello)) if hello.version == VERSION => {}
            Some(link_up::Message::Hello(hello)) => {
                return Err(LinkError::Version {
                    theirs: hello.version,
                });
            }
            _ => return Err(LinkError::Unexpected { expected: "a hello" }),
        }
        let welcome = LinkWelcome {
            version: VERSION,
            relay: self.name.to_string(),
        };
        link.sender
            .send_control(&LinkDown {
                message: Some(link_down::Message::Welcome(welcome)),
            })
            .await?;
        Ok(link)
    }
}

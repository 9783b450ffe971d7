//! The edge's end: dialling a relay.
//!
//! [`EdgeLink::connect`] opens the connection and the control stream, and has exchanged hello and welcome when it
//! returns; joining a meeting is the caller's. Each link has a socket of its own.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_identity::{Credentials, Identity};
use muster_proto::media::v1::{LinkHello, LinkUp, link_down, link_up};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{AsyncUdpSocket, Runtime as _};

use crate::link::{EdgeLink, peer_identity};
use crate::uplinks::Uplinks;
use crate::{LinkError, VERSION, transport};

/// Name in every relay's certificate.
const RELAY_NAME: &str = "muster-relay";
/// From the first packet to the welcome.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// [`LinkError`]; the relay's certificate must be of the same CA as `credentials`. Gives up after 5 s.
    pub async fn connect(address: &str, credentials: &Credentials) -> Result<Self, LinkError> {
        Self::connect_over(address, credentials, &[]).await
    }

    /// The same over network interfaces of these names, in the order of preference: it sends by the first, and by the next
    /// when nothing comes back. With none, the system's routes decide.
    ///
    /// # Errors
    /// As [`Self::connect`], and [`LinkError::Socket`] where no interface can be used.
    pub async fn connect_over(
        address: &str,
        credentials: &Credentials,
        interfaces: &[String],
    ) -> Result<Self, LinkError> {
        tokio::time::timeout(CONNECT_TIMEOUT, dial(address, credentials, interfaces))
            .await
            .map_err(|_| LinkError::Timeout("answer"))?
    }
}

/// The interfaces that a link goes over, where they were named.
type Over = Option<Arc<Uplinks>>;

/// A socket by the system's routes, or over these interfaces.
fn open(to: SocketAddr, interfaces: &[String]) -> std::io::Result<(Arc<dyn AsyncUdpSocket>, Over)> {
    if !interfaces.is_empty() {
        let uplinks = Arc::new(Uplinks::open(interfaces, to)?);
        return Ok((uplinks.clone(), Some(uplinks)));
    }
    let local: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(local)?;
    Ok((quinn::TokioRuntime.wrap_udp_socket(socket)?, None))
}

async fn dial(
    address: &str,
    credentials: &Credentials,
    interfaces: &[String],
) -> Result<EdgeLink, LinkError> {
    let address = resolve(address).await?;
    let tls = muster_identity::link_client_config(credentials)
        .map_err(|e| LinkError::Credentials(e.to_string()))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| LinkError::Credentials(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport::config());
    let (socket, uplinks) = open(address, interfaces).map_err(LinkError::Socket)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new_with_abstract_socket(transport::endpoint(), None, socket, runtime)
        .map_err(LinkError::Socket)?;
    let connection = endpoint.connect_with(config, address, RELAY_NAME)?.await?;
    let peer = peer_identity(&connection)?;
    if !matches!(peer, Identity::Relay(_)) {
        return Err(LinkError::Stranger);
    }
    let (send, recv) = connection.open_bi().await?;
    let mut link = EdgeLink::assemble(peer, connection, send, recv, uplinks);
    let hello = LinkHello {
        version: VERSION,
        agent: credentials.identity.to_string(),
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

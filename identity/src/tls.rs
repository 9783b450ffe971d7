//! TLS between agents, relays and the control plane: TLS 1.3, certificates of the built-in CA, fixed server names
//! (an address may change, the name in the certificate does not). And TLS of commands towards the port for people, where
//! the certificate must be for the host that was asked for.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{Credentials, IdentityError, Rank};

/// Server name in the control plane's certificate.
pub const CONTROL_PLANE_NAME: &str = "muster-control-plane";
/// Server name in every relay's certificate.
pub const RELAY_NAME: &str = "muster-relay";
/// ALPN of a link.
pub const LINK_ALPN: &[u8] = b"muster/1";
const H2: &[u8] = b"h2";

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(ca_pem: &str) -> Result<RootCertStore, IdentityError> {
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes())
        .map_err(|e| IdentityError::malformed("CA certificate", e))?;
    let mut roots = RootCertStore::empty();
    roots
        .add(ca)
        .map_err(|e| IdentityError::malformed("CA certificate", e))?;
    Ok(roots)
}

fn client_config(credentials: &Credentials, alpn: &[u8]) -> Result<ClientConfig, IdentityError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| IdentityError::malformed("TLS versions", e))?
        .with_root_certificates(roots(&credentials.ca_pem)?)
        .with_client_auth_cert(credentials.chain()?, credentials.key()?)
        .map_err(|e| IdentityError::malformed("client certificate", e))?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// TLS of the edge's side of a link.
pub fn link_client_config(credentials: &Credentials) -> Result<ClientConfig, IdentityError> {
    client_config(credentials, LINK_ALPN)
}

/// TLS of a relay's side of a link: it demands a certificate of the CA.
pub fn link_server_config(credentials: &Credentials) -> Result<ServerConfig, IdentityError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&credentials.ca_pem)?), provider())
            .build()
            .map_err(|e| IdentityError::malformed("CA certificate", e))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| IdentityError::malformed("TLS versions", e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain()?, credentials.key()?)
        .map_err(|e| IdentityError::malformed("server certificate", e))?;
    config.alpn_protocols = vec![LINK_ALPN.to_vec()];
    Ok(config)
}

/// A gRPC channel to the control plane's port for agents and relays, with the caller's certificate. It connects
/// at its first use and again by itself; `authority` is `HOST:PORT`.
pub async fn connect(authority: &str, credentials: &Credentials) -> Result<Channel, IdentityError> {
    connect_in_line(authority, credentials, Rank::default()).await
}

/// The same, asking to be served in this place where many connect at once; it holds from the next connection on.
pub async fn connect_in_line(
    authority: &str,
    credentials: &Credentials,
    rank: Rank,
) -> Result<Channel, IdentityError> {
    let tls = client_config(credentials, H2)?;
    channel(authority, tls, rank)
}

/// TLS of a command that speaks gRPC to a port for people: a certificate of one of these roots, for the host asked for.
///
/// # Errors
/// PEM that holds no certificate.
pub fn web_client_config(roots_pem: &[u8]) -> Result<ClientConfig, IdentityError> {
    let mut roots = RootCertStore::empty();
    let certs = CertificateDer::pem_slice_iter(roots_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| IdentityError::malformed("CA certificate", e))?;
    // Of a system's roots some may be of a kind that webpki does not take.
    let (taken, _) = roots.add_parsable_certificates(certs);
    if taken == 0 {
        return Err(IdentityError::malformed(
            "CA certificate",
            "expected PEM with BEGIN CERTIFICATE",
        ));
    }
    web_config(roots)
}

/// As [`web_client_config`], with roots in DER form.
///
/// # Errors
/// None that a configuration of ours could meet.
pub fn web_client_config_of(roots_der: Vec<CertificateDer<'static>>) -> Result<ClientConfig, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(roots_der);
    web_config(roots)
}

fn web_config(roots: RootCertStore) -> Result<ClientConfig, IdentityError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| IdentityError::malformed("TLS versions", e))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// A TLS connection to a port for people, `HOST:PORT`; the certificate must be for that host.
///
/// # Errors
/// Nobody there, or a certificate that is not trusted: then the cause is a [`rustls::Error`].
pub async fn connect_web(address: &str, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, tcp).await
}

/// A gRPC channel to a port for people, `HOST:PORT`, over TLS. Connected when this returns.
///
/// # Errors
/// As [`connect_web`], somewhere among the causes.
pub async fn web_channel(
    address: &str,
    mut config: ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let mut endpoint =
        Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(Duration::from_secs(5));
    if let Ok(origin) = format!("https://{address}").parse() {
        endpoint = endpoint.origin(origin);
    }
    let target = address.to_owned();
    let service = tower::service_fn(move |_: Uri| {
        let (config, target) = (config.clone(), target.clone());
        async move { Ok::<_, std::io::Error>(TokioIo::new(connect_web(&target, config).await?)) }
    });
    endpoint.connect_with_connector(service).await
}

pub(crate) fn channel(authority: &str, tls: ClientConfig, rank: Rank) -> Result<Channel, IdentityError> {
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|e| IdentityError::malformed("address of the control plane (expected HOST:PORT)", e))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let target = authority.to_owned();
    let service = tower::service_fn(move |_: Uri| {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![H2.to_vec(), rank.word().to_vec()];
        let connector = TlsConnector::from(Arc::new(tls));
        let target = target.clone();
        async move {
            let tcp = TcpStream::connect(&target).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(CONTROL_PLANE_NAME).map_err(std::io::Error::other)?;
            let stream = connector.connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(service))
}

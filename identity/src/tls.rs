//! TLS between agents, relays and the control plane: TLS 1.3, certificates of the built-in CA, fixed server names
//! (an address may change, the name in the certificate does not).

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
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{Credentials, IdentityError};

/// Server name in the control plane's certificate.
pub const CONTROL_PLANE_NAME: &str = "muster-control-plane";
/// Server name in every relay's certificate.
pub const RELAY_NAME: &str = "muster-relay";
/// ALPN of a link.
pub const LINK_ALPN: &[u8] = b"muster/1";

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
    let tls = client_config(credentials, b"h2")?;
    channel(authority, tls)
}

pub(crate) fn channel(authority: &str, tls: ClientConfig) -> Result<Channel, IdentityError> {
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|e| IdentityError::malformed("address of the control plane (expected HOST:PORT)", e))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let connector = TlsConnector::from(Arc::new(tls));
    let target = authority.to_owned();
    let service = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
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

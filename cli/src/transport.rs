//! The connection to the control plane: https with a CA by file or those of the system, or plain HTTP where that was asked
//! for. An error says what to do about it; nothing is ever sent to a server that is not trusted.

use std::path::Path;
use std::time::Duration;

use muster_identity::{web_channel, web_client_config, web_client_config_of};
use rustls::{CertificateError, ClientConfig};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::failure::Failure;

/// Connects to the control plane, or says plainly why not.
pub async fn connect(server: &str, ca: Option<&Path>) -> Result<Channel, Failure> {
    let usage = || Failure::Usage(format!("--server {server}: expected https://HOST:PORT"));
    let uri: Uri = server.parse().map_err(|_| usage())?;
    let authority = uri.authority().ok_or_else(usage)?.as_str();
    match uri.scheme_str() {
        Some("https") => {
            let address = with_port(authority, uri.port_u16());
            let connected = web_channel(&address, trust(ca)?).await;
            return connected.map_err(|error| why_not(server, ca, &error));
        }
        Some("http") => {}
        _ => return Err(usage()),
    }
    let endpoint = Endpoint::from_shared(server.to_owned())
        .map_err(|_| usage())?
        .connect_timeout(Duration::from_secs(5));
    endpoint.connect().await.map_err(|error| {
        Failure::Unreachable(format!(
            "no control plane answers at {server} ({}); is it running, is --server right, and does it speak TLS \
             (https://)?",
            root_cause(&error)
        ))
    })
}

fn with_port(authority: &str, port: Option<u16>) -> String {
    match port {
        Some(_) => authority.to_owned(),
        None => format!("{authority}:443"),
    }
}

/// Whom to trust: one CA by file, or those of the system.
fn trust(ca: Option<&Path>) -> Result<ClientConfig, Failure> {
    if let Some(path) = ca {
        let pem = std::fs::read(path)
            .map_err(|error| Failure::Usage(format!("--ca {}: {error}", path.display())))?;
        return web_client_config(&pem)
            .map_err(|error| Failure::Usage(format!("--ca {}: {error}", path.display())));
    }
    // What cannot be read of the system's store is left out: the error of the connection says what to do.
    web_client_config_of(rustls_native_certs::load_native_certs().certs)
        .map_err(|error| Failure::Refused(error.to_string()))
}

fn why_not(server: &str, ca: Option<&Path>, error: &tonic::transport::Error) -> Failure {
    let Some(refused) = certificate_error(error) else {
        return Failure::Unreachable(format!(
            "no control plane answers at {server} ({}); is it running, and is --server right?",
            root_cause(error)
        ));
    };
    let advice = match (refused, ca) {
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, None) => {
            "it is of a CA that this system does not know; where that is the control plane's own, give --ca FILE \
             (or MUSTER_CA) with its DATA_DIR/ca/ca.pem, fetched over a way that you trust"
                .to_owned()
        }
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, Some(path)) => {
            format!(
                "it is not of the CA in {}: is that the ca.pem of this control plane, and is --server right?",
                path.display()
            )
        }
        (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }, _) => {
            "it is for another name: use one that it has, or start the control plane with --tls-name for this one"
                .to_owned()
        }
        (CertificateError::Expired | CertificateError::ExpiredContext { .. }, _) => {
            "it has run out (or this machine's clock is wrong): it must be replaced at the control plane".to_owned()
        }
        (CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }, _) => {
            "it is not good yet: is this machine's clock right?".to_owned()
        }
        (other, _) => format!("{other}"),
    };
    Failure::Unreachable(format!("the certificate of {server} is not trusted: {advice}"))
}

/// What rustls has against the server's certificate, if that is why there is no connection.
fn certificate_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CertificateError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An io::Error does not show what it holds as its source.
        let held = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        let tls = held.and_then(|held| held.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(refused)) = tls.or_else(|| error.downcast_ref()) {
            return Some(refused);
        }
        cause = error.source();
    }
    None
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_identity::{Authority, LiveCertificate, accept_tls};
    use std::path::PathBuf;

    /// A server that ends each handshake; its address.
    async fn server(authority: &Authority, dir: &Path, names: &[String]) -> String {
        let files = authority
            .kept_server_certificate(dir, names)
            .expect("a certificate");
        let live = LiveCertificate::from_files(&files).expect("a pair");
        let acceptor = tokio_rustls::TlsAcceptor::from(live.server_config().expect("TLS"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = accept_tls(&acceptor, stream).await;
            }
        });
        format!("https://127.0.0.1:{port}")
    }

    async fn refused(server: &str, ca: Option<&PathBuf>) -> String {
        match connect(server, ca.map(PathBuf::as_path)).await {
            Err(Failure::Unreachable(message)) => message,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("{server} was trusted"),
        }
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_trusted_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().expect("folder");
        let authority = Authority::load_or_create(dir.path()).expect("a CA");
        let right = server(&authority, &dir.path().join("a"), &["127.0.0.1".to_owned()]).await;
        let ca = dir.path().join("ca.pem");
        connect(&right, Some(&ca)).await.expect("trusted");

        let message = refused(&right, None).await;
        assert!(
            message.contains("--ca FILE") && message.contains("ca/ca.pem"),
            "{message}"
        );
        let other_dir = tempfile::tempdir().expect("folder");
        Authority::load_or_create(other_dir.path()).expect("another CA");
        let message = refused(&right, Some(&other_dir.path().join("ca.pem"))).await;
        assert!(message.contains("not of the CA in"), "{message}");

        let elsewhere = server(&authority, &dir.path().join("b"), &["cp.example".to_owned()]).await;
        let message = refused(&elsewhere, Some(&ca)).await;
        assert!(message.contains("--tls-name"), "{message}");
    }

    #[tokio::test]
    async fn a_bad_address_and_a_bad_file_are_wrong_usage() {
        for (server, ca) in [
            ("nonsense", None),
            ("https://127.0.0.1:1", Some(Path::new("/nonexistent.pem"))),
        ] {
            assert!(
                matches!(connect(server, ca).await, Err(Failure::Usage(_))),
                "{server}"
            );
        }
    }
}

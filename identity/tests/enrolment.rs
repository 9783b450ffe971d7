//! Enrolment and mutual TLS against a real TLS server.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_identity::{
    Authority, Credentials, EnrolError, EnrolToken, Identity, connect, enrol, identity_of,
};
use muster_proto::command::v1::enrol_service_client::EnrolServiceClient;
use muster_proto::command::v1::enrol_service_server::{EnrolService, EnrolServiceServer};
use muster_proto::command::v1::{EnrolRequest, EnrolResponse};
use tokio::net::TcpListener;
use tonic::transport::{Certificate, Identity as TlsIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// Enrols whoever brings the token, and tells a caller with a certificate who it is.
struct Desk {
    authority: Arc<Authority>,
    token: String,
}

#[tonic::async_trait]
impl EnrolService for Desk {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let caller = request
            .peer_certs()
            .and_then(|certs| certs.first().map(|cert| identity_of(cert)));
        if let Some(caller) = caller {
            let caller = caller.map_err(|e| Status::unauthenticated(e.to_string()))?;
            return Ok(Response::new(EnrolResponse {
                identity: caller.to_string(),
                ..Default::default()
            }));
        }
        let request = request.into_inner();
        if request.token != self.token {
            return Err(Status::permission_denied("the token was used before"));
        }
        let identity = Identity::Agent("WH-S01".to_owned());
        let certificate_pem = self
            .authority
            .issue(&request.csr_pem, &identity)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(Response::new(EnrolResponse {
            certificate_pem,
            ca_pem: self.authority.ca_pem().to_owned(),
            identity: identity.to_string(),
            token_key_pem: self.authority.token_key_pem(),
            site: None,
        }))
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    address: SocketAddr,
    token: EnrolToken,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("temp dir");
    let authority = Arc::new(Authority::load_or_create(dir.path()).expect("authority"));
    let token = EnrolToken::new(authority.fingerprint());
    let pem = authority.server_credentials(&[]).expect("server certificate");
    let tls = ServerTlsConfig::new()
        .identity(TlsIdentity::from_pem(pem.cert_chain_pem, pem.key_pem))
        .client_ca_root(Certificate::from_pem(pem.ca_pem))
        .client_auth_optional(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let desk = Desk {
        authority,
        token: token.to_string(),
    };
    let server = Server::builder()
        .tls_config(tls)
        .expect("tls")
        .add_service(EnrolServiceServer::new(desk))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tokio::spawn(server);
    Fixture {
        _dir: dir,
        address,
        token,
    }
}

#[tokio::test]
async fn a_token_buys_a_certificate_that_says_who_it_is() {
    let fixture = fixture().await;
    let authority = fixture.address.to_string();
    let credentials = enrol(&authority, &fixture.token).await.expect("enrolled");
    assert_eq!(credentials.identity, Identity::Agent("WH-S01".to_owned()));

    let kept = tempfile::tempdir().expect("temp dir");
    credentials.save(kept.path()).expect("saved");
    let loaded = Credentials::load(kept.path()).expect("loaded").expect("there");
    let mut client = EnrolServiceClient::new(connect(&authority, &loaded).await.expect("channel"));
    let answer = client.enrol(EnrolRequest::default()).await.expect("answer");
    assert_eq!(answer.into_inner().identity, "agent:WH-S01");
}

#[tokio::test]
async fn a_server_with_another_ca_gets_nothing() {
    let fixture = fixture().await;
    let token = EnrolToken::new(muster_identity::sha256_text(b"another certificate"));
    let error = enrol(&fixture.address.to_string(), &token)
        .await
        .expect_err("refused");
    assert!(matches!(error, EnrolError::WrongServer { .. }), "{error}");
}

#[tokio::test]
async fn a_refused_token_and_a_dead_server_are_told_apart() {
    let fixture = fixture().await;
    let spent = EnrolToken::new(fixture.token.ca_fingerprint.clone());
    let error = enrol(&fixture.address.to_string(), &spent)
        .await
        .expect_err("refused");
    assert!(matches!(error, EnrolError::Refused(_)), "{error}");

    let gone = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = gone.local_addr().expect("address").to_string();
    drop(gone);
    let error = enrol(&address, &spent).await.expect_err("unreachable");
    assert!(matches!(error, EnrolError::Unreachable { .. }), "{error}");
}

#[test]
fn malformed_tokens_are_named_so_and_secrets_stay_out_of_debug() {
    for text in ["", "met1", "met1.a.b", "met2.x.y", "met1.a.b.c"] {
        assert!(matches!(
            text.parse::<EnrolToken>(),
            Err(EnrolError::TokenMalformed)
        ));
    }
    let token = EnrolToken::new(muster_identity::sha256_text(b"ca"));
    assert!(!format!("{token:?}").contains(&token.secret));
    assert_eq!(token.to_string().parse::<EnrolToken>().ok(), Some(token));
}

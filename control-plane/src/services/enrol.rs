//! Enrolment: a one-time token for a certificate. The caller has no certificate yet.

use crate::clock::now_ms;
use crate::convert::site_to_wire;
use crate::core::Core;
use crate::status::{Failure, unauthenticated};
use crate::store::StoreError;
use muster_identity::{EnrolToken, Identity, sha256_text};
use muster_proto::command::v1::enrol_service_server::EnrolService;
use muster_proto::command::v1::{EnrolRequest, EnrolResponse};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub struct Enrolment(pub Arc<Core>);

fn refused() -> Status {
    metrics::counter!("muster_enrolments_refused").increment(1);
    unauthenticated("the enrolment token is not known, was used already, or has run out")
}

#[tonic::async_trait]
impl EnrolService for Enrolment {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let EnrolRequest { token, csr_pem } = request.into_inner();
        let token: EnrolToken = token.parse().map_err(|_| refused())?;
        let hash = sha256_text(token.secret.as_bytes());
        let row = self.0.store.enrol_token(&hash).await?.ok_or_else(refused)?;
        if row.used || row.expires_ms <= now_ms() {
            return Err(refused());
        }
        let identity: Identity = row.identity.parse().map_err(|_| {
            StoreError::Corrupt(format!(
                "an enrolment token is for {:?}, which is no identity",
                row.identity
            ))
        })?;
        let certificate_pem = self
            .0
            .authority
            .issue(&csr_pem, &identity)
            .map_err(|error| Failure::BadRequest(format!("csr_pem: {error}")))?;
        let fingerprint = sha256_text(certificate_pem.as_bytes());
        if !self
            .0
            .store
            .use_enrol_token(&hash, &fingerprint, now_ms())
            .await?
        {
            return Err(refused());
        }
        tracing::info!(%identity, "enrolled");
        let site = match &identity {
            Identity::Agent(site) => self.0.tree().site(site).map(site_to_wire),
            Identity::Relay(_) | Identity::ControlPlane => None,
        };
        Ok(Response::new(EnrolResponse {
            certificate_pem,
            ca_pem: self.0.authority.ca_pem().to_owned(),
            identity: identity.to_string(),
            token_key_pem: self.0.authority.token_key_pem(),
            site,
        }))
    }
}

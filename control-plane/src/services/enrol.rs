//! Enrolment: a one-time token for a certificate. The caller has no certificate yet; or it is a relay that has one and
//! wants it made anew, for its names of now, and sends no token. A name that is not signed spends no token.

use crate::convert::site_to_wire;
use crate::core::{Core, peer_identity};
use crate::counters::turned_away;
use crate::status::{Failure, unauthenticated};
use crate::store::StoreError;
use crate::units::By;
use muster_domain::{Order, Record, UnitId};
use muster_identity::{EnrolToken, Identity, IdentityError, sha256_text};
use muster_proto::command::v1::enrol_service_server::EnrolService;
use muster_proto::command::v1::{EnrolRequest, EnrolResponse};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub struct Enrolment(pub Arc<Core>);

fn refused(reason: &'static str) -> Status {
    turned_away("enrolment", reason);
    unauthenticated("the enrolment token is not known, was used already, or has run out")
}

impl Enrolment {
    /// A certificate for the key of the request, in the name of `identity`.
    fn issue(&self, csr_pem: &str, identity: &Identity) -> Result<String, Status> {
        self.0.authority.issue(csr_pem, identity).map_err(|error| {
            turned_away("enrolment", "request");
            match error {
                IdentityError::Name(name) => Failure::BadRequest(name.to_string()).into(),
                other => Failure::BadRequest(format!("csr_pem: {other}")).into(),
            }
        })
    }

    fn answer(&self, certificate_pem: String, identity: &Identity) -> EnrolResponse {
        let site = match identity {
            Identity::Agent(site) => self.0.tree().site(site).map(site_to_wire),
            Identity::Relay(_) | Identity::ControlPlane => None,
        };
        EnrolResponse {
            certificate_pem,
            ca_pem: self.0.authority.ca_pem().to_owned(),
            identity: identity.to_string(),
            token_key_pem: self.0.authority.token_key_pem(),
            site,
        }
    }

    /// Writes that a token was used into the stream of the site's unit, or of the relay's.
    async fn record(&self, identity: &Identity) {
        let unit = match identity {
            Identity::Agent(site) => self.0.tree().site(site).map(|site| site.unit.clone()),
            // A relay is named after its unit: `UNIT-` and eight digits.
            Identity::Relay(name) => name.rsplit_once('-').and_then(|(unit, _)| UnitId::new(unit).ok()),
            Identity::ControlPlane => None,
        };
        let Some(unit) = unit else {
            return;
        };
        let identity = identity.to_string();
        let by = By {
            actor: &identity,
            cause: "enrol",
        };
        let record = Record::SecretUsed {
            identity: identity.clone(),
        };
        let order = Order::Record(record);
        if let Err(error) = self.0.units.act(&unit, by, order, Vec::new()).await {
            // The token is used up: who holds the certificate must get it.
            tracing::warn!(%error, "cannot record that a token was used");
        }
    }
}

#[tonic::async_trait]
impl EnrolService for Enrolment {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let shown = peer_identity(&request);
        let EnrolRequest { token, csr_pem } = request.into_inner();
        if let (true, Some(identity @ Identity::Relay(_))) = (token.is_empty(), shown) {
            let certificate_pem = self.issue(&csr_pem, &identity)?;
            tracing::info!(%identity, "certificate made anew");
            return Ok(Response::new(self.answer(certificate_pem, &identity)));
        }
        let token: EnrolToken = token.parse().map_err(|_| refused("malformed"))?;
        let hash = sha256_text(token.secret.as_bytes());
        let row = self.0.store.enrol_token(&hash).await?;
        let row = row.ok_or_else(|| refused("unknown"))?;
        if row.used {
            return Err(refused("used"));
        }
        if row.expires_ms <= self.0.clock.now_ms() {
            return Err(refused("expired"));
        }
        let identity: Identity = row.identity.parse().map_err(|_| {
            StoreError::Corrupt(format!(
                "an enrolment token is for {:?}, which is no identity",
                row.identity
            ))
        })?;
        let certificate_pem = self.issue(&csr_pem, &identity)?;
        let fingerprint = sha256_text(certificate_pem.as_bytes());
        if !self
            .0
            .store
            .use_enrol_token(&hash, &fingerprint, self.0.clock.now_ms())
            .await?
        {
            return Err(refused("used"));
        }
        self.record(&identity).await;
        tracing::info!(%identity, "enrolled");
        Ok(Response::new(self.answer(certificate_pem, &identity)))
    }
}

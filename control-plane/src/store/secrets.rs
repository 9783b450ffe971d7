//! Secrets that were given out: enrolment tokens and site links, by their hash; and certificates issued. They are given
//! out with a line in a unit's log: [`super::UnitEffect`].

use super::Result;
use async_trait::async_trait;

/// An enrolment token that was found; `identity` is `agent:SITE` or `relay:ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolRow {
    pub identity: String,
    pub expires_ms: i64,
    pub used: bool,
}

#[async_trait]
pub trait SecretStore: Send + Sync {
    async fn enrol_token(&self, hash: &str) -> Result<Option<EnrolRow>>;
    /// Marks the token used and records the certificate, in one transaction. False if it was used or has run out.
    async fn use_enrol_token(&self, hash: &str, fingerprint: &str, now_ms: i64) -> Result<bool>;
    /// Site and end of a link's validity.
    async fn site_link(&self, hash: &str) -> Result<Option<(String, i64)>>;
}

//! Secrets that were given out: enrolment tokens and site links, by their hash; and certificates issued.

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
    async fn add_enrol_token(&self, hash: &str, identity: &str, by: &str, expires_ms: i64) -> Result<()>;
    async fn enrol_token(&self, hash: &str) -> Result<Option<EnrolRow>>;
    /// Marks the token used and records the certificate, in one transaction. False if it was used or has run out.
    async fn use_enrol_token(&self, hash: &str, fingerprint: &str, now_ms: i64) -> Result<bool>;
    /// Gives a link out, and removes those that have run out.
    async fn add_site_link(
        &self,
        hash: &str,
        site: &str,
        by: &str,
        now_ms: i64,
        expires_ms: i64,
    ) -> Result<()>;
    /// Site and end of a link's validity.
    async fn site_link(&self, hash: &str) -> Result<Option<(String, i64)>>;
}

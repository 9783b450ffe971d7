//! Enrolment tokens and links of sites, in memory.

use super::*;

#[async_trait]
impl SecretStore for Memory {
    async fn enrol_token(&self, hash: &str) -> Result<Option<EnrolRow>> {
        Ok(self.enter().await?.enrol.get(hash).cloned())
    }

    async fn use_enrol_token(&self, hash: &str, _fingerprint: &str, now_ms: i64) -> Result<bool> {
        let mut state = self.enter().await?;
        let token = state.enrol.get_mut(hash);
        let Some(token) = token.filter(|token| !token.used && token.expires_ms > now_ms) else {
            return Ok(false);
        };
        token.used = true;
        Ok(true)
    }

    async fn site_link(&self, hash: &str) -> Result<Option<(String, i64)>> {
        Ok(self.enter().await?.links.get(hash).cloned())
    }
}

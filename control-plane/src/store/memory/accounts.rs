//! Accounts, sessions and the audit table, in memory.

use super::*;
use crate::store::accounts::AUDIT_ROWS;

#[async_trait]
impl AccountStore for Memory {
    async fn password_hash(&self, account: &str) -> Result<Option<String>> {
        let state = self.enter().await?;
        Ok(state.accounts.get(account).map(|(_, hash)| hash.clone()))
    }

    async fn account(&self, name: &str) -> Result<Option<AccountRow>> {
        let state = self.enter().await?;
        Ok(state.accounts.get(name).map(|(row, _)| row.clone()))
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>> {
        let state = self.enter().await?;
        Ok(state.accounts.values().map(|(row, _)| row.clone()).collect())
    }

    async fn add_session(&self, token_hash: &str, account: &str, now_ms: i64, expires_ms: i64) -> Result<()> {
        let mut state = self.enter().await?;
        state.sessions.retain(|_, session| session.expires_ms > now_ms);
        let row = SessionRow {
            id: session_id(token_hash).into(),
            account: account.into(),
            created_ms: now_ms,
            expires_ms,
        };
        match state.sessions.insert(token_hash.into(), row) {
            None => Ok(()),
            Some(_) => conflict("there is such a session"),
        }
    }

    async fn session(&self, token_hash: &str) -> Result<Option<(String, i64)>> {
        let state = self.enter().await?;
        let session = state.sessions.get(token_hash);
        Ok(session.map(|session| (session.account.clone(), session.expires_ms)))
    }

    async fn sessions(&self, account: &str) -> Result<Vec<SessionRow>> {
        let state = self.enter().await?;
        let of = state.sessions.values().filter(|s| s.account == account);
        let mut rows: Vec<_> = of.cloned().collect();
        rows.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        Ok(rows)
    }

    async fn extend_session(&self, token_hash: &str, expires_ms: i64) -> Result<()> {
        if let Some(session) = self.enter().await?.sessions.get_mut(token_hash) {
            session.expires_ms = expires_ms;
        }
        Ok(())
    }

    async fn remove_session(&self, token_hash: &str) -> Result<()> {
        self.enter().await?.sessions.remove(token_hash);
        Ok(())
    }

    async fn audit(&self, id: &str, row: &AuditRow) -> Result<()> {
        let mut state = self.enter().await?;
        state.audit.push((id.into(), row.clone()));
        state
            .audit
            .sort_by(|(a, left), (b, right)| (right.at_ms, a).cmp(&(left.at_ms, b)));
        state
            .audit
            .truncate(usize::try_from(AUDIT_ROWS).unwrap_or_default());
        Ok(())
    }

    async fn audit_rows(&self, limit: i64) -> Result<Vec<AuditRow>> {
        let state = self.enter().await?;
        let limit = usize::try_from(limit).unwrap_or_default();
        Ok(state
            .audit
            .iter()
            .take(limit)
            .map(|(_, row)| row.clone())
            .collect())
    }
}

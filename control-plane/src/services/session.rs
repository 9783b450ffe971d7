//! Signing in and out, and the sessions that are open.

use super::account::{home_of, known, may_manage};
use crate::convert::account_to_wire;
use crate::core::{Caller, Core, peer_ip};
use crate::store::{UnitAppend, UnitEffect, session_id};
use crate::units::By;
use muster_domain::{AccountName, Actor, Order, Record};
use muster_identity::sha256_text;
use muster_proto::command::v1::session_service_server::SessionService;
use muster_proto::command::v1::{
    self as pb, SignInRequest, SignInResponse, SignOutRequest, SignOutResponse, WhoAmIRequest, WhoAmIResponse,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Metadata of signing in: what shows that this device signed in before.
const DEVICE_KEY: &str = "muster-device";

pub struct Sessions(pub Arc<Core>);

/// The id of the caller's session.
fn own_session(caller: &Caller) -> String {
    session_id(&sha256_text(caller.token.as_bytes())).to_owned()
}

impl Sessions {
    /// Whose sessions are meant: the caller's own, or those of an account that the caller may manage.
    async fn whose(&self, caller: &Caller, account: String) -> Result<(AccountName, Actor), Status> {
        if account.is_empty() || account == caller.account.name {
            return Ok((caller.actor.account.clone(), caller.actor.clone()));
        }
        // Who may manage nobody is not told which accounts there are.
        may_manage(&self.0, caller, &[])?;
        let (_, actor) = known(&self.0, &account).await?;
        may_manage(&self.0, caller, &actor.grants)?;
        Ok((actor.account.clone(), actor))
    }
}

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let from = peer_ip(request.extensions());
        let device = request.metadata().get(DEVICE_KEY);
        let device = device.and_then(|text| text.to_str().ok()).unwrap_or_default();
        let device = device.to_owned();
        let SignInRequest { account, password } = request.into_inner();
        let accounts = &self.0.accounts;
        let session = accounts.sign_in(&account, password, from, &device).await?;
        let mut answer = Response::new(SignInResponse {
            session_token: session.token,
            account: Some(account_to_wire(&session.account)),
            expires_ms: session.expires_ms,
        });
        if let Ok(device) = session.device.parse() {
            answer.metadata_mut().insert(DEVICE_KEY, device);
        }
        Ok(answer)
    }

    async fn sign_out(&self, request: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        self.0.accounts.sign_out(&caller.token).await?;
        Ok(Response::new(SignOutResponse {}))
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let account = Some(account_to_wire(&caller.account));
        Ok(Response::new(WhoAmIResponse {
            account,
            expires_ms: caller.expires_ms,
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let own = own_session(&caller);
        let (account, _) = self.whose(&caller, request.into_inner().account).await?;
        let now = self.0.clock.now_ms();
        let rows = self.0.store.sessions(&account).await?;
        let sessions = rows
            .into_iter()
            .filter(|row| row.expires_ms > now)
            .map(|row| pb::Session {
                current: row.id == own,
                id: row.id,
                account: row.account,
                created_ms: row.created_ms,
                expires_ms: row.expires_ms,
            })
            .collect();
        Ok(Response::new(pb::ListSessionsResponse { sessions }))
    }

    async fn revoke_sessions(
        &self,
        request: Request<pb::RevokeSessionsRequest>,
    ) -> Result<Response<pb::RevokeSessionsResponse>, Status> {
        let caller = self.0.caller(&request).await?;
        let own = own_session(&caller);
        let pb::RevokeSessionsRequest { account, session } = request.into_inner();
        let (account, actor) = self.whose(&caller, account).await?;
        let meant = |id: &str| {
            if session.is_empty() {
                id != own
            } else {
                id == session
            }
        };
        let sessions = self.0.store.sessions(&account).await?;
        let revoked = sessions.iter().filter(|row| meant(&row.id)).count();
        if revoked == 0 {
            return Ok(Response::new(pb::RevokeSessionsResponse { revoked: 0 }));
        }
        let revoke = UnitEffect::RevokeSessions {
            account: account.to_string(),
            keep: session.is_empty().then_some(own),
            only: (!session.is_empty()).then_some(session),
        };
        let record = Record::SessionsRevoked {
            account,
            sessions: revoked,
        };
        let by = By {
            actor: &caller.account.name,
            cause: "revoke_sessions",
        };
        match home_of(&caller, &actor) {
            Some(unit) => {
                let order = Order::Record(record);
                self.0.units.act(&unit, by, order, vec![revoke]).await?;
            }
            // Whoever has no role anywhere is in no unit's log, and may end their own sessions all the same.
            None => {
                let alone = UnitAppend {
                    effects: vec![revoke],
                    ..UnitAppend::default()
                };
                self.0.store.append_unit(&alone).await?;
            }
        }
        let revoked = u32::try_from(revoked).unwrap_or(u32::MAX);
        Ok(Response::new(pb::RevokeSessionsResponse { revoked }))
    }
}

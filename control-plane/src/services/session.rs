//! Signing in and out.

use crate::convert::account_to_wire;
use crate::core::{Core, peer_ip};
use muster_proto::command::v1::session_service_server::SessionService;
use muster_proto::command::v1::{
    self as pb, SignInRequest, SignInResponse, SignOutRequest, SignOutResponse, WhoAmIRequest, WhoAmIResponse,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub struct Sessions(pub Arc<Core>);

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let from = peer_ip(&request);
        let SignInRequest { account, password } = request.into_inner();
        let session = self.0.accounts.sign_in(&account, password, from).await?;
        Ok(Response::new(SignInResponse {
            session_token: session.token,
            account: Some(account_to_wire(&session.account)),
            expires_ms: session.expires_ms,
        }))
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
        _: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        Err(Status::unimplemented("not built yet"))
    }

    async fn revoke_sessions(
        &self,
        _: Request<pb::RevokeSessionsRequest>,
    ) -> Result<Response<pb::RevokeSessionsResponse>, Status> {
        Err(Status::unimplemented("not built yet"))
    }
}

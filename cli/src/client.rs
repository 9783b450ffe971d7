//! A signed-in connection to the control plane.

use std::path::Path;

use muster_proto::command::v1::SignOutRequest;
use muster_proto::command::v1::account_service_client::AccountServiceClient;
use muster_proto::command::v1::directory_service_client::DirectoryServiceClient;
use muster_proto::command::v1::log_service_client::LogServiceClient;
use muster_proto::command::v1::meeting_service_client::MeetingServiceClient;
use muster_proto::command::v1::plan_service_client::PlanServiceClient;
use muster_proto::command::v1::report_service_client::ReportServiceClient;
use muster_proto::command::v1::session_service_client::SessionServiceClient;
use muster_proto::command::v1::watch_service_client::WatchServiceClient;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::args::Access;
use crate::failure::Failure;
use crate::session;
pub use crate::transport::connect;

/// Responses of 10,000 sites fit.
const MAX_RESPONSE: usize = 32 << 20;

/// Adds the session token to every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    pub fn new(token: &str) -> Result<Self, Failure> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| Failure::NotSignedIn("the session token is damaged; sign in again".to_owned()))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub type Authorized = InterceptedService<Channel, Bearer>;

#[derive(Clone)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
    /// The session was opened for this command, so it ends with it.
    own_session: bool,
}

impl Client {
    /// With the account of the command line if one is named, otherwise with the kept session.
    pub async fn open(access: &Access) -> Result<Self, Failure> {
        match &access.account {
            Some(account) => {
                let password = session::password(access, account)?;
                Self::sign_in(&access.server, access.ca.as_deref(), account, &password).await
            }
            None => {
                let token = session::kept_token(&access.server)?;
                let channel = connect(&access.server, access.ca.as_deref()).await?;
                Ok(Self {
                    channel,
                    bearer: Bearer::new(&token)?,
                    own_session: false,
                })
            }
        }
    }

    pub async fn sign_in(
        server: &str,
        ca: Option<&Path>,
        account: &str,
        password: &str,
    ) -> Result<Self, Failure> {
        let channel = connect(server, ca).await?;
        let session = session::request_session(channel.clone(), server, account, password).await?;
        Ok(Self {
            channel,
            bearer: Bearer::new(&session.session_token)?,
            own_session: true,
        })
    }

    pub fn sessions(&self) -> SessionServiceClient<Authorized> {
        SessionServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn directory(&self) -> DirectoryServiceClient<Authorized> {
        DirectoryServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_RESPONSE)
            .max_encoding_message_size(MAX_RESPONSE)
    }

    pub fn meetings(&self) -> MeetingServiceClient<Authorized> {
        MeetingServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_RESPONSE)
    }

    pub fn watch(&self) -> WatchServiceClient<Authorized> {
        WatchServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_RESPONSE)
    }

    pub fn accounts(&self) -> AccountServiceClient<Authorized> {
        AccountServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    pub fn plans(&self) -> PlanServiceClient<Authorized> {
        PlanServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_RESPONSE)
    }

    pub fn reports(&self) -> ReportServiceClient<Authorized> {
        ReportServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_RESPONSE)
    }

    pub fn log(&self) -> LogServiceClient<Authorized> {
        LogServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_RESPONSE)
    }

    /// Ends the session if it was opened for this command; the session expires by itself if that fails.
    pub async fn close(&self) {
        if self.own_session {
            let _ = self.sessions().sign_out(SignOutRequest {}).await;
        }
    }
}

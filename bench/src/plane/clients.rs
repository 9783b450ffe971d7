//! A dispatcher, and a relay that carries no media.

use std::net::SocketAddr;
use std::time::Duration;

use muster_identity::{Credentials, connect};
use muster_proto::command::v1::directory_service_client::DirectoryServiceClient;
use muster_proto::command::v1::fleet_service_client::FleetServiceClient;
use muster_proto::command::v1::meeting_service_client::MeetingServiceClient;
use muster_proto::command::v1::session_service_client::SessionServiceClient;
use muster_proto::command::v1::watch_service_client::WatchServiceClient;
use muster_proto::command::v1::{
    BroadcastSiteRequest, ConveneRequest, EndMeetingRequest, ImportSitesRequest, ImportSitesResponse,
    ListSitesRequest, Presence, RelayHeartbeat, RelayHello, Selector, ServeRequest, ServeResponse,
    SignInRequest, WatchRequest, WatchResponse, serve_request,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

/// A snapshot of 200,000 sites fits.
const MAX_MESSAGE: usize = 128 << 20;
const BEAT: Duration = Duration::from_millis(300);

/// Somebody who is signed in, on a connection of their own.
#[derive(Clone)]
pub struct Dispatcher {
    channel: Channel,
    bearer: MetadataValue<Ascii>,
}

async fn channel(addr: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{addr}"))?.connect().await?)
}

impl Dispatcher {
    pub async fn sign_in(addr: SocketAddr) -> anyhow::Result<Self> {
        let channel = channel(addr).await?;
        let request = SignInRequest {
            account: super::ACCOUNT.to_owned(),
            password: super::PASSWORD.to_owned(),
        };
        let session = SessionServiceClient::new(channel.clone())
            .sign_in(request)
            .await?;
        let bearer = format!("Bearer {}", session.into_inner().session_token).parse()?;
        Ok(Self { channel, bearer })
    }

    /// The same session on a connection of its own.
    pub async fn again(&self, addr: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            channel: channel(addr).await?,
            bearer: self.bearer.clone(),
        })
    }

    fn with_bearer<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.bearer.clone());
        request
    }

    fn directory(&self) -> DirectoryServiceClient<Channel> {
        DirectoryServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    pub async fn import(&self, csv: Vec<u8>) -> anyhow::Result<ImportSitesResponse> {
        let request = ImportSitesRequest { csv, dry_run: false };
        let done = self
            .directory()
            .import_sites(self.with_bearer(request))
            .await?
            .into_inner();
        if let Some(error) = done.errors.first() {
            anyhow::bail!(
                "line {}, {}: expected {}",
                error.line,
                error.column,
                error.expected
            );
        }
        Ok(done)
    }

    /// The newest state of every site.
    pub async fn presence(&self) -> anyhow::Result<Vec<Presence>> {
        let request = self.with_bearer(ListSitesRequest {});
        Ok(self.directory().list_sites(request).await?.into_inner().presence)
    }

    /// Convenes the whole city; gives the meeting's id.
    pub async fn convene(&self) -> anyhow::Result<String> {
        let selector = Selector {
            subtrees: vec![super::tree::ROOT.to_owned()],
            ..Selector::default()
        };
        let request = ConveneRequest {
            selector: Some(selector),
            title: "Flood".to_owned(),
            ..ConveneRequest::default()
        };
        let mut meetings =
            MeetingServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let convened = meetings.convene(self.with_bearer(request)).await?.into_inner();
        Ok(convened.meeting.unwrap_or_default().id)
    }

    /// Puts a site into the large picture.
    pub async fn broadcast(&self, meeting: &str, site: String) -> anyhow::Result<()> {
        let request = BroadcastSiteRequest {
            meeting: meeting.to_owned(),
            site,
        };
        let mut meetings = MeetingServiceClient::new(self.channel.clone());
        meetings.broadcast_site(self.with_bearer(request)).await?;
        Ok(())
    }

    pub async fn end(&self, meeting: &str) -> anyhow::Result<()> {
        let request = EndMeetingRequest {
            meeting: meeting.to_owned(),
        };
        let mut meetings = MeetingServiceClient::new(self.channel.clone());
        meetings.end_meeting(self.with_bearer(request)).await?;
        Ok(())
    }

    /// Of these units; none: all.
    pub async fn watch(&self, units: Vec<String>) -> anyhow::Result<Streaming<WatchResponse>> {
        let request = WatchRequest {
            units,
            ..WatchRequest::default()
        };
        let mut watch = WatchServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        Ok(watch.watch(self.with_bearer(request)).await?.into_inner())
    }
}

/// A relay that is there and says no more; it goes when dropped.
pub struct QuietRelay {
    _tasks: JoinSet<()>,
}

impl QuietRelay {
    pub async fn dial(agents_addr: SocketAddr, credentials: &Credentials) -> anyhow::Result<Self> {
        let channel = connect(&agents_addr.to_string(), credentials).await?;
        let (up, requests) = mpsc::channel(64);
        let hello = RelayHello {
            version: "bench".to_owned(),
            http_url: "http://127.0.0.1:9".to_owned(),
            link_addrs: vec!["127.0.0.1:9".to_owned()],
            legs: Vec::new(),
            ..RelayHello::default()
        };
        up.send(say(serve_request::Message::Hello(hello))).await?;
        let down = FleetServiceClient::new(channel)
            .serve(ReceiverStream::new(requests))
            .await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(beat(up));
        tasks.spawn(drain(down.into_inner()));
        Ok(Self { _tasks: tasks })
    }
}

fn say(message: serve_request::Message) -> ServeRequest {
    ServeRequest {
        message: Some(message),
    }
}

async fn beat(up: mpsc::Sender<ServeRequest>) {
    let beat = serve_request::Message::Heartbeat(RelayHeartbeat::default());
    while up.send(say(beat.clone())).await.is_ok() {
        tokio::time::sleep(BEAT).await;
    }
}

async fn drain(mut down: Streaming<ServeResponse>) {
    while let Ok(Some(_)) = down.message().await {}
}

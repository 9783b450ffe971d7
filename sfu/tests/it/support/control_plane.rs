//! A control plane that is only a FleetService: it keeps what relays say and sends what the test wants.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::Stream;
use muster_identity::Authority;
use muster_proto::command::v1::fleet_service_server::{FleetService, FleetServiceServer};
use muster_proto::command::v1::{
    LegReport, LegState, RelayHello, ServeRequest, ServeResponse, ServeWelcome, SiteQuality, StageDocument,
    serve_request, serve_response,
};
use muster_proto::media::v1::LegQuality;
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{BroadcastStream, TcpListenerStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

#[derive(Default)]
pub struct Heard {
    pub hellos: Vec<RelayHello>,
    pub reports: Vec<LegReport>,
    pub qualities: Vec<SiteQuality>,
    pub heartbeats: usize,
}

impl Heard {
    /// The states that were told of a site, in order.
    pub fn states(&self, site: &str) -> Vec<(LegState, String)> {
        self.reports
            .iter()
            .filter(|r| r.site == site)
            .map(|r| (r.state(), r.reason.clone()))
            .collect()
    }

    /// What was told last of how the site's leg fares.
    pub fn quality(&self, site: &str) -> Option<LegQuality> {
        self.qualities.iter().rfind(|q| q.site == site)?.quality
    }
}

pub struct ControlPlane {
    pub addr: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    stages: broadcast::Sender<StageDocument>,
    /// Of its own, so that it can die with all its connections.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Service {
    heard: Arc<Mutex<Heard>>,
    stages: broadcast::Sender<StageDocument>,
}

#[tonic::async_trait]
impl FleetService for Service {
    type ServeStream = Pin<Box<dyn Stream<Item = Result<ServeResponse, Status>> + Send>>;

    async fn serve(
        &self,
        request: Request<Streaming<ServeRequest>>,
    ) -> Result<Response<Self::ServeStream>, Status> {
        let mut requests = request.into_inner();
        let heard = self.heard.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let mut heard = heard.lock().expect("no panic holds it");
                match request.message.expect("a message") {
                    serve_request::Message::Hello(hello) => heard.hellos.push(hello),
                    serve_request::Message::Report(report) => heard.reports.extend(report.legs),
                    serve_request::Message::Quality(report) => heard.qualities.extend(report.sites),
                    serve_request::Message::Heartbeat(_) => heard.heartbeats += 1,
                }
            }
        });
        let welcome = ServeWelcome {
            relay: "r1".into(),
            token_key_pem: String::new(),
        };
        let welcome = ServeResponse {
            message: Some(serve_response::Message::Welcome(welcome)),
        };
        let stages = BroadcastStream::new(self.stages.subscribe()).filter_map(|stage| {
            let message = Some(serve_response::Message::Stage(stage.ok()?));
            Some(Ok(ServeResponse { message }))
        });
        Ok(Response::new(Box::pin(
            tokio_stream::once(Ok(welcome)).chain(stages),
        )))
    }
}

impl ControlPlane {
    pub async fn start(authority: &Authority, listen: &str) -> Self {
        let pem = authority.server_credentials(&[]).expect("credentials");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&pem.cert_chain_pem, &pem.key_pem))
            .client_ca_root(tonic::transport::Certificate::from_pem(&pem.ca_pem));
        let listener =
            super::until_async("the port is free", async || std::net::TcpListener::bind(listen)).await;
        listener.set_nonblocking(true).expect("set");
        let addr = listener.local_addr().expect("address");
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let (stages, _) = broadcast::channel(16);
        let service = FleetServiceServer::new(Service {
            heard: heard.clone(),
            stages: stages.clone(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("runtime");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
            let mut server = Server::builder().tls_config(tls).expect("TLS");
            let incoming = TcpListenerStream::new(listener);
            server
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .expect("serves");
        });
        Self {
            addr,
            heard,
            stages,
            runtime: Some(runtime),
        }
    }

    pub fn send_stage(&self, stage: StageDocument) {
        self.stages.send(stage).expect("a relay listens");
    }
    /// Dies with its connections, and says goodbye to nobody.
    pub fn kill(self) {}

    pub fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().expect("no panic holds it")
    }
}

//! A small world for an agent: a control plane and a relay that do just enough, on real sockets with the real
//! certificates, and that a test can order about.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use muster_edge::{Config, Ended, Source};
use muster_identity::{Authority, Credentials, EnrolToken, Identity, JoinClaims, TokenVerifier};
use muster_link::rtp::{LinkRtp, PT_VP8};
use muster_link::{LinkServer, RelaySender};
use muster_proto::command::v1 as pb;
use muster_proto::command::v1::endpoint_service_server::{EndpointService, EndpointServiceServer};
use muster_proto::command::v1::enrol_service_server::{EnrolService, EnrolServiceServer};
use muster_proto::command::v1::{
    AttachRequest, AttachResponse, Attached, EnrolRequest, EnrolResponse, GetTicketRequest,
    GetTicketResponse, JoinTicket, ReportSummonsRequest, ReportSummonsResponse, Site, SummonsCall,
    SummonsState, attach_response,
};
use muster_proto::media::v1::{
    LinkDown, LinkJoin, LinkJoined, LinkRefused, SetViewRequest, link_down, link_up,
};
use muster_testcard::rtp::Depacketizer;
use muster_testcard::{Decoder, Mark, PictureSize};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity as TlsIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

pub const SITE: &str = "WH-EL-GD-01";
pub const MEETING: &str = "m-1";
/// Flows that the relay gives the slots: stage, a0, a1, a2.
pub const SLOT_FLOWS: [u64; 4] = [100, 101, 102, 103];
const PATIENCE: Duration = Duration::from_secs(15);

/// What the control plane and the relay have seen.
#[derive(Default)]
pub struct Seen {
    pub reports: Vec<(String, SummonsState)>,
    pub tickets: u32,
    pub attached: u32,
    pub joins: Vec<LinkJoin>,
    pub views: Vec<SetViewRequest>,
    pub leaves: u32,
    pub links_lost: u32,
    pub key_requests: Vec<u64>,
    /// Marks of the camera's pictures, with whether each was a key frame.
    pub pictures: Vec<(Mark, bool)>,
    pub audio: u32,
    pub audio_levels: Vec<u8>,
    attach: Option<mpsc::Sender<Result<AttachResponse, Status>>>,
    link: Option<RelaySender>,
    /// The control plane is away.
    pub away: bool,
    /// Codes with which the next joins are refused.
    pub refusals: Vec<&'static str>,
    used_tokens: Vec<String>,
}

pub struct World {
    pub seen: Arc<Mutex<Seen>>,
    pub dir: tempfile::TempDir,
    pub control_plane: SocketAddr,
    pub relay: SocketAddr,
    authority: Arc<Authority>,
}

#[derive(Clone)]
struct Desk {
    seen: Arc<Mutex<Seen>>,
    authority: Arc<Authority>,
    relay: Arc<Mutex<String>>,
}

impl Desk {
    fn lock(&self) -> Result<MutexGuard<'_, Seen>, Status> {
        let seen = self.seen.lock().expect("no test has panicked");
        if seen.away {
            Err(Status::unavailable("away"))
        } else {
            Ok(seen)
        }
    }
}

#[tonic::async_trait]
impl EnrolService for Desk {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        let mut seen = self.lock()?;
        if seen.used_tokens.contains(&request.token) {
            return Err(Status::permission_denied("the token was used before"));
        }
        // The first to enrol is the world's own relay.
        let identity = if seen.used_tokens.is_empty() {
            Identity::Relay("r1".into())
        } else {
            Identity::Agent(SITE.into())
        };
        seen.used_tokens.push(request.token);
        Ok(Response::new(EnrolResponse {
            certificate_pem: self
                .authority
                .issue(&request.csr_pem, &identity)
                .expect("a certificate"),
            ca_pem: self.authority.ca_pem().into(),
            identity: identity.to_string(),
            token_key_pem: self.authority.token_key_pem(),
            site: None,
        }))
    }
}

#[tonic::async_trait]
impl EndpointService for Desk {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<Self::AttachStream>, Status> {
        let certs = request
            .peer_certs()
            .ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let caller = certs
            .first()
            .and_then(|cert| muster_identity::identity_of(cert).ok());
        if caller != Some(Identity::Agent(SITE.into())) {
            return Err(Status::unauthenticated("not the site's agent"));
        }
        let (sender, stream) = mpsc::channel(16);
        let site = Site {
            id: SITE.into(),
            name_zh: "关东街道01".into(),
            name_en: "Guandong Street 01".into(),
            ..Site::default()
        };
        let relay_link = self.relay.lock().expect("whole").clone();
        let attached = Attached {
            site: Some(site),
            relay_link,
            server_time_ms: 0,
        };
        let hello = AttachResponse {
            event: Some(attach_response::Event::Attached(attached)),
        };
        sender.try_send(Ok(hello)).expect("room");
        let mut seen = self.lock()?;
        seen.attached += 1;
        seen.attach = Some(sender);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn report_summons(
        &self,
        request: Request<ReportSummonsRequest>,
    ) -> Result<Response<ReportSummonsResponse>, Status> {
        let request = request.into_inner();
        let state = request.state();
        self.lock()?.reports.push((request.meeting, state));
        Ok(Response::new(ReportSummonsResponse {}))
    }

    async fn get_ticket(
        &self,
        request: Request<GetTicketRequest>,
    ) -> Result<Response<GetTicketResponse>, Status> {
        self.lock()?.tickets += 1;
        let relay = self.relay.lock().expect("whole").clone();
        let ticket = Some(ticket(&self.authority, &request.into_inner().meeting, &relay));
        Ok(Response::new(GetTicketResponse { ticket }))
    }

    async fn request_floor(
        &self,
        _: Request<pb::RequestFloorRequest>,
    ) -> Result<Response<pb::RequestFloorResponse>, Status> {
        Ok(Response::new(pb::RequestFloorResponse {}))
    }

    async fn answer_roll_call(
        &self,
        _: Request<pb::AnswerRollCallRequest>,
    ) -> Result<Response<pb::AnswerRollCallResponse>, Status> {
        Ok(Response::new(pb::AnswerRollCallResponse {}))
    }

    async fn report_drill(
        &self,
        _: Request<pb::ReportDrillRequest>,
    ) -> Result<Response<pb::ReportDrillResponse>, Status> {
        Ok(Response::new(pb::ReportDrillResponse {}))
    }
}

fn ticket(authority: &Authority, meeting: &str, relay: &str) -> JoinTicket {
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let claims = JoinClaims::new(meeting, SITE, false, true, now_s as i64);
    let token = authority
        .token_signer()
        .and_then(|signer| signer.sign(&claims))
        .expect("a token");
    JoinTicket {
        meeting: meeting.into(),
        token,
        relay_url: String::new(),
        relay_link: relay.into(),
        site: SITE.into(),
        ..Default::default()
    }
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Arc::new(Authority::load_or_create(&dir.path().join("ca")).expect("an authority"));
        let pem = authority.server_credentials(&[]).expect("a certificate");
        let tls = ServerTlsConfig::new()
            .identity(TlsIdentity::from_pem(pem.cert_chain_pem, pem.key_pem))
            .client_ca_root(Certificate::from_pem(pem.ca_pem))
            .client_auth_optional(true);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let control_plane = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let desk = Desk {
            seen: seen.clone(),
            authority: authority.clone(),
            relay: Arc::default(),
        };
        let server = Server::builder()
            .tls_config(tls)
            .expect("TLS")
            .add_service(EnrolServiceServer::new(desk.clone()))
            .add_service(EndpointServiceServer::new(desk.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let token = EnrolToken::new(authority.fingerprint());
        let credentials = muster_identity::enrol(&control_plane.to_string(), &token)
            .await
            .expect("enrolled");
        let relay = serve_links(credentials, seen.clone());
        *desk.relay.lock().expect("whole") = relay.to_string();
        Self {
            seen,
            dir,
            control_plane,
            relay,
            authority,
        }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test has panicked")
    }

    pub fn token(&self) -> EnrolToken {
        EnrolToken::new(self.authority.fingerprint())
    }

    pub fn config(&self, size: PictureSize) -> Config {
        Config {
            control_plane: self.control_plane.to_string(),
            identity_dir: self.dir.path().join("edge"),
            enrol_token: Some(self.token()),
            source: Source::TestCard(size),
            status: Some(self.status_file()),
            log: "info".into(),
            utc_offset_minutes: 480,
        }
    }

    pub fn status_file(&self) -> PathBuf {
        self.dir.path().join("status.json")
    }

    pub fn status(&self) -> serde_json::Value {
        let text = std::fs::read(self.status_file()).unwrap_or_else(|_| b"{}".to_vec());
        serde_json::from_slice(&text).expect("a whole document")
    }

    /// Waits until something is so; names it where it never becomes so.
    pub async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !so(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain for: {what}; status {}",
                self.status()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn until_state(&self, state: &str) {
        self.until(state, |world| world.status()["state"] == state).await;
    }

    /// Pushes an event to the attached agent.
    pub fn push(&self, event: attach_response::Event) {
        let seen = self.seen();
        let attach = seen.attach.as_ref().expect("an attached agent");
        attach
            .try_send(Ok(AttachResponse { event: Some(event) }))
            .expect("room");
    }

    pub fn summon(&self) {
        let ticket = Some(ticket(&self.authority, MEETING, &self.relay.to_string()));
        self.push(attach_response::Event::Summons(SummonsCall {
            meeting: MEETING.into(),
            title: "drill".into(),
            from: "Duty officer".into(),
            ticket,
            auto_answer: true,
            ..Default::default()
        }));
    }

    /// The control plane goes away: streams break and calls fail.
    pub fn go_away(&self) {
        let mut seen = self.seen();
        seen.away = true;
        seen.attach = None;
    }

    pub fn tell_leg(&self, message: link_down::Message) {
        self.link()
            .try_send_control(&LinkDown {
                message: Some(message),
            })
            .expect("sent");
    }

    pub fn link(&self) -> RelaySender {
        self.seen().link.clone().expect("a link")
    }
}

/// An agent that runs in the test's own process.
pub struct RunningAgent {
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<Ended, muster_edge::agent::EnrolmentError>>,
}

impl RunningAgent {
    pub fn start(config: Config) -> Self {
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(muster_edge::run(config, async {
            let _ = stopped.await;
        }));
        Self { stop, ended }
    }

    pub async fn stop(self) {
        self.stop.send(()).expect("the agent still runs");
        assert_eq!(
            self.ended.await.expect("no panic").expect("no error"),
            Ended::Stopped
        );
    }
}

fn serve_links(credentials: Credentials, seen: Arc<Mutex<Seen>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let server = LinkServer::bind(socket, &credentials).expect("a server of links");
    let address = server.local_addr().expect("an address");
    let verifier = Arc::new(TokenVerifier::from_pem(&credentials.token_key_pem).expect("a key"));
    tokio::spawn(async move {
        while let Some(arriving) = server.accept().await {
            tokio::spawn(serve_link(arriving, seen.clone(), verifier.clone()));
        }
    });
    address
}

async fn serve_link(arriving: muster_link::Arriving, seen: Arc<Mutex<Seen>>, verifier: Arc<TokenVerifier>) {
    let mut link = arriving.finish().await.expect("an agent that shakes hands");
    assert_eq!(link.peer, Identity::Agent(SITE.into()));
    seen.lock().expect("whole").link = Some(link.sender.clone());
    let mut camera = Camera::default();
    loop {
        tokio::select! {
            message = link.control.recv() => {
                let Ok(message) = message else { break };
                take_control(message.message, &link.sender, &seen, &verifier);
            }
            datagram = link.media.recv() => {
                let Ok((flow, packet)) = datagram else { break };
                camera.take(flow, &packet, &mut seen.lock().expect("whole"));
            }
        }
    }
    seen.lock().expect("whole").links_lost += 1;
}

fn take_control(
    message: Option<link_up::Message>,
    link: &RelaySender,
    seen: &Mutex<Seen>,
    verifier: &TokenVerifier,
) {
    let mut seen = seen.lock().expect("whole");
    match message {
        Some(link_up::Message::Join(join)) => {
            let claims = verifier.verify(&join.token, 0).expect("a good token");
            assert_eq!((claims.site.as_str(), claims.meeting.as_str()), (SITE, MEETING));
            let used = seen.joins.iter().any(|earlier| earlier.token == join.token);
            assert!(!used, "a token was used twice");
            seen.joins.push(join);
            if let Some(code) = seen.refusals.pop() {
                let refused = LinkRefused {
                    code: code.into(),
                    detail: "by the test".into(),
                };
                link.try_send_control(&LinkDown {
                    message: Some(link_down::Message::Refused(refused)),
                })
                .expect("sent");
                return;
            }
            let leg = format!("leg-{}", seen.joins.len());
            let joined = LinkJoined {
                leg,
                slot_flows: SLOT_FLOWS.to_vec(),
            };
            link.try_send_control(&LinkDown {
                message: Some(link_down::Message::Joined(joined)),
            })
            .expect("sent");
        }
        Some(link_up::Message::SetView(view)) => seen.views.push(view),
        Some(link_up::Message::Leave(_)) => seen.leaves += 1,
        Some(link_up::Message::KeyFrame(request)) => seen.key_requests.push(request.flow),
        other => panic!("unexpected on the control stream: {other:?}"),
    }
}

/// Decodes what the agent's camera sends (its first layer).
#[derive(Default)]
struct Camera {
    depacketizer: Depacketizer,
    decoder: Option<Decoder>,
}

impl Camera {
    fn take(&mut self, flow: u64, packet: &[u8], seen: &mut Seen) {
        let rtp = LinkRtp::parse(packet).expect("RTP");
        if rtp.payload_type != PT_VP8 {
            seen.audio += 1;
            seen.audio_levels.extend(rtp.audio_level);
            return;
        }
        if flow != 1 {
            return;
        }
        let Some(frame) = self
            .depacketizer
            .push(rtp.seq, rtp.timestamp, rtp.marker, rtp.payload)
        else {
            return;
        };
        let key = muster_testcard::vp8::is_key_frame(frame);
        let decoder = self
            .decoder
            .get_or_insert_with(|| Decoder::new().expect("a decoder"));
        let luma = decoder.decode(frame).expect("decodable").expect("a picture");
        let mark = Mark::read(luma.data, luma.width, luma.height, luma.stride).expect("a mark");
        seen.pictures.push((mark, key));
    }
}

//! A small world for an agent: a control plane and a relay that do just enough, on real sockets with the real
//! certificates, and that a test can order about.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use muster_edge::{Config, Ended, Source};
use muster_identity::{Authority, EnrolToken, Identity, JoinClaims};
use muster_link::RelaySender;
use muster_proto::command::v1 as pb;
use muster_proto::command::v1::endpoint_service_server::{EndpointService, EndpointServiceServer};
use muster_proto::command::v1::enrol_service_server::{EnrolService, EnrolServiceServer};
use muster_proto::command::v1::{
    AttachRequest, AttachResponse, Attached, DrillResult, EnrolRequest, EnrolResponse, GetTicketRequest,
    GetTicketResponse, JoinTicket, ReportSummonsRequest, ReportSummonsResponse, Site, SummonsCall,
    SummonsState, attach_response,
};
use muster_proto::media::v1::{LinkDown, LinkJoin, Rung, SetViewRequest, link_down};
use muster_testcard::{Mark, PictureSize};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity as TlsIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::relay::Relay;

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
    /// Placements whose relay was said to be lost.
    pub lost: Vec<(String, u64)>,
    pub drills: Vec<DrillResult>,
    /// Reports, as often as they came.
    pub handed_in: Vec<pb::HandInReportRequest>,
    /// When the agent tried to attach.
    pub attempts: Vec<Instant>,
    /// How far the control plane's clock is ahead, milliseconds.
    pub clock_ahead_ms: i64,
    /// Attaching is refused once with this wait, milliseconds.
    pub crowded_ms: Option<u64>,
    pub attached: u32,
    pub joins: Vec<LinkJoin>,
    /// By which relay and when pictures came last.
    pub filmed: Option<(&'static str, Instant)>,
    pub pings: u32,
    pub views: Vec<SetViewRequest>,
    pub leaves: u32,
    pub links_lost: u32,
    pub key_requests: Vec<u64>,
    /// What the agent said that it sends.
    pub rungs: Vec<Rung>,
    /// Marks of the camera's pictures, with whether each was a key frame.
    pub pictures: Vec<(Mark, bool)>,
    pub damaged: u32,
    pub audio: u32,
    pub audio_levels: Vec<u8>,
    /// Opus packets.
    pub sounds: Vec<Vec<u8>>,
    /// H.264 packets, by flow.
    pub h264: Vec<H264Packet>,
    /// What the agent said of its summons, with the reason.
    pub reasons: Vec<(SummonsState, pb::SummonsReason)>,
    pub attach: Option<mpsc::Sender<Result<AttachResponse, Status>>>,
    pub link: Option<RelaySender>,
    /// The control plane is away.
    pub away: bool,
    /// Codes with which the next joins are refused.
    pub refusals: Vec<&'static str>,
    used_tokens: Vec<String>,
}

/// A packet of H.264 as the relay got it.
#[derive(Clone, Debug)]
pub struct H264Packet {
    pub flow: u64,
    pub seq: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
    pub at: Instant,
}

pub struct World {
    pub seen: Arc<Mutex<Seen>>,
    pub dir: tempfile::TempDir,
    pub control_plane: SocketAddr,
    pub relay: SocketAddr,
    path: Option<muster_linkshape::Relay>,
    /// The relays'.
    credentials: muster_identity::Credentials,
    relays: Vec<Relay>,
    desk: Desk,
    /// The control plane's replicas, each on its own, so that it can die with all its connections.
    replicas: Vec<Option<Runtime>>,
    authority: Arc<Authority>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.replicas
            .drain(..)
            .flatten()
            .for_each(Runtime::shutdown_background);
    }
}

/// Where the meeting is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub relay: String,
    pub epoch: u64,
    pub link: String,
}

#[derive(Clone)]
struct Desk {
    seen: Arc<Mutex<Seen>>,
    authority: Arc<Authority>,
    place: Arc<Mutex<Place>>,
    /// Where the meeting goes if its relay is lost; else it stays.
    spare: Arc<Mutex<Option<Place>>>,
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
        {
            let mut seen = self.lock()?;
            seen.attempts.push(Instant::now());
            if let Some(wait) = seen.crowded_ms.take() {
                let mut status = Status::resource_exhausted("many come at once");
                let metadata = status.metadata_mut();
                metadata.insert("retry-after-ms", wait.to_string().parse().expect("a number"));
                return Err(status);
            }
        }
        let (sender, stream) = mpsc::channel(16);
        let site = Site {
            id: SITE.into(),
            name_zh: "关东街道01".into(),
            name_en: "Guandong Street 01".into(),
            ..Site::default()
        };
        let relay_link = self.place.lock().expect("whole").link.clone();
        let attached = Attached {
            site: Some(site),
            relay_link,
            server_time_ms: epoch_ms() + self.lock()?.clock_ahead_ms,
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
        let (state, reason) = (request.state(), request.reason());
        let mut seen = self.lock()?;
        seen.reasons.push((state, reason));
        seen.reports.push((request.meeting, state));
        Ok(Response::new(ReportSummonsResponse {}))
    }

    async fn get_ticket(
        &self,
        request: Request<GetTicketRequest>,
    ) -> Result<Response<GetTicketResponse>, Status> {
        let request = request.into_inner();
        let mut seen = self.lock()?;
        seen.tickets += 1;
        let mut place = self.place.lock().expect("whole");
        if !request.lost_relay.is_empty() {
            let lost = (request.lost_relay, request.lost_epoch);
            let is_here = lost == (place.relay.clone(), place.epoch);
            seen.lost.push(lost);
            if let Some(spare) = self.spare.lock().expect("whole").take_if(|_| is_here) {
                *place = spare;
            }
        }
        let ticket = Some(ticket(&self.authority, &request.meeting, &place));
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
        request: Request<pb::ReportDrillRequest>,
    ) -> Result<Response<pb::ReportDrillResponse>, Status> {
        self.lock()?.drills.extend(request.into_inner().result);
        Ok(Response::new(pb::ReportDrillResponse {}))
    }

    async fn hand_in_report(
        &self,
        request: Request<pb::HandInReportRequest>,
    ) -> Result<Response<pb::HandInReportResponse>, Status> {
        self.lock()?.handed_in.push(request.into_inner());
        Ok(Response::new(pb::HandInReportResponse { received_ms: 9 }))
    }
}

fn ticket(authority: &Authority, meeting: &str, place: &Place) -> JoinTicket {
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
        relay_link: place.link.clone(),
        site: SITE.into(),
        relay: place.relay.clone(),
        epoch: place.epoch,
    }
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Arc::new(Authority::load_or_create(&dir.path().join("ca")).expect("an authority"));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let desk = Desk {
            seen: seen.clone(),
            authority: authority.clone(),
            place: Arc::default(),
            spare: Arc::default(),
        };
        let (control_plane, replica) = serve(&desk);
        let token = EnrolToken::new(authority.fingerprint());
        let credentials = muster_identity::enrol(&control_plane.to_string(), &token)
            .await
            .expect("enrolled");
        let relays: Vec<Relay> = ["r1", "r2"]
            .into_iter()
            .map(|id| Relay::start(id, &credentials, seen.clone()))
            .collect();
        let relay = relays[0].address;
        *desk.place.lock().expect("whole") = Place {
            relay: "r1".into(),
            epoch: 1,
            link: relay.to_string(),
        };
        Self {
            seen,
            dir,
            control_plane,
            relay,
            path: None,
            credentials,
            relays,
            desk,
            replicas: vec![Some(replica)],
            authority,
        }
    }

    /// Between the agent and the first relay lies a path of this profile (CSV, data/links/README.md) from now on.
    pub fn shape(&mut self, profile: &str) -> &muster_linkshape::Relay {
        let profile = Arc::new(muster_linkshape::Profile::parse("test", profile).expect("a profile"));
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let path = muster_linkshape::Relay::start(listen, self.relay, profile, 1).expect("a path");
        path.hold();
        self.desk.place.lock().expect("whole").link = path.addr().to_string();
        self.relay = path.addr();
        self.path.insert(path)
    }

    /// A firewall drops UDP to the relay from now on: a new one takes its place, which TCP alone gets through to.
    pub fn block_udp(&mut self) {
        let relay = Relay::start_without_udp("r1", &self.credentials, self.seen.clone());
        self.relay = relay.address;
        self.desk.place.lock().expect("whole").link = relay.address.to_string();
        self.relays[0] = relay;
    }

    /// Another replica of the control plane; returns its address.
    pub fn add_replica(&mut self) -> SocketAddr {
        let (address, replica) = serve(&self.desk);
        self.replicas.push(Some(replica));
        address
    }

    /// A replica dies, with its connections.
    pub fn kill_replica(&mut self, index: usize) {
        let replica = self.replicas[index].take().expect("it lives");
        replica.shutdown_background();
    }

    /// The path's profile begins now.
    pub fn release(&self) {
        self.path.as_ref().expect("a path").release();
    }

    /// The first relay dies without a word.
    pub fn kill_relay(&mut self) {
        self.relays[0].kill();
    }

    /// If the meeting's relay is lost, the meeting goes to the second one; returns its address.
    pub fn spare_second_relay(&self) -> String {
        let link = self.relays[1].address.to_string();
        *self.desk.spare.lock().expect("whole") = Some(Place {
            relay: "r2".into(),
            epoch: 2,
            link: link.clone(),
        });
        link
    }

    /// The meeting is placed at the second relay, whatever anybody says; returns its address.
    pub fn move_to_second_relay(&self) -> String {
        let link = self.spare_second_relay();
        let spare = self.desk.spare.lock().expect("whole").take();
        *self.desk.place.lock().expect("whole") = spare.expect("just set");
        link
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test has panicked")
    }

    pub fn token(&self) -> EnrolToken {
        EnrolToken::new(self.authority.fingerprint())
    }

    pub fn config(&self, size: PictureSize) -> Config {
        self.config_of(Source::TestCard(size))
    }

    pub fn config_of(&self, source: Source) -> Config {
        Config {
            control_plane: vec![self.control_plane.to_string()],
            identity_dir: self.dir.path().join("edge"),
            enrol_token: Some(self.token()),
            source,
            status: Some(self.status_file()),
            state_dir: None,
            page: None,
            recordings: None,
            watchers: None,
            log: "info".into(),
            utc_offset_minutes: 480,
            uplinks: Vec::new(),
            notifier: None,
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
        self.until_within(PATIENCE, what, so).await;
    }

    pub async fn until_within(&self, patience: Duration, what: &str, so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !so(self) {
            assert!(
                start.elapsed() < patience,
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
        self.call(SummonsCall {
            auto_answer: true,
            ..SummonsCall::default()
        });
    }

    /// Calls the agent into the meeting, with a fresh ticket.
    pub fn call(&self, call: SummonsCall) {
        let place = self.desk.place.lock().expect("whole").clone();
        let ticket = Some(ticket(&self.authority, MEETING, &place));
        self.push(attach_response::Event::Summons(SummonsCall {
            meeting: MEETING.into(),
            title: "drill".into(),
            from: "Duty officer".into(),
            ticket,
            ..call
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

fn epoch_ms() -> i64 {
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    age.expect("after 1970").as_millis() as i64
}

fn serve(desk: &Desk) -> (SocketAddr, Runtime) {
    let pem = desk.authority.server_credentials(&[]).expect("a certificate");
    let tls = ServerTlsConfig::new()
        .identity(TlsIdentity::from_pem(pem.cert_chain_pem, pem.key_pem))
        .client_ca_root(Certificate::from_pem(pem.ca_pem))
        .client_auth_optional(true);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address");
    let server = Server::builder()
        .tls_config(tls)
        .expect("TLS")
        .add_service(EnrolServiceServer::new(desk.clone()))
        .add_service(EndpointServiceServer::new(desk.clone()));
    let runtime = crate::relay::runtime();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        server.serve_with_incoming(TcpListenerStream::new(listener)).await
    });
    (address, runtime)
}

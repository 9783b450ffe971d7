//! A control plane to test against, and those who speak to it.

use muster_control_plane::{Bootstrap, Config, ControlPlane};
use muster_identity::{Credentials, EnrolToken, TokenVerifier, connect, enrol};
use muster_proto::command::v1 as pb;
use muster_proto::media::v1::LegQuality;
use pb::attach_response::Event as Pushed;
use pb::directory_service_client::DirectoryServiceClient;
use pb::endpoint_service_client::EndpointServiceClient;
use pb::fleet_service_client::FleetServiceClient;
use pb::meeting_service_client::MeetingServiceClient;
use pb::session_service_client::SessionServiceClient;
use pb::watch_service_client::WatchServiceClient;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

pub const ACCOUNT: &str = "wang";
pub const PASSWORD: &str = "correct horse";
pub const EASTLAKE: &[u8] = include_bytes!("../../../data/eastlake.csv");

/// A tree with two streets: three sites in the first, one in the second, one at the district.
pub const SMALL: &str = "\
external_id,kind,tier,parent,name_zh,name_en,lat,lon,access,phase
D,unit,district,,区,District,30.5,114.4,,existing
A,unit,street,D,甲街,Street A,30.5,114.4,,existing
B,unit,street,D,乙街,Street B,30.5,114.4,,existing
D1,site,district,D,区指挥部,District centre,30.5,114.4,fibre,existing
A1,site,street,A,甲一,A one,30.5,114.4,fibre,existing
A2,site,street,A,甲二,A two,30.5,114.4,adsl,new
A3,site,street,A,甲三,A three,30.5,114.4,4g,new
B1,site,street,B,乙一,B one,30.5,114.4,satellite,new
";

/// A running control plane and its folder.
pub struct Fixture {
    pub control_plane: ControlPlane,
    pub dir: TempDir,
}

pub async fn start_in(dir: &Path) -> ControlPlane {
    ControlPlane::start(config_in(dir)).await.expect("started")
}

fn config_in(dir: &Path) -> Config {
    let bootstrap = Bootstrap {
        account: ACCOUNT.into(),
        password: PASSWORD.into(),
        role: pb::Role::Commander,
        unit: "D".into(),
    };
    Config {
        bootstrap: Some(bootstrap),
        ..Config::local(dir)
    }
}

/// One HTTP/1.1 request; the answer's head and body as they came.
pub async fn http(addr: SocketAddr, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    http_from(Ipv4Addr::LOCALHOST, addr, head, body).await
}

/// As [`http`], from this address of the loopback network.
pub async fn http_from(from: Ipv4Addr, addr: SocketAddr, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of loopback");
    let mut stream = socket.connect(addr).await.expect("connected");
    let head = format!(
        "{head}Host: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answered");
    let split = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    (
        String::from_utf8_lossy(&answer[..split]).to_lowercase(),
        answer[split + 4..].to_vec(),
    )
}

/// As a frame of gRPC-web.
pub fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(bytes.len()).expect("short").to_be_bytes());
    frame.extend(bytes);
    frame
}

/// A control plane with the small tree.
pub async fn small() -> Fixture {
    small_with(tempfile::tempdir().expect("folder"), |_| {}).await
}

/// As [`small`], configured otherwise.
pub async fn small_with(dir: TempDir, change: impl FnOnce(&mut Config)) -> Fixture {
    let mut config = config_in(dir.path());
    change(&mut config);
    let control_plane = ControlPlane::start(config).await.expect("started");
    let fixture = Fixture { control_plane, dir };
    let person = fixture.person().await;
    person.import(SMALL.as_bytes()).await.expect("imported");
    fixture
}

/// Adds an account as the program's `account add` does.
pub async fn add_account(dir: &Path, name: &str, role: pb::Role, unit: &str) {
    add_account_called(dir, name, name, role, unit).await;
}

pub async fn add_account_called(dir: &Path, name: &str, display_name: &str, role: pb::Role, unit: &str) {
    use muster_control_plane::accounts::{NewAccount, add_account};
    use muster_control_plane::store::Store;
    let store = Store::open(dir).await.expect("store");
    let account = NewAccount::new(name, display_name, role.into(), unit).expect("an account");
    add_account(&store, &account, PASSWORD.into())
        .await
        .expect("stored");
    store.close().await;
}

impl Fixture {
    pub async fn channel(&self) -> Channel {
        channel_in(&self.control_plane, self.dir.path()).await
    }

    /// The same folder, with the control plane stopped and started again.
    pub async fn restarted(self) -> Self {
        let Self { control_plane, dir } = self;
        control_plane.shutdown().await;
        let control_plane = start_in(dir.path()).await;
        Self { control_plane, dir }
    }

    /// The commander, signed in.
    pub async fn person(&self) -> Person {
        Person::sign_in(self.channel().await, ACCOUNT).await
    }
}

/// Over TLS where the control plane speaks it: its CA is the one in this folder.
async fn channel_in(control_plane: &ControlPlane, dir: &Path) -> Channel {
    if control_plane.url().starts_with("http://") {
        return channel(control_plane).await;
    }
    // By the name that every certificate of the tests has.
    let address = format!("localhost:{}", control_plane.addr().port());
    let mut roots = std::fs::read(dir.join("ca/ca.pem")).expect("the CA");
    roots.extend(std::fs::read(dir.join("other-ca/ca.pem")).unwrap_or_default());
    let config = muster_identity::web_client_config(&roots).expect("a CA");
    muster_identity::web_channel(&address, config)
        .await
        .expect("connected")
}

pub async fn channel(control_plane: &ControlPlane) -> Channel {
    let uri = format!("http://{}", control_plane.addr());
    Channel::from_shared(uri)
        .expect("address")
        .connect()
        .await
        .expect("connected")
}

pub fn with_bearer<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).expect("header");
    request.metadata_mut().insert("authorization", value);
    request
}

/// Somebody who is signed in.
#[derive(Clone)]
pub struct Person {
    pub channel: Channel,
    pub token: String,
}

impl Person {
    pub async fn sign_in(channel: Channel, account: &str) -> Self {
        let answer = sign_in(channel.clone(), account, PASSWORD)
            .await
            .expect("signed in");
        Self {
            channel,
            token: answer.session_token,
        }
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        with_bearer(&self.token, message)
    }

    pub fn meetings(&self) -> MeetingServiceClient<Channel> {
        MeetingServiceClient::new(self.channel.clone())
    }

    pub fn directory(&self) -> DirectoryServiceClient<Channel> {
        DirectoryServiceClient::new(self.channel.clone())
    }

    pub async fn import(&self, csv: &[u8]) -> Result<pb::ImportSitesResponse, Status> {
        let message = pb::ImportSitesRequest {
            csv: csv.to_vec(),
            dry_run: false,
        };
        Ok(self
            .directory()
            .import_sites(self.request(message))
            .await?
            .into_inner())
    }

    pub async fn site_link(&self, site: &str) -> String {
        let message = pb::CreateSiteLinkRequest {
            site: site.into(),
            valid_s: 0,
        };
        let answer = self
            .directory()
            .create_site_link(self.request(message))
            .await
            .expect("link");
        answer
            .into_inner()
            .path
            .strip_prefix("/join#")
            .expect("path")
            .to_owned()
    }

    pub async fn convene(&self, sites: &[&str]) -> Result<pb::Meeting, Status> {
        let selector = pb::Selector {
            sites: sites.iter().map(|&s| s.to_owned()).collect(),
            ..Default::default()
        };
        let message = pb::ConveneRequest {
            selector: Some(selector),
            title: "Flood".into(),
            idempotency_key: String::new(),
            ..Default::default()
        };
        let answer = self.meetings().convene(self.request(message)).await?.into_inner();
        Ok(answer.meeting.expect("a meeting"))
    }

    /// Convenes these sites under the terms of the message.
    pub async fn convene_as(&self, sites: &[&str], mut message: pb::ConveneRequest) -> pb::Meeting {
        message.selector = Some(pb::Selector {
            sites: sites.iter().map(|&s| s.to_owned()).collect(),
            ..Default::default()
        });
        if message.title.is_empty() {
            message.title = "Flood".into();
        }
        let answer = self.meetings().convene(self.request(message)).await;
        answer.expect("convened").into_inner().meeting.expect("a meeting")
    }

    /// Carries out a verb.
    pub async fn act(&self, meeting: &str, verb: pb::act_request::Verb) -> Result<pb::ActResponse, Status> {
        let message = pb::ActRequest {
            meeting: meeting.into(),
            verb: Some(verb),
        };
        Ok(self.meetings().act(self.request(message)).await?.into_inner())
    }

    pub async fn end(&self, meeting: &str) {
        let message = pb::EndMeetingRequest {
            meeting: meeting.into(),
        };
        let ended = self.meetings().end_meeting(self.request(message)).await;
        ended.expect("ended");
    }

    /// Waits until the meeting is as asked.
    pub async fn until_meeting(&self, id: &str, wanted: impl Fn(&pb::Meeting) -> bool) -> pb::Meeting {
        let mut last = None;
        for _ in 0..500 {
            let found = self.meeting(id).await;
            if wanted(&found) {
                return found;
            }
            last = Some(found);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the meeting is not as expected within 10 s: {last:?}");
    }

    /// The meeting as it is listed now.
    pub async fn meeting(&self, id: &str) -> pb::Meeting {
        let message = pb::ListMeetingsRequest { include_ended: true };
        let answer = self
            .meetings()
            .list_meetings(self.request(message))
            .await
            .expect("listed")
            .into_inner();
        answer
            .meetings
            .into_iter()
            .find(|meeting| meeting.id == id)
            .expect("the meeting")
    }

    /// Waits until a site's summons is in a state.
    pub async fn until(&self, meeting: &str, site: &str, state: pb::SummonsState) -> pb::Summons {
        let mut last = None;
        for _ in 0..500 {
            let found = self
                .meeting(meeting)
                .await
                .summonses
                .into_iter()
                .find(|s| s.site == site)
                .expect("site");
            if found.state() == state {
                return found;
            }
            last = Some(found);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{site} is not {state:?} within 10 s: {last:?}");
    }

    pub async fn watch(&self, cursor: Vec<pb::Position>) -> Streaming<pb::WatchResponse> {
        self.watch_units(cursor, &[]).await.expect("watching")
    }

    /// Of these units only.
    pub async fn watch_units(
        &self,
        cursor: Vec<pb::Position>,
        units: &[&str],
    ) -> Result<Streaming<pb::WatchResponse>, Status> {
        let units = units.iter().map(|&unit| unit.to_owned()).collect();
        self.watch_with(pb::WatchRequest {
            cursor,
            units,
            position: None,
        })
        .await
    }

    pub async fn watch_at(
        &self,
        cursor: Vec<pb::Position>,
        position: Option<u64>,
    ) -> Streaming<pb::WatchResponse> {
        let units = Vec::new();
        let request = pb::WatchRequest {
            cursor,
            units,
            position,
        };
        self.watch_with(request).await.expect("watching")
    }

    async fn watch_with(&self, request: pb::WatchRequest) -> Result<Streaming<pb::WatchResponse>, Status> {
        let mut client = WatchServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        Ok(client.watch(self.request(request)).await?.into_inner())
    }

    pub async fn enrol_token(&self, target: pb::create_enrol_token_request::Target) -> EnrolToken {
        let message = pb::CreateEnrolTokenRequest {
            target: Some(target),
            valid_s: 0,
        };
        let answer = self
            .directory()
            .create_enrol_token(self.request(message))
            .await
            .expect("token");
        answer.into_inner().token.parse().expect("a token")
    }
}

pub async fn sign_in(channel: Channel, account: &str, password: &str) -> Result<pb::SignInResponse, Status> {
    let message = pb::SignInRequest {
        account: account.into(),
        password: password.into(),
    };
    Ok(SessionServiceClient::new(channel)
        .sign_in(message)
        .await?
        .into_inner())
}

/// A browser of a site, attached by its link.
pub struct Endpoint {
    client: EndpointServiceClient<Channel>,
    pub secret: String,
    pub events: Streaming<pb::AttachResponse>,
}

impl Endpoint {
    pub async fn attach(channel: Channel, secret: &str) -> Result<Self, Status> {
        let mut client = EndpointServiceClient::new(channel);
        let message = pb::AttachRequest {
            endpoint: "browser".into(),
            version: "test".into(),
        };
        let events = client.attach(with_bearer(secret, message)).await?.into_inner();
        let mut endpoint = Self {
            client,
            secret: secret.into(),
            events,
        };
        match endpoint.next().await {
            Pushed::Attached(_) => Ok(endpoint),
            other => panic!("expected a greeting, found {other:?}"),
        }
    }

    /// The next message that is neither a heartbeat nor a notice.
    pub async fn next(&mut self) -> Pushed {
        loop {
            match self.any().await {
                Pushed::Notice(_) => {}
                other => return other,
            }
        }
    }

    /// The next notice that is as asked.
    pub async fn notice(&mut self, wanted: impl Fn(&pb::EndpointNotice) -> bool) -> pb::EndpointNotice {
        let found = async {
            loop {
                if let Pushed::Notice(notice) = self.any().await
                    && wanted(&notice)
                {
                    return notice;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found)
            .await
            .expect("a notice within 10 s")
    }

    /// The same endpoint, attached anew.
    pub async fn again(&self, channel: Channel) -> Self {
        Self::attach(channel, &self.secret).await.expect("attached")
    }

    /// The next message that is no heartbeat.
    async fn any(&mut self) -> Pushed {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let message = tokio::time::timeout_at(deadline, self.events.message());
            let message = message
                .await
                .expect("pushed within 10 s")
                .expect("stream")
                .expect("not over");
            match message.event.expect("an event") {
                Pushed::Heartbeat(_) => {}
                other => return other,
            }
        }
    }

    pub async fn summoned(&mut self) -> pb::SummonsCall {
        match self.next().await {
            Pushed::Summons(call) => call,
            other => panic!("expected a summons, found {other:?}"),
        }
    }

    pub async fn withdrawn(&mut self) -> String {
        match self.next().await {
            Pushed::Withdrawn(withdrawn) => withdrawn.reason,
            other => panic!("expected a withdrawal, found {other:?}"),
        }
    }

    pub async fn report_drill(&mut self, drill: &str, result: pb::DrillResult) -> Result<(), Status> {
        let message = pb::ReportDrillRequest {
            drill: drill.into(),
            result: Some(result),
        };
        self.client
            .report_drill(with_bearer(&self.secret, message))
            .await
            .map(|_| ())
    }

    pub async fn report(&mut self, meeting: &str, state: pb::SummonsState) -> Result<(), Status> {
        let message = pb::ReportSummonsRequest {
            meeting: meeting.into(),
            state: state.into(),
            ..Default::default()
        };
        self.client
            .report_summons(with_bearer(&self.secret, message))
            .await
            .map(|_| ())
    }

    /// Says why the site cannot come.
    pub async fn refuse(&mut self, meeting: &str, reason: pb::SummonsReason) -> Result<(), Status> {
        let message = pb::ReportSummonsRequest {
            meeting: meeting.into(),
            state: pb::SummonsState::Refused.into(),
            reason: reason.into(),
            ..Default::default()
        };
        self.client
            .report_summons(with_bearer(&self.secret, message))
            .await
            .map(|_| ())
    }

    pub async fn request_floor(&mut self, meeting: &str, withdraw: bool) -> Result<(), Status> {
        let meeting = meeting.into();
        let message = pb::RequestFloorRequest { meeting, withdraw };
        self.client
            .request_floor(with_bearer(&self.secret, message))
            .await
            .map(|_| ())
    }

    pub async fn answer_roll_call(&mut self, meeting: &str) -> Result<(), Status> {
        let meeting = meeting.into();
        let message = pb::AnswerRollCallRequest { meeting };
        self.client
            .answer_roll_call(with_bearer(&self.secret, message))
            .await
            .map(|_| ())
    }

    pub async fn hand_in(&mut self, report: pb::HandInReportRequest) -> Result<i64, Status> {
        let answer = self
            .client
            .hand_in_report(with_bearer(&self.secret, report))
            .await?;
        Ok(answer.into_inner().received_ms)
    }

    /// Says that nothing comes from the relay of a ticket any more, and asks for the next.
    pub async fn lost(&mut self, meeting: &str, ticket: &pb::JoinTicket) -> Result<pb::JoinTicket, Status> {
        let message = pb::GetTicketRequest {
            meeting: meeting.into(),
            lost_relay: ticket.relay.clone(),
            lost_epoch: ticket.epoch,
        };
        let answer = self.client.get_ticket(with_bearer(&self.secret, message)).await?;
        Ok(answer.into_inner().ticket.expect("a ticket"))
    }

    pub async fn ticket(&mut self, meeting: &str) -> Result<pb::JoinTicket, Status> {
        let message = pb::GetTicketRequest {
            meeting: meeting.into(),
            ..Default::default()
        };
        let answer = self.client.get_ticket(with_bearer(&self.secret, message)).await?;
        Ok(answer.into_inner().ticket.expect("a ticket"))
    }
}

/// A relay that carries no media: it says what it is told to say.
pub struct FakeRelay {
    up: mpsc::Sender<pb::ServeRequest>,
    down: Streaming<pb::ServeResponse>,
    pub credentials: Credentials,
    beats: JoinSet<()>,
}

impl FakeRelay {
    /// Enrols and dials in.
    pub async fn start(fixture: &Fixture) -> Self {
        Self::start_for(fixture, "D").await
    }

    pub async fn start_for(fixture: &Fixture, unit: &str) -> Self {
        let person = fixture.person().await;
        let target = pb::create_enrol_token_request::Target::RelayUnit(unit.into());
        let token = person.enrol_token(target).await;
        let authority = fixture.control_plane.agents_addr().to_string();
        let credentials = enrol(&authority, &token).await.expect("enrolled");
        Self::dial(&fixture.control_plane, credentials, Vec::new()).await
    }

    /// Dials in with legs that it has already.
    pub async fn dial(
        control_plane: &ControlPlane,
        credentials: Credentials,
        legs: Vec<pb::LegReport>,
    ) -> Self {
        let authority = control_plane.agents_addr().to_string();
        Self::dial_at(&authority, credentials, legs)
            .await
            .expect("serving")
    }

    /// Dials in at `HOST:PORT`.
    pub async fn dial_at(
        authority: &str,
        credentials: Credentials,
        legs: Vec<pb::LegReport>,
    ) -> Result<Self, Status> {
        let channel = connect(authority, &credentials)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let (up, requests) = mpsc::channel(64);
        let hello = pb::RelayHello {
            version: "test".into(),
            http_url: "http://127.0.0.1:9".into(),
            link_addrs: vec!["127.0.0.1:10".into(), "127.0.0.1:11".into()],
            legs,
            ..pb::RelayHello::default()
        };
        send(&up, pb::serve_request::Message::Hello(hello)).await;
        let mut client = FleetServiceClient::new(channel);
        let down = client.serve(ReceiverStream::new(requests)).await?.into_inner();
        let beats = up.clone();
        let mut beats_task = JoinSet::new();
        beats_task.spawn(async move {
            let beat = pb::serve_request::Message::Heartbeat(pb::RelayHeartbeat::default());
            while beats
                .send(pb::ServeRequest {
                    message: Some(beat.clone()),
                })
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        Ok(Self {
            up,
            down,
            credentials,
            beats: beats_task,
        })
    }

    /// The next message, for one that follows by itself; `None` when the stream is over.
    pub async fn hear(&mut self) -> Option<pb::serve_response::Message> {
        self.down.message().await.ok().flatten()?.message
    }

    /// Says nothing any more; its stream stays open.
    pub fn fall_silent(&mut self) {
        self.beats.abort_all();
    }

    pub fn verifier(&self) -> TokenVerifier {
        TokenVerifier::from_pem(&self.credentials.token_key_pem).expect("key")
    }

    /// Says so, if anybody is there to hear it.
    pub async fn try_legs(&self, legs: Vec<pb::LegReport>) -> bool {
        let message = pb::serve_request::Message::Report(pb::RelayReport { legs });
        let request = pb::ServeRequest {
            message: Some(message),
        };
        self.up.send(request).await.is_ok()
    }

    pub async fn legs(&self, legs: Vec<pb::LegReport>) {
        send(
            &self.up,
            pb::serve_request::Message::Report(pb::RelayReport { legs }),
        )
        .await;
    }

    pub async fn leg(&self, meeting: &str, site: &str, state: pb::LegState, reason: &str) {
        self.legs(vec![leg(meeting, site, state, reason)]).await;
    }

    /// Tells how the leg of a site fares; the leg is called as in `leg`.
    pub async fn quality(&self, meeting: &str, site: &str, up_bps: u32) {
        let sites = vec![quality(meeting, site, up_bps)];
        send(
            &self.up,
            pb::serve_request::Message::Quality(pb::QualityReport { sites }),
        )
        .await;
    }

    /// Tells how much goes up from and down to the leg of a site.
    pub async fn flows(&self, meeting: &str, site: &str, up_bps: u32, down_bps: u32) {
        let mut told = quality(meeting, site, up_bps);
        if let Some(quality) = &mut told.quality {
            quality.down_bps = down_bps;
        }
        let sites = vec![told];
        send(
            &self.up,
            pb::serve_request::Message::Quality(pb::QualityReport { sites }),
        )
        .await;
    }

    /// Tells that all that goes to the leg of a site is lost.
    pub async fn loses(&self, meeting: &str, site: &str) {
        let mut told = quality(meeting, site, 9);
        if let Some(quality) = &mut told.quality {
            (quality.down_bps, quality.down_loss_permille) = (9, 1000);
        }
        let sites = vec![told];
        send(
            &self.up,
            pb::serve_request::Message::Quality(pb::QualityReport { sites }),
        )
        .await;
    }

    /// Brings a site on air.
    pub async fn on_air(&self, person: &Person, meeting: &str, site: &str) {
        self.leg(meeting, site, pb::LegState::OnAir, "").await;
        person.until(meeting, site, pb::SummonsState::OnAir).await;
    }

    /// The next stage document that is as asked.
    pub async fn stage(&mut self, wanted: impl Fn(&pb::StageDocument) -> bool) -> pb::StageDocument {
        let found = async {
            loop {
                let message = self.down.message().await.expect("stream").expect("not over");
                if let Some(pb::serve_response::Message::Stage(stage)) = message.message
                    && wanted(&stage)
                {
                    return stage;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found)
            .await
            .expect("a stage within 10 s")
    }
}

pub fn leg(meeting: &str, site: &str, state: pb::LegState, reason: &str) -> pb::LegReport {
    pb::LegReport {
        meeting: meeting.into(),
        site: site.into(),
        leg: format!("leg-{site}"),
        state: state.into(),
        at_ms: 1,
        reason: reason.into(),
    }
}

async fn send(up: &mpsc::Sender<pb::ServeRequest>, message: pb::serve_request::Message) {
    up.send(pb::ServeRequest {
        message: Some(message),
    })
    .await
    .expect("the stream lives");
}

/// The state of the world that most tests begin with: a relay, and an endpoint for each of these sites.
pub async fn attached(fixture: &Fixture, sites: &[&str]) -> Vec<Endpoint> {
    let person = fixture.person().await;
    let mut endpoints = Vec::new();
    for site in sites {
        let secret = person.site_link(site).await;
        endpoints.push(
            Endpoint::attach(fixture.channel().await, &secret)
                .await
                .expect("attached"),
        );
    }
    endpoints
}

/// How the leg of a site fares, as a relay tells it.
pub fn quality(meeting: &str, site: &str, up_bps: u32) -> pb::SiteQuality {
    pb::SiteQuality {
        meeting: meeting.to_owned(),
        site: site.to_owned(),
        leg: leg(meeting, site, pb::LegState::OnAir, "").leg,
        quality: Some(LegQuality {
            up_bps,
            ..Default::default()
        }),
    }
}

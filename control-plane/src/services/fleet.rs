//! Relays: each dials out and keeps one stream. Stages go down, legs come up.

use super::Answers;
use crate::clock::Clock;
use crate::core::Core;
use crate::fleet::Registration;
use crate::meetings::LegFact;
use crate::status::Failure;
use futures_util::stream;
use muster_domain::SiteId;
use muster_proto::command::v1 as pb;
use pb::fleet_service_server::FleetService;
use pb::serve_request::Message as Up;
use pb::serve_response::Message as Down;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Interval;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

const HEARTBEAT: Duration = Duration::from_millis(500);
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
const MAX_LINKS: usize = 1024;
const MAX_ADDRESS: usize = 256;

pub struct FleetCalls(pub Arc<Core>);

/// What goes down to one relay.
struct Serving {
    welcome: Option<pb::ServeWelcome>,
    registration: Arc<Registration>,
    heartbeat: Interval,
    clock: Clock,
    /// The stream of the relay has ended, or the control plane stops.
    over: CancellationToken,
    _ends_reading: DropGuard,
}

impl Serving {
    async fn next(mut self) -> Option<(Result<pb::ServeResponse, Status>, Self)> {
        let message = if let Some(welcome) = self.welcome.take() {
            Down::Welcome(welcome)
        } else {
            tokio::select! {
                biased;
                () = self.over.cancelled() => return None,
                document = self.registration.outbox.next() => Down::Stage(document),
                _ = self.heartbeat.tick() => Down::Heartbeat(pb::ServeHeartbeat { server_time_ms: self.clock.now_ms() }),
            }
        };
        Some((
            Ok(pb::ServeResponse {
                message: Some(message),
            }),
            self,
        ))
    }
}

/// The legs of sites by meeting; a desk's leg has no summons and is passed over.
fn by_meeting(reports: Vec<pb::LegReport>) -> BTreeMap<String, Vec<LegFact>> {
    let mut facts: BTreeMap<String, Vec<LegFact>> = BTreeMap::new();
    for report in reports {
        let state = report.state();
        let Ok(site) = SiteId::new(&report.site) else {
            continue;
        };
        let fact = LegFact {
            site,
            leg: report.leg,
            state,
            reason: report.reason,
        };
        facts.entry(report.meeting).or_default().push(fact);
    }
    facts
}

/// Whether a relay may speak of this: a site or a desk, in a meeting that is live.
fn is_in_meeting(core: &Core, quality: &pb::SiteQuality) -> bool {
    let Some(meeting) = core.meetings.view(&quality.meeting) else {
        return false;
    };
    if quality.site.starts_with("desk:") {
        return quality.site.len() <= MAX_ADDRESS;
    }
    SiteId::new(&quality.site).is_ok_and(|site| meeting.summons(&site).is_some())
}

fn check_hello(hello: &pb::RelayHello) -> Result<(), Failure> {
    let bad = |what: &str| Failure::BadRequest(format!("hello: {what}"));
    if !hello.http_url.starts_with("http") || hello.http_url.len() > MAX_ADDRESS {
        return Err(bad("http_url: expected http://HOST:PORT"));
    }
    if hello.link_addrs.len() > MAX_LINKS || hello.link_addrs.iter().any(|link| link.len() > MAX_ADDRESS) {
        return Err(bad("link_addrs: expected 1024 addresses HOST:PORT at most"));
    }
    Ok(())
}

/// Takes in what the relay says until its stream ends.
async fn read(
    core: Arc<Core>,
    relay: Arc<Registration>,
    up: Streaming<pb::ServeRequest>,
    over: CancellationToken,
) {
    let _ends_writing = over.clone().drop_guard();
    take_in(&core, &relay, up, &over).await;
    core.qualities.relay_gone(relay.connection());
}

async fn take_in(
    core: &Core,
    relay: &Registration,
    mut up: Streaming<pb::ServeRequest>,
    over: &CancellationToken,
) {
    loop {
        let message = tokio::select! {
            () = over.cancelled() => return,
            message = up.message() => message,
        };
        let Ok(Some(pb::ServeRequest {
            message: Some(message),
        })) = message
        else {
            return;
        };
        if !core.relays.is_current(relay) {
            return;
        }
        match message {
            Up::Report(report) => {
                core.relays.heard(relay, None);
                core.qualities.left(&report.legs);
                core.meetings.legs(&relay.id, by_meeting(report.legs)).await;
            }
            Up::Quality(report) => {
                core.relays.heard(relay, None);
                core.qualities
                    .take(relay.connection(), report, |quality| is_in_meeting(core, quality));
            }
            Up::Heartbeat(heartbeat) => core.relays.heard(relay, Some(&heartbeat)),
            Up::Hello(hello) => core.meetings.relay_back(&relay.id, by_meeting(hello.legs)).await,
        }
    }
}

#[tonic::async_trait]
impl FleetService for FleetCalls {
    type ServeStream = Answers<pb::ServeResponse>;

    async fn serve(
        &self,
        request: Request<Streaming<pb::ServeRequest>>,
    ) -> Result<Response<Self::ServeStream>, Status> {
        let id = self.0.relay(&request)?;
        let mut up = request.into_inner();
        let first = tokio::time::timeout(HELLO_DEADLINE, up.message());
        let first = first
            .await
            .map_err(|_| Status::deadline_exceeded("expected a hello within 10 s"))??;
        let Some(pb::ServeRequest {
            message: Some(Up::Hello(hello)),
        }) = first
        else {
            return Err(Failure::BadRequest("expected a hello as the first message".into()).into());
        };
        check_hello(&hello)?;
        let registration = Arc::new(self.0.relays.register(&id, &hello));
        tracing::info!(
            relay = id,
            legs = hello.legs.len(),
            version = hello.version,
            "relay online"
        );
        self.0.meetings.relay_back(&id, by_meeting(hello.legs)).await;
        let over = self.0.shutdown.child_token();
        tokio::spawn(read(self.0.clone(), registration.clone(), up, over.clone()));
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let welcome = pb::ServeWelcome {
            relay: id,
            token_key_pem: self.0.authority.token_key_pem(),
        };
        let ends_reading = over.clone().drop_guard();
        let serving = Serving {
            welcome: Some(welcome),
            registration,
            heartbeat,
            clock: self.0.clock,
            over,
            _ends_reading: ends_reading,
        };
        Ok(Response::new(Box::pin(stream::unfold(serving, Serving::next))))
    }
}

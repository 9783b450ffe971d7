//! The agent's side of the control plane: one `Attach` stream that is kept, and single calls beside it.
//!
//! The control plane may have several replicas. The stream is with one of them; when that is lost, the others are tried
//! at once, and all again with backoff. Calls go to the replica of the stream first, and to the others where it cannot
//! be reached. Each runs in a task of its own and reports to the agent's queue; nothing here holds state of a meeting. A
//! stream that is silent for 2.5 s (heartbeats come every second) counts as lost. Each agent has an order of the replicas
//! of its own, so that those of one that dies spread over the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster_identity::{Credentials, IdentityError, LAST_RANK, Rank};
use muster_proto::command::v1::endpoint_service_client::EndpointServiceClient;
use muster_proto::command::v1::{
    AttachRequest, Attached, DrillCall, DrillResult, EndpointNotice, GetTicketRequest, HandInReportRequest,
    JoinTicket, ReportDrillRequest, ReportSummonsRequest, Site, SummonsCall, SummonsReason, SummonsState,
    SummonsWithdrawn, Tier, attach_response,
};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::agent::Input;
use crate::backoff::Backoff;
use crate::outbox::send::Carrier;
use crate::rendezvous::Placement;

const SILENCE: Duration = Duration::from_millis(2500);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Where another replica can be asked instead.
const CALL_TIMEOUT_OF_SEVERAL: Duration = Duration::from_millis(1500);
/// Reports are tried so often; the relay's own report makes up for one that is lost.
const REPORT_ATTEMPTS: u32 = 3;
/// In the metadata of RESOURCE_EXHAUSTED: how long to wait, milliseconds.
const RETRY_AFTER: &str = "retry-after-ms";
/// Nobody is told to wait for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

type Client = EndpointServiceClient<Channel>;

/// What the control plane says.
#[derive(Debug)]
pub enum ControlEvent {
    /// By the replica at this address.
    Attached(String, Attached),
    Summons(SummonsCall),
    Withdrawn(SummonsWithdrawn),
    Notice(EndpointNotice),
    Drill(DrillCall),
    /// The stream is lost, or was refused; it is made again after this time.
    Detached(String, Duration),
    /// The answer to a question for a ticket.
    Ticket(String, Result<JoinTicket, NoTicket>),
}

/// Why there is no ticket.
#[derive(Debug, PartialEq, Eq)]
pub enum NoTicket {
    /// The meeting is over, or not for this site.
    Over(String),
    /// The control plane did not answer, or has no relay now.
    Later(String),
}

/// The calls of an agent.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    replicas: Arc<Replicas>,
    inputs: mpsc::Sender<Input>,
}

#[derive(Debug)]
struct Replicas {
    clients: Vec<(String, Client)>,
    /// Where in line this site asks to stand the next time that it connects: by its tier, once that is known.
    rank: Rank,
    /// The one that the stream is with, or is tried with.
    present: AtomicUsize,
}

impl ControlPlane {
    /// Starts to attach to one of `addresses`, and goes on until the runtime ends.
    ///
    /// # Errors
    /// [`IdentityError`] for an address or certificate that cannot be used at all.
    pub async fn start(
        addresses: &[String],
        credentials: &Credentials,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self, IdentityError> {
        let mut clients = Vec::with_capacity(addresses.len());
        let rank = Rank::default();
        for address in addresses {
            let channel = muster_identity::connect_in_line(address, credentials, rank.clone()).await?;
            clients.push((address.clone(), Client::new(channel)));
        }
        shuffle(&mut clients);
        let replicas = Arc::new(Replicas {
            clients,
            rank,
            present: AtomicUsize::new(0),
        });
        tokio::spawn(stay_attached(replicas.clone(), inputs.clone()));
        Ok(Self { replicas, inputs })
    }

    /// Reports a step of a summons, without waiting.
    pub fn report(&self, meeting: &str, state: SummonsState, reason: SummonsReason, detail: &str) {
        let request = ReportSummonsRequest {
            meeting: meeting.to_owned(),
            state: state.into(),
            reason: reason.into(),
            detail: detail.to_owned(),
        };
        self.deliver("report", move |mut client| {
            let request = request.clone();
            async move { client.report_summons(request).await }
        });
    }

    /// Reports what a drill found, without waiting.
    pub fn report_drill(&self, drill: &str, result: DrillResult) {
        let request = ReportDrillRequest {
            drill: drill.to_owned(),
            result: Some(result),
        };
        self.deliver("report of a drill", move |mut client| {
            let request = request.clone();
            async move { client.report_drill(request).await }
        });
    }

    /// Hands a report in: once, at whichever replica is reached. When it was stored, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The answer of the control plane, or why it was not reached.
    pub async fn hand_in_report(&self, report: HandInReportRequest) -> Result<i64, Status> {
        let answer = self.replicas.call(|mut client| {
            let report = report.clone();
            async move { client.hand_in_report(report).await }
        });
        Ok(answer.await?.received_ms)
    }

    /// Asks for a ticket; the answer comes as [`ControlEvent::Ticket`]. `lost` is the placement whose relay is silent.
    pub fn ask_ticket(&self, meeting: &str, lost: Option<Placement>) {
        let lost = lost.unwrap_or_default();
        let request = GetTicketRequest {
            meeting: meeting.to_owned(),
            lost_relay: lost.relay,
            lost_epoch: lost.epoch,
        };
        let (replicas, inputs, meeting) = (self.replicas.clone(), self.inputs.clone(), meeting.to_owned());
        tokio::spawn(async move {
            let answer = replicas.call(|mut client| {
                let request = request.clone();
                async move { client.get_ticket(request).await }
            });
            let ticket = match answer.await.map(|answer| answer.ticket) {
                Ok(Some(ticket)) => Ok(ticket),
                Ok(None) => Err(NoTicket::Later("an answer without a ticket".into())),
                Err(status) => Err(no_ticket(&status)),
            };
            let _ = inputs
                .send(Input::Control(ControlEvent::Ticket(meeting, ticket)))
                .await;
        });
    }

    /// Makes a call until it is taken, a few times at most.
    fn deliver<T, F>(&self, what: &'static str, call: impl Fn(Client) -> F + Send + Sync + 'static)
    where
        T: Send,
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let replicas = self.replicas.clone();
        tokio::spawn(async move {
            let mut backoff = Backoff::default();
            for _ in 0..REPORT_ATTEMPTS {
                match replicas.call(&call).await {
                    Ok(_) => return,
                    Err(status) => tracing::warn!(%status, "{what} not taken"),
                }
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
        });
    }
}

impl Carrier for ControlPlane {
    async fn hand_in(&self, report: HandInReportRequest) -> Result<i64, Status> {
        self.hand_in_report(report).await
    }
}

impl Replicas {
    /// Asks the replica of the stream, and the others in turn where it cannot be reached.
    async fn call<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let count = self.clients.len();
        let patience = if count > 1 {
            CALL_TIMEOUT_OF_SEVERAL
        } else {
            CALL_TIMEOUT
        };
        let first = self.present.load(Ordering::Relaxed);
        let mut failed = Status::unavailable("no address of the control plane");
        for index in (0..count).map(|offset| (first + offset) % count) {
            match within(patience, call(self.clients[index].1.clone())).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if is_away(&status) => failed = status,
                Err(status) => return Err(status),
            }
        }
        Err(failed)
    }
}

/// Puts them in an order by chance.
fn shuffle<T>(all: &mut [T]) {
    for last in (1..all.len()).rev() {
        all.swap(last, rand::random_range(0..=last));
    }
}

/// Whether another replica may do better.
fn is_away(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded
    )
}

fn no_ticket(status: &Status) -> NoTicket {
    match status.code() {
        Code::NotFound | Code::FailedPrecondition | Code::PermissionDenied => {
            NoTicket::Over(status.message().to_owned())
        }
        _ => NoTicket::Later(reason_of(status)),
    }
}

async fn within<T>(patience: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(patience, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer from the control plane")))
}

/// Why a stream ended, or never began.
struct Ended {
    why: String,
    /// It had been attached.
    attached: bool,
    /// The control plane is there, and asks to come again after this time.
    come_again: Option<Duration>,
}

impl Ended {
    fn attached(why: String) -> Self {
        Self {
            why,
            attached: true,
            come_again: None,
        }
    }
}

async fn stay_attached(replicas: Arc<Replicas>, inputs: mpsc::Sender<Input>) {
    let count = replicas.clients.len();
    let mut backoff = Backoff::default();
    // Replicas that have failed since the last good stream.
    let mut failed = 0;
    loop {
        let index = replicas.present.load(Ordering::Relaxed);
        let (address, client) = &replicas.clients[index];
        let ended = attach_once(address, client.clone(), &replicas.rank, &inputs).await;
        if ended.attached {
            backoff.reset();
            failed = 0;
        }
        let wait = match ended.come_again {
            Some(wait) => wait.mul_f64(1.0 + rand::random::<f64>() / 10.0),
            None => {
                failed += 1;
                replicas.present.store((index + 1) % count, Ordering::Relaxed);
                if failed < count {
                    Duration::ZERO
                } else {
                    backoff.next(rand::random())
                }
            }
        };
        let event = ControlEvent::Detached(ended.why, wait);
        if inputs.send(Input::Control(event)).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// Command seats come first, where many come at once.
fn rank_of(site: Option<&Site>) -> u8 {
    match site.map(Site::tier) {
        Some(Tier::City) => 0,
        Some(Tier::District) => 1,
        Some(Tier::Street) => 2,
        Some(Tier::Community | Tier::Unspecified) | None => LAST_RANK,
    }
}

/// Attaches, passes on what comes, and returns why it ended.
async fn attach_once(address: &str, mut client: Client, rank: &Rank, inputs: &mpsc::Sender<Input>) -> Ended {
    let request = AttachRequest {
        endpoint: "agent".into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let mut stream = match within(CALL_TIMEOUT, client.attach(request)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            let come_again = retry_after(&status);
            let why = match come_again {
                Some(wait) => format!(
                    "the control plane asks to wait {:.1} s: {}",
                    wait.as_secs_f64(),
                    status.message()
                ),
                None => reason_of(&status),
            };
            return Ended {
                why,
                attached: false,
                come_again,
            };
        }
    };
    let mut attached = false;
    loop {
        let message = match tokio::time::timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Ended::attached("the control plane has ended the stream".into()),
            Ok(Err(status)) => {
                return Ended {
                    why: reason_of(&status),
                    attached,
                    come_again: retry_after(&status),
                };
            }
            Err(_) => {
                let silence = SILENCE.as_secs_f32();
                return Ended::attached(format!("no heartbeat of the control plane for {silence} s"));
            }
        };
        let event = match message.event {
            Some(attach_response::Event::Attached(told)) => {
                attached = true;
                rank.set(rank_of(told.site.as_ref()));
                ControlEvent::Attached(address.to_owned(), told)
            }
            Some(attach_response::Event::Summons(call)) => ControlEvent::Summons(call),
            Some(attach_response::Event::Withdrawn(withdrawn)) => ControlEvent::Withdrawn(withdrawn),
            Some(attach_response::Event::Notice(notice)) => ControlEvent::Notice(notice),
            Some(attach_response::Event::Drill(drill)) => ControlEvent::Drill(drill),
            Some(attach_response::Event::Heartbeat(_)) | None => continue,
        };
        if inputs.send(Input::Control(event)).await.is_err() {
            return Ended::attached("the agent ends".into());
        }
    }
}

/// How long the control plane asks to wait, if it does.
fn retry_after(status: &Status) -> Option<Duration> {
    if status.code() != Code::ResourceExhausted {
        return None;
    }
    let told = status.metadata().get(RETRY_AFTER)?.to_str().ok()?;
    told.parse()
        .ok()
        .map(Duration::from_millis)
        .map(|wait| wait.min(LONGEST_WAIT))
}

/// What a person can do something with: the last cause, and a hint where the certificate is the matter.
fn reason_of(status: &Status) -> String {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            format!(
                "the control plane does not take this agent's certificate ({}); enrol again",
                status.message()
            )
        }
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {
            let mut detail = status.message().to_owned();
            let mut cause = std::error::Error::source(status);
            while let Some(error) = cause {
                detail = error.to_string();
                cause = error.source();
            }
            format!("cannot reach the control plane: {detail}")
        }
        _ => format!("the control plane refused: {}", status.message()),
    }
}

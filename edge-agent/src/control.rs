//! The agent's side of the control plane: one `Attach` stream that is kept, and single calls beside it.
//!
//! Each runs in a task of its own and reports to the agent's queue; nothing here holds state of a meeting. A stream
//! that is silent for 12 s (heartbeats come at least every 5 s) counts as lost.

use std::time::Duration;

use muster_identity::{Credentials, IdentityError};
use muster_proto::command::v1::endpoint_service_client::EndpointServiceClient;
use muster_proto::command::v1::{
    AttachRequest, Attached, GetTicketRequest, JoinTicket, ReportSummonsRequest, SummonsCall, SummonsReason,
    SummonsState, SummonsWithdrawn, attach_response,
};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::agent::Input;
use crate::backoff::Backoff;

const SILENCE: Duration = Duration::from_secs(12);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Reports are tried so often; the relay's own report makes up for one that is lost.
const REPORT_ATTEMPTS: u32 = 3;

/// What the control plane says.
#[derive(Debug)]
pub enum ControlEvent {
    Attached(Attached),
    Summons(SummonsCall),
    Withdrawn(SummonsWithdrawn),
    /// The stream is lost; it is being made again.
    Detached(String),
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
    client: EndpointServiceClient<Channel>,
    inputs: mpsc::Sender<Input>,
}

impl ControlPlane {
    /// Starts to attach, and goes on until the runtime ends.
    ///
    /// # Errors
    /// [`IdentityError`] for an address or certificate that cannot be used at all.
    pub async fn start(
        address: &str,
        credentials: &Credentials,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self, IdentityError> {
        let client = EndpointServiceClient::new(muster_identity::connect(address, credentials).await?);
        tokio::spawn(stay_attached(client.clone(), inputs.clone()));
        Ok(Self { client, inputs })
    }

    /// Reports a step of a summons, without waiting.
    pub fn report(&self, meeting: &str, state: SummonsState, reason: SummonsReason, detail: &str) {
        let request = ReportSummonsRequest {
            meeting: meeting.to_owned(),
            state: state.into(),
            reason: reason.into(),
            detail: detail.to_owned(),
        };
        let mut client = self.client.clone();
        tokio::spawn(async move {
            let mut backoff = Backoff::default();
            for _ in 0..REPORT_ATTEMPTS {
                match within(client.report_summons(request.clone())).await {
                    Ok(_) => return,
                    Err(status) => tracing::warn!(%status, meeting = request.meeting, "report not taken"),
                }
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
        });
    }

    /// Asks for a ticket; the answer comes as [`ControlEvent::Ticket`].
    pub fn ask_ticket(&self, meeting: &str) {
        let (mut client, inputs, meeting) = (self.client.clone(), self.inputs.clone(), meeting.to_owned());
        tokio::spawn(async move {
            let answer = within(client.get_ticket(GetTicketRequest {
                meeting: meeting.clone(),
                ..Default::default()
            }))
            .await;
            let ticket = match answer.map(|answer| answer.into_inner().ticket) {
                Ok(Some(ticket)) => Ok(ticket),
                Ok(None) => Err(NoTicket::Later("an answer without a ticket".into())),
                Err(status) => Err(no_ticket(&status)),
            };
            let _ = inputs
                .send(Input::Control(ControlEvent::Ticket(meeting, ticket)))
                .await;
        });
    }
}

fn no_ticket(status: &Status) -> NoTicket {
    match status.code() {
        Code::NotFound | Code::FailedPrecondition | Code::PermissionDenied => {
            NoTicket::Over(status.message().to_owned())
        }
        _ => NoTicket::Later(reason_of(status)),
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer from the control plane")))
}

async fn stay_attached(mut client: EndpointServiceClient<Channel>, inputs: mpsc::Sender<Input>) {
    let mut backoff = Backoff::default();
    loop {
        let why = attach_once(&mut client, &inputs, &mut backoff).await;
        if inputs
            .send(Input::Control(ControlEvent::Detached(why)))
            .await
            .is_err()
        {
            return;
        }
        tokio::time::sleep(backoff.next(rand::random())).await;
    }
}

/// Attaches, passes on what comes, and returns why it ended.
async fn attach_once(
    client: &mut EndpointServiceClient<Channel>,
    inputs: &mpsc::Sender<Input>,
    backoff: &mut Backoff,
) -> String {
    let request = AttachRequest {
        endpoint: "agent".into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let mut stream = match within(client.attach(request)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return reason_of(&status),
    };
    loop {
        let message = match tokio::time::timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return "the control plane has ended the stream".into(),
            Ok(Err(status)) => return reason_of(&status),
            Err(_) => return format!("no heartbeat of the control plane for {} s", SILENCE.as_secs()),
        };
        let event = match message.event {
            Some(attach_response::Event::Attached(attached)) => {
                backoff.reset();
                ControlEvent::Attached(attached)
            }
            Some(attach_response::Event::Summons(call)) => ControlEvent::Summons(call),
            Some(attach_response::Event::Withdrawn(withdrawn)) => ControlEvent::Withdrawn(withdrawn),
            Some(
                attach_response::Event::Heartbeat(_)
                | attach_response::Event::Notice(_)
                | attach_response::Event::Drill(_),
            )
            | None => continue,
        };
        if inputs.send(Input::Control(event)).await.is_err() {
            return "the agent ends".into();
        }
    }
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

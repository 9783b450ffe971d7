//! Endpoints as agents are: a connection with a certificate, a stream, and a try again when that ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_identity::{Credentials, connect};
use muster_proto::command::v1::attach_response::Event;
use muster_proto::command::v1::endpoint_service_client::EndpointServiceClient;
use muster_proto::command::v1::{AttachRequest, AttachResponse, ReportSummonsRequest, SummonsState};
use tokio::sync::mpsc::UnboundedSender;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Something that befell an endpoint, by its number.
pub struct News {
    pub seat: usize,
    pub at: Instant,
    pub what: What,
}

pub enum What {
    Attached,
    /// Refused for now: told to wait so long.
    Told(Duration),
    /// The try failed and nothing was told.
    Failed(Status),
    Summoned(String),
}

/// One endpoint.
pub struct Seat {
    pub number: usize,
    pub agents_addr: SocketAddr,
    pub credentials: Credentials,
    pub news: UnboundedSender<News>,
}

impl Seat {
    fn tell(&self, what: What) {
        let news = News {
            seat: self.number,
            at: Instant::now(),
            what,
        };
        // Nobody listens once the measurement is over.
        let _ = self.news.send(news);
    }

    /// Attaches, again and again, until the stream of one try ends by itself.
    pub async fn sit(&self) -> anyhow::Result<()> {
        loop {
            // A connection each time, as after a restart.
            let mut client =
                EndpointServiceClient::new(connect(&self.agents_addr.to_string(), &self.credentials).await?);
            match greeted(&mut client).await {
                Ok(stream) => {
                    self.tell(What::Attached);
                    return self.listen(client, stream).await;
                }
                Err(status) => tokio::time::sleep(self.wait_of(status)).await,
            }
        }
    }

    /// How long to wait after this refusal; tells of it.
    fn wait_of(&self, status: Status) -> Duration {
        if let Some(wait) = told_wait(&status) {
            self.tell(What::Told(wait));
            return wait;
        }
        self.tell(What::Failed(status));
        // Spread by the number, so that it needs no chance.
        Duration::from_millis(200 + (self.number as u64 * 7919) % 800)
    }

    async fn listen(
        &self,
        mut client: EndpointServiceClient<Channel>,
        mut stream: Streaming<AttachResponse>,
    ) -> anyhow::Result<()> {
        while let Ok(Some(message)) = stream.message().await {
            if let Some(Event::Summons(call)) = message.event {
                self.tell(What::Summoned(call.meeting.clone()));
                let report = ReportSummonsRequest {
                    meeting: call.meeting,
                    state: SummonsState::Delivered.into(),
                    ..ReportSummonsRequest::default()
                };
                client.report_summons(report).await?;
            }
        }
        Ok(())
    }
}

/// The stream, once its first message says that the endpoint is attached.
async fn greeted(client: &mut EndpointServiceClient<Channel>) -> Result<Streaming<AttachResponse>, Status> {
    let request = AttachRequest {
        endpoint: "agent".to_owned(),
        version: "bench".to_owned(),
    };
    let mut stream = client.attach(request).await?.into_inner();
    match stream.message().await?.and_then(|message| message.event) {
        Some(Event::Attached(_)) => Ok(stream),
        _ => Err(Status::unknown("the stream does not begin with a greeting")),
    }
}

/// Milliseconds in the metadata of a refusal.
fn told_wait(status: &Status) -> Option<Duration> {
    let value = status.metadata().get("retry-after-ms")?;
    Some(Duration::from_millis(value.to_str().ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_told_wait_is_taken_from_the_refusal() {
        let mut status = Status::resource_exhausted("many come back at once");
        assert_eq!(told_wait(&status), None);
        status
            .metadata_mut()
            .insert("retry-after-ms", "750".parse().expect("ascii"));
        assert_eq!(told_wait(&status), Some(Duration::from_millis(750)));
    }
}

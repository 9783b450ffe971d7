//! Endpoints as agents are: a connection with a certificate, a stream, and a try again when that ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_identity::{Credentials, LAST_RANK, Rank, connect_in_line};
use muster_proto::command::v1::attach_response::Event;
use muster_proto::command::v1::endpoint_service_client::EndpointServiceClient;
use muster_proto::command::v1::{AttachRequest, AttachResponse, ReportSummonsRequest, SummonsState};
use tokio::sync::mpsc::UnboundedSender;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

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
    /// Its place in line where many connect: known since it was attached the first time.
    pub rank: Rank,
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

    /// Attaches, again and again, until the stream of one try ends by itself. A connection that stands is kept for the
    /// next try, as agents keep it.
    pub async fn sit(&self) -> anyhow::Result<()> {
        let (addr, rank) = (self.agents_addr.to_string(), self.rank.clone());
        let mut client = EndpointServiceClient::new(connect_in_line(&addr, &self.credentials, rank).await?);
        loop {
            match greeted(&mut client).await {
                Ok((stream, rank)) => {
                    self.tell(What::Attached);
                    self.rank.set(rank);
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
                match client.report_summons(report).await {
                    // The meeting has ended meanwhile.
                    Err(status) if status.code() == Code::FailedPrecondition => {}
                    other => drop(other?),
                }
            }
        }
        Ok(())
    }
}

/// The stream, once its first message says that the endpoint is attached, and its place in line by its site's tier.
async fn greeted(
    client: &mut EndpointServiceClient<Channel>,
) -> Result<(Streaming<AttachResponse>, u8), Status> {
    let request = AttachRequest {
        endpoint: "agent".to_owned(),
        version: "bench".to_owned(),
    };
    let mut stream = client.attach(request).await?.into_inner();
    match stream.message().await?.and_then(|message| message.event) {
        Some(Event::Attached(told)) => {
            // From 1, the city, to 4, a community.
            let tier = told.site.map_or(4, |site| site.tier);
            Ok((stream, u8::try_from(tier - 1).unwrap_or(LAST_RANK)))
        }
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

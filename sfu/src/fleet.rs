//! The relay's stream to the control plane: it dials out, says what it is and has, reports, and obeys stage documents.
//!
//! The control plane may have several replicas; the stream is with one of them. When that is lost the others are tried at
//! once, and all again with backoff. The relay serves on without any. Each connection begins with a hello that lists every
//! leg, so a control plane that has restarted, or another replica, learns what it missed.

use std::sync::Arc;
use std::time::Duration;

use muster_identity::{Credentials, Rank};
use muster_proto::command::v1::fleet_service_client::FleetServiceClient;
use muster_proto::command::v1::{
    LegReport, LegState, QualityReport, RelayHeartbeat, RelayHello, RelayReport, ServeRequest, serve_request,
    serve_response,
};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::worker::state::Shared;

const HEARTBEAT: Duration = Duration::from_millis(500);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MOST: Duration = Duration::from_secs(2);
/// Until the stream stands.
const CONNECT: Duration = Duration::from_secs(5);
/// How often quality is told; each leg's changes more rarely.
const QUALITY: Duration = Duration::from_secs(1);
/// Legs in one report.
const REPORT: usize = 500;

pub(crate) struct Fleet {
    /// `HOST:PORT` of the port for relays of each replica; at least one.
    pub authorities: Vec<String>,
    pub credentials: Credentials,
    pub http_url: String,
    pub link_addrs: Vec<String>,
    /// It has a relay above, be it there or not.
    pub has_uplink: bool,
    pub shared: Arc<Shared>,
}

/// Keeps the stream for as long as the relay runs.
pub(crate) async fn keep(fleet: Fleet) {
    let mut backoff = BACKOFF_FIRST;
    // Replicas that have failed since the last good stream.
    let mut failed = 0;
    for authority in fleet.authorities.iter().cycle() {
        let mut welcomed = false;
        match fleet.serve(authority, &mut welcomed).await {
            Ok(()) => tracing::info!(%authority, "the control plane closed the stream"),
            Err(error) => tracing::info!(%error, %authority, "no control plane"),
        }
        if welcomed {
            backoff = BACKOFF_FIRST;
            failed = 0;
        }
        failed += 1;
        if failed < fleet.authorities.len() {
            continue;
        }
        tokio::time::sleep(backoff.mul_f32(0.75 + rand::random::<f32>() / 2.0)).await;
        backoff = (backoff * 2).min(BACKOFF_MOST);
    }
}

impl Fleet {
    async fn serve(&self, authority: &str, welcomed: &mut bool) -> anyhow::Result<()> {
        let channel: Channel =
            muster_identity::connect_in_line(authority, &self.credentials, Rank::of(0)).await?;
        let (send, requests) = mpsc::channel(64);
        // The hello lists what is; of what waits, only those that have left say more.
        let waiting = self.shared.directory.reports.take();
        let legs = self.shared.directory.all_legs();
        let left = left_for_good(waiting, &legs);
        send.send(request(serve_request::Message::Hello(RelayHello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            http_url: self.http_url.clone(),
            link_addrs: self.link_addrs.clone(),
            legs,
            has_uplink: self.has_uplink,
        })))
        .await?;
        let mut client = FleetServiceClient::new(channel);
        let opened = tokio::time::timeout(CONNECT, client.serve(ReceiverStream::new(requests))).await;
        let mut answers = match opened {
            Ok(Ok(response)) => response.into_inner(),
            failed => {
                left.into_iter()
                    .for_each(|report| self.shared.directory.reports.push(report));
                failed??;
                return Ok(());
            }
        };
        report(&send, left).await?;
        self.shared.directory.qualities.tell_anew();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut quality = tokio::time::interval(QUALITY);
        quality.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = answers.message() => {
                    // One that died without a word is found out by HTTP/2 keep-alive.
                    let Some(answer) = answer? else { return Ok(()) };
                    *welcomed = true;
                    self.obey(answer.message);
                }
                () = self.shared.directory.reports.changed() => {
                    report(&send, self.shared.directory.reports.take()).await?;
                }
                _ = quality.tick() => {
                    for some in self.shared.directory.qualities.take().chunks(REPORT) {
                        let sites = some.to_vec();
                        send.send(request(serve_request::Message::Quality(QualityReport { sites }))).await?;
                    }
                }
                _ = heartbeat.tick() => {
                    let legs = self.shared.directory.leg_count() as u32;
                    let uplink = self.shared.cascade.above();
                    let beat = RelayHeartbeat { legs, uplink };
                    send.send(request(serve_request::Message::Heartbeat(beat))).await?;
                }
            }
        }
    }

    fn obey(&self, message: Option<serve_response::Message>) {
        match message {
            Some(serve_response::Message::Welcome(welcome)) => {
                tracing::info!(relay = %welcome.relay, "the control plane is there");
                self.shared.admission.set_key(&welcome.token_key_pem);
                self.shared.readiness.welcomed();
            }
            Some(serve_response::Message::Stage(stage)) => self.shared.directory.set_stage(stage),
            Some(serve_response::Message::Heartbeat(_)) | None => {}
        }
    }
}

fn request(message: serve_request::Message) -> ServeRequest {
    ServeRequest {
        message: Some(message),
    }
}

async fn report(send: &mpsc::Sender<ServeRequest>, legs: Vec<LegReport>) -> anyhow::Result<()> {
    for some in legs.chunks(REPORT) {
        send.send(request(serve_request::Message::Report(RelayReport {
            legs: some.to_vec(),
        })))
        .await?;
    }
    Ok(())
}

/// Of reports that could not be sent: the legs that have left, unless their site is back with another leg.
fn left_for_good(waiting: Vec<LegReport>, now: &[LegReport]) -> Vec<LegReport> {
    waiting
        .into_iter()
        .filter(|report| report.state == LegState::Left as i32)
        .filter(|report| {
            !now.iter()
                .any(|leg| leg.meeting == report.meeting && leg.site == report.site)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_that_left_is_told_later_unless_its_site_is_back() {
        let report = |site: &str, state: LegState| LegReport {
            meeting: "m".into(),
            site: site.into(),
            state: state.into(),
            ..Default::default()
        };
        let waiting = vec![
            report("a", LegState::Left),
            report("b", LegState::Left),
            report("c", LegState::OnAir),
        ];
        let now = [report("b", LegState::OnAir), report("c", LegState::OnAir)];
        assert_eq!(left_for_good(waiting, &now), [report("a", LegState::Left)]);
    }
}

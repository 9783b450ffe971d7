//! The main job without a person: convene all, see all on air, look at every one of them, hold, end.

use std::time::Duration;

use anyhow::Context;
use muster_proto::command::v1::{
    BroadcastSiteRequest, ConveneRequest, EndMeetingRequest, JoinAsDeskRequest, JoinTicket, Meeting,
    PreviewConveneRequest, Selector, SummonsState, WatchRequest, WatchResponse,
};
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Streaming;

use super::running::Running;
use crate::client::Client;
use crate::failure::Failure;
use crate::meeting::{new_key, state_name, why};
use crate::session::now_ms;
use crate::viewer::Viewer;
use crate::viewer::expect::{Expectation, expectations, show_page, wait_met};
use crate::watch::Situation;

/// Slots of the wall: a page of 7 by 7.
const WALL: usize = 49;
const ONLINE_LIMIT: Duration = Duration::from_secs(60);
const ON_AIR_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(10);

/// What the check found; its last line on the terminal.
#[derive(Debug, Serialize)]
pub struct Report {
    sites: usize,
    on_air: usize,
    /// From the call to the first picture seen by the relay. Absent while nobody is on air.
    p50_ms: Option<i64>,
    p95_ms: Option<i64>,
    frames_ok: bool,
    #[serde(skip)]
    ended_everywhere: bool,
}

impl Report {
    pub fn verdict(&self) -> Result<(), Failure> {
        if self.on_air < self.sites {
            return Err(Failure::NotAllOnAir(format!(
                "{} of {} sites were not on air",
                self.sites - self.on_air,
                self.sites
            )));
        }
        if !self.frames_ok {
            return Err(Failure::Refused(
                "not every slot showed its site; see above".to_owned(),
            ));
        }
        if !self.ended_everywhere {
            return Err(Failure::Refused(
                "the meeting did not end everywhere; see above".to_owned(),
            ));
        }
        Ok(())
    }
}

pub async fn run(running: &mut Running, hold_s: u64) -> Result<Report, Failure> {
    let sites = running.sites().to_vec();
    let client = running.client().clone();
    let mut watcher = Watcher::open(&client).await?;
    wait_until_online(&mut watcher, &sites).await?;
    let (meeting, called_ms) = convene(&client, &sites).await?;
    let id = meeting.id.clone();
    watcher.situation.meetings.entry(id.clone()).or_insert(meeting);

    let on_air = watcher
        .wait(ON_AIR_LIMIT, |s| on_air_sites(s, &id, &sites) == sites.len())
        .await?;
    let meeting = watcher
        .situation
        .meetings
        .get(&id)
        .cloned()
        .context("the meeting ended by itself")?;
    if !on_air {
        complain_summonses(&meeting);
    }
    let times = times_to_air(&meeting, called_ms);
    let p95 = percentile(&times, 95).map_or("-".to_owned(), |ms| ms.to_string());
    println!("on air {} of {}; p95 {p95} ms", times.len(), sites.len());

    let frames_ok = every_picture_is_right(&client, &id, &sites, Duration::from_secs(hold_s)).await;
    let still = on_air_sites(&watcher.catch_up().await?.situation, &id, &sites);
    client
        .meetings()
        .end_meeting(EndMeetingRequest { meeting: id.clone() })
        .await?;
    let ended_everywhere = watcher
        .wait(END_LIMIT, |s| s.ended.contains(&id) && s.legs() == 0)
        .await?;
    if !ended_everywhere {
        eprintln!(
            "muster: {} s after the end {} legs are left",
            END_LIMIT.as_secs(),
            watcher.situation.legs()
        );
    }
    Ok(Report {
        sites: sites.len(),
        on_air: still.min(times.len()),
        p50_ms: percentile(&times, 50),
        p95_ms: percentile(&times, 95),
        frames_ok,
        ended_everywhere,
    })
}

async fn wait_until_online(watcher: &mut Watcher, sites: &[String]) -> Result<(), Failure> {
    let started = Instant::now();
    let online = |s: &Situation| s.relays_online() > 0 && sites.iter().all(|site| s.is_online(site));
    if watcher.wait(ONLINE_LIMIT, online).await? {
        println!(
            "online {} after {} ms",
            sites.len(),
            started.elapsed().as_millis()
        );
        return Ok(());
    }
    let offline: Vec<_> = sites
        .iter()
        .filter(|site| !watcher.situation.is_online(site))
        .cloned()
        .collect();
    Err(Failure::NotAllOnAir(format!(
        "after {} s {} of {} sites are offline ({}), {} relays online",
        ONLINE_LIMIT.as_secs(),
        offline.len(),
        sites.len(),
        offline.join(" "),
        watcher.situation.relays_online()
    )))
}

/// The meeting, and when it was called for.
async fn convene(client: &Client, sites: &[String]) -> Result<(Meeting, i64), Failure> {
    let selector = Selector {
        sites: sites.to_vec(),
        ..Selector::default()
    };
    preview(client, &selector, sites).await?;
    let called_ms = now_ms();
    let request = ConveneRequest {
        selector: Some(selector),
        title: "Check 检查".to_owned(),
        idempotency_key: new_key(),
        ..ConveneRequest::default()
    };
    let meeting = client.meetings().convene(request).await?.into_inner().meeting;
    let meeting = meeting.context("the control plane answered without a meeting")?;
    Ok((meeting, called_ms))
}

/// Looks at every site; says on stderr what is wrong.
async fn every_picture_is_right(client: &Client, meeting: &str, sites: &[String], hold: Duration) -> bool {
    match look_at_all(client, meeting, sites, hold).await {
        Ok(complaints) => {
            complaints
                .iter()
                .for_each(|complaint| eprintln!("muster: {complaint}"));
            complaints.is_empty()
        }
        Err(error) => {
            eprintln!("muster: the desk could not look at the meeting: {error:#}");
            false
        }
    }
}

async fn preview(client: &Client, selector: &Selector, sites: &[String]) -> Result<(), Failure> {
    let request = PreviewConveneRequest {
        selector: Some(selector.clone()),
        ..PreviewConveneRequest::default()
    };
    let preview = client.meetings().preview_convene(request).await?.into_inner();
    let missing: Vec<_> = sites
        .iter()
        .filter(|site| !preview.sites.contains(site))
        .cloned()
        .collect();
    if missing.is_empty() && preview.unknown.is_empty() && preview.doubtful.is_empty() {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "the preview is not as it should be: missing {missing:?}, unknown {:?}, doubtful {:?}",
        preview.unknown,
        preview
            .doubtful
            .iter()
            .map(|summons| format!("{} {}", summons.site, why(summons)))
            .collect::<Vec<_>>()
    )))
}

fn on_air_sites(situation: &Situation, meeting: &str, sites: &[String]) -> usize {
    situation.meetings.get(meeting).map_or(0, |meeting| {
        let on_air = |site: &&String| {
            meeting
                .summonses
                .iter()
                .any(|s| s.site == **site && s.state() == SummonsState::OnAir)
        };
        sites.iter().filter(on_air).count()
    })
}

fn complain_summonses(meeting: &Meeting) {
    for summons in meeting
        .summonses
        .iter()
        .filter(|summons| summons.state() != SummonsState::OnAir)
    {
        eprintln!(
            "muster: site {}: {} {}",
            summons.site,
            state_name(summons.state()),
            why(summons)
        );
    }
}

/// From the call to the first picture, of those that were ever on air; ascending.
fn times_to_air(meeting: &Meeting, called_ms: i64) -> Vec<i64> {
    let mut times: Vec<_> = meeting
        .summonses
        .iter()
        .filter(|s| s.on_air_ms > 0)
        .map(|s| s.on_air_ms - called_ms)
        .collect();
    times.sort_unstable();
    times
}

/// Nearest-rank percentile of ascending values.
fn percentile(values: &[i64], percent: usize) -> Option<i64> {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

/// Pages the wall so that every site is seen, holds, and looks at the last page again. What is wrong comes back
/// as complaints.
async fn look_at_all(
    client: &Client,
    meeting: &str,
    sites: &[String],
    hold: Duration,
) -> anyhow::Result<Vec<String>> {
    let stage = sites.first().context("no site")?.clone();
    let request = BroadcastSiteRequest {
        meeting: meeting.to_owned(),
        site: stage.clone(),
    };
    client.meetings().broadcast_site(request).await?;
    let ticket = client
        .meetings()
        .join_as_desk(JoinAsDeskRequest {
            meeting: meeting.to_owned(),
            ..Default::default()
        })
        .await?;
    let ticket: JoinTicket = ticket.into_inner().ticket.context("the answer has no ticket")?;
    let mut viewer = Viewer::join(&ticket, sites.len().min(WALL)).await?;
    let until = Instant::now() + hold;
    let mut complaints = Vec::new();
    let mut last_page: &[String] = &[];
    for page in sites.chunks(WALL) {
        let mut expected = show_page(&mut viewer, &stage, page).await?;
        if !wait_met(&viewer, &mut expected).await {
            complain(&viewer, &expected, "when put on the wall", &mut complaints);
        }
        last_page = page;
    }
    println!("looked at {} sites in {} slots", sites.len(), viewer.slots());
    sleep_until(until).await;
    let mut expected = expectations(&stage, last_page);
    if !wait_met(&viewer, &mut expected).await {
        complain(&viewer, &expected, "at the end of the hold", &mut complaints);
    }
    viewer.leave().await?;
    Ok(complaints)
}

fn complain(viewer: &Viewer, expected: &[Expectation], when: &str, complaints: &mut Vec<String>) {
    let unmet = expected.iter().filter(|expectation| !expectation.is_met());
    complaints.extend(unmet.map(|expectation| format!("{when}: {}", expectation.complaint(viewer))));
}

/// The watch stream and what it told so far.
struct Watcher {
    stream: Streaming<WatchResponse>,
    situation: Situation,
}

impl Watcher {
    async fn open(client: &Client) -> Result<Self, Failure> {
        let stream = client.watch().watch(WatchRequest::default()).await?.into_inner();
        Ok(Self {
            stream,
            situation: Situation::default(),
        })
    }

    /// Until the condition holds (true) or the limit is over (false).
    async fn wait(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&Situation) -> bool,
    ) -> Result<bool, Failure> {
        let deadline = Instant::now() + limit;
        loop {
            if condition(&self.situation) {
                return Ok(true);
            }
            match timeout_at(deadline, self.stream.message()).await {
                Err(_) => return Ok(false),
                Ok(Ok(Some(response))) => self.situation.apply(response),
                Ok(Ok(None)) => {
                    return Err(Failure::Unreachable(
                        "the control plane ended the watch stream".to_owned(),
                    ));
                }
                Ok(Err(status)) => return Err(status.into()),
            }
        }
    }

    /// Takes what has come in the meantime.
    async fn catch_up(&mut self) -> Result<&Self, Failure> {
        self.wait(Duration::from_millis(200), |_| false).await?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<_> = (1..=140).collect();
        assert_eq!(percentile(&values, 50), Some(70));
        assert_eq!(percentile(&values, 95), Some(133));
        assert_eq!(percentile(&[7], 95), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_report_is_one_json_object_and_fails_unless_all_is_well() {
        let mut report = Report {
            sites: 2,
            on_air: 2,
            p50_ms: Some(300),
            p95_ms: Some(400),
            frames_ok: true,
            ended_everywhere: true,
        };
        let text = serde_json::to_string(&report).expect("json");
        assert_eq!(
            text,
            r#"{"sites":2,"on_air":2,"p50_ms":300,"p95_ms":400,"frames_ok":true}"#
        );
        assert_eq!(report.verdict(), Ok(()));
        report.frames_ok = false;
        assert!(matches!(report.verdict(), Err(Failure::Refused(_))));
        report.on_air = 1;
        assert!(matches!(report.verdict(), Err(Failure::NotAllOnAir(_))));
    }
}

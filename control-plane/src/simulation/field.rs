//! Endpoints of sites, and the relay that their legs are on. Each goes to another replica when its own is gone.
//!
//! An endpoint answers its calls late, declines or lets them ring; its leg stays at the relay while it has no replica,
//! as media goes on. What it is told is held against the store: a page while the site belongs to another meeting, from
//! which it was not called away, is a site in two meetings.

use super::check;
use super::dice::Dice;
use super::world::{Replica, Said, World, ask, lock, with_secret};
use crate::fleet::Registration;
use crate::meetings::LegFact;
use crate::services::endpoint::EndpointCalls;
use futures_util::StreamExt as _;
use muster_domain::SiteId;
use muster_proto::command::v1 as pb;
use pb::attach_response::Event;
use pb::endpoint_service_server::EndpointService as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;

const RELAY: &str = "relay-1";
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What an endpoint does at the relay.
pub enum Media {
    /// It joins, and shows a picture after this time.
    Join {
        meeting: String,
        site: &'static str,
        picture: Duration,
    },
    Leave {
        meeting: String,
        site: &'static str,
    },
}

/// The way to the relay.
#[derive(Clone)]
pub struct RelayHandle(mpsc::Sender<Media>);

/// Starts the relay.
pub fn relay(world: &Arc<World>, dice: Dice, people: &mut JoinSet<()>) -> RelayHandle {
    let (sender, media) = mpsc::channel(256);
    let relay = Relay {
        world: world.clone(),
        dice,
        legs: BTreeMap::new(),
        pictures: BTreeMap::new(),
        joined: 0,
        slot: 1,
    };
    people.spawn(relay.run(media));
    RelayHandle(sender)
}

struct Relay {
    world: Arc<World>,
    dice: Dice,
    /// By site: meeting, leg and whether it shows a picture.
    legs: BTreeMap<&'static str, (String, String, bool)>,
    /// When sites show a picture.
    pictures: BTreeMap<(Instant, u64), &'static str>,
    joined: u64,
    slot: usize,
}

/// A leg's news, and of which meeting.
type News = (String, LegFact);

fn fact(site: &str, leg: &str, state: pb::LegState) -> LegFact {
    LegFact {
        site: SiteId::new(site).expect("an id"),
        leg: leg.to_owned(),
        state,
        reason: "left".to_owned(),
    }
}

impl Relay {
    async fn run(mut self, mut media: mpsc::Receiver<Media>) {
        let over = self.world.over.clone();
        while !over.is_cancelled() {
            let Some((slot, replica)) = self.world.near(self.slot) else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            self.slot = slot;
            tokio::select! {
                biased;
                () = replica.killed.cancelled() => {}
                () = over.cancelled() => {}
                () = self.serve(&replica, &mut media) => {}
            }
            self.slot += 1;
            tokio::time::sleep(self.dice.ms(50, 900)).await;
        }
    }

    /// Serves one replica, until it is dropped. What is not told by then is told to the next one with all legs.
    async fn serve(&mut self, replica: &Replica, media: &mut mpsc::Receiver<Media>) {
        let hello = pb::RelayHello {
            http_url: "http://192.0.2.1:1".to_owned(),
            ..Default::default()
        };
        let registration = replica.core.relays.register(RELAY, &hello);
        replica.core.meetings.relay_back(RELAY, self.all_legs()).await;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            let next = self.pictures.keys().next().map(|(at, _)| *at);
            let picture = tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + HEARTBEAT));
            let news = tokio::select! {
                biased;
                _ = heartbeat.tick() => {
                    self.beat(replica, &registration);
                    continue;
                }
                stage = registration.outbox.next() => self.obey(&stage),
                Some(media) = media.recv() => self.follow(media),
                () = picture, if next.is_some() => self.show(),
            };
            let legs = self.legs.iter();
            *lock(&self.world.legs) = legs
                .map(|(site, (meeting, _, shows))| (*site, (meeting.clone(), *shows)))
                .collect();
            for (meeting, fact) in news {
                let facts = BTreeMap::from([(meeting, vec![fact])]);
                replica.core.meetings.legs(RELAY, facts).await;
            }
        }
    }

    fn all_legs(&self) -> BTreeMap<String, Vec<LegFact>> {
        let mut all: BTreeMap<String, Vec<LegFact>> = BTreeMap::new();
        for (site, (meeting, leg, shows)) in &self.legs {
            let state = if *shows {
                pb::LegState::OnAir
            } else {
                pb::LegState::Joining
            };
            all.entry(meeting.clone())
                .or_default()
                .push(fact(site, leg, state));
        }
        all
    }

    fn beat(&self, replica: &Replica, registration: &Registration) {
        let beat = pb::RelayHeartbeat {
            legs: u32::try_from(self.legs.len()).unwrap_or(u32::MAX),
            ..pb::RelayHeartbeat::default()
        };
        replica.core.relays.heard(registration, Some(&beat));
    }

    fn drop_leg(&mut self, site: &str) -> Option<News> {
        let (meeting, leg, _) = self.legs.remove(site)?;
        Some((meeting, fact(site, &leg, pb::LegState::Left)))
    }

    fn obey(&mut self, stage: &pb::StageDocument) -> Vec<News> {
        let goes = |site: &str| stage.ended || stage.expelled_sites.iter().any(|out| out == site);
        let gone: Vec<&str> = self
            .legs
            .iter()
            .filter(|(site, (meeting, ..))| *meeting == stage.meeting && goes(site))
            .map(|(site, _)| *site)
            .collect();
        gone.into_iter().filter_map(|site| self.drop_leg(site)).collect()
    }

    fn follow(&mut self, media: Media) -> Vec<News> {
        let mut news = Vec::new();
        match media {
            Media::Join {
                meeting,
                site,
                picture,
            } => {
                if self.legs.get(site).is_some_and(|(other, ..)| *other != meeting) {
                    news.extend(self.drop_leg(site));
                }
                self.joined += 1;
                let leg = format!("leg-{}", self.joined);
                self.legs.insert(site, (meeting.clone(), leg.clone(), false));
                self.pictures
                    .insert((Instant::now() + picture, self.joined), site);
                news.push((meeting, fact(site, &leg, pb::LegState::Joining)));
            }
            Media::Leave { meeting, site } => {
                if self.legs.get(site).is_some_and(|(of, ..)| *of == meeting) {
                    news.extend(self.drop_leg(site));
                }
            }
        }
        news
    }

    fn show(&mut self) -> Vec<News> {
        let Some(((_, joined), site)) = self.pictures.pop_first() else {
            return Vec::new();
        };
        let name = format!("leg-{joined}");
        let Some((meeting, leg, shows)) = self.legs.get_mut(site).filter(|(_, leg, _)| *leg == name) else {
            return Vec::new();
        };
        *shows = true;
        vec![(meeting.clone(), fact(site, leg, pb::LegState::OnAir))]
    }
}

/// What an endpoint has still to do about its call.
enum Step {
    Report(pb::SummonsState),
    Join,
}

/// Whether an endpoint does what is asked of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// It keeps its stream and answers each call.
    Willing,
    /// Some calls ring on or are declined, and some streams break.
    Moody,
}

struct Endpoint {
    world: Arc<World>,
    dice: Dice,
    site: &'static str,
    temper: Temper,
    relay: RelayHandle,
    /// Meetings that this stream told of, but for those that it was called out of.
    told: BTreeSet<String>,
    /// The call that goes on, and what is left to do, each with its time.
    call: Option<String>,
    steps: VecDeque<(Instant, Step)>,
}

/// The endpoint of a site, until all is over.
pub async fn endpoint(
    world: Arc<World>,
    dice: Dice,
    site: &'static str,
    temper: Temper,
    mut slot: usize,
    relay: RelayHandle,
) {
    let over = world.over.clone();
    let mut endpoint = Endpoint {
        world,
        dice,
        site,
        temper,
        relay,
        told: BTreeSet::new(),
        call: None,
        steps: VecDeque::new(),
    };
    tokio::time::sleep(endpoint.dice.ms(0, 1500)).await;
    while !over.is_cancelled() {
        if let Some((at, replica)) = endpoint.world.near(slot) {
            slot = at;
            endpoint.attach(&replica, &over).await;
            endpoint.told.clear();
            slot += 1;
        }
        tokio::time::sleep(endpoint.dice.ms(100, 2500)).await;
    }
}

impl Endpoint {
    fn moody(&mut self, of_a_hundred: usize) -> bool {
        self.dice.percent(of_a_hundred) && self.temper == Temper::Moody
    }

    /// One stream, from its beginning to its end.
    async fn attach(&mut self, replica: &Replica, over: &CancellationToken) {
        let calls = EndpointCalls(replica.core.clone());
        let message = pb::AttachRequest {
            endpoint: "browser".to_owned(),
            ..Default::default()
        };
        let mut stream = match ask(replica, calls.attach(with_secret(self.site, message))).await {
            Said::Done(stream) => stream,
            Said::Refused(status) => panic!("an endpoint is refused: {status}"),
            Said::Unknown => return,
        };
        // Some lose their way to a replica that is well.
        let breaks = if self.moody(30) && !self.world.calm.is_cancelled() {
            self.dice.ms(1000, 15_000)
        } else {
            Duration::from_secs(3600)
        };
        let breaks = Instant::now() + breaks;
        loop {
            let due = self.steps.front().map(|(at, _)| *at);
            let at = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                biased;
                () = replica.killed.cancelled() => return,
                () = over.cancelled() => return,
                message = stream.next() => match message {
                    Some(Ok(message)) => self.hear(message.event.expect("an event")).await,
                    _ => return,
                },
                () = tokio::time::sleep_until(breaks) => return,
                () = tokio::time::sleep_until(at), if due.is_some() => self.step(replica).await,
            }
        }
    }

    async fn hear(&mut self, event: Event) {
        match event {
            Event::Summons(call) => {
                self.check_page(&call.meeting).await;
                self.told.insert(call.meeting.clone());
                self.plan(call.meeting);
            }
            Event::Withdrawn(withdrawn) => {
                self.told.remove(&withdrawn.meeting);
                if self.call.as_ref() == Some(&withdrawn.meeting) {
                    self.call = None;
                    self.steps.clear();
                }
                self.leave(withdrawn.meeting).await;
            }
            _ => {}
        }
    }

    /// No page may come while the site belongs to another meeting that this endpoint was told of.
    async fn check_page(&self, meeting: &str) {
        let claims = self.world.reader.claims().await.expect("readable");
        let holder = claims.iter().find(|claim| claim.site == self.site);
        if let Some(holder) = holder
            && holder.meeting != meeting
        {
            assert!(
                !self.told.contains(&holder.meeting),
                "{} is paged into {meeting} and belongs to {}",
                self.site,
                holder.meeting
            );
        }
    }

    /// What will be done about a call.
    fn plan(&mut self, meeting: String) {
        use pb::SummonsState::{Answered, Declined, Delivered, Ringing};
        let mut at = Instant::now();
        self.steps.clear();
        self.steps.push_back((at, Step::Report(Delivered)));
        self.call = Some(meeting);
        if self.moody(10) {
            return;
        }
        if self.dice.percent(50) {
            at += self.dice.ms(0, 300);
            self.steps.push_back((at, Step::Report(Ringing)));
        }
        at += self.dice.ms(0, 2000);
        if self.moody(10) {
            self.steps.push_back((at, Step::Report(Declined)));
            return;
        }
        self.steps.push_back((at, Step::Report(Answered)));
        self.steps.push_back((at + self.dice.ms(0, 300), Step::Join));
    }

    async fn step(&mut self, replica: &Replica) {
        let (Some(meeting), Some((_, step))) = (self.call.clone(), self.steps.pop_front()) else {
            return;
        };
        let calls = EndpointCalls(replica.core.clone());
        match step {
            Step::Report(state) => {
                let message = pb::ReportSummonsRequest {
                    meeting: meeting.clone(),
                    state: state.into(),
                    ..Default::default()
                };
                let said = ask(replica, calls.report_summons(with_secret(self.site, message))).await;
                if matches!(said, Said::Done(_)) && state == pb::SummonsState::Answered {
                    check::answered(&self.world, &meeting, self.site).await;
                }
                if state == pb::SummonsState::Declined {
                    self.leave(meeting).await;
                }
                self.went(said, Step::Report(state));
            }
            Step::Join => {
                let message = pb::GetTicketRequest {
                    meeting: meeting.clone(),
                    ..Default::default()
                };
                let said = ask(replica, calls.get_ticket(with_secret(self.site, message))).await;
                if matches!(said, Said::Done(_)) {
                    self.join(meeting).await;
                }
                self.went(said, Step::Join);
            }
        }
    }

    /// What was left open is tried again; what is refused is over.
    fn went<T>(&mut self, said: Said<T>, step: Step) {
        match said {
            Said::Done(_) => {}
            Said::Unknown => {
                let again = Instant::now() + Duration::from_millis(300);
                self.steps.push_front((again, step));
            }
            Said::Refused(status) => {
                assert_ne!(status.code(), Code::Internal, "{status}");
                self.call = None;
                self.steps.clear();
            }
        }
    }

    async fn join(&mut self, meeting: String) {
        let picture = self.dice.ms(20, 600);
        let join = Media::Join {
            meeting,
            site: self.site,
            picture,
        };
        let _ = self.relay.0.send(join).await;
    }

    async fn leave(&mut self, meeting: String) {
        let leave = Media::Leave {
            meeting,
            site: self.site,
        };
        let _ = self.relay.0.send(leave).await;
    }
}

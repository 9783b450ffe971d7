//! People at desks: dispatchers who convene and go on asking until they know, and watchers who move when their replica
//! is gone and hold what they were told against the log.

use super::dice::Dice;
use super::world::{Acknowledged, Replica, SITES, Said, World, ask, lock, with_secret};
use crate::services::meeting::MeetingCalls;
use crate::services::watch::Watches;
use futures_util::StreamExt as _;
use muster_proto::command::v1 as pb;
use pb::act_request::Verb;
use pb::meeting_service_server::MeetingService as _;
use pb::watch_response::Event;
use pb::watch_service_server::WatchService as _;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A watcher is resumed this soon after its replica was killed.
const RESUMED: Duration = Duration::from_secs(2);

/// A dispatcher: a few convenings, and what comes after each.
pub async fn dispatch(world: Arc<World>, dice: Dice, name: &'static str, slot: usize) {
    rounds(&world, dice, name, slot).await;
    *lock(&world.busy) -= 1;
}

async fn rounds(world: &World, mut dice: Dice, name: &'static str, mut slot: usize) {
    let rounds = 2 + dice.below(3);
    for round in 0..rounds {
        tokio::time::sleep(dice.ms(0, 5000)).await;
        if dice.percent(30) {
            slot = dice.below(3);
        }
        if world.calm.is_cancelled() {
            return;
        }
        let key = format!("{name}-{round}");
        let Some(meeting) = convene(world, &mut dice, name, &mut slot, &key).await else {
            continue;
        };
        let ends = dice.percent(60);
        for _ in 0..dice.below(3) {
            tokio::time::sleep(dice.ms(0, 2500)).await;
            if world.calm.is_cancelled() {
                return;
            }
            act(world, &mut dice, name, slot, &meeting).await;
        }
        if ends {
            tokio::time::sleep(dice.ms(0, 2500)).await;
            end(world, name, slot, &meeting).await;
        }
    }
}

/// Convenes under a key until there is an answer; the meeting, if it was not refused.
async fn convene(world: &World, dice: &mut Dice, name: &str, slot: &mut usize, key: &str) -> Option<String> {
    let sites = dice.some(&SITES);
    let message = pb::ConveneRequest {
        selector: Some(pb::Selector {
            sites: sites.iter().map(|&site| site.to_owned()).collect(),
            ..Default::default()
        }),
        title: key.to_owned(),
        idempotency_key: key.to_owned(),
        priority: 1 + i32::try_from(dice.below(3)).unwrap_or_default(),
        deadline_s: if dice.percent(20) { 8 } else { 0 },
        ..Default::default()
    };
    loop {
        let Some((at, replica)) = world.near(*slot) else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        *slot = at;
        *lock(&world.convening_at) = at;
        world.convening.notify_one();
        let calls = MeetingCalls(replica.core.clone());
        match ask(&replica, calls.convene(with_secret(name, message.clone()))).await {
            Said::Done(answer) => {
                let meeting = answer.meeting.expect("a meeting").id;
                world.acknowledge(Acknowledged::Convened {
                    chair: name.to_owned(),
                    key: key.to_owned(),
                    meeting: meeting.clone(),
                });
                return Some(meeting);
            }
            Said::Refused(status) => panic!("convening is refused: {status}"),
            Said::Unknown => {
                tokio::time::sleep(dice.ms(50, 800)).await;
                *slot += 1;
            }
        }
    }
}

/// Something that a dispatcher does in a meeting, once, whatever the answer.
async fn act(world: &World, dice: &mut Dice, name: &str, slot: usize, meeting: &str) {
    let Some((_, replica)) = world.near(slot + dice.below(2)) else {
        return;
    };
    let calls = MeetingCalls(replica.core.clone());
    let some: Vec<String> = dice.some(&SITES).into_iter().map(str::to_owned).collect();
    let verb = match dice.below(3) {
        0 => {
            let message = pb::CallUnconnectedRequest {
                meeting: meeting.to_owned(),
                sites: Vec::new(),
            };
            ask(&replica, calls.call_unconnected(with_secret(name, message))).await;
            return;
        }
        1 => Verb::HangUp(pb::HangUp { sites: some }),
        _ => Verb::AddSites(pb::AddSites {
            selector: Some(pb::Selector {
                sites: some,
                ..Default::default()
            }),
        }),
    };
    let message = pb::ActRequest {
        meeting: meeting.to_owned(),
        verb: Some(verb),
    };
    ask(&replica, calls.act(with_secret(name, message))).await;
}

async fn end(world: &World, name: &str, mut slot: usize, meeting: &str) {
    loop {
        let Some((_, replica)) = world.near(slot) else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let message = pb::EndMeetingRequest {
            meeting: meeting.to_owned(),
        };
        let calls = MeetingCalls(replica.core.clone());
        match ask(&replica, calls.end_meeting(with_secret(name, message))).await {
            // Refused: a try before that has ended it.
            Said::Done(_) | Said::Refused(_) => {
                world.acknowledge(Acknowledged::Ended {
                    meeting: meeting.to_owned(),
                });
                return;
            }
            Said::Unknown => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                slot += 1;
            }
        }
    }
}

/// What a watcher has been told.
#[derive(Default)]
struct Tab {
    cursor: BTreeMap<String, u64>,
    /// Up to which beginning of a meeting all was told.
    position: Option<u64>,
    told: BTreeMap<String, Vec<pb::MeetingEvent>>,
    /// Its replica was killed then, and it has not been resumed since.
    lost: Option<Instant>,
}

impl Tab {
    fn take(&mut self, world: &World, event: Event) {
        match event {
            Event::Snapshot(snapshot) => {
                self.resumed(world);
                assert_eq!(
                    snapshot.resumed,
                    self.position.is_some(),
                    "a cursor is known at every replica: {:?}",
                    self.cursor
                );
                for meeting in snapshot.meetings {
                    self.cursor.insert(meeting.id, meeting.seq);
                }
            }
            Event::MeetingEvent(event) => {
                let last = self.cursor.entry(event.meeting.clone()).or_default();
                assert_eq!(
                    event.seq,
                    *last + 1,
                    "of {}: each event once, in order",
                    event.meeting
                );
                *last = event.seq;
                self.told.entry(event.meeting.clone()).or_default().push(event);
            }
            _ => {}
        }
    }

    /// Without a store nobody can be resumed: the time counts from when it is there.
    fn resumed(&mut self, world: &World) {
        let (Some(lost), Some(there)) = (self.lost.take(), world.store_there_since()) else {
            return;
        };
        let took = lost.max(there).elapsed();
        assert!(took <= RESUMED, "a watcher is resumed after {took:?}");
        *lock(&world.resumed) += 1;
        let mut longest = lock(&world.longest);
        *longest = took.max(*longest);
    }

    /// Holds all that was told against what is stored.
    async fn check(&self, world: &World) {
        for (stream, head) in world.heads().await {
            if stream.starts_with("unit:") {
                continue;
            }
            let known = self.cursor.get(&stream).copied().unwrap_or_default();
            assert_eq!(known, head.seq, "a watcher was told all of {}", stream);
            let stored = world.reader.events_after(&stream, 0).await.expect("readable");
            for event in self.told.get(&stream).into_iter().flatten() {
                let at = usize::try_from(event.seq - 1).expect("small");
                assert_eq!(stored[at].payload, event.encode_to_vec(), "of {}", stream);
            }
        }
    }
}

/// A watcher, until all is over.
pub async fn watch(world: Arc<World>, name: &'static str, mut slot: usize) {
    let mut tab = Tab::default();
    while !world.rest.is_cancelled() {
        if let Some((at, replica)) = world.near(slot) {
            slot = at;
            look(&world, &mut tab, name, &replica).await;
            if replica.killed.is_cancelled() {
                tab.lost = tab.lost.or(Some(Instant::now()));
            }
            slot += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tab.check(&world).await;
}

/// Watches at one replica until that ends.
async fn look(world: &World, tab: &mut Tab, name: &str, replica: &Replica) {
    let position = |(stream, seq): (&String, &u64)| pb::Position {
        stream: stream.clone(),
        seq: *seq,
    };
    let message = pb::WatchRequest {
        cursor: tab.cursor.iter().map(position).collect(),
        position: tab.position,
        ..Default::default()
    };
    let watches = Watches(replica.core.clone());
    let mut stream = match ask(replica, watches.watch(with_secret(name, message))).await {
        Said::Done(stream) => stream,
        Said::Refused(status) => panic!("a watcher is refused: {status}"),
        Said::Unknown => return,
    };
    loop {
        tokio::select! {
            biased;
            () = replica.killed.cancelled() => return,
            message = stream.next() => match message {
                Some(Ok(message)) => {
                    tab.take(world, message.event.expect("an event"));
                    tab.position = Some(message.position);
                }
                _ => return,
            },
            () = world.rest.cancelled() => return,
        }
    }
}

//! A watcher in virtual time, at an engine whose store goes away or is slow.

use crate::clock::Clock;
use crate::engine::{Engine, Ground};
use crate::services::Answers;
use crate::services::meeting::MeetingCalls;
use crate::services::watch::Watches;
use crate::simulation::{fill, with_secret};
use crate::store::{Faults, Memory, Store};
use futures_util::StreamExt as _;
use muster_identity::{Authority, sha256_text};
use muster_proto::command::v1 as pb;
use pb::meeting_service_server::MeetingService as _;
use pb::watch_response::Event;
use pb::watch_service_server::WatchService as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

const NAME: &str = "anna";
/// The longest time between two messages: they beat every second.
const SILENCE: Duration = Duration::from_millis(1100);

/// Two replicas on one database, each by a connection of its own; they hear nothing of each other but by it.
struct Pair {
    reader: Store,
    memories: [Arc<Memory>; 2],
    engines: Vec<Engine>,
}

impl Pair {
    async fn start() -> Self {
        let memory = Memory::new();
        let reader = Store::memory(memory.clone());
        fill(&reader).await;
        let memories = [memory.connect(), memory.connect()];
        let mut engines = Vec::new();
        let epoch = Instant::now();
        for (n, memory) in memories.iter().enumerate() {
            let ground = Ground {
                store: Store::memory(memory.clone()),
                network: None,
                authority: Authority::in_memory().expect("an authority"),
                clock: Clock::Virtual { epoch },
                replica: format!("r-{n}"),
                lot: Arc::new(move || u32::try_from(n).unwrap_or_default()),
            };
            engines.push(Engine::start(ground).await.expect("started"));
        }
        Self {
            reader,
            memories,
            engines,
        }
    }

    /// What is wrong with the first one's store.
    fn set(&self, faults: Faults) {
        self.memories[0].set_faults(faults);
    }

    /// Watches at the first.
    async fn watch(&self, cursor: Vec<pb::Position>, position: Option<u64>) -> Tab {
        let message = pb::WatchRequest {
            cursor,
            position,
            ..Default::default()
        };
        let watches = Watches(self.engines[0].core.clone());
        let stream = watches.watch(with_secret(NAME, message)).await.expect("watching");
        Tab {
            stream: stream.into_inner(),
            told: Vec::new(),
            position: 0,
        }
    }

    /// Convenes at the second.
    async fn convene(&self) -> pb::Meeting {
        let message = pb::ConveneRequest {
            selector: Some(pb::Selector {
                sites: vec!["S1".into()],
                ..Default::default()
            }),
            title: "Flood".into(),
            ..Default::default()
        };
        let calls = MeetingCalls(self.engines[1].core.clone());
        let answer = calls.convene(with_secret(NAME, message)).await;
        answer.expect("convened").into_inner().meeting.expect("a meeting")
    }
}

struct Tab {
    stream: Answers<pb::WatchResponse>,
    /// Numbers of the events of meetings.
    told: Vec<(String, u64)>,
    position: u64,
}

impl Tab {
    /// The next message, which comes in time.
    async fn next(&mut self) -> Result<Event, Status> {
        let message = tokio::time::timeout(SILENCE, self.stream.next()).await;
        let message = message.expect("heartbeats go on").expect("it has not ended")?;
        assert!(message.position >= self.position, "the position never goes back");
        self.position = message.position;
        let event = message.event.expect("an event");
        if let Event::MeetingEvent(event) = &event {
            self.told.push((event.meeting.clone(), event.seq));
        }
        Ok(event)
    }

    async fn beats(&mut self, count: usize) {
        let mut beats = 0;
        while beats < count {
            let event = self.next().await.expect("the stream goes on");
            beats += usize::from(matches!(event, Event::Heartbeat(_)));
        }
    }

    /// How long it takes until it is told whether the store answers.
    async fn until_store_is(&mut self, ok: bool) -> Duration {
        let began = Instant::now();
        loop {
            match self.next().await.expect("the stream goes on") {
                Event::Service(state) if state.store_ok == ok => return began.elapsed(),
                _ => assert!(began.elapsed() < Duration::from_secs(60), "it is told"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_ends_no_watch_and_what_it_did_not_say_is_told_when_it_is_back() {
    let pair = Pair::start().await;
    let mut tab = pair.watch(Vec::new(), None).await;
    tab.beats(2).await;
    pair.set(Faults {
        away: true,
        ..Faults::default()
    });
    let meeting = pair.convene().await;
    assert!(tab.until_store_is(false).await <= Duration::from_secs(2));
    tab.beats(12).await;
    assert_eq!(tab.told, [], "it cannot be known yet");
    pair.set(Faults::default());
    assert!(tab.until_store_is(true).await <= Duration::from_secs(2));
    tab.beats(2).await;
    let whole: Vec<_> = (1..=meeting.seq).map(|seq| (meeting.id.clone(), seq)).collect();
    assert_eq!(tab.told, whole, "all, once, in order");
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_holds_up_no_heartbeat_and_a_session_that_is_over_ends_the_watch() {
    let pair = Pair::start().await;
    let mut tab = pair.watch(Vec::new(), None).await;
    tab.beats(1).await;
    pair.set(Faults {
        latency: Duration::from_secs(1),
        ..Faults::default()
    });
    let meeting = pair.convene().await;
    tab.beats(60).await;
    assert_eq!(tab.told.last(), Some(&(meeting.id, meeting.seq)));
    pair.reader
        .remove_session(&sha256_text(NAME.as_bytes()))
        .await
        .expect("signed out");
    let began = Instant::now();
    let end = loop {
        assert!(began.elapsed() < Duration::from_secs(60), "it ends");
        if let Err(status) = tab.next().await {
            break status;
        }
    };
    assert_eq!(end.code(), Code::Unauthenticated, "{end}");
}

#[tokio::test(start_paused = true)]
async fn who_comes_as_the_store_goes_away_gets_the_snapshot_when_it_is_back() {
    let pair = Pair::start().await;
    let before = pair.convene().await;
    let mut first = pair.watch(Vec::new(), None).await;
    first.beats(7).await;
    let cursor = vec![pb::Position {
        stream: before.id.clone(),
        seq: 1,
    }];
    for (cursor, position) in [(Vec::new(), None), (cursor, Some(first.position))] {
        let resumes = position.is_some();
        let mut tab = pair.watch(cursor, position).await;
        // It has read nothing yet.
        pair.set(Faults {
            away: true,
            ..Faults::default()
        });
        let quiet = tokio::time::timeout(Duration::from_secs(9), tab.stream.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        pair.set(Faults::default());
        tokio::time::sleep(Duration::from_secs(2)).await;
        match tab.next().await.expect("the stream goes on") {
            Event::Snapshot(snapshot) => {
                assert_eq!(snapshot.resumed, resumes);
                assert_eq!(snapshot.meetings.len(), usize::from(!resumes));
            }
            other => panic!("expected a snapshot, found {other:?}"),
        }
        tab.beats(2).await;
        // What is in a fresh snapshot is not told again.
        let first = if resumes { 2 } else { before.seq + 1 };
        let expected: Vec<_> = (first..=before.seq).map(|seq| (before.id.clone(), seq)).collect();
        assert_eq!(tab.told, expected);
    }
}

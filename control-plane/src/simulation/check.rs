//! What must hold when all has come to rest, and what the log says of every moment before.

use super::world::{Acknowledged, World, lock};
use crate::convert;
use crate::store::{ChainHead, StoredEvent, chain_hash};
use muster_domain::{Event, Meeting, MeetingId, Summons, SummonsState, Timeouts};
use muster_proto::command::v1 as pb;
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What came of a run, or of several: the same for the same seed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Digest {
    meetings: usize,
    events: usize,
    kills: u32,
    /// Sites that a meeting took from another.
    taken: usize,
    on_air: usize,
    resumed: u32,
    longest_resume: Duration,
    heads: Vec<(String, [u8; 32])>,
}

impl Digest {
    pub fn add(&mut self, other: &Self) {
        self.meetings += other.meetings;
        self.events += other.events;
        self.kills += other.kills;
        self.taken += other.taken;
        self.on_air += other.on_air;
        self.resumed += other.resumed;
        self.longest_resume = self.longest_resume.max(other.longest_resume);
    }

    /// That what is tested for has happened at all.
    pub fn assert_worth_it(&self, runs: u64) {
        let runs = usize::try_from(runs).expect("few");
        assert!(self.meetings > 2 * runs, "meetings were convened");
        assert!(self.on_air > runs, "sites came on air");
        assert!(self.taken > runs / 2, "sites were taken by others");
        assert!(self.kills as usize > runs / 2, "replicas were killed");
        assert!(self.resumed as usize > runs / 2, "watchers were resumed");
    }
}

/// The events of a stream, its chain checked.
fn read(stream: &str, stored: &[StoredEvent]) -> Vec<Event> {
    let mut head = ChainHead::default();
    let mut events = Vec::new();
    for one in stored {
        assert_eq!(
            one.seq,
            head.seq + 1,
            "{stream}: no number is left out or given twice"
        );
        let hash = chain_hash(&head.hash, &one.payload);
        assert_eq!(one.hash, hash, "{stream}: event {} fits the chain", one.seq);
        head = ChainHead { seq: one.seq, hash };
        let wire = pb::MeetingEvent::decode(one.payload.as_slice()).expect("an event");
        assert_eq!((wire.meeting.as_str(), wire.seq), (stream, one.seq));
        events.push(convert::event_from_wire(wire).expect("an event"));
    }
    events
}

fn new_meeting(id: &str) -> Meeting {
    Meeting::new(MeetingId::new(id).expect("an id"), Timeouts::default())
}

/// All meetings, ended ones too, as their stored events leave them.
async fn replayed(world: &World) -> BTreeMap<String, Meeting> {
    let mut all = BTreeMap::new();
    for (stream, _) in world.heads().await {
        if stream.starts_with("unit:") {
            continue;
        }
        let stored = world.reader.events_after(&stream, 0).await.expect("readable");
        let mut meeting = new_meeting(&stream);
        for event in read(&stream, &stored) {
            meeting.apply(&event);
        }
        all.insert(stream, meeting);
    }
    all
}

/// What is not at rest yet: summonses under way, and replicas that do not know all that is stored.
async fn unrest(world: &World) -> Vec<String> {
    let meetings = replayed(world).await;
    let live: Vec<&Meeting> = meetings.values().filter(|meeting| meeting.is_live()).collect();
    let mut unrest = Vec::new();
    let busy = *lock(&world.busy);
    if busy > 0 {
        unrest.push(format!("{busy} dispatchers have no answer"));
    }
    for meeting in &live {
        let pending = meeting.summonses().iter().filter(|s| s.state.is_pending());
        unrest.extend(pending.map(|s| format!("{}: {} is {}", meeting.id(), s.site, s.state)));
    }
    for replica in world.living() {
        let name = replica.core.replicas.service().replica;
        let views = replica.core.meetings.views();
        if views.len() != live.len() {
            unrest.push(format!("{name} knows {} meetings of {}", views.len(), live.len()));
        }
        for view in views {
            if meetings.get(view.id().as_str()) != Some(&*view) {
                unrest.push(format!("{name} knows {} to event {}", view.id(), view.seq()));
            }
        }
    }
    unrest
}

/// Prints what was committed, in its order; for whoever looks at one seed.
pub async fn print_log(world: &World) {
    if std::env::var("MUSTER_SIM_SEED").is_err() {
        return;
    }
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for (stream, seq) in world.memory.appended() {
        let from = told.insert(stream.clone(), seq).unwrap_or_default();
        let stored = world.reader.events_after(&stream, from).await.expect("readable");
        for one in stored.iter().filter(|one| one.seq <= seq) {
            let wire = pb::MeetingEvent::decode(one.payload.as_slice()).expect("an event");
            let (at, by, cause) = (wire.at_ms % 1_000_000, wire.actor.clone(), wire.cause.clone());
            let event = match convert::event_from_wire(wire).expect("an event") {
                Event::SummonsChanged { summons: s } => {
                    let other = s.other.as_ref().map(|other| &other.meeting);
                    format!(
                        "{} {} {:?} {other:?} {} pages {}",
                        s.site, s.state, s.reason, s.answered_by, s.pages
                    )
                }
                Event::Convened { title, terms, .. } => format!("convened {title} {:?}", terms.priority),
                other => format!("{other:?}").chars().take(60).collect(),
            };
            println!("{at} {stream} {seq} {by} {cause}: {event}", seq = one.seq);
        }
    }
}

/// Waits until nothing moves any more.
pub async fn until_at_rest(world: &World, most: Duration) {
    let began = Instant::now();
    let mut quiet = 0;
    while quiet < 4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let unrest = unrest(world).await;
        quiet = if unrest.is_empty() { quiet + 1 } else { 0 };
        if began.elapsed() > most {
            print_log(world).await;
            panic!("not at rest: {unrest:?}");
        }
    }
}

/// Everything that must hold at the end.
pub async fn all(world: &World) -> Digest {
    let unrest = unrest(world).await;
    assert!(unrest.is_empty(), "{unrest:?}");
    let meetings = replayed(world).await;
    acknowledged(world, &meetings).await;
    claims(world, &meetings).await;
    let taken = every_moment(world).await;
    let on_air = media(world, &meetings);
    let mut digest = Digest {
        meetings: meetings.len(),
        kills: *lock(&world.kills),
        taken,
        on_air,
        resumed: *lock(&world.resumed),
        longest_resume: *lock(&world.longest),
        ..Digest::default()
    };
    for (stream, head) in world.heads().await {
        digest.events += usize::try_from(head.seq).expect("few");
        digest.heads.push((stream, head.hash));
    }
    digest
}

/// What somebody was told is done is in the log, and a key is one meeting.
async fn acknowledged(world: &World, meetings: &BTreeMap<String, Meeting>) {
    let all = std::mem::take(&mut *lock(&world.acknowledged));
    for one in &all {
        match one {
            Acknowledged::Convened { chair, key, meeting } => {
                assert!(meetings.contains_key(meeting), "{one:?} is stored");
                let by_key = world.reader.meeting_by_key(chair, key).await.expect("readable");
                assert_eq!(by_key.as_ref(), Some(meeting), "{one:?}");
                let same = meetings.values().filter(|m| m.title() == key).count();
                assert_eq!(same, 1, "{one:?} is one meeting");
            }
            Acknowledged::Ended { meeting } => assert!(!meetings[meeting].is_live(), "{one:?}"),
        }
    }
}

/// An answer was acknowledged: it is in the log, unless the site is out of the meeting and answering means nothing.
pub async fn answered(world: &World, meeting: &str, site: &str) {
    let stored = world.reader.events_after(meeting, 0).await.expect("readable");
    let counts = |summons: &Summons| {
        let has_answered = matches!(
            summons.state,
            SummonsState::Answered | SummonsState::Joining | SummonsState::OnAir
        );
        has_answered || !summons.holds_claim() || summons.is_out()
    };
    let stands = |event: &Event| matches!(event, Event::SummonsChanged { summons } if summons.site.as_str() == site && counts(summons));
    let ended = |event: &Event| matches!(event, Event::Ended { .. });
    let events = read(meeting, &stored);
    assert!(
        events.iter().any(|event| stands(event) || ended(event)),
        "the answer of {site} in {meeting} is stored"
    );
}

/// The claims that are stored are those of the live meetings, and no site has two.
async fn claims(world: &World, meetings: &BTreeMap<String, Meeting>) {
    let mut held = BTreeMap::new();
    for meeting in meetings.values().filter(|meeting| meeting.is_live()) {
        for summons in meeting.summonses().iter().filter(|summons| summons.holds_claim()) {
            let before = held.insert(summons.site.to_string(), meeting.id().to_string());
            assert_eq!(before, None, "{} is in {} too", summons.site, meeting.id());
        }
    }
    let stored = world.reader.claims().await.expect("readable");
    let stored: BTreeMap<_, _> = stored
        .into_iter()
        .map(|claim| (claim.site, claim.meeting))
        .collect();
    assert_eq!(stored, held, "the claims are those of the live meetings");
}

/// After each commit: of the meetings that hold a site, each has another priority. One that loses a site to a higher
/// one says so in a commit of its own. Returns how often a site was taken.
async fn every_moment(world: &World) -> usize {
    let mut meetings: BTreeMap<String, (Meeting, Vec<Event>)> = BTreeMap::new();
    let mut taken = 0;
    for (stream, seq) in world.memory.appended() {
        if !meetings.contains_key(&stream) {
            let stored = world.reader.events_after(&stream, 0).await.expect("readable");
            let events = read(&stream, &stored);
            meetings.insert(stream.clone(), (new_meeting(&stream), events));
        }
        let Some((meeting, events)) = meetings.get_mut(&stream) else {
            continue;
        };
        let from = usize::try_from(meeting.seq()).expect("few");
        let to = usize::try_from(seq).expect("few");
        let step: Vec<Event> = events[from..to].to_vec();
        for event in &step {
            meeting.apply(event);
        }
        for event in &step {
            let Event::SummonsChanged { summons } = event else {
                continue;
            };
            taken += usize::from(summons.is_elsewhere() && summons.pages > 0);
            let mut holders = BTreeMap::new();
            for (other, _) in meetings.values().filter(|(m, _)| m.is_live()) {
                if other.summons(&summons.site).is_some_and(Summons::holds_claim) {
                    let before = holders.insert(other.terms().priority, other.id().clone());
                    assert_eq!(
                        before,
                        None,
                        "after event {seq} of {stream} {} is in {} too",
                        summons.site,
                        other.id()
                    );
                }
            }
        }
    }
    taken
}

/// Who shows a picture is on air, and who is on air is at the relay: with a picture, but for an endpoint that was called
/// anew and has just joined anew. Returns how many are on air.
fn media(world: &World, meetings: &BTreeMap<String, Meeting>) -> usize {
    let mut on_air = BTreeMap::new();
    for meeting in meetings.values().filter(|meeting| meeting.is_live()) {
        for summons in meeting
            .summonses()
            .iter()
            .filter(|s| s.state == SummonsState::OnAir)
        {
            on_air.insert(summons.site.to_string(), meeting.id().to_string());
        }
    }
    let legs = lock(&world.legs);
    for (site, (meeting, _)) in legs.iter().filter(|(_, (_, shows))| *shows) {
        assert_eq!(
            on_air.get(*site),
            Some(meeting),
            "{site} shows a picture and is on air"
        );
    }
    for (site, meeting) in &on_air {
        let leg = legs.get(site.as_str()).map(|(at, _)| at);
        assert_eq!(leg, Some(meeting), "{site} is on air and at the relay");
    }
    on_air.len()
}

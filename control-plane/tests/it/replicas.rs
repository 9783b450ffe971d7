//! Three processes of the control plane on one PostgreSQL and one NATS, and those who speak to them: endpoints, a relay
//! and watchers that go to another replica by themselves, as agents, relays and browsers do.

use crate::servers::{Nats, Postgres};
use crate::support::{ACCOUNT, Endpoint, FakeRelay, PASSWORD, Person, SMALL, leg};
use muster_identity::{Credentials, enrol};
use muster_proto::command::v1 as pb;
use pb::attach_response::Event as Pushed;
use pb::watch_response::Event as Watched;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Channel;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// One process.
pub struct Replica {
    child: Child,
    /// Addresses of the console's port and of that for agents and relays.
    pub addr: String,
    pub agents_addr: String,
}

impl Replica {
    fn start(dir: &Path, database: &str, bus: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_muster-control-plane"))
            .args([
                "--plain",
                "--listen",
                "127.0.0.1:0",
                "--agents-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(dir)
            .args(["--bootstrap-account", ACCOUNT, "--bootstrap-unit", "D"])
            .env("MUSTER_BOOTSTRAP_PASSWORD", PASSWORD)
            .env("DATABASE_URL", database)
            .env("NATS_URL", bus)
            .env(
                "MUSTER_LOG",
                std::env::var("MUSTER_LOG").unwrap_or_else(|_| "warn".into()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the control plane runs");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let mut next = |before: &str| {
            let line = lines.next().expect("it says its address").expect("text");
            line.strip_prefix(before).expect("an address").to_owned()
        };
        let addr = next("console and API: ");
        let agents_addr = next("agents and relays: ");
        Self {
            child,
            addr,
            agents_addr,
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the replicas are at this moment.
pub type Addresses = Arc<Mutex<Vec<Option<(String, String)>>>>;

/// Three replicas with their database and bus.
pub struct Cluster {
    pub postgres: Postgres,
    pub nats: Nats,
    database: String,
    dir: TempDir,
    replicas: Vec<Option<Replica>>,
    pub addresses: Addresses,
}

impl Cluster {
    /// Started, with the small tree known to all.
    pub async fn start() -> Self {
        let postgres = Postgres::start();
        let database = postgres.database();
        let mut cluster = Self {
            postgres,
            nats: Nats::start(),
            database,
            dir: tempfile::tempdir().expect("folder"),
            replicas: vec![None, None, None],
            addresses: Arc::new(Mutex::new(vec![None, None, None])),
        };
        cluster.resume(0);
        // All replicas are of one authority.
        for n in 1..3 {
            copy(
                &cluster.dir.path().join("0/ca"),
                &cluster.dir.path().join(format!("{n}/ca")),
            );
            cluster.resume(n);
        }
        let person = cluster.person(0).await;
        person.import(SMALL.as_bytes()).await.expect("imported");
        for n in 1..3 {
            let person = cluster.person(n).await;
            let began = Instant::now();
            while sites(&person).await != 5 {
                assert!(began.elapsed() < PATIENCE, "replica {n} does not know the tree");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            println!(
                "replica {n} knows the tree of another after {:?}",
                began.elapsed()
            );
        }
        cluster
    }

    /// Starts a replica that is not there.
    pub fn resume(&mut self, n: usize) {
        let dir = self.dir.path().join(n.to_string());
        let replica = Replica::start(&dir, &self.database, &self.nats.url());
        let address = (replica.addr.clone(), replica.agents_addr.clone());
        self.addresses.lock().expect("lock")[n] = Some(address);
        self.replicas[n] = Some(replica);
    }

    /// Kills a replica: it gets no chance to say anything.
    pub fn kill(&mut self, n: usize) {
        self.addresses.lock().expect("lock")[n] = None;
        self.replicas[n].take().expect("it runs").kill();
    }

    pub async fn channel(&self, n: usize) -> Channel {
        let addr = self.replicas[n].as_ref().expect("it runs").addr.clone();
        dial(&addr).await.expect("connected")
    }

    pub async fn person(&self, n: usize) -> Person {
        Person::sign_in(self.channel(n).await, ACCOUNT).await
    }

    pub async fn enrol_relay(&self) -> Credentials {
        let target = pb::create_enrol_token_request::Target::RelayUnit("D".into());
        let token = self.person(0).await.enrol_token(target).await;
        let authority = self.replicas[0].as_ref().expect("it runs").agents_addr.clone();
        enrol(&authority, &token).await.expect("enrolled")
    }

    pub fn agents_addr(&self, n: usize) -> String {
        self.replicas[n].as_ref().expect("it runs").agents_addr.clone()
    }
}

async fn dial(addr: &str) -> Option<Channel> {
    let endpoint = Channel::from_shared(addr.to_owned()).ok()?;
    endpoint
        .connect_timeout(Duration::from_secs(1))
        .connect()
        .await
        .ok()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

async fn sites(person: &Person) -> usize {
    let listed = person
        .directory()
        .list_sites(person.request(pb::ListSitesRequest {}))
        .await;
    listed.expect("listed").into_inner().sites.len()
}

/// The next address after `at`, in turn, of a replica that is there.
fn another(addresses: &Addresses, at: &mut usize) -> Option<(String, String)> {
    let addresses = addresses.lock().expect("lock");
    for _ in 0..addresses.len() {
        *at = (*at + 1) % addresses.len();
        if let Some(found) = &addresses[*at] {
            return Some(found.clone());
        }
    }
    None
}

/// What a site's endpoint and the relay have come to.
#[derive(Default)]
pub struct Seen {
    /// Summonses by site, in the order of their coming.
    pub summoned: Mutex<Vec<(String, String)>>,
}

/// Endpoints that answer, and one relay that sees their media; all go to another replica when theirs is gone.
pub struct Field {
    pub seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

impl Field {
    pub async fn start(cluster: &Cluster, sites: &[&str]) -> Self {
        let credentials = cluster.enrol_relay().await;
        let (answers, answered) = mpsc::channel(64);
        let (seen, mut tasks) = (Arc::new(Seen::default()), JoinSet::new());
        tasks.spawn(relay(cluster.addresses.clone(), credentials, answered));
        let person = cluster.person(0).await;
        for (at, site) in sites.iter().enumerate() {
            let secret = person.site_link(site).await;
            let (addresses, site) = (cluster.addresses.clone(), (*site).to_owned());
            tasks.spawn(endpoint(
                addresses,
                at,
                secret,
                site,
                answers.clone(),
                seen.clone(),
            ));
        }
        Self { seen, _tasks: tasks }
    }
}

async fn endpoint(
    addresses: Addresses,
    mut at: usize,
    secret: String,
    site: String,
    answers: mpsc::Sender<(String, String)>,
    seen: Arc<Seen>,
) {
    loop {
        let Some((addr, _)) = another(&addresses, &mut at) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let attached = match dial(&addr).await {
            Some(channel) => Endpoint::attach(channel, &secret).await.ok(),
            None => None,
        };
        let Some(mut endpoint) = attached else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while let Ok(Some(message)) = endpoint.events.message().await {
            let Some(Pushed::Summons(call)) = message.event else {
                continue;
            };
            let mark = (site.clone(), call.meeting.clone());
            seen.summoned.lock().expect("lock").push(mark);
            for state in [pb::SummonsState::Delivered, pb::SummonsState::Answered] {
                if endpoint.report(&call.meeting, state).await.is_err() {
                    break;
                }
            }
            let _ = answers.send((call.meeting, site.clone())).await;
        }
    }
}

async fn relay(
    addresses: Addresses,
    credentials: Credentials,
    mut answered: mpsc::Receiver<(String, String)>,
) {
    let (mut at, mut legs) = (1, BTreeMap::new());
    loop {
        let Some((_, addr)) = another(&addresses, &mut at) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let known = legs.values().cloned().collect();
        let Ok(mut relay) = FakeRelay::dial_at(&addr, credentials.clone(), known).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        loop {
            tokio::select! {
                Some((meeting, site)) = answered.recv() => {
                    let on_air = leg(&meeting, &site, pb::LegState::OnAir, "");
                    legs.insert(site, on_air.clone());
                    if !relay.try_legs(vec![on_air]).await {
                        break;
                    }
                }
                message = relay.hear() => match message {
                    Some(pb::serve_response::Message::Stage(stage)) if stage.ended => {
                        legs.retain(|_, leg| leg.meeting != stage.meeting);
                    }
                    Some(_) => {}
                    None => break,
                },
            }
        }
    }
}

/// A tab that goes on elsewhere when its replica is gone, and checks that nothing is lost, repeated or reordered.
pub struct Tab {
    person: Person,
    addresses: Addresses,
    at: usize,
    stream: tonic::Streaming<pb::WatchResponse>,
    pub cursor: BTreeMap<String, u64>,
    pub services: Vec<pb::ServiceState>,
    /// Sites that came on air, by meeting and site.
    pub on_air: BTreeSet<(String, String)>,
    /// The longest time from a lost stream to the first message of the next one.
    pub longest: Duration,
}

impl Tab {
    pub async fn open(cluster: &Cluster, n: usize) -> Self {
        let person = cluster.person(n).await;
        let stream = person.watch(Vec::new()).await;
        Self {
            person,
            addresses: cluster.addresses.clone(),
            at: n,
            stream,
            cursor: BTreeMap::new(),
            services: Vec::new(),
            on_air: BTreeSet::new(),
            longest: Duration::ZERO,
        }
    }

    /// Takes one message, and says whether it is a heartbeat. The stream must go on, and not be silent for so long.
    pub async fn one(&mut self, patience: Duration) -> bool {
        let message = tokio::time::timeout(patience, self.stream.message()).await;
        let message = message.expect("it is not silent").expect("the stream goes on");
        let event = message.expect("it has not ended").event.expect("an event");
        let is_beat = matches!(event, Watched::Heartbeat(_));
        self.take(event);
        is_beat
    }

    /// Takes messages until it is told whether the store answers; how long that took.
    pub async fn until_store_is(&mut self, ok: bool, patience: Duration) -> Duration {
        let began = Instant::now();
        while self.services.last().is_none_or(|state| state.store_ok != ok) {
            self.one(patience).await;
            assert!(began.elapsed() < PATIENCE, "{:?}", self.services);
        }
        began.elapsed()
    }

    /// The next event of a meeting, or nothing if `until` comes first.
    pub async fn next(&mut self, until: Instant) -> Option<pb::MeetingEvent> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = tokio::time::timeout(left, self.stream.message()).await.ok()?;
            let event = match message {
                Ok(Some(message)) => message.event?,
                _ => {
                    self.resume().await;
                    continue;
                }
            };
            if let Some(event) = self.take(event) {
                return Some(event);
            }
        }
    }

    fn take(&mut self, event: Watched) -> Option<pb::MeetingEvent> {
        match event {
            Watched::Snapshot(snapshot) => {
                for meeting in snapshot.meetings {
                    for summons in &meeting.summonses {
                        self.note(&meeting.id, summons);
                    }
                    self.cursor.insert(meeting.id, meeting.seq);
                }
                None
            }
            Watched::Service(state) => {
                self.services.push(state);
                None
            }
            Watched::MeetingEvent(event) => {
                let last = self.cursor.entry(event.meeting.clone()).or_default();
                assert_eq!(event.seq, *last + 1, "of meeting {}", event.meeting);
                *last = event.seq;
                if let Some(pb::meeting_event::Event::Summons(changed)) = &event.event
                    && let Some(summons) = &changed.summons
                {
                    self.note(&event.meeting, summons);
                }
                Some(event)
            }
            _ => None,
        }
    }

    fn note(&mut self, meeting: &str, summons: &pb::Summons) {
        if summons.state() == pb::SummonsState::OnAir {
            self.on_air.insert((meeting.to_owned(), summons.site.clone()));
        }
    }

    async fn resume(&mut self) {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "no replica takes the watcher");
            let Some((addr, _)) = another(&self.addresses, &mut self.at) else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let Some(channel) = dial(&addr).await else {
                continue;
            };
            self.person = Person {
                channel,
                token: self.person.token.clone(),
            };
            let position = |(stream, seq): (&String, &u64)| pb::Position {
                stream: stream.clone(),
                seq: *seq,
            };
            let cursor: Vec<_> = self.cursor.iter().map(position).collect();
            let resumes = !cursor.is_empty();
            self.stream = self.person.watch(cursor).await;
            if let Ok(Some(message)) = self.stream.message().await
                && let Some(Watched::Snapshot(snapshot)) = message.event
            {
                assert_eq!(snapshot.resumed, resumes, "the cursor is known everywhere");
                self.take(Watched::Snapshot(snapshot));
                self.longest = self.longest.max(began.elapsed());
                return;
            }
        }
    }
}

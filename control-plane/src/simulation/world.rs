//! The replicas, the database and the bus, and what is done to them.
//!
//! A killed replica neither stores nor tells anything any more, from one moment to the next: its connection to the
//! database is dead, also for what is on its way, its place at the bus is cut off and its tasks are aborted.

use super::dice::Dice;
use crate::bus::{Hub, Trouble};
use crate::clock::Clock;
use crate::core::Core;
use crate::engine::{Engine, Ground};
use crate::store::{ChainHead, Faults, GrantRow, Memory, SiteRow, Store, UnitAppend, UnitEffect, UnitRow};
use crate::units::stream_of;
use muster_identity::{Authority, sha256_text};
use muster_proto::command::v1 as pb;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

pub const SITES: [&str; 6] = ["S1", "S2", "S3", "S4", "S5", "S6"];
pub const DISPATCHERS: [&str; 2] = ["anna", "bert"];
pub const REPLICAS: usize = 3;
const UNIT: &str = "U";
const FAR: i64 = i64::MAX / 2;
/// Whoever calls gives up after this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// One process, until it is killed.
pub struct Replica {
    pub core: Arc<Core>,
    pub killed: CancellationToken,
    memory: Arc<Memory>,
    latency: Duration,
    place: usize,
    tasks: Mutex<JoinSet<()>>,
}

/// What was acknowledged to somebody.
#[derive(Debug)]
pub enum Acknowledged {
    Convened {
        chair: String,
        key: String,
        meeting: String,
    },
    Ended {
        meeting: String,
    },
}

/// How a call went.
pub enum Said<T> {
    Done(T),
    Refused(Status),
    /// No answer, or one that leaves it open: it may have been done.
    Unknown,
}

pub struct World {
    pub memory: Arc<Memory>,
    /// Reads what is stored, whatever is wrong with it for others.
    pub reader: Store,
    pub hub: Arc<Hub>,
    pub clock: Clock,
    pub acknowledged: Mutex<Vec<Acknowledged>>,
    /// A convening is on its way to this replica.
    pub convening: Notify,
    pub convening_at: Mutex<usize>,
    /// There is no more trouble.
    pub calm: CancellationToken,
    /// All has come to rest.
    pub rest: CancellationToken,
    pub over: CancellationToken,
    pub kills: Mutex<u32>,
    /// Dispatchers that are not done.
    pub busy: Mutex<usize>,
    /// Longest time that a watcher was without a replica.
    pub longest: Mutex<Duration>,
    pub resumed: Mutex<u32>,
    /// Sites at the relay, in which meeting, and whether they show a picture.
    pub legs: Mutex<BTreeMap<&'static str, (String, bool)>>,
    store_away: Mutex<bool>,
    /// Since when the store has not been away.
    store_there: Mutex<Instant>,
    slots: Mutex<Vec<Option<Arc<Replica>>>>,
    dice: Mutex<Dice>,
    replicas: Mutex<usize>,
}

pub fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call with a secret, as from outside.
pub fn with_secret<T>(secret: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {secret}").parse().expect("plain text");
    request.metadata_mut().insert("authorization", value);
    request
}

/// A unit with six sites, and two commanders who are signed in.
pub async fn fill(store: &Store) {
    let unit = UnitRow {
        id: UNIT.into(),
        tier: pb::Tier::City.into(),
        parent: String::new(),
        name_zh: UNIT.into(),
        name_en: UNIT.into(),
        lat: 30.0,
        lon: 120.0,
    };
    let site = |id: &&str| SiteRow {
        id: (*id).into(),
        unit: UNIT.into(),
        tier: pb::Tier::City.into(),
        name_zh: (*id).into(),
        name_en: (*id).into(),
        lat: 30.0,
        lon: 120.0,
        access: pb::Access::Fibre.into(),
        tags: Vec::new(),
        answer: 0,
    };
    let sites: Vec<_> = SITES.iter().map(site).collect();
    store.put_directory(&[unit], &sites).await.expect("stored");
    let link = |site: &str| UnitEffect::AddSiteLink {
        hash: sha256_text(site.as_bytes()),
        site: site.into(),
        by: String::new(),
        now_ms: 0,
        expires_ms: FAR,
    };
    let account = |name: &str| UnitEffect::PutAccount {
        name: name.into(),
        display_name: name.into(),
        password_hash: Some("none".into()),
        now_ms: 0,
    };
    let grant = |name: &str| UnitEffect::PutGrant {
        account: name.into(),
        grant: GrantRow::lasting(pb::Role::Commander.into(), UNIT),
    };
    let given = UnitAppend {
        stream: stream_of(UNIT),
        effects: SITES
            .into_iter()
            .map(link)
            .chain(
                DISPATCHERS
                    .into_iter()
                    .flat_map(|name| [account(name), grant(name)]),
            )
            .collect(),
        ..UnitAppend::default()
    };
    store.append_unit(&given).await.expect("stored");
    for name in DISPATCHERS {
        let hash = sha256_text(name.as_bytes());
        store.add_session(&hash, name, 0, FAR).await.expect("stored");
    }
}

impl World {
    /// All streams with the heads of their events.
    pub async fn heads(&self) -> Vec<(String, ChainHead)> {
        let mut heads = Vec::new();
        for stream in self.reader.streams().await.expect("readable") {
            let head = self.reader.head(&stream).await.expect("readable");
            heads.push((stream, head));
        }
        heads
    }

    pub async fn start(mut dice: Dice) -> Arc<Self> {
        let memory = Memory::new();
        let reader = Store::memory(memory.connect());
        fill(&reader).await;
        let hub = Hub::new(dice.draw());
        let world = Arc::new(Self {
            memory,
            reader,
            hub,
            clock: Clock::Virtual {
                epoch: Instant::now(),
            },
            acknowledged: Mutex::default(),
            convening: Notify::new(),
            convening_at: Mutex::default(),
            calm: CancellationToken::new(),
            rest: CancellationToken::new(),
            over: CancellationToken::new(),
            kills: Mutex::default(),
            busy: Mutex::new(DISPATCHERS.len()),
            longest: Mutex::default(),
            resumed: Mutex::default(),
            legs: Mutex::default(),
            store_away: Mutex::default(),
            store_there: Mutex::new(Instant::now()),
            slots: Mutex::new(vec![None; REPLICAS]),
            dice: Mutex::new(dice),
            replicas: Mutex::default(),
        });
        for slot in 0..REPLICAS {
            world.start_replica(slot).await;
        }
        world
    }

    /// Starts a process in this place, as soon as the store lets it.
    pub async fn start_replica(&self, slot: usize) {
        let latency = lock(&self.dice).ms(1, 8);
        let memory = self.memory.connect();
        let (network, place) = {
            let mut joined = lock(&self.replicas);
            *joined += 1;
            (self.hub.join(), *joined - 1)
        };
        let mut lots = lock(&self.dice).fork(place as u64);
        let lots = Mutex::new(std::mem::replace(&mut lots, Dice::new(0)));
        let lot: crate::meetings::Lot =
            Arc::new(move || u32::try_from(lock(&lots).draw() % (1 << 32)).unwrap_or_default());
        loop {
            memory.set_faults(self.faults(latency));
            let ground = Ground {
                store: Store::memory(memory.clone()),
                network: Some(network.clone()),
                authority: Authority::in_memory().expect("an authority"),
                clock: self.clock,
                replica: format!("r-{place:03}"),
                lot: lot.clone(),
            };
            if let Ok(Engine { core, tasks }) = Engine::start(ground).await {
                lock(&self.slots)[slot] = Some(Arc::new(Replica {
                    core,
                    killed: CancellationToken::new(),
                    memory,
                    latency,
                    place,
                    tasks: Mutex::new(tasks),
                }));
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn faults(&self, latency: Duration) -> Faults {
        Faults {
            latency,
            away: *lock(&self.store_away),
            ..Faults::default()
        }
    }

    pub fn living(&self) -> Vec<Arc<Replica>> {
        lock(&self.slots).iter().flatten().cloned().collect()
    }

    /// The replica in this place, or in the next one that has any.
    pub fn near(&self, slot: usize) -> Option<(usize, Arc<Replica>)> {
        let slots = lock(&self.slots);
        let places = (0..REPLICAS).map(|n| (slot + n) % REPLICAS);
        places.filter_map(|at| Some((at, slots[at].clone()?))).next()
    }

    fn kill_replica(&self, slot: usize) {
        let Some(replica) = lock(&self.slots)[slot].take() else {
            return;
        };
        *lock(&self.kills) += 1;
        replica.memory.set_faults(Faults {
            dead: true,
            ..Faults::default()
        });
        self.hub.set_place_away(replica.place, true);
        lock(&replica.tasks).abort_all();
        replica.core.shutdown.cancel();
        replica.killed.cancel();
    }

    fn set_store_away(&self, away: bool) {
        *lock(&self.store_away) = away;
        if !away {
            *lock(&self.store_there) = Instant::now();
        }
        for replica in self.living() {
            replica.memory.set_faults(self.faults(replica.latency));
        }
    }

    /// Since when the store has been there; none while it is away.
    pub fn store_there_since(&self) -> Option<Instant> {
        (!*lock(&self.store_away)).then(|| *lock(&self.store_there))
    }

    pub fn acknowledge(&self, what: Acknowledged) {
        lock(&self.acknowledged).push(what);
    }

    /// Ends all trouble.
    pub fn calm(&self) {
        self.calm.cancel();
        self.set_store_away(false);
        self.hub.set_trouble(Trouble::default());
        for replica in self.living() {
            self.hub.set_place_away(replica.place, false);
        }
    }

    /// Sleeps, but not beyond the trouble; false once that is over.
    async fn wait(&self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.calm.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// Waits for the answer of a replica that may be killed meanwhile.
pub async fn ask<T>(replica: &Replica, call: impl Future<Output = Result<Response<T>, Status>>) -> Said<T> {
    let open = [
        Code::Unavailable,
        Code::Aborted,
        Code::ResourceExhausted,
        Code::DeadlineExceeded,
    ];
    tokio::select! {
        biased;
        () = replica.killed.cancelled() => Said::Unknown,
        answer = tokio::time::timeout(PATIENCE, call) => match answer {
            Ok(Ok(answer)) => Said::Done(answer.into_inner()),
            Ok(Err(status)) if !open.contains(&status.code()) => Said::Refused(status),
            _ => Said::Unknown,
        },
    }
}

/// Kills replicas while they convene, mostly those that do, and starts most of them again.
pub async fn kill(world: Arc<World>, mut dice: Dice) {
    for _ in 0..dice.below(4) {
        let after = dice.below(3);
        for _ in 0..=after {
            tokio::select! {
                biased;
                () = world.calm.cancelled() => return,
                () = world.convening.notified() => {}
            }
        }
        if !world.wait(dice.ms(0, 60)).await {
            return;
        }
        let slot = if dice.percent(70) {
            *lock(&world.convening_at)
        } else {
            dice.below(REPLICAS)
        };
        if world.living().len() < 2 {
            continue;
        }
        world.kill_replica(slot);
        if dice.percent(80) {
            tokio::time::sleep(dice.ms(300, 9000)).await;
            world.start_replica(slot).await;
            if world.calm.is_cancelled() {
                return;
            }
        }
    }
}

/// What goes wrong besides.
pub async fn weather(world: Arc<World>, mut dice: Dice) {
    let often = |dice: &mut Dice, most: usize| u32::try_from(dice.below(most)).unwrap_or_default();
    world.hub.set_trouble(Trouble {
        lost: often(&mut dice, 300),
        doubled: often(&mut dice, 200),
        delayed: often(&mut dice, 400),
        delay: dice.ms(10, 800),
    });
    while world.wait(dice.ms(200, 6000)).await {
        let living = world.living();
        let one = living[dice.below(living.len())].clone();
        match dice.below(4) {
            0 => {
                world.set_store_away(true);
                world.wait(dice.ms(50, 3000)).await;
                world.set_store_away(false);
            }
            1 => one.memory.set_faults(Faults {
                lost_answers: 1 + often(&mut dice, 3),
                ..world.faults(one.latency)
            }),
            2 => {
                world.hub.set_place_away(one.place, true);
                world.wait(dice.ms(200, 9000)).await;
                if !one.killed.is_cancelled() {
                    world.hub.set_place_away(one.place, false);
                }
            }
            _ => {
                for replica in &living {
                    world.hub.set_place_away(replica.place, true);
                }
                world.wait(dice.ms(200, 9000)).await;
                for replica in living.iter().filter(|replica| !replica.killed.is_cancelled()) {
                    world.hub.set_place_away(replica.place, false);
                }
            }
        }
    }
}

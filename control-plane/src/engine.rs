//! A control plane without its ports: the parts put together, the meetings resumed, and all that runs besides calls.
//!
//! Invariant: whatever tells it the time, stores for it, tells others or draws lots comes from its [`Ground`], so that
//! several engines can be run in virtual time over one store and one bus. Its calls are the services'.

use crate::accounts::Accounts;
use crate::bus::{Bus, Network};
use crate::clock::Clock;
use crate::core::{self, Core};
use crate::devices::Devices;
use crate::endpoints::Endpoints;
use crate::fleet::Relays;
use crate::meetings::{self, Lot, Meetings};
use crate::quality::Qualities;
use crate::replicas::{self, Replicas};
use crate::store::Store;
use crate::tickets::Tickets;
use crate::units::Units;
use crate::{convert, drills, evidence, scheduler, upkeep};
use muster_domain::SiteId;
use muster_identity::Authority;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// News of other replicas that may wait.
const NEWS: usize = 4096;

/// What an engine stands on.
pub struct Ground {
    pub store: Store,
    /// The way to other replicas, if there may be any.
    pub network: Option<Arc<dyn Network>>,
    pub authority: Authority,
    pub clock: Clock,
    /// Differs from that of any process before.
    pub replica: String,
    pub lot: Lot,
}

impl Ground {
    /// With this machine's clock and its randomness.
    pub fn of_process(store: Store, network: Option<Arc<dyn Network>>, authority: Authority) -> Self {
        let secret = muster_identity::random_secret();
        Self {
            store,
            network,
            authority,
            clock: Clock::Wall,
            replica: format!("r-{}", secret.get(..8).unwrap_or(&secret)),
            lot: Arc::new(rand::random::<u32>),
        }
    }
}

/// A running engine. Dropping it stops what it does by itself; calls and meetings end with the core's `shutdown`.
pub struct Engine {
    pub core: Arc<Core>,
    pub tasks: JoinSet<()>,
}

impl Engine {
    /// Resumes the meetings that have not ended.
    pub async fn start(ground: Ground) -> anyhow::Result<Self> {
        let (core, audit, links) = assemble(ground).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(upkeep::presence(core.clone()));
        tasks.spawn(upkeep::watch_relays(core.clone()));
        tasks.spawn(evidence::watch(core.clone()));
        spawn_following(&mut tasks, &core);
        tasks.spawn(upkeep::record_refusals(core.clone(), audit));
        tasks.spawn(upkeep::record_links(core.clone(), links));
        tasks.spawn(drills::follow(core.clone()));
        tasks.spawn(scheduler::run(core.clone()));
        Ok(Self { core, tasks })
    }
}

/// Follows other replicas, if there are any, and the store.
fn spawn_following(tasks: &mut JoinSet<()>, core: &Arc<Core>) {
    let (sender, news) = mpsc::channel(NEWS);
    tasks.spawn(core.replicas.clone().run(sender.clone(), core.shutdown.clone()));
    tasks.spawn(core.replicas.clone().watch_store(core.shutdown.clone()));
    tasks.spawn(upkeep::keep_seen(core.clone()));
    tasks.spawn(upkeep::reread_tree(core.clone()));
    let rest = core.clone();
    let follow = core.meetings.clone();
    tasks.spawn(async move {
        // Kept, so that a control plane of one replica has a channel too.
        let _sender = sender;
        follow
            .follow_others(news, move |item| upkeep::changed_elsewhere(&rest, &item))
            .await;
    });
}

async fn assemble(
    ground: Ground,
) -> anyhow::Result<(Arc<Core>, mpsc::Receiver<core::Refused>, mpsc::Receiver<SiteId>)> {
    let Ground {
        store,
        network,
        authority,
        clock,
        replica,
        lot,
    } = ground;
    let tree = convert::tree_of(&store).await?;
    let bus = Bus::default();
    let shutdown = CancellationToken::new();
    let endpoints = Endpoints::with_clock(store.seen().await?, clock);
    let relays = Relays::new(bus.clone());
    let qualities = Arc::new(Qualities::new(bus.clone()));
    let replicas = Replicas::new(
        replica,
        network,
        replicas::Parts {
            bus: bus.clone(),
            clock,
            endpoints: endpoints.clone(),
            relays: relays.clone(),
            qualities: qualities.clone(),
            store: store.health().clone(),
        },
    );
    let tickets = Tickets::new(authority.token_signer()?, relays.clone(), clock);
    let meetings = Meetings::load(meetings::Parts {
        store: store.clone(),
        bus: bus.clone(),
        endpoints: endpoints.clone(),
        fleet: relays.clone(),
        tickets: tickets.clone(),
        shutdown: shutdown.clone(),
        replicas: replicas.clone(),
        clock,
        lot,
    })
    .await?;
    let accounts = Accounts::new(store.clone(), Devices::new(&authority), clock).await?;
    let (audit, refusals) = mpsc::channel(core::AUDIT_QUEUE);
    let (units, links) = Units::new(store.clone(), bus.clone(), clock);
    let core = Core::new(core::Parts {
        store,
        clock,
        accounts,
        endpoints,
        relays,
        meetings,
        tickets,
        qualities,
        replicas,
        bus,
        authority,
        shutdown,
        audit,
        units,
        tree,
    });
    Ok((core, refusals, links))
}

//! `muster-bench link`: what a link makes of a bad path, in real time: real QUIC over real UDP through the link emulator.
//!
//! Each hop has a link and an emulator of its own, both under the same profile: *up* is the agent's source at the relay,
//! *down* the relay's at the agent. Feedback goes back through the same emulator. Nothing is decoded; a picture is there when
//! all its packets are.

pub mod args;
mod sink;
mod source;
pub mod targets;
mod webrtc;

use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_identity::{Authority, Identity};
use muster_link::repair::{Budget, Terms};
use muster_link::rtp::LinkRtp;
use muster_link::{EdgeLink, LinkSender, LinkServer, LinkStats, MediaReceiver, RelayLink};
use muster_linkshape::{Profile, Relay, RelayCounters, Tally};
use serde::Serialize;

use args::{Compare, LinkArgs};
use sink::{Accounts, Sums};
use source::{Source, label};
use targets::Target;

/// A link is there before its site is called; meanwhile it explores its path.
const CALLED_AFTER: Duration = Duration::from_secs(1);
const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// After the last frame, for what is still on its way.
const TAIL: Duration = Duration::from_secs(1);
/// A picture this late after its deadline is given up by a decoder, which asks for a key frame.
const PATIENCE: Duration = Duration::from_millis(100);
const BETWEEN_KEYS: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(20);

#[derive(Serialize)]
struct Line<'a> {
    bench: &'static str,
    by: &'static str,
    profile: &'a str,
    hop: &'static str,
    seed: u64,
    seconds: u64,
    budget_ms: u128,
    audio_budget_ms: u128,
    connect_ms: u128,
    frames: usize,
    frame_miss: f64,
    overhead: f64,
    delay_p50_ms: u128,
    delay_p95_ms: u128,
    freeze_ms: u128,
    longest_gap_ms: u128,
    /// For each outage: its length, and the time from the link's return to the next picture.
    back_ms: Vec<(u128, u128)>,
    audio_frames: usize,
    audio_kept: f64,
    mean_kbps: u64,
    /// IP packets sent this way, and those among them that the repair core sent.
    packets: u64,
    core_packets: u64,
    core_overhead: f64,
    sent_again: u64,
    parity: u64,
    queue_max_ms: u64,
    emulator_late_p99_us: u64,
    target: Target,
    met: bool,
}

/// Terms of one run.
struct Plan<'a> {
    args: &'a LinkArgs,
    profile: Arc<Profile>,
    terms: Terms,
    /// The profile begins after the handshake.
    held: bool,
}

/// Measures each profile that was named.
pub fn run(args: &LinkArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // All are read before the first is measured.
    let profiles = args.profile.iter().map(|name| targets::profile(name));
    for profile in profiles.collect::<anyhow::Result<Vec<_>>>()? {
        let profile = Arc::new(profile);
        let target = Target::of(profile.name());
        let budget = args.rtt_budget_ms.unwrap_or(target.budget_ms);
        let terms = Terms {
            video_deadline: budget * 1000,
            audio_deadline: target.audio_budget_ms * 1000,
        };
        let plan = Plan {
            args,
            held: profile.name() == "loss80",
            profile,
            terms,
        };
        runtime.block_on(both_hops(&plan, &target))?;
        if args.compare == Some(Compare::Webrtc) {
            runtime.block_on(webrtc::measure(&plan, &target))?;
        }
    }
    Ok(())
}

async fn both_hops(plan: &Plan<'_>, target: &Target) -> anyhow::Result<()> {
    let (up, down) = tokio::join!(up(plan), down(plan));
    for (hop, outcome) in [("up", up?), ("down", down?)] {
        outcome.tell(plan, target, "link", hop)?;
    }
    Ok(())
}

/// What a hop came to.
struct Outcome {
    connect: Duration,
    sums: Sums,
    wire_bytes: u64,
    packets: u64,
    rtp_bytes: u64,
    stats: LinkStats,
    queue_max: Duration,
    emulator: RelayCounters,
}

impl Outcome {
    fn tell(
        &self,
        plan: &Plan<'_>,
        target: &Target,
        by: &'static str,
        hop: &'static str,
    ) -> anyhow::Result<()> {
        let sums = &self.sums;
        let share = |part: usize, all: usize| part as f64 / all.max(1) as f64;
        let round = |value: f64| (value * 1e5).round() / 1e5;
        let mut line = Line {
            bench: "link",
            by,
            profile: plan.profile.name(),
            hop,
            seed: plan.args.seed,
            seconds: plan.args.seconds,
            budget_ms: u128::from(plan.terms.video_deadline / 1000),
            audio_budget_ms: u128::from(plan.terms.audio_deadline / 1000),
            connect_ms: self.connect.as_millis(),
            frames: sums.frames,
            frame_miss: round(share(sums.missed, sums.frames)),
            overhead: round(self.wire_bytes as f64 / self.rtp_bytes.max(1) as f64 - 1.0),
            delay_p50_ms: sums.delay_p50.as_millis(),
            delay_p95_ms: sums.delay_p95.as_millis(),
            freeze_ms: sums.freeze.as_millis(),
            longest_gap_ms: sums.longest_gap.as_millis(),
            back_ms: sums
                .back
                .iter()
                .map(|(out, back)| (out.as_millis(), back.as_millis()))
                .collect(),
            audio_frames: sums.sounds,
            audio_kept: round(share(sums.kept, sums.sounds)),
            mean_kbps: self.rtp_bytes * 8 / 1000 / plan.args.seconds.max(1),
            packets: self.packets,
            core_packets: self.stats.sent.datagrams,
            core_overhead: round(self.stats.sent.wire_bytes as f64 / self.rtp_bytes.max(1) as f64 - 1.0),
            sent_again: self.stats.sent.again,
            parity: self.stats.sent.parity,
            queue_max_ms: self.queue_max.as_millis() as u64,
            emulator_late_p99_us: self.emulator.late_p99_us,
            target: target.clone(),
            met: false,
        };
        line.met = target.is_met(&line);
        println!("{}", serde_json::to_string(&line)?);
        Ok(())
    }
}

/// A link through an emulator.
struct Pair {
    edge: EdgeLink,
    relay: RelayLink,
    emulator: Relay,
    connect: Duration,
    _server: LinkServer,
}

async fn connect(plan: &Plan<'_>, seed: u64) -> anyhow::Result<Pair> {
    let dir = tempfile::tempdir()?;
    let authority = Authority::load_or_create(dir.path())?;
    let relay = authority.credentials(Identity::Relay("relay".into()))?;
    let agent = authority.credentials(Identity::Agent("site".into()))?;
    let server = LinkServer::bind(UdpSocket::bind(LOCALHOST)?, &relay)?;
    let emulator = Relay::start(LOCALHOST, server.local_addr()?, plan.profile.clone(), seed)?;
    if plan.held {
        emulator.hold();
    } else {
        emulator.start_profile();
    }
    let began = Instant::now();
    let accept = async {
        server
            .accept()
            .await
            .context("the server closed")?
            .finish()
            .await
            .context("arrival")
    };
    let address = emulator.addr().to_string();
    let dial = async {
        loop {
            match EdgeLink::connect(&address, &agent).await {
                Ok(link) => return link,
                Err(error) => eprintln!("connecting again: {error}"),
            }
        }
    };
    let (edge, relay) = tokio::join!(dial, accept);
    let connect = began.elapsed();
    tokio::time::sleep(CALLED_AFTER).await;
    Ok(Pair {
        edge,
        relay: relay?,
        emulator,
        connect,
        _server: server,
    })
}

async fn up(plan: &Plan<'_>) -> anyhow::Result<Outcome> {
    let Pair {
        edge,
        mut relay,
        emulator,
        connect,
        _server,
    } = connect(plan, plan.args.seed).await?;
    let hop = Hop::begin(plan, &emulator);
    let sums = hop.play(&edge.sender, &mut relay.media).await?;
    let counters = emulator.stop();
    Ok(hop.end(sums, connect, edge.sender.stats(), counters, counters.up.offered))
}

async fn down(plan: &Plan<'_>) -> anyhow::Result<Outcome> {
    let Pair {
        mut edge,
        relay,
        emulator,
        connect,
        _server,
    } = connect(plan, plan.args.seed + 1000).await?;
    let hop = Hop::begin(plan, &emulator);
    let sums = hop.play(&relay.sender, &mut edge.media).await?;
    let counters = emulator.stop();
    Ok(hop.end(
        sums,
        connect,
        relay.sender.stats(),
        counters,
        counters.down.offered,
    ))
}

/// One direction while it is measured.
struct Hop<'a> {
    plan: &'a Plan<'a>,
    began: Instant,
    /// Bytes up and down before.
    before: (Tally, Tally),
    accounts: RefCell<Accounts>,
    queue_max: RefCell<Duration>,
}

impl<'a> Hop<'a> {
    fn begin(plan: &'a Plan<'a>, emulator: &Relay) -> Self {
        // From its first row, whatever the handshake took.
        emulator.release();
        let counters = emulator.counters();
        Self {
            plan,
            began: Instant::now(),
            before: (counters.up.offered, counters.down.offered),
            accounts: RefCell::default(),
            queue_max: RefCell::default(),
        }
    }

    async fn play<O: prost::Message>(
        &self,
        sender: &LinkSender<O>,
        media: &mut MediaReceiver,
    ) -> anyhow::Result<Sums> {
        sender.set_budget(Budget::Fixed(self.plan.terms));
        let length = Duration::from_secs(self.plan.args.seconds);
        let mut source = Source::new(self.began, self.plan.args.kbps * 1000, length);
        let over = self.began + length + TAIL;
        let mut asked = self.began;
        let mut look = tokio::time::interval(LOOK);
        loop {
            let next = source.next().unwrap_or(over);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next.into()) => {
                    if Instant::now() >= over {
                        break;
                    }
                    self.make(&mut source, sender)?;
                }
                arrived = media.recv() => self.take(&arrived?.1),
                _ = look.tick() => {
                    let now = Instant::now();
                    let late = Duration::from_micros(self.plan.terms.video_deadline) + PATIENCE;
                    if now > asked + BETWEEN_KEYS && self.accounts.borrow().wants_key(now, late) {
                        asked = now;
                        source.want_key();
                    }
                }
            }
        }
        let budget = Duration::from_micros(self.plan.terms.video_deadline);
        let sound = Duration::from_micros(self.plan.terms.audio_deadline);
        let outages = targets::outages(&self.plan.profile, self.began, length);
        Ok(self.accounts.borrow().sums(budget, sound, &outages))
    }

    fn make<O: prost::Message>(&self, source: &mut Source, sender: &LinkSender<O>) -> anyhow::Result<()> {
        let health = sender.health();
        let mut most = self.queue_max.borrow_mut();
        *most = health.queue.max(*most);
        while let Some(made) = source.make(Instant::now(), health.source_bps) {
            self.accounts.borrow_mut().made(&made);
            for datagram in made.datagrams {
                sender.send_datagram(datagram)?;
            }
        }
        Ok(())
    }

    fn take(&self, rtp: &[u8]) {
        let number = LinkRtp::parse(rtp).ok().and_then(|rtp| label(rtp.payload));
        if let Some((number, _, _)) = number {
            self.accounts.borrow_mut().came(number, Instant::now());
        }
    }

    fn end(
        self,
        sums: Sums,
        connect: Duration,
        stats: LinkStats,
        emulator: RelayCounters,
        sent: Tally,
    ) -> Outcome {
        let before = if sent == emulator.up.offered {
            self.before.0
        } else {
            self.before.1
        };
        Outcome {
            connect,
            sums,
            wire_bytes: sent.bytes.saturating_sub(before.bytes),
            packets: sent.packets.saturating_sub(before.packets),
            rtp_bytes: self.accounts.borrow().rtp_bytes,
            stats,
            queue_max: *self.queue_max.borrow(),
            emulator,
        }
    }
}

//! `muster-bench flood`: what hostile datagrams cost those who behave.
//!
//! One camera and its viewers are measured alone first, then again under each kind of flood, which a thread of its own
//! sends at a steady rate to the port that they use. What comes back to the flooder is counted: to an address that proved
//! nothing it must be nothing, else the relay could be aimed at others.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use crate::args::FloodArgs;
use crate::client::Client;
use crate::crowd::Crowd;
use crate::forward::{CLIMB, EVEN, SAMPLE, WARM_UP, plans};
use crate::join::{PWD, Server as _};
use crate::keys::Certificate;
use crate::measure::{self, Measured, Subject};
use crate::picture::{PAYLOAD_TYPE, SSRC};
use crate::procfs;
use crate::relay::{RelayProcess, token};
use crate::sdp::{self, Local, Remote, Wanted};
use crate::stats::rounded;
use crate::stun::{self, Control};

/// Addresses that a flood comes from.
const PORTS: usize = 256;
/// Datagrams of one kind that differ.
const VARIANTS: usize = 64;
/// The rate is kept over so long.
const SLICE: Duration = Duration::from_millis(5);
/// A flooder that is further behind lets the rest be.
const LATE: Duration = Duration::from_millis(25);
/// Between checks that keep the leg under attack open, and between looks for answers.
const KEEP: Duration = Duration::from_secs(1);
/// Answers come within this.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);
const DROPPED: &str = "muster_relay_dropped_total";

/// What the flood is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Connectivity checks of names that nobody has, and of a leg that is there with another password
    Stun,
    /// DTLS ClientHellos from addresses that passed no check
    Hello,
    /// RTP with the camera's SSRC from such addresses
    Rtp,
    /// ClientHellos without an end from the address of a leg whose check has passed
    Proved,
}

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    kind: Kind,
    subs: u16,
    workers: u16,
    packets_per_s: u64,
    answered: u64,
    dropped: u64,
    delivered_before: f64,
    delivered: f64,
    p99_ms_before: Option<f64>,
    p99_ms: Option<f64>,
    relay_p99_ms_before: Option<f64>,
    relay_p99_ms: Option<f64>,
    rss_mb_before: f64,
    rss_mb: f64,
    relay_load_before: f64,
    relay_load: f64,
    generator_limited: bool,
}

pub fn run(args: &FloodArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    let taking = args.common.taking();
    let relay = RelayProcess::start(args.common.workers, None)?;
    let subject = Subject::Muster(&relay);
    let mut crowd = Crowd::new(SAMPLE, taking)?;
    crowd.assemble(&relay, plans(&EVEN, args.subs, 1))?;
    crowd.climb(CLIMB)?;
    crowd.play(WARM_UP)?;
    let time = Duration::from_secs(args.seconds.into());
    let alone = measure::window(subject, &mut crowd, time, taking)?;
    for &kind in &args.kinds {
        let rss_mb_before = procfs::resident_mb(relay.pid())?;
        let counters = relay.http()?.counters()?;
        let flooder = Flooder::new(&relay, kind, args.rate)?;
        let stop = AtomicBool::new(false);
        let (measured, flooded) = std::thread::scope(|scope| {
            let flood = scope.spawn(|| flooder.run(&stop));
            let measured = measure::window(subject, &mut crowd, time, taking);
            stop.store(true, Ordering::Relaxed);
            let flooded = flood.join().ok().context("the flooder panicked")?;
            anyhow::Ok((measured?, flooded?))
        })?;
        let dropped = relay.http()?.counters()?.growth(&counters, DROPPED);
        let line = line(args, kind, (&alone, &measured), &flooded, dropped, rss_mb_before);
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

fn line(
    args: &FloodArgs,
    kind: Kind,
    (alone, measured): (&Measured, &Measured),
    flooded: &Flooded,
    dropped: u64,
    rss_mb_before: f64,
) -> Line {
    Line {
        bench: "flood",
        kind,
        subs: args.subs,
        workers: args.common.workers,
        packets_per_s: (flooded.sent as f64 / flooded.time.as_secs_f64()) as u64,
        answered: flooded.answered,
        dropped,
        delivered_before: alone.delivered,
        delivered: measured.delivered,
        p99_ms_before: alone.p99_ms,
        p99_ms: measured.p99_ms,
        relay_p99_ms_before: alone.relay_p99_ms,
        relay_p99_ms: measured.relay_p99_ms,
        rss_mb_before: rounded(rss_mb_before, 1),
        rss_mb: measured.rss_mb,
        relay_load_before: alone.relay_load,
        relay_load: measured.relay_load,
        generator_limited: measured.generator_limited,
    }
}

/// What came of a flood.
struct Flooded {
    sent: u64,
    /// Datagrams that came back, but for the answers to good checks.
    answered: u64,
    time: Duration,
}

struct Flooder {
    kind: Kind,
    rate: u32,
    sockets: Vec<UdpSocket>,
    datagrams: Vec<Vec<u8>>,
    /// Keeps the leg under attack open with good checks.
    keeper: UdpSocket,
    /// Of these: the leg's name and password.
    good: (String, String),
}

impl Flooder {
    fn new(relay: &RelayProcess, kind: Kind, rate: u32) -> anyhow::Result<Self> {
        let certificate = Certificate::generate()?;
        let victim = victim(relay, &certificate, kind)?;
        let keeper = socket(victim.candidate)?;
        let sockets = if kind == Kind::Proved {
            vec![keeper.try_clone()?]
        } else {
            let sockets = (0..PORTS).map(|_| socket(victim.candidate));
            sockets.collect::<anyhow::Result<_>>()?
        };
        let variants = (0..VARIANTS).map(|number| datagram(kind, number, &victim, &certificate));
        let flooder = Self {
            kind,
            rate,
            sockets,
            datagrams: variants.collect::<anyhow::Result<_>>()?,
            keeper,
            good: (format!("{}:victim", victim.ufrag), victim.pwd),
        };
        flooder.keep()?;
        Ok(flooder)
    }

    /// Floods until `stop`.
    fn run(&self, stop: &AtomicBool) -> anyhow::Result<Flooded> {
        let start = Instant::now();
        let a_slice = (f64::from(self.rate) * SLICE.as_secs_f64()).ceil() as usize;
        let (mut sent, mut answered, mut turn) = (0, 0, 0);
        let (mut next, mut keep_next) = (start, start + KEEP);
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..a_slice {
                turn += 1;
                // One further each time around, so that all ports send all variants.
                let socket = &self.sockets[(turn + turn / VARIANTS) % self.sockets.len()];
                let datagram = &self.datagrams[turn % VARIANTS];
                sent += u64::from(socket.send(datagram).is_ok());
            }
            let now = Instant::now();
            if now >= keep_next {
                keep_next = now + KEEP;
                self.keep()?;
                answered += self.answers();
            }
            next = (next + SLICE).max(now.checked_sub(LATE).unwrap_or(now));
            std::thread::sleep(next.saturating_duration_since(now));
        }
        let time = start.elapsed();
        std::thread::sleep(ANSWERS_WITHIN);
        answered += self.answers();
        Ok(Flooded { sent, answered, time })
    }

    fn keep(&self) -> anyhow::Result<()> {
        let (username, pwd) = &self.good;
        self.keeper
            .send(&stun::binding_request(username, pwd, Control::Ours)?)?;
        Ok(())
    }

    /// Datagrams that wait at the flooder's sockets.
    fn answers(&self) -> u64 {
        let mut buffer = [0; 2048];
        let mut answers = 0;
        for socket in &self.sockets {
            while let Ok(length) = socket.recv(&mut buffer) {
                let to_good_check = self.kind == Kind::Proved && buffer[..length].starts_with(&[1, 1]);
                answers += u64::from(!to_good_check);
            }
        }
        answers
    }
}

/// A leg that is open and never connects, in a meeting of its own.
fn victim(relay: &RelayProcess, certificate: &Certificate, kind: Kind) -> anyhow::Result<Remote> {
    let local = Local {
        ufrag: "victim",
        pwd: PWD,
        fingerprint: &certificate.fingerprint,
        candidate: None,
    };
    let token = token(relay.signer(), "flooded", &format!("victim-{kind:?}"), false)?;
    let offer = local.offer(Wanted { layers: 0, slots: 1 }, "actpass");
    sdp::read(&relay.http()?.join(&token, &offer)?.answer)
}

fn datagram(
    kind: Kind,
    number: usize,
    victim: &Remote,
    certificate: &Certificate,
) -> anyhow::Result<Vec<u8>> {
    match kind {
        Kind::Stun => {
            let named = number.is_multiple_of(2);
            let ufrag = if named {
                victim.ufrag.clone()
            } else {
                format!("nobody{number}")
            };
            let username = format!("{ufrag}:victim");
            stun::binding_request(&username, "not the password of this leg", Control::Ours)
        }
        Kind::Hello | Kind::Proved => client_hello(victim, certificate),
        Kind::Rtp => {
            let mut packet = vec![0x80, PAYLOAD_TYPE];
            packet.extend((number as u16).to_be_bytes());
            packet.extend([0; 4]);
            packet.extend(SSRC.to_be_bytes());
            packet.resize(1200, 0x5a);
            Ok(packet)
        }
    }
}

/// The first datagram of a handshake, each with randomness of its own.
fn client_hello(victim: &Remote, certificate: &Certificate) -> anyhow::Result<Vec<u8>> {
    let now = Instant::now();
    let mut client = Client::new(now, ("victim", PWD), victim, Control::Ours, certificate)?;
    let mut hello = None;
    // It takes this for the answer to its check.
    client.handle(now, &[1, 1], |datagram| hello = Some(datagram.to_vec()))?;
    hello.context("no ClientHello")
}

fn socket(to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_a_kind_differ_and_are_what_they_should_be() {
        let certificate = Certificate::generate().expect("a certificate");
        let victim = Remote {
            ufrag: "uf".into(),
            pwd: "pw".into(),
            fingerprint: certificate.fingerprint.clone(),
            candidate: SocketAddr::from(([127, 0, 0, 1], 9)),
            twcc: false,
        };
        for (kind, first) in [
            (Kind::Stun, 0),
            (Kind::Hello, 22),
            (Kind::Proved, 22),
            (Kind::Rtp, 0x80),
        ] {
            let [a, b] = [0, 1].map(|n| datagram(kind, n, &victim, &certificate).expect("a datagram"));
            assert_eq!((a[0], b[0]), (first, first), "{kind:?}");
            assert_ne!(a, b, "{kind:?}");
            if first == 22 {
                assert_eq!(a[13], 1, "a ClientHello");
            }
        }
    }
}

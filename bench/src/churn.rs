//! `muster-bench churn`: what those who come and go leave behind in the relay.
//!
//! A cycle is a whole one: POST, SetView, ICE, DTLS, a frame of media, DELETE. One in twenty ends otherwise (see [`Fate`]). Resident
//! memory is read where the relay has no leg, after the first cycles, when pools and caches are filled, and after the last; so
//! what is still there is kept for no leg. As an allocator keeps what the most legs at a time needed, legs that are given up
//! wait for the relay's timeout in bounded number. Nothing here says how fast joins are: that is `surge`.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::args::ChurnArgs;
use crate::camera::{Camera, Script};
use crate::client::Client;
use crate::http::Http;
use crate::join::{PWD, Server as _, View};
use crate::keys::Certificate;
use crate::procfs::{self, CpuTime};
use crate::relay::{RelayProcess, token};
use crate::sdp::{self, Local, Wanted};
use crate::stats::rounded;
use crate::stun::Control;

/// What is asked of the relay for 10,000 cycles, in MB.
const TARGET_MB: f64 = 10.0;
/// Cycles of one meeting; then comes another.
const A_MEETING: u32 = 100;
/// One cycle may take so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// A wait for one datagram.
const TURN: Duration = Duration::from_millis(20);
/// The relay ends a leg that was given up after 10 s.
const GIVEN_UP_FOR: Duration = Duration::from_millis(10_500);
/// Then or later, if it does at all.
const LEGS_END_WITHIN: Duration = Duration::from_secs(60);
const LEGS: &str = "muster_relay_legs{kind=\"webrtc\"}";
/// Small, since what the relay keeps of packets for repair is not what is looked at.
const FRAME: Script = Script::Even {
    packets: 1,
    bytes: 200,
};

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    cycles: u32,
    warm_up: u32,
    workers: u16,
    done: usize,
    failed: usize,
    given_up_at_once: u16,
    per_s: f64,
    cpu_ms_per_cycle: f64,
    rss_before_mb: f64,
    rss_after_mb: f64,
    rss_growth_mb: f64,
    target_mb: f64,
    legs_left: u64,
}

/// How a cycle ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// As it should: DELETE.
    Leaves,
    /// Connected, then nothing more is heard of it.
    Vanishes,
    /// Nothing more is heard of it in the middle of the handshake.
    Halfway,
    /// After the POST nothing comes at all.
    Mute,
    /// Its certificate is not the one that the offer named: the relay ends it.
    Foreign,
}

impl Fate {
    fn of(number: u32) -> Self {
        match number % 80 {
            19 => Self::Vanishes,
            39 => Self::Halfway,
            59 => Self::Mute,
            79 => Self::Foreign,
            _ => Self::Leaves,
        }
    }
}

pub fn run(args: &ChurnArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    let churn = Churn {
        relay: RelayProcess::start(args.workers, None)?,
        certificate: Certificate::generate()?,
        at_once: args.at_once,
        most_given_up: args.given_up.into(),
        given_up: Mutex::default(),
    };
    let relay = &churn.relay;
    churn.cycles(0..args.warm_up)?;
    churn.wait_for_no_legs()?;
    let before_mb = procfs::resident_mb(relay.pid())?;
    let (cpu_before, start) = (CpuTime::of(relay.pid())?, Instant::now());
    let failures = churn.cycles(args.warm_up..args.warm_up + args.cycles)?;
    let elapsed = start.elapsed();
    let (cpu_ns, _, _) = CpuTime::of(relay.pid())?.since(cpu_before);
    let legs_left = churn.wait_for_no_legs()?;
    let after_mb = procfs::resident_mb(relay.pid())?;
    for failure in failures.iter().take(10) {
        eprintln!("{failure:#}");
    }
    let cycles = f64::from(args.cycles);
    let line = Line {
        bench: "churn",
        cycles: args.cycles,
        warm_up: args.warm_up,
        workers: args.workers,
        done: args.cycles as usize - failures.len(),
        failed: failures.len(),
        given_up_at_once: args.given_up,
        per_s: rounded(cycles / elapsed.as_secs_f64(), 1),
        cpu_ms_per_cycle: rounded(cpu_ns as f64 / 1e6 / cycles, 3),
        rss_before_mb: rounded(before_mb, 1),
        rss_after_mb: rounded(after_mb, 1),
        rss_growth_mb: rounded(after_mb - before_mb, 1),
        target_mb: TARGET_MB,
        legs_left,
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

struct Churn {
    relay: RelayProcess,
    certificate: Certificate,
    at_once: u16,
    most_given_up: usize,
    /// When each of those ends that were given up and are still open.
    given_up: Mutex<VecDeque<Instant>>,
}

impl Churn {
    /// Runs these cycles; those that failed.
    fn cycles(&self, numbers: Range<u32>) -> anyhow::Result<Vec<anyhow::Error>> {
        let next = AtomicU32::new(numbers.start);
        let failures = Mutex::new(Vec::new());
        let run = || -> anyhow::Result<()> {
            let mut http = self.relay.http()?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    return Ok(());
                }
                if let Err(error) = self.cycle(&mut http, number) {
                    let mut failures = failures.lock().ok().context("a thread panicked")?;
                    failures.push(error.context(format!("cycle {number}, {:?}", Fate::of(number))));
                    // Who knows what is left to be read of the old one.
                    http = self.relay.http()?;
                }
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.at_once).map(|_| scope.spawn(run)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().ok().context("a thread panicked")?)
        })?;
        failures.into_inner().ok().context("a thread panicked")
    }

    fn cycle(&self, http: &mut Http, number: u32) -> anyhow::Result<()> {
        let fate = Fate::of(number);
        if matches!(fate, Fate::Vanishes | Fate::Halfway | Fate::Mute) && self.give_up()? {
            // The relay ends connections that are idle.
            *http = self.relay.http()?;
        }
        let ufrag = format!("churn{number}");
        let foreign = vec!["0A"; 32].join(":");
        let local = Local {
            ufrag: &ufrag,
            pwd: PWD,
            fingerprint: match fate {
                Fate::Foreign => &foreign,
                _ => &self.certificate.fingerprint,
            },
            candidate: None,
        };
        let (meeting, site) = (format!("churn-{}", number / A_MEETING), format!("site-{number}"));
        let token = token(self.relay.signer(), &meeting, &site, true)?;
        let joined = http.join(&token, &local.offer(Wanted { layers: 1, slots: 2 }, "actpass"))?;
        let before = View::Camera {
            site: format!("site-{}", number.saturating_sub(1)),
            max_height: 0,
        };
        http.view(&joined.secret, &[before])?;
        if fate == Fate::Mute {
            return Ok(());
        }
        let mut visit = Visit::new(&ufrag, &sdp::read(&joined.answer)?, &self.certificate)?;
        match fate {
            Fate::Halfway => visit.run(|visit| visit.dtls_datagrams >= 2)?,
            Fate::Foreign => visit.is_refused()?,
            _ => {
                visit.run(|visit| visit.client.is_connected())?;
                visit.publish(number)?;
            }
        }
        if fate == Fate::Leaves {
            http.leave(&joined)?;
        }
        Ok(())
    }

    /// One more leg is given up, as soon as no more than the most are; whether that took waiting.
    fn give_up(&self) -> anyhow::Result<bool> {
        let mut waited = false;
        loop {
            let mut open = self.given_up.lock().ok().context("a thread panicked")?;
            let now = Instant::now();
            while open.pop_front_if(|ends| *ends <= now).is_some() {}
            if open.len() < self.most_given_up {
                open.push_back(now + GIVEN_UP_FOR);
                return Ok(waited);
            }
            waited = true;
            let next = open.front().map_or(TURN, |ends| *ends - now);
            drop(open);
            std::thread::sleep(next);
        }
    }

    /// Until the relay has no legs, or they do not end; how many there are then.
    fn wait_for_no_legs(&self) -> anyhow::Result<u64> {
        let start = Instant::now();
        loop {
            let legs = self.relay.http()?.counters()?.value(LEGS);
            if legs == 0 || start.elapsed() > LEGS_END_WITHIN {
                return Ok(legs);
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }
}

/// One peer, played until what is wanted of it has come about.
struct Visit {
    socket: UdpSocket,
    client: Client,
    dtls_datagrams: u32,
    twcc: bool,
}

impl Visit {
    fn new(ufrag: &str, remote: &sdp::Remote, certificate: &Certificate) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(remote.candidate)?;
        socket.set_read_timeout(Some(TURN))?;
        Ok(Self {
            client: Client::new(Instant::now(), (ufrag, PWD), remote, Control::Ours, certificate)?,
            socket,
            dtls_datagrams: 0,
            twcc: remote.twcc,
        })
    }

    /// Plays the peer until `done`. Errors: that takes too long, or the handshake fails.
    fn run(&mut self, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut buffer = [0; 2048];
        while !done(self) {
            let now = Instant::now();
            ensure!(now - start < PATIENCE, "the handshake did not end in time");
            let Self { socket, client, .. } = self;
            // What the socket would not send is sent again in time.
            let send = |datagram: &[u8]| drop(socket.send(datagram));
            client.handle_timeout(now, send)?;
            let Ok(length) = socket.recv(&mut buffer) else {
                continue;
            };
            let datagram = &buffer[..length];
            self.dtls_datagrams += u32::from(matches!(datagram.first(), Some(20..=63)));
            client.handle(Instant::now(), datagram, send)?;
        }
        Ok(())
    }

    /// The handshake goes on until the relay ends it.
    fn is_refused(&mut self) -> anyhow::Result<()> {
        let ended = self.run(|visit| visit.client.is_connected());
        ensure!(ended.is_err(), "a foreign certificate was taken");
        Ok(())
    }

    /// A frame of media.
    fn publish(&mut self, number: u32) -> anyhow::Result<()> {
        let Self { socket, client, .. } = self;
        let srtp = client.srtp().context("not connected")?;
        let now = Instant::now();
        let mut camera = Camera::new(FRAME, (number % A_MEETING) as usize, self.twcc);
        let mut failed = None;
        camera.start(now);
        camera.send_due(
            now,
            || 0,
            |packet| {
                let sealed = srtp.outbound.encrypt_rtp(packet).map_err(anyhow::Error::from);
                let sent = sealed.and_then(|sealed| Ok(socket.send(&sealed)?));
                failed = sent.err().or(failed.take());
            },
        );
        failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_twenty_does_not_leave_as_it_should() {
        let ends = |fate| (0..8000).filter(|number| Fate::of(*number) == fate).count();
        assert_eq!(ends(Fate::Leaves), 7600);
        for fate in [Fate::Vanishes, Fate::Halfway, Fate::Mute, Fate::Foreign] {
            assert_eq!(ends(fate), 100, "{fate:?}");
        }
    }
}

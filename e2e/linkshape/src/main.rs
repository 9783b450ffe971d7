//! The program `linkshape`: a [`Relay`] from the command line, with a line of JSON of its counters now and then.
//!
//! Exit codes: 0 after SIGINT or SIGTERM, 1 if the relay failed while running, 2 for bad input.

#![expect(
    clippy::disallowed_methods,
    reason = "the shell: reports are written by the clock"
)]

use clap::Parser;
use muster_linkshape::{Counters, Profile, Relay, RelayCounters};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use serde_json::{Value, json};
use std::{
    io::Write,
    net::SocketAddr,
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

const EXAMPLE: &str = "\
Example: a relay at port 6000, seen through a link that loses 30 % of all packets; agents are told port 5000.

  linkshape --listen 127.0.0.1:5000 --to 127.0.0.1:6000 --profile data/links/loss30.csv

The profile's columns are explained in data/links/README.md. Both directions follow it, each with losses of its own.
The same seed drops the same packets. Output, in JSON: a line when ready (its \"listen\" has the port if 0 was asked for),
then a line each --report and at the end: packets offered, delivered, lost (by the chain of losses), overflowed (the queue
was full) and down (the link was), and how late packets left, so that one sees whether the machine keeps up; on a busy
one, run it as `chrt -f 10 linkshape ...`.

SIGINT or SIGTERM ends it. With --hold, `kill -USR1 PID` starts the profile.";

/// Passes UDP on as a link of a profile would: rate, queue, delay, jitter, losses, up and down.
#[derive(Debug, Parser)]
#[command(name = "linkshape", version, after_help = EXAMPLE)]
struct Args {
    /// Address that clients send to; port 0 for any
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Address that everything is passed on to
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// Conditions of the link over time, a CSV file; they begin at the first packet and repeat
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    /// Decides which packets are lost and how late each is
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How often to write the counters, in s or ms; 0s: at the end alone
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    report: Duration,
    /// Lose nothing until SIGUSR1, which starts the profile: for a handshake that is not part of the test
    #[arg(long)]
    hold: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit): (&str, fn(u64) -> Duration) = match text.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis),
        None => (text.strip_suffix('s').unwrap_or_default(), Duration::from_secs),
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let value = if digits { number.parse().ok() } else { None };
    value
        .filter(|value| *value <= 86_400_000)
        .map(unit)
        .ok_or_else(|| format!("expected a whole number with s or ms, such as 1s or 500ms, found {text:?}"))
}

fn main() -> ExitCode {
    let args = Args::parse();
    match prepare(&args) {
        Ok((relay, signals)) => match serve(&args, relay, &signals) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => failed(&problem, 1),
        },
        Err(problem) => failed(&problem, 2),
    }
}

fn failed(problem: &str, code: u8) -> ExitCode {
    eprintln!("linkshape: {problem}");
    ExitCode::from(code)
}

/// Everything that bad input can make fail.
fn prepare(args: &Args) -> Result<(Relay, SignalFd), String> {
    let profile = Profile::read(&args.profile).map_err(|error| error.to_string())?;
    if args.to.port() == 0 {
        return Err(format!("--to: expected a port to pass on to, found {}", args.to));
    }
    // Before the relay's thread is made, which inherits the mask.
    let mask: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1]
        .into_iter()
        .collect();
    let signals = mask
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let relay = Relay::start(args.listen, args.to, Arc::new(profile), args.seed)
        .map_err(|error| error.to_string())?;
    if args.hold {
        relay.hold();
    }
    Ok((relay, signals))
}

fn serve(args: &Args, relay: Relay, signals: &SignalFd) -> Result<(), String> {
    let ready = json!({
        "ready": true,
        "listen": relay.addr().to_string(),
        "to": args.to.to_string(),
        "profile": args.profile.display().to_string(),
        "seed": args.seed,
    });
    write(&ready)?;
    let began = Instant::now();
    let mut next = (!args.report.is_zero()).then(|| began + args.report);
    loop {
        // At least every second, to see whether the relay still runs.
        let wait = next.map_or(Duration::MAX, |next| {
            next.saturating_duration_since(Instant::now())
        });
        let wait = wait.min(Duration::from_secs(1)).as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout);
        if let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo != Signal::SIGUSR1 as u32 {
                return write(&report(began, &relay.stop(), true));
            }
            relay.start_profile();
        }
        if !relay.is_running() {
            return Err("the system refused to wait for packets".into());
        }
        if let Some(at) = next.filter(|at| *at <= Instant::now()) {
            write(&report(began, &relay.counters(), false))?;
            next = Some(at + args.report);
        }
    }
}

fn write(line: &Value) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot write: {error}"))
}

fn report(began: Instant, counters: &RelayCounters, last: bool) -> Value {
    json!({
        "t_ms": began.elapsed().as_millis() as u64,
        "last": last,
        "up": direction(&counters.up),
        "down": direction(&counters.down),
        "clients": counters.clients,
        "evicted": counters.evicted,
        "unsent": counters.unsent,
        "late_p50_us": counters.late_p50_us,
        "late_p99_us": counters.late_p99_us,
        "late_max_us": counters.late_max_us,
    })
}

fn direction(counters: &Counters) -> Value {
    json!({
        "offered": counters.offered.packets,
        "offered_bytes": counters.offered.bytes,
        "delivered": counters.delivered.packets,
        "delivered_bytes": counters.delivered.bytes,
        "lost": counters.lost.packets,
        "lost_bytes": counters.lost.bytes,
        "overflowed": counters.overflowed.packets,
        "overflowed_bytes": counters.overflowed.bytes,
        "down": counters.down.packets,
        "down_bytes": counters.down.bytes,
        "max_queue_us": counters.max_queue_us,
    })
}

//! `muster-bench forward`: what a forwarded packet costs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::args::{ForwardArgs, Peer};
use crate::camera::Script;
use crate::crowd::Crowd;
use crate::janus::Janus;
use crate::join::{Plan, Server, View};
use crate::measure::{self, Measured, Subject};
use crate::procfs;
use crate::relay::RelayProcess;
use crate::stats::rounded;
use crate::trace::Trace;

/// Of a 1080p camera at 2.6 Mbit/s.
pub const EVEN: Script = Script::Even {
    packets: 9,
    bytes: 1200,
};
/// What is asked of the relay at 200 subscribers.
const TARGET_NS: u64 = 1600;
/// Times less CPU than the peer at 50 subscribers.
const TARGET_RATIO: f64 = 15.0;
/// Viewers decrypt one packet of so many; prime to 9, so that every place in a frame has its turn.
pub const SAMPLE: u64 = 64;
pub const WARM_UP: Duration = Duration::from_secs(1);
/// For the largest layer, whole, to come to all.
pub const CLIMB: Duration = Duration::from_secs(30);
/// How far from the load that was asked for one may be, as a share of it.
const NEAR: f64 = 0.05;
/// Runs that look for it.
const SEARCH_RUNS: usize = 3;

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    server: &'static str,
    load: &'static str,
    subs: u16,
    meetings: u16,
    workers: u16,
    target: u64,
    #[serde(flatten)]
    seen: Seen,
}

#[derive(Serialize)]
struct Seen {
    top_layer: f64,
    climb_s: Option<f64>,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Serialize)]
struct Ratio {
    bench: &'static str,
    subs: u16,
    /// Of both by what came: only Muster says what it sent.
    muster_ns: u64,
    peer: &'static str,
    peer_ns: u64,
    ratio: f64,
    target: f64,
}

pub fn run(args: &ForwardArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    let trace = args.trace.as_deref().map(Trace::load).transpose()?.map(Arc::new);
    let script = trace.map_or(EVEN, Script::Trace);
    let time = Duration::from_secs(args.seconds.into());
    for &subs in &args.subs {
        let line = match args.load {
            Some(load) => search(args, &script, (subs, time), load)?,
            None => muster(args, &script, subs, time)?,
        };
        let subs = line.subs;
        print(&line)?;
        if args.peer == Some(Peer::Janus) {
            let other = janus(args, &script, subs, time)?;
            print(&other)?;
            let ours = line.seen.measured.ns_per_received.context("nothing came")?;
            let theirs = other.seen.measured.ns_per_received.context("nothing came")?;
            print(&Ratio {
                bench: "ratio",
                subs,
                muster_ns: ours,
                peer: other.server,
                peer_ns: theirs,
                ratio: rounded(theirs as f64 / ours as f64, 1),
                target: TARGET_RATIO,
            })?;
        }
    }
    Ok(())
}

fn print(line: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}

/// The run whose load comes nearest to the one asked for. Each is of the full length, since short ones on a busy machine say
/// little, and the last could miss what the one before had found.
fn search(
    args: &ForwardArgs,
    script: &Script,
    (mut subs, time): (u16, Duration),
    load: f64,
) -> anyhow::Result<Line> {
    let mut seen = Vec::new();
    let mut nearest: Option<Line> = None;
    let off = |line: &Line| (line.seen.measured.relay_load / load - 1.0).abs();
    for _ in 0..SEARCH_RUNS {
        let line = match (muster(args, script, subs, time), &nearest) {
            (Ok(line), _) => line,
            // More than this machine can play while it does what else it does: not so far.
            (Err(error), Some(nearest)) => {
                eprintln!("{subs} subscribers: {error}");
                subs = subs.midpoint(nearest.subs);
                continue;
            }
            (Err(error), None) => return Err(error),
        };
        let found = line.seen.measured.relay_load;
        eprintln!("{subs} subscribers: a load of {found}");
        seen.push((f64::from(subs), found));
        if nearest.as_ref().is_none_or(|nearest| off(&line) < off(nearest)) {
            nearest = Some(line);
        }
        let next = guess(&mut seen, load);
        let tried = seen.iter().any(|(subs, _)| *subs == f64::from(next));
        if nearest.as_ref().is_some_and(|nearest| off(nearest) < NEAR) || tried {
            break;
        }
        subs = next;
    }
    nearest.context("no run")
}

/// Where the load lies on the line through the two runs that came nearest to it, or on the one from 0 if there is no such line.
fn guess(seen: &mut [(f64, f64)], load: f64) -> u16 {
    seen.sort_by(|a, b| (a.1 - load).abs().total_cmp(&(b.1 - load).abs()));
    let subs = match *seen {
        [(a, at_a), (b, at_b), ..] if (a - b) * (at_a - at_b) > 0.0 => {
            a + (load - at_a) * (a - b) / (at_a - at_b)
        }
        [(a, at_a), ..] => a * (load / at_a.max(0.001)).clamp(0.1, 10.0),
        [] => 1.0,
    };
    subs.round().clamp(1.0, f64::from(ForwardArgs::MOST_SUBS)) as u16
}

/// Publishers, one a meeting, then the viewers, who take turns in choosing a meeting.
pub fn plans(script: &Script, subs: u16, meetings: u16) -> Vec<Plan> {
    let publisher = |meeting: u16| format!("publisher-{meeting}");
    let meeting = |number: u16| format!("bench-{number}");
    let publishers = (0..meetings).map(|number| Plan {
        meeting: meeting(number),
        site: publisher(number),
        publishes: Some(script.clone()),
        views: Vec::new(),
    });
    let viewers = (0..subs).map(|viewer| Plan {
        meeting: meeting(viewer % meetings),
        site: format!("viewer-{viewer}"),
        publishes: None,
        views: vec![View::Camera {
            site: publisher(viewer % meetings),
            max_height: 0,
        }],
    });
    publishers.chain(viewers).collect()
}

fn muster(args: &ForwardArgs, script: &Script, subs: u16, time: Duration) -> anyhow::Result<Line> {
    let relay = RelayProcess::start(args.common.workers, None)?;
    let seen = measure(args, script, subs, time, &relay, Subject::Muster(&relay))?;
    Ok(Line {
        bench: "forward",
        server: "muster",
        load: load(script),
        subs,
        meetings: args.meetings,
        workers: args.common.workers,
        target: TARGET_NS,
        seen,
    })
}

fn janus(args: &ForwardArgs, script: &Script, subs: u16, time: Duration) -> anyhow::Result<Line> {
    let janus = Janus::start(args.meetings, args.janus_loops)?;
    let subject = Subject::Other { pid: janus.pid() };
    let seen = measure(args, script, subs, time, &janus, subject)?;
    Ok(Line {
        bench: "forward",
        server: "janus",
        load: load(script),
        subs,
        meetings: args.meetings,
        workers: args.janus_loops,
        target: TARGET_NS,
        seen,
    })
}

fn load(script: &Script) -> &'static str {
    match script {
        Script::Even { .. } => "even",
        Script::Trace(_) => "trace",
    }
}

fn measure(
    args: &ForwardArgs,
    script: &Script,
    subs: u16,
    time: Duration,
    server: &dyn Server,
    subject: Subject,
) -> anyhow::Result<Seen> {
    let taking = args.common.taking();
    let mut crowd = Crowd::new(SAMPLE, taking)?;
    crowd.assemble(server, plans(script, subs, args.meetings))?;
    let top = script.layers() - 1;
    let at_top = |crowd: &Crowd| {
        let sources = crowd.streams().filter_map(|stream| stream.source);
        sources.filter(|source| source.layer() == top).count()
    };
    crowd.run(CLIMB, |crowd| at_top(crowd) == usize::from(subs))?;
    let climb_s = crowd.climb(CLIMB)?;
    crowd.play(WARM_UP)?;
    let measured = measure::window(subject, &mut crowd, time, taking)?;
    let share = at_top(&crowd) as f64 / f64::from(subs);
    Ok(Seen {
        measured,
        top_layer: rounded(share, 3),
        climb_s: climb_s.map(|seconds| rounded(seconds, 1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_number_is_on_the_line_through_the_nearest() {
        let guess = |seen: &[(f64, f64)]| guess(&mut seen.to_vec(), 0.7);
        assert_eq!(guess(&[(400.0, 0.2)]), 1400);
        assert_eq!(guess(&[(400.0, 0.2), (1400.0, 0.8)]), 1233);
        assert_eq!(guess(&[(100.0, 0.1), (1400.0, 0.8), (1200.0, 0.6)]), 1300);
        // More subscribers with less load: noise, and no line.
        assert_eq!(guess(&[(1000.0, 0.8), (1200.0, 0.75)]), 1120);
        assert_eq!(guess(&[(10.0, 0.0)]), 100);
    }

    #[test]
    fn viewers_are_spread_over_the_meetings() {
        let plans = plans(&EVEN, 5, 2);
        let published: Vec<bool> = plans.iter().map(|plan| plan.publishes.is_some()).collect();
        assert_eq!(published, [true, true, false, false, false, false, false]);
        let meetings: Vec<&str> = plans.iter().map(|plan| plan.meeting.as_str()).collect();
        assert_eq!(
            meetings[2..],
            ["bench-0", "bench-1", "bench-0", "bench-1", "bench-0"]
        );
        assert!(matches!(&plans[3].views[..], [View::Camera { site, .. }] if site == "publisher-1"));
    }
}

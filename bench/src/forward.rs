//! `muster-bench forward`: what a forwarded packet costs.

use std::sync::Arc;
use std::time::Duration;

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
const SAMPLE: u64 = 64;
pub const WARM_UP: Duration = Duration::from_secs(1);
/// For the largest layer, whole, to come to all.
pub const CLIMB: Duration = Duration::from_secs(30);
/// How far from the load that was asked for one may be.
const NEAR: f64 = 0.07;

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
        let subs = match args.load {
            Some(load) => search(args, &script, subs, load)?,
            None => subs,
        };
        let line = muster(args, &script, subs, time)?;
        print(&line)?;
        if args.peer == Some(Peer::Janus) {
            let other = janus(args, &script, subs, time)?;
            print(&other)?;
            let (ours, theirs) = (
                line.seen.measured.ns_per_packet,
                other.seen.measured.ns_per_packet,
            );
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

/// The number of subscribers at which the relay has about this load, found in at most three short runs.
fn search(args: &ForwardArgs, script: &Script, mut subs: u16, load: f64) -> anyhow::Result<u16> {
    for _ in 0..3 {
        let found = muster(args, script, subs, Duration::from_secs(2))?
            .seen
            .measured
            .relay_load;
        eprintln!("{subs} subscribers: a load of {found}");
        if (found / load - 1.0).abs() < NEAR {
            break;
        }
        let next = f64::from(subs) * (load / found.max(0.001)).clamp(0.1, 10.0);
        subs = next.round().clamp(1.0, f64::from(ForwardArgs::MOST_SUBS)) as u16;
    }
    Ok(subs)
}

/// Publishers, one a meeting, then the viewers, who take turns in choosing a meeting.
fn plans(script: &Script, subs: u16, meetings: u16) -> Vec<Plan> {
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

//! `muster-bench mesh`: many cameras. Everyone sees everyone as a thumbnail, or (`--wall`) a dispatcher has 49 of them
//! on a wall and everyone sees the stage.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use crate::args::MeshArgs;
use crate::camera::Script;
use crate::crowd::Crowd;
use crate::forward::{CLIMB, EVEN, WARM_UP};
use crate::join::{Plan, View};
use crate::measure::{self, Measured, Subject};
use crate::procfs;
use crate::relay::{MEETING, RelayProcess};
use crate::stats::rounded;

/// A camera of 320x180 at about 200 kbit/s.
const THUMBNAIL: Script = Script::Even {
    packets: 1,
    bytes: 850,
};
const THUMBNAIL_HEIGHT: u16 = 180;
/// Viewers decrypt one packet of so many: a thumbnail has few.
const SAMPLE: u64 = 16;
/// Slots of the wall.
const WALL: usize = 49;

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    n: u16,
    wall: bool,
    workers: u16,
    slots: usize,
    climb_s: Option<f64>,
    #[serde(flatten)]
    measured: Measured,
}

pub fn run(args: &MeshArgs) -> anyhow::Result<()> {
    procfs::allow_many_files()?;
    for &n in &args.n {
        let line = measure(n, args)?;
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

fn measure(n: u16, args: &MeshArgs) -> anyhow::Result<Line> {
    let stage = args.wall.then(|| site(0));
    let relay = RelayProcess::start(args.common.workers, stage.as_deref())?;
    let taking = args.common.taking();
    let mut crowd = Crowd::new(SAMPLE, taking)?;
    let plans = if args.wall {
        wall(n.into())
    } else {
        everyone(n.into())
    };
    let slots = plans.iter().map(|plan| plan.views.len()).sum();
    crowd.assemble(&relay, plans)?;
    let climb_s = crowd.climb(CLIMB)?;
    crowd.play(WARM_UP)?;
    let time = Duration::from_secs(args.seconds.into());
    let measured = measure::window(Subject::Muster(&relay), &mut crowd, time, taking)?;
    let sources: HashSet<_> = crowd.streams().filter_map(|stream| stream.source).collect();
    let expect = if args.wall {
        WALL.min(usize::from(n) - 1) + 1
    } else {
        n.into()
    };
    ensure!(
        sources.len() == expect,
        "{} cameras are seen, not {expect}",
        sources.len()
    );
    Ok(Line {
        bench: "mesh",
        n,
        wall: args.wall,
        workers: args.common.workers,
        slots,
        climb_s: climb_s.map(|seconds| rounded(seconds, 1)),
        measured,
    })
}

fn site(number: usize) -> String {
    format!("site-{number}")
}

fn thumbnail(number: usize) -> View {
    View::Camera {
        site: site(number),
        max_height: THUMBNAIL_HEIGHT,
    }
}

fn plan(number: usize, script: Script, views: Vec<View>) -> Plan {
    Plan {
        meeting: MEETING.to_owned(),
        site: site(number),
        publishes: Some(script),
        views,
    }
}

fn everyone(n: usize) -> Vec<Plan> {
    let others = |number: usize| (0..n).filter(move |other| *other != number).map(thumbnail);
    (0..n)
        .map(|number| plan(number, THUMBNAIL, others(number).collect()))
        .collect()
}

/// Site 0 is the dispatcher's and on the stage, in 1080p.
fn wall(n: usize) -> Vec<Plan> {
    let dispatcher = plan(0, EVEN, (1..n).take(WALL).map(thumbnail).collect());
    let others = (1..n).map(|number| plan(number, THUMBNAIL, vec![View::Stage]));
    std::iter::once(dispatcher).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_sees_all_but_themselves() {
        let plans = everyone(3);
        let seen = |plan: &Plan| -> Vec<String> {
            let sites = plan.views.iter().filter_map(|view| match view {
                View::Camera { site, .. } => Some(site.clone()),
                View::Stage => None,
            });
            sites.collect()
        };
        let all: Vec<Vec<String>> = plans.iter().map(seen).collect();
        assert_eq!(
            all,
            [["site-1", "site-2"], ["site-0", "site-2"], ["site-0", "site-1"]]
        );
    }

    #[test]
    fn the_wall_has_its_slots_and_all_others_the_stage() {
        let plans = wall(140);
        assert_eq!((plans.len(), plans[0].views.len()), (140, 49));
        assert!(
            plans[1..]
                .iter()
                .all(|plan| matches!(plan.views[..], [View::Stage]))
        );
        assert!(plans.iter().all(|plan| plan.publishes.is_some()));
        assert_eq!(wall(10)[0].views.len(), 9);
    }
}

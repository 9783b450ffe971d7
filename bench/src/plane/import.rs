//! `muster-bench import`: a whole city from one file.

use std::time::Instant;

use anyhow::ensure;
use serde::Serialize;

use super::args::ImportArgs;
use super::clients::Dispatcher;
use super::{Plane, tree};
use crate::stats::rounded;

const TARGET_S: u32 = 5;

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    sites: u32,
    import_s: f64,
    target_s: u32,
    again_s: f64,
    cpu_s: f64,
}

pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(args))
}

async fn measure(args: &ImportArgs) -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let plane = Plane::start(data.path(), None)?;
    let dispatcher = Dispatcher::sign_in(plane.addr).await?;
    let file = tree::csv(args.sites);
    let (before, start) = (plane.cpu()?, Instant::now());
    let done = dispatcher.import(file.clone()).await?;
    let (import, cpu_s) = (start.elapsed(), plane.cpu_s(before)?);
    ensure!(
        done.sites_added == args.sites,
        "{} sites were added",
        done.sites_added
    );
    let start = Instant::now();
    let again = dispatcher.import(file).await?;
    ensure!(
        again.sites_added + again.sites_changed == 0,
        "the same file changed something"
    );
    let line = Line {
        bench: "import",
        sites: args.sites,
        import_s: rounded(import.as_secs_f64(), 3),
        target_s: TARGET_S,
        again_s: rounded(start.elapsed().as_secs_f64(), 3),
        cpu_s: rounded(cpu_s, 3),
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}

//! `muster demo`: the control plane, one relay and the console in this process, agents as its children.
//!
//! Everything is reached as it is in the field: the relay and the agents enrol with tokens, the terminal's
//! live line and the check are clients with an account. Nothing is left behind but the data folder.

mod agents;
mod check;
mod folder;
mod running;
mod screen;
mod sites;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Demo;
use crate::failure::Failure;
use crate::output::print_json;
use crate::session::write_private;
use folder::DataFolder;
use running::Running;

const DEFAULT_DATA: &str = "./data/demo";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

pub async fn run(options: Demo) -> Result<(), Failure> {
    let mut stop =
        Stop::listen().map_err(|error| Failure::Refused(format!("cannot listen for signals: {error}")))?;
    if options.check {
        run_check(options, &mut stop).await
    } else {
        run_until_stopped(options, &mut stop).await
    }
}

async fn run_until_stopped(options: Demo, stop: &mut Stop) -> Result<(), Failure> {
    let path = options.data.clone().unwrap_or_else(|| DEFAULT_DATA.into());
    let listen = options.listen.unwrap_or(DEFAULT_LISTEN);
    // Before the folder, which a fresh start empties: a start that cannot be loses no data.
    running::check(listen)?;
    let folder = Arc::new(DataFolder::open(&path, options.fresh)?);
    start_log(&folder);
    let running = tokio::select! {
        running = Running::start(folder, listen, options.sites.into()) => running?,
        () = stop.wait() => return Ok(()),
    };
    if !console_is_built().await {
        eprintln!(
            "muster: the console is not built, the address below only says so: make build, then start again"
        );
    }
    println!("console   {}", running.url());
    println!("account   {}", running::ACCOUNT);
    println!("password  {}", running.password());
    println!(
        "data      {}   logs  {}",
        path.display(),
        path.join("logs").display()
    );
    println!("Ctrl-C ends everything; the data stays (FRESH=1 or --fresh starts over)");
    let live = tokio::spawn(screen::show(running.client().clone(), running.sites().to_vec()));
    let announcing = announce(&running, options.announce.clone());
    let outcome = tokio::select! {
        () = stop.wait() => Ok(()),
        outcome = announcing => outcome,
    };
    live.abort();
    println!("\nending");
    running.stop().await;
    outcome
}

/// A folder of its own, so that nothing of an earlier meeting is in the way; it is kept if the check fails.
async fn run_check(options: Demo, stop: &mut Stop) -> Result<(), Failure> {
    let own = options.data.is_none();
    let name = format!("muster-check-{}", std::process::id());
    let path = options
        .data
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(name));
    let listen = options
        .listen
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    running::check(listen)?;
    let folder = Arc::new(DataFolder::open(&path, options.fresh)?);
    start_log(&folder);
    let stopped = || Failure::Refused("stopped before the end of the check".to_owned());
    let work = async {
        let mut running = tokio::select! {
            running = Running::start(folder, listen, options.sites.into()) => running?,
            () = stop.wait() => return Err(stopped()),
        };
        let outcome = tokio::select! {
            outcome = check::run(&mut running, options.hold_s.into()) => outcome,
            () = stop.wait() => Err(stopped()),
        };
        running.stop().await;
        outcome
    };
    let result = work.await.and_then(|report| {
        print_json(&report)?;
        report.verdict()
    });
    if result.is_ok() && own {
        let _ = std::fs::remove_dir_all(&path);
    } else if result.is_err() {
        eprintln!(
            "muster: the logs of the failed check are in {}",
            path.join("logs").display()
        );
    }
    result
}

async fn console_is_built() -> bool {
    muster_control_plane::console::serve(
        hyper::Method::GET,
        hyper::Uri::from_static("/"),
        hyper::HeaderMap::new(),
    )
    .await
    .status()
    .is_success()
}

/// Keeps the announcement true until dropped: process ids change when an agent is started again.
async fn announce(running: &Running, file: Option<PathBuf>) -> Result<(), Failure> {
    let Some(file) = file else {
        return std::future::pending().await;
    };
    let mut changes = running.agent_changes();
    loop {
        changes.borrow_and_update();
        let agents: Vec<_> = running
            .agent_pids()
            .into_iter()
            .map(|(site, pid)| json!({ "site": site, "pid": pid }))
            .collect();
        let text = json!({
            "url": running.url(), "account": running::ACCOUNT, "password": running.password(), "agents": agents,
        });
        write_private(&file, text.to_string().as_bytes())?;
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What the servers in this process have to say goes to a file: the terminal is for the person.
fn start_log(folder: &DataFolder) {
    use tracing_subscriber::EnvFilter;
    let Ok(file) = folder.log("muster").and_then(std::fs::File::create) else {
        return;
    };
    let filter = EnvFilter::try_from_env("MUSTER_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,rtc=error,webrtc=error"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(file)
        .try_init();
}

/// Ctrl-C or SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

//! The program `muster-edge`: reads its settings, starts one thread's worth of runtime and runs the agent.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use muster_edge::agent::EnrolmentError;
use muster_edge::agent::RECORDINGS;
use muster_edge::config::{Args, Config, Task};
use muster_edge::doctor;
use muster_edge::notify::Notifier;
use muster_edge::recorder::disk;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const FAILED: u8 = 1;
const BAD_SETTINGS: u8 = 2;
const NOT_ENROLLED: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.die_with_parent
        && let Err(error) = die_with_parent()
    {
        return fail(FAILED, &format!("cannot follow the parent process: {error}"));
    }
    if args.task == Some(Task::Recordings) {
        return match args.state_dir() {
            Ok(dir) => list_recordings(&dir.join(RECORDINGS)),
            Err(error) => fail(BAD_SETTINGS, &error.to_string()),
        };
    }
    let (task, print) = (args.task, args.print_config);
    let mut config = match Config::from_args(args) {
        Ok(config) => config,
        Err(error) => return fail(BAD_SETTINGS, &error.to_string()),
    };
    if print {
        print!("{}", config.to_toml());
        return ExitCode::SUCCESS;
    }
    let filter = match EnvFilter::try_new(&config.log) {
        Ok(filter) => filter,
        Err(error) => return fail(BAD_SETTINGS, &format!("log filter: {error}")),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &format!("cannot start: {error}")),
    };
    if let Some(Task::Doctor { json }) = task {
        let report = runtime.block_on(doctor::examine(&config));
        runtime.shutdown_background();
        return tell(&report, json);
    }
    config.notifier = Notifier::from_environment();
    let ended = runtime.block_on(async {
        let stop = stop_signal().map_err(|error| format!("cannot take signals: {error}"))?;
        // A task: what wakes the runtime's own future makes a system call for it.
        let agent = tokio::spawn(muster_edge::run(config, stop));
        agent.await.map_err(|error| error.to_string())
    });
    // A name look-up may still hold a thread: do not wait for it.
    runtime.shutdown_background();
    match ended {
        Ok(Ok(muster_edge::Ended::Stopped)) => ExitCode::SUCCESS,
        Ok(Err(error @ (EnrolmentError::NoToken(_) | EnrolmentError::Refused(_)))) => {
            fail(NOT_ENROLLED, &error.to_string())
        }
        Ok(Err(error)) => fail(FAILED, &error.to_string()),
        Err(error) => fail(FAILED, &error),
    }
}

/// A line each, oldest first: begin, end (UTC), size and path.
fn list_recordings(dir: &std::path::Path) -> ExitCode {
    let recordings = match disk::list(dir) {
        Ok(recordings) => recordings,
        Err(error) => return fail(FAILED, &format!("{}: {error}", dir.display())),
    };
    for one in recordings {
        let megabytes = one.bytes as f64 / 1e6;
        let going = if one.going { "  goes on" } else { "" };
        let path = dir.join(&one.name);
        println!(
            "{}  {}  {megabytes:.1} MB  {}{going}",
            disk::utc(one.from_ms),
            disk::utc(one.to_ms),
            path.display()
        );
    }
    ExitCode::SUCCESS
}

fn tell(report: &doctor::Report, json: bool) -> ExitCode {
    if json {
        match serde_json::to_string_pretty(report) {
            Ok(text) => println!("{text}"),
            Err(error) => return fail(FAILED, &error.to_string()),
        }
    } else {
        print!("{}", report.in_words());
    }
    ExitCode::from(if report.ok { 0 } else { FAILED })
}

fn fail(code: u8, why: &str) -> ExitCode {
    eprintln!("muster-edge: {why}");
    ExitCode::from(code)
}

/// Completes at Ctrl-C or SIGTERM.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Has the kernel send SIGTERM when the parent dies; a parent that died meanwhile is noticed too.
fn die_with_parent() -> Result<(), nix::Error> {
    let parent = nix::unistd::getppid();
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
    if nix::unistd::getppid() == parent {
        Ok(())
    } else {
        Err(nix::Error::ESRCH)
    }
}

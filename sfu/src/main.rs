//! The program `muster-sfu`: reads its configuration, starts a relay, and stops it when it is told to.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser;
use muster_sfu::{Flags, Relay};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muster-sfu: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let config = flags.into_config()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let relay = Relay::start(config).await?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    relay.shutdown().await;
    Ok(())
}

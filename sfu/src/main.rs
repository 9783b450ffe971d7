//! The program `muster-sfu`: reads its configuration, starts a relay, and stops it when it is told to.

use clap::Parser;
use muster_sfu::{Flags, Relay};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let config = Flags::parse().into_config()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let relay = Relay::start(config).await?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    relay.shutdown().await;
    Ok(())
}

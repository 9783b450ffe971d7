//! Wiring of the control plane: read the settings, start, wait for a signal, stop.

use anyhow::Context as _;
use clap::Parser as _;
use muster_control_plane::accounts::{NewAccount, add_account};
use muster_control_plane::config::{AccountCommand, Cli, Command, Config};
use muster_control_plane::store::Store;
use muster_control_plane::{ControlPlane, logging};
use muster_proto::command::v1::Role;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line for people, whatever RUST_BACKTRACE says.
            eprintln!("muster-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { settings, command } = cli;
    let filter = logging::filter(&std::env::var("MUSTER_LOG").unwrap_or_else(|_| "info".into()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let config = settings.resolve()?;
    match command {
        Some(Command::Account(command)) => account(config, command).await,
        None => serve(config).await,
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let control_plane = ControlPlane::start(config).await?;
    println!("console and API: {}", control_plane.url());
    println!("agents and relays: {}", control_plane.agents_addr());
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    control_plane.shutdown().await;
    Ok(())
}

async fn account(config: Config, command: AccountCommand) -> anyhow::Result<()> {
    let AccountCommand::Add {
        name,
        role,
        unit,
        display_name,
    } = command;
    let mut password = String::new();
    std::io::stdin()
        .read_line(&mut password)
        .context("cannot read the password from standard input")?;
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    std::fs::create_dir_all(&config.data_dir)?;
    let store = match &config.database_url {
        Some(url) => Store::connect(url.expose()).await?,
        None => Store::open(&config.data_dir).await?,
    };
    let display_name = display_name.unwrap_or_else(|| name.clone());
    let account = NewAccount::new(&name, &display_name, Role::from(role).into(), &unit)?;
    add_account(&store, &account, password).await?;
    store.close().await;
    println!("account {} is stored", account.name);
    Ok(())
}

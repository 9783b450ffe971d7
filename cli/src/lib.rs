//! The operator's command: what the console can do, for a terminal and for scripts, and `muster demo`, which
//! runs everything on one machine.
//!
//! Every command speaks the same gRPC as the console, with the rights of the account that is signed in;
//! nothing here reads the store or the identity folders of a running system. The exit codes are part of the
//! interface (see [`failure`]). The library target exists for `viewer`, which tests use too.

mod args;
mod client;
mod demo;
mod failure;
mod meeting;
mod output;
mod session;
mod site;
mod transport;
pub mod viewer;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, RelayCommand, SiteCommand};
use failure::Failure;

/// Runs the command line of this process to its end.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Refused(format!("cannot start the runtime: {error}")).report(),
    };
    let outcome = runtime.block_on(dispatch(cli));
    // What still runs now (a blocked read of a terminal) must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let Cli {
        access,
        output,
        command,
    } = cli;
    match command {
        Command::SignIn => session::sign_in(&access).await,
        Command::SignOut => session::sign_out(&access).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Site(command) => {
            let client = client::Client::open(&access).await?;
            let outcome = match command {
                SiteCommand::Import(options) => site::import(&client, options, output).await,
                SiteCommand::List(options) => site::list(&client, options, output).await,
                SiteCommand::Link(options) => site::link(&client, options, output, &access.server).await,
                SiteCommand::EnrolToken(options) => site::site_enrol_token(&client, options, output).await,
            };
            client.close().await;
            outcome
        }
        Command::Relay(RelayCommand::EnrolToken(options)) => {
            let client = client::Client::open(&access).await?;
            let outcome = site::relay_enrol_token(&client, options, output).await;
            client.close().await;
            outcome
        }
        Command::Convene(options) => {
            let client = client::Client::open(&access).await?;
            let outcome = meeting::convene(&client, options, output).await;
            client.close().await;
            outcome
        }
        Command::Status(options) => {
            let client = client::Client::open(&access).await?;
            let outcome = meeting::status(&client, options, output).await;
            client.close().await;
            outcome
        }
        Command::End(options) => {
            let client = client::Client::open(&access).await?;
            let outcome = meeting::end(&client, options, output).await;
            client.close().await;
            outcome
        }
    }
}

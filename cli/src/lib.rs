//! The operator's command: what the console can do, for a terminal and for scripts, and `muster demo`, which
//! runs everything on one machine.
//!
//! Every command speaks the same gRPC as the console, with the rights of the account that is signed in;
//! nothing here reads the store or the identity folders of a running system. The exit codes are part of the
//! interface (see [`failure`]). The library target exists for `viewer`, which tests use too.

mod account;
mod act;
mod args;
mod chain;
mod client;
mod demo;
mod event_json;
mod failure;
mod follow;
mod json;
mod log;
mod meeting;
mod output;
mod plan;
mod report;
mod reports;
mod session;
mod site;
mod transport;
pub mod viewer;
mod watch;
mod when;

use std::process::ExitCode;

use clap::Parser;

use args::{
    Access, Cli, Command, FloorCommand, Form, RelayCommand, ReportCommand, RollCallCommand, SiteCommand,
};
use client::Client;
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
        // By a person at a site, who has a link and no account.
        Command::Floor(FloorCommand::Request {
            link,
            withdraw,
            meeting,
        }) => act::request_floor(&access, &link, meeting, withdraw, output).await,
        Command::Report(ReportCommand::Send { link, text, id }) => {
            reports::send(&access, &link, text, id, output).await
        }
        command => {
            let client = client::Client::open(&access).await?;
            let outcome = signed_in(&client, &access, command, output).await;
            client.close().await;
            outcome
        }
    }
}

async fn signed_in(client: &Client, access: &Access, command: Command, form: Form) -> Result<(), Failure> {
    match command {
        Command::Site(SiteCommand::Import(options)) => site::import(client, options, form).await,
        Command::Site(SiteCommand::List(options)) => site::list(client, options, form).await,
        Command::Site(SiteCommand::Link(options)) => site::link(client, options, form, &access.server).await,
        Command::Site(SiteCommand::EnrolToken(options)) => {
            site::site_enrol_token(client, options, form).await
        }
        Command::Site(SiteCommand::Answer(options)) => plan::answer(client, options, form).await,
        Command::Relay(RelayCommand::EnrolToken(options)) => {
            site::relay_enrol_token(client, options, form).await
        }
        Command::Convene(options) => meeting::convene(client, *options, form).await,
        Command::Status(options) => meeting::status(client, options, form).await,
        Command::End(options) => meeting::end(client, options, form).await,
        Command::RollCall(RollCallCommand::Result { number, csv, which }) => {
            report::roll_call(client, which.meeting, number, csv, form).await
        }
        Command::Attendance(options) => report::attendance(client, options, form).await,
        Command::Preset(command) => plan::preset(client, command, form).await,
        Command::Schedule(command) => plan::schedule(client, command, form).await,
        Command::Drill(command) => plan::drill(client, command, form).await,
        Command::Report(ReportCommand::List { site, unit, limit }) => {
            reports::list(client, site, unit, limit, form).await
        }
        Command::Account(command) => account::account(client, command, form).await,
        Command::Refusals(options) => account::refusals(client, options, form).await,
        Command::Log(command) => log::log(client, command, form).await,
        Command::Watch(options) => follow::follow(client, options).await,
        verb => act::act(client, verb, form).await,
    }
}

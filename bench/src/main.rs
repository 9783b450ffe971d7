//! The program `muster-bench`: measures what the relay costs, under loads that are real to the last byte on the wire.
//!
//! The relay runs in a process of its own; this one plays its peers. Results are lines of JSON on standard output,
//! one a measurement; anything else goes to standard error.

mod args;
mod client;
mod crowd;
mod forward;
mod http;
mod keys;
mod offer;
mod picture;
mod procfs;
mod receive;
mod relay;
mod stats;
mod stun;
mod surge;
mod twcc;
mod viewer;

use args::{Cli, Command};
use clap::Parser;

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Forward(args) => forward::run(&args),
        Command::Surge(args) => surge::run(&args),
        Command::Relay(args) => relay::serve(&args),
    }
}

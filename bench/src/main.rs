//! The program `muster-bench`: measures what the relay and the control plane cost, under loads that are real to the last
//! byte on the wire.
//!
//! What is measured runs in a process of its own; this one plays its peers. Results are lines of JSON on standard output,
//! one a measurement; anything else goes to standard error.

mod args;
mod camera;
mod cascade;
mod churn;
mod client;
mod crowd;
mod edge;
mod flood;
mod forward;
mod http;
mod janus;
mod join;
mod keys;
mod link;
mod measure;
mod mesh;
mod peer;
mod picture;
mod plane;
mod procfs;
mod receive;
mod record;
mod relay;
mod rtcp;
mod sdp;
mod site_links;
mod stats;
mod stream;
mod stun;
mod surge;
mod trace;
mod twcc;

use args::{Cli, Command};
use clap::Parser;

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Forward(args) => forward::run(&args),
        Command::Surge(args) => surge::run(&args),
        Command::Churn(args) => churn::run(&args),
        Command::Flood(args) => flood::run(&args),
        Command::Mesh(args) => mesh::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Relay(args) => relay::serve(&args),
        Command::Convening(args) => plane::command(&args),
        Command::Watch(args) => plane::watch(&args),
        Command::Attach(args) => plane::attach(&args),
        Command::Import(args) => plane::import(&args),
        Command::Failover(args) => plane::failover(&args),
        Command::Edge(args) => edge::run(&args),
        Command::Link(args) => link::run(&args),
        Command::Cascade(args) => cascade::run(&args),
        Command::Plane(args) => plane::serve(&args),
    }
}

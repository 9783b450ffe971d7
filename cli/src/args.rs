//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_proto::command::v1::Tier;

use crate::failure::EXIT_CODES;

/// Convenes sites into a meeting, and runs everything for a demonstration.
#[derive(Parser)]
#[command(name = "muster", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub access: Access,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t = Form::Table)]
    pub output: Form,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the control plane is, and as whom to speak to it.
#[derive(Args, Clone)]
pub struct Access {
    /// Address of the control plane
    #[arg(
        long,
        global = true,
        env = "MUSTER_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub server: String,
    /// PEM file of the CA that an https control plane is to be trusted by: its DATA_DIR/ca/ca.pem (otherwise: the CAs of
    /// this system)
    #[arg(long, global = true, env = "MUSTER_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Sign in as this account for this command only (otherwise: the session of `muster sign-in`)
    #[arg(long, global = true, env = "MUSTER_ACCOUNT", value_name = "NAME")]
    pub account: Option<String>,
    /// File whose first line is the password (otherwise: MUSTER_PASSWORD, or asked for on a terminal)
    #[arg(long, global = true, env = "MUSTER_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Table,
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Sign in and keep the session for the next commands (needs --account)
    SignIn,
    /// End the kept session
    SignOut,
    /// The sites: import, list, let in
    #[command(subcommand)]
    Site(SiteCommand),
    /// The relays: let in
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Convene the chosen sites into a meeting, at once
    Convene(Convene),
    /// Show the meetings, or one meeting with every site's state and reason
    Status(Status),
    /// End a meeting
    End(End),
    /// Run the control plane, a relay, the console and agents on this machine
    Demo(Demo),
}

#[derive(Subcommand)]
pub enum SiteCommand {
    /// Import units and sites from a CSV: all or nothing, every bad line named
    Import(Import),
    /// List the sites and whether they are online
    List(List),
    /// Make a link that opens the join page for a site, without an account
    Link(Link),
    /// Make a one-time token with which an edge agent enrols for a site
    EnrolToken(EnrolToken),
}

#[derive(Subcommand)]
pub enum RelayCommand {
    /// Make a one-time token with which a relay enrols for a unit and what is under it
    EnrolToken(RelayEnrolToken),
}

#[derive(Args)]
pub struct RelayEnrolToken {
    pub unit: String,
    /// Hours that the token is good for
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
    pub valid_h: u32,
}

#[derive(Args)]
pub struct Import {
    /// CSV with the columns external_id,kind,tier,parent,name_zh,name_en,lat,lon,access,phase; `-` reads the input
    pub file: PathBuf,
    /// Only check the file, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args)]
pub struct List {
    /// Only the sites of this unit and of what is under it
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,
    /// Only sites that are online
    #[arg(long)]
    pub online: bool,
}

#[derive(Args)]
pub struct Link {
    pub site: String,
    /// Hours that the link is good for
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
    pub valid_h: u32,
}

#[derive(Args)]
pub struct EnrolToken {
    pub site: String,
    /// Hours that the token is good for
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
    pub valid_h: u32,
}

/// Tiers and tags narrow the subtrees where subtrees are given, and stand alone where not.
#[derive(Args)]
pub struct Convene {
    /// All sites of the unit and of what is under it; may be repeated
    #[arg(long, value_name = "UNIT")]
    pub subtree: Vec<String>,
    /// All sites of the tier: city, district, street or community; may be repeated
    #[arg(long, value_name = "TIER", value_parser = parse_tier)]
    pub tier: Vec<Tier>,
    /// The site; may be repeated
    #[arg(long, value_name = "SITE")]
    pub site: Vec<String>,
    /// All sites with the tag; may be repeated
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Not the sites of this unit and of what is under it; may be repeated
    #[arg(long, value_name = "UNIT")]
    pub exclude_subtree: Vec<String>,
    /// Not this site; may be repeated
    #[arg(long, value_name = "SITE")]
    pub exclude_site: Vec<String>,
    /// All sites that the account may convene
    #[arg(long, conflicts_with_all = ["subtree", "tier", "site", "tag"])]
    pub all: bool,
    /// Title of the meeting, shown to those who are called
    #[arg(long, default_value = "会议 Meeting")]
    pub title: String,
    /// Only show who would be called
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until all are on air, at most this long; exit code 4 if some are not
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30")]
    pub wait: Option<u32>,
}

#[derive(Args)]
pub struct Status {
    /// Id of the meeting
    pub meeting: Option<String>,
    /// Also meetings that have ended
    #[arg(long)]
    pub ended: bool,
}

#[derive(Args)]
pub struct End {
    /// Id of the meeting
    pub meeting: String,
}

#[derive(Args, Clone)]
pub struct Demo {
    /// How many of the 140 sites of the demonstration tree get an agent
    #[arg(long, env = "MUSTER_DEMO_SITES", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=140))]
    pub sites: u16,
    /// Folder of the data; made if missing [default: ./data/demo; with --check a temporary one]
    #[arg(long, env = "MUSTER_DEMO_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Address of the console; port 0 takes any [default: 127.0.0.1:8080; with --check any port]
    #[arg(long, env = "MUSTER_DEMO_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Start over: delete the data of the last time
    #[arg(long)]
    pub fresh: bool,
    /// Do the main job without a person, print the result as one JSON object and end
    #[arg(long)]
    pub check: bool,
    /// With --check: seconds to hold the meeting before every slot is verified again
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub hold_s: u16,
    /// Write the address, the account and the agents to this file once everything runs (mode 0600)
    #[arg(long, value_name = "FILE")]
    pub announce: Option<PathBuf>,
}

fn parse_tier(text: &str) -> Result<Tier, String> {
    match text {
        "city" => Ok(Tier::City),
        "district" => Ok(Tier::District),
        "street" => Ok(Tier::Street),
        "community" => Ok(Tier::Community),
        _ => Err("expected city, district, street or community".to_owned()),
    }
}

/// The word for a tier, as in the import and on the command line.
pub fn tier_name(tier: i32) -> &'static str {
    match Tier::try_from(tier) {
        Ok(Tier::City) => "city",
        Ok(Tier::District) => "district",
        Ok(Tier::Street) => "street",
        Ok(Tier::Community) => "community",
        Ok(Tier::Unspecified) | Err(_) => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn wait_may_stand_alone_or_with_seconds() {
        let wait = |line: &[&str]| match Cli::try_parse_from(line).map(|cli| cli.command) {
            Ok(Command::Convene(convene)) => convene.wait,
            _ => panic!("{line:?}"),
        };
        assert_eq!(wait(&["muster", "convene", "--all"]), None);
        assert_eq!(wait(&["muster", "convene", "--all", "--wait"]), Some(30));
        assert_eq!(wait(&["muster", "convene", "--wait", "5", "--all"]), Some(5));
    }

    #[test]
    fn all_excludes_a_narrower_choice() {
        assert!(Cli::try_parse_from(["muster", "convene", "--all", "--tier", "street"]).is_err());
    }
}

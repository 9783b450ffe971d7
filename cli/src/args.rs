//! The command line.

mod choose;
mod help;
mod office;
mod verbs;

pub use choose::{Choose, Which};
pub use office::*;
pub use verbs::*;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_proto::command::v1::Tier;

use crate::failure::EXIT_CODES;

/// Convenes sites into a meeting and runs it, for scripts and for people.
#[derive(Parser)]
#[command(name = "muster", version, help_template = help::TEMPLATE, after_help = EXIT_CODES, max_term_width = 110)]
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
    /// 召集: call the chosen sites into a meeting, at once
    #[command(after_help = help::CONVENE)]
    Convene(Box<Convene>),
    /// Show the meetings, or one meeting with every site's state and reason
    Status(Status),
    /// 呼叫未接通: call again those that are not on air, all or the named ones
    #[command(after_help = help::CONVENE)]
    CallUnconnected(SitesIfAny),
    /// Call further sites into a meeting
    #[command(after_help = help::CONVENE)]
    Add(Add),
    /// 挂断: take sites out of a meeting; they may be called again
    HangUp(Sites),
    /// 静音, 全体静音: close the microphones of sites, or of all
    #[command(after_help = help::STAGE)]
    Mute(SitesOrAll),
    /// 取消静音: open them again
    #[command(after_help = help::STAGE)]
    Unmute(SitesOrAll),
    /// 广播会场: bring a site to the large picture of everyone
    #[command(after_help = help::STAGE)]
    Broadcast(SiteOrOff),
    /// 观看会场: bring a site to the large picture of the chair alone
    #[command(after_help = help::STAGE)]
    WatchSite(SiteOrOff),
    /// Set the layout of every wall
    #[command(after_help = help::STAGE)]
    Layout(LayoutArgs),
    /// 轮巡: let the walls go round the sites by themselves
    #[command(subcommand, after_help = help::STAGE)]
    Polling(PollingCommand),
    /// 声控切换: the large picture follows who speaks
    #[command(after_help = help::STAGE)]
    VoiceSwitching(VoiceSwitching),
    /// Let a site, or a desk (desk:ACCOUNT), show content in its own place
    #[command(after_help = help::STAGE)]
    Content(SiteOrOff),
    /// 申请发言: who asks to speak, and who may
    #[command(subcommand, after_help = help::FLOOR)]
    Floor(FloorCommand),
    /// 点名: go through the roster, one site at a time
    #[command(subcommand, after_help = help::ROLL_CALL)]
    RollCall(RollCallCommand),
    /// 申请主席, 释放主席, 接管, 交还: who runs the meeting
    #[command(subcommand, after_help = help::CHAIR)]
    Chair(ChairCommand),
    /// 锁定会议: nobody new comes in
    Lock(Which),
    /// Let people in again
    Unlock(Which),
    /// 延长会议: let it end later
    Extend(Extend),
    /// End a meeting
    End(End),
    /// Who was on air when, with gaps
    #[command(after_help = help::ROLL_CALL)]
    Attendance(Attendance),
    /// Sets of sites with a stage, under a name
    #[command(subcommand, after_help = help::PLANS)]
    Preset(PresetCommand),
    /// Meetings and drills at a time
    #[command(subcommand, after_help = help::PLANS)]
    Schedule(ScheduleCommand),
    /// Is everybody ready? Checked without disturbing them
    #[command(subcommand, after_help = help::PLANS)]
    Drill(DrillCommand),
    /// 上报: what the front line raises: list, send
    #[command(subcommand)]
    Report(ReportCommand),
    /// Accounts, their roles and their sessions
    #[command(subcommand, after_help = help::ACCOUNTS)]
    Account(AccountCommand),
    /// What signed-in people were refused, newest first
    Refusals(Refusals),
    /// The log: read it, prove that it is whole, see a meeting as it was
    #[command(subcommand, after_help = help::LOG)]
    Log(LogCommand),
    /// Follow everything that happens, a line of JSON each
    #[command(after_help = help::LOG)]
    Watch(Follow),
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
    /// Set how the endpoints of sites answer a call
    Answer(Answer),
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
    fn no_argument_of_a_command_takes_the_place_of_one_for_all() {
        use clap::CommandFactory;
        fn check(command: &clap::Command, global: &[String], path: &str) {
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_global_set())
            {
                let id = argument.get_id().to_string();
                assert!(!global.contains(&id), "{path}: {id}");
            }
            for below in command.get_subcommands() {
                check(below, global, &format!("{path} {}", below.get_name()));
            }
        }
        let command = Cli::command();
        let all = command
            .get_arguments()
            .filter(|argument| argument.is_global_set());
        let global: Vec<_> = all.map(|argument| argument.get_id().to_string()).collect();
        assert!(global.contains(&"account".to_owned()));
        check(&command, &global, "muster");
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

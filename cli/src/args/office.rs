//! What is prepared, who may what, and the log.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use muster_proto::command::v1::{AnswerPolicy, Layout, Repeat, Role};

use super::choose::Choose;
use super::verbs::{Manner, page_seconds, parse_layout};
use crate::when::When;

#[derive(Subcommand)]
pub enum PresetCommand {
    /// The saved ones
    List,
    /// Save sites and a stage under a name
    Save(Box<PresetSave>),
    /// Remove one; schedules that use it have to go first
    Delete {
        /// Id of the preset
        preset: String,
    },
    /// 召集: call what is saved
    Convene {
        /// Id of the preset
        preset: String,
        /// Wait until all are on air, at most this long; exit code 4 if some are not
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30")]
        wait: Option<u32>,
    },
}

#[derive(Args)]
pub struct PresetSave {
    /// Name of the preset
    pub name: String,
    /// Unit that it belongs to
    #[arg(long)]
    pub unit: String,
    /// Id of the one to replace [default: a new one]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub id: String,
    #[command(flatten)]
    pub choose: Choose,
    #[command(flatten)]
    pub manner: Manner,
    /// Layout of every wall: 1, 1+7, 4, 9, 16, 25, 36, 49 or own
    #[arg(long, default_value = "own", value_parser = parse_layout)]
    pub layout: Layout,
    /// Site on the large picture from the start
    #[arg(long, value_name = "SITE", default_value = "", hide_default_value = true)]
    pub broadcast: String,
    /// All microphones muted from the start
    #[arg(long)]
    pub mute_all: bool,
    /// Voice switching from the start
    #[arg(long)]
    pub voice_switching: bool,
    /// Polling from the start, with so many seconds a page, 5 to 600 [default: none]
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true, value_parser = page_seconds)]
    pub polling: u32,
}

#[derive(Subcommand)]
pub enum ScheduleCommand {
    /// What is planned, and what became of it the last time
    List,
    /// Convene a preset, or drill its sites, at a time
    Save(ScheduleSave),
    /// Remove one; meetings that it convened go on
    Delete {
        /// Id of the schedule
        schedule: String,
    },
}

#[derive(Args)]
pub struct ScheduleSave {
    /// Id of the preset
    #[arg(long)]
    pub preset: String,
    /// When: `2026-02-05T14:00+08:00`, `2026-02-05 06:00Z` (without a zone it is that of this machine), or from now: `+30m`, `+4h`, `+2d`
    #[arg(long, value_name = "TIME")]
    pub at: When,
    #[arg(long, value_enum, default_value_t = RepeatWord::Once)]
    pub repeat: RepeatWord,
    /// A silent drill instead of a meeting
    #[arg(long)]
    pub drill: bool,
    /// Id of the one to replace [default: a new one]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub id: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RepeatWord {
    Once,
    Daily,
    Weekly,
}

impl From<RepeatWord> for Repeat {
    fn from(word: RepeatWord) -> Self {
        match word {
            RepeatWord::Once => Self::Once,
            RepeatWord::Daily => Self::Daily,
            RepeatWord::Weekly => Self::Weekly,
        }
    }
}

#[derive(Subcommand)]
pub enum DrillCommand {
    /// Check link, camera, microphone and clock of sites; nobody notices
    Start {
        #[command(flatten)]
        choose: Choose,
        /// The sites of this preset
        #[arg(long, value_name = "PRESET", default_value = "", hide_default_value = true)]
        preset: String,
        /// Wait until it has ended, and show the result
        #[arg(long)]
        wait: bool,
    },
    /// What a drill found
    Result {
        /// Id of the drill [default: the newest]
        drill: Option<String>,
    },
}

#[derive(Subcommand)]
pub enum ReportCommand {
    /// What sites have reported, newest first
    List {
        /// Only of this site
        #[arg(long, value_name = "SITE", default_value = "", hide_default_value = true)]
        site: String,
        /// Only of this unit's sites and those below
        #[arg(long, value_name = "UNIT", default_value = "", hide_default_value = true)]
        unit: String,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Report something as a person at a site, by its link; no account is needed
    Send {
        /// The link with which the site takes part, as `muster site link` gives it
        #[arg(long, value_name = "URL")]
        link: String,
        /// 1 to 500 characters
        text: String,
        /// Name of the report; the same again stores nothing [default: a new one]
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
}

#[derive(Args)]
pub struct Answer {
    #[arg(value_enum)]
    pub policy: PolicyWord,
    #[command(flatten)]
    pub choose: Choose,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyWord {
    /// Every endpoint answers by itself
    Auto,
    /// Every endpoint rings until a person answers
    Ring,
    /// Agents by themselves, browsers by a person
    Default,
}

impl From<PolicyWord> for AnswerPolicy {
    fn from(word: PolicyWord) -> Self {
        match word {
            PolicyWord::Auto => Self::Auto,
            PolicyWord::Ring => Self::Ring,
            PolicyWord::Default => Self::Unspecified,
        }
    }
}

#[derive(Subcommand)]
pub enum AccountCommand {
    /// Those on the account's units, with their roles
    List,
    /// Add an account, or give it another name or password
    Put {
        name: String,
        /// Shown to others
        #[arg(long, default_value = "", hide_default_value = true)]
        display_name: String,
        /// File whose first line is the new password; `-` reads the input
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// Give a role on a unit and what is under it, for good or until a time
    Grant {
        name: String,
        #[arg(value_enum)]
        role: RoleWord,
        unit: String,
        /// When it ends: `2026-02-05T18:00+08:00`, or from now: `+4h`
        #[arg(long, value_name = "TIME")]
        until: Option<When>,
    },
    /// Take a role on a unit away, at once
    Revoke {
        name: String,
        #[arg(value_enum)]
        role: RoleWord,
        unit: String,
    },
    /// The sessions of an account [default: of the own one]
    Sessions {
        #[arg(default_value = "", hide_default_value = true)]
        name: String,
    },
    /// End sessions of an account [default: of the own one, but for this]
    EndSessions {
        #[arg(default_value = "", hide_default_value = true)]
        name: String,
        /// Only this one, by its id
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        session: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleWord {
    Commander,
    DutyOfficer,
    Engineer,
    Auditor,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Commander => Self::Commander,
            RoleWord::DutyOfficer => Self::DutyOfficer,
            RoleWord::Engineer => Self::Engineer,
            RoleWord::Auditor => Self::Auditor,
        }
    }
}

#[derive(Args)]
pub struct Refusals {
    /// The newest so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

#[derive(Subcommand)]
pub enum LogCommand {
    /// The events of a stream: a meeting's id, or unit:ID
    Read {
        stream: String,
        /// Only those after this one
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
    },
    /// Prove that nothing was altered: the server recomputes the hash chains, and this program does too
    Verify {
        /// One stream [default: all that the account may read]
        stream: Option<String>,
        /// Hash of an event that was noted elsewhere: it must still be in the stream's chain
        #[arg(long, value_name = "HASH", requires = "stream")]
        head: Option<String>,
        /// Print each stream with its last number and hash, to be kept where nobody can alter it
        #[arg(long, conflicts_with_all = ["head", "against"])]
        print_heads: bool,
        /// Heads that were printed and kept: each must still be in its stream's chain
        #[arg(long, value_name = "FILE", conflicts_with = "head")]
        against: Option<PathBuf>,
    },
    /// A meeting as it was
    Replay {
        /// Id of the meeting; not needed where exactly one is live
        meeting: Option<String>,
        /// After the last event at or before this time; without a zone it is that of this machine
        #[arg(long, value_name = "TIME", conflicts_with = "seq")]
        at: Option<When>,
        /// After this event, from 1
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        seq: Option<u64>,
    },
}

#[derive(Args)]
pub struct Follow {
    /// Keeps what was told last in this file, and goes on after it the next time
    #[arg(long, value_name = "FILE")]
    pub cursor: Option<PathBuf>,
    /// Only this unit and what is under it; may be repeated
    #[arg(long, value_name = "UNIT")]
    pub unit: Vec<String>,
}

//! The verbs of a meeting, in the words of the trade.

use clap::{Args, Subcommand, ValueEnum};
use muster_proto::command::v1::{Fallback, Layout, Priority};

use super::choose::{Choose, Which};

/// How a meeting is convened, beside who is called.
#[derive(Args)]
pub struct Manner {
    /// Title of the meeting, shown to those who are called [default: 会议 Meeting, or that of the preset]
    #[arg(long)]
    pub title: Option<String>,
    /// A higher priority takes sites out of meetings of lower ones, and gives them back
    #[arg(long, value_enum)]
    pub priority: Option<PriorityWord>,
    /// Sites that are still under way after so long come to their end; 86400 at most [default: each step's own time]
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub deadline: u32,
    /// The meeting ends by itself after so long; 10080 at most [default: never]
    #[arg(long, value_name = "MINUTES", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=10_080))]
    pub minutes: u32,
    /// What to do where a site answers and no picture comes: `audio` calls it again for sound alone
    #[arg(long, value_enum)]
    pub fallback: Option<FallbackWord>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum PriorityWord {
    Routine,
    Urgent,
    Emergency,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FallbackWord {
    None,
    Audio,
}

impl Manner {
    pub fn priority(&self) -> i32 {
        let word = match self.priority {
            None => Priority::Unspecified,
            Some(PriorityWord::Routine) => Priority::Routine,
            Some(PriorityWord::Urgent) => Priority::Urgent,
            Some(PriorityWord::Emergency) => Priority::Emergency,
        };
        word.into()
    }

    pub fn fallback(&self) -> i32 {
        let word = match self.fallback {
            None => Fallback::Unspecified,
            Some(FallbackWord::None) => Fallback::None,
            Some(FallbackWord::Audio) => Fallback::Audio,
        };
        word.into()
    }
}

#[derive(Args)]
pub struct Convene {
    #[command(flatten)]
    pub choose: Choose,
    #[command(flatten)]
    pub manner: Manner,
    /// Convene what is saved under this id; what else is given wins over it
    #[arg(long, value_name = "PRESET")]
    pub preset: Option<String>,
    /// Only show who would be called
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until every site is on air or has come to another end, at most this long; exit code 4 if some are not on air
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30")]
    pub wait: Option<u32>,
}

/// Some sites of a meeting, or all.
#[derive(Args)]
pub struct SitesOrAll {
    /// The sites
    #[arg(required_unless_present = "all")]
    pub sites: Vec<String>,
    /// All sites of the meeting
    #[arg(long, conflicts_with = "sites")]
    pub all: bool,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Args)]
pub struct Sites {
    /// The sites
    #[arg(required = true)]
    pub sites: Vec<String>,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Args)]
pub struct SitesIfAny {
    /// The sites; none: all that are meant by it
    pub sites: Vec<String>,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Args)]
pub struct SiteOrOff {
    /// The site
    #[arg(required_unless_present = "off")]
    pub site: Option<String>,
    /// Take it back
    #[arg(long, conflicts_with = "site")]
    pub off: bool,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Args)]
pub struct Add {
    #[command(flatten)]
    pub choose: Choose,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Args)]
pub struct Extend {
    /// Later than its end, or than now where it has none
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_080))]
    pub minutes: u32,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Args)]
pub struct LayoutArgs {
    /// Pictures on every wall: 1, 1+7, 4, 9, 16, 25, 36 or 49; `own`: each wall as it likes
    #[arg(value_parser = parse_layout)]
    pub layout: Layout,
    #[command(flatten)]
    pub which: Which,
}

/// Seconds that a site has to answer a roll call, as the server takes them.
fn answer_seconds(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(seconds @ (0 | 3..=120)) => Ok(seconds),
        _ => Err("expected 3 to 120 seconds, or 0".to_owned()),
    }
}

/// Seconds of a page of the polling, as the server takes them.
pub fn page_seconds(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(seconds @ (0 | 5..=600)) => Ok(seconds),
        _ => Err("expected 5 to 600 seconds".to_owned()),
    }
}

pub fn parse_layout(text: &str) -> Result<Layout, String> {
    match text {
        "own" => Ok(Layout::Unspecified),
        "1" => Ok(Layout::Layout1),
        "1+7" => Ok(Layout::Layout17),
        "4" => Ok(Layout::Layout4),
        "9" => Ok(Layout::Layout9),
        "16" => Ok(Layout::Layout16),
        "25" => Ok(Layout::Layout25),
        "36" => Ok(Layout::Layout36),
        "49" => Ok(Layout::Layout49),
        _ => Err("expected 1, 1+7, 4, 9, 16, 25, 36, 49 or own".to_owned()),
    }
}

/// The word for a layout, as on the command line.
pub fn layout_word(layout: Layout) -> &'static str {
    match layout {
        Layout::Unspecified => "own",
        Layout::Layout1 => "1",
        Layout::Layout17 => "1+7",
        Layout::Layout4 => "4",
        Layout::Layout9 => "9",
        Layout::Layout16 => "16",
        Layout::Layout25 => "25",
        Layout::Layout36 => "36",
        Layout::Layout49 => "49",
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Args)]
pub struct VoiceSwitching {
    #[arg(value_enum)]
    pub switch: Switch,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Subcommand)]
pub enum ChairCommand {
    /// 申请主席: ask for the chair, or take the request back
    Request {
        #[arg(long)]
        withdraw: bool,
        #[command(flatten)]
        which: Which,
    },
    /// 释放主席: give the chair up
    Release(Which),
    /// Give the chair to an account that asked for it
    Give {
        // Not `account`: that is the account of the command line.
        #[arg(value_name = "ACCOUNT")]
        name: String,
        #[command(flatten)]
        which: Which,
    },
    /// Refuse an account that asked for it
    Refuse {
        // Not `account`: that is the account of the command line.
        #[arg(value_name = "ACCOUNT")]
        name: String,
        #[command(flatten)]
        which: Which,
    },
    /// 接管: take over a meeting of a unit below
    TakeOver(Which),
    /// 交还: hand back what was taken over
    HandBack(Which),
}

#[derive(Subcommand)]
pub enum PollingCommand {
    /// Start, or go on with another time or size
    On {
        /// Time of a page, 5 to 600 [default: 10]
        #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true, value_parser = page_seconds)]
        interval: u32,
        /// Pictures on a page [default: of the layout]
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=49))]
        per_page: u32,
        #[command(flatten)]
        which: Which,
    },
    /// End it
    Off(Which),
    /// Hold this page
    Pause(Which),
    /// Go on after a pause
    Resume(Which),
    /// Turn to the next page, or to the one before
    Turn {
        #[arg(value_enum, default_value_t = Direction::Next)]
        to: Direction,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    Next,
    Previous,
}

#[derive(Subcommand)]
pub enum FloorCommand {
    /// Who has the floor, and who asks for it, in order
    List(Which),
    /// 申请发言: ask for the floor as a person at a site, by its link; no account is needed
    Request {
        /// The link with which the site takes part, as `muster site link` gives it
        #[arg(long, value_name = "URL")]
        link: String,
        /// Take the request, or the floor, back
        #[arg(long)]
        withdraw: bool,
        /// Id of the meeting
        #[arg(long, short)]
        meeting: String,
    },
    /// Open a site's microphone, for a time or until it is taken
    Grant {
        site: String,
        /// How long; 86400 at most, 0: without end
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=86_400))]
        seconds: u32,
        #[command(flatten)]
        which: Which,
    },
    /// Take the floor from a site, or refuse its request
    Take {
        site: String,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Subcommand)]
pub enum RollCallCommand {
    /// Begin: the whole roster, or the named sites, one at a time
    Start {
        sites: Vec<String>,
        /// Time that each site has to answer, 3 to 120; 0: until `next`
        #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = answer_seconds)]
        answer: u32,
        #[command(flatten)]
        which: Which,
    },
    /// Go on to the next site, or to the named one
    Next {
        site: Option<String>,
        #[command(flatten)]
        which: Which,
    },
    /// A person was heard at the site that is called
    Acknowledge {
        site: String,
        #[command(flatten)]
        which: Which,
    },
    /// End it before all were called
    End(Which),
    /// What it found; also of a meeting that has ended
    Result {
        /// Of which roll call of the meeting, from 1 [default: the last]
        #[arg(long, value_name = "N")]
        number: Option<u32>,
        /// As CSV
        #[arg(long)]
        csv: bool,
        #[command(flatten)]
        which: Which,
    },
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
    /// Id of the meeting; not needed where exactly one is live
    pub meeting: Option<String>,
}

#[derive(Args)]
pub struct Attendance {
    /// Id of the meeting, also of one that has ended; not needed where exactly one is live
    pub meeting: Option<String>,
    /// As CSV, a line for each time that a site was on air
    #[arg(long)]
    pub csv: bool,
}

//! What an agent is told at its start: flags over environment over one TOML file over defaults.

mod checks;
mod places;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Parser, Subcommand};
use muster_identity::EnrolToken;
use muster_testcard::PictureSize;
use serde::Deserialize;
use tokio::sync::watch;

use crate::notify::Notifier;
use crate::publisher::capture::Capture;
use crate::publisher::rtsp::{CameraAddress, NoAddress};
use crate::recorder::Limits;
use crate::status::Status;

use checks::{KEEP_FREE_MIB, MIB, addresses, interfaces, log_filter, page, recordings, utc_offset};
use places::Places;

/// The flags and the environment.
#[derive(Parser)]
#[command(name = "muster-edge", version, about = "The edge agent of a site: joins the meetings that its site is summoned to.",
    after_long_help = TEACHING)]
pub struct Args {
    #[command(subcommand)]
    pub task: Option<Task>,
    /// Address of the control plane's port for agents, HOST:PORT; of several replicas, more of them, by comma or one flag each.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "MUSTER_CONTROL_PLANE",
        value_delimiter = ','
    )]
    pub control_plane: Vec<String>,
    /// Folder of the agent's certificate and key; made and filled at the first start.
    #[arg(long, global = true, value_name = "DIR", env = "MUSTER_IDENTITY")]
    pub identity: Option<PathBuf>,
    /// One-time token for the first start, met1.SECRET.FINGERPRINT. Better by the environment, where `ps` does not show it.
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "MUSTER_ENROL_TOKEN",
        hide_env_values = true
    )]
    pub enrol_token: Option<String>,
    /// What to publish: testcard[:180p5|360p15|720p30|1080p30], the main stream of a network camera, rtsp://NAME:PASSWORD@HOST/PATH (better
    /// by the environment or in the file, where `ps` does not show it), a camera at the box, v4l2:/dev/video0, or `page`: camera and
    /// microphone of the browser at the box that shows the agent's own page, and with it the meeting.
    #[arg(
        long,
        global = true,
        value_name = "SOURCE",
        env = "MUSTER_SOURCE",
        hide_env_values = true
    )]
    pub source: Option<String>,
    /// The sub stream of the same network camera, rtsp://…: the small layer of its picture.
    #[arg(
        long,
        global = true,
        value_name = "SOURCE",
        env = "MUSTER_SOURCE_LOW",
        hide_env_values = true
    )]
    pub source_low: Option<String>,
    /// ALSA device of the microphone beside a camera at the box, such as `default` or `hw:1`.
    #[arg(long, global = true, value_name = "DEVICE", env = "MUSTER_MICROPHONE")]
    pub microphone: Option<String>,
    /// Write the agent's state here as JSON, each second and on change; `-` prints a line for each change.
    #[arg(long, global = true, value_name = "FILE", env = "MUSTER_STATUS")]
    pub status: Option<PathBuf>,
    /// Read settings from this TOML file.
    #[arg(long, global = true, value_name = "FILE", env = "MUSTER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder of what people at the site wrote and is not sent yet [default: the identity folder].
    #[arg(long, global = true, value_name = "DIR", env = "MUSTER_STATE")]
    pub state: Option<PathBuf>,
    /// Where the site's own page is served: HOST:PORT, or `off`; other machines than this box can only read it [default:
    /// 127.0.0.1:8088, this box alone].
    #[arg(long, global = true, value_name = "HOST:PORT", env = "MUSTER_PAGE")]
    pub page: Option<String>,
    /// Network interface that the link goes over, such as `eth0`; given twice, the second is kept warm and used when nothing comes
    /// back over the first [default: as the system routes].
    #[arg(
        long,
        global = true,
        value_name = "INTERFACE",
        env = "MUSTER_UPLINK",
        value_delimiter = ','
    )]
    pub uplink: Vec<String>,
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as `muster_edge=debug`.
    #[arg(long, global = true, value_name = "FILTER", env = "MUSTER_LOG")]
    pub log: Option<String>,
    /// End when the process that started this one dies.
    #[arg(long)]
    pub die_with_parent: bool,
    /// Print the settings as they came together from flags, environment, file and defaults, and end. Secrets are left out.
    #[arg(long)]
    pub print_config: bool,
}

/// What to do instead of running the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Task {
    /// List what was recorded here while the link was away: begin, end, size, file
    Recordings,
    /// Look at certificate, names, control plane, clock, UDP, TCP and camera, and say in plain words what is wrong; ends with 1 if
    /// anything is. Takes the same settings as the agent.
    Doctor {
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
    },
}

const TEACHING: &str = "\
First start: ask an engineer for the site's token (one-time), then
  MUSTER_ENROL_TOKEN=met1.... muster-edge --control-plane 10.0.0.5:8443 --identity /var/lib/muster/edge
Every later start needs no token: the certificate is in the identity folder.

Settings can stand in a file (--config edge.toml); flags and environment win over it:
  control_plane = \"10.0.0.5:8443\"     # or [\"10.0.0.5:8443\", \"10.0.0.6:8443\"]: where one dies the next is taken
  identity_dir = \"/var/lib/muster/edge\"
  source = \"rtsp://admin:secret@192.168.1.64/main\"     # H.264; or \"testcard:180p5\"
  source_low = \"rtsp://admin:secret@192.168.1.64/sub\"
  status_file = \"/run/muster/edge.json\"
  state_dir = \"/var/lib/muster/edge\"     # reports that wait to be sent
  page = \"127.0.0.1:8088\"     # http://localhost:8088 on the box: how the link fares, and a form for reports
  recordings_mib = 2048     # what is recorded here while the link is away in a meeting; 0: nothing
  keep_free_mib = 1024     # of the disk, whatever is recorded
  uplink = [\"eth0\", \"wwan0\"]     # the link goes over the first; the second is kept warm, and taken when nothing comes back
  log = \"info\"
  utc_offset_minutes = 480     # the clock in the picture
A browser at the box as camera, microphone and screen (deploy/muster-edge-page.service opens it):
  source = \"page\"
A camera at the box is captured by ffmpeg:
  source = \"v4l2:/dev/video0\"
  microphone = \"default\"
  [capture]
  size = \"1280x720\"
  fps = 25
  kbps = 2000
  input = [\"-f\", \"v4l2\", \"-i\", \"/dev/video0\"]     # ffmpeg's arguments, where the usual ones do not do; so microphone_input

Something does not work: muster-edge --config edge.toml doctor

Exit codes: 0 ended by Ctrl-C or SIGTERM, 1 failure (doctor: something is wrong), 2 bad settings or a source that this version has not,
3 enrolment refused (ask for a new token).";

/// The TOML file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSettings {
    #[serde(default, deserialize_with = "one_or_more")]
    control_plane: Vec<String>,
    identity_dir: Option<PathBuf>,
    source: Option<String>,
    source_low: Option<String>,
    microphone: Option<String>,
    capture: Option<CaptureSettings>,
    status_file: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    page: Option<String>,
    recordings_mib: Option<i64>,
    keep_free_mib: Option<i64>,
    #[serde(default, deserialize_with = "one_or_more")]
    uplink: Vec<String>,
    log: Option<String>,
    utc_offset_minutes: Option<i64>,
}

/// How a camera at the box is captured.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptureSettings {
    size: Option<String>,
    fps: Option<u32>,
    kbps: Option<u32>,
    program: Option<PathBuf>,
    input: Option<Vec<String>>,
    microphone_input: Option<Vec<String>>,
}

/// Everything that an agent needs to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST:PORT` of each replica, at least one; the first is tried first.
    pub control_plane: Vec<String>,
    pub identity_dir: PathBuf,
    pub enrol_token: Option<EnrolToken>,
    pub source: Source,
    /// `-` is standard output.
    pub status: Option<PathBuf>,
    /// Where reports wait until they are sent; none: nothing is written there, and no report can be kept.
    pub state_dir: Option<PathBuf>,
    /// Where the site's own page is served; none: nowhere.
    pub page: Option<SocketAddr>,
    /// How much the recordings of outages may take, in the folder `recordings` of the state folder; none: nothing is
    /// recorded.
    pub recordings: Option<Limits>,
    /// Network interfaces that the link goes over, in the order of preference; none: the system's routes decide.
    pub uplinks: Vec<String>,
    /// Where a program that runs the agent in itself reads its state.
    pub watchers: Option<watch::Sender<Status>>,
    pub log: String,
    pub utc_offset_minutes: i32,
    /// Who started the agent and wants to hear that it lives.
    pub notifier: Option<Notifier>,
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    TestCard(PictureSize),
    /// The streams of a network camera, the smallest first.
    Rtsp(Vec<CameraAddress>),
    /// A camera and a microphone at the box.
    Capture(Box<Capture>),
    /// Those of the browser that shows the agent's own page.
    Page,
}

/// Settings that cannot be used, in words that say what was expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "{0}: not in this version; the sources are testcard[:180p5|360p15|720p30|1080p30], rtsp://…, v4l2:/dev/videoN and page"
    )]
    SourceNotYet(&'static str),
    #[error(
        "unknown source: expected testcard[:180p5|360p15|720p30|1080p30], rtsp://…, v4l2:/dev/videoN or page"
    )]
    UnknownSource,
    #[error("source: {0}")]
    Camera(#[from] NoAddress),
    #[error("source_low: only a network camera has a second stream, where source is rtsp://… too")]
    NoSecondStream,
    #[error("microphone and [capture]: only of a camera at the box, where source is v4l2:/dev/videoN")]
    NoCapture,
    #[error("capture.{0}: expected {1}")]
    Capture(&'static str, &'static str),
    #[error("source: {0}")]
    Size(#[from] muster_testcard::UnknownSize),
    #[error("missing {0}: give it by flag, environment or in the file (see muster-edge --help)")]
    Missing(&'static str),
    #[error("control plane: expected HOST:PORT, such as 10.0.0.5:8443")]
    Address,
    #[error(
        "page: the source `page` needs the page that it is named after: expected HOST:PORT instead of off"
    )]
    NoPage,
    #[error(
        "page: the source `page` needs a page that a browser on the box opens as localhost: expected 127.0.0.1:PORT or 0.0.0.0:PORT"
    )]
    PageNotHere,
    #[error("page: expected HOST:PORT with a number for the host, such as 127.0.0.1:8088, or off")]
    Page,
    #[error("uplink `{0}`: expected the name of a network interface, 1 to 15 bytes, such as eth0, each once")]
    Uplink(String),
    #[error("{key}: found `{found}`, expected {expected}")]
    Range {
        key: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error("{0}")]
    Token(String),
    #[error("{file}: {why}")]
    File { file: PathBuf, why: String },
}

impl FromStr for Source {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (kind, rest) = text
            .split_once(':')
            .map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("testcard", None) => Ok(Self::TestCard(PictureSize::P180_5)),
            ("testcard", Some(size)) => Ok(Self::TestCard(size.parse()?)),
            ("v4l2", Some(device)) if device.starts_with('/') => {
                Ok(Self::Capture(Box::new(Capture::new(device.into()))))
            }
            // The address may hold a password: it is not repeated.
            ("rtsps", _) => Err(ConfigError::SourceNotYet("source rtsps (RTSP over TLS)")),
            ("rtsp", _) => Ok(Self::Rtsp(vec![text.parse()?])),
            ("page", None) => Ok(Self::Page),
            _ => Err(ConfigError::UnknownSource),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TestCard(size) => write!(f, "testcard:{size}"),
            Self::Rtsp(streams) => match streams.last() {
                Some(main) => main.fmt(f),
                None => f.write_str("rtsp"),
            },
            Self::Capture(capture) => write!(f, "v4l2:{}", capture.device.display()),
            Self::Page => f.write_str("page"),
        }
    }
}

impl Source {
    /// With the second, smaller stream.
    fn with_low(self, low: Option<&str>) -> Result<Self, ConfigError> {
        match (self, low) {
            (source, None) => Ok(source),
            (Self::Rtsp(mut streams), Some(low)) => {
                streams.insert(0, low.parse()?);
                Ok(Self::Rtsp(streams))
            }
            (_, Some(_)) => Err(ConfigError::NoSecondStream),
        }
    }

    /// With how it is captured.
    fn captured(
        mut self,
        microphone: Option<String>,
        settings: Option<CaptureSettings>,
    ) -> Result<Self, ConfigError> {
        match &mut self {
            Self::Capture(capture) => {
                capture.microphone = microphone.filter(|device| !device.is_empty());
                settings.unwrap_or_default().apply(capture)?;
            }
            _ if microphone.is_some() || settings.is_some() => return Err(ConfigError::NoCapture),
            _ => {}
        }
        Ok(self)
    }
}

impl CaptureSettings {
    fn apply(self, capture: &mut Capture) -> Result<(), ConfigError> {
        if let Some(size) = &self.size {
            let wrong = || ConfigError::Capture("size", "WIDTHxHEIGHT in pixels, such as \"1280x720\"");
            let (width, height) = size.split_once('x').ok_or_else(wrong)?;
            let pixels = |text: &str| text.parse().ok().filter(|pixels| (16..=7680).contains(pixels));
            (capture.width, capture.height) = (
                pixels(width).ok_or_else(wrong)?,
                pixels(height).ok_or_else(wrong)?,
            );
        }
        if let Some(fps) = self.fps {
            let known = (1..=120).contains(&fps);
            capture.fps = known
                .then_some(fps)
                .ok_or(ConfigError::Capture("fps", "1 to 120 pictures a second"))?;
        }
        if let Some(kbps) = self.kbps {
            let known = (50..=50_000).contains(&kbps);
            capture.kbps = known
                .then_some(kbps)
                .ok_or(ConfigError::Capture("kbps", "50 to 50000 kbit/s"))?;
        }
        if let Some(program) = self.program {
            capture.program = program;
        }
        (capture.input, capture.microphone_input) = (self.input, self.microphone_input);
        Ok(())
    }
}

impl Config {
    /// Joins flags, environment (both in `args`), file and defaults.
    ///
    /// # Errors
    /// [`ConfigError`], for the first thing that cannot be used.
    pub fn from_args(args: Args) -> Result<Self, ConfigError> {
        let places = Places::of(&args)?;
        let file = places.settings()?;
        Self::join(args, file).map_err(|error| places.find(error))
    }

    fn join(args: Args, file: FileSettings) -> Result<Self, ConfigError> {
        let control_plane = addresses(if args.control_plane.is_empty() {
            file.control_plane
        } else {
            args.control_plane
        })?;
        let identity_dir = args
            .identity
            .or(file.identity_dir)
            .ok_or(ConfigError::Missing("identity folder"))?;
        let state_dir = args.state.or(file.state_dir);
        // What the file says of its own source does not hold for another.
        let own = args.source.is_none();
        let low = args.source_low.or(file.source_low.filter(|_| own));
        let source = args.source.or(file.source);
        let source = source.as_deref().unwrap_or("testcard").parse::<Source>();
        let source = source.and_then(|source| {
            let suits = own || matches!(source, Source::Capture(_));
            let microphone = args.microphone.or(file.microphone.filter(|_| suits));
            source
                .with_low(low.as_deref())?
                .captured(microphone, file.capture.filter(|_| suits))
        });
        let source = source?;
        let page = page(args.page.or(file.page).as_deref())?;
        if source == Source::Page {
            let at = page.ok_or(ConfigError::NoPage)?.ip().to_canonical();
            if !at.is_loopback() && !at.is_unspecified() {
                return Err(ConfigError::PageNotHere);
            }
        }
        let token = args.enrol_token.filter(|token| !token.trim().is_empty());
        Ok(Self {
            control_plane,
            state_dir: state_dir.or_else(|| Some(identity_dir.clone())),
            identity_dir,
            recordings: recordings(file.recordings_mib, file.keep_free_mib)?,
            page,
            uplinks: interfaces(if args.uplink.is_empty() {
                file.uplink
            } else {
                args.uplink
            })?,
            enrol_token: token
                .map(|token| token.trim().parse())
                .transpose()
                .map_err(|error: muster_identity::EnrolError| ConfigError::Token(error.to_string()))?,
            source,
            status: args.status.or(file.status_file),
            watchers: None,
            log: log_filter(args.log.or(file.log))?,
            utc_offset_minutes: utc_offset(file.utc_offset_minutes)?,
            notifier: None,
        })
    }

    /// As a TOML file that says the same, but for what is secret.
    pub fn to_toml(&self) -> String {
        let text = |value: &dyn fmt::Display| toml::Value::String(value.to_string()).to_string();
        let path = |path: &Path| text(&path.display());
        let addresses: Vec<_> = self.control_plane.iter().map(|address| text(address)).collect();
        let mut lines = vec![
            format!("control_plane = [{}]", addresses.join(", ")),
            format!("identity_dir = {}", path(&self.identity_dir)),
            format!("source = {}", text(&self.source)),
        ];
        match &self.source {
            Source::Rtsp(streams) if streams.len() > 1 => {
                lines.push(format!("source_low = {}", text(&streams[0])));
            }
            Source::Capture(capture) => {
                lines.extend(
                    capture
                        .microphone
                        .iter()
                        .map(|device| format!("microphone = {}", text(device))),
                );
            }
            _ => {}
        }
        lines.extend(
            self.state_dir
                .iter()
                .map(|dir| format!("state_dir = {}", path(dir))),
        );
        lines.extend(
            self.status
                .iter()
                .map(|file| format!("status_file = {}", path(file))),
        );
        let page = self
            .page
            .map_or_else(|| "off".to_owned(), |page| page.to_string());
        lines.push(format!("page = {}", text(&page)));
        if !self.uplinks.is_empty() {
            let names: Vec<_> = self.uplinks.iter().map(|name| text(name)).collect();
            lines.push(format!("uplink = [{}]", names.join(", ")));
        }
        let limits = self
            .recordings
            .map(|limits| (limits.most / MIB, limits.keep_free / MIB));
        let (most, keep_free) = limits.unwrap_or((0, KEEP_FREE_MIB));
        lines.push(format!("recordings_mib = {most}\nkeep_free_mib = {keep_free}"));
        lines.push(format!("log = {}", text(&self.log)));
        lines.push(format!("utc_offset_minutes = {}", self.utc_offset_minutes));
        if let Source::Capture(capture) = &self.source {
            let size = format!("{}x{}", capture.width, capture.height);
            lines.push(format!("[capture]\nsize = {}", text(&size)));
            lines.push(format!("fps = {}\nkbps = {}", capture.fps, capture.kbps));
            lines.push(format!("program = {}", path(&capture.program)));
        }
        lines.join("\n") + "\n"
    }
}

impl Args {
    /// The state folder, for a task that needs no more.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or no folder is named.
    pub fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        let file = Places::of(self)?.settings()?;
        [&self.state, &file.state_dir, &self.identity, &file.identity_dir]
            .into_iter()
            .flatten()
            .next()
            .cloned()
            .ok_or(ConfigError::Missing("state or identity folder"))
    }
}

/// A text (with commas, if need be), or a list of texts.
fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Told {
        One(String),
        More(Vec<String>),
    }
    Ok(match Told::deserialize(from)? {
        Told::One(text) => text.split(',').map(str::to_owned).collect(),
        Told::More(list) => list,
    })
}

#[cfg(test)]
mod tests;

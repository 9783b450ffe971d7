//! A camera and a microphone at the box: each is a supervised child (ffmpeg) that captures, and writes into a pipe.
//!
//! A child runs while the agent wants what it captures, and a little longer, so that a short break opens no camera anew.
//! One that dies, or writes no picture for long, is started again with backoff, and what it said last on its standard
//! error tells why. The camera's H.264 passes as it is encoded by the child; the microphone's samples become Opus here.
//! A child whose pipe is closed ends by itself, so none outlives its agent.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::Fault;
use super::camera::Demand;
use super::feed::{FeedEvent, SoundFormat};
use super::flv::Flv;
use crate::agent::Input;
use crate::backoff::Backoff;

/// A child that writes nothing for so long at its start is of no use: some cameras take seconds to wake.
const FIRST: Duration = Duration::from_secs(8);
/// A child that falls silent for so long is started again.
const SILENCE: Duration = Duration::from_secs(3);
/// What nobody wants any more is kept open for so long.
const LINGER: Duration = Duration::from_secs(10);
/// Of what a child says, the last of this many bytes is looked at.
const SAID: usize = 4096;
/// Bytes of 20 ms of plain sound.
const SOUND_BYTES: usize = 1920;

/// What is captured, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// `/dev/videoN`.
    pub device: PathBuf,
    /// An ALSA device; without one the site has no sound.
    pub microphone: Option<String>,
    pub width: u32,
    pub height: u32,
    /// Pictures a second.
    pub fps: u32,
    pub kbps: u32,
    /// The program, with ffmpeg's arguments.
    pub program: PathBuf,
    /// The program's arguments for its input, instead of those made of the device.
    pub input: Option<Vec<String>>,
    pub microphone_input: Option<Vec<String>>,
}

impl Capture {
    /// 720p at 25 pictures a second, 2 Mbit/s.
    pub fn new(device: PathBuf) -> Self {
        Self {
            device,
            microphone: None,
            width: 1280,
            height: 720,
            fps: 25,
            kbps: 2000,
            program: PathBuf::from("ffmpeg"),
            input: None,
            microphone_input: None,
        }
    }

    fn has_sound(&self) -> bool {
        self.microphone.is_some() || self.microphone_input.is_some()
    }

    /// The child that writes the camera's pictures.
    fn camera_arguments(&self) -> Vec<String> {
        let made = || {
            let size = format!("{}x{}", self.width, self.height);
            let device = self.device.display().to_string();
            texts(&[
                "-f",
                "v4l2",
                "-framerate",
                &self.fps.to_string(),
                "-video_size",
                &size,
                "-i",
                &device,
            ])
        };
        let (rate, buffer) = (format!("{}k", self.kbps), format!("{}k", self.kbps / 2));
        let input = self.input.clone().unwrap_or_else(made);
        // A key frame each two seconds.
        let between_keys = (2 * self.fps).to_string();
        let output = [
            "-an",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-tune",
            "zerolatency",
            "-pix_fmt",
            "yuv420p",
        ];
        let rates = [
            "-g",
            &between_keys,
            "-b:v",
            &rate,
            "-maxrate",
            &rate,
            "-bufsize",
            &buffer,
        ];
        let form = [
            "-f",
            "flv",
            "-flvflags",
            "no_duration_filesize",
            "-flush_packets",
            "1",
            "pipe:1",
        ];
        [quiet(), input, texts(&output), texts(&rates), texts(&form)].concat()
    }

    /// The child that writes the microphone's samples.
    fn microphone_arguments(&self) -> Vec<String> {
        let made = || {
            texts(&[
                "-f",
                "alsa",
                "-i",
                self.microphone.as_deref().unwrap_or("default"),
            ])
        };
        let input = self.microphone_input.clone().unwrap_or_else(made);
        let output = [
            "-vn",
            "-ac",
            "1",
            "-ar",
            "48000",
            "-f",
            "s16le",
            "-flush_packets",
            "1",
            "pipe:1",
        ];
        [quiet(), input, texts(&output)].concat()
    }
}

fn texts(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

fn quiet() -> Vec<String> {
    texts(&[
        "-hide_banner",
        "-nostdin",
        "-loglevel",
        "error",
        "-fflags",
        "nobuffer",
    ])
}

/// Starts the tasks that run the children when `demand` says so.
pub fn spawn(
    capture: &Capture,
    demand: &watch::Receiver<Demand>,
    inputs: &mpsc::Sender<Input>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let task = |what: What| Supervisor {
        what,
        capture: capture.clone(),
        demand: demand.clone(),
        inputs: inputs.clone(),
    };
    tasks.spawn(task(What::Camera).stay());
    if capture.has_sound() {
        tasks.spawn(task(What::Microphone).stay());
    }
    tasks
}

/// Captures until there is a picture, to see whether there is one.
///
/// # Errors
/// What is wrong with the camera, and what the program said.
pub async fn look(capture: &Capture) -> Result<(), (Fault, String)> {
    let (_wanted, demand) = watch::channel(Demand {
        pictures: true,
        sound: false,
    });
    let (inputs, mut told) = mpsc::channel(16);
    let mut camera = Supervisor {
        what: What::Camera,
        capture: capture.clone(),
        demand,
        inputs,
    };
    let picture = async {
        while let Some(input) = told.recv().await {
            if matches!(input, Input::Feed(FeedEvent::Picture { .. })) {
                return;
            }
        }
    };
    tokio::select! {
        end = camera.run() => match end {
            End::Fault { fault, detail, .. } => Err((fault, detail)),
            End::Unwanted | End::Over => Err((Fault::Silent, String::new())),
        },
        () = picture => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Camera,
    Microphone,
}

/// Why a child is run no longer.
enum End {
    /// Nobody wants it.
    Unwanted,
    /// It has written something useful before, or not.
    Fault {
        fault: Fault,
        detail: String,
        worked: bool,
    },
    /// The agent's loop has ended.
    Over,
}

struct Supervisor {
    what: What,
    capture: Capture,
    demand: watch::Receiver<Demand>,
    inputs: mpsc::Sender<Input>,
}

impl Supervisor {
    async fn stay(mut self) {
        let mut backoff = Backoff::default();
        loop {
            if self.wanted(true).await.is_err() {
                return;
            }
            let (fault, detail) = match self.run().await {
                End::Over => return,
                End::Unwanted => continue,
                End::Fault {
                    fault,
                    detail,
                    worked,
                } => {
                    if worked {
                        backoff.reset();
                    }
                    (fault, detail)
                }
            };
            let event = match self.what {
                What::Camera => FeedEvent::Fault {
                    layer: 0,
                    fault,
                    detail,
                },
                What::Microphone => FeedEvent::NoSound(detail),
            };
            if self.tell(event).await.is_err() {
                return;
            }
            tokio::time::sleep(backoff.next(rand::random())).await;
        }
    }

    async fn tell(&self, event: FeedEvent) -> Result<(), End> {
        self.inputs.send(Input::Feed(event)).await.map_err(|_| End::Over)
    }

    fn is_wanted(&self, demand: Demand) -> bool {
        match self.what {
            What::Camera => demand.pictures,
            What::Microphone => demand.sound,
        }
    }

    /// Waits until it is wanted, or is not.
    async fn wanted(&mut self, wanted: bool) -> Result<(), End> {
        let what = self.what;
        let is = |demand: &Demand| match what {
            What::Camera => demand.pictures == wanted,
            What::Microphone => demand.sound == wanted,
        };
        self.demand.wait_for(is).await.map(|_| ()).map_err(|_| End::Over)
    }

    /// Runs a child to its end.
    async fn run(&mut self) -> End {
        let arguments = match self.what {
            What::Camera => self.capture.camera_arguments(),
            What::Microphone => self.capture.microphone_arguments(),
        };
        if self.what == What::Camera && self.capture.input.is_none() && !self.capture.device.exists() {
            let detail = format!("{} is not there", self.capture.device.display());
            return fault(Fault::Missing, detail, false);
        }
        let spawned = Command::new(&self.capture.program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                let detail = format!("{} does not start: {error}", self.capture.program.display());
                return fault(Fault::Missing, detail, false);
            }
        };
        let (Some(out), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return fault(Fault::Missing, "no pipe".to_owned(), false);
        };
        let said = tokio::spawn(last_words(errors));
        let mut worked = false;
        let ended = self.read(out, &mut worked).await;
        put_away(&mut child).await;
        match ended {
            // What it said last tells more than the end of its pipe.
            End::Fault {
                fault: Fault::Silent,
                detail,
                ..
            } => {
                let said = timeout(Duration::from_secs(1), said).await;
                let said = said.ok().and_then(Result::ok).unwrap_or_default();
                let known = meaning(&said).unwrap_or(Fault::Silent);
                let detail = said.lines().last().map_or(detail, str::to_owned);
                fault(known, detail, worked)
            }
            other => other,
        }
    }

    /// Passes on what a child writes, until it ends, falls silent or is not wanted any more.
    async fn read(&mut self, mut out: impl AsyncRead + Unpin, worked: &mut bool) -> End {
        let (mut flv, mut sized) = (Flv::default(), None);
        let mut piece = vec![0; 16 * 1024];
        let mut held = 0;
        let mut deadline = Instant::now() + FIRST;
        let mut unwanted: Option<Instant> = None;
        loop {
            let wanted = self.is_wanted(*self.demand.borrow());
            unwanted = (!wanted).then(|| unwanted.unwrap_or_else(|| Instant::now() + LINGER));
            if unwanted.is_some_and(|until| until <= Instant::now()) {
                return End::Unwanted;
            }
            let Ok(length) = timeout_at(deadline, out.read(&mut piece[held..])).await else {
                return fault(Fault::Silent, "it writes nothing".to_owned(), *worked);
            };
            let length = match length {
                Ok(0) | Err(_) => return fault(Fault::Silent, "it has ended".to_owned(), *worked),
                Ok(length) => length,
            };
            let told = match self.what {
                What::Camera => self.pass_pictures(&mut flv, &piece[..length], &mut sized).await,
                What::Microphone => {
                    let told = self.pass_sound(&mut piece, held + length, *worked).await;
                    held = (held + length) % SOUND_BYTES;
                    told
                }
            };
            match told {
                Ok(true) => {
                    *worked = true;
                    deadline = Instant::now() + SILENCE;
                }
                Ok(false) => {}
                Err(end) => return end,
            }
        }
    }

    /// `true` if there was a picture.
    async fn pass_pictures(
        &self,
        flv: &mut Flv,
        piece: &[u8],
        sized: &mut Option<(u32, u32)>,
    ) -> Result<bool, End> {
        let mut pictures = Vec::new();
        let read = flv.push(piece, |picture| pictures.push(picture));
        read.map_err(|error| fault(Fault::Format, error.to_string(), false))?;
        if !pictures.is_empty() && sized.is_none() {
            let (width, height) = *sized.insert(flv.size().unwrap_or_default());
            self.tell(FeedEvent::Size {
                layer: 0,
                width,
                height,
            })
            .await?;
        }
        let some = !pictures.is_empty();
        for picture in pictures {
            self.tell(FeedEvent::Picture { layer: 0, picture }).await?;
        }
        Ok(some)
    }

    /// Passes on whole frames of what is held, and moves the rest to the front.
    async fn pass_sound(&self, held: &mut [u8], length: usize, worked: bool) -> Result<bool, End> {
        let whole = length - length % SOUND_BYTES;
        if whole == 0 {
            return Ok(false);
        }
        if !worked {
            self.tell(FeedEvent::SoundFormat(Some(SoundFormat::Plain)))
                .await?;
        }
        self.tell(FeedEvent::Sound(Bytes::copy_from_slice(&held[..whole])))
            .await?;
        held.copy_within(whole..length, 0);
        Ok(true)
    }
}

fn fault(fault: Fault, detail: String, worked: bool) -> End {
    End::Fault {
        fault,
        detail,
        worked,
    }
}

/// Asks nothing: the child has a device open that the next one needs.
async fn put_away(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::debug!(%error, "the child had ended");
    }
}

/// The end of what a child says; bounded, however much it says.
async fn last_words(mut errors: impl AsyncRead + Unpin) -> String {
    let (mut said, mut piece) = (Vec::new(), [0; 1024]);
    while let Ok(length @ 1..) = errors.read(&mut piece).await {
        said.extend_from_slice(&piece[..length]);
        let excess = said.len().saturating_sub(SAID);
        said.drain(..excess);
    }
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// What a child's last words mean.
fn meaning(said: &str) -> Option<Fault> {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["Device or resource busy", "Resource temporarily unavailable"]) {
        Some(Fault::Busy)
    } else if has(&[
        "No such file",
        "No such device",
        "Permission denied",
        "Not a video capture device",
        "Input/output error",
        "cannot open",
    ]) {
        Some(Fault::Missing)
    } else if has(&["Invalid argument", "not supported", "Unknown encoder"]) {
        Some(Fault::Format)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_says_has_a_meaning() {
        for (said, fault) in [
            ("/dev/video0: Device or resource busy", Some(Fault::Busy)),
            ("/dev/video7: No such file or directory", Some(Fault::Missing)),
            ("ioctl(VIDIOC_DQBUF): No such device", Some(Fault::Missing)),
            ("Unknown encoder 'libx264'", Some(Fault::Format)),
            ("Killed", None),
        ] {
            assert_eq!(meaning(said), fault, "{said}");
        }
    }

    #[test]
    fn the_device_is_the_input_unless_something_else_is() {
        let mut capture = Capture::new("/dev/video3".into());
        assert!(
            capture
                .camera_arguments()
                .windows(2)
                .any(|pair| pair == ["-i", "/dev/video3"])
        );
        assert!(!capture.has_sound());
        capture.input = Some(texts(&["-f", "lavfi", "-i", "testsrc2"]));
        capture.microphone = Some("hw:1".into());
        let arguments = capture.camera_arguments();
        assert!(!arguments.contains(&"/dev/video3".to_owned()) && arguments.contains(&"testsrc2".to_owned()));
        assert!(
            capture
                .microphone_arguments()
                .windows(2)
                .any(|pair| pair == ["-i", "hw:1"])
        );
    }

    #[tokio::test]
    async fn last_words_are_bounded() {
        let said = [vec![b'x'; 100_000], b"the end\n".to_vec()].concat();
        let kept = last_words(&said[..]).await;
        assert!(kept.len() <= SAID && kept.ends_with("the end"));
    }
}

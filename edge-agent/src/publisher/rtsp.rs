//! A network camera by RTSP over TCP: one task for each of its streams, which stays connected and comes back by itself.
//!
//! The task sends what the camera sends, unread but for its framing, and says what is wrong in the words of [`Fault`]. A
//! camera that sends no picture for 3 s is silent: its session is given up and made again, with backoff and jitter.
//! Addresses hold passwords, so nothing here repeats one: an address is shown without name, password, path and query.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use retina::client::{Credentials, Demuxed, PlayOptions, Session, SessionOptions, SetupOptions};
use retina::codec::{CodecItem, FrameFormat, ParametersRef, VideoFrame};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::Url;

use super::Fault;
use super::feed::{FeedEvent, Picture, SoundFormat};
use crate::agent::Input;
use crate::backoff::Backoff;

/// A camera that answers nothing for so long is unreachable.
const ANSWERS: Duration = Duration::from_secs(4);
/// A camera that sends no picture for so long is silent.
const SILENCE: Duration = Duration::from_secs(3);
/// A picture beyond this many bytes is left out.
const LARGEST_PICTURE: usize = 1024 * 1024;

/// Where a stream of a camera is.
#[derive(Clone, PartialEq, Eq)]
pub struct CameraAddress {
    /// Without name and password.
    url: Url,
    name: String,
    password: String,
}

/// Why a text is no address of a camera; it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the address of a camera, rtsp://[NAME:PASSWORD@]HOST[:PORT]/PATH")]
pub struct NoAddress;

impl FromStr for CameraAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let mut url = Url::parse(text).map_err(|_| NoAddress)?;
        if url.scheme() != "rtsp" || url.host_str().is_none_or(str::is_empty) {
            return Err(NoAddress);
        }
        let name = decode(url.username());
        let password = decode(url.password().unwrap_or_default());
        url.set_username("").map_err(|()| NoAddress)?;
        url.set_password(None).map_err(|()| NoAddress)?;
        Ok(Self { url, name, password })
    }
}

impl CameraAddress {
    /// `HOST:PORT`.
    pub fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        format!("{host}:{}", self.url.port().unwrap_or(554))
    }

    fn credentials(&self) -> Option<Credentials> {
        (!self.name.is_empty()).then(|| Credentials {
            username: self.name.clone(),
            password: self.password.clone(),
        })
    }
}

impl fmt::Display for CameraAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rtsp://{}/…", self.host())
    }
}

impl fmt::Debug for CameraAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Percent-encoding taken off; what is none stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let coded = tail.get(..2).filter(|_| first == b'%');
        let coded = coded
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(coded.unwrap_or(first));
        rest = if coded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Starts a task for each stream, the smallest first; the sound is taken from the last.
pub fn spawn(streams: &[CameraAddress], inputs: &mpsc::Sender<Input>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (layer, address) in streams.iter().cloned().enumerate() {
        let stream = Stream {
            layer,
            sound: layer + 1 == streams.len(),
            address,
            inputs: inputs.clone(),
        };
        tasks.spawn(stream.stay());
    }
    tasks
}

/// Connects once, to see what a camera says: `Ok` once its H.264 plays.
///
/// # Errors
/// What is wrong with it, and what it said.
pub async fn look(address: &CameraAddress) -> Result<(), (Fault, String)> {
    let mut playing = play(address, false).await?;
    let picture = async {
        while let Some(item) = playing.frames.next().await {
            if let CodecItem::VideoFrame(_) = item.map_err(|error| told(&error))? {
                return Ok(());
            }
        }
        Err((Fault::Unreachable, "it closed the connection".to_owned()))
    };
    tokio::time::timeout(SILENCE, picture)
        .await
        .unwrap_or_else(|_| Err((Fault::Silent, String::new())))
}

/// One stream of a camera.
struct Stream {
    layer: usize,
    /// The camera's sound comes with this stream.
    sound: bool,
    address: CameraAddress,
    inputs: mpsc::Sender<Input>,
}

/// The loop that takes the events has ended.
struct Over;

/// Why a session ended.
enum End {
    Fault(Fault, String),
    Over,
}

impl From<Over> for End {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

impl From<(Fault, String)> for End {
    fn from((fault, detail): (Fault, String)) -> Self {
        Self::Fault(fault, detail)
    }
}

impl Stream {
    async fn stay(self) {
        let mut backoff = Backoff::default();
        loop {
            let mut pictures = 0_u64;
            let (fault, detail) = match self.session(&mut pictures).await {
                End::Fault(fault, detail) => (fault, detail),
                End::Over => return,
            };
            if pictures > 0 {
                backoff.reset();
            }
            let layer = self.layer;
            if self
                .tell(FeedEvent::Fault { layer, fault, detail })
                .await
                .is_err()
            {
                return;
            }
            tokio::time::sleep(backoff.next(rand::random())).await;
        }
    }

    async fn tell(&self, event: FeedEvent) -> Result<(), Over> {
        self.inputs.send(Input::Feed(event)).await.map_err(|_| Over)
    }

    async fn session(&self, pictures: &mut u64) -> End {
        match self.run(pictures).await {
            Ok(()) => End::Fault(Fault::Unreachable, "it closed the connection".to_owned()),
            Err(end) => end,
        }
    }

    async fn run(&self, pictures: &mut u64) -> Result<(), End> {
        let mut playing = play(&self.address, self.sound).await?;
        tracing::info!(camera = %self.address, layer = self.layer, "connected to the camera");
        if self.sound {
            self.tell(FeedEvent::SoundFormat(playing.sound.take())).await?;
        }
        let mut size = None;
        let mut deadline = tokio::time::Instant::now() + SILENCE;
        loop {
            let item = tokio::time::timeout_at(deadline, playing.frames.next())
                .await
                .map_err(|_| (Fault::Silent, "no picture for 3 s".to_owned()))?;
            let Some(item) = item else { return Ok(()) };
            match item.map_err(|error| told(&error))? {
                CodecItem::VideoFrame(frame) => {
                    deadline = tokio::time::Instant::now() + SILENCE;
                    if size.is_none() || frame.has_new_parameters() {
                        let (width, height) = playing.size();
                        size = Some(());
                        let layer = self.layer;
                        self.tell(FeedEvent::Size { layer, width, height }).await?;
                    }
                    *pictures += 1;
                    self.pass_on(frame).await?;
                }
                CodecItem::AudioFrame(frame) if self.sound => {
                    self.tell(FeedEvent::Sound(Bytes::copy_from_slice(frame.data())))
                        .await?;
                }
                _ => {}
            }
        }
    }

    async fn pass_on(&self, frame: VideoFrame) -> Result<(), Over> {
        let (key, ticks) = (frame.is_random_access_point(), frame.timestamp().timestamp());
        let data = frame.into_data();
        if data.len() > LARGEST_PICTURE {
            tracing::warn!(bytes = data.len(), "a picture too large to pass on");
            return Ok(());
        }
        let picture = Picture {
            data: data.into(),
            key,
            ticks,
        };
        self.tell(FeedEvent::Picture {
            layer: self.layer,
            picture,
        })
        .await
    }
}

/// A session that plays.
struct Playing {
    frames: Demuxed,
    video: usize,
    sound: Option<SoundFormat>,
}

impl Playing {
    /// Pixels of the picture; 0 by 0 if unknown.
    fn size(&self) -> (u32, u32) {
        match self.frames.streams()[self.video].parameters() {
            Some(ParametersRef::Video(parameters)) => parameters.pixel_dimensions(),
            _ => (0, 0),
        }
    }
}

async fn play(address: &CameraAddress, with_sound: bool) -> Result<Playing, (Fault, String)> {
    match tokio::time::timeout(ANSWERS, open(address, with_sound)).await {
        Ok(playing) => playing,
        Err(_) => Err((Fault::Unreachable, "no answer within 4 s".to_owned())),
    }
}

async fn open(address: &CameraAddress, with_sound: bool) -> Result<Playing, (Fault, String)> {
    let failed = |error: retina::Error| told(&error);
    let options = SessionOptions::default()
        .creds(address.credentials())
        .user_agent(concat!("muster-edge/", env!("CARGO_PKG_VERSION")).to_owned());
    let mut session = Session::describe(address.url.clone(), options)
        .await
        .map_err(failed)?;
    let streams = session.streams();
    let is = |index: usize, media: &str| streams[index].media() == media;
    let video = (0..streams.len())
        .find(|index| is(*index, "video") && streams[*index].encoding_name() == "h264")
        .ok_or_else(|| (Fault::Format, formats(&session)))?;
    let sound = (0..streams.len())
        .filter(|index| with_sound && is(*index, "audio"))
        .find_map(|index| Some((index, sound_format(&streams[index])?)));
    // Lengths before NAL units, parameter sets with each key frame, AAC without ADTS.
    let setup = || SetupOptions::default().frame_format(FrameFormat::default());
    session.setup(video, setup()).await.map_err(failed)?;
    if let Some((index, _)) = &sound {
        session.setup(*index, setup()).await.map_err(failed)?;
    }
    let playing = session.play(PlayOptions::default()).await.map_err(failed)?;
    Ok(Playing {
        frames: playing.demuxed().map_err(failed)?,
        video,
        sound: sound.map(|(_, format)| format),
    })
}

/// What the camera offers instead.
fn formats<S: retina::client::State>(session: &Session<S>) -> String {
    let offered: Vec<_> = session
        .streams()
        .iter()
        .take(4)
        .map(|stream| stream.encoding_name())
        .collect();
    format!("it offers {}", offered.join(", ").escape_debug())
}

/// `None` for what is not made into Opus.
fn sound_format(stream: &retina::client::Stream) -> Option<SoundFormat> {
    match stream.encoding_name() {
        "pcmu" => Some(SoundFormat::Ulaw(stream.clock_rate_hz())),
        "pcma" => Some(SoundFormat::Alaw(stream.clock_rate_hz())),
        "mpeg4-generic" => match stream.parameters()? {
            ParametersRef::Audio(parameters) => {
                Some(SoundFormat::Aac(Bytes::copy_from_slice(parameters.extra_data())))
            }
            _ => None,
        },
        _ => None,
    }
}

/// What an error means; the camera's own words stay out, since they may repeat the address.
fn told(error: &retina::Error) -> (Fault, String) {
    let Some(code) = error.status_code() else {
        return (Fault::Unreachable, "the connection failed".to_owned());
    };
    let fault = match code {
        401 | 403 | 407 => Fault::Refused,
        404 | 410 => Fault::Missing,
        453 | 503 => Fault::Busy,
        415 | 461 => Fault::Format,
        _ => Fault::Unreachable,
    };
    (fault, format!("it answers {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_never_shows_what_is_secret() {
        let address: CameraAddress = "rtsp://admin:p%40ss%zz@10.0.0.9/secret/1?password=hush"
            .parse()
            .expect("an address");
        assert_eq!(
            (address.name.as_str(), address.password.as_str()),
            ("admin", "p@ss%zz")
        );
        for shown in [format!("{address}"), format!("{address:?}"), address.host()] {
            assert!(
                !["admin", "p@ss", "p%40", "secret", "hush"]
                    .iter()
                    .any(|word| shown.contains(word)),
                "{shown}"
            );
            assert!(shown.contains("10.0.0.9:554"), "{shown}");
        }
        assert_eq!(address.url.as_str(), "rtsp://10.0.0.9/secret/1?password=hush");
        for wrong in ["rtsp://", "http://10.0.0.9/", "10.0.0.9", "rtsp:hush"] {
            let error = wrong.parse::<CameraAddress>().expect_err(wrong).to_string();
            assert!(!error.contains("hush"));
        }
        let open: CameraAddress = "rtsp://cam:8554/x".parse().expect("an address");
        assert!(open.credentials().is_none());
    }
}

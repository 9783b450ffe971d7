//! The agent's one loop: it owns all state, takes what the control plane, the link and the clock bring, and acts.
//!
//! Order of a summons: the call comes, ANSWERED is reported and the join sent in the same breath, and the first picture
//! follows the relay's answer. Card, tone and link are ready before. Losing the control plane changes nothing in a
//! meeting; losing the link leads back in by [`Meeting`]'s steps.

mod calls;
mod camera;
mod leg;
mod page;
mod record;
mod reports;
mod sending;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use muster_proto::command::v1::SummonsCall;
use muster_proto::media::v1::{LinkJoin, LinkLeave, link_up};
use tokio::sync::{mpsc, watch};

use self::page::Viewer;
use self::sending::Sending;
use crate::config::{Config, Source};
use crate::control::{ControlEvent, ControlPlane};
use crate::drill::Drill;
pub use crate::enrolment::EnrolmentError;
use crate::ladder::Rung;
use crate::outbox::Outbox;
use crate::publisher::camera::Demand;
use crate::publisher::page::desk::{Desk, DriverEnd};
use crate::publisher::page::driver::{self, Viewing};
use crate::publisher::{Camera, Fault, FeedEvent, PageCamera, Publisher, capture, rtsp};
use crate::pulse::Pulse;
use crate::recorder::Recorder;
use crate::rendezvous::{Meeting, Step};
use crate::screen::Screen;
use crate::status::{Notice, State, Status, StatusWriter};
use crate::uplink::{LinkEvent, Uplink};

pub use record::FOLDER as RECORDINGS;

/// What waits for the loop; beyond it the tasks wait.
const QUEUE: usize = 256;
const STATUS_PERIOD: Duration = Duration::from_secs(1);
/// Name and place in the join of the slot that shows the stage; the audio slots follow.
const STAGE: &str = "stage";
const STAGE_SLOT: usize = 0;
const AUDIO_SLOTS: [&str; 3] = ["a0", "a1", "a2"];
/// Without a browser that shows it; a larger picture is of no use to a status line.
const STAGE_SIZE: (u32, u32) = (320, 180);

/// What the tasks report to the loop.
#[derive(Debug)]
pub enum Input {
    Control(ControlEvent),
    /// Of the camera.
    Feed(FeedEvent),
    /// Of the link with this number.
    Link(u64, LinkEvent),
    /// Of the browser as a screen.
    Viewing(Viewing),
    /// Somebody at the page answers the call to this meeting, or declines it.
    Touch(String, bool),
}

/// Why the agent ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
}

/// Runs an agent until `stop` completes: enrols if need be, attaches, and joins what it is summoned to.
///
/// # Errors
/// [`EnrolmentError`], if there is no identity to run with. Nothing that the network does ends it.
pub async fn run(mut config: Config, stop: impl Future<Output = ()>) -> Result<Ended, EnrolmentError> {
    tokio::pin!(stop);
    let outbox = reports::open(config.state_dir.as_deref()).await;
    let recorder = record::open(&config);
    let (inputs, mut queue) = mpsc::channel(QUEUE);
    let (desk, driver) = (config.source == Source::Page).then(Desk::open).unzip();
    let touches = inputs.clone();
    reports::serve_page(
        &mut config,
        outbox.as_ref(),
        recorder.as_ref(),
        desk.clone(),
        touches,
    );
    let now_ms = epoch_ms();
    let mut writer = StatusWriter::new(
        config.status.clone(),
        config.watchers.clone(),
        config.notifier.clone(),
    );
    if let Some(notifier) = &config.notifier {
        notifier.ready();
    }
    let mut status = Status {
        since_ms: now_ms,
        detached_since_ms: now_ms,
        stage_status: "empty",
        ..Status::default()
    };
    writer.write(&status, true);
    let (credentials, site) = tokio::select! {
        identity = crate::enrolment::identity(&config, &mut status, &mut writer) => identity?,
        () = &mut stop => return Ok(Ended::Stopped),
    };
    let control = ControlPlane::start(&config.control_plane, &credentials, inputs.clone()).await?;
    let reached = reports::send(outbox.as_ref(), &control);
    let publisher = open_camera(&config, &inputs, driver);
    let mut agent = Agent {
        outbox,
        recorder,
        out_since: None,
        reached,
        uplink: Uplink::new(Arc::new(credentials), inputs, config.uplinks.clone()),
        control,
        config,
        names: None,
        publisher,
        screen: Screen::default(),
        viewer: desk.map(Viewer::new),
        ringing: None,
        meeting: None,
        pulse: None,
        sending: None,
        drill: None,
        home_relay: String::new(),
        attached: false,
        on_air: false,
        was_on_air: false,
        fault: None,
        shown: status.clone(),
        status: Status {
            site,
            last_error: None,
            ..status
        },
        writer,
        next_status: Instant::now(),
    };
    loop {
        let wake = agent.advance();
        tokio::select! {
            () = &mut stop => break,
            Some(input) = queue.recv() => {
                agent.handle_input(input);
                // What came together is handled together, before anything is drawn.
                while let Ok(input) = queue.try_recv() {
                    agent.handle_input(input);
                }
            }
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }
    agent.stop_in_good_order().await;
    Ok(Ended::Stopped)
}

struct Agent {
    config: Config,
    control: ControlPlane,
    /// Reports that wait; none where there is no folder for them, or it cannot be used.
    outbox: Option<Outbox>,
    /// Of what is not sent during an outage; none where nothing is to be recorded.
    recorder: Option<Recorder>,
    /// Since when the site is out of a meeting that it was in.
    out_since: Option<Instant>,
    /// Told whether the control plane is.
    reached: watch::Sender<bool>,
    uplink: Uplink,
    /// Chinese and English, as drawn on the card.
    names: Option<(String, String)>,
    publisher: Option<Publisher>,
    screen: Screen,
    /// The browser with the page, where it is the site's screen.
    viewer: Option<Viewer>,
    /// A call that rings, and since when.
    ringing: Option<(SummonsCall, Instant)>,
    meeting: Option<Meeting>,
    /// Of the link, while it is up.
    pulse: Option<Pulse>,
    /// Of the leg, while it publishes.
    sending: Option<Sending>,
    drill: Option<Drill>,
    /// Where to keep a warm link outside meetings.
    home_relay: String,
    attached: bool,
    on_air: bool,
    /// In this meeting, at some time.
    was_on_air: bool,
    /// What was last told of the camera.
    fault: Option<Fault>,
    status: Status,
    /// What was written last.
    shown: Status,
    writer: StatusWriter,
    next_status: Instant,
}

impl Agent {
    fn handle_input(&mut self, input: Input) {
        match input {
            Input::Control(event) => self.handle_control_plane(event),
            Input::Feed(event) => {
                if let Some(publisher) = &mut self.publisher {
                    publisher.handle_feed(Instant::now(), event);
                }
            }
            Input::Link(number, event) if self.uplink.is_current(number) => self.handle_link(event),
            Input::Link(..) => {}
            Input::Viewing(viewing) => self.handle_viewing(viewing),
            Input::Touch(meeting, accepts) => self.handle_touch(&meeting, accepts),
        }
    }

    /// Does what is due and returns when to come again.
    fn advance(&mut self) -> Instant {
        let now = Instant::now();
        let pulse = self.feel_pulse(now);
        let step = self.step(now);
        let drill = self.look_at_drill(now);
        let link = self.look_at_link(now);
        let recording = self.look_at_recording(now);
        self.publish(now);
        self.look_at_camera();
        self.tell(now);
        let published = self
            .publisher
            .as_ref()
            .and_then(|publisher| publisher.poll_timeout());
        [pulse, step, drill, link, recording, published]
            .into_iter()
            .flatten()
            .fold(self.next_status, Instant::min)
    }

    /// Goes on on the way into the meeting as far as it is open.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let doubt = self.is_in_doubt(now);
            let meeting = self.meeting.as_mut()?;
            match meeting.next_step(now, self.uplink.address(), doubt) {
                Step::AskTicket(lost) => {
                    if let Some(lost) = &lost {
                        tracing::warn!(relay = lost.relay, epoch = lost.epoch, "the relay is lost");
                    }
                    self.control.ask_ticket(&meeting.id, lost);
                }
                Step::Connect(address, until) => {
                    self.uplink.want(&address);
                    return Some(until);
                }
                Step::Join(token) => {
                    let sources = self
                        .publisher
                        .as_ref()
                        .map(|publisher| publisher.sources(meeting.audio_only))
                        .unwrap_or_default();
                    self.uplink.send(link_up::Message::Join(LinkJoin {
                        token,
                        sources,
                        slots: self.slots(),
                    }));
                }
                Step::GiveUpLink => {
                    self.status.last_error = Some("the relay does not answer the join".into());
                    self.uplink.handle_lost(now);
                    self.handle_leg_lost();
                }
                Step::Wait(until) => return until,
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        if self.record(now) {
            return;
        }
        let (Some(publisher), Some(sender)) = (&mut self.publisher, self.uplink.sender()) else {
            return;
        };
        let sending = &mut self.sending;
        let mut send = |datagram: Bytes| {
            let Some(datagram) = (match sending {
                Some(sending) => sending.pass(now, datagram),
                None => Some(datagram),
            }) else {
                return;
            };
            if let Err(error) = sender.send_datagram(datagram) {
                tracing::debug!(%error, "datagram dropped");
            }
        };
        let pictures = publisher.handle_timeout(now, epoch_ms(), &mut send);
        self.status.pictures_sent += pictures;
        let meeting = self.meeting.as_ref().filter(|meeting| meeting.is_in());
        if meeting.is_some_and(|meeting| pictures > 0 || meeting.audio_only) {
            (self.on_air, self.was_on_air) = (true, true);
        }
    }

    /// Brings the status up to date and writes it: on change, and each second.
    fn tell(&mut self, now: Instant) {
        let state = match &self.meeting {
            Some(_) if self.on_air => State::OnAir,
            Some(_) => State::Joining,
            None if self.status.ringing.is_some() => State::Ringing,
            None if self.attached => State::Attached,
            None => State::Offline,
        };
        if self.status.state != state {
            (self.status.state, self.status.since_ms) = (state, epoch_ms());
        }
        let mark = self.screen.mark();
        self.status.stage_site_number = mark.map(|mark| mark.site);
        self.status.stage_mark_age_ms = mark.map(|mark| mark.age_ms(epoch_ms()));
        self.status.stage_pictures = self.stage_pictures();
        self.status.paused = self.on_air
            && self
                .publisher
                .as_ref()
                .is_some_and(|publisher| publisher.is_paused());
        self.tell_link();
        self.tell_reports();
        let (changed, due) = (self.status.differs(&self.shown), now >= self.next_status);
        if changed || due {
            self.writer.write(&self.status, changed);
            self.shown = self.status.clone();
        }
        if due {
            self.next_status = now + STATUS_PERIOD;
            if let Some(publisher) = &mut self.publisher {
                publisher.rest(now);
            }
        }
    }

    /// Out of the meeting, and ready for the next. `why` is shown to the site.
    fn leave_meeting(&mut self, why: Option<&str>) {
        let Some(meeting) = self.meeting.take() else {
            return;
        };
        if meeting.is_in() || meeting.is_joining() {
            self.uplink.send(link_up::Message::Leave(LinkLeave {}));
        }
        self.forget_leg();
        let status = &mut self.status;
        status.left = why.map(str::to_owned);
        (status.meeting, status.stage_site, status.muted) = (None, None, false);
        status.meeting_title.clear();
        (status.audio_only, status.notice) = (false, Notice::default());
        self.uplink.want(&self.home_relay);
    }

    /// Nothing is published or shown of the leg that was.
    fn forget_leg(&mut self) {
        self.rest_publisher();
        self.screen = Screen::default();
        self.status.stage_status = "empty";
    }

    fn rest_publisher(&mut self) {
        self.on_air = false;
        self.sending = None;
        (self.status.rung, self.status.rung_why, self.status.way) = (Rung::Full, None, None);
        if let Some(publisher) = &mut self.publisher {
            publisher.stop(Instant::now());
        }
    }

    /// Closes the link without a leave: the site does not hang up because its agent restarts, and is called again
    /// as soon as an agent of it is back.
    async fn stop_in_good_order(mut self) {
        if let Some(notifier) = &self.config.notifier {
            notifier.stopping();
        }
        self.uplink.close("the agent ends");
        self.leave_meeting(None);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.attached = false;
        self.tell(Instant::now());
    }
}

/// Opens the camera before anybody calls; a test card waits for the site's name.
fn open_camera(config: &Config, inputs: &mpsc::Sender<Input>, page: Option<DriverEnd>) -> Option<Publisher> {
    let (demand, wanted) = watch::channel(Demand::default());
    let camera = match &config.source {
        Source::TestCard(_) => return None,
        Source::Page => {
            let end = page?;
            let desk = end.desk.clone();
            let tasks = driver::spawn(end, inputs);
            let camera = PageCamera::new(Instant::now(), desk, tasks, rand::random());
            return Some(Box::new(camera));
        }
        Source::Rtsp(streams) => {
            let tasks = rtsp::spawn(streams, inputs);
            Camera::new(streams.len(), demand, tasks, rand::random())
        }
        Source::Capture(capture) => {
            let tasks = capture::spawn(capture, &wanted, inputs);
            Camera::new(1, demand, tasks, rand::random()).on_demand(capture.device.clone())
        }
    };
    Some(Box::new(camera))
}

pub(crate) fn epoch_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as i64)
}

//! The agent's one loop: it owns all state, takes what the control plane, the link and the clock bring, and acts.
//!
//! Order of a summons: the call comes, ANSWERED is reported and the join sent in the same breath, and the first picture
//! follows the relay's answer. Card, tone and link are ready before. Losing the control plane changes nothing in a
//! meeting; losing the link leads back in by [`Meeting`]'s steps.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use muster_link::rtp::LinkRtp;
use muster_proto::command::v1::{Attached, Site, SummonsCall, SummonsReason, SummonsState};
use muster_proto::media::v1::{
    KeyFrameRequest, LinkDown, LinkJoin, LinkLeave, LinkRefused, LinkSlot, MeetingNotice, SetViewRequest,
    SlotState, SlotStatus, SlotWish, StageRef, WatchLegResponse, link_down, link_up, slot_wish,
    watch_leg_response,
};
use muster_testcard::Names;
use tokio::sync::mpsc;

use crate::config::{Config, Source};
use crate::control::{ControlEvent, ControlPlane, NoTicket};
pub use crate::enrolment::EnrolmentError;
use crate::publisher::Publisher;
use crate::rendezvous::{Meeting, Step};
use crate::screen::Screen;
use crate::status::{State, Status, StatusWriter};
use crate::uplink::{LinkEvent, Uplink};

/// What waits for the loop; beyond it the tasks wait.
const QUEUE: usize = 256;
const STATUS_PERIOD: Duration = Duration::from_secs(1);
/// Name and place in the join of the slot that shows the stage; the audio slots follow.
const STAGE: &str = "stage";
const STAGE_SLOT: usize = 0;
const AUDIO_SLOTS: [&str; 3] = ["a0", "a1", "a2"];
/// A larger picture is of no use to a status line.
const STAGE_SIZE: (u32, u32) = (320, 180);

/// What the tasks report to the loop.
#[derive(Debug)]
pub enum Input {
    Control(ControlEvent),
    /// Of the link with this number.
    Link(u64, LinkEvent),
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
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<Ended, EnrolmentError> {
    tokio::pin!(stop);
    let mut writer = StatusWriter::new(config.status.clone());
    let mut status = Status {
        since_ms: epoch_ms(),
        stage_status: "empty",
        ..Status::default()
    };
    writer.write(&status, true);
    let (credentials, site) = tokio::select! {
        identity = crate::enrolment::identity(&config, &mut status, &mut writer) => identity?,
        () = &mut stop => return Ok(Ended::Stopped),
    };
    let (inputs, mut queue) = mpsc::channel(QUEUE);
    let control = ControlPlane::start(&config.control_plane, &credentials, inputs.clone()).await?;
    let mut agent = Agent {
        uplink: Uplink::new(Arc::new(credentials), inputs),
        control,
        config,
        names: None,
        publisher: None,
        screen: Screen::default(),
        meeting: None,
        home_relay: String::new(),
        attached: false,
        on_air: false,
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
    uplink: Uplink,
    /// Chinese and English, as drawn on the card.
    names: Option<(String, String)>,
    publisher: Option<Publisher>,
    screen: Screen,
    meeting: Option<Meeting>,
    /// Where to keep a warm link outside meetings.
    home_relay: String,
    attached: bool,
    on_air: bool,
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
            Input::Link(number, event) if self.uplink.is_current(number) => self.handle_link(event),
            Input::Link(..) => {}
        }
    }

    fn handle_control_plane(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Attached(attached) => self.handle_attached(attached),
            ControlEvent::Summons(call) => self.handle_summons(call),
            ControlEvent::Withdrawn(withdrawn) => {
                if self
                    .meeting
                    .as_ref()
                    .is_some_and(|meeting| meeting.id == withdrawn.meeting)
                {
                    tracing::info!(
                        meeting = withdrawn.meeting,
                        reason = withdrawn.reason,
                        "summons withdrawn"
                    );
                    self.leave_meeting();
                }
            }
            ControlEvent::Detached(why) => {
                if self.attached || self.status.last_error.as_deref() != Some(&why) {
                    tracing::warn!(why, "not attached");
                }
                self.attached = false;
                self.status.last_error = Some(why);
            }
            ControlEvent::Ticket(id, answer) => self.handle_ticket(&id, answer),
        }
    }

    fn handle_attached(&mut self, attached: Attached) {
        tracing::info!(site = self.status.site, relay = attached.relay_link, "attached");
        self.attached = true;
        self.status.last_error = None;
        let site = attached.site.unwrap_or_else(|| Site {
            id: self.status.site.clone(),
            ..Site::default()
        });
        self.draw_card(site.name_zh, site.name_en);
        if !attached.relay_link.is_empty() {
            self.home_relay = attached.relay_link;
        }
        if self.meeting.is_none() {
            self.uplink.want(&self.home_relay);
        }
    }

    /// Makes card and tone, unless they are there with these names. A card in use is not changed in mid-meeting.
    fn draw_card(&mut self, chinese: String, english: String) {
        let english = if english.is_empty() {
            self.status.site.clone()
        } else {
            english
        };
        let names = (chinese, english);
        if self.publisher.is_some() && (self.names.as_ref() == Some(&names) || self.meeting.is_some()) {
            return;
        }
        let Source::TestCard(size) = self.config.source;
        let drawn = Names {
            chinese: &names.0,
            english: &names.1,
        };
        let offset = self.config.utc_offset_minutes;
        self.publisher = Some(Publisher::new(
            size,
            &self.status.site,
            drawn,
            offset,
            rand::random(),
        ));
        self.names = Some(names);
    }

    /// A test card has no person who could answer: it answers whether asked to by itself or not.
    fn handle_summons(&mut self, call: SummonsCall) {
        let now = Instant::now();
        if let Some(meeting) = self.meeting.as_mut().filter(|meeting| meeting.id == call.meeting) {
            // Told again after attaching again. A fresh ticket is of use if the way in is still ahead.
            if let Some(ticket) = call.ticket.filter(|_| !meeting.is_in()) {
                meeting.handle_ticket(ticket, now, rand::random());
            }
            if !meeting.is_in() {
                self.control.report(
                    &call.meeting,
                    SummonsState::Answered,
                    SummonsReason::Unspecified,
                    "",
                );
            }
            return;
        }
        tracing::info!(meeting = call.meeting, "summoned");
        self.leave_meeting();
        self.control.report(
            &call.meeting,
            SummonsState::Answered,
            SummonsReason::Unspecified,
            "",
        );
        if self.publisher.is_none() {
            self.draw_card(String::new(), String::new());
        }
        self.status.meeting = Some(call.meeting.clone());
        self.meeting = Some(Meeting::new(call.meeting, call.ticket, now));
        self.step(now);
    }

    fn handle_ticket(&mut self, id: &str, answer: Result<muster_proto::command::v1::JoinTicket, NoTicket>) {
        let now = Instant::now();
        let Some(meeting) = self.meeting.as_mut().filter(|meeting| meeting.id == id) else {
            return;
        };
        match answer {
            Ok(ticket) => meeting.handle_ticket(ticket, now, rand::random()),
            Err(NoTicket::Later(why)) => {
                self.status.last_error = Some(why);
                meeting.handle_no_ticket(now, rand::random());
            }
            Err(NoTicket::Over(why)) => {
                tracing::info!(meeting = id, why, "no way back into the meeting");
                self.leave_meeting();
            }
        }
    }

    fn handle_link(&mut self, event: LinkEvent) {
        let now = Instant::now();
        match event {
            LinkEvent::Up(sender) => {
                tracing::info!(relay = %sender.peer_address(), "link up");
                self.uplink.handle_up(sender, now);
                self.status.last_error = None;
            }
            LinkEvent::Control(message) => self.handle_relay(now, message),
            LinkEvent::Media(flow, packet) => self.handle_media(now, flow, &packet),
            LinkEvent::Lost(why) => {
                if self.uplink.address().is_some() || self.status.last_error.as_deref() != Some(&why) {
                    tracing::warn!(why, "link lost");
                }
                self.status.last_error = Some(why);
                self.uplink.handle_lost(now);
                self.handle_leg_lost();
            }
        }
    }

    fn handle_leg_lost(&mut self) {
        self.on_air = false;
        if let Some(meeting) = &mut self.meeting {
            meeting.handle_link_lost();
            self.status.stage_status = "stale";
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.stop();
        }
    }

    fn handle_relay(&mut self, now: Instant, message: LinkDown) {
        use link_down::Message;
        match message.message {
            Some(Message::Joined(joined)) => {
                let Some(meeting) = self.meeting.as_mut().filter(|meeting| meeting.is_joining()) else {
                    return;
                };
                tracing::info!(meeting = meeting.id, leg = joined.leg, "joined");
                meeting.handle_joined(joined.slot_flows);
                self.status.last_error = None;
                self.screen = Screen::default();
                self.uplink.send(link_up::Message::SetView(stage_wish()));
                if let Some(publisher) = &mut self.publisher {
                    publisher.start(now);
                }
            }
            Some(Message::Refused(refused)) => self.handle_refused(now, &refused),
            Some(Message::KeyFrame(KeyFrameRequest { flow })) => {
                if let Some(publisher) = &mut self.publisher {
                    publisher.request_key_frame(now, flow);
                }
            }
            Some(Message::LayerPause(pause)) => {
                if let Some(publisher) = &mut self.publisher {
                    publisher.pause(now, pause.flow, pause.paused);
                }
            }
            Some(Message::Event(WatchLegResponse { event: Some(event) })) => self.handle_leg_event(event),
            Some(Message::Event(_) | Message::Welcome(_) | Message::Pong(_)) | None => {}
        }
    }

    fn handle_refused(&mut self, now: Instant, refused: &LinkRefused) {
        let Some(meeting) = self.meeting.as_mut().filter(|meeting| meeting.is_joining()) else {
            // Not of a join: the view was refused.
            tracing::warn!(
                code = refused.code,
                detail = refused.detail,
                "refused by the relay"
            );
            self.status.last_error = Some(format!("refused: {} {}", refused.code, refused.detail));
            return;
        };
        tracing::warn!(
            meeting = meeting.id,
            code = refused.code,
            detail = refused.detail,
            "join refused"
        );
        self.status.last_error = Some(format!("join refused: {} {}", refused.code, refused.detail));
        meeting.handle_refused(now, rand::random());
        if refused.code == "bad_request" {
            let (id, detail) = (meeting.id.clone(), refused.detail.clone());
            self.control
                .report(&id, SummonsState::Refused, SummonsReason::JoinFailed, &detail);
            self.leave_meeting();
        }
    }

    fn handle_leg_event(&mut self, event: watch_leg_response::Event) {
        use watch_leg_response::Event;
        match event {
            Event::Slot(slot) if slot.slot == STAGE => self.handle_stage(slot),
            Event::Notice(MeetingNotice { ended: true, .. }) => {
                tracing::info!("the meeting has ended");
                self.leave_meeting();
            }
            Event::Notice(notice) => {
                self.status.muted = notice.muted;
                if let Some(publisher) = &mut self.publisher {
                    publisher.mute(notice.muted);
                }
            }
            Event::Slot(_) | Event::Speakers(_) | Event::Quality(_) | Event::Heartbeat(_) => {}
        }
    }

    fn handle_stage(&mut self, slot: SlotState) {
        let site = slot
            .source
            .as_ref()
            .map(|source| source.site.clone())
            .filter(|site| !site.is_empty());
        if self.status.stage_site != site {
            self.screen.clear();
        }
        self.status.stage_status = match slot.status() {
            SlotStatus::Waiting => "waiting",
            SlotStatus::Live => "live",
            SlotStatus::Stale => "stale",
            SlotStatus::Absent => "absent",
            SlotStatus::Refused => "refused",
            SlotStatus::Paused => "paused",
            SlotStatus::Empty | SlotStatus::Unspecified => "empty",
        };
        self.status.stage_site = site;
    }

    fn handle_media(&mut self, now: Instant, flow: u64, packet: &Bytes) {
        let Some(meeting) = &self.meeting else { return };
        let Some(slot) = meeting.slot_of(flow) else { return };
        let Ok(rtp) = LinkRtp::parse(packet) else { return };
        if slot == STAGE_SLOT {
            if self
                .screen
                .handle_packet(now, rtp.seq, rtp.timestamp, rtp.marker, rtp.payload)
            {
                self.uplink
                    .send(link_up::Message::KeyFrame(KeyFrameRequest { flow }));
            }
        } else if let Some(count) = self.status.audio_packets.get_mut(slot - 1) {
            *count += 1;
        }
    }

    /// Does what is due and returns when to come again.
    fn advance(&mut self) -> Instant {
        let now = Instant::now();
        let step = self.step(now);
        self.publish(now);
        self.tell(now);
        let published = self.publisher.as_ref().and_then(Publisher::poll_timeout);
        [step, published]
            .into_iter()
            .flatten()
            .fold(self.next_status, Instant::min)
    }

    /// Goes on on the way into the meeting as far as it is open.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let meeting = self.meeting.as_mut()?;
            match meeting.next_step(now, self.uplink.address()) {
                Step::AskTicket => self.control.ask_ticket(&meeting.id),
                Step::Connect(address) => {
                    self.uplink.want(&address);
                    return None;
                }
                Step::Join(token) => {
                    let sources = self
                        .publisher
                        .as_ref()
                        .map(Publisher::sources)
                        .unwrap_or_default();
                    self.uplink.send(link_up::Message::Join(LinkJoin {
                        token,
                        sources,
                        slots: slots(),
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
        let (Some(publisher), Some(sender)) = (&mut self.publisher, self.uplink.sender()) else {
            return;
        };
        let mut send = |datagram: Bytes| {
            if let Err(error) = sender.send_datagram(datagram) {
                tracing::debug!(%error, "datagram dropped");
            }
        };
        let pictures = publisher.handle_timeout(now, epoch_ms(), &mut send);
        self.status.pictures_sent += pictures;
        if pictures > 0 && self.meeting.as_ref().is_some_and(Meeting::is_in) {
            self.on_air = true;
        }
    }

    /// Brings the status up to date and writes it: on change, and each second.
    fn tell(&mut self, now: Instant) {
        let state = match &self.meeting {
            Some(_) if self.on_air => State::OnAir,
            Some(_) => State::Joining,
            None if self.attached => State::Attached,
            None => State::Offline,
        };
        if self.status.state != state {
            (self.status.state, self.status.since_ms) = (state, epoch_ms());
        }
        let mark = self.screen.mark();
        self.status.stage_site_number = mark.map(|mark| mark.site);
        self.status.stage_mark_age_ms = mark.map(|mark| mark.age_ms(epoch_ms()));
        self.status.stage_pictures = self.screen.pictures();
        self.status.paused = self.on_air && self.publisher.as_ref().is_some_and(Publisher::is_paused);
        if self.uplink.address() != self.status.relay.as_deref() {
            self.status.relay = self.uplink.address().map(str::to_owned);
        }
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

    /// Out of the meeting, and ready for the next.
    fn leave_meeting(&mut self) {
        let Some(meeting) = self.meeting.take() else {
            return;
        };
        if meeting.is_in() || meeting.is_joining() {
            self.uplink.send(link_up::Message::Leave(LinkLeave {}));
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.stop();
        }
        self.screen = Screen::default();
        self.on_air = false;
        let status = &mut self.status;
        (status.meeting, status.stage_site, status.muted) = (None, None, false);
        status.stage_status = "empty";
        self.uplink.want(&self.home_relay);
    }

    /// Closes the link without a leave: the site does not hang up because its agent restarts, and is called again
    /// as soon as an agent of it is back.
    async fn stop_in_good_order(mut self) {
        self.uplink.close("the agent ends");
        self.leave_meeting();
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.attached = false;
        self.tell(Instant::now());
    }
}

fn slots() -> Vec<LinkSlot> {
    let audio = AUDIO_SLOTS.map(|slot| LinkSlot {
        slot: slot.into(),
        audio: true,
        codecs: vec!["opus".into()],
    });
    let stage = LinkSlot {
        slot: STAGE.into(),
        audio: false,
        codecs: vec!["VP8".into()],
    };
    std::iter::once(stage).chain(audio).collect()
}

fn stage_wish() -> SetViewRequest {
    let what = Some(slot_wish::What::Stage(StageRef::default()));
    let (max_width, max_height) = STAGE_SIZE;
    SetViewRequest {
        wishes: vec![SlotWish {
            slot: STAGE.into(),
            what,
            max_width,
            max_height,
        }],
    }
}

fn epoch_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as i64)
}

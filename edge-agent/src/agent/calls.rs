//! What the control plane says, and what the agent does about it: being attached, called, let go, told and checked.

use std::time::{Duration, Instant};

use muster_proto::command::v1::{
    Attached, DrillCall, EndpointNotice, FloorState, JoinTicket, Site, SummonsCall, SummonsReason,
    SummonsState, SummonsWithdrawn,
};
use muster_proto::media::v1::{LinkPing, link_up};
use muster_testcard::Names;

use crate::config::Source;
use crate::control::{ControlEvent, NoTicket};
use crate::drill::Drill;
use crate::publisher::{Card, Checked, Fault};
use crate::rendezvous::Meeting;
use crate::status::Called;

use super::{Agent, epoch_ms};

impl Agent {
    pub(super) fn handle_control_plane(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Attached(address, attached) => self.handle_attached(address, attached),
            ControlEvent::Summons(call) => self.handle_summons(call),
            ControlEvent::Withdrawn(withdrawn) => self.handle_withdrawn(&withdrawn),
            ControlEvent::Notice(notice) => self.handle_notice(notice),
            ControlEvent::Drill(call) => self.handle_drill(call),
            ControlEvent::Detached(why, wait) => {
                if self.attached || self.status.last_error.as_deref() != Some(&why) {
                    tracing::warn!(why, "not attached");
                }
                if self.status.control_plane.take().is_some() {
                    self.status.detached_since_ms = epoch_ms();
                }
                self.attached = false;
                self.status.attach_at_ms = epoch_ms().saturating_add(millis(wait));
                self.status.last_error = Some(why);
            }
            ControlEvent::Ticket(id, answer) => self.handle_ticket(&id, answer),
        }
    }

    fn handle_attached(&mut self, address: String, attached: Attached) {
        tracing::info!(
            site = self.status.site,
            control_plane = address,
            relay = attached.relay_link,
            "attached"
        );
        self.attached = true;
        self.status.control_plane = Some(address);
        (self.status.attach_at_ms, self.status.detached_since_ms) = (0, 0);
        self.status.last_error = None;
        let site = attached.site.unwrap_or_else(|| Site {
            id: self.status.site.clone(),
            ..Site::default()
        });
        self.status.name_zh.clone_from(&site.name_zh);
        self.status.name_en.clone_from(&site.name_en);
        self.draw_card(site.name_zh, site.name_en);
        if !attached.relay_link.is_empty() {
            self.home_relay = attached.relay_link;
        }
        if self.meeting.is_none() {
            self.uplink.want(&self.home_relay);
        }
        // What was told while nobody heard it.
        self.tell_fault_on_air();
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
        let Source::TestCard(size) = self.config.source else {
            return;
        };
        let drawn = Names {
            chinese: &names.0,
            english: &names.1,
        };
        let offset = self.config.utc_offset_minutes;
        let card = Card::new(size, &self.status.site, drawn, offset, rand::random());
        self.publisher = Some(Box::new(card));
        self.names = Some(names);
    }

    /// A call that is to be answered by itself is; another rings until somebody of the site answers it (on the box's own page,
    /// or in its browser) or it is withdrawn, and disturbs no meeting meanwhile.
    fn handle_summons(&mut self, call: SummonsCall) {
        let known = self.meeting.as_ref().filter(|meeting| meeting.id == call.meeting);
        let goes_on = known.is_some_and(|meeting| meeting.audio_only == call.audio_only);
        if goes_on {
            return self.handle_call_again(call);
        }
        if known.is_none() && !call.auto_answer {
            tracing::info!(meeting = call.meeting, "ringing");
            self.report(&call.meeting, SummonsState::Ringing);
            self.status.ringing = Some(Called {
                meeting: call.meeting.clone(),
                title: call.title.clone(),
                from: call.from.clone(),
            });
            self.ringing = Some((call, Instant::now()));
            return;
        }
        tracing::info!(meeting = call.meeting, audio_only = call.audio_only, "summoned");
        match known {
            // The same meeting, by other means: the next join takes the place of the leg, so nobody hangs up.
            Some(_) => self.forget_leg(),
            None => self.leave_meeting(None),
        }
        self.answer(call);
    }

    /// Told again after attaching again. A fresh ticket is of use if the way in is still ahead.
    fn handle_call_again(&mut self, call: SummonsCall) {
        let Some(meeting) = self.meeting.as_mut().filter(|meeting| !meeting.is_in()) else {
            return;
        };
        if let Some(ticket) = call.ticket {
            meeting.handle_ticket(ticket, Instant::now(), rand::random());
        }
        let camera = self.fault.filter(|_| !call.audio_only);
        let reason = camera.map_or(SummonsReason::Unspecified, Fault::reason);
        self.control
            .report(&call.meeting, SummonsState::Answered, reason, "");
    }

    pub(super) fn answer(&mut self, call: SummonsCall) {
        let now = Instant::now();
        if self.publisher.is_none() {
            self.draw_card(String::new(), String::new());
        }
        self.status
            .ringing
            .take_if(|ringing| ringing.meeting == call.meeting);
        self.look_at_camera();
        if let Some(fault) = self.fault.filter(|_| !call.audio_only) {
            return self.refuse_without_picture(&call.meeting, fault);
        }
        self.report(&call.meeting, SummonsState::Answered);
        self.was_on_air = false;
        self.status.meeting = Some(call.meeting.clone());
        self.status.meeting_title = call.title;
        self.status.audio_only = call.audio_only;
        self.status.left = None;
        self.meeting = Some(Meeting::new(call.meeting, call.audio_only, call.ticket, now));
        self.step(now);
    }

    fn handle_withdrawn(&mut self, withdrawn: &SummonsWithdrawn) {
        let SummonsWithdrawn { meeting, reason } = withdrawn;
        let rang = self.status.ringing.take_if(|ringing| ringing.meeting == *meeting);
        let on = self.meeting.as_ref().is_some_and(|on| on.id == *meeting);
        if on || rang.is_some() {
            tracing::info!(meeting, reason, "summons withdrawn");
        }
        if on {
            self.leave_meeting(Some(reason));
        }
    }

    fn handle_ticket(&mut self, id: &str, answer: Result<JoinTicket, NoTicket>) {
        let now = Instant::now();
        let unreachable = self.is_in_doubt(now) || self.uplink.address().is_none();
        let Some(meeting) = self.meeting.as_mut().filter(|meeting| meeting.id == id) else {
            return;
        };
        match answer {
            Ok(ticket) => {
                let (link, relay) = (ticket.relay_link.clone(), ticket.relay.clone());
                let was_in = meeting.is_in();
                if !meeting.handle_ticket(ticket, now, rand::random()) {
                    return;
                }
                tracing::info!(meeting = id, relay, "the meeting is at another relay");
                if unreachable && self.uplink.wanted() == Some(self.home_relay.as_str()) {
                    self.home_relay = link;
                }
                if was_in {
                    self.handle_leg_lost();
                }
            }
            Err(NoTicket::Later(why)) => {
                self.status.last_error = Some(why);
                meeting.handle_no_ticket(now, rand::random());
            }
            Err(NoTicket::Over(why)) => {
                tracing::info!(meeting = id, why, "no way back into the meeting");
                self.leave_meeting(Some(&why));
            }
        }
    }

    fn handle_notice(&mut self, notice: EndpointNotice) {
        if self
            .meeting
            .as_ref()
            .is_none_or(|meeting| meeting.id != notice.meeting)
        {
            return;
        }
        if notice.roll_called && !self.status.notice.roll_called {
            tracing::info!(meeting = notice.meeting, "called in the roll call");
        }
        let shown = &mut self.status.notice;
        if notice.roll_called && !shown.roll_called {
            shown.called_ms = epoch_ms();
        }
        shown.roll_call = notice.roll_call;
        shown.floor = match notice.floor() {
            FloorState::Unspecified => "none",
            FloorState::Waiting => "waiting",
            FloorState::Granted => "granted",
        };
        shown.floor_place = notice.floor_place;
        shown.floor_until_ms = notice.floor_until_ms;
        shown.roll_called = notice.roll_called;
        shown.answer_by_ms = notice.answer_by_ms;
        shown.locked = notice.locked;
        shown.ends_ms = notice.ends_ms;
        shown.chair = notice.chair;
        self.status.muted = notice.muted;
    }

    /// Checks itself without a sign to anybody at the site; the answer goes out when the relay has answered, or has not.
    fn handle_drill(&mut self, call: DrillCall) {
        let nothing = Checked {
            camera: Err(Fault::Missing),
            microphone: Some(false),
        };
        let sources = self
            .publisher
            .as_mut()
            .map_or(nothing, |publisher| publisher.check());
        let (now, nonce) = (Instant::now(), rand::random());
        let drill = Drill::begin(call, &self.status.site, (now, epoch_ms()), sources, nonce);
        if self.uplink.sender().is_none() {
            let why = self.status.last_error.as_deref().unwrap_or("not connected");
            let (id, result) = drill.failed(&format!("no link to a relay: {why}"));
            return self.control.report_drill(&id, result);
        }
        self.uplink.send(link_up::Message::Ping(LinkPing { nonce }));
        self.drill = Some(drill);
    }

    /// The relay answered a ping.
    pub(super) fn handle_pong(&mut self, now: Instant, nonce: u64) {
        if let Some(drill) = self.drill.take_if(|drill| drill.nonce == nonce) {
            let (id, result) = drill.answered(now);
            self.control.report_drill(&id, result);
        }
    }

    /// Ends a drill whose relay does not answer; says when to look again.
    pub(super) fn look_at_drill(&mut self, now: Instant) -> Option<Instant> {
        if let Some(drill) = self.drill.take_if(|drill| now >= drill.poll_timeout()) {
            let (id, result) = drill.failed("the relay does not answer");
            self.control.report_drill(&id, result);
        }
        self.drill.as_ref().map(Drill::poll_timeout)
    }

    pub(super) fn report(&self, meeting: &str, state: SummonsState) {
        self.control
            .report(meeting, state, SummonsReason::Unspecified, "");
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

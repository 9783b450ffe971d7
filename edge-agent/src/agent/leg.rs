//! What the link brings: its coming and going, the relay's words about the leg, and the media of the slots.

use std::time::Instant;

use bytes::Bytes;
use muster_link::rtp::LinkRtp;
use muster_proto::command::v1::{SummonsReason, SummonsState};
use muster_proto::media::v1::{
    KeyFrameRequest, LinkDown, LinkPing, LinkRefused, MeetingNotice, SlotState, SlotStatus, WatchLegResponse,
    link_down, link_up, watch_leg_response,
};

use crate::pulse::{Beat, Pulse};
use crate::screen::Screen;
use crate::uplink::LinkEvent;

use super::sending::Sending;
use super::{Agent, STAGE, STAGE_SLOT};

/// Nothing has come from the relay for so long, in milliseconds.
const DARK_MS: i64 = 2_000;

impl Agent {
    pub(super) fn handle_link(&mut self, event: LinkEvent) {
        let now = Instant::now();
        match event {
            LinkEvent::Up(sender) => {
                tracing::info!(relay = %sender.peer_address(), "link up");
                self.uplink.handle_up(sender, now);
                self.pulse = Some(Pulse::new(now));
                self.status.last_error = None;
            }
            LinkEvent::Control(message) => {
                if let Some(pulse) = &mut self.pulse {
                    pulse.heard(now);
                }
                self.handle_relay(now, message);
            }
            LinkEvent::Media(flow, packet) => {
                if let Some(pulse) = &mut self.pulse {
                    pulse.heard_media(now);
                }
                self.handle_media(now, flow, &packet);
            }
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

    /// Nothing is sent any more; the way back into the meeting begins.
    pub(super) fn handle_leg_lost(&mut self) {
        self.pulse = None;
        if let Some(meeting) = &mut self.meeting {
            meeting.handle_link_lost();
            self.status.stage_status = "stale";
        }
        self.rest_publisher();
    }

    /// Brings what is told of the link up to date.
    pub(super) fn tell_link(&mut self) {
        let (up, wanted) = (self.uplink.address(), self.uplink.wanted());
        let status = &mut self.status;
        if up != status.relay.as_deref() {
            status.relay = up.map(str::to_owned);
        }
        if wanted != status.link.wanted.as_deref() {
            status.link.wanted = wanted.map(str::to_owned);
        }
        // A link from which nothing comes is away for people before it is given up.
        let dark = status.way.map_or(0, |way| way.dark_since_ms);
        let is_dark = dark > 0 && super::epoch_ms() - dark > DARK_MS;
        match (up.is_some() || wanted.is_none(), status.link.away_since_ms) {
            (true, _) => status.link.away_since_ms = if is_dark { dark } else { 0 },
            (false, 0) => status.link.away_since_ms = super::epoch_ms(),
            (false, _) => {}
        }
        status.link.try_at_ms = if up.is_some() { 0 } else { self.uplink.try_at_ms() };
    }

    /// Whether the relay of the present leg is in doubt.
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        self.pulse.as_ref().is_some_and(|pulse| pulse.is_in_doubt(now))
    }

    /// Pings a relay from which nothing is heard in a meeting; says when to look again.
    pub(super) fn feel_pulse(&mut self, now: Instant) -> Option<Instant> {
        let (Some(pulse), Some(meeting)) = (&mut self.pulse, &self.meeting) else {
            return None;
        };
        if !meeting.is_in() {
            return None;
        }
        loop {
            match pulse.beat(now) {
                Beat::Ping => self.uplink.send(link_up::Message::Ping(LinkPing { nonce: 0 })),
                Beat::Wait(until) => return Some(until),
            }
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
                self.pulse = Some(Pulse::new(now));
                let audio_only = meeting.audio_only;
                self.begin_view();
                self.wish_stage();
                if let Some(publisher) = &mut self.publisher {
                    self.sending = Some(Sending::new(now, &publisher.sources(audio_only)));
                    publisher.start(now, audio_only);
                }
            }
            Some(Message::Refused(refused)) => self.handle_refused(now, &refused),
            Some(Message::KeyFrame(KeyFrameRequest { flow })) => {
                if let Some(publisher) = &mut self.publisher {
                    publisher.request_key_frame(now, flow);
                }
            }
            Some(Message::LayerPause(pause)) => {
                let sending = &mut self.sending;
                let rests = sending.as_mut().map_or(pause.paused, |sending| {
                    sending.valve.pause(pause.flow, pause.paused)
                });
                if let Some(publisher) = &mut self.publisher {
                    publisher.pause(now, pause.flow, rests);
                }
            }
            Some(Message::Event(WatchLegResponse { event: Some(event) })) => {
                self.handle_leg_event(now, event);
            }
            Some(Message::Pong(pong)) => self.handle_pong(now, pong.nonce),
            Some(Message::Event(_) | Message::Welcome(_) | Message::Relay(_)) | None => {}
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
            self.leave_meeting(Some(&detail));
        }
    }

    fn handle_leg_event(&mut self, now: Instant, event: watch_leg_response::Event) {
        use watch_leg_response::Event;
        match event {
            Event::Slot(slot) if slot.slot == STAGE => self.handle_stage(now, slot),
            Event::Notice(MeetingNotice { ended: true, .. }) => {
                tracing::info!("the meeting has ended");
                self.leave_meeting(Some("ended"));
            }
            Event::Notice(MeetingNotice { moved: true, .. }) => {
                if let Some(meeting) = self.meeting.as_mut().filter(|meeting| meeting.is_in()) {
                    tracing::info!(meeting = meeting.id, "the meeting is at another relay now");
                    meeting.handle_moved();
                }
            }
            Event::Notice(notice) => {
                self.status.muted = notice.muted;
                self.status.notice.locked = notice.locked;
                if let Some(publisher) = &mut self.publisher {
                    publisher.mute(notice.muted);
                }
            }
            Event::Slot(_) | Event::Speakers(_) | Event::Quality(_) | Event::Heartbeat(_) => {}
        }
    }

    fn handle_stage(&mut self, now: Instant, slot: SlotState) {
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
        if let Some(pulse) = &mut self.pulse {
            pulse.expect_media(now, self.status.stage_status == "live");
        }
    }

    fn handle_media(&mut self, now: Instant, flow: u64, packet: &Bytes) {
        let Some(meeting) = &self.meeting else { return };
        let Some(slot) = meeting.slot_of(flow) else { return };
        let Ok(rtp) = LinkRtp::parse(packet) else { return };
        let shown = self.show(slot, packet, &rtp);
        if slot == STAGE_SLOT {
            if !shown
                && self
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
}

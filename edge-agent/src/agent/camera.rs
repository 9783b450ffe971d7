//! What the agent tells of its camera: to the dispatcher with a reason, and to the site in its status.
//!
//! A site whose camera is known to be of no use refuses a call for a picture and names the reason, as a browser does; the
//! meeting then falls back as it was told to. A site that is in already stays in with its sound, and its reason stands
//! beside its picture until the camera is back.

use muster_proto::command::v1::{SummonsReason, SummonsState};

use crate::publisher::Fault;

use super::{Agent, epoch_ms};

impl Agent {
    /// Tells what has changed about the camera since the last look.
    pub(super) fn look_at_camera(&mut self) {
        let fault = self.publisher.as_ref().and_then(|publisher| publisher.fault());
        if fault == self.fault {
            return;
        }
        match fault {
            Some(fault) => tracing::warn!(fault = fault.word(), "{}", fault.in_words()),
            None => tracing::info!("the camera is well again"),
        }
        self.fault = fault;
        self.status.camera_fault = fault.map(Fault::word);
        self.status.camera_since_ms = fault.map_or(0, |_| epoch_ms());
        if self.was_on_air {
            return self.tell_camera_on_air();
        }
        let waiting = self.meeting.as_ref().filter(|meeting| !meeting.audio_only);
        if let (Some(fault), Some(meeting)) = (fault, waiting) {
            let id = meeting.id.clone();
            self.refuse_without_picture(&id, fault);
        }
    }

    /// Ends the call for a picture that there is not.
    pub(super) fn refuse_without_picture(&mut self, meeting: &str, fault: Fault) {
        tracing::warn!(meeting, fault = fault.word(), "no picture to join with");
        self.control
            .report(meeting, SummonsState::Refused, fault.reason(), "");
        if self.meeting.as_ref().is_some_and(|on| on.id == meeting) {
            self.leave_meeting(Some(fault.in_words()));
        } else {
            self.status.left = Some(fault.in_words().to_owned());
        }
    }

    /// Tells again what is wrong, if anything is.
    pub(super) fn tell_fault_on_air(&self) {
        if self.fault.is_some() && self.was_on_air {
            self.tell_camera_on_air();
        }
    }

    fn tell_camera_on_air(&self) {
        let Some(meeting) = self.meeting.as_ref().filter(|meeting| !meeting.audio_only) else {
            return;
        };
        let reason = self.fault.map_or(SummonsReason::Unspecified, Fault::reason);
        self.control
            .report(&meeting.id, SummonsState::Answered, reason, "");
    }
}

//! One site's part of a convening.
//!
//! On the wire the other meeting's id stands in `detail`, where the domain keeps it apart from the endpoint's words.

use super::meeting::{priority_from_wire, priority_to_wire};
use super::{corrupt, known_time, paired, time_to_wire};
use crate::store::StoreError;
use muster_domain::{Holder, Media, MeetingId, Millis, Reason, SiteId, Summons, SummonsState};
use muster_proto::command::v1 as pb;
use std::sync::Arc;

paired!(SummonsState, pb::SummonsState, state_to_wire, state_from_wire, {
    Paged = Paged, Delivered = Delivered, Ringing = Ringing, Answered = Answered, Joining = Joining,
    OnAir = OnAir, Declined = Declined, Unreachable = Unreachable, TimedOut = TimedOut, Refused = Refused,
    Left = Left,
});
paired!(Reason, pb::SummonsReason, reason_to_wire, reason_from_wire, {
    NeverSeen = NeverSeen, Offline = Offline, NoAnswer = NoAnswer, Declined = Declined, NoMedia = NoMedia,
    CameraBusy = CameraBusy, CameraMissing = CameraMissing, LinkLost = LinkLost,
    InOtherMeeting = InOtherMeeting, NoRelay = NoRelay, JoinFailed = JoinFailed, NoDelivery = NoDelivery,
    HungUp = HungUp, HungUpByChair = HungUpByChair, MicrophoneMissing = MicrophoneMissing,
    Deadline = Deadline, ReplicaAway = ReplicaAway, CameraSilent = CameraSilent, CameraRefused = CameraRefused,
    CameraUnreachable = CameraUnreachable, CameraFormat = CameraFormat,
    CameraDenied = CameraDenied, PageClosed = PageClosed,
});
paired!(Media, pb::Media, media_to_wire, media_from_wire, { Video = Video, Audio = Audio });

pub(super) fn optional_reason(reason: Option<Reason>) -> i32 {
    reason
        .map_or(pb::SummonsReason::Unspecified, reason_to_wire)
        .into()
}

pub fn summons_to_wire(summons: &Summons) -> pb::Summons {
    let other = summons.other.as_ref();
    pb::Summons {
        site: summons.site.to_string(),
        state: state_to_wire(summons.state).into(),
        reason: optional_reason(summons.reason),
        at_ms: summons.at.0,
        reason_since_ms: time_to_wire(summons.reason_since),
        paged_ms: time_to_wire(summons.paged),
        on_air_ms: time_to_wire(summons.on_air),
        detail: other.map_or_else(|| summons.detail.clone(), |other| other.meeting.to_string()),
        media: media_to_wire(summons.media).into(),
        answered_by: summons.answered_by.clone(),
        other_title: other.map(|other| other.title.clone()).unwrap_or_default(),
        other_priority: other
            .map_or(pb::Priority::Unspecified, |other| {
                priority_to_wire(other.priority)
            })
            .into(),
        pages: summons.pages,
    }
}

pub(super) fn summons_from_wire(wire: pb::Summons) -> Result<Summons, StoreError> {
    let reason = reason_from_wire(wire.reason);
    let other = match reason {
        Some(Reason::InOtherMeeting) => Some(Arc::new(Holder {
            meeting: MeetingId::new(&wire.detail).map_err(corrupt)?,
            title: wire.other_title,
            priority: priority_from_wire(wire.other_priority).unwrap_or_default(),
        })),
        _ => None,
    };
    let detail = if other.is_some() {
        String::new()
    } else {
        wire.detail
    };
    Ok(Summons {
        site: SiteId::new(&wire.site).map_err(corrupt)?,
        state: state_from_wire(wire.state).ok_or_else(|| corrupt(format!("summons state {}", wire.state)))?,
        reason,
        at: Millis(wire.at_ms),
        reason_since: known_time(wire.reason_since_ms),
        paged: known_time(wire.paged_ms),
        on_air: known_time(wire.on_air_ms),
        detail,
        media: media_from_wire(wire.media).unwrap_or_default(),
        answered_by: wire.answered_by,
        other,
        pages: wire.pages,
    })
}

//! The words of a summons: how far it has come, and why it is where it is. Closed sets, each with a stable code.
//!
//! What leads from one to the other is in the module above.

use std::fmt;

/// How far a summons has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SummonsState {
    Paged,
    Delivered,
    Ringing,
    Answered,
    Joining,
    /// Media was seen at a relay, not only a connection.
    OnAir,
    Declined,
    Unreachable,
    TimedOut,
    Refused,
    /// Left in good order: the site hung up, or the meeting ended.
    Left,
}

impl SummonsState {
    /// All of them, in order.
    pub const ALL: [SummonsState; 11] = {
        use SummonsState::*;
        [
            Paged,
            Delivered,
            Ringing,
            Answered,
            Joining,
            OnAir,
            Declined,
            Unreachable,
            TimedOut,
            Refused,
            Left,
        ]
    };

    /// Under way: paged to joining.
    pub fn is_pending(self) -> bool {
        self < SummonsState::OnAir
    }

    /// One of the ends.
    pub fn is_end(self) -> bool {
        self > SummonsState::OnAir
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            SummonsState::Paged => "paged",
            SummonsState::Delivered => "delivered",
            SummonsState::Ringing => "ringing",
            SummonsState::Answered => "answered",
            SummonsState::Joining => "joining",
            SummonsState::OnAir => "on air",
            SummonsState::Declined => "declined",
            SummonsState::Unreachable => "unreachable",
            SummonsState::TimedOut => "timed out",
            SummonsState::Refused => "refused",
            SummonsState::Left => "left",
        }
    }
}

impl fmt::Display for SummonsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a summons is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    NeverSeen,
    Offline,
    NoAnswer,
    Declined,
    /// Joined, but no media was seen. On a summons that is on air: silent since `reason_since`.
    NoMedia,
    CameraBusy,
    CameraMissing,
    LinkLost,
    InOtherMeeting,
    NoRelay,
    JoinFailed,
    /// The endpoint seems attached, but did not confirm the page.
    NoDelivery,
    HungUp,
    /// The chair took the site out.
    HungUpByChair,
    MicrophoneMissing,
    /// The deadline of the convening passed while the site was under way.
    Deadline,
    /// The part of the control plane to which the endpoint is attached cannot be reached.
    ReplicaAway,
    CameraSilent,
    /// It does not take the name or password.
    CameraRefused,
    /// It does not answer on the site's own network.
    CameraUnreachable,
    /// It sends no format that can be passed on.
    CameraFormat,
    /// The site's browser does not allow it.
    CameraDenied,
    /// No browser shows the agent's own page, from which the picture would come.
    PageClosed,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Reason; 23] = {
        use Reason::*;
        [
            NeverSeen,
            Offline,
            NoAnswer,
            Declined,
            NoMedia,
            CameraBusy,
            CameraMissing,
            LinkLost,
            InOtherMeeting,
            NoRelay,
            JoinFailed,
            NoDelivery,
            HungUp,
            HungUpByChair,
            MicrophoneMissing,
            Deadline,
            ReplicaAway,
            CameraSilent,
            CameraRefused,
            CameraUnreachable,
            CameraFormat,
            CameraDenied,
            PageClosed,
        ]
    };

    /// Whether an endpoint can know this of itself. Any other reason in its report is not believed.
    pub fn is_endpoints(self) -> bool {
        use Reason::*;
        self.is_cameras()
            || matches!(
                self,
                NoAnswer | Declined | NoMedia | MicrophoneMissing | LinkLost | JoinFailed
            )
    }

    /// What is wrong with the site's camera.
    pub fn is_cameras(self) -> bool {
        use Reason::*;
        matches!(
            self,
            CameraBusy
                | CameraMissing
                | CameraSilent
                | CameraRefused
                | CameraUnreachable
                | CameraFormat
                | CameraDenied
                | PageClosed
        )
    }

    /// Whether it is for want of a picture, so that sound alone may still come.
    pub fn wants_picture(self) -> bool {
        self == Reason::NoMedia || self.is_cameras()
    }

    /// A stable word for programs and for translation.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NeverSeen => "never_seen",
            Reason::Offline => "offline",
            Reason::NoAnswer => "no_answer",
            Reason::Declined => "declined",
            Reason::NoMedia => "no_media",
            Reason::CameraBusy => "camera_busy",
            Reason::CameraMissing => "camera_missing",
            Reason::LinkLost => "link_lost",
            Reason::InOtherMeeting => "in_other_meeting",
            Reason::NoRelay => "no_relay",
            Reason::JoinFailed => "join_failed",
            Reason::NoDelivery => "no_delivery",
            Reason::HungUp => "hung_up",
            Reason::HungUpByChair => "hung_up_by_chair",
            Reason::MicrophoneMissing => "microphone_missing",
            Reason::Deadline => "deadline",
            Reason::ReplicaAway => "replica_away",
            Reason::CameraSilent => "camera_silent",
            Reason::CameraRefused => "camera_refused",
            Reason::CameraUnreachable => "camera_unreachable",
            Reason::CameraFormat => "camera_format",
            Reason::CameraDenied => "camera_denied",
            Reason::PageClosed => "page_closed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NeverSeen => "no endpoint of the site was ever seen",
            Reason::Offline => "the endpoint is offline",
            Reason::NoAnswer => "nobody answered",
            Reason::Declined => "the site declined",
            Reason::NoMedia => "no picture or sound arrives",
            Reason::CameraBusy => "the camera is in use by another program",
            Reason::CameraMissing => "no camera was found",
            Reason::LinkLost => "the connection to the site was lost",
            Reason::InOtherMeeting => "the site is in another meeting",
            Reason::NoRelay => "no relay is online",
            Reason::JoinFailed => "the endpoint answered, but could not join",
            Reason::NoDelivery => "the endpoint did not confirm the call",
            Reason::HungUp => "the site hung up",
            Reason::HungUpByChair => "the chair took the site out",
            Reason::MicrophoneMissing => "no microphone was found",
            Reason::Deadline => "the deadline of the convening passed",
            Reason::ReplicaAway => "the part of the control plane that has the endpoint cannot be reached",
            Reason::CameraSilent => "the camera is connected and sends nothing",
            Reason::CameraRefused => "the camera does not take the password",
            Reason::CameraUnreachable => "the camera does not answer",
            Reason::CameraFormat => "the camera sends a format that cannot be passed on",
            Reason::CameraDenied => "the browser does not allow the camera",
            Reason::PageClosed => "the page whose browser is the camera is not open",
        })
    }
}

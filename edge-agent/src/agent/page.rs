//! The meeting on the agent's own page: what a browser there shows and says, and calls that are answered with a touch.
//!
//! With the source `page` the slots' packets go on to the browser as they come; nothing of the stage is decoded here. How
//! large the stage is asked for follows the page, and its requests for key frames go up the link.

use std::time::{Duration, Instant};

use muster_link::rtp::LinkRtp;
use muster_proto::command::v1::{SummonsReason, SummonsState};
use muster_proto::media::v1::{
    KeyFrameRequest, LinkSlot, SetViewRequest, SlotWish, StageRef, link_up, slot_wish,
};

use crate::publisher::page::desk::{Desk, Shown};
use crate::publisher::page::driver::Viewing;

use super::{AUDIO_SLOTS, Agent, STAGE, STAGE_SIZE, STAGE_SLOT};

/// No screen at a site has more pixels a side.
const LARGEST_STAGE: u32 = 4096;
/// A ticket that is older is not used any more: a new one is asked for.
const TICKET_FRESH: Duration = Duration::from_secs(60);

/// The browser as a screen.
#[derive(Debug)]
pub(super) struct Viewer {
    pub desk: Desk,
    /// It takes H.264 too; until one was there, what browsers usually do.
    h264: bool,
    /// Pixels of the stage there; that of a status line while there is none.
    size: (u32, u32),
    /// Counts the legs at relays.
    leg: u64,
    /// Pictures of the stage that were handed on.
    pictures: u64,
}

impl Viewer {
    pub fn new(desk: Desk) -> Self {
        Self {
            desk,
            h264: true,
            size: STAGE_SIZE,
            leg: 0,
            pictures: 0,
        }
    }
}

impl Agent {
    pub(super) fn slots(&self) -> Vec<LinkSlot> {
        let audio = AUDIO_SLOTS.map(|slot| LinkSlot {
            slot: slot.into(),
            audio: true,
            codecs: vec!["opus".into()],
        });
        let h264 = self.viewer.as_ref().is_some_and(|viewer| viewer.h264);
        let codecs = ["VP8"].into_iter().chain(h264.then_some("H264"));
        let stage = LinkSlot {
            slot: STAGE.into(),
            audio: false,
            codecs: codecs.map(str::to_owned).collect(),
        };
        std::iter::once(stage).chain(audio).collect()
    }

    /// Asks for the stage in the size in which it is shown.
    pub(super) fn wish_stage(&self) {
        let (max_width, max_height) = self.viewer.as_ref().map_or(STAGE_SIZE, |viewer| viewer.size);
        let what = Some(slot_wish::What::Stage(StageRef::default()));
        self.uplink.send(link_up::Message::SetView(SetViewRequest {
            wishes: vec![SlotWish {
                slot: STAGE.into(),
                what,
                max_width,
                max_height,
            }],
        }));
    }

    /// A new leg: its packets have numbers of their own.
    pub(super) fn begin_view(&mut self) {
        if let Some(viewer) = &mut self.viewer {
            viewer.leg += 1;
        }
    }

    /// Hands a packet of a slot to the browser; `false` where there is none to hand it to.
    pub(super) fn show(&mut self, slot: usize, packet: &bytes::Bytes, rtp: &LinkRtp<'_>) -> bool {
        let Some(viewer) = &mut self.viewer else {
            return false;
        };
        let shown = viewer.desk.wanted().session != 0
            && viewer.desk.show(Shown {
                slot,
                leg: viewer.leg,
                packet: packet.clone(),
            });
        if shown && slot == STAGE_SLOT && rtp.marker {
            viewer.pictures += 1;
        }
        true
    }

    /// Pictures of the stage that were shown so far.
    pub(super) fn stage_pictures(&self) -> u64 {
        let viewer = self.viewer.as_ref();
        viewer.map_or(self.screen.pictures(), |viewer| viewer.pictures)
    }

    pub(super) fn handle_viewing(&mut self, viewing: Viewing) {
        let Some(viewer) = &mut self.viewer else { return };
        let was = viewer.size;
        match viewing {
            Viewing::Begins { h264 } => {
                viewer.h264 = h264;
                self.ask_key_frame(STAGE_SLOT);
                return;
            }
            Viewing::KeyFrame(slot) => return self.ask_key_frame(slot),
            Viewing::Ends => viewer.size = STAGE_SIZE,
            Viewing::Size(0, _) | Viewing::Size(_, 0) => {}
            Viewing::Size(width, height) => {
                viewer.size = (width.min(LARGEST_STAGE), height.min(LARGEST_STAGE));
            }
        }
        let is_in = self.meeting.as_ref().is_some_and(|meeting| meeting.is_in());
        if viewer.size != was && is_in {
            self.wish_stage();
        }
    }

    fn ask_key_frame(&self, slot: usize) {
        let flow = self.meeting.as_ref().and_then(|meeting| meeting.flow_of(slot));
        if let Some(flow) = flow {
            self.uplink
                .send(link_up::Message::KeyFrame(KeyFrameRequest { flow }));
        }
    }

    /// Somebody at the site takes the call that rings, or does not.
    pub(super) fn handle_touch(&mut self, meeting: &str, accepts: bool) {
        let Some((mut call, since)) = self.ringing.take_if(|(call, _)| call.meeting == meeting) else {
            return;
        };
        if self.status.ringing.take().is_none() {
            return;
        }
        tracing::info!(meeting, accepts, "the call is answered at the page");
        if !accepts {
            return self
                .control
                .report(meeting, SummonsState::Declined, SummonsReason::Declined, "");
        }
        if Instant::now().saturating_duration_since(since) > TICKET_FRESH {
            call.ticket = None;
        }
        self.leave_meeting(None);
        self.answer(call);
    }
}

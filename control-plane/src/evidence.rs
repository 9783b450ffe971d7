//! Evidence for the roll call: whether media of the called site is seen, up and down, as relays tell it.
//!
//! Up is what the relay receives of the site, down what it sends there and the site confirms; a direction in which half
//! of the packets are lost or more does not count. Before a relay has told any numbers of a leg, its being on air
//! without a complaint counts as up. What the roll call makes of it is the domain's.

use crate::bus::Hint;
use crate::core::Core;
use muster_domain::{Command, Meeting, SiteId};
use muster_proto::command::v1 as pb;
use muster_proto::media::v1::LegQuality;
use pb::meeting_event::Event;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// From this share of lost packets on, in thousandths, a direction is not seen.
const LOST: u32 = 500;

/// Looks at the called site of every roll call when it is called, and whenever its quality changes.
pub async fn watch(core: Arc<Core>) {
    let mut hints = core.bus.subscribe();
    loop {
        let hint = tokio::select! {
            () = core.shutdown.cancelled() => return,
            hint = hints.recv() => hint,
        };
        match hint {
            Ok(Hint::Meeting(event)) if calls(&event) => look(&core, &event.meeting).await,
            Ok(Hint::Quality(sites)) => {
                let meetings: BTreeSet<&str> = sites.iter().map(|site| site.meeting.as_str()).collect();
                for meeting in meetings {
                    look(&core, meeting).await;
                }
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => {
                for meeting in core.meetings.views() {
                    look(&core, meeting.id()).await;
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Whether the event calls a site.
fn calls(event: &pb::MeetingEvent) -> bool {
    let Some(Event::RollCallEntry(changed)) = &event.event else {
        return false;
    };
    let entry = changed.entry.as_ref();
    entry.is_some_and(|entry| entry.result() == pb::RollCallResult::Called)
}

async fn look(core: &Core, meeting: &str) {
    let Some(view) = core.meetings.view(meeting) else {
        return;
    };
    let Some(called) = view.roll_call().and_then(|roll_call| roll_call.called()) else {
        return;
    };
    let known = core.qualities.of(meeting);
    let quality = known.iter().find(|known| known.site == called.site.as_str());
    let Some(command) = evidence(&view, &called.site, quality.and_then(|q| q.quality.as_ref())) else {
        return;
    };
    if let Err(failure) = core.meetings.command(meeting, command, "system".to_owned()).await {
        tracing::debug!(meeting, %failure, "evidence for a roll call comes too late");
    }
}

/// What is seen of the called site beyond what is known; none if nothing is.
fn evidence(meeting: &Meeting, site: &SiteId, quality: Option<&LegQuality>) -> Option<Command> {
    let entry = meeting
        .roll_call()?
        .called()
        .filter(|entry| entry.site == *site)?;
    let summons = meeting.summons(site)?;
    let (up, down) = match quality {
        Some(quality) => (
            quality.up_bps > 0 && quality.up_loss_permille < LOST,
            quality.down_bps > 0 && quality.down_loss_permille < LOST,
        ),
        None => (summons.reason.is_none(), false),
    };
    let is_new = up && !entry.seen_up || down && !entry.seen_down;
    is_new.then(|| Command::Evidence {
        site: site.clone(),
        up,
        down,
    })
}

//! Evidence for the roll call: whether media of the called site is seen, up and down, as relays tell it.
//!
//! Up is what the relay receives of the site, down what it sends there and the site confirms; a direction in which half
//! of the packets are lost or more does not count. The verdict is on the site, not on what others happen to send: where
//! nothing is sent to it, the way down counts while the relay hears it, for a site goes on sending only as long as the
//! relay's answers (ICE consent, acknowledgements of QUIC) reach it. Before a relay has told any numbers of a leg, its
//! being on air without a complaint counts as up. What the roll call makes of it is the domain's.

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
            biased;
            () = core.shutdown.cancelled() => return,
            hint = hints.recv() => hint,
        };
        match hint {
            Ok(Hint::Meeting(event)) if matters(&event) => look(&core, &event.meeting).await,
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

/// Whether the event calls a site, or may be that one is heard again.
fn matters(event: &pb::MeetingEvent) -> bool {
    match &event.event {
        Some(Event::RollCallEntry(changed)) => {
            let entry = changed.entry.as_ref();
            entry.is_some_and(|entry| entry.result() == pb::RollCallResult::Called)
        }
        Some(Event::Summons(changed)) => {
            let summons = changed.summons.as_ref();
            summons.is_some_and(|summons| summons.state() == pb::SummonsState::OnAir)
        }
        _ => false,
    }
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
    let (up, down) = seen(summons.reason.is_none(), quality);
    let is_new = up && !entry.seen_up || down && !entry.seen_down;
    is_new.then(|| Command::Evidence {
        site: site.clone(),
        up,
        down,
    })
}

/// Whether media is seen up and down of a site that is on air; `heard` is that the relay has not found it silent since.
fn seen(heard: bool, quality: Option<&LegQuality>) -> (bool, bool) {
    let Some(quality) = quality else {
        return (heard, false);
    };
    let is_heard = heard && quality.up_bps > 0;
    let confirms = quality.down_bps == 0 || quality.down_loss_permille < LOST;
    (is_heard && quality.up_loss_permille < LOST, is_heard && confirms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_on_the_site_and_not_on_what_others_send() {
        let told = |up_bps, up_loss_permille, down_bps, down_loss_permille| LegQuality {
            up_bps,
            up_loss_permille,
            down_bps,
            down_loss_permille,
            ..LegQuality::default()
        };
        let rows = [
            ("both ways", true, Some(told(9, 0, 9, 0)), (true, true)),
            (
                "nothing is sent there",
                true,
                Some(told(9, 0, 0, 0)),
                (true, true),
            ),
            (
                "what is sent there is lost",
                true,
                Some(told(9, 0, 9, 500)),
                (true, false),
            ),
            (
                "what it sends is lost",
                true,
                Some(told(9, 500, 9, 0)),
                (false, true),
            ),
            ("it sends nothing", true, Some(told(0, 0, 0, 0)), (false, false)),
            ("silent since", false, Some(told(9, 0, 9, 0)), (false, false)),
            ("no numbers yet", true, None, (true, false)),
            ("no numbers, and silent", false, None, (false, false)),
        ];
        for (what, heard, quality, expected) in rows {
            assert_eq!(seen(heard, quality.as_ref()), expected, "{what}");
        }
    }
}

//! On which relay a meeting is: one, with an epoch in its events.
//!
//! A meeting is placed when it first pages somebody while a relay is online. It is placed anew, at the next epoch, when
//! an endpoint says that its relay is lost and the relay is suspected here too: of several that say so the first one
//! counts, as the others name an epoch that is over. A relay that is not suspected keeps its meeting. One that is gone
//! with nobody on air is left at the next page. Relays learn it from the stage document.

use super::actor::MeetingActor;
use super::draft::Draft;
use muster_domain::{Command, Refusal};

impl MeetingActor {
    /// Chooses a relay for those that are to be paged, where the meeting has none that could take them.
    pub(super) fn place_before_paging(&mut self, draft: &mut Draft) {
        if !self.meeting.is_live() {
            return;
        }
        let fleet = self.shared.fleet.clone();
        let (epoch, relay) = match self.meeting.placement() {
            None => (
                1,
                fleet
                    .other_than("")
                    .or_else(|| fleet.place("desk:").map(|place| place.relay)),
            ),
            Some(known) if self.meeting.on_air() == 0 && fleet.place_at(&known.relay, "desk:").is_none() => {
                (known.epoch + 1, fleet.other_than(&known.relay))
            }
            Some(_) => return,
        };
        if let Some(relay) = relay {
            self.system(Command::Place { relay, epoch }, draft);
        }
    }

    /// An endpoint or a desk says that it gets nothing from a relay, under this placement.
    pub(super) fn relay_named_lost(
        &mut self,
        relay: &str,
        epoch: u64,
        by: &str,
        draft: &mut Draft,
    ) -> Result<(), Refusal> {
        let is_this = self
            .meeting
            .placement()
            .is_some_and(|known| known.relay == relay && known.epoch == epoch);
        if !is_this || !self.shared.fleet.is_suspected(relay) {
            return Ok(());
        }
        let Some(other) = self.shared.fleet.other_than(relay) else {
            return Ok(());
        };
        tracing::warn!(meeting = %self.id(), relay, other, "the relay is lost: the meeting is placed anew");
        metrics::counter!("muster_meetings_replaced").increment(1);
        let place = Command::Place {
            relay: other,
            epoch: epoch + 1,
        };
        self.decide(place, by, draft)
    }
}

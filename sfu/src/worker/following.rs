//! Development mode's viewers: video slot k shows the k-th publisher, in the order they came.
//!
//! Counted are those who are here now and publish a camera, so a place that someone left is taken by the next, and a
//! publisher who comes back after a loss is seen again even by a viewer with one slot. It is done anew whenever the meeting's
//! legs change (`sync`); a viewer that asks for a view of its own (`SetView`) follows no more.

use std::time::Instant;

use muster_forward::{LegId, SourceKind, Wish, WishWhat};

use super::legs::Size;
use super::state::{MeetingKey, Wire, Worker};

impl Worker {
    /// From now on the leg's slots follow the publishers.
    pub(super) fn start_following(&mut self, now: Instant, id: LegId, size: Size) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.follows = Some(size);
        let key = leg.meeting;
        self.follow(now, key);
    }

    /// Wishes for all followers of the meeting.
    pub(super) fn follow(&mut self, now: Instant, key: MeetingKey) {
        let Some(meeting) = self.meetings.get(&key) else {
            return;
        };
        let follows = |id: &LegId| Some((*id, self.legs.get(id)?.follows?));
        let followers: Vec<(LegId, Size)> = meeting.legs.iter().filter_map(follows).collect();
        if followers.is_empty() {
            return;
        }
        let cameras = self.shared.directory.cameras(&meeting.name);
        for (id, size) in followers {
            let Some(leg) = self.legs.get_mut(&id) else {
                continue;
            };
            let slots = leg.slots.iter().filter(|slot| !slot.audio);
            let wishes: Vec<Wish> = slots
                .zip(&cameras)
                .map(|(slot, site)| Wish {
                    slot: slot.id,
                    what: WishWhat::Source {
                        site: site.clone(),
                        kind: SourceKind::Camera,
                    },
                    max_width: size.width,
                    max_height: size.height,
                })
                .collect();
            if matches!(&leg.wire, Wire::WebRtc(wire) if !wire.leg.is_connected()) {
                leg.waiting_view = Some(wishes);
            } else {
                self.apply_view(now, id, wishes);
            }
        }
    }
}

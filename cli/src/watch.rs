//! What the control plane's `Watch` stream tells, kept as one value: sites, presence and the meetings that
//! have not ended. The value is pure; reading the stream is left to its callers.

use std::collections::BTreeMap;

use muster_proto::command::v1::meeting_event::Event as MeetingChange;
use muster_proto::command::v1::watch_response::Event;
use muster_proto::command::v1::{
    FleetChanged, Meeting, MeetingEvent, Presence, RelayState, Site, Summons, SummonsState, WatchResponse,
};

/// The state so far.
#[derive(Default)]
pub struct Situation {
    pub sites: BTreeMap<String, Site>,
    online: BTreeMap<String, bool>,
    pub meetings: BTreeMap<String, Meeting>,
    /// Meetings that ended while we watched.
    pub ended: Vec<String>,
    /// Relays by id: whether each is online, and its legs.
    relays: BTreeMap<String, RelayState>,
}

impl Situation {
    pub fn apply(&mut self, response: WatchResponse) {
        match response.event {
            Some(Event::Snapshot(snapshot)) => {
                self.sites = snapshot
                    .sites
                    .into_iter()
                    .map(|site| (site.id.clone(), site))
                    .collect();
                self.online.clear();
                self.note_presence(snapshot.presence);
                self.note_fleet(snapshot.fleet.unwrap_or_default());
                if !snapshot.resumed {
                    self.meetings = snapshot.meetings.into_iter().map(|m| (m.id.clone(), m)).collect();
                }
            }
            Some(Event::Presence(changed)) => self.note_presence(changed.presence),
            Some(Event::MeetingEvent(event)) => self.apply_event(event),
            Some(Event::Fleet(fleet)) => self.note_fleet(fleet),
            Some(
                Event::Directory(_)
                | Event::Heartbeat(_)
                | Event::Quality(_)
                | Event::Permissions(_)
                | Event::Service(_)
                | Event::Plans(_)
                | Event::Report(_),
            )
            | None => {}
        }
    }

    fn note_presence(&mut self, presence: Vec<Presence>) {
        self.online
            .extend(presence.into_iter().map(|p| (p.site, p.online)));
    }

    /// The whole fleet each time.
    fn note_fleet(&mut self, fleet: FleetChanged) {
        self.relays = fleet
            .relays
            .into_iter()
            .map(|relay| (relay.id.clone(), relay))
            .collect();
    }

    pub fn relays_online(&self) -> usize {
        self.relays.values().filter(|relay| relay.online).count()
    }

    /// Legs at all relays that are online.
    pub fn legs(&self) -> u32 {
        self.relays
            .values()
            .filter(|relay| relay.online)
            .map(|relay| relay.legs)
            .sum()
    }

    fn apply_event(&mut self, event: MeetingEvent) {
        let meeting = self
            .meetings
            .entry(event.meeting.clone())
            .or_insert_with(|| Meeting {
                id: event.meeting.clone(),
                started_ms: event.at_ms,
                ..Meeting::default()
            });
        // A snapshot may already hold what an event tells again.
        if event.seq != 0 && event.seq <= meeting.seq {
            return;
        }
        meeting.seq = event.seq;
        match event.event {
            Some(MeetingChange::Convened(convened)) => {
                meeting.title = convened.title;
                meeting.unit = convened.unit;
                meeting.chair = convened.chair;
                add_sites(meeting, convened.sites);
            }
            Some(MeetingChange::Summons(changed)) => {
                if let Some(new) = changed.summons {
                    match meeting
                        .summonses
                        .iter_mut()
                        .find(|summons| summons.site == new.site)
                    {
                        Some(summons) => *summons = new,
                        None => meeting.summonses.push(new),
                    }
                }
            }
            Some(MeetingChange::Stage(changed)) => meeting.stage = changed.stage,
            Some(MeetingChange::SitesAdded(added)) => add_sites(meeting, added.sites),
            Some(MeetingChange::Chair(changed)) => meeting.chair = changed.chair,
            Some(MeetingChange::Lock(changed)) => meeting.locked = changed.locked,
            Some(MeetingChange::EndSet(set)) => meeting.ends_ms = set.ends_ms,
            Some(MeetingChange::Floor(changed)) => meeting.floor = changed.floor,
            Some(MeetingChange::Placed(placed)) => meeting.placement = placed.placement,
            // Of no use for what is shown here.
            Some(
                MeetingChange::ChairRequested(_)
                | MeetingChange::RollCallStarted(_)
                | MeetingChange::RollCallEntry(_)
                | MeetingChange::RollCallEnded(_),
            ) => {}
            Some(MeetingChange::Ended(_)) => {
                self.meetings.remove(&event.meeting);
                self.ended.push(event.meeting);
            }
            None => {}
        }
    }

    pub fn is_online(&self, site: &str) -> bool {
        self.online.get(site).copied().unwrap_or(false)
    }

    /// How many of the sites are on air in any meeting.
    pub fn on_air(&self) -> usize {
        self.meetings.values().map(on_air).sum()
    }
}

/// How many of the meeting's sites are on air.
pub fn on_air(meeting: &Meeting) -> usize {
    meeting
        .summonses
        .iter()
        .filter(|summons| summons.state() == SummonsState::OnAir)
        .count()
}

/// Sites that are paged from now on; those that are there already stay as they are.
fn add_sites(meeting: &mut Meeting, sites: Vec<String>) {
    for site in sites {
        if !meeting.summonses.iter().any(|summons| summons.site == site) {
            let state = SummonsState::Paged.into();
            meeting.summonses.push(Summons {
                site,
                state,
                ..Summons::default()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::command::v1::{
        MeetingConvened, MeetingEnded, PresenceChanged, SummonsChanged, WatchSnapshot,
    };

    fn event(seq: u64, event: MeetingChange) -> WatchResponse {
        let meeting = MeetingEvent {
            meeting: "m".to_owned(),
            seq,
            event: Some(event),
            ..MeetingEvent::default()
        };
        WatchResponse {
            event: Some(Event::MeetingEvent(meeting)),
            ..WatchResponse::default()
        }
    }

    fn summons(site: &str, state: SummonsState) -> MeetingChange {
        let summons = Summons {
            site: site.to_owned(),
            state: state.into(),
            ..Summons::default()
        };
        MeetingChange::Summons(SummonsChanged {
            summons: Some(summons),
        })
    }

    #[test]
    fn events_move_the_summonses_of_a_meeting_to_its_end() {
        let mut situation = Situation::default();
        let sites = vec!["a".to_owned(), "b".to_owned()];
        situation.apply(event(
            1,
            MeetingChange::Convened(MeetingConvened {
                sites,
                ..MeetingConvened::default()
            }),
        ));
        assert_eq!(
            (situation.meetings["m"].summonses.len(), situation.on_air()),
            (2, 0)
        );
        situation.apply(event(2, summons("a", SummonsState::OnAir)));
        situation.apply(event(3, summons("b", SummonsState::OnAir)));
        assert_eq!(situation.on_air(), 2);
        // Told again, and older: nothing goes back.
        situation.apply(event(2, summons("b", SummonsState::Paged)));
        assert_eq!(situation.on_air(), 2);
        situation.apply(event(4, summons("a", SummonsState::Unreachable)));
        assert_eq!(situation.on_air(), 1);
        situation.apply(event(5, MeetingChange::Ended(MeetingEnded::default())));
        assert!(situation.meetings.is_empty());
        assert_eq!(situation.ended, ["m"]);
    }

    #[test]
    fn a_snapshot_replaces_and_presence_changes_single_sites() {
        let presence = |site: &str, online| Presence {
            site: site.to_owned(),
            online,
            ..Presence::default()
        };
        let mut situation = Situation::default();
        let snapshot = WatchSnapshot {
            presence: vec![presence("a", true)],
            ..WatchSnapshot::default()
        };
        situation.apply(WatchResponse {
            event: Some(Event::Snapshot(snapshot)),
            ..WatchResponse::default()
        });
        let changed = PresenceChanged {
            presence: vec![presence("b", true)],
        };
        situation.apply(WatchResponse {
            event: Some(Event::Presence(changed)),
            ..WatchResponse::default()
        });
        assert!(situation.is_online("a") && situation.is_online("b") && !situation.is_online("c"));
        let snapshot = WatchSnapshot::default();
        situation.apply(WatchResponse {
            event: Some(Event::Snapshot(snapshot)),
            ..WatchResponse::default()
        });
        assert!(!situation.is_online("a"));
    }
}

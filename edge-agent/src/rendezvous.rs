//! The agent's membership in one meeting: which step is next on the way in, or back in after a loss.
//!
//! Pure: time comes in, the caller does what [`Meeting::next_step`] says. A ticket is good for one join and 100 s; after
//! a loss a new one is asked for, since it may name another relay, while the link is being made again. The question names
//! the relay that was lost, and its placement. A relay in doubt is asked about too, but not left: only a ticket that
//! leads elsewhere leads away. A ticket that leads back to the lost relay is followed, with backoff.

use std::time::{Duration, Instant};

use muster_proto::command::v1::JoinTicket;

use crate::backoff::Backoff;

/// A little less than the 120 s of a join token.
const TICKET_GOOD: Duration = Duration::from_secs(100);
/// An answer that does not come is asked for again.
const ASK_TIMEOUT: Duration = Duration::from_secs(6);
/// From the join to the relay's answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a relay may take until the link to it is up; then it counts as lost.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// Which relay a meeting is at, and under which placement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Empty while nothing is known.
    pub relay: String,
    pub epoch: u64,
}

impl Placement {
    fn of(ticket: &JoinTicket) -> Self {
        Self {
            relay: ticket.relay.clone(),
            epoch: ticket.epoch,
        }
    }
}

/// A meeting that the site is summoned to.
#[derive(Debug)]
pub struct Meeting {
    pub id: String,
    /// The site sends sound alone.
    pub audio_only: bool,
    ticket: Option<(JoinTicket, Instant)>,
    /// Where the newest ticket leads, used or not.
    placement: Placement,
    /// That relay does not answer.
    lost: bool,
    asked: Option<Instant>,
    not_before: Option<Instant>,
    backoff: Backoff,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Out,
    Joining(Instant),
    /// In, with the flows of the slots in the order of the join.
    In(Vec<u64>),
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Ask the control plane for a ticket; the placement is named if its relay is lost.
    AskTicket(Option<Placement>),
    /// Have a link to this address; the join follows when it is up. Look again at the time.
    Connect(String, Instant),
    /// Send the join with this token.
    Join(String),
    /// The relay did not answer the join: give the link up.
    GiveUpLink,
    /// Nothing until the time, or until something happens.
    Wait(Option<Instant>),
}

impl Meeting {
    pub fn new(id: String, audio_only: bool, ticket: Option<JoinTicket>, now: Instant) -> Self {
        let ticket = ticket.filter(names_a_relay).map(|ticket| (ticket, now));
        let placement = ticket.as_ref().map(|(ticket, _)| Placement::of(ticket));
        Self {
            id,
            audio_only,
            ticket,
            placement: placement.unwrap_or_default(),
            lost: false,
            asked: None,
            not_before: None,
            backoff: Backoff::default(),
            phase: Phase::Out,
        }
    }

    /// The next step, given the address that the link is up to, and whether its relay is in doubt. Steps count as taken
    /// when they are returned.
    pub fn next_step(&mut self, now: Instant, link: Option<&str>, doubt: bool) -> Step {
        match self.phase {
            // One that is not known by a placement cannot be asked about.
            Phase::In(_) if !doubt || self.placement.relay.is_empty() => return Step::Wait(None),
            Phase::In(_) => return self.ask(now, true),
            Phase::Joining(since) if now < since + JOIN_TIMEOUT => {
                return Step::Wait(Some(since + JOIN_TIMEOUT));
            }
            Phase::Joining(_) => {
                self.phase = Phase::Out;
                self.lost = true;
                return Step::GiveUpLink;
            }
            Phase::Out => {}
        }
        self.ticket = self.ticket.take_if(|(_, since)| now < *since + TICKET_GOOD);
        match &self.ticket {
            Some((ticket, since)) if link != Some(&ticket.relay_link) => {
                let address = ticket.relay_link.clone();
                let patience = *since + CONNECT_PATIENCE;
                let next = [Some(patience), self.not_before, self.ask_again_at()];
                let next = next.into_iter().flatten().max().unwrap_or(patience);
                if now < next || self.placement.relay.is_empty() {
                    let look_at = next.max(now + CONNECT_PATIENCE / 4);
                    return Step::Connect(address, look_at);
                }
                self.ask(now, true)
            }
            Some((ticket, _)) => {
                let token = ticket.token.clone();
                self.ticket = None;
                self.phase = Phase::Joining(now);
                Step::Join(token)
            }
            None => self.ask(now, self.lost),
        }
    }

    /// Asks for a ticket, unless that was done a moment ago.
    fn ask(&mut self, now: Instant, lost: bool) -> Step {
        let wait = self.ask_again_at().max(self.not_before);
        if let Some(wait) = wait.filter(|wait| now < *wait) {
            return Step::Wait(Some(wait));
        }
        self.asked = Some(now);
        let lost = lost && !self.placement.relay.is_empty();
        Step::AskTicket(lost.then(|| self.placement.clone()))
    }

    fn ask_again_at(&self) -> Option<Instant> {
        self.asked.map(|asked| asked + ASK_TIMEOUT)
    }

    /// A ticket came: with the summons, once more on attaching, or because it was asked for. One that names no relay
    /// (none is online) is no ticket. True if it leads away from where the site is, or was.
    pub fn handle_ticket(&mut self, ticket: JoinTicket, now: Instant, random: f64) -> bool {
        if !names_a_relay(&ticket) {
            self.handle_no_ticket(now, random);
            return false;
        }
        let asked = self.asked.take().is_some();
        let placement = Placement::of(&ticket);
        let moves = placement != self.placement;
        if moves {
            self.backoff.reset();
            self.not_before = None;
        } else if asked {
            // The relay is not given up: the next question about it comes later.
            self.not_before = Some(now + self.backoff.next(random));
        }
        if self.is_in() {
            if !moves {
                return false;
            }
            self.phase = Phase::Out;
        }
        self.lost &= !moves;
        self.placement = placement;
        self.ticket = Some((ticket, now));
        moves
    }

    /// No ticket for now.
    pub fn handle_no_ticket(&mut self, now: Instant, random: f64) {
        self.asked = None;
        self.not_before = Some(now + self.backoff.next(random));
    }

    /// The relay let the site in.
    pub fn handle_joined(&mut self, slot_flows: Vec<u64>) {
        self.phase = Phase::In(slot_flows);
        self.lost = false;
        self.not_before = None;
        self.backoff.reset();
    }

    /// The relay refused the join: another ticket, a little later.
    pub fn handle_refused(&mut self, now: Instant, random: f64) {
        self.phase = Phase::Out;
        self.not_before = Some(now + self.backoff.next(random));
    }

    /// The link is lost. A ticket that was used is worth nothing; one that was not yet is kept, as the link is made again.
    pub fn handle_link_lost(&mut self) {
        let was_out = matches!(self.phase, Phase::Out);
        self.phase = Phase::Out;
        if !was_out || self.placement.relay.is_empty() {
            self.lost = true;
            self.ticket = None;
        }
    }

    /// The relay says that the meeting is elsewhere now.
    pub fn handle_moved(&mut self) {
        self.phase = Phase::Out;
        self.lost = false;
        self.ticket = None;
        self.not_before = None;
    }

    pub fn is_joining(&self) -> bool {
        matches!(self.phase, Phase::Joining(_))
    }

    pub fn is_in(&self) -> bool {
        matches!(self.phase, Phase::In(_))
    }

    /// Which slot (by its place in the join) a flow feeds.
    pub fn slot_of(&self, flow: u64) -> Option<usize> {
        match &self.phase {
            Phase::In(flows) => flows.iter().position(|slot| *slot == flow),
            _ => None,
        }
    }

    /// The flow that feeds a slot (by its place in the join).
    pub fn flow_of(&self, slot: usize) -> Option<u64> {
        match &self.phase {
            Phase::In(flows) => flows.get(slot).copied(),
            _ => None,
        }
    }
}

fn names_a_relay(ticket: &JoinTicket) -> bool {
    !ticket.relay_link.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(token: &str) -> JoinTicket {
        JoinTicket {
            token: token.into(),
            relay_link: "relay:1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_summons_with_a_warm_link_joins_at_once() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), false, Some(ticket("t1")), now);
        assert_eq!(
            meeting.next_step(now, Some("relay:1"), false),
            Step::Join("t1".into())
        );
        meeting.handle_joined(vec![5, 6]);
        assert_eq!(meeting.next_step(now, Some("relay:1"), false), Step::Wait(None));
        assert_eq!((meeting.slot_of(6), meeting.slot_of(7)), (Some(1), None));
    }

    #[test]
    fn a_link_to_another_relay_is_replaced_first() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), false, Some(ticket("t1")), now);
        for link in [Some("relay:2"), None] {
            let step = meeting.next_step(now, link, false);
            assert!(matches!(step, Step::Connect(address, _) if address == "relay:1"));
        }
        assert_eq!(
            meeting.next_step(now, Some("relay:1"), false),
            Step::Join("t1".into())
        );
    }

    #[test]
    fn a_lost_link_asks_for_a_new_ticket_once() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), false, Some(ticket("t1")), now);
        meeting.next_step(now, Some("relay:1"), false);
        meeting.handle_joined(vec![]);
        meeting.handle_link_lost();
        assert_eq!(meeting.next_step(now, None, false), Step::AskTicket(None));
        assert_eq!(
            meeting.next_step(now, None, false),
            Step::Wait(Some(now + ASK_TIMEOUT))
        );
        assert_eq!(
            meeting.next_step(now + ASK_TIMEOUT, None, false),
            Step::AskTicket(None)
        );
        meeting.handle_ticket(ticket("t2"), now, 0.0);
        assert_eq!(
            meeting.next_step(now, Some("relay:1"), false),
            Step::Join("t2".into())
        );
    }

    #[test]
    fn refusals_and_an_absent_control_plane_wait_longer_each_time() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), false, None, now);
        let mut waits = Vec::new();
        let mut at = now;
        for _ in 0..4 {
            assert_eq!(meeting.next_step(at, None, false), Step::AskTicket(None));
            meeting.handle_no_ticket(at, 0.0);
            let Step::Wait(Some(until)) = meeting.next_step(at, None, false) else {
                panic!("no wait")
            };
            waits.push(until.duration_since(at).as_millis());
            at = until;
        }
        assert_eq!(waits, [200, 400, 800, 1600]);
        meeting.handle_ticket(ticket("t"), at, 0.0);
        assert_eq!(
            meeting.next_step(at, Some("relay:1"), false),
            Step::Join("t".into())
        );
        meeting.handle_refused(at, 0.0);
        assert_eq!(
            meeting.next_step(at, Some("relay:1"), false),
            Step::Wait(Some(at + Duration::from_millis(3200)))
        );
    }

    #[test]
    fn a_ticket_without_a_relay_is_asked_for_again() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), false, Some(JoinTicket::default()), now);
        assert_eq!(meeting.next_step(now, None, false), Step::AskTicket(None));
        meeting.handle_ticket(JoinTicket::default(), now, 0.0);
        assert_eq!(
            meeting.next_step(now, None, false),
            Step::Wait(Some(now + Duration::from_millis(200)))
        );
    }

    #[test]
    fn a_stale_ticket_is_not_used_and_a_silent_relay_is_given_up() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), false, Some(ticket("old")), now);
        let later = now + TICKET_GOOD;
        assert_eq!(
            meeting.next_step(later, Some("relay:1"), false),
            Step::AskTicket(None)
        );
        meeting.handle_ticket(ticket("new"), later, 0.0);
        assert_eq!(
            meeting.next_step(later, Some("relay:1"), false),
            Step::Join("new".into())
        );
        assert_eq!(
            meeting.next_step(later + JOIN_TIMEOUT, Some("relay:1"), false),
            Step::GiveUpLink
        );
    }
    fn placed(relay: &str, epoch: u64) -> JoinTicket {
        JoinTicket {
            token: format!("{relay}/{epoch}"),
            relay_link: format!("{relay}:1"),
            relay: relay.into(),
            epoch,
            ..Default::default()
        }
    }

    /// In the meeting at relay `r1`, under epoch 1.
    fn inside(now: Instant) -> Meeting {
        let mut meeting = Meeting::new("m".into(), false, Some(placed("r1", 1)), now);
        meeting.next_step(now, Some("r1:1"), false);
        meeting.handle_joined(vec![5]);
        meeting
    }

    fn lost(relay: &str, epoch: u64) -> Step {
        Step::AskTicket(Some(Placement {
            relay: relay.into(),
            epoch,
        }))
    }

    #[test]
    fn a_relay_in_doubt_is_asked_about_and_only_a_ticket_elsewhere_leads_away() {
        let now = Instant::now();
        let mut meeting = inside(now);
        assert_eq!(meeting.next_step(now, Some("r1:1"), false), Step::Wait(None));
        assert_eq!(meeting.next_step(now, Some("r1:1"), true), lost("r1", 1));
        assert!(!meeting.handle_ticket(placed("r1", 1), now, 0.0));
        assert!(meeting.is_in(), "the relay is not suspected: the site stays");
        let later = now + Duration::from_millis(200);
        assert_eq!(
            meeting.next_step(now, Some("r1:1"), true),
            Step::Wait(Some(later))
        );
        assert_eq!(meeting.next_step(later, Some("r1:1"), true), lost("r1", 1));
        assert!(meeting.handle_ticket(placed("r2", 2), later, 0.0));
        let step = meeting.next_step(later, Some("r1:1"), true);
        assert!(matches!(step, Step::Connect(address, _) if address == "r2:1"));
        assert_eq!(
            meeting.next_step(later, Some("r2:1"), false),
            Step::Join("r2/2".into())
        );
    }

    #[test]
    fn a_lost_relay_is_named_and_a_ticket_back_to_it_is_followed_with_backoff() {
        let now = Instant::now();
        let mut meeting = inside(now);
        meeting.handle_link_lost();
        assert_eq!(meeting.next_step(now, None, false), lost("r1", 1));
        meeting.handle_ticket(placed("r1", 1), now, 0.0);
        let mut asked = Vec::new();
        let mut at = now;
        while asked.len() < 4 {
            match meeting.next_step(at, None, false) {
                Step::Connect(address, until) => {
                    assert!(address == "r1:1" && until > at);
                    at = until;
                    meeting.handle_link_lost();
                }
                step => {
                    assert_eq!(step, lost("r1", 1));
                    asked.push(at.duration_since(now).as_millis());
                    meeting.handle_ticket(placed("r1", 1), at, 0.0);
                }
            }
        }
        let gaps: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!((asked[0], gaps), (1000, vec![1000, 1000, 1600]));
        assert_eq!(
            meeting.next_step(at, Some("r1:1"), false),
            Step::Join("r1/1".into())
        );
    }

    #[test]
    fn a_new_relay_that_does_not_answer_either_is_lost_too() {
        let now = Instant::now();
        let mut meeting = inside(now);
        meeting.handle_link_lost();
        assert_eq!(meeting.next_step(now, None, false), lost("r1", 1));
        meeting.handle_ticket(placed("r2", 2), now, 0.0);
        let later = now + CONNECT_PATIENCE;
        assert_eq!(meeting.next_step(later, None, false), lost("r2", 2));
    }

    #[test]
    fn a_relay_that_says_where_the_meeting_is_not_is_not_lost() {
        let now = Instant::now();
        let mut meeting = inside(now);
        meeting.handle_moved();
        meeting.handle_link_lost();
        assert_eq!(meeting.next_step(now, None, false), Step::AskTicket(None));
    }
}

//! The agent's membership in one meeting: which step is next on the way in, or back in after a loss.
//!
//! Pure: time comes in, the caller does what [`Meeting::next_step`] says. A ticket is good for one join and 100 s; after
//! a loss a new one is asked for, since it may name another relay, while the link is being made again.

use std::time::{Duration, Instant};

use muster_proto::command::v1::JoinTicket;

use crate::backoff::Backoff;

/// A little less than the 120 s of a join token.
const TICKET_GOOD: Duration = Duration::from_secs(100);
/// An answer that does not come is asked for again.
const ASK_TIMEOUT: Duration = Duration::from_secs(6);
/// From the join to the relay's answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A meeting that the site is summoned to.
#[derive(Debug)]
pub struct Meeting {
    pub id: String,
    ticket: Option<(JoinTicket, Instant)>,
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
    /// Ask the control plane for a ticket.
    AskTicket,
    /// Have a link to this address; the join follows when it is up.
    Connect(String),
    /// Send the join with this token.
    Join(String),
    /// The relay did not answer the join: give the link up.
    GiveUpLink,
    /// Nothing until the time, or until something happens.
    Wait(Option<Instant>),
}

impl Meeting {
    pub fn new(id: String, ticket: Option<JoinTicket>, now: Instant) -> Self {
        let ticket = ticket.filter(names_a_relay).map(|ticket| (ticket, now));
        Self {
            id,
            ticket,
            asked: None,
            not_before: None,
            backoff: Backoff::default(),
            phase: Phase::Out,
        }
    }

    /// The next step, given the address that the link is up to. Steps count as taken when they are returned.
    pub fn next_step(&mut self, now: Instant, link: Option<&str>) -> Step {
        match self.phase {
            Phase::In(_) => return Step::Wait(None),
            Phase::Joining(since) if now < since + JOIN_TIMEOUT => {
                return Step::Wait(Some(since + JOIN_TIMEOUT));
            }
            Phase::Joining(_) => {
                self.phase = Phase::Out;
                return Step::GiveUpLink;
            }
            Phase::Out => {}
        }
        if self
            .ticket
            .as_ref()
            .is_some_and(|(_, since)| now >= *since + TICKET_GOOD)
        {
            self.ticket = None;
        }
        match &self.ticket {
            Some((ticket, _)) if link != Some(&ticket.relay_link) => Step::Connect(ticket.relay_link.clone()),
            Some((ticket, _)) => {
                let token = ticket.token.clone();
                self.ticket = None;
                self.phase = Phase::Joining(now);
                Step::Join(token)
            }
            None => {
                let wait = self.asked.map(|asked| asked + ASK_TIMEOUT).max(self.not_before);
                if let Some(wait) = wait.filter(|wait| now < *wait) {
                    return Step::Wait(Some(wait));
                }
                self.asked = Some(now);
                Step::AskTicket
            }
        }
    }

    /// A ticket came: with the summons, once more on attaching, or because it was asked for. One that names no relay
    /// (none is online) is no ticket.
    pub fn handle_ticket(&mut self, ticket: JoinTicket, now: Instant, random: f64) {
        if !names_a_relay(&ticket) {
            return self.handle_no_ticket(now, random);
        }
        self.asked = None;
        self.ticket = Some((ticket, now));
    }

    /// No ticket for now.
    pub fn handle_no_ticket(&mut self, now: Instant, random: f64) {
        self.asked = None;
        self.not_before = Some(now + self.backoff.next(random));
    }

    /// The relay let the site in.
    pub fn handle_joined(&mut self, slot_flows: Vec<u64>) {
        self.phase = Phase::In(slot_flows);
        self.not_before = None;
        self.backoff.reset();
    }

    /// The relay refused the join: another ticket, a little later.
    pub fn handle_refused(&mut self, now: Instant, random: f64) {
        self.phase = Phase::Out;
        self.not_before = Some(now + self.backoff.next(random));
    }

    /// The link is lost. A ticket that was used, or that names the relay that cannot be reached, is worth nothing.
    pub fn handle_link_lost(&mut self) {
        self.phase = Phase::Out;
        self.ticket = None;
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
        let mut meeting = Meeting::new("m".into(), Some(ticket("t1")), now);
        assert_eq!(meeting.next_step(now, Some("relay:1")), Step::Join("t1".into()));
        meeting.handle_joined(vec![5, 6]);
        assert_eq!(meeting.next_step(now, Some("relay:1")), Step::Wait(None));
        assert_eq!((meeting.slot_of(6), meeting.slot_of(7)), (Some(1), None));
    }

    #[test]
    fn a_link_to_another_relay_is_replaced_first() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), Some(ticket("t1")), now);
        assert_eq!(
            meeting.next_step(now, Some("relay:2")),
            Step::Connect("relay:1".into())
        );
        assert_eq!(meeting.next_step(now, None), Step::Connect("relay:1".into()));
        assert_eq!(meeting.next_step(now, Some("relay:1")), Step::Join("t1".into()));
    }

    #[test]
    fn a_lost_link_asks_for_a_new_ticket_once() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), Some(ticket("t1")), now);
        meeting.next_step(now, Some("relay:1"));
        meeting.handle_joined(vec![]);
        meeting.handle_link_lost();
        assert_eq!(meeting.next_step(now, None), Step::AskTicket);
        assert_eq!(meeting.next_step(now, None), Step::Wait(Some(now + ASK_TIMEOUT)));
        assert_eq!(meeting.next_step(now + ASK_TIMEOUT, None), Step::AskTicket);
        meeting.handle_ticket(ticket("t2"), now, 0.0);
        assert_eq!(meeting.next_step(now, Some("relay:1")), Step::Join("t2".into()));
    }

    #[test]
    fn refusals_and_an_absent_control_plane_wait_longer_each_time() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), None, now);
        let mut waits = Vec::new();
        let mut at = now;
        for _ in 0..4 {
            assert_eq!(meeting.next_step(at, None), Step::AskTicket);
            meeting.handle_no_ticket(at, 0.0);
            let Step::Wait(Some(until)) = meeting.next_step(at, None) else {
                panic!("no wait")
            };
            waits.push(until.duration_since(at).as_millis());
            at = until;
        }
        assert_eq!(waits, [200, 400, 800, 1600]);
        meeting.handle_ticket(ticket("t"), at, 0.0);
        assert_eq!(meeting.next_step(at, Some("relay:1")), Step::Join("t".into()));
        meeting.handle_refused(at, 0.0);
        assert_eq!(
            meeting.next_step(at, Some("relay:1")),
            Step::Wait(Some(at + Duration::from_millis(3200)))
        );
    }

    #[test]
    fn a_ticket_without_a_relay_is_asked_for_again() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), Some(JoinTicket::default()), now);
        assert_eq!(meeting.next_step(now, None), Step::AskTicket);
        meeting.handle_ticket(JoinTicket::default(), now, 0.0);
        assert_eq!(
            meeting.next_step(now, None),
            Step::Wait(Some(now + Duration::from_millis(200)))
        );
    }

    #[test]
    fn a_stale_ticket_is_not_used_and_a_silent_relay_is_given_up() {
        let now = Instant::now();
        let mut meeting = Meeting::new("m".into(), Some(ticket("old")), now);
        let later = now + TICKET_GOOD;
        assert_eq!(meeting.next_step(later, Some("relay:1")), Step::AskTicket);
        meeting.handle_ticket(ticket("new"), later, 0.0);
        assert_eq!(
            meeting.next_step(later, Some("relay:1")),
            Step::Join("new".into())
        );
        assert_eq!(
            meeting.next_step(later + JOIN_TIMEOUT, Some("relay:1")),
            Step::GiveUpLink
        );
    }
}

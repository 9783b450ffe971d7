//! Several meetings that want the same sites: taking, giving back, and that no site is ever in two.

use muster_domain::claims::{returning, taken};
use muster_domain::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

use crate::support::*;

/// Several meetings over one book of claims, as a shell runs them.
struct Hall {
    claims: Claims,
    meetings: BTreeMap<MeetingId, Meeting>,
    /// Whether meetings look at the claims after each step; a shell that was interrupted does so later.
    looks: bool,
}

impl Hall {
    fn new() -> Self {
        Hall {
            claims: Claims::new(),
            meetings: BTreeMap::new(),
            looks: true,
        }
    }

    fn invitee(&self, id: &SiteId) -> Invitee {
        Invitee {
            site: id.clone(),
            reach: Reach::Online,
            claimed_by: self.claims.claim(id),
        }
    }

    fn convene(&mut self, id: &str, priority: Priority, sites: &[&str]) {
        let Command::Convene {
            chair, unit, opening, ..
        } = convene(vec![])
        else {
            panic!("a convening");
        };
        let command = Command::Convene {
            title: id.to_owned(),
            chair,
            unit,
            sites: sites.iter().map(|id| self.invitee(&site(id))).collect(),
            idempotency_key: String::new(),
            terms: Terms {
                priority,
                ..Terms::default()
            },
            opening,
        };
        let meeting = Meeting::new(meeting_id(id), Timeouts::default());
        self.meetings.insert(meeting_id(id), meeting);
        self.run(id, 1, command);
    }

    /// Refusals change nothing.
    fn run(&mut self, id: &str, now: i64, command: Command) {
        let Some(meeting) = self.meetings.get_mut(id) else {
            return;
        };
        let Ok(events) = meeting.decide(command, Millis(now)) else {
            return;
        };
        for event in &events {
            meeting.apply(event);
            self.claims.follow(meeting.id(), event);
        }
        if self.looks {
            self.look(now);
        }
    }

    /// Every meeting says what became of its sites, until nothing changes.
    fn look(&mut self, now: i64) {
        let looks = std::mem::replace(&mut self.looks, false);
        for round in 0.. {
            assert!(round < 20, "they would go on for ever");
            let mut commands = Vec::new();
            for (id, meeting) in &self.meetings {
                let lost = taken(meeting, &self.claims).map(|(site, by)| Command::SiteTaken {
                    site: site.clone(),
                    by,
                });
                let free = returning(meeting, &self.claims).map(|site| Command::SiteReturned {
                    site: self.invitee(site),
                });
                commands.extend(lost.chain(free).map(|command| (id.clone(), command)));
            }
            if commands.is_empty() {
                break;
            }
            for (id, command) in commands {
                // What was free may be another's by now.
                let command = match command {
                    Command::SiteReturned { site } => Command::SiteReturned {
                        site: self.invitee(&site.site),
                    },
                    other => other,
                };
                self.run(&id, now, command);
            }
        }
        self.looks = looks;
    }

    fn state(&self, meeting: &str, id: &str) -> String {
        tell(self.meetings[meeting].summons(id).expect("in the meeting"))
    }
}

fn end() -> Command {
    Command::End {
        reason: String::new(),
    }
}

#[test]
fn a_higher_meeting_takes_and_gives_back_through_every_rank() {
    let mut hall = Hall::new();
    hall.convene("m1", Priority::Routine, &["S1", "S2"]);
    hall.run("m1", 2, Command::LegOnAir { site: site("S1") });
    hall.convene("m2", Priority::Urgent, &["S1"]);
    assert_eq!(hall.state("m1", "S1"), "S1 refused (in_other_meeting)");
    let other = hall.meetings["m1"].summons("S1").unwrap().other.clone().unwrap();
    assert_eq!((other.title.as_str(), other.priority), ("m2", Priority::Urgent));
    assert_eq!(hall.meetings["m1"].stage_document().expelled, [site("S1")]);
    hall.convene("m3", Priority::Emergency, &["S1"]);
    assert_eq!(hall.state("m2", "S1"), "S1 refused (in_other_meeting)");
    assert_eq!(hall.state("m3", "S1"), "S1 paged");

    // The one between ends first: the lowest now waits for the highest.
    hall.run("m2", 10, end());
    let other = hall.meetings["m1"].summons("S1").unwrap().other.clone().unwrap();
    assert_eq!(other.meeting, meeting_id("m3"));
    hall.run(
        "m3",
        20,
        Command::HangUp {
            sites: vec![site("S1")],
        },
    );
    assert_eq!(hall.state("m1", "S1"), "S1 paged", "let go, not only ended");
    assert_eq!(hall.meetings["m1"].stage_document().expelled, []);
    assert_eq!(hall.claims.holder("S1"), Some(&meeting_id("m1")));
}

#[test]
fn what_was_let_go_returns_to_the_one_that_lost_it() {
    let mut hall = Hall::new();
    hall.convene("m1", Priority::Routine, &["S1"]);
    hall.convene("m2", Priority::Emergency, &["S1"]);
    // A third one of higher rank than the first, but not than the second, waits as well.
    hall.convene("m3", Priority::Urgent, &["S1"]);
    assert_eq!(hall.state("m3", "S1"), "S1 refused (in_other_meeting)");
    hall.run("m2", 10, end());
    assert_eq!(hall.state("m3", "S1"), "S1 paged", "the more urgent one has it");
    assert_eq!(hall.state("m1", "S1"), "S1 refused (in_other_meeting)");
    hall.run("m3", 20, end());
    assert_eq!(hall.state("m1", "S1"), "S1 paged");
}

#[test]
fn what_is_hung_up_while_another_meeting_has_it_does_not_return() {
    let mut hall = Hall::new();
    hall.convene("m1", Priority::Routine, &["S1", "S2"]);
    hall.convene("m2", Priority::Emergency, &["S1", "S2"]);
    let hang_up = Command::HangUp {
        sites: vec![site("S1")],
    };
    hall.run("m1", 5, hang_up);
    assert_eq!(hall.state("m1", "S1"), "S1 left (hung_up_by_chair)");
    assert_eq!(hall.state("m2", "S1"), "S1 paged", "the other one keeps it");
    hall.run("m2", 10, end());
    assert_eq!(hall.state("m1", "S1"), "S1 left (hung_up_by_chair)");
    assert_eq!(hall.state("m1", "S2"), "S2 paged");
    let broadcast = |id: &str| Command::Broadcast { site: Some(site(id)) };
    let shown = hall.meetings["m1"].decide(broadcast("S1"), Millis(11));
    assert_eq!(shown, Err(Refusal::HungUp(site("S1"))));
    assert!(hall.meetings["m1"].decide(broadcast("S2"), Millis(11)).is_ok());
}

#[test]
fn among_equals_the_first_keeps_and_a_person_calls_again() {
    let mut hall = Hall::new();
    hall.convene("m1", Priority::Urgent, &["S1"]);
    hall.convene("m2", Priority::Urgent, &["S1"]);
    assert_eq!(hall.state("m2", "S1"), "S1 refused (in_other_meeting)");
    hall.run("m1", 10, end());
    assert_eq!(hall.state("m2", "S1"), "S1 refused (in_other_meeting)");
    let again = Command::CallUnconnected {
        sites: vec![hall.invitee(&site("S1"))],
    };
    hall.run("m2", 20, again);
    assert_eq!(hall.state("m2", "S1"), "S1 paged");
}

#[test]
fn what_a_step_takes_from_others_is_told() {
    let mut hall = Hall::new();
    hall.convene("m1", Priority::Routine, &["S1", "S2"]);
    let high = Meeting::new(meeting_id("m2"), Timeouts::default());
    let sites = vec![hall.invitee(&site("S2")), hall.invitee(&site("S3"))];
    let Command::Convene {
        title,
        chair,
        unit,
        idempotency_key,
        opening,
        ..
    } = convene(vec![])
    else {
        panic!("a convening");
    };
    let terms = Terms {
        priority: Priority::Emergency,
        ..Terms::default()
    };
    let command = Command::Convene {
        title,
        chair,
        unit,
        sites,
        idempotency_key,
        terms,
        opening,
    };
    let events = high.decide(command, Millis(5)).expect("convened");
    let sites = [site("S1"), site("S2"), site("S3")];
    assert!(hall.claims.beaten(&sites).is_empty());
    for event in &events {
        hall.claims.follow(high.id(), event);
    }
    let beaten: Vec<MeetingId> = hall.claims.beaten(&sites).into_iter().collect();
    assert_eq!(beaten, [meeting_id("m1")]);
}

/// Two meetings of these priorities that each claim a site and know nothing of the other, as two replicas convened them.
fn two_at_once(priorities: [Priority; 2]) -> [Meeting; 2] {
    let [low, high] = priorities;
    let mut halls = [Hall::new(), Hall::new()];
    halls[0].convene("m1", low, &["S1"]);
    halls[1].convene("m2", high, &["S1"]);
    halls.map(|mut hall| hall.meetings.pop_first().expect("convened").1)
}

#[test]
fn whichever_of_two_meetings_is_read_first_the_lower_one_is_beaten_and_says_so() {
    let [low, high] = two_at_once([Priority::Routine, Priority::Emergency]);
    for order in [[&low, &high], [&high, &low]] {
        let mut claims = Claims::new();
        for meeting in order {
            claims.take_in(meeting);
        }
        assert_eq!(claims.holder("S1"), Some(high.id()));
        assert!(!claims.is_open(), "the events tell");
        assert_eq!(
            claims.all_beaten().into_iter().collect::<Vec<_>>(),
            [low.id().clone()]
        );
        assert_eq!(taken(&low, &claims).count(), 1);
        assert_eq!(taken(&high, &claims).count(), 0);
    }
}

#[test]
fn of_equals_the_store_says_who_has_the_site() {
    let [one, other] = two_at_once([Priority::Urgent, Priority::Urgent]);
    for winner in [&one, &other] {
        let mut claims = Claims::of([&one, &other]);
        assert!(claims.is_open());
        assert!(claims.all_beaten().is_empty(), "nobody is thrown out on a guess");
        assert_eq!(taken(&one, &claims).count() + taken(&other, &claims).count(), 0);
        claims.settle("S1", "m-unknown");
        assert!(claims.is_open());
        claims.settle("S1", winner.id().as_str());
        assert_eq!(claims.holder("S1"), Some(winner.id()));
        assert!(!claims.is_open());
        let losers = [&one, &other]
            .into_iter()
            .filter(|m| taken(m, &claims).count() == 1);
        assert!(
            losers.map(Meeting::id).eq([&one, &other]
                .map(Meeting::id)
                .into_iter()
                .filter(|id| *id != winner.id()))
        );
    }
}

#[test]
fn one_that_was_beaten_and_did_not_look_is_not_taken_for_the_holder_in_the_store() {
    let [low, high] = two_at_once([Priority::Routine, Priority::Emergency]);
    let mut claims = Claims::of([&low, &high]);
    for event in high.decide(end(), Millis(9)).expect("ended") {
        claims.follow(high.id(), &event);
    }
    assert_eq!(claims.holder("S1"), Some(low.id()));
    assert!(!claims.is_stored("S1", low.id()));
    claims.confirm(low.id(), ["S1"]);
    assert!(claims.is_stored("S1", low.id()));
}

#[derive(Clone, Debug)]
enum Step {
    Convene(Priority, Vec<usize>),
    Call(usize, usize),
    HangUp(usize, usize),
    OnAir(usize, usize),
    Declined(usize, usize),
    End(usize),
    Look,
}

fn any_step() -> impl Strategy<Value = Step> {
    let priority = proptest::sample::select(&Priority::ALL[..]);
    prop_oneof![
        2 => (priority, proptest::collection::vec(0usize..5, 1..4))
            .prop_map(|(priority, sites)| Step::Convene(priority, sites)),
        3 => (0usize..6, 0usize..5).prop_map(|(m, s)| Step::Call(m, s)),
        1 => (0usize..6, 0usize..5).prop_map(|(m, s)| Step::HangUp(m, s)),
        3 => (0usize..6, 0usize..5).prop_map(|(m, s)| Step::OnAir(m, s)),
        1 => (0usize..6, 0usize..5).prop_map(|(m, s)| Step::Declined(m, s)),
        1 => (0usize..6).prop_map(Step::End),
        2 => Just(Step::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_site_is_in_two_meetings(
        steps in proptest::collection::vec(any_step(), 1..40),
        looks in any::<bool>(),
    ) {
        let mut hall = Hall { looks, ..Hall::new() };
        let (mut count, mut now) = (0, 10);
        for step in steps {
            now += 1;
            let name = |n: usize| format!("m{n}");
            let place = |n: usize| site(&format!("S{n}"));
            match step {
                Step::Convene(priority, mut sites) if count < 6 => {
                    sites.sort_unstable();
                    sites.dedup();
                    let names: Vec<String> = sites.iter().map(|n| format!("S{n}")).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    hall.convene(&name(count), priority, &names);
                    count += 1;
                }
                Step::Convene(..) => {}
                Step::Call(m, s) => {
                    let sites = vec![hall.invitee(&place(s))];
                    hall.run(&name(m), now, Command::CallUnconnected { sites });
                }
                Step::HangUp(m, s) => hall.run(&name(m), now, Command::HangUp { sites: vec![place(s)] }),
                // A relay is heard of sites that are this meeting's.
                Step::OnAir(m, s) if hall.claims.holder(&place(s)).is_none_or(|h| h.as_str() == name(m)) => {
                    hall.run(&name(m), now, Command::LegOnAir { site: place(s) });
                }
                Step::OnAir(..) => {}
                Step::Declined(m, s) => hall.run(&name(m), now, report(&format!("S{s}"), SummonsState::Declined)),
                Step::End(m) => hall.run(&name(m), now, end()),
                Step::Look => hall.look(now),
            }
        }
        hall.look(now + 1);
        for n in 0..5 {
            let id = format!("S{n}");
            let holding: Vec<&Meeting> = hall.meetings.values()
                .filter(|m| m.is_live() && m.summons(&id).is_some_and(Summons::holds_claim))
                .collect();
            prop_assert!(holding.len() <= 1, "{} is in {} meetings", id, holding.len());
            // One that looked too late to see that a site was taken and let go again has it as before, and claims it
            // with its next step; until then anybody may.
            let claimed = hall.claims.holder(&id);
            let held = holding.first().map(|m| m.id());
            prop_assert!(claimed == held || !looks && claimed.is_none(), "{}: {:?}", id, claimed);
        }
        if looks {
            prop_assert_eq!(&hall.claims, &Claims::of(hall.meetings.values()));
        }
        for meeting in hall.meetings.values() {
            prop_assert_eq!(returning(meeting, &hall.claims).count(), 0, "nobody waits for what is free");
        }
    }
}

//! Attendance: who was on air when, also under any order of events.

use muster_domain::*;
use proptest::prelude::*;

use crate::support::*;

fn spans(desk: &Desk, id: &str) -> Vec<(i64, Option<i64>)> {
    let all = attendance(&desk.events);
    let one = all
        .iter()
        .find(|one| one.site.as_str() == id)
        .expect("in the meeting");
    one.spans
        .iter()
        .map(|span| (span.from.0, span.to.map(|to| to.0)))
        .collect()
}

fn on_air(id: &str) -> Command {
    Command::LegOnAir { site: site(id) }
}

fn lost(id: &str) -> Command {
    Command::LegEnded {
        site: site(id),
        end: LegEnd::Lost,
        reach: Reach::Online,
    }
}

#[test]
fn a_site_has_its_times_with_gaps_and_silence_is_none() {
    let mut desk = Desk::convened(&["S1", "S2", "S3"]);
    desk.run(100, on_air("S1")).expect("on air");
    desk.run(150, Command::LegSilent { site: site("S1") })
        .expect("silent");
    desk.run(160, on_air("S1")).expect("heard again");
    desk.run(200, on_air("S2")).expect("on air");
    assert_eq!(spans(&desk, "S1"), [(100, None)]);
    desk.run(300, lost("S1")).expect("lost");
    desk.run(450, on_air("S1")).expect("back");
    assert_eq!(spans(&desk, "S1"), [(100, Some(300)), (450, None)]);
    let end = Command::End {
        reason: String::new(),
    };
    desk.run(1000, end).expect("ended");
    assert_eq!(spans(&desk, "S1"), [(100, Some(300)), (450, Some(1000))]);
    assert_eq!(spans(&desk, "S2"), [(200, Some(1000))]);
    assert_eq!(spans(&desk, "S3"), []);
    let all = attendance(&desk.events);
    let order: Vec<_> = all.iter().map(|one| one.site.as_str()).collect();
    assert_eq!(order, ["S1", "S2", "S3"], "calling order");
    assert_eq!(all[0].total_ms(Millis(9999)), 200 + 550);
    let gap = Span {
        from: Millis(300),
        to: Some(Millis(450)),
    };
    assert_eq!(all[0].gaps(), [gap]);
}

#[test]
fn an_open_time_counts_up_to_now() {
    let mut desk = Desk::convened(&["S1"]);
    desk.run(100, on_air("S1")).expect("on air");
    assert_eq!(attendance(&desk.events)[0].total_ms(Millis(350)), 250);
    assert_eq!(
        attendance(&desk.events)[0].total_ms(Millis(50)),
        0,
        "a clock that was set back"
    );
}

fn any_command() -> impl Strategy<Value = Command> {
    let names = ["S1", "S2", "S3"];
    (0..names.len(), 0..9u8).prop_map(move |(which, what)| {
        let id = names[which];
        match what {
            0..=2 => on_air(id),
            3..=4 => lost(id),
            5 => Command::LegSilent { site: site(id) },
            6 => report(id, SummonsState::Declined),
            7 => Command::CallUnconnected {
                sites: vec![online(id)],
            },
            _ => Command::Tick,
        }
    })
}

proptest! {
    /// After each event the open spans are those of the sites that are on air, and no two spans overlap, whatever
    /// the clock does.
    #[test]
    fn open_spans_are_the_sites_on_air(
        steps in proptest::collection::vec((0i64..50_000, any_command()), 0..60),
        ends in any::<bool>(),
    ) {
        let mut desk = Desk::convened(&["S1", "S2", "S3"]);
        for (now, command) in steps {
            let _ = desk.run(now, command);
        }
        if ends {
            desk.run(60_000, Command::End { reason: String::new() }).expect("ended");
        }
        let mut meeting = Meeting::new(meeting_id("m1"), Timeouts::default());
        for upto in 1..=desk.events.len() {
            meeting.apply(&desk.events[upto - 1]);
            for one in attendance(&desk.events[..upto]) {
                let is_open = one.spans.last().is_some_and(|span| span.to.is_none());
                let state = meeting.summons(&one.site).expect("in the meeting").state;
                prop_assert_eq!(is_open, state == SummonsState::OnAir);
                let mut end = i64::MIN;
                for (at, span) in one.spans.iter().enumerate() {
                    prop_assert!(span.from.0 >= end);
                    let last = at + 1 == one.spans.len();
                    prop_assert!(span.to.is_some() || last);
                    end = span.to.map_or(i64::MAX, |to| to.0);
                    prop_assert!(end >= span.from.0);
                }
            }
        }
    }
}

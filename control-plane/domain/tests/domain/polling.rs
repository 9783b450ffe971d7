//! Pages of the polled wall, in virtual time.

use muster_domain::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

use crate::support::*;

fn polling(interval_ms: i64, per_page: usize, paused: bool) -> Command {
    Command::SetPolling {
        polling: Some(PollingOrder {
            interval_ms,
            per_page,
            paused,
        }),
    }
}

fn desk_on_air(ids: &[&str]) -> Desk {
    let mut desk = Desk::convened(ids);
    for id in ids {
        desk.told(1, Command::LegOnAir { site: site(id) });
    }
    desk
}

fn lost(id: &str) -> Command {
    Command::LegEnded {
        site: site(id),
        end: LegEnd::Lost,
        reach: Reach::Online,
    }
}

/// "page/pages: sites | next".
fn shown(desk: &Desk) -> String {
    let polling = desk.meeting.stage().polling.as_ref().expect("polling");
    let names = |sites: &[SiteId]| {
        let names: Vec<&str> = sites.iter().map(SiteId::as_str).collect();
        names.join(" ")
    };
    format!(
        "{}/{}: {} | {}",
        polling.page,
        polling.pages,
        names(&polling.sites),
        names(&polling.next)
    )
}

#[test]
fn pages_turn_by_time_skip_the_dead_and_tell_the_next() {
    let mut desk = desk_on_air(&["S1", "S2", "S3", "S4", "S5"]);
    desk.told(1_000, polling(5_000, 2, false));
    assert_eq!(shown(&desk), "0/3: S1 S2 | S3 S4");
    assert_eq!(desk.meeting.next_deadline(), Some(Millis(6_000)));
    assert_eq!(desk.told(5_999, Command::Tick), "");
    assert_eq!(desk.told(6_000, Command::Tick), "stage");
    assert_eq!(desk.told(6_000, Command::Tick), "", "once");
    assert_eq!(shown(&desk), "1/3: S3 S4 | S5");
    // The dead are skipped, also where a whole page of them has gone, and nobody is left out.
    desk.told(7_000, lost("S4"));
    desk.told(7_000, lost("S3"));
    assert_eq!(desk.told(11_000, Command::Tick), "stage");
    assert_eq!(shown(&desk), "1/2: S5 | S1 S2");
    desk.told(16_000, Command::Tick);
    assert_eq!(shown(&desk), "0/2: S1 S2 | S5");
    // Who comes back has its place in calling order.
    desk.told(17_000, Command::LegOnAir { site: site("S3") });
    desk.told(21_000, Command::Tick);
    assert_eq!(shown(&desk), "1/2: S3 S5 | S1 S2");
}

#[test]
fn a_page_with_room_takes_in_who_comes_on_air() {
    let mut desk = Desk::convened(&["S1", "S2", "S3"]);
    desk.told(1_000, polling(0, 2, false));
    assert_eq!(shown(&desk), "0/0:  | ");
    assert_eq!(
        desk.meeting.next_deadline(),
        Some(Millis(3_000)),
        "only the pages"
    );
    desk.told(1_100, Command::LegOnAir { site: site("S3") });
    assert_eq!(shown(&desk), "0/1: S3 | ");
    desk.told(1_200, Command::LegOnAir { site: site("S1") });
    // It comes before the first that is shown: at the next turn.
    assert_eq!(shown(&desk), "0/1: S3 | ");
    desk.told(1_300, Command::LegOnAir { site: site("S2") });
    desk.told(11_000, Command::Tick);
    assert_eq!(shown(&desk), "0/2: S1 S2 | S3");
}

#[test]
fn a_wall_that_shows_all_waits_for_nothing() {
    let mut desk = desk_on_air(&["S1", "S2"]);
    desk.told(1_000, polling(5_000, 4, false));
    assert_eq!(shown(&desk), "0/1: S1 S2 | ");
    assert_eq!(
        desk.meeting.next_deadline(),
        None,
        "no event each interval for nothing"
    );
}

#[test]
fn a_held_wall_turns_by_hand_and_goes_on_after_a_whole_interval() {
    let mut desk = desk_on_air(&["S1", "S2", "S3", "S4", "S5"]);
    desk.told(1_000, polling(5_000, 2, true));
    assert_eq!(desk.meeting.next_deadline(), None);
    desk.told(2_000, Command::TurnPage { forward: false });
    assert_eq!(shown(&desk), "2/3: S5 | S1 S2", "before the first is the last");
    desk.told(3_000, Command::TurnPage { forward: false });
    assert_eq!(shown(&desk), "1/3: S3 S4 | S5");
    desk.told(3_500, Command::TurnPage { forward: true });
    desk.told(4_000, Command::TurnPage { forward: true });
    assert_eq!(shown(&desk), "0/3: S1 S2 | S3 S4");
    assert_eq!(desk.told(20_000, Command::Tick), "");
    desk.told(30_000, polling(5_000, 2, false));
    assert_eq!(shown(&desk), "0/3: S1 S2 | S3 S4");
    assert_eq!(desk.meeting.next_deadline(), Some(Millis(35_000)));
    assert_eq!(desk.told(31_000, Command::SetPolling { polling: None }), "stage");
    assert_eq!(
        desk.run(32_000, Command::TurnPage { forward: true }),
        Err(Refusal::NotPolling)
    );
}

#[test]
fn the_size_of_a_page_is_the_layouts_where_none_is_named() {
    let mut desk = desk_on_air(&["S1"]);
    let pictures = Layout::ALL.map(Layout::pictures);
    assert_eq!(pictures, [1, 8, 4, 9, 16, 25, 36, 49]);
    for layout in Layout::ALL {
        desk.told(10, Command::SetLayout { layout: Some(layout) });
        desk.told(11, Command::SetPolling { polling: None }.clone());
        desk.told(12, polling(0, 0, false));
        let polling = desk.meeting.stage().polling.as_ref().expect("polling");
        assert_eq!(
            (polling.per_page, polling.interval_ms),
            (layout.pictures(), 10_000)
        );
    }
    for (interval, per_page) in [(4_999, 1), (600_001, 1), (5_000, 50)] {
        let refusal = desk.run(20, polling(interval, per_page, false)).unwrap_err();
        assert_eq!(refusal.code(), "bad_number", "{refusal}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn going_round_once_shows_everybody_on_air_and_nobody_else(
        alive in proptest::collection::vec(any::<bool>(), 1..30),
        per_page in 1usize..8,
    ) {
        let ids: Vec<SiteId> = (0..alive.len()).map(|n| site(&format!("S{n}"))).collect();
        let roster: Vec<(&SiteId, bool)> = ids.iter().zip(alive.iter().copied()).collect();
        let expected: BTreeSet<&SiteId> = roster.iter().filter(|(_, on)| *on).map(|(id, _)| *id).collect();
        let mut page = Polling::start(5_000, per_page, &roster, Millis(0));
        let mut seen = BTreeSet::new();
        for turn in 0..page.pages.max(1) {
            prop_assert_eq!(page.page, turn);
            prop_assert!(page.sites.len() <= per_page);
            for id in &page.sites {
                prop_assert!(seen.insert(id.clone()), "shown twice in one round");
            }
            let next = page.turned(true, &roster, Millis(1));
            if !page.next.is_empty() {
                prop_assert_eq!(&next.sites, &page.next, "what was told to be loaded comes");
            }
            page = next;
        }
        prop_assert_eq!(page.page, 0, "round again");
        prop_assert_eq!(seen.iter().collect::<BTreeSet<_>>(), expected);
    }
}

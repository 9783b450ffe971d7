//! Deadline, end by time, fall-back to sound alone, and the stage that a meeting opens with, in virtual time.

use muster_domain::*;

use crate::support::*;

fn desk_under(ids: &[&str], terms: Terms) -> Desk {
    let mut desk = Desk::new();
    desk.run(0, convene_under(ids, terms)).expect("convened");
    desk
}

fn refused(id: &str, reason: Reason) -> Command {
    Command::Report {
        site: site(id),
        report: Report {
            state: SummonsState::Refused,
            reason: Some(reason),
            detail: String::new(),
            endpoint: "agent".to_owned(),
        },
    }
}

#[test]
fn at_the_deadline_what_is_under_way_ends_and_later_arrivals_still_count() {
    let terms = Terms {
        deadline: Some(Millis(5_000)),
        ..Terms::default()
    };
    let mut desk = desk_under(&["S1", "S2", "S3"], terms);
    desk.told(100, report("S1", SummonsState::Ringing));
    desk.told(200, report("S2", SummonsState::Answered));
    desk.told(300, Command::LegOnAir { site: site("S3") });
    assert_eq!(desk.meeting.next_deadline(), Some(Millis(5_000)));
    assert_eq!(desk.told(4_999, Command::Tick), "");
    assert_eq!(
        desk.told(5_000, Command::Tick),
        "S1 timed out (deadline), S2 timed out (deadline)"
    );
    assert_eq!(desk.meeting.next_deadline(), None);
    assert_eq!(
        desk.told(6_000, report("S1", SummonsState::Answered)),
        "S1 answered"
    );
    assert_eq!(
        desk.meeting.next_deadline(),
        Some(Millis(16_000)),
        "a late one has its own time"
    );
    assert_eq!(
        desk.told(7_000, Command::LegOnAir { site: site("S1") }),
        "S1 on air"
    );
    let again = Command::CallUnconnected {
        sites: vec![online("S2")],
    };
    assert_eq!(desk.told(8_000, again), "S2 paged");
    assert_eq!(desk.told(8_000, Command::Tick), "");
    assert_eq!(desk.told(11_000, Command::Tick), "S2 unreachable (no_delivery)");
}

#[test]
fn a_step_that_is_over_before_the_deadline_ends_with_its_own_reason() {
    let terms = Terms {
        deadline: Some(Millis(3_000)),
        ..Terms::default()
    };
    let mut desk = desk_under(&["S1"], terms);
    assert_eq!(desk.told(9_000, Command::Tick), "S1 unreachable (no_delivery)");
}

#[test]
fn a_meeting_ends_by_itself_and_an_extension_sets_the_end_later() {
    let terms = Terms {
        ends_at: Some(Millis(60_000)),
        ..Terms::default()
    };
    let mut desk = desk_under(&["S1"], terms);
    desk.told(10, Command::LegOnAir { site: site("S1") });
    assert_eq!(desk.meeting.next_deadline(), Some(Millis(60_000)));
    assert_eq!(
        desk.told(50_000, Command::Extend { minutes: 2 }),
        "ends at 180000 ms",
        "later than the end that is set"
    );
    assert_eq!(desk.told(179_999, Command::Tick), "");
    assert_eq!(desk.told(180_000, Command::Tick), "ended: its time was over");
    assert_eq!(desk.state("S1"), SummonsState::Left);
    assert_eq!(
        desk.run(180_001, Command::Extend { minutes: 2 }),
        Err(Refusal::MeetingEnded)
    );

    let mut open = Desk::convened(&["S1"]);
    assert_eq!(
        open.run(1_000, Command::Extend { minutes: 1 }),
        Err(Refusal::NoEnd),
        "to put an end off never sets one"
    );
    for minutes in [0, 10_081] {
        let refusal = open.run(2_000, Command::Extend { minutes }).unwrap_err();
        assert_eq!(refusal.code(), "bad_number", "{refusal}");
    }
}

#[test]
fn where_no_picture_comes_the_site_is_called_once_again_for_sound() {
    let terms = Terms {
        fallback: Fallback::Audio,
        ..Terms::default()
    };
    let mut desk = desk_under(&["S1", "S2", "S3"], terms);
    for id in ["S1", "S2", "S3"] {
        desk.told(100, report(id, SummonsState::Answered));
    }
    assert_eq!(
        desk.told(200, refused("S1", Reason::CameraBusy)),
        "S1 refused (camera_busy), S1 paged for sound"
    );
    let paged = desk.meeting.summons("S1").unwrap();
    assert_eq!((paged.media, paged.pages), (Media::Audio, 2));
    assert_eq!(
        desk.told(201, refused("S1", Reason::CameraBusy)),
        "",
        "told twice: the call for sound is on its way"
    );
    desk.told(300, report("S1", SummonsState::Answered));
    assert_eq!(
        desk.told(400, refused("S1", Reason::NoMedia)),
        "S1 refused (no_media) for sound",
        "once, and no more"
    );
    desk.told(500, Command::LegJoining { site: site("S2") });
    assert_eq!(
        desk.told(10_100, Command::Tick),
        "S3 timed out (join_failed)",
        "a site that did not come at all is not one without a picture"
    );
    assert_eq!(
        desk.told(10_500, Command::Tick),
        "S2 timed out (no_media), S2 paged for sound"
    );
    assert_eq!(
        desk.told(11_000, Command::LegOnAir { site: site("S2") }),
        "S2 on air for sound"
    );
    let again = Command::CallUnconnected {
        sites: vec![online("S1")],
    };
    assert_eq!(
        desk.told(12_000, again),
        "S1 paged",
        "a person's call asks for the picture anew"
    );
}

#[test]
fn without_the_fallback_a_site_without_a_picture_ends_with_its_reason() {
    let mut desk = Desk::convened(&["S1"]);
    desk.told(100, report("S1", SummonsState::Answered));
    assert_eq!(
        desk.told(200, refused("S1", Reason::CameraMissing)),
        "S1 refused (camera_missing)"
    );
    let terms = Terms {
        fallback: Fallback::Audio,
        ..Terms::default()
    };
    let mut desk = desk_under(&["S1"], terms);
    assert_eq!(
        desk.told(200, refused("S1", Reason::CameraMissing)),
        "S1 refused (camera_missing)",
        "nor one that had not answered"
    );
}

#[test]
fn a_meeting_opens_with_the_stage_that_was_saved() {
    let mut desk = Desk::new();
    let Command::Convene {
        title,
        chair,
        unit,
        sites,
        idempotency_key,
        terms,
        ..
    } = convene(vec![online("S1"), online("S2")])
    else {
        panic!("a convening");
    };
    let opening = Opening {
        layout: Some(Layout::Four),
        broadcast: Some(site("S9")),
        mute_all: true,
        voice_switching: true,
        polling_ms: Some(7_000),
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
    assert_eq!(desk.told(0, command), "convened, S1 paged, S2 paged, stage");
    let stage = desk.meeting.stage();
    assert_eq!(stage.broadcast, None, "one that is not called is passed over");
    assert_eq!(stage.muted.len(), 2);
    assert_eq!((stage.layout, stage.voice_switching), (Some(Layout::Four), true));
    let polling = stage.polling.as_ref().unwrap();
    assert_eq!((polling.interval_ms, polling.per_page), (7_000, 4));
    assert_eq!(
        desk.told(50, Command::LegOnAir { site: site("S2") }),
        "S2 on air, stage",
        "who comes fills the page"
    );
    assert_eq!(desk.meeting.stage().polling.as_ref().unwrap().sites, [site("S2")]);
}

#[test]
fn each_command_has_a_cause_and_verbs_have_their_own() {
    let tick = Command::Tick.cause();
    let verbs = [
        convene(vec![]),
        Command::End {
            reason: String::new(),
        },
        Command::Mute {
            sites: vec![],
            muted: true,
        },
        Command::Mute {
            sites: vec![],
            muted: false,
        },
        Command::EndRollCall,
        Command::Extend { minutes: 1 },
    ];
    let mut causes: Vec<&str> = verbs.iter().map(Command::cause).chain([tick]).collect();
    causes.sort_unstable();
    causes.dedup();
    assert_eq!(causes.len(), 7, "{causes:?}");
}

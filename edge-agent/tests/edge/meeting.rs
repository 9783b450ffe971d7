//! An agent in its world: enrolment, summons, meeting, losses and the way back, over real sockets.

use std::time::Duration;

use crate::world::{MEETING, RunningAgent, SITE, SLOT_FLOWS, World};
use muster_link::rtp::{LinkRtp, PT_OPUS, PT_VP8};
use muster_proto::command::v1::{SummonsState, SummonsWithdrawn, attach_response};
use muster_proto::media::v1::{
    KeyFrameRequest, LayerPause, LinkRefused, MeetingNotice, SlotState, SlotStatus, SourceKind, SourceRef,
    WatchLegResponse, link_down, slot_wish, watch_leg_response,
};
use muster_testcard::rtp::Packetizer;
use muster_testcard::{Card, Encoder, Names, PictureSize, site_number};

/// A world with an agent that is attached, its link warm.
pub async fn attached() -> (World, RunningAgent) {
    attached_with(World::new().await, PictureSize::P180_5).await
}

async fn attached_with(world: World, size: PictureSize) -> (World, RunningAgent) {
    let agent = RunningAgent::start(world.config(size));
    world
        .until("a warm link", |world| {
            world.status()["relay"] == world.relay.to_string()
        })
        .await;
    world.until_state("attached").await;
    (world, agent)
}

/// As `attached`, and on air.
pub async fn on_air() -> (World, RunningAgent) {
    on_air_with(World::new().await, PictureSize::P180_5).await
}

/// The same, in a world and of a size.
pub async fn on_air_with(world: World, size: PictureSize) -> (World, RunningAgent) {
    let (world, agent) = attached_with(world, size).await;
    world.summon();
    world
        .until("pictures", |world| world.seen().pictures.len() > 1)
        .await;
    world.until_state("on_air").await;
    (world, agent)
}

fn notice(notice: MeetingNotice) -> link_down::Message {
    let event = Some(watch_leg_response::Event::Notice(notice));
    link_down::Message::Event(WatchLegResponse { event })
}

fn pause(paused: bool) -> link_down::Message {
    link_down::Message::LayerPause(LayerPause { flow: 1, paused })
}

/// Time in which pictures would come if any did.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(900)).await;
}

#[tokio::test]
async fn a_summoned_agent_answers_and_sends_its_own_picture_at_once() {
    let (world, agent) = on_air().await;
    {
        let seen = world.seen();
        assert_eq!(seen.damaged, 0);
        assert_eq!(seen.reports, [(MEETING.to_owned(), SummonsState::Answered)]);
        let join = &seen.joins[0];
        let kinds: Vec<_> = join
            .sources
            .iter()
            .map(|source| (source.kind(), source.codec.as_str()))
            .collect();
        assert_eq!(kinds, [(SourceKind::Camera, "VP8"), (SourceKind::Audio, "opus")]);
        let slots: Vec<_> = join.slots.iter().map(|slot| slot.slot.as_str()).collect();
        assert_eq!(slots, ["stage", "a0", "a1", "a2"]);
        assert!(seen.pictures[0].1, "the first picture is a key frame");
        assert!(
            seen.pictures
                .iter()
                .all(|(mark, _)| mark.site == site_number(SITE))
        );
        assert_eq!(seen.pictures.iter().filter(|(_, key)| *key).count(), 1);
    }
    world
        .until("a wish for the stage", |world| !world.seen().views.is_empty())
        .await;
    let wish = world.seen().views[0].wishes[0].clone();
    assert!(wish.slot == "stage" && matches!(wish.what, Some(slot_wish::What::Stage(_))));
    world
        .until("a beep", |world| {
            world.seen().audio_levels.iter().any(|level| *level < 40)
        })
        .await;
    let status = world.status();
    assert_eq!(
        (&status["meeting"], &status["site"]),
        (&MEETING.into(), &SITE.into())
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_paused_camera_is_quiet_and_comes_back_with_a_key_frame() {
    let (world, agent) = on_air().await;
    world.tell_leg(pause(true));
    world
        .until("paused", |world| world.status()["paused"] == true)
        .await;
    a_while().await;
    let before = world.seen().pictures.len();
    let audio = world.seen().audio;
    a_while().await;
    assert_eq!(
        world.seen().pictures.len(),
        before,
        "a paused camera sent pictures"
    );
    assert!(world.seen().audio > audio, "the sound has stopped too");
    world.tell_leg(pause(false));
    world.tell_leg(link_down::Message::KeyFrame(KeyFrameRequest { flow: 1 }));
    world
        .until("pictures again", |world| world.seen().pictures.len() > before)
        .await;
    assert!(world.seen().pictures[before].1, "no key frame after the pause");
    agent.stop().await;
}

#[tokio::test]
async fn a_lost_link_leads_back_into_the_meeting_with_a_new_ticket() {
    let (world, agent) = on_air().await;
    world.link().close("cut");
    world
        .until("a second join", |world| world.seen().joins.len() == 2)
        .await;
    let before = world.seen().pictures.len();
    world
        .until("pictures again", |world| world.seen().pictures.len() > before + 1)
        .await;
    world.until_state("on_air").await;
    assert_eq!(world.seen().tickets, 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_meeting_goes_on_while_the_control_plane_is_away() {
    let (world, agent) = on_air().await;
    world.go_away();
    world
        .until("the loss to be known", |world| {
            world.status()["last_error"].is_string()
        })
        .await;
    let before = world.seen().pictures.len();
    world
        .until("more pictures", |world| world.seen().pictures.len() > before + 3)
        .await;
    assert_eq!(world.status()["state"], "on_air");
    world.seen().away = false;
    world
        .until("attached again", |world| world.seen().attached >= 2)
        .await;
    world.summon();
    a_while().await;
    assert_eq!(world.seen().joins.len(), 1, "joined a meeting that it is in");
    assert_eq!(world.seen().leaves, 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_link_lost_while_the_control_plane_is_away_is_rejoined_when_it_is_back() {
    let (world, agent) = on_air().await;
    world.go_away();
    world.link().close("cut");
    world.until_state("joining").await;
    a_while().await;
    assert_eq!(world.seen().joins.len(), 1);
    world.seen().away = false;
    world
        .until("a second join", |world| world.seen().joins.len() == 2)
        .await;
    world.until_state("on_air").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_meeting_that_ends_or_is_withdrawn_is_left_and_another_can_follow() {
    let (world, agent) = on_air().await;
    world.tell_leg(notice(MeetingNotice {
        ended: true,
        ..Default::default()
    }));
    world.until_state("attached").await;
    world.until("a leave", |world| world.seen().leaves == 1).await;
    let before = world.seen().pictures.len();
    a_while().await;
    assert_eq!(world.seen().pictures.len(), before, "pictures after the end");
    world.summon();
    world.until_state("on_air").await;
    let withdrawn = SummonsWithdrawn {
        meeting: MEETING.into(),
        reason: "ended".into(),
    };
    world.push(attach_response::Event::Withdrawn(withdrawn));
    world.until_state("attached").await;
    world
        .until("a second leave", |world| world.seen().leaves == 2)
        .await;
    assert_eq!(
        world.seen().links_lost,
        0,
        "the link is kept warm between meetings"
    );
    agent.stop().await;
}

#[tokio::test]
async fn what_is_on_the_stage_is_seen_and_heard() {
    let (world, agent) = on_air().await;
    let source = Some(SourceRef {
        site: "WH-EL-HQ".into(),
        kind: SourceKind::Camera.into(),
    });
    let slot = SlotState {
        slot: "stage".into(),
        status: SlotStatus::Live.into(),
        source,
        ..Default::default()
    };
    let event = Some(watch_leg_response::Event::Slot(slot));
    world.tell_leg(link_down::Message::Event(WatchLegResponse { event }));
    world
        .until("a live stage", |world| world.status()["stage_status"] == "live")
        .await;
    assert_eq!(world.status()["stage_site"], "WH-EL-HQ");
    send_stage(&world, site_number("WH-EL-HQ"), 0, |_| false);
    world
        .until("the mark", |world| {
            world.status()["stage_site_number"] == site_number("WH-EL-HQ")
        })
        .await;
    world
        .until("the sound", |world| {
            world.status()["audio_packets"] == serde_json::json!([0, 8, 0])
        })
        .await;
    // The start of a key frame gets lost: the agent asks for a key frame, and lives.
    send_stage(&world, site_number("WH-EL-HQ"), 1000, |packet| packet == 1000);
    world
        .until("a key frame request", |world| {
            world.seen().key_requests == [SLOT_FLOWS[0]]
        })
        .await;
    let junk = LinkRtp {
        payload_type: PT_VP8,
        marker: true,
        seq: 0,
        timestamp: 0,
        audio_level: None,
        payload: &[0x90],
    };
    world.link().send_rtp(SLOT_FLOWS[0], &junk).expect("sent");
    world.link().send_rtp(9999, &junk).expect("sent");
    a_while().await;
    assert_eq!(world.status()["state"], "on_air");
    agent.stop().await;
}

/// Sends eight pictures of a site's card into the stage slot, and as many packets of sound into a1. Packets are numbered
/// from `first`; `lose` takes a number.
fn send_stage(world: &World, site: u16, first: u16, lose: impl Fn(u16) -> bool) {
    let size = PictureSize::P180_5;
    let mut card = Card::new(
        size,
        site,
        Names {
            chinese: "",
            english: "HQ",
        },
        0,
    );
    let mut encoder = Encoder::new(size).expect("an encoder");
    let (mut packetizer, link, mut seq) = (Packetizer::new(1), world.link(), first);
    for index in 0..8_u16 {
        let frame = encoder.encode(card.draw(index.into()), i64::from(index) * 18_000, false);
        packetizer.packetize(
            frame.expect("encodes").expect("a frame").data,
            |payload, marker| {
                let timestamp = u32::from(index) * 18_000;
                let rtp = LinkRtp {
                    payload_type: PT_VP8,
                    marker,
                    seq,
                    timestamp,
                    audio_level: None,
                    payload,
                };
                if !lose(seq) {
                    link.send_rtp(SLOT_FLOWS[0], &rtp).expect("sent");
                }
                seq += 1;
            },
        );
        let sound = LinkRtp {
            payload_type: PT_OPUS,
            marker: false,
            seq: index,
            timestamp: 0,
            audio_level: Some(20),
            payload: &[1, 2, 3],
        };
        link.send_rtp(SLOT_FLOWS[2], &sound).expect("sent");
    }
}

#[tokio::test]
async fn a_muted_site_sends_silence_and_says_that_it_is_muted() {
    let (world, agent) = on_air().await;
    world.tell_leg(notice(MeetingNotice {
        muted: true,
        ..Default::default()
    }));
    world
        .until("muted", |world| world.status()["muted"] == true)
        .await;
    world.seen().audio_levels.clear();
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let levels = world.seen().audio_levels.clone();
    assert!(
        !levels.is_empty() && levels.iter().all(|level| *level == 127),
        "{levels:?}"
    );
    world.tell_leg(notice(MeetingNotice::default()));
    world
        .until("a beep", |world| {
            world.seen().audio_levels.iter().any(|level| *level < 40)
        })
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_ticket_is_replaced_by_another() {
    let (world, agent) = attached().await;
    world.seen().refusals = vec!["full", "token_used"];
    world.summon();
    world.until_state("on_air").await;
    assert_eq!(world.seen().joins.len(), 3);
    assert_eq!(world.seen().tickets, 2);
    // A refusal that answers no join changes nothing.
    let refused = LinkRefused {
        code: "bad_request".into(),
        detail: "late".into(),
    };
    world.tell_leg(link_down::Message::Refused(refused));
    a_while().await;
    assert_eq!(world.status()["state"], "on_air");
    assert_eq!(world.seen().reports.len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_join_that_the_relay_cannot_take_is_reported_as_refused() {
    let (world, agent) = attached().await;
    world.seen().refusals = vec!["bad_request"];
    world.summon();
    let refused = (MEETING.to_owned(), SummonsState::Refused);
    world
        .until("a report", |world| world.seen().reports.contains(&refused))
        .await;
    world.until_state("attached").await;
    assert_eq!(world.seen().joins.len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_stopped_agent_closes_its_link_and_does_not_hang_up() {
    let (world, agent) = on_air().await;
    agent.stop().await;
    world
        .until("a closed link", |world| world.seen().links_lost == 1)
        .await;
    assert_eq!(world.seen().leaves, 0, "its site is called again when it is back");
    assert_eq!(world.status()["state"], "offline");
}

#[tokio::test]
async fn a_large_card_is_published_in_two_layers() {
    let world = World::new().await;
    let agent = RunningAgent::start(world.config(PictureSize::P360_15));
    world
        .until("a warm link", |world| world.status()["relay"].is_string())
        .await;
    world.summon();
    world
        .until("pictures", |world| world.seen().pictures.len() > 3)
        .await;
    let layers = world.seen().joins[0].sources[0].layers.clone();
    let sizes: Vec<_> = layers
        .iter()
        .map(|layer| (layer.flow, layer.width, layer.height))
        .collect();
    assert_eq!(sizes, [(1, 320, 180), (2, 640, 360)]);
    agent.stop().await;
}

#[tokio::test]
async fn a_used_token_is_refused_with_advice_and_an_identity_needs_none() {
    let world = World::new().await;
    let mut config = world.config(PictureSize::P180_5);
    let agent = RunningAgent::start(config.clone());
    world.until_state("attached").await;
    agent.stop().await;

    let used = config.enrol_token.take();
    let agent = RunningAgent::start(config.clone());
    world
        .until("attached without a token", |world| world.seen().attached == 2)
        .await;
    agent.stop().await;

    config.identity_dir = world.dir.path().join("other");
    let error = muster_edge::run(config.clone(), std::future::pending())
        .await
        .expect_err("no token");
    assert!(error.to_string().contains("MUSTER_ENROL_TOKEN"), "{error}");
    config.enrol_token = used;
    let error = muster_edge::run(config, std::future::pending())
        .await
        .expect_err("a used token")
        .to_string();
    assert!(
        error.contains("used before") && error.contains("ask for a new one"),
        "{error}"
    );
}

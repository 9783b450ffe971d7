//! Relays above one another: what crosses their links, and what becomes of a meeting when one is cut.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use muster_identity::{Authority, Identity};
use muster_link::rtp::{LinkRtp, PT_VP8};
use muster_link::{EdgeLink, EdgeSender};
use muster_proto::media::v1::{
    KeyFrameRequest, LinkLayer, LinkSlot, LinkUp, RelayMessage, RelaySource, RelaySources, RelayWant,
    SlotStatus, SlotWish, SourceKind, link_down, link_up, relay_message,
};
use muster_sfu::{Neighbour, Relay};

use crate::outside::get;
use crate::support::agent::{Agent, LARGE, SMALL, slot, wish};
use crate::support::wire::Wire;
use crate::support::{Bench, config_of, credentials, stage, until, until_async, vp8};

/// City, district and street, the lower dialling the upper over a wire.
struct Chain {
    city: Bench,
    district: Bench,
    street: Bench,
    /// The district's uplink.
    uplink: Wire,
    _street_wire: Wire,
    _dir: tempfile::TempDir,
}

async fn relay(name: &str, workers: usize, authority: &Path, uplink: Option<&Wire>) -> Bench {
    let dir = tempfile::tempdir().expect("temp dir");
    let authority = Authority::load_or_create(authority).expect("authority");
    let mut config = config_of(name, &authority, dir.path());
    config.workers = workers;
    config.uplink = uplink.map(|wire| wire.address.to_string());
    let relay = Relay::start(config).await.expect("relay starts");
    Bench {
        relay,
        authority,
        _dir: dir,
    }
}

impl Chain {
    async fn start(workers: usize) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let city = relay("city", workers, dir.path(), None).await;
        let uplink = Wire::to(*city.relay.link_addrs().last().expect("a worker")).await;
        let district = relay("district", workers, dir.path(), Some(&uplink)).await;
        let street_wire = Wire::to(*district.relay.link_addrs().last().expect("a worker")).await;
        let street = relay("street", workers, dir.path(), Some(&street_wire)).await;
        Self {
            city,
            district,
            street,
            uplink,
            _street_wire: street_wire,
            _dir: dir,
        }
    }

    async fn stop(self) {
        self.street.relay.shutdown().await;
        self.district.relay.shutdown().await;
        self.city.relay.shutdown().await;
    }
}

fn neighbour(bench: &Bench, name: &str) -> Option<Neighbour> {
    let all = bench.relay.neighbours();
    all.into_iter().find(|neighbour| neighbour.name == name)
}

/// What has come from this neighbour.
fn from(bench: &Bench, name: &str) -> Neighbour {
    neighbour(bench, name).expect("the link stands")
}

fn small(slot: &str, site: &str) -> SlotWish {
    SlotWish {
        max_width: 320,
        max_height: 180,
        ..wish(slot, site)
    }
}

fn status(agent: &Agent, slot: &str) -> Option<SlotStatus> {
    agent.seen().slots.get(slot).map(|slot| slot.status())
}

async fn crosses_once(workers: usize) {
    let chain = Chain::start(workers).await;
    let last = workers - 1;
    let mut sites = Vec::new();
    for site in ["s1", "s2", "s3"] {
        let mut agent = Agent::in_meeting(&chain.street, last, site, vec![slot("v", false)]).await;
        agent.publish_camera();
        sites.push(agent);
    }
    let mut dispatcher = Agent::in_meeting(&chain.city, 0, "chair", vec![slot("v", false)]).await;
    dispatcher.publish_camera();
    dispatcher.set_view(vec![wish("v", "s1")]).await;
    dispatcher.sees(0, &format!("s1/{LARGE}")).await;

    let mut viewers = Vec::new();
    for (n, bench) in [&chain.city, &chain.city, &chain.district, &chain.district]
        .into_iter()
        .enumerate()
    {
        let viewer = Agent::in_meeting(bench, n % workers, &format!("v{n}"), vec![slot("v", false)]).await;
        viewer.set_view(vec![wish("v", "s1")]).await;
        viewer.sees(0, &format!("s1/{LARGE}")).await;
        viewers.push(viewer);
    }
    // Five watch it at two relays: one layer of one source crosses each link, and each packet once.
    for (bench, below) in [(&chain.city, "district"), (&chain.district, "street")] {
        let start = from(bench, below).packets_in;
        until("fifty more packets", || {
            (from(bench, below).packets_in >= start + 50).then_some(())
        })
        .await;
        let crossed = from(bench, below);
        assert_eq!(crossed.layers_in, 1, "{below}: {crossed:?}");
        assert_eq!(crossed.packets_in, crossed.numbers_in, "{below}: {crossed:?}");
    }
    until("what nobody watches is paused at its site", || {
        let paused = |agent: &Agent, flow| agent.seen().paused.get(&flow) == Some(&true);
        let others = sites[1..].iter();
        let others = others
            .clone()
            .all(|site| paused(site, SMALL) && paused(site, LARGE));
        (others && paused(&sites[0], SMALL) && !paused(&sites[0], LARGE)).then_some(())
    })
    .await;

    // Another size is another layer, and it too crosses once.
    viewers[0].set_view(vec![small("v", "s1")]).await;
    viewers[0].sees(0, &format!("s1/{SMALL}")).await;
    assert_eq!(from(&chain.city, "district").layers_in, 2);
    // Downwards it is the same.
    for site in &sites {
        site.set_view(vec![wish("v", "chair")]).await;
        site.sees(0, &format!("chair/{LARGE}")).await;
    }
    let down = from(&chain.street, "district");
    assert_eq!((down.layers_in, down.above), (1, true));
    assert_eq!(down.packets_in, down.numbers_in);

    // Nobody looks any more: nothing crosses.
    dispatcher.set_view(Vec::new()).await;
    for viewer in &viewers {
        viewer.set_view(Vec::new()).await;
    }
    until("all layers are paused at the site", || {
        let seen = sites[0].seen();
        let paused = |flow| seen.paused.get(&flow) == Some(&true);
        (paused(SMALL) && paused(LARGE)).then_some(())
    })
    .await;
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_crosses_each_link_once_however_many_watch() {
    crosses_once(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_crosses_each_link_once_where_relays_have_two_workers() {
    crosses_once(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_frame_is_asked_for_across_the_links_and_two_children_ask_as_one() {
    let chain = Chain::start(1).await;
    let mut site = Agent::in_meeting(&chain.street, 0, "s1", Vec::new()).await;
    site.publish_camera();
    until("paused", || {
        (site.seen().paused.get(&LARGE) == Some(&true)).then_some(())
    })
    .await;
    let asked = || site.seen().key_frames.get(&LARGE).copied().unwrap_or(0);
    let before = asked();
    let viewer = Agent::in_meeting(&chain.city, 0, "v", vec![slot("v", false)]).await;
    viewer.set_view(vec![wish("v", "s1")]).await;
    viewer.sees(0, &format!("s1/{LARGE}")).await;
    assert!(asked() > before);
    {
        let seen = viewer.seen();
        assert!(vp8::is_key(&seen.packets[&1][0].1), "begins with a key frame");
    }
    // A viewer's request, such as after a loss, goes all the way.
    let before = asked();
    viewer
        .send(link_up::Message::KeyFrame(KeyFrameRequest { flow: 1 }))
        .await;
    until("the site is asked", || (asked() > before).then_some(())).await;
    assert!(from(&chain.street, "district").key_frames_asked >= 2);
    chain.stop().await;
}

/// The sites in the last packet of each audio slot.
fn heard(agent: &Agent) -> BTreeSet<String> {
    let seen = agent.seen();
    let last = seen.packets.values().filter_map(|packets| packets.last());
    last.map(|(_, payload)| String::from_utf8_lossy(payload).into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sound_only_the_chosen_voices_cross() {
    let chain = Chain::start(1).await;
    let mut agents = Vec::new();
    for (n, level) in [10, 25, 40, 48, 64, 65, 66, 67, 68, 69].into_iter().enumerate() {
        let mut agent = Agent::in_meeting(&chain.street, 0, &format!("s{n}"), Vec::new()).await;
        agent.publish_sound(level);
        agents.push(agent);
    }
    let voices: Vec<LinkSlot> = ["1", "2", "3"].map(|name| slot(name, true)).into();
    let ear = Agent::in_meeting(&chain.city, 0, "ear", voices).await;
    let set = |sites: &[&str]| {
        sites
            .iter()
            .map(|site| (*site).to_owned())
            .collect::<BTreeSet<_>>()
    };
    until("the three loudest are heard", || {
        (heard(&ear) == set(&["s0", "s1", "s2"])).then_some(())
    })
    .await;
    until("and told", || {
        (ear.seen().speakers.sites == ["s0", "s1", "s2"]).then_some(())
    })
    .await;
    // Three and the next in line, 50 packets a second each; all ten would be here in 0.6 s.
    let (start, before) = (Instant::now(), from(&chain.city, "district").packets_in);
    until("300 packets of sound", || {
        (from(&chain.city, "district").packets_in >= before + 300).then_some(())
    })
    .await;
    assert!(
        start.elapsed() > Duration::from_millis(1100),
        "{:?}",
        start.elapsed()
    );

    // Who is muted by the stage that the street obeys is not sent.
    let mut muted = stage("m", 1);
    muted.muted_sites = vec!["s0".into()];
    chain.street.relay.set_stage(muted);
    until("others are heard instead", || {
        (heard(&ear) == set(&["s1", "s2", "s3"])).then_some(())
    })
    .await;
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_district_that_is_cut_off_goes_on_and_joins_up_again_by_itself() {
    let chain = Chain::start(2).await;
    let mut low = Agent::in_meeting(&chain.street, 0, "low", vec![slot("v", false)]).await;
    low.publish_camera();
    let mut middle = Agent::in_meeting(&chain.district, 1, "middle", vec![slot("v", false)]).await;
    middle.publish_camera();
    let mut top = Agent::in_meeting(&chain.city, 0, "top", vec![slot("a", false), slot("b", false)]).await;
    top.publish_camera();
    top.set_view(vec![wish("a", "low"), wish("b", "middle")]).await;
    low.set_view(vec![wish("v", "middle")]).await;
    middle.set_view(vec![wish("v", "low")]).await;
    let live = |agent: &Agent, slot| status(agent, slot) == Some(SlotStatus::Live);
    let all_live =
        || (live(&top, "a") && live(&top, "b") && live(&low, "v") && live(&middle, "v")).then_some(());
    until("all see", all_live).await;

    chain.uplink.cut(true);
    until("the last pictures are marked stale", || {
        (status(&top, "a") == Some(SlotStatus::Stale)).then_some(())
    })
    .await;
    until("then the sites are absent", || {
        let absent = |slot| status(&top, slot) == Some(SlotStatus::Absent);
        (absent("a") && absent("b")).then_some(())
    })
    .await;
    until("both ends know", || {
        let gone =
            neighbour(&chain.city, "district").is_none() && neighbour(&chain.district, "city").is_none();
        gone.then_some(())
    })
    .await;
    // The island: new pictures go on coming between street and district.
    for agent in [&low, &middle] {
        agent.seen().packets.clear();
        until("the island's pictures go on", || {
            let seen = agent.seen();
            seen.packets
                .get(&1)
                .filter(|packets| packets.len() > 25)
                .map(drop)
        })
        .await;
        assert!(live(agent, "v"));
    }
    // Somebody who comes meanwhile is seen there, and above afterwards.
    let mut late = Agent::in_meeting(&chain.street, 1, "late", Vec::new()).await;
    late.publish_camera();
    middle.set_view(vec![wish("v", "late")]).await;
    middle.sees(0, &format!("late/{LARGE}")).await;

    chain.uplink.cut(false);
    until("all see again", all_live).await;
    top.set_view(vec![wish("a", "late"), wish("b", "middle")]).await;
    top.sees(0, &format!("late/{LARGE}")).await;
    // Who leaves is gone everywhere.
    late.sender.close("bye");
    until("absent above", || {
        (status(&top, "a") == Some(SlotStatus::Absent)).then_some(())
    })
    .await;
    // The last leg below takes its meeting along.
    assert!(neighbour(&chain.city, "district").is_some());
    chain.stop().await;
}

/// A relay of the test's own, below the city.
struct Fake {
    sender: EdgeSender,
    link: EdgeLinkRest,
}

type EdgeLinkRest = (
    muster_link::ControlReceiver<muster_proto::media::v1::LinkDown>,
    muster_link::MediaReceiver,
);

impl Fake {
    async fn connect(bench: &Bench, name: &str) -> Self {
        let credentials = credentials(&bench.authority, Identity::Relay(name.into()));
        let address = bench.relay.link_addrs()[0].to_string();
        let link = EdgeLink::connect(&address, &credentials).await.expect("link");
        Self {
            sender: link.sender,
            link: (link.control, link.media),
        }
    }

    async fn say(&self, message: relay_message::Message) {
        let relay = RelayMessage {
            message: Some(message),
        };
        let message = Some(link_up::Message::Relay(relay));
        self.sender.send_control(&LinkUp { message }).await.expect("sent");
    }

    async fn tell(&self, meeting: &str, came: Vec<RelaySource>) {
        self.say(relay_message::Message::Sources(RelaySources {
            meeting: meeting.into(),
            came,
            ..RelaySources::default()
        }))
        .await;
    }
}

fn source(id: u64, flow: u64) -> RelaySource {
    let layer = LinkLayer {
        flow,
        ..LinkLayer::default()
    };
    RelaySource {
        id,
        site: format!("far{id}"),
        kind: SourceKind::Camera.into(),
        codec: "VP8".into(),
        layers: vec![layer],
        relay: "fake".into(),
    }
}

async fn dropped(bench: &Bench, reason: &str) -> u64 {
    let page = get(bench, "/metrics").await;
    let line = format!("muster_relay_dropped_total{{reason=\"{reason}\"}} ");
    let found = page.body.lines().find_map(|found| found.strip_prefix(&line));
    found.map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_says_what_it_must_not_is_counted_and_harms_nobody() {
    let dir = tempfile::tempdir().expect("temp dir");
    let city = relay("city", 1, dir.path(), None).await;
    let viewer = Agent::in_meeting(&city, 0, "v", vec![slot("v", false)]).await;
    let mut fake = Fake::connect(&city, "fake").await;
    fake.tell("", vec![source(1, 1)]).await;
    fake.tell("m", Vec::new()).await;
    let bad = [
        RelaySource {
            codec: "opus".into(),
            ..source(2, 2)
        },
        RelaySource {
            codec: "MJPEG".into(),
            ..source(2, 2)
        },
        RelaySource {
            kind: 9,
            ..source(2, 2)
        },
        RelaySource {
            site: String::new(),
            ..source(2, 2)
        },
        RelaySource {
            site: "x".repeat(1000),
            ..source(2, 2)
        },
        RelaySource {
            layers: Vec::new(),
            ..source(2, 2)
        },
        RelaySource {
            layers: vec![LinkLayer::default(); 9],
            ..source(2, 2)
        },
        RelaySource {
            layers: vec![LinkLayer::default(); 2],
            ..source(2, 2)
        },
        source(2, u64::MAX),
    ];
    let refused = bad.len() as u64 + 1;
    fake.tell("m", bad.to_vec()).await;
    // Ours come back to us by a circle: no fault of this relay's, and no source.
    fake.tell(
        "m",
        vec![RelaySource {
            relay: "city".into(),
            ..source(3, 3)
        }],
    )
    .await;
    fake.say(relay_message::Message::Want(RelayWant {
        flows: vec![0, 8, u64::MAX],
        wanted: true,
    }))
    .await;
    fake.say(relay_message::Message::KeyFrame(KeyFrameRequest { flow: 77 }))
        .await;
    let junk = LinkRtp {
        payload_type: PT_VP8,
        marker: true,
        seq: 0,
        timestamp: 0,
        audio_level: None,
        payload: b"x",
    };
    fake.sender.send_rtp(2, &junk).expect("sent");
    // A good one among them is taken, watched and sent.
    fake.tell("m", vec![source(5, 500)]).await;
    viewer.set_view(vec![wish("v", "far5")]).await;
    let wanted = async {
        loop {
            let message = fake.link.0.recv().await.expect("the link stands").message;
            if let Some(link_down::Message::Relay(RelayMessage {
                message: Some(message),
            })) = message
                && let relay_message::Message::Want(want) = message
            {
                return want;
            }
        }
    };
    let wanted = tokio::time::timeout(Duration::from_secs(20), wanted)
        .await
        .expect("in time");
    assert_eq!((wanted.flows, wanted.wanted), (vec![500], true));
    let payload = vp8::picture(1, true, "far5");
    fake.sender
        .send_rtp(
            500,
            &LinkRtp {
                payload: &payload,
                ..junk
            },
        )
        .expect("sent");
    viewer.sees(0, "far5").await;
    assert_eq!(dropped(&city, "relay_refused").await, refused);
    assert_eq!(dropped(&city, "unknown_flow").await, 5);

    // A second link of the same name takes the place of the first, and what came by that is gone.
    let again = Fake::connect(&city, "fake").await;
    until("absent", || {
        (status(&viewer, "v") == Some(SlotStatus::Absent)).then_some(())
    })
    .await;
    assert_eq!(city.relay.neighbours().len(), 1);
    drop(again);
    until("nobody is below", || {
        city.relay.neighbours().is_empty().then_some(())
    })
    .await;
    city.relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_that_dial_each_other_are_not_joined_twice() {
    let dir = tempfile::tempdir().expect("temp dir");
    let one = relay("one", 1, dir.path(), None).await;
    let wire = Wire::to(one.relay.link_addrs()[0]).await;
    let two = relay("two", 1, dir.path(), Some(&wire)).await;
    until("joined", || neighbour(&two, "one")).await;
    // "one" now dials "two" as if it were above; and somebody says that it is "two" itself.
    for (name, code) in [("one", "uplink_circle"), ("two", "own_name")] {
        let credentials = credentials(&two.authority, Identity::Relay(name.into()));
        let address = two.relay.link_addrs()[0].to_string();
        // It is let go of so soon that this end may not even be told of its welcome.
        let link = EdgeLink::connect(&address, &credentials).await;
        until_async("refused", async || {
            let page = get(&two, "/metrics").await.body;
            let line = format!("muster_relay_joins_refused_total{{reason=\"{code}\"}} 1");
            page.lines().any(|found| found == line).then_some(()).ok_or(())
        })
        .await;
        drop(link);
    }
    assert_eq!(two.relay.neighbours().len(), 1);
    two.relay.shutdown().await;
    one.relay.shutdown().await;
}

//! The source `page`: a browser at the agent's page publishes and is shown the stage; what comes instead of a browser is refused.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use muster_edge::Source;
use muster_link::rtp::{LinkRtp, PT_OPUS, PT_VP8};
use muster_proto::command::v1::{SummonsCall, SummonsReason, SummonsState};
use muster_proto::media::v1::watch_leg_response::Event;
use muster_proto::media::v1::{KeyFrameRequest, LayerPause, MeetingNotice, WatchLegResponse, link_down};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use webrtc::peer_connection::RTCPeerConnectionState;

use crate::browser::{Browser, RIDS, SITE_NUMBER};
use crate::world::{MEETING, RunningAgent, SLOT_FLOWS, World};

struct Site {
    world: World,
    agent: RunningAgent,
    page: SocketAddr,
}

impl Site {
    async fn start(source: Source) -> Self {
        let world = World::new().await;
        // A port that nothing listens on: the agent takes it a moment later.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let page = listener.local_addr().expect("an address");
        drop(listener);
        let mut config = world.config_of(source);
        config.page = Some(page);
        let agent = RunningAgent::start(config);
        world
            .until("a warm link", |world| {
                world.status()["state"] == "attached" && world.status()["relay"].is_string()
            })
            .await;
        Self { world, agent, page }
    }

    /// Status and JSON of a request as the page makes it.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.ask_as(method, path, body, &format!("http://{}", self.page))
            .await
    }

    async fn ask_as(&self, method: &str, path: &str, body: &str, origin: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.page).await.expect("connected");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\norigin: {origin}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            self.page,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("asked");
        // A server that has heard enough may hang up before the end.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).expect("text");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        let body = body.and_then(|body| serde_json::from_str(body).ok());
        (status.expect("a status"), body.unwrap_or_default())
    }

    async fn offer(&self, sdp: &str) -> (u16, Value) {
        self.ask("POST", "/offer", &json!({ "sdp": sdp }).to_string())
            .await
    }

    /// A browser opens the page; returns it and its session.
    async fn open(&self) -> (Browser, u64) {
        let mut browser = Browser::new(&RIDS).await;
        let (status, served) = self.offer(&browser.offer).await;
        assert_eq!(status, 201, "{served}");
        browser.answered(served["sdp"].as_str().expect("an answer")).await;
        let session = served["session"].as_u64().expect("a session");
        (browser, session)
    }

    async fn tell(&self, session: u64, camera: &str, width: u32) -> (u16, Value) {
        let words = json!({
            "session": session, "camera": camera, "microphone": "on", "width": 320, "height": 180,
            "stage_width": width, "stage_height": width * 9 / 16,
        });
        self.ask("POST", "/told", &words.to_string()).await
    }

    /// Shows a picture on the stage, and lets somebody speak.
    fn show(&self, numbers: (u16, u32), payload: &[u8]) {
        let link = self.world.link();
        let mut rtp = LinkRtp {
            payload_type: PT_VP8,
            marker: true,
            seq: numbers.0,
            timestamp: numbers.1,
            audio_level: None,
            payload,
        };
        link.send_datagram(rtp.to_datagram(SLOT_FLOWS[0], &mut BytesMut::new()))
            .expect("sent");
        (rtp.payload_type, rtp.payload, rtp.audio_level) = (PT_OPUS, b"a voice", Some(20));
        link.send_datagram(rtp.to_datagram(SLOT_FLOWS[1], &mut BytesMut::new()))
            .expect("sent");
    }
}

/// VP8 with a picture id of 15 bits: a key frame's first packet, and its mark.
fn picture(id: u16, mark: &[u8]) -> Vec<u8> {
    let [high, low] = (id | 0x8000).to_be_bytes();
    let mut payload = vec![0x90, 0x80, high, low, 0x10, 0, 0, 0x9d, 1, 0x2a, 64, 1, 180, 0];
    payload.extend_from_slice(mark);
    payload
}

#[tokio::test]
async fn a_browser_publishes_and_is_shown_the_stage() {
    let site = Site::start(Source::Page).await;
    let world = &site.world;
    let (browser, session) = site.open().await;
    assert_eq!(site.tell(session, "on", 1280).await.0, 200);
    world.summon();
    world.until_state("on_air").await;
    {
        let seen = world.seen();
        let camera = &seen.joins[0].sources[0];
        let layers = camera.layers.iter().map(|layer| (layer.flow, layer.height));
        assert_eq!(camera.codec, "VP8");
        assert_eq!(layers.collect::<Vec<_>>(), [(1, 180), (2, 180)]);
        assert_eq!(seen.joins[0].slots[0].codecs, ["VP8", "H264"]);
    }
    world
        .until("the browser's pictures, whole", |world| {
            world.seen().pictures.len() > 10
        })
        .await;
    {
        let seen = world.seen();
        assert!(seen.pictures.iter().all(|(mark, _)| mark.site == SITE_NUMBER));
        assert_eq!(seen.damaged, 0);
        assert!(seen.sounds.iter().any(|sound| sound == b"opus, or so"));
        let view = &seen.views[seen.views.len() - 1].wishes[0];
        assert_eq!((view.max_width, view.max_height), (1280, 720));
    }
    // The stage, with a voice.
    let count = std::cell::Cell::new(0u16);
    world
        .until("the stage at the browser", |_| {
            count.set(count.get() + 1);
            let number = count.get();
            site.show((number, u32::from(number) * 3000), &picture(number, b"the stage"));
            let seen = browser.seen();
            let shows = |mark: &[u8]| {
                let of = |track: &(u32, Vec<(u16, bytes::Bytes)>)| {
                    track.1.iter().filter(|packet| packet.1.ends_with(mark)).count()
                };
                seen.tracks.iter().any(|track| of(track) > 10)
            };
            shows(b"the stage") && shows(b"a voice")
        })
        .await;
    let before = world.seen().key_requests.len();
    browser.ask_key_frames().await;
    world
        .until("the browser's request at the relay", |world| {
            world.seen().key_requests[before..].contains(&SLOT_FLOWS[0])
        })
        .await;
    // The window has become smaller.
    site.tell(session, "on", 640).await;
    world
        .until("a smaller stage", |world| {
            world
                .seen()
                .views
                .last()
                .is_some_and(|view| view.wishes[0].max_width == 640)
        })
        .await;
    browser.close().await;
    site.agent.stop().await;
}

#[tokio::test]
async fn what_nobody_watches_rests_and_a_muted_site_is_silent() {
    let site = Site::start(Source::Page).await;
    let world = &site.world;
    let (browser, session) = site.open().await;
    site.tell(session, "on", 1280).await;
    let idle = site.ask("GET", "/media", "").await.1;
    assert_eq!(
        (idle["session"].as_u64(), &idle["layers"]),
        (Some(session), &json!([false, false]))
    );
    world.summon();
    world.until_state("on_air").await;
    let wanted = site.ask("GET", "/media", "").await.1;
    assert_eq!(wanted["layers"], json!([true, true]));
    // The page hangs on the next change.
    let version = wanted["version"].as_u64().expect("a version");
    let path = format!("/media?version={version}");
    let (changed, ()) = tokio::join!(site.ask("GET", &path, ""), async {
        world.tell_leg(link_down::Message::LayerPause(LayerPause {
            flow: 2,
            paused: true,
        }));
    });
    assert_eq!(changed.1["layers"], json!([true, false]));
    world.tell_leg(link_down::Message::KeyFrame(KeyFrameRequest { flow: 1 }));
    let notice = |muted| {
        link_down::Message::Event(WatchLegResponse {
            event: Some(Event::Notice(MeetingNotice {
                muted,
                ..MeetingNotice::default()
            })),
        })
    };
    world.tell_leg(notice(true));
    world
        .until("muted", |world| world.status()["muted"] == true)
        .await;
    world
        .until("silence", |world| {
            world
                .seen()
                .sounds
                .last()
                .is_some_and(|sound| sound == b"\xf8\xff\xfe")
        })
        .await;
    let muted = world.seen().sounds.len();
    world
        .until("more silence", |world| world.seen().sounds.len() > muted + 3)
        .await;
    assert!(
        world.seen().sounds[muted..]
            .iter()
            .all(|sound| sound == b"\xf8\xff\xfe")
    );
    world.tell_leg(notice(false));
    world
        .until("sound again", |world| {
            world
                .seen()
                .sounds
                .last()
                .is_some_and(|sound| sound == b"opus, or so")
        })
        .await;
    // The browser's camera is unplugged: the reason reaches the dispatcher, and is taken back.
    site.tell(session, "missing", 1280).await;
    let told =
        |reason| move |world: &World| world.seen().reasons.last() == Some(&(SummonsState::Answered, reason));
    world
        .until("the reason", told(SummonsReason::CameraMissing))
        .await;
    site.tell(session, "on", 1280).await;
    world.until("well again", told(SummonsReason::Unspecified)).await;
    browser.close().await;
    site.agent.stop().await;
}

#[tokio::test]
async fn a_second_window_takes_over_and_the_first_is_told() {
    let site = Site::start(Source::Page).await;
    let world = &site.world;
    let (first, one) = site.open().await;
    site.tell(one, "on", 1280).await;
    world.summon();
    world
        .until("pictures", |world| world.seen().pictures.len() > 3)
        .await;
    let (second, two) = site.open().await;
    assert_ne!(one, two);
    let (status, over) = site.tell(one, "missing", 320).await;
    assert_eq!((status, &over["error"]), (409, &json!("over")));
    assert_eq!(site.tell(two, "on", 1280).await.0, 200);
    assert_eq!(
        site.ask("GET", "/media", "").await.1["session"].as_u64(),
        Some(two)
    );
    world
        .until("the first is closed", |_| {
            let ended = [
                RTCPeerConnectionState::Closed,
                RTCPeerConnectionState::Failed,
                RTCPeerConnectionState::Disconnected,
            ];
            first.seen().states.iter().any(|state| ended.contains(state))
        })
        .await;
    first.close().await;
    let before = world.seen().pictures.len();
    world
        .until("pictures of the second", |world| {
            world.seen().pictures.len() > before + 5
        })
        .await;
    assert_eq!(world.status()["state"], "on_air");
    assert_eq!(world.seen().joins.len(), 1, "it is the same source");
    second.close().await;
    let gone = async {
        while site.ask("GET", "/media", "").await.1["session"] != 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), gone)
        .await
        .expect("nobody is served");
    site.agent.stop().await;
}

#[tokio::test]
async fn what_is_no_browser_of_ours_is_refused_in_words() {
    let site = Site::start(Source::Page).await;
    let browser = Browser::new(&RIDS).await;
    let one_layer = Browser::new(&RIDS[..1]).await;
    let without = |offer: &str, begins: &str, what: &str, becomes: &str| {
        let cut = offer.split("\r\nm=");
        let changed = cut.map(|part| match part.starts_with(begins) && part.contains(what) {
            true => part.replace(what, becomes),
            false => part.to_owned(),
        });
        changed.collect::<Vec<_>>().join("\r\nm=")
    };
    let no_camera = without(&browser.offer, "video", "a=sendonly", "a=inactive");
    let no_stage = without(&browser.offer, "video", "a=recvonly", "a=inactive");
    for (sdp, error) in [
        ("", "offer"),
        ("garbage", "offer"),
        ("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", "offer"),
        (&one_layer.offer, "no_camera"),
        (&no_camera, "no_camera"),
        (&no_stage, "no_stage"),
    ] {
        let (status, told) = site.offer(sdp).await;
        assert_eq!((status, &told["error"]), (422, &json!(error)), "{told} {sdp}");
        assert!(
            told["expected"].as_str().is_some_and(|words| words.len() > 10),
            "{told}"
        );
    }
    let (status, told) = site.offer(&"a".repeat(1 << 20)).await;
    assert_eq!((status, &told["error"]), (413, &json!("too_long")));
    let (status, told) = site.ask("POST", "/offer", "{\"sdp\": 5}").await;
    assert_eq!((status, &told["error"]), (400, &json!("json")));
    let offer = json!({ "sdp": browser.offer }).to_string();
    let (status, told) = site.ask_as("POST", "/offer", &offer, "http://evil.example").await;
    assert_eq!((status, &told["error"]), (403, &json!("origin")));
    let (status, told) = site
        .ask("POST", "/told", "{\"session\":0,\"camera\":\"on\"}")
        .await;
    assert_eq!((status, &told["error"]), (400, &json!("json")));
    assert_eq!(site.tell(0, "on", 1).await.0, 409);
    assert_eq!(site.ask("DELETE", "/offer", "").await.0, 405);
    // Nothing of it has hurt who comes in order.
    assert_eq!(site.offer(&browser.offer).await.0, 201);
    site.agent.stop().await;
}

#[tokio::test]
async fn a_call_that_rings_is_answered_or_declined_with_a_touch() {
    let card = "testcard:180p5".parse::<Source>().expect("a source");
    let site = Site::start(card).await;
    let world = &site.world;
    assert_eq!(site.offer("v=0").await.0, 404, "another source has no browser");
    let touch = |accept: bool| json!({ "meeting": MEETING, "accept": accept }).to_string();
    site.ask("POST", "/call", &touch(true)).await;
    world.call(SummonsCall::default());
    world.until_state("ringing").await;
    assert_eq!(site.ask("POST", "/call", &touch(false)).await.0, 200);
    world.until_state("attached").await;
    let declined = (SummonsState::Declined, SummonsReason::Declined);
    world
        .until("declined", |world| world.seen().reasons.last() == Some(&declined))
        .await;
    assert!(world.seen().joins.is_empty());
    world.call(SummonsCall::default());
    world.until_state("ringing").await;
    let other = json!({ "meeting": "another", "accept": true }).to_string();
    site.ask("POST", "/call", &other).await;
    assert_eq!(site.ask("POST", "/call", &touch(true)).await.0, 200);
    world.until_state("on_air").await;
    let reports = world.seen().reports.clone();
    assert!(
        reports.contains(&(MEETING.to_owned(), SummonsState::Answered)),
        "{reports:?}"
    );
    site.agent.stop().await;
}

//! Chromium publishes each codec that it has, with layers in one stream, by WHIP to a relay that runs alone; it views its own
//! picture by WHEP, once as large as it comes and once in a small box. Each test has a network of its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_e2e::dev_relay::DevRelay;
use muster_e2e::own_network::in_own_network;
use muster_e2e::page::{Browser, Page, Task};
use serde_json::Value;

/// Generous: the machine may have much else to do, and encodes in software.
const LIMIT: Duration = Duration::from_secs(60);

/// What is published, and what is to be seen of it.
struct Case {
    query: &'static str,
    codec: &'static str,
    mode: Option<&'static str>,
    size: (u64, u64),
    /// In a box of as many lines.
    small: (u64, u64),
}

fn check(name: &str, case: &Case) -> Result<()> {
    in_own_network(name, || {
        let relay = DevRelay::start(&[])?;
        relay.with_logs(published_and_viewed(&relay, case))
    })
}

fn published_and_viewed(relay: &DevRelay, case: &Case) -> Result<()> {
    let task = Task {
        meeting: "hall",
        publish: true,
        slots: 1,
        policy: "all",
        more: &format!("&small={}&{}", case.small.1, case.query),
    };
    let mut page = Page::open(Browser::Chromium, relay, &task)?;
    let told = page.until("both pictures are of their size", LIMIT, |told| {
        shows(&told["view"], case, case.size) && shows(&told["small"], case, case.small)
    })?;
    let sent = told["publish"]["sent"].as_array().context("nothing is sent")?;
    let mode = |sent: &Value| sent["mode"].as_str().map(str::to_owned);
    let video = sent.iter().find(|sent| sent["codec"] == case.codec);
    ensure!(
        video.is_some_and(|video| case.mode.is_none() || mode(video).as_deref() == case.mode),
        "{sent:?}"
    );
    // And both go on from there.
    let decoded =
        |told: &Value, viewer: &str| received(&told[viewer], "video")["decoded"].as_u64().unwrap_or(0);
    let before = ["view", "small"].map(|viewer| decoded(&told, viewer));
    page.until("both pictures move on", LIMIT, |told| {
        let now = ["view", "small"].map(|viewer| decoded(told, viewer));
        now[0] >= before[0] + 20 && now[1] >= before[1] + 20
    })?;
    let told = page.until("a second of sound is decoded", LIMIT, |told| {
        received(&told["view"], "audio")["samples"].as_u64() > Some(48_000)
    })?;
    // Chromium does not say whether sound comes with redundancy, but the packets are twice as long: 115 to 125 bytes, not 56.
    let sound = received(&told["view"], "audio");
    let (bytes, packets) = (sound["bytes"].as_u64(), sound["packets"].as_u64());
    let (bytes, packets) = bytes.zip(packets).context("no sound came")?;
    let twice = bytes > 85 * packets;
    ensure!(
        twice == case.query.contains("red=1"),
        "{bytes} bytes in {packets} packets"
    );
    Ok(())
}

/// What a viewer of one video receives of this kind.
fn received<'a>(viewer: &'a Value, kind: &str) -> &'a Value {
    let received = viewer["received"].as_array().map_or(&[][..], Vec::as_slice);
    let found = received.iter().find(|received| received["kind"] == kind);
    found.unwrap_or(&Value::Null)
}

fn shows(viewer: &Value, case: &Case, (width, height): (u64, u64)) -> bool {
    let video = received(viewer, "video");
    let size = (video["width"].as_u64(), video["height"].as_u64());
    video["codec"] == case.codec
        && size == (Some(width), Some(height))
        && video["decoded"].as_u64() >= Some(10)
}

#[test]
fn chromium_and_vp9_in_three_sizes() -> Result<()> {
    let case = Case {
        query: "codec=VP9&mode=L3T3_KEY&width=960&height=544&rate=10",
        codec: "video/VP9",
        mode: Some("L3T3_KEY"),
        // Chromium has no layer of fewer lines than 135.
        size: (960, 544),
        small: (240, 136),
    };
    check("chromium_and_vp9_in_three_sizes", &case)
}

#[test]
fn chromium_and_vp9_in_one_size() -> Result<()> {
    let case = Case {
        query: "codec=VP9&mode=L1T3&width=320&height=180&rate=15",
        codec: "video/VP9",
        mode: Some("L1T3"),
        size: (320, 180),
        small: (320, 180),
    };
    check("chromium_and_vp9_in_one_size", &case)
}

#[test]
fn chromium_and_av1_in_two_sizes() -> Result<()> {
    let case = Case {
        query: "descriptors=1&codec=AV1&mode=L2T2&width=640&height=360&rate=10",
        codec: "video/AV1",
        mode: Some("L2T2"),
        size: (640, 360),
        small: (320, 180),
    };
    check("chromium_and_av1_in_two_sizes", &case)
}

#[test]
fn chromium_and_h264_with_redundant_sound() -> Result<()> {
    let case = Case {
        query: "codec=H264&width=320&height=180&rate=15&red=1",
        codec: "video/H264",
        mode: None,
        size: (320, 180),
        small: (320, 180),
    };
    check("chromium_and_h264_with_redundant_sound", &case)
}

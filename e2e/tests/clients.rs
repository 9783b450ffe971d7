//! Clients that nobody here wrote, publishing by WHIP and viewing by WHEP at a relay that runs alone. Each test has a
//! network of its own.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use muster_e2e::dev_relay::{DevRelay, TOKEN};
use muster_e2e::field::until;
use muster_e2e::own_network::{ADDRESS, block_udp, blocked, in_own_network};
use muster_e2e::page::{Browser, Page, Task};
use muster_e2e::peer::Peer;
use muster_e2e::program::{Running, run};
use serde_json::Value;

const GCM: &str = "SRTP_AEAD_AES_128_GCM";
const CM: &str = "SRTP_AES128_CM_HMAC_SHA1_80";
/// Generous: the machine may have much else to do.
const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn gstreamer_publishes_and_views() -> Result<()> {
    in_own_network("gstreamer_publishes_and_views", || {
        let relay = DevRelay::start(&[])?;
        relay.with_logs(gstreamer(&relay))
    })
}

fn gstreamer(relay: &DevRelay) -> Result<()> {
    // The viewer is first: what is published later must find its slot.
    let mut viewer = Peer::view(relay, "gst", 1)?;
    viewer.until("connected", LIMIT, |line| line["connected"] == true)?;
    let mut publisher = Peer::publish(relay, "gst")?;
    viewer.until_decoded(10, LIMIT)?;
    assert_eq!(
        (relay.agreed(CM)?, relay.agreed(GCM)?),
        (2, 0),
        "GStreamer 1.22 has no GCM"
    );
    publisher.leave(LIMIT)?;
    viewer.leave(LIMIT)?;
    // They said goodbye, long before silence would have ended them.
    until("both legs are gone", LIMIT, || {
        Ok(relay.metric("muster_relay_legs{kind=\"webrtc\"}")? == 0)
    })
}

#[test]
fn simple_whip_client_publishes() -> Result<()> {
    in_own_network("simple_whip_client_publishes", || {
        let relay = DevRelay::start(&[])?;
        relay.with_logs(simple_whip_client(&relay))
    })
}

fn simple_whip_client(relay: &DevRelay) -> Result<()> {
    let (_, log) = relay.log_of("whip-client")?;
    let mut command = Command::new("whip-client");
    command
        .args(["-u", &format!("{}/whip/studio", relay.url()), "-t", TOKEN, "-o"])
        .args(["-A", AUDIO, "-V", VIDEO])
        .env("LD_LIBRARY_PATH", without_upnp(relay.folder())?)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let publisher = Running::spawn(&mut command)?;
    let mut viewer = Peer::view(relay, "studio", 1)?;
    viewer.until_decoded(10, LIMIT)?;
    assert_eq!(relay.agreed(CM)?, 2, "the client's GStreamer has no GCM");
    // Ctrl-C makes it delete its session.
    publisher.signal(nix::sys::signal::Signal::SIGINT)?;
    until("only the viewer is left", LIMIT, || {
        Ok(relay.metric("muster_relay_legs{kind=\"webrtc\"}")? == 1)
    })
}

const AUDIO: &str = "audiotestsrc is-live=true wave=ticks ! audioconvert ! opusenc ! rtpopuspay pt=100 \
                     ! application/x-rtp,media=audio,encoding-name=OPUS,payload=100";
const VIDEO: &str = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1 \
                     ! vp8enc deadline=1 cpu-used=8 ! rtpvp8pay pt=96 \
                     ! application/x-rtp,media=video,encoding-name=VP8,payload=96";

/// Debian 12's whip-client does not run as it is: it is linked to libsoup 2, and libnice's UPnP library brings libsoup 3, which
/// refuses to be in one process with it. This gives a folder with an UPnP library that has no UPnP, nor libsoup.
fn without_upnp(folder: &Path) -> Result<PathBuf> {
    let library = folder.join("lib");
    std::fs::create_dir(&library)?;
    let name = "libgupnp-igd-1.0.so.4";
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/no_upnp.c");
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", &format!("-Wl,-soname,{name}"), source, "-o"])
        .arg(library.join(name));
    let output = run(&mut compile, LIMIT)?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(library)
}

#[test]
fn chromium_publishes_and_views() -> Result<()> {
    in_own_network("chromium_publishes_and_views", || {
        let relay = DevRelay::start(&[])?;
        relay.with_logs(browser(&relay, Browser::Chromium))
    })
}

#[test]
fn firefox_publishes_and_views() -> Result<()> {
    in_own_network("firefox_publishes_and_views", || {
        let relay = DevRelay::start(&[])?;
        relay.with_logs(browser(&relay, Browser::Firefox))
    })
}

/// The browser sees its own camera and that of GStreamer, which sees the browser's.
fn browser(relay: &DevRelay, browser: Browser) -> Result<()> {
    let task = Task {
        meeting: "hall",
        publish: true,
        slots: 2,
        policy: "all",
        more: "",
    };
    let mut page = Page::open(browser, relay, &task)?;
    let mut other = Peer::publish(relay, "hall")?;
    let mut viewer = Peer::view(relay, "hall", 2)?;
    let told = page.until("both videos are shown", LIMIT, shows(2))?;
    assert_eq!(told["publish"]["state"], "connected");
    assert_eq!(
        (&told["publish"]["remote"], &told["view"]["remote"]),
        (&"udp".into(), &"udp".into())
    );
    let location = told["publish"]["location"].as_str().unwrap_or_default();
    assert!(
        location.starts_with("/whip/hall/"),
        "a page of another origin may read Location: {told}"
    );
    assert!(told["publish"]["etag"].is_string(), "and ETag: {told}");
    viewer.until_decoded(10, LIMIT)?;
    assert_eq!(
        relay.agreed(GCM)?,
        2,
        "the browser has GCM for both of its legs: {told}"
    );
    assert_eq!(relay.agreed(CM)?, 2, "GStreamer has not");
    other.leave(LIMIT)
}

#[test]
fn chromium_goes_through_a_turn_server() -> Result<()> {
    in_own_network("chromium_goes_through_a_turn_server", || {
        let server = format!("turn:{ADDRESS}:3478?transport=udp,username=guest,credential=of-the-house");
        let relay = DevRelay::start(&["--ice-server", &server])?;
        relay.with_logs(turn(&relay))
    })
}

/// The page hears of the server from the relay alone.
fn turn(relay: &DevRelay) -> Result<()> {
    let (_, log) = relay.log_of("turnserver")?;
    let mut command = Command::new("turnserver");
    command
        .args(["-n", "-L", ADDRESS, "-E", ADDRESS, "-p", "3478", "--lt-cred-mech"])
        .args([
            "--user",
            "guest:of-the-house",
            "--realm",
            "muster",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
        ])
        .args(["--log-file", "stdout", "--userdb"])
        .arg(relay.folder().join("turn.db"))
        .arg("--pidfile")
        .arg(relay.folder().join("turn.pid"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let _turnserver = Running::spawn(&mut command)?;
    // It opens its UDP ports first.
    until("the TURN server listens", LIMIT, || {
        Ok(TcpStream::connect((ADDRESS, 3478)).is_ok())
    })?;
    let task = Task {
        meeting: "hall",
        publish: true,
        slots: 1,
        policy: "relay",
        more: "",
    };
    let mut page = Page::open(Browser::Chromium, relay, &task)?;
    let told = page.until("the video is shown", LIMIT, shows(1))?;
    assert_eq!(
        (&told["publish"]["local"], &told["view"]["local"]),
        (&"relay".into(), &"relay".into())
    );
    Ok(())
}

#[test]
fn chromium_reaches_the_relay_by_tcp_where_udp_is_dropped() -> Result<()> {
    in_own_network("chromium_reaches_the_relay_by_tcp_where_udp_is_dropped", || {
        block_udp()?;
        let relay = DevRelay::start(&["--tcp-listen", &format!("{ADDRESS}:8082")])?;
        relay.with_logs(tcp(&relay))
    })
}

fn tcp(relay: &DevRelay) -> Result<()> {
    let task = Task {
        meeting: "hall",
        publish: true,
        slots: 1,
        policy: "all",
        more: "",
    };
    let mut page = Page::open(Browser::Chromium, relay, &task)?;
    let told = page.until("the video is shown", LIMIT, shows(1))?;
    assert_eq!(
        (&told["publish"]["remote"], &told["view"]["remote"]),
        (&"tcp".into(), &"tcp".into())
    );
    assert!(blocked()? > 0, "UDP was tried first, and dropped");
    assert!(relay.metric("muster_relay_tcp_connections_total")? >= 2);
    Ok(())
}

/// That many videos were decoded and shown, ten pictures each.
fn shows(videos: usize) -> impl Fn(&Value) -> bool {
    move |told| {
        let frames = told["view"]["frames"].as_array().map_or(&[][..], Vec::as_slice);
        frames.len() == videos
            && frames.iter().all(|n| n.as_u64() >= Some(10))
            && told["view"]["decoded"].as_u64() >= Some(10 * videos as u64)
    }
}

//! `muster-bench record`: what a browser's camera sends, packet by packet.
//!
//! This program is the other end of Chromium's connection: it serves the page, answers the offer, gives
//! transport-wide feedback so that the browser's estimate climbs, and decrypts what comes. The recording begins when
//! all layers have come for a while, with a key frame that is asked for.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::args::RecordArgs;
use crate::client::Client;
use crate::join::PWD;
use crate::keys::Certificate;
use crate::rtcp;
use crate::sdp::{self, Local, Offered, Remote};
use crate::stun::Control;
use crate::trace::{Packet, Trace};
use crate::twcc::{Feedback, extension};

const PAGE: &str = include_str!("record.html");
const UFRAG: &str = "recorder";
/// Layers come one after the other as the estimate climbs; this is counted from the last one's first packet.
const STEADY: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(90);
const TICK: Duration = Duration::from_millis(5);

struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start(args: &RecordArgs, page: SocketAddr) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir()?;
        let child = Command::new(&args.chromium)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream=fps=30",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("http://{page}/"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", args.chromium.display()))?;
        Ok(Self {
            child,
            _profile: profile,
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Nothing to do about a child that is gone already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

pub fn run(args: &RecordArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(TICK))?;
    let certificate = Certificate::generate()?;
    let _browser = Browser::start(args, listener.local_addr()?)?;
    let (offered, remote) = meet(&listener, &socket, &certificate)?;
    let packets = Recorder::new(&socket, offered, &remote, &certificate)?
        .record(Duration::from_secs(args.seconds.into()))?;
    Trace::write(&args.to, &packets)?;
    let layers = packets.iter().fold([(0u64, 0u64); 3], |mut layers, packet| {
        let layer = &mut layers[usize::from(packet.layer.min(2))];
        *layer = (layer.0 + 1, layer.1 + u64::from(packet.payload));
        layers
    });
    for (layer, (count, bytes)) in layers.into_iter().enumerate() {
        let kbit = bytes * 8 / 1000 / u64::from(args.seconds);
        eprintln!("layer {layer}: {count} packets, {kbit} kbit/s");
    }
    Ok(())
}

/// Serves the page and answers its offer.
fn meet(
    listener: &TcpListener,
    socket: &UdpSocket,
    certificate: &Certificate,
) -> anyhow::Result<(Offered, Remote)> {
    loop {
        let (stream, _) = listener.accept()?;
        let Some((mut stream, offer)) = request(stream)? else {
            continue;
        };
        let offered = sdp::offered(&offer)?;
        let local = Local {
            ufrag: UFRAG,
            pwd: PWD,
            fingerprint: &certificate.fingerprint,
            candidate: Some(socket.local_addr()?),
        };
        let answer = local.answer(&offered.mid, offered.vp8, "recvonly", &offered.lines());
        respond(&mut stream, "application/sdp", &answer)?;
        // Its candidates may be names that nobody resolves; it finds us.
        let anywhere = "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n";
        return Ok((offered, sdp::read(&format!("{anywhere}{offer}"))?));
    }
}

/// Answers anything but the offer; that it gives.
fn request(stream: TcpStream) -> anyhow::Result<Option<(TcpStream, String)>> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = String::new();
    reader.by_ref().take(length).read_to_string(&mut body)?;
    let mut stream = reader.into_inner();
    if first.starts_with("POST /offer") {
        return Ok(Some((stream, body)));
    }
    respond(&mut stream, "text/html", PAGE)?;
    Ok(None)
}

fn respond(stream: &mut TcpStream, kind: &str, body: &str) -> anyhow::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    Ok(())
}

struct Recorder<'a> {
    socket: &'a UdpSocket,
    browser: Option<SocketAddr>,
    client: Client,
    offered: Offered,
    feedback: Feedback,
    began: Instant,
    /// Layer by SSRC, as the packets say.
    layers: HashMap<u32, u8>,
    /// Key, temporal layer and sync of the frame under way, by SSRC.
    frames: HashMap<u32, (bool, u8, bool)>,
    packets: Vec<Packet>,
}

impl<'a> Recorder<'a> {
    fn new(
        socket: &'a UdpSocket,
        offered: Offered,
        remote: &Remote,
        certificate: &Certificate,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            socket,
            browser: None,
            client: Client::new(now, (UFRAG, PWD), remote, Control::Theirs, certificate)?,
            feedback: Feedback::new(offered.twcc_id, now),
            offered,
            began: now,
            layers: HashMap::new(),
            frames: HashMap::new(),
            packets: Vec::new(),
        })
    }

    fn record(mut self, length: Duration) -> anyhow::Result<Vec<Packet>> {
        let steady = |recorder: &Self| recorder.layers.len() == recorder.offered.rids.len();
        ensure!(self.play(PATIENCE, steady)?, "{} layers came", self.layers.len());
        self.play(STEADY, |_| false)?;
        let ssrcs: Vec<u32> = self.layers.keys().copied().collect();
        let asked = ssrcs.into_iter().flat_map(rtcp::pli).collect::<Vec<u8>>();
        self.send_rtcp(&asked)?;
        self.packets.clear();
        let first_key = |recorder: &Self| {
            let keys = recorder
                .packets
                .iter()
                .filter(|packet| packet.key && packet.marker);
            keys.count() >= recorder.layers.len()
        };
        ensure!(self.play(PATIENCE, first_key)?, "no key frames came");
        self.play(length, |_| false)?;
        let mut packets = self.packets;
        // Each layer begins with its key frame.
        let mut begun = [false; 3];
        packets.retain(|packet| {
            let begun = &mut begun[usize::from(packet.layer.min(2))];
            *begun |= packet.key;
            *begun
        });
        let first = packets.first().map_or(0, |packet| packet.us);
        packets.iter_mut().for_each(|packet| packet.us -= first);
        packets.retain(|packet| u128::from(packet.us) < length.as_micros());
        Ok(packets)
    }

    /// Plays our end until `done`; false if that takes longer than `most`.
    fn play(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> anyhow::Result<bool> {
        let end = Instant::now() + most;
        let mut buffer = [0; 2048];
        while !done(self) {
            let now = Instant::now();
            if now > end {
                return Ok(false);
            }
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    self.browser = Some(from);
                    self.take(Instant::now(), &buffer[..length])?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => bail!(error),
            }
            self.tick(now)?;
        }
        Ok(true)
    }

    fn tick(&mut self, now: Instant) -> anyhow::Result<()> {
        let Some(browser) = self.browser else {
            return Ok(());
        };
        let socket = self.socket;
        self.client
            .handle_timeout(now, |datagram| drop(socket.send_to(datagram, browser)))?;
        let ssrc = self.layers.keys().next().copied().unwrap_or(0);
        for feedback in self.feedback.poll(now, ssrc) {
            self.send_rtcp(&feedback)?;
        }
        Ok(())
    }

    fn send_rtcp(&mut self, plain: &[u8]) -> anyhow::Result<()> {
        if let (Some(srtp), Some(browser)) = (self.client.srtp(), self.browser) {
            self.socket
                .send_to(&srtp.outbound.encrypt_rtcp(plain)?, browser)?;
        }
        Ok(())
    }

    fn take(&mut self, now: Instant, datagram: &[u8]) -> anyhow::Result<()> {
        let (Some([0..=127, _]), Some(browser)) = (datagram.first_chunk::<2>(), self.browser) else {
            return self.take_media(now, datagram);
        };
        let socket = self.socket;
        self.client
            .handle(now, datagram, |datagram| drop(socket.send_to(datagram, browser)))
    }

    fn take_media(&mut self, now: Instant, datagram: &[u8]) -> anyhow::Result<()> {
        let (Some(header), Some(srtp)) = (datagram.first_chunk::<12>(), self.client.srtp()) else {
            return Ok(());
        };
        if (192..=223).contains(&header[1]) {
            return Ok(());
        }
        let us = now.saturating_duration_since(self.began).as_micros() as u64;
        self.feedback.take(us, datagram);
        if header[1] & 0x7f != self.offered.vp8 || header[0] & 0x20 != 0 {
            return Ok(()); // a probe
        }
        let ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        if let Some(rid) = extension(datagram, self.offered.rid_id)
            && let Some(layer) = self.offered.rids.iter().position(|name| name.as_bytes() == rid)
        {
            self.layers.insert(ssrc, layer as u8);
        }
        let Some(&layer) = self.layers.get(&ssrc) else {
            return Ok(());
        };
        let plain = srtp.inbound.decrypt_rtp(datagram)?;
        let payload = payload(&plain).context("a packet without a payload")?;
        if let Some(frame) = frame(payload) {
            self.frames.insert(ssrc, frame);
        }
        if let Some(&(key, temporal, sync)) = self.frames.get(&ssrc) {
            self.packets.push(Packet {
                us,
                layer,
                payload: payload.len() as u16,
                marker: header[1] & 0x80 != 0,
                key,
                temporal,
                sync,
            });
        }
        Ok(())
    }
}

/// Of a plain RTP packet without padding.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let first = packet.first()?;
    let mut at = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let length = packet.get(at + 2..at + 4)?;
        at += 4 + 4 * usize::from(u16::from_be_bytes([length[0], length[1]]));
    }
    packet.get(at..).filter(|payload| !payload.is_empty())
}

/// Key, temporal layer and sync of a frame that begins with this payload (RFC 7741, 4.2); None if none begins.
fn frame(payload: &[u8]) -> Option<(bool, u8, bool)> {
    let first = *payload.first()?;
    if first & 0x1f != 0x10 {
        return None;
    }
    let mut at = 1;
    let (mut temporal, mut sync) = (0, false);
    if first & 0x80 != 0 {
        let extended = *payload.get(1)?;
        at = 2;
        if extended & 0x80 != 0 {
            at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(extended & 0x40 != 0);
        if extended & 0x30 != 0 {
            let layer = *payload.get(at)?;
            (temporal, sync) = (layer >> 6, layer & 0x20 != 0);
            at += 1;
        }
    }
    Some((payload.get(at)? & 1 == 0, temporal, sync))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{Frame, Layer, Part, SourceId};

    #[test]
    fn a_frame_tells_what_it_is_in_its_first_packet() {
        let mut layer = Layer::new(SourceId::new(0, 1), Some("h"));
        let mut payload_of = |frame: Frame, first| {
            layer.begin(frame);
            let packet = layer.packet(Part {
                first,
                last: false,
                payload: 100,
                sent_us: 0,
                transport: Some(1),
            });
            payload(packet).expect("a payload").to_vec()
        };
        let key = Frame {
            key: true,
            sync: true,
            ..Frame::default()
        };
        let upper = Frame {
            temporal: 2,
            ..Frame::default()
        };
        assert_eq!(frame(&payload_of(key, true)), Some((true, 0, true)));
        assert_eq!(frame(&payload_of(upper, true)), Some((false, 2, false)));
        assert_eq!(frame(&payload_of(upper, false)), None);
        assert_eq!(frame(&[0x10, 0]), Some((true, 0, false)), "without an extension");
        assert_eq!((frame(&[0x90, 0xf0, 0x80]), payload(&[0x90; 14])), (None, None));
    }
}

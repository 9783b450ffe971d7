//! Sites and viewers at the ends of links, for `cascade`: a site publishes a camera in two layers and sound, a viewer has a
//! slot for each site. Pictures look like VP8 to a relay; each packet ends with a stamp of whose it is and when it was sent.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_identity::{Authority, Identity};
use muster_link::rtp::{LinkRtp, PT_OPUS, PT_VP8};
use muster_link::{ControlReceiver, EdgeLink, EdgeSender, MediaReceiver};
use muster_proto::media::v1::{
    LinkDown, LinkJoin, LinkLayer, LinkSlot, LinkSource, LinkUp, SetViewRequest, SlotWish, SourceKind,
    SourceRef, link_down, link_up, slot_wish,
};
use tokio::task::JoinHandle;

use crate::cascade::Signer;
use crate::relay::{MEETING, token};

const SMALL: u64 = 1000;
const LARGE: u64 = 1001;
const SOUND: u64 = 7;
/// Payload of a packet of pictures, bytes.
const PAYLOAD: usize = 1000;
/// Packets of a picture and pictures a second, of the small layer (about 120 kbit/s) and the large (about 1 Mbit/s).
const SHAPES: [(u16, u64); 2] = [(1, 15), (5, 25)];
/// Sites that speak; the others are silent.
const SPEAKERS: usize = 6;
const STAMP: usize = 16;
const MAGIC: u16 = 0xca5c;

/// The time of a measurement.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// One packet of one layer of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketId {
    pub site: u8,
    pub large: bool,
    pub index: u32,
    pub sent_us: u64,
}

impl PacketId {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.push(self.site);
        out.push(self.large.into());
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&self.sent_us.to_be_bytes());
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let (_, stamp) = payload.split_last_chunk::<STAMP>()?;
        let [m0, m1, site, large, i0, i1, i2, i3, sent @ ..] = *stamp;
        (u16::from_be_bytes([m0, m1]) == MAGIC).then(|| Self {
            site,
            large: large != 0,
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            sent_us: u64::from_be_bytes(sent),
        })
    }
}

/// What the relay asks of the two layers of a camera.
#[derive(Default)]
struct Asked {
    paused: [AtomicBool; 2],
    key_frame: [AtomicBool; 2],
}

/// A site that publishes until it is dropped.
pub struct Site(Vec<JoinHandle<()>>);

impl Drop for Site {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Site {
    pub async fn start(
        relay: &str,
        authority: &Authority,
        signer: &Signer,
        name: &str,
        number: usize,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let layer = |flow, width, height| LinkLayer {
            flow,
            width,
            height,
            max_bps: 0,
        };
        let camera = LinkSource {
            kind: SourceKind::Camera.into(),
            codec: "VP8".to_owned(),
            layers: vec![layer(SMALL, 320, 180), layer(LARGE, 1280, 720)],
        };
        let sound = LinkSource {
            kind: SourceKind::Audio.into(),
            codec: "opus".to_owned(),
            layers: vec![layer(SOUND, 0, 0)],
        };
        let link = join(relay, authority, signer, name, vec![camera, sound], Vec::new()).await?;
        let asked = Arc::new(Asked::default());
        let number = u8::try_from(number)?;
        let mut tasks = vec![tokio::spawn(obey(link.control, asked.clone()))];
        for large in [false, true] {
            let film = film(link.sender.clone(), asked.clone(), number, large, clock);
            tasks.push(tokio::spawn(film));
        }
        let level = if usize::from(number) < SPEAKERS {
            20 + 2 * number
        } else {
            127
        };
        tasks.push(tokio::spawn(speak(link.sender, level)));
        Ok(Self(tasks))
    }
}

async fn join(
    relay: &str,
    authority: &Authority,
    signer: &Signer,
    name: &str,
    sources: Vec<LinkSource>,
    slots: Vec<LinkSlot>,
) -> anyhow::Result<EdgeLink> {
    let credentials = authority.credentials(Identity::Agent(name.to_owned()))?;
    let mut link = EdgeLink::connect(relay, &credentials).await?;
    let join = LinkJoin {
        token: token(signer, MEETING, name, true)?,
        sources,
        slots,
    };
    send(&link.sender, link_up::Message::Join(join)).await?;
    match link.control.recv().await?.message.context("an empty message")? {
        link_down::Message::Joined(_) => Ok(link),
        other => bail!("{name} is not let in: {other:?}"),
    }
}

async fn send(sender: &EdgeSender, message: link_up::Message) -> anyhow::Result<()> {
    let message = Some(message);
    Ok(sender.send_control(&LinkUp { message }).await?)
}

async fn obey(mut control: ControlReceiver<LinkDown>, asked: Arc<Asked>) {
    let layer = |flow: u64| {
        usize::try_from(flow.wrapping_sub(SMALL))
            .ok()
            .filter(|layer| *layer < 2)
    };
    while let Ok(LinkDown { message }) = control.recv().await {
        match message {
            Some(link_down::Message::LayerPause(pause)) => {
                if let Some(layer) = layer(pause.flow) {
                    asked.paused[layer].store(pause.paused, Ordering::Relaxed);
                }
            }
            Some(link_down::Message::KeyFrame(request)) => {
                if let Some(layer) = layer(request.flow) {
                    asked.key_frame[layer].store(true, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

/// One packet of a picture: descriptor with a 15-bit picture id (RFC 7741), in the first one the head of a frame
/// (RFC 6386, 9.1), then filling and the stamp.
fn packet(id: PacketId, picture: u16, first: bool, key: bool) -> Vec<u8> {
    let [high, low] = (picture & 0x7fff).to_be_bytes();
    let mut payload = vec![if first { 0x90 } else { 0x80 }, 0x80, 0x80 | high, low];
    let (width, height): (u16, u16) = if id.large { (1280, 720) } else { (320, 180) };
    if first && key {
        payload.extend_from_slice(&[0x10, 0, 0, 0x9d, 0x01, 0x2a]);
        payload.extend_from_slice(&width.to_le_bytes());
        payload.extend_from_slice(&height.to_le_bytes());
    } else if first {
        payload.extend_from_slice(&[0x11, 0, 0]);
    }
    payload.resize(PAYLOAD - STAMP, 0);
    id.write(&mut payload);
    payload
}

async fn film(sender: EdgeSender, asked: Arc<Asked>, site: u8, large: bool, clock: Clock) {
    let layer = usize::from(large);
    let (packets, rate) = SHAPES[layer];
    // Not all sites at once.
    tokio::time::sleep(Duration::from_millis(u64::from(site) * 7 % 60)).await;
    let mut turn = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut index, mut picture, mut key) = (0u32, 0u16, true);
    loop {
        turn.tick().await;
        if asked.paused[layer].load(Ordering::Relaxed) {
            key = true;
            continue;
        }
        key |= asked.key_frame[layer].swap(false, Ordering::Relaxed);
        for n in 0..packets {
            let id = PacketId {
                site,
                large,
                index,
                sent_us: clock.now_us(),
            };
            let payload = packet(id, picture, n == 0, key);
            let rtp = LinkRtp {
                payload_type: PT_VP8,
                marker: n + 1 == packets,
                seq: index as u16, // wraps, as sequence numbers do
                timestamp: (clock.now_us() * 9 / 100) as u32,
                audio_level: None,
                payload: &payload,
            };
            if sender.send_rtp(SMALL + layer as u64, &rtp).is_err() {
                return;
            }
            index = index.wrapping_add(1);
        }
        picture = picture.wrapping_add(1);
        key = false;
    }
}

async fn speak(sender: EdgeSender, level: u8) {
    let mut turn = tokio::time::interval(Duration::from_millis(20));
    for seq in 0u32.. {
        turn.tick().await;
        let rtp = LinkRtp {
            payload_type: PT_OPUS,
            marker: seq == 0,
            seq: seq as u16, // wraps
            timestamp: seq.wrapping_mul(960),
            audio_level: Some(level),
            payload: &[7; 80],
        };
        if sender.send_rtp(SOUND, &rtp).is_err() {
            return;
        }
    }
}

/// What a viewer recorded.
#[derive(Default)]
pub struct Seen {
    pub arrivals: Vec<(PacketId, u64)>,
}

#[derive(Default)]
struct Notes {
    sites: Mutex<HashSet<u8>>,
    records: AtomicBool,
    seen: Mutex<Seen>,
}

/// A viewer of all sites: the first one large, the others small.
pub struct Viewer {
    notes: Arc<Notes>,
    tasks: [JoinHandle<()>; 2],
    _sender: EdgeSender,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Viewer {
    pub async fn start(
        relay: &str,
        authority: &Authority,
        signer: &Signer,
        name: &str,
        sites: &[String],
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let slot = |slot: String, audio: bool| LinkSlot {
            slot,
            audio,
            codecs: vec![if audio { "opus" } else { "VP8" }.to_owned()],
        };
        let pictures = (0..sites.len()).map(|n| slot(format!("v{n}"), false));
        let slots = pictures.chain((0..3).map(|n| slot(format!("a{n}"), true)));
        let link = join(relay, authority, signer, name, Vec::new(), slots.collect()).await?;
        let wishes = sites.iter().enumerate().map(|(n, site)| {
            let (max_width, max_height) = if n == 0 { (1280, 720) } else { (320, 180) };
            SlotWish {
                slot: format!("v{n}"),
                what: Some(slot_wish::What::Source(SourceRef {
                    site: site.clone(),
                    kind: SourceKind::Camera.into(),
                })),
                max_width,
                max_height,
            }
        });
        let view = SetViewRequest {
            wishes: wishes.collect(),
        };
        send(&link.sender, link_up::Message::SetView(view)).await?;
        let notes = Arc::new(Notes::default());
        let tasks = [
            tokio::spawn(look(link.media, notes.clone(), clock)),
            // What the relay tells is read, or it would close the link.
            tokio::spawn(obey(link.control, Arc::default())),
        ];
        Ok(Self {
            notes,
            tasks,
            _sender: link.sender,
        })
    }

    /// Sites of which pictures have come.
    pub fn sites(&self) -> usize {
        lock(&self.notes.sites).len()
    }

    /// Records arrivals from now on, or no more.
    pub fn record(&self, records: bool) {
        self.notes.records.store(records, Ordering::Relaxed);
    }

    /// What was recorded.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut lock(&self.notes.seen))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look(mut media: MediaReceiver, notes: Arc<Notes>, clock: Clock) {
    while let Ok((_, bytes)) = media.recv().await {
        let at = clock.now_us();
        let Some(id) = PacketId::read(&bytes) else {
            continue;
        };
        if notes.records.load(Ordering::Relaxed) {
            lock(&notes.seen).arrivals.push((id, at));
        } else {
            lock(&notes.sites).insert(id.site);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_says_whose_it_is_and_fits_a_link() {
        let id = PacketId {
            site: 29,
            large: true,
            index: 77,
            sent_us: 123_456_789,
        };
        for (first, key) in [(true, true), (true, false), (false, true)] {
            let payload = packet(id, 0xffff, first, key);
            assert_eq!(payload.len(), PAYLOAD);
            assert_eq!(PacketId::read(&payload), Some(id));
        }
        assert_eq!(PacketId::read(&[0; STAMP]), None);
        assert_eq!(PacketId::read(b"short"), None);
    }
}

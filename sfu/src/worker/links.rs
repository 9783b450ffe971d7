//! Links on a worker: each is a task of the worker's own thread, and its datagrams enter the packet path there.
//!
//! A link carries one leg at a time; the connection may outlive it. The task takes the leg out when the link is gone.
//! The link of another relay goes to `cascade`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Weak;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use muster_forward::{Codec, LayerSpec, LegId, SourceKind};
use muster_identity::Identity;
use muster_link::framing::MAX_FLOW;
use muster_link::{Arriving, LinkError, LinkServer, MediaReceiver, RelayLink, RelaySender, TunnelStats};
use muster_proto::media::v1::link_up::Message as Up;
use muster_proto::media::v1::{LinkDown, LinkJoin, LinkJoined, LinkRefused, LinkUp, Rung, link_down};

use crate::admission::token_used;
use crate::convert;
use crate::refusal::Refusal;
use crate::watch::Watch;

use super::cascade;
use super::legs::{Joining, JoiningSlot};
use super::path::slot_flow;
use super::state::{LinkCounts, LinkWire, UpFlow, Wire, Worker};

const MAX_SOURCES: usize = 8;
const MAX_LAYERS: usize = 8;
const MAX_SLOTS: usize = 64;
/// Links of a worker, and of one peer there: a peer has a second one while it changes its network.
const MAX_LINKS: usize = 4096;
const MAX_LINKS_OF_PEER: usize = 8;
const TUNNELS_EVERY: Duration = Duration::from_secs(1);
/// Datagrams taken in one turn.
const MAX_BATCH: usize = 64;

type Shared = Rc<RefCell<Worker>>;

/// Takes links until the server is closed.
pub(crate) async fn accept(worker: Shared, server: Rc<LinkServer>) {
    while let Some(arriving) = server.accept().await {
        tokio::task::spawn_local(serve(worker.clone(), arriving));
    }
}

/// Tells once a second how many links come over TCP, and what was dropped of them, for as long as the server lives.
pub(crate) async fn count_tunnels(worker: Shared, server: std::rc::Weak<LinkServer>) {
    let (open, dropped) = {
        let worker = worker.borrow();
        let metrics = &worker.shared.metrics;
        (
            metrics.link_tunnels(worker.index),
            metrics.dropped("link_tcp_full"),
        )
    };
    let mut known = TunnelStats::default();
    let mut every = tokio::time::interval(TUNNELS_EVERY);
    loop {
        every.tick().await;
        let Some(server) = server.upgrade() else { return };
        let stats = server.tunnel_stats();
        open.set(stats.open as f64);
        dropped.increment(stats.dropped - known.dropped);
        let refused = stats.refused - known.refused;
        (0..refused).for_each(|_| worker.borrow().shared.metrics.refused("link_tcp"));
        known = stats;
    }
}

async fn serve(worker: Shared, arriving: Arriving) {
    let link = match arriving.finish().await {
        Ok(link) => link,
        Err(error) => {
            worker.borrow().shared.metrics.refused("link_handshake");
            tracing::debug!(%error, "link refused");
            return;
        }
    };
    let peer = link.peer.to_string();
    if let Err(refusal) = worker.borrow_mut().links.enter(&peer) {
        worker.borrow().shared.metrics.refused(refusal.code);
        tracing::warn!(%peer, "link refused: {refusal}");
        link.sender.close(refusal.code);
        return;
    }
    if let Identity::Relay(name) = &link.peer {
        let name = name.clone();
        cascade::serve_below(&worker, &name, link).await;
        worker.borrow_mut().links.leave(&peer);
        return;
    }
    let mut leg = None;
    let reason = run(&worker, link, &mut leg).await;
    let mut worker = worker.borrow_mut();
    worker.links.leave(&peer);
    if let Some(id) = leg {
        worker.remove(id, reason);
        worker.flush(Instant::now());
    }
}

/// The connected links of a worker, counted by peer. A link may have no leg: it stays warm between two meetings.
#[derive(Debug, Default)]
pub(crate) struct LinkTable {
    of_peer: HashMap<String, usize>,
    all: usize,
}

impl LinkTable {
    pub fn len(&self) -> usize {
        self.all
    }

    fn enter(&mut self, peer: &str) -> Result<(), Refusal> {
        let of_peer = self.of_peer.get(peer).copied().unwrap_or(0);
        if self.all >= MAX_LINKS {
            return Err(Refusal::new(
                503,
                "links_full",
                "the worker has as many links as it may",
            ));
        }
        if of_peer >= MAX_LINKS_OF_PEER {
            return Err(Refusal::new(
                503,
                "links_of_peer",
                "the peer has as many links as it may",
            ));
        }
        self.of_peer.insert(peer.to_owned(), of_peer + 1);
        self.all += 1;
        Ok(())
    }

    fn leave(&mut self, peer: &str) {
        if let Some(of_peer) = self.of_peer.get_mut(peer) {
            self.all -= 1;
            *of_peer -= 1;
            if *of_peer == 0 {
                self.of_peer.remove(peer);
            }
        }
    }
}

/// Serves a link until it is gone; says why, as in `LegReport.reason`.
async fn run(worker: &Shared, mut link: RelayLink, leg: &mut Option<LegId>) -> &'static str {
    loop {
        tokio::select! {
            message = link.control.recv() => match message {
                Ok(message) => take_message(worker, &link.peer, &link.sender, leg, message).await,
                Err(LinkError::ControlEnded) => {
                    return reason_of(&link.sender.closed().now_or_never());
                }
                Err(error) => {
                    tracing::info!(%error, peer = %link.peer, "link closed");
                    link.sender.close("bad control stream");
                    return "bad control stream";
                }
            },
            datagram = link.media.recv() => match datagram {
                Ok(datagram) => take_media(worker, leg, datagram, &mut link.media),
                Err(error) => return reason_of(&Some(error)),
            },
        }
    }
}

/// A link that its edge closed has left (an agent that stops); any other end is a loss. Only a leave says that the site
/// hung up.
fn reason_of(error: &Option<LinkError>) -> &'static str {
    match error {
        Some(error) if error.is_hung_up() => "left",
        _ => "timed out",
    }
}

/// What has arrived so far, in one batch.
fn take_media(worker: &Shared, leg: &Option<LegId>, first: (u64, bytes::Bytes), media: &mut MediaReceiver) {
    let now = Instant::now();
    let mut worker = worker.borrow_mut();
    let mut next = Some(first);
    let mut taken = 0;
    while let Some((flow, bytes)) = next {
        match leg {
            Some(id) => worker.take_link_datagram(now, *id, flow, &bytes),
            None => worker.drops.unknown_flow.increment(1),
        }
        taken += 1;
        next = if taken < MAX_BATCH {
            media.recv().now_or_never().and_then(Result::ok)
        } else {
            None
        };
    }
    worker.flush(now);
}

async fn take_message(
    worker: &Shared,
    peer: &Identity,
    sender: &RelaySender,
    leg: &mut Option<LegId>,
    message: LinkUp,
) {
    // The leg may have been taken out meanwhile (the meeting ended).
    *leg = leg.filter(|id| worker.borrow().legs.contains(id));
    match message.message {
        Some(Up::Join(join)) => {
            if let Some(old) = leg.take() {
                worker.borrow_mut().remove(old, "replaced");
            }
            match take_join(worker, peer, sender, join).await {
                Ok(id) => *leg = Some(id),
                Err(refusal) => refuse(worker, sender, &refusal),
            }
        }
        Some(Up::Leave(_)) => {
            if let Some(id) = leg.take() {
                worker.borrow_mut().close(id, "hung up");
            }
        }
        Some(Up::SetView(view)) => {
            let result = leg.ok_or_else(Refusal::no_such_leg);
            let result = result.and_then(|id| worker.borrow_mut().set_view(id, &view.wishes));
            if let Err(refusal) = result {
                refuse(worker, sender, &refusal);
            }
        }
        Some(Up::KeyFrame(request)) => {
            if let Some(id) = leg {
                worker.borrow_mut().key_frame_of_flow(*id, request.flow);
            }
        }
        Some(Up::Sends(sends)) => {
            if let Some(id) = leg {
                worker.borrow_mut().sends(*id, sends.rung());
            }
        }
        Some(Up::Ping(ping)) => tell(sender, link_down::Message::Pong(ping)),
        // Relays alone speak so, and their links are not served here.
        Some(Up::Hello(_) | Up::Relay(_)) | None => {}
    }
}

fn tell(sender: &RelaySender, message: link_down::Message) {
    if sender
        .try_send_control(&LinkDown {
            message: Some(message),
        })
        .is_err()
        && !sender.is_closed()
    {
        sender.close("control stream is not read");
    }
}

fn refuse(worker: &Shared, sender: &RelaySender, refusal: &Refusal) {
    worker.borrow().shared.metrics.refused(refusal.code);
    tell(
        sender,
        link_down::Message::Refused(LinkRefused {
            code: refusal.code.to_owned(),
            detail: refusal.message.to_string(),
        }),
    );
}

async fn take_join(
    worker: &Shared,
    peer: &Identity,
    sender: &RelaySender,
    join: LinkJoin,
) -> Result<LegId, Refusal> {
    let shared = worker.borrow().shared.clone();
    let (claims, place) = shared.admission.admit(&join.token)?;
    if *peer != Identity::Agent(claims.site.clone()) {
        let message = format!(
            "the token is for {}, the link's certificate for {peer}",
            claims.site
        );
        return Err(Refusal::new(403, "token_invalid", message));
    }
    let mut place = place.lock().await;
    if place.is_some() {
        return Err(token_used());
    }
    let (sources, flows) = read_sources(&join)?;
    let slots = read_slots(&join)?;
    let slot_flows = (0..slots.len()).map(slot_flow).collect();
    let wire = LinkWire {
        sender: sender.clone(),
        flows,
        counts: LinkCounts::default(),
        rung: Rung::Unspecified,
        rung_told: Rung::Unspecified,
        by_tcp: false,
    };
    let joining = Joining {
        claims,
        secret: String::new(),
        sources,
        slots,
        wire: Wire::Link(wire),
    };
    let (id, watch) = {
        let mut worker = worker.borrow_mut();
        let (id, name) = worker.open(joining)?;
        tell(
            sender,
            link_down::Message::Joined(LinkJoined {
                leg: name.to_string(),
                slot_flows,
            }),
        );
        let watch = worker.watch(id);
        worker.flush(Instant::now());
        (id, watch)
    };
    if let Some(watch) = watch {
        tokio::task::spawn_local(tell_events(watch, sender.clone()));
    }
    *place = Some(Weak::new());
    Ok(id)
}

/// Tells the edge what a browser would read from WatchLeg.
async fn tell_events(mut watch: Watch, sender: RelaySender) {
    while let Some(event) = watch.next().await {
        let message = LinkDown {
            message: Some(link_down::Message::Event(event)),
        };
        if sender.send_control(&message).await.is_err() {
            return;
        }
    }
}

type Sources = Vec<(SourceKind, Codec, Vec<LayerSpec>)>;

fn read_sources(join: &LinkJoin) -> Result<(Sources, Vec<UpFlow>), Refusal> {
    let bad = |what: String| Err(Refusal::bad_request(what));
    if join.sources.len() > MAX_SOURCES {
        return bad(format!(
            "sources: {} of them, expected at most {MAX_SOURCES}",
            join.sources.len()
        ));
    }
    let mut sources: Sources = Vec::new();
    let mut flows: Vec<UpFlow> = Vec::new();
    for (index, source) in join.sources.iter().enumerate() {
        let Some(kind) = convert::kind_of_wire(source.kind).filter(|k| sources.iter().all(|s| s.0 != *k))
        else {
            return bad(format!(
                "sources[{index}].kind: expected CAMERA, CONTENT or AUDIO, each once"
            ));
        };
        let codec = convert::codec_of_name(&source.codec);
        let Some(codec) = codec.filter(|codec| (*codec == Codec::Opus) == (kind == SourceKind::Audio)) else {
            return bad(format!(
                "sources[{index}].codec: expected VP8, VP9, H264 or AV1 for pictures, opus for sound"
            ));
        };
        if source.layers.is_empty() || source.layers.len() > MAX_LAYERS {
            return bad(format!("sources[{index}].layers: expected 1 to {MAX_LAYERS}"));
        }
        let mut layers = Vec::new();
        for (layer, told) in source.layers.iter().enumerate() {
            if told.flow > MAX_FLOW || flows.iter().any(|up| up.flow == told.flow) {
                return bad(format!(
                    "sources[{index}].layers[{layer}].flow: expected a flow id of its own"
                ));
            }
            let pixels = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
            layers.push(LayerSpec {
                width: pixels(told.width),
                height: pixels(told.height),
                max_bps: told.max_bps,
            });
            let payload_type = convert::link_payload_type(codec);
            flows.push(UpFlow {
                flow: told.flow,
                source: index,
                layer,
                payload_type,
                last_seq: None,
            });
        }
        sources.push((kind, codec, layers));
    }
    Ok((sources, flows))
}

fn read_slots(join: &LinkJoin) -> Result<Vec<JoiningSlot>, Refusal> {
    if join.slots.len() > MAX_SLOTS {
        return Err(Refusal::bad_request(format!(
            "slots: {} of them, expected at most {MAX_SLOTS}",
            join.slots.len()
        )));
    }
    let mut slots: Vec<JoiningSlot> = Vec::new();
    for (index, slot) in join.slots.iter().enumerate() {
        if slot.slot.is_empty() || slot.slot.len() > 64 || slots.iter().any(|other| other.name == slot.slot) {
            let message = format!("slots[{index}].slot: expected a name of its own, 1 to 64 bytes");
            return Err(Refusal::bad_request(message));
        }
        let codecs: Vec<Codec> = slot
            .codecs
            .iter()
            .filter_map(|name| convert::codec_of_name(name))
            .collect();
        if codecs.is_empty() {
            return Err(Refusal::bad_request(format!(
                "slots[{index}].codecs: expected VP8, VP9, H264, AV1 or opus"
            )));
        }
        slots.push(JoiningSlot {
            name: slot.slot.clone(),
            audio: slot.audio,
            codecs,
            // There is no place for them in what is spoken on a link.
            descriptors: false,
        });
    }
    Ok(slots)
}

impl Worker {
    /// The edge says how much of its camera and microphone it sends.
    fn sends(&mut self, id: LegId, rung: Rung) {
        if let Some(leg) = self.legs.get_mut(&id)
            && let Wire::Link(wire) = &mut leg.wire
        {
            wire.rung = rung;
        }
    }

    /// The edge needs a key frame in a slot.
    fn key_frame_of_flow(&mut self, id: LegId, flow: u64) {
        let now = Instant::now();
        let Some(leg) = self.legs.get(&id) else { return };
        let index = usize::try_from(flow).ok().and_then(|flow| flow.checked_sub(1));
        let Some(slot) = index.and_then(|index| leg.slots.get(index)).map(|slot| slot.id) else {
            return;
        };
        let key = leg.meeting;
        let at = self.shared.micros(now);
        if let Some(meeting) = self.meetings.get_mut(&key) {
            meeting.core.request_key_frame(at, slot);
        }
        self.drain_core(now, key);
        self.flush(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_bounded_number_of_links_and_gives_them_back() {
        let mut links = LinkTable::default();
        for _ in 0..MAX_LINKS_OF_PEER {
            links.enter("a").expect("room");
        }
        let code = |refused: Result<(), Refusal>| refused.expect_err("refused").code;
        assert_eq!(code(links.enter("a")), "links_of_peer");
        for n in links.len()..MAX_LINKS {
            links.enter(&format!("peer-{n}")).expect("room");
        }
        assert_eq!(code(links.enter("b")), "links_full");
        links.leave("a");
        links.leave("a stranger");
        links.enter("a").expect("room again");
        for _ in 0..MAX_LINKS_OF_PEER {
            links.leave("a");
        }
        for n in MAX_LINKS_OF_PEER..MAX_LINKS {
            links.leave(&format!("peer-{n}"));
        }
        assert_eq!((links.len(), links.of_peer.len()), (0, 0));
    }
}

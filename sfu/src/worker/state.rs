//! What a worker holds: its legs, the meetings they are in, and where each source and slot is.
//!
//! One thread owns all of it. Invariants: a key in `sources`, `by_address` or `by_ufrag` is of a leg in `legs` (or,
//! for sources, of another worker or relay while we have the meeting); a meeting is here exactly while a leg of it is, or
//! a relay at the other end of a link of ours has a part in it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use metrics::{Counter, Gauge};
use muster_forward::quality::Meter;
use muster_forward::{
    Codec, Forwarded, LayerSpec, LegId, Meeting, Micros, Replayed, SlotId, SourceId, SourceKind, Wish,
};
use muster_link::RelaySender;
use muster_proto::command::v1::{LegState, StageDocument};
use muster_proto::media::v1::{MeetingNotice, Rung, Speakers};
use muster_webrtc::{Certificate, Leg, PacketStore, SendBatch};

use tokio::sync::Notify;

use crate::admission::Admission;
use crate::cascade::Cascade;
use crate::directory::{Directory, Signal};
use crate::metrics::{Metrics, TABLES};
use crate::readiness::Readiness;
use crate::ring::Ring;
use crate::watch::Post;

use super::backlog::Backlog;
use super::copies::Copies;
use super::handshakes::Handshakes;
use super::legs::Size;
use super::links::LinkTable;
use super::load::Load;
use super::neighbours::Neighbour;
use super::socket::{Batch, MediaSocket};
use super::table::Legs;

/// What all workers share.
pub(crate) struct Shared {
    pub directory: Directory,
    pub admission: Admission,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub cascade: Cascade,
    pub certificate: Arc<Certificate>,
    pub signals: Vec<Arc<Signal>>,
    /// `rings[from][to]`.
    pub rings: Vec<Vec<Ring>>,
    /// Zero of the cores' time.
    pub epoch: Instant,
}

impl Shared {
    pub fn micros(&self, now: Instant) -> Micros {
        Micros(now.saturating_duration_since(self.epoch).as_micros() as u64)
    }
}

/// Hashes our own ids: one multiplication. They come from a counter of ours, so nobody can choose them to collide.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0.rotate_left(5) ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// A meeting on this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MeetingKey(pub u64);

pub(crate) struct LocalMeeting {
    pub name: Arc<str>,
    pub core: Meeting,
    pub legs: Vec<LegId>,
    /// Sources of other workers.
    pub remote: Vec<SourceId>,
    pub stage: Option<Arc<StageDocument>>,
    pub speakers: Speakers,
    /// The meeting has ended, or is elsewhere: its legs go at this time, for this reason.
    pub close_at: Option<(Instant, &'static str)>,
}

/// Where a source is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// By a leg of this worker; index into its sources.
    Here {
        leg: LegId,
        index: usize,
    },
    Worker(usize),
    /// It comes by a link of this worker from another relay; index of the neighbour.
    Neighbour(usize),
}

impl Home {
    /// Its packets reach this worker first.
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::Worker(_))
    }
}

pub(crate) struct SourcePlace {
    pub meeting: MeetingKey,
    pub home: Home,
    pub site: Arc<str>,
    /// The relay that has its leg.
    pub relay: Arc<str>,
    pub kind: SourceKind,
    pub codec: Codec,
    pub layers: Vec<LayerPlace>,
    /// Of the layers, as the publisher told them.
    pub sizes: Vec<LayerSpec>,
}

/// Who wants a layer, and what was done about it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LayerPlace {
    pub wanted_here: bool,
    /// Bit set of the other workers that want it.
    pub wanted_by: u64,
    /// Bit set of the neighbours that want it.
    pub wanted_by_relays: u64,
    /// What the worker or the relay that it comes from was told.
    pub asked: bool,
    /// When a key frame was last asked for by a neighbour.
    pub asked_at: Option<Instant>,
    /// Its id on the link to the neighbour that it comes from.
    pub flow: u64,
    /// Bit set of the workers whose ring was full: nothing more for them until a key frame.
    pub cut_for: u64,
    pub live: bool,
    pub paused: bool,
}

impl LayerPlace {
    pub fn is_wanted(&self) -> bool {
        self.wanted_here || self.wanted_by != 0 || self.wanted_by_relays != 0
    }
}

pub(crate) struct SlotEntry {
    pub id: SlotId,
    /// The mid, or the name in a link's join.
    pub name: String,
    pub audio: bool,
    /// A link's: payload bytes sent into it since the last second began. A browser's leg counts its own.
    pub bytes: u64,
    pub bitrate_bps: u32,
}

pub(crate) struct LegEntry {
    pub id: LegId,
    pub name: Arc<str>,
    pub meeting: MeetingKey,
    pub site: Arc<str>,
    /// Which pictures it may ask for, as its token says.
    pub view: muster_identity::View,
    pub wire: Wire,
    /// In the order of the offer; empty where the leg may not publish. One that its token does not grant is in no table.
    pub sources: Vec<SourceId>,
    pub slots: Vec<SlotEntry>,
    pub state: LegState,
    /// When media last came, or began to be expected.
    pub media_at: Instant,
    pub notice: MeetingNotice,
    pub posts: Vec<Post>,
    /// How it fares.
    pub meter: Meter,
    /// A browser's view that came before its keys were agreed: a key frame sent now would be lost.
    pub waiting_view: Option<Vec<Wish>>,
    /// Its video slots show the publishers in the order they came, in boxes of this size (development mode).
    pub follows: Option<Size>,
    /// In the worker's list of legs with something to send.
    pub dirty: bool,
    /// When it must be looked at again, at the latest.
    pub turn_at: Option<Instant>,
}

pub(crate) enum Wire {
    WebRtc(Box<WebRtcWire>),
    Link(LinkWire),
}

pub(crate) struct WebRtcWire {
    pub leg: Leg,
    pub addresses: Vec<SocketAddr>,
    pub ufrags: Vec<String>,
    /// Datagrams of its that wait in [`Handshakes`].
    pub handshakes: usize,
    /// Of the datagrams and of the media that the leg's full queues dropped, those that were counted.
    pub drops_counted: (u64, u64),
}

pub(crate) struct LinkWire {
    pub sender: RelaySender,
    /// How much of its camera and microphone the edge says that it sends, and what was told of that.
    pub rung: Rung,
    pub rung_told: Rung,
    /// It came over TCP when that was last told.
    pub by_tcp: bool,
    pub flows: Vec<UpFlow>,
    pub counts: LinkCounts,
}

/// One layer that the edge publishes.
#[derive(Debug)]
pub(crate) struct UpFlow {
    pub flow: u64,
    /// Index into the leg's sources.
    pub source: usize,
    pub layer: usize,
    pub payload_type: u8,
    pub last_seq: Option<u16>,
}

/// Since the last second began.
#[derive(Debug, Default)]
pub(crate) struct LinkCounts {
    pub received: u64,
    pub expected: u64,
    pub up_bytes: u64,
    pub down_bytes: u64,
    /// Totals at the last look.
    pub lost: u64,
    pub sent: u64,
}

/// Drops on the packet path, by reason; the handles are made once.
pub(crate) struct Drops {
    pub unknown_address: Counter,
    pub unknown_flow: Counter,
    pub not_sent: Counter,
    /// RTCP and STUN of a leg whose queue was full.
    pub leg_full: Counter,
    /// Packets for slots of a leg whose queue was full, or that waited in it for too long.
    pub leg_behind: Counter,
    pub handshakes_full: Counter,
    /// A newcomer's picture, whose packets the store no longer had.
    pub replay_gone: Counter,
    pub link_full: Counter,
    pub link_too_large: Counter,
    pub link_malformed: Counter,
    /// A meeting or source of another relay that is not as it must be, or one too many.
    pub relay_refused: Counter,
    pub ignored: HashMap<&'static str, Counter>,
}

pub(crate) struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub socket: std::rc::Rc<MediaSocket>,
    /// The media port as browsers reach it.
    pub candidate: SocketAddr,
    /// The relay's TCP port for media, likewise.
    pub tcp_candidate: Option<SocketAddr>,
    pub legs: Legs,
    pub meetings: IdMap<MeetingKey, LocalMeeting>,
    pub meeting_keys: HashMap<Arc<str>, MeetingKey>,
    pub sources: IdMap<SourceId, SourcePlace>,
    pub by_address: HashMap<SocketAddr, LegId>,
    pub by_ufrag: HashMap<String, LegId>,
    pub batch: Batch,
    /// The payloads of all packets that were received lately, from wherever they came.
    pub store: PacketStore,
    /// What one leg sends; all of them use it in turn.
    pub send_batch: SendBatch,
    pub forwarded: Vec<Forwarded>,
    pub replays: Vec<Replayed>,
    pub copies: Copies,
    pub scratch: BytesMut,
    /// Legs with something to send, by index.
    pub dirty: Vec<usize>,
    pub backlog: Backlog,
    /// When the main loop looks at the backlog next, if not roused.
    pub sleeps_until: Option<Instant>,
    /// Rouses the main loop: links and TCP connections are other tasks.
    pub rouse: std::rc::Rc<Notify>,
    pub handshakes: Handshakes,
    /// Bit set of workers that something was pushed for.
    pub to_wake: u64,
    /// Wishes that found a ring full; told again at the next tick.
    pub untold_wishes: Vec<(SourceId, usize)>,
    pub drops: Drops,
    pub load: Load,
    /// Connected links, those between two meetings too.
    pub links: LinkTable,
    /// The relays at the other ends of links of this worker; a place is used again.
    pub neighbours: Vec<Option<Neighbour>>,
    /// Of the tables above, as [`TABLES`] names them.
    pub table_gauges: [Gauge; TABLES.len()],
    pub next_look: Instant,
    pub next_second: Instant,
}

impl Worker {
    pub fn new(index: usize, shared: Arc<Shared>, socket: MediaSocket, candidate: SocketAddr) -> Self {
        let now = Instant::now();
        let drops = Drops {
            unknown_address: shared.metrics.dropped("unknown_address"),
            unknown_flow: shared.metrics.dropped("unknown_flow"),
            not_sent: shared.metrics.dropped("not_sent"),
            leg_full: shared.metrics.dropped("leg_full"),
            leg_behind: shared.metrics.dropped("leg_behind"),
            replay_gone: shared.metrics.dropped("replay_gone"),
            handshakes_full: shared.metrics.dropped("handshakes_full"),
            link_full: shared.metrics.dropped("link_full"),
            link_too_large: shared.metrics.dropped("link_too_large"),
            link_malformed: shared.metrics.dropped("link_malformed"),
            relay_refused: shared.metrics.dropped("relay_refused"),
            ignored: HashMap::new(),
        };
        let load = Load::new(&shared.metrics, index);
        let table_gauges = shared.metrics.tables(index);
        Self {
            index,
            shared,
            socket: std::rc::Rc::new(socket),
            candidate,
            tcp_candidate: None,
            legs: Legs::default(),
            meetings: IdMap::default(),
            meeting_keys: HashMap::new(),
            sources: IdMap::default(),
            by_address: HashMap::new(),
            by_ufrag: HashMap::new(),
            batch: Batch::default(),
            store: PacketStore::new(),
            send_batch: SendBatch::new(),
            forwarded: Vec::new(),
            replays: Vec::new(),
            copies: Copies::default(),
            scratch: BytesMut::new(),
            dirty: Vec::new(),
            backlog: Backlog::default(),
            sleeps_until: None,
            rouse: std::rc::Rc::default(),
            handshakes: Handshakes::default(),
            to_wake: 0,
            untold_wishes: Vec::new(),
            drops,
            load,
            links: LinkTable::default(),
            neighbours: Vec::new(),
            table_gauges,
            next_look: now,
            next_second: now,
        }
    }

    /// Notes that a leg has something to send.
    pub fn touch(&mut self, id: LegId) {
        if let Some(index) = self.legs.index_of(&id)
            && let Some(leg) = self.legs.at_mut(index)
            && !std::mem::replace(&mut leg.dirty, true)
        {
            self.dirty.push(index);
        }
    }
}

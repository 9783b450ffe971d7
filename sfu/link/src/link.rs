//! An established link, of either end: a sender that can be cloned, and two receivers.
//!
//! Control messages go through a bounded queue and one writer task; a peer that does not read fills the queue, and
//! that is an error (the owner closes the link). Packets go to the repair core ([`crate::repair`]), never wait, and push the
//! oldest out when too many are held. The connection closes when all three parts are dropped, or by [`LinkSender::close`].

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use muster_identity::Identity;
use muster_proto::media::v1::{LinkDown, LinkUp};
use prost::Message;
use tokio::sync::mpsc;

use crate::LinkError;
use crate::framing::{encode_control, read_control};
use crate::media::{LinkHealth, LinkStats, Media};
use crate::repair::Budget;
use crate::rtp::LinkRtp;
use crate::tunnel::{Course, Table, is_virtual};
use crate::uplinks::Uplinks;

/// Control messages that may wait for the peer to read.
const CONTROL_QUEUE: usize = 256;

/// The edge's end.
pub type EdgeLink = Link<LinkUp, LinkDown>;
/// The relay's end.
pub type RelayLink = Link<LinkDown, LinkUp>;
pub type EdgeSender = LinkSender<LinkUp>;
pub type RelaySender = LinkSender<LinkDown>;

/// An established link that sends `Out` and receives `In`. The parts are public so that one `select!` can wait on
/// both receivers.
#[derive(Debug)]
pub struct Link<Out, In> {
    /// Who the peer's certificate says it is.
    pub peer: Identity,
    pub sender: LinkSender<Out>,
    pub control: ControlReceiver<In>,
    pub media: MediaReceiver,
}

/// What became of a datagram that was given to [`LinkSender::send_rtp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Queued,
    /// Queued, and an older datagram had to go.
    Displaced,
}

/// What carries a link's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    /// A tunnel of TLS over TCP: UDP is blocked.
    Tcp,
}

/// What a link goes over, as this end keeps it.
#[derive(Debug, Clone)]
pub(crate) enum Over {
    Udp,
    Detour(Arc<Course>),
    /// A socket that serves both.
    Junction(Arc<Table>),
}

/// The sending half; clones share the connection.
#[derive(Debug)]
pub struct LinkSender<Out> {
    connection: quinn::Connection,
    over: Over,
    media: Arc<Media>,
    owned: Arc<Owned>,
    control: mpsc::Sender<Bytes>,
    out: PhantomData<fn(Out)>,
}

impl<Out> Clone for LinkSender<Out> {
    fn clone(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            over: self.over.clone(),
            media: self.media.clone(),
            owned: self.owned.clone(),
            control: self.control.clone(),
            out: PhantomData,
        }
    }
}

/// Closes the connection when no part of the link is left: its own task would keep it open.
#[derive(Debug)]
struct Owned(quinn::Connection);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.close(quinn::VarInt::from_u32(0), b"");
    }
}

impl<Out: Message> LinkSender<Out> {
    /// Queues a control message, waiting for room.
    ///
    /// # Errors
    /// [`LinkError::ControlTooLarge`], or [`LinkError::ControlEnded`] when the link is gone.
    pub async fn send_control(&self, message: &Out) -> Result<(), LinkError> {
        let bytes = encode_control(message)?;
        self.control
            .send(bytes)
            .await
            .map_err(|_| LinkError::ControlEnded)
    }

    /// Queues a control message if there is room.
    ///
    /// # Errors
    /// As [`Self::send_control`], and [`LinkError::ControlFull`] if the peer does not read.
    pub fn try_send_control(&self, message: &Out) -> Result<(), LinkError> {
        let bytes = encode_control(message)?;
        self.control.try_send(bytes).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LinkError::ControlFull,
            mpsc::error::TrySendError::Closed(_) => LinkError::ControlEnded,
        })
    }

    /// Sends one RTP packet on `flow`. Allocates; [`Self::send_datagram`] with a kept scratch buffer does not.
    ///
    /// # Errors
    /// As [`Self::send_datagram`].
    pub fn send_rtp(&self, flow: u64, packet: &LinkRtp<'_>) -> Result<Sent, LinkError> {
        self.send_datagram(packet.to_datagram(flow, &mut BytesMut::new()))
    }

    /// Sends a datagram of [`LinkRtp::to_datagram`], which was captured now. Never waits.
    ///
    /// # Errors
    /// [`LinkError::DatagramTooLarge`] (this datagram is dropped, the link goes on) or [`LinkError::Lost`].
    pub fn send_datagram(&self, datagram: Bytes) -> Result<Sent, LinkError> {
        if let Some(lost) = self.connection.close_reason() {
            return Err(lost.into());
        }
        let displaced = self.media.push(Instant::now(), datagram)?;
        Ok(if displaced { Sent::Displaced } else { Sent::Queued })
    }

    /// How the way to the other end is.
    pub fn health(&self) -> LinkHealth {
        self.media.health()
    }

    /// Holds packets to these deadlines from now on.
    pub fn set_budget(&self, budget: Budget) {
        self.media.set_budget(budget);
    }

    /// What was sent, sent again and received.
    pub fn stats(&self) -> LinkStats {
        self.media.stats()
    }

    /// Closes the connection at once; `reason` is told to the peer.
    pub fn close(&self, reason: &str) {
        self.connection
            .close(quinn::VarInt::from_u32(0), reason.as_bytes());
    }

    /// Waits until the connection is closed by anyone, and says why.
    pub async fn closed(&self) -> LinkError {
        self.connection.closed().await.into()
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Round trip time as QUIC sees it; [`Self::health`] has that of the media.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Packets lost and packets sent on the path so far, as this end sees it.
    pub fn loss(&self) -> (u64, u64) {
        let path = self.connection.stats().path;
        (path.lost_packets, path.sent_packets)
    }

    pub fn peer_address(&self) -> SocketAddr {
        let address = self.connection.remote_address();
        match &self.over {
            Over::Junction(table) => table.real(address),
            Over::Udp | Over::Detour(_) => address,
        }
    }

    /// What carries the packets now; it may change while the link lives.
    pub fn transport(&self) -> Transport {
        let by_tcp = match &self.over {
            Over::Udp => false,
            Over::Detour(course) => !course.is_by_udp(),
            Over::Junction(_) => is_virtual(self.connection.remote_address()),
        };
        if by_tcp { Transport::Tcp } else { Transport::Udp }
    }

    /// The network interface that is sent by, where interfaces were named ([`crate::Dial`]).
    pub fn interface(&self) -> Option<String> {
        match &self.over {
            Over::Detour(course) if !course.is_by_udp() => course.interface(),
            _ => self.media.interface(),
        }
    }

    /// Largest datagram that fits the path now, bytes.
    pub fn max_datagram(&self) -> usize {
        self.media.most()
    }
}

/// The receiving end of the control stream.
#[derive(Debug)]
pub struct ControlReceiver<In> {
    stream: quinn::RecvStream,
    _owned: Arc<Owned>,
    buffer: BytesMut,
    received: PhantomData<fn() -> In>,
}

impl<In: Message + Default> ControlReceiver<In> {
    /// The next control message. Cancel-safe.
    ///
    /// # Errors
    /// [`LinkError::ControlEnded`] when the peer is gone, [`LinkError::Malformed`] for bytes that are no message:
    /// the owner closes the link then.
    pub async fn recv(&mut self) -> Result<In, LinkError> {
        read_control(&mut self.stream, &mut self.buffer).await
    }
}

/// The receiving end of the packets.
#[derive(Debug)]
pub struct MediaReceiver {
    connection: quinn::Connection,
    arrivals: mpsc::Receiver<(u64, Bytes)>,
    _owned: Arc<Owned>,
}

impl MediaReceiver {
    /// The next packet: its flow id, and the RTP packet for [`LinkRtp::parse`], each once, in the order of arrival: one that
    /// was lost and repaired comes after its successors. Cancel-safe.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the connection is over.
    pub async fn recv(&mut self) -> Result<(u64, Bytes), LinkError> {
        match self.arrivals.recv().await {
            Some(arrived) => Ok(arrived),
            None => Err(self.connection.closed().await.into()),
        }
    }
}

impl<Out: Message, In: Message + Default> Link<Out, In> {
    /// Puts a link together and starts its writer task on the current runtime.
    pub(crate) fn assemble(
        peer: Identity,
        connection: quinn::Connection,
        (send, stream): (quinn::SendStream, quinn::RecvStream),
        uplinks: Option<Arc<Uplinks>>,
        over: Over,
    ) -> Self {
        let (control, queue) = mpsc::channel(CONTROL_QUEUE);
        tokio::spawn(write_control(send, queue));
        let (media, arrivals) = Media::start(connection.clone(), uplinks);
        let owned = Arc::new(Owned(connection.clone()));
        Self {
            peer,
            sender: LinkSender {
                connection: connection.clone(),
                over,
                media,
                owned: owned.clone(),
                control,
                out: PhantomData,
            },
            control: ControlReceiver {
                stream,
                _owned: owned.clone(),
                buffer: BytesMut::new(),
                received: PhantomData,
            },
            media: MediaReceiver {
                connection,
                arrivals,
                _owned: owned,
            },
        }
    }
}

/// Writes queued messages until the stream or the queue ends.
async fn write_control(mut send: quinn::SendStream, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(message) = queue.recv().await {
        if send.write_all(&message).await.is_err() {
            return;
        }
    }
    let _ = send.finish();
}

/// The identity in the certificate that the peer of `connection` presented.
pub(crate) fn peer_identity(connection: &quinn::Connection) -> Result<Identity, LinkError> {
    let chain = connection
        .peer_identity()
        .and_then(|any| {
            any.downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>()
                .ok()
        })
        .ok_or(LinkError::Stranger)?;
    let leaf = chain.first().ok_or(LinkError::Stranger)?;
    muster_identity::identity_of(leaf).map_err(|_| LinkError::Stranger)
}

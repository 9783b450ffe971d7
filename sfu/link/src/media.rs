//! The media of a connection: the repair core of both directions, and the task that drives it.
//!
//! [`Media::start`] spawns one task a connection. It owns the clock: it hands datagrams that arrive to the core, sends what
//! the core wants sent, and sleeps until the core wants to be asked again. Whoever sends pushes into the core and wakes the
//! task; what arrives waits for its reader in a queue of [`ARRIVALS`] packets, and what does not fit is dropped and counted.
//! The lock is held for microseconds and never across an await.
//!
//! What it does not do: it looks into RTP only for what decides a packet's class (payload type and marker).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc};

use crate::LinkError;
use crate::framing::split_flow;
use crate::repair::rate::{Bounds, Bps};
use crate::repair::wire::{Datagram, PARITY_HEADER};
use crate::repair::{Budget, Class, Micros, Packet, Receiver, ReceiverStats, Sender, SenderStats};
use crate::rtp::PT_OPUS;
use crate::timer::Timer;
use crate::uplinks::Uplinks;
use crate::window::{LinkWindow, Shared as Window};

/// Packets that wait for their reader.
const ARRIVALS: usize = 4096;
/// What the repair puts around a packet, at most: a shard's header, its length, and one byte to even it out.
const ENVELOPE: usize = PARITY_HEADER + 3;
/// Without anything to do the task looks again so often: clocks of the core move on.
const IDLE: Duration = Duration::from_secs(1);
/// An uplink that brings nothing back for so long is left for the next, where there is one.
const UPLINK_PATIENCE: Duration = Duration::from_millis(120);
const UPLINK_LOOK: Duration = Duration::from_millis(20);
/// What is due earlier waits so long, µs: it goes out together.
const SOONEST: Micros = 100;
/// Datagrams taken in one go, so that sending is not held up.
const BATCH: usize = 64;

/// What is known of one direction of a link, as its sender sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkHealth {
    /// Bits a second on the wire that the path is thought to take.
    pub rate_bps: Bps,
    /// Bits a second of RTP that sources should make now, all together; 0 while the path is dark.
    pub source_bps: Bps,
    /// Share of datagrams that are lost, 0 to 1.
    pub loss: f64,
    pub rtt: Duration,
    /// Delay in queues of the path now.
    pub queue: Duration,
    /// Nothing is heard although something was sent: the path is thought to be down.
    pub dark: bool,
    /// The path was found to take no more within the last ten seconds. Where it was not, `source_bps` says what was tried,
    /// not what would fit.
    pub limited: bool,
    /// How long the other end was not heard: any datagram counts, and an idle link has keep-alives. Exact to the time between
    /// two calls.
    pub silent_for: Duration,
    /// By when after its capture a picture's packet is to be there.
    pub deadline: Duration,
}

/// What was counted since the link was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    pub sent: SenderStats,
    pub received: ReceiverStats,
    /// Packets dropped because nobody read them.
    pub unread: u64,
    /// Datagrams that were not ours to understand.
    pub malformed: u64,
}

#[derive(Debug)]
struct Core {
    sender: Sender,
    receiver: Receiver,
    scratch: BytesMut,
    /// When anything was last heard, and how many datagrams of QUIC had come by then.
    heard: Instant,
    came: u64,
    unread: u64,
    malformed: u64,
}

/// The shared half: what senders hold.
#[derive(Debug)]
pub(crate) struct Media {
    core: Mutex<Core>,
    wake: Notify,
    began: Instant,
    connection: quinn::Connection,
    /// Largest datagram that the path takes; looked up by the task.
    largest: AtomicU64,
    uplinks: Option<Arc<Uplinks>>,
}

impl Media {
    /// Starts the task on the current runtime; packets that arrive come out of the receiver.
    pub fn start(
        connection: quinn::Connection,
        uplinks: Option<Arc<Uplinks>>,
    ) -> (Arc<Self>, mpsc::Receiver<(u64, Bytes)>) {
        let (arrivals, queue) = mpsc::channel(ARRIVALS);
        let mut sender = Sender::new(Budget::default(), Bounds::default());
        sender.explore();
        let core = Core {
            sender,
            receiver: Receiver::new(),
            scratch: BytesMut::new(),
            heard: Instant::now(),
            came: 0,
            unread: 0,
            malformed: 0,
        };
        let media = Arc::new(Self {
            core: Mutex::new(core),
            wake: Notify::new(),
            began: Instant::now(),
            largest: AtomicU64::new(connection.max_datagram_size().unwrap_or(0) as u64),
            connection,
            uplinks,
        });
        tokio::spawn(media.clone().run(arrivals));
        (media, queue)
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic elsewhere leaves counters at worst a little off.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn micros(&self, now: Instant) -> Micros {
        u64::try_from(now.saturating_duration_since(self.began).as_micros()).unwrap_or(Micros::MAX)
    }

    /// Takes a packet to be sent: a flow id and RTP. Says whether an older one had to go.
    pub fn push(&self, captured: Instant, body: Bytes) -> Result<bool, LinkError> {
        let limit = self.most();
        if body.len() > limit {
            return Err(LinkError::DatagramTooLarge {
                size: body.len(),
                limit,
            });
        }
        let (class, end) = classify(&body);
        let now = self.micros(Instant::now());
        let captured = self.micros(captured).min(now);
        let displaced = self.lock().sender.push(
            now,
            Packet {
                class,
                captured,
                end,
                body,
            },
        );
        self.wake.notify_one();
        Ok(displaced)
    }

    /// Bytes of a flow id and RTP packet, at most.
    pub fn most(&self) -> usize {
        (self.largest.load(Ordering::Relaxed) as usize).saturating_sub(ENVELOPE)
    }

    pub fn health(&self) -> LinkHealth {
        let at = Instant::now();
        let now = self.micros(at);
        // Acknowledgements and keep-alives are signs of life as well.
        let came = self.connection.stats().udp_rx.datagrams;
        let mut core = self.lock();
        if core.came != came {
            (core.came, core.heard) = (came, at);
        }
        let (sender, path) = (&core.sender, core.sender.path());
        LinkHealth {
            rate_bps: sender.rate(),
            source_bps: sender.source_rate(now),
            loss: sender.loss().share(),
            rtt: Duration::from_micros(path.rtt()),
            queue: Duration::from_micros(path.queue()),
            dark: sender.is_dark(now),
            limited: sender.is_limited(now),
            silent_for: at.saturating_duration_since(core.heard),
            deadline: Duration::from_micros(sender.terms().video_deadline),
        }
    }

    pub fn set_budget(&self, budget: Budget) {
        self.lock().sender.set_budget(budget);
    }

    pub fn stats(&self) -> LinkStats {
        let core = self.lock();
        LinkStats {
            sent: core.sender.stats(),
            received: core.receiver.stats(),
            unread: core.unread,
            malformed: core.malformed,
        }
    }

    async fn run(self: Arc<Self>, arrivals: mpsc::Sender<(u64, Bytes)>) {
        let mut window = self.window();
        let mut looked = Instant::now();
        let mut switched = looked;
        let mut timer = Timer::new();
        loop {
            let now = Instant::now();
            if now.saturating_duration_since(looked) > IDLE {
                // A new path begins with a window of its own.
                (looked, window) = (now, self.window());
                self.largest.store(
                    self.connection.max_datagram_size().unwrap_or(0) as u64,
                    Ordering::Relaxed,
                );
            }
            let patience = self.look_at_uplinks(now, &mut switched);
            let next = self.send_due(now, window.as_ref());
            let wait = next.map_or(now + patience, |at| at.min(now + patience));
            let wait = timer.until(wait);
            tokio::select! {
                biased;
                datagram = self.connection.read_datagram() => match datagram {
                    Ok(datagram) => self.take_arrived(datagram, &arrivals),
                    Err(_) => return,
                },
                () = self.wake.notified() => {}
                () = wait => {}
            }
        }
    }

    pub fn interface(&self) -> Option<String> {
        self.uplinks
            .as_ref()
            .map(|uplinks| uplinks.interface().to_owned())
    }

    /// Sends by another interface when nothing comes back by this one; says when to look again at the latest.
    fn look_at_uplinks(&self, now: Instant, switched: &mut Instant) -> Duration {
        let Some(uplinks) = &self.uplinks else { return IDLE };
        let (waited, rtt) = {
            let core = self.lock();
            (
                core.sender.unanswered_for(self.micros(now)),
                core.sender.path().rtt(),
            )
        };
        let Some(waited) = waited.map(Duration::from_micros) else {
            return IDLE;
        };
        let patience = Duration::from_micros(rtt * 3 / 2 + 60_000).max(UPLINK_PATIENCE);
        // The next one is given time to answer, too.
        if waited > patience && now.saturating_duration_since(*switched) > patience * 2 {
            *switched = now;
            let from = uplinks.interface().to_owned();
            if let Some(to) = uplinks.next() {
                tracing::warn!(from, to, "nothing comes back: sending by another interface");
            }
        }
        UPLINK_LOOK
    }

    fn window(&self) -> Option<Arc<Window>> {
        let state = self.connection.congestion_state().into_any();
        state.downcast::<LinkWindow>().ok().map(|window| window.shared())
    }

    /// Sends all that may go now; says when to look again.
    fn send_due(&self, at: Instant, window: Option<&Arc<Window>>) -> Option<Instant> {
        let now = self.micros(at);
        let mut core = self.lock();
        let Core {
            sender,
            receiver,
            scratch,
            ..
        } = &mut *core;
        while let Some(feedback) = receiver.poll(now, scratch) {
            if self.connection.send_datagram(feedback).is_err() {
                break;
            }
        }
        while let Some(datagram) = sender.poll(now, scratch) {
            if self.connection.send_datagram(datagram).is_err() {
                break;
            }
        }
        if let Some(window) = window {
            window.follow(sender.rate(), Duration::from_micros(sender.path().rtt()));
        }
        let next = [sender.wake(now), receiver.wake()].into_iter().flatten().min();
        next.map(|next| self.began + Duration::from_micros(next.max(now + SOONEST)))
    }

    /// Takes what has arrived so far, in one batch.
    fn take_arrived(&self, first: Bytes, arrivals: &mpsc::Sender<(u64, Bytes)>) {
        let mut next = Some(first);
        let mut batch = Vec::new();
        while let Some(datagram) = next {
            batch.push(datagram);
            next = if batch.len() < BATCH {
                self.connection
                    .read_datagram()
                    .now_or_never()
                    .and_then(Result::ok)
            } else {
                None
            };
        }
        let at = Instant::now();
        let now = self.micros(at);
        let mut core = self.lock();
        core.heard = at;
        for datagram in batch {
            core.take(now, &datagram, arrivals);
        }
    }
}

impl Core {
    fn take(&mut self, now: Micros, bytes: &Bytes, arrivals: &mpsc::Sender<(u64, Bytes)>) {
        let Self {
            sender,
            receiver,
            unread,
            ..
        } = self;
        let taken = match Datagram::read(bytes) {
            Ok(Datagram::Feedback(feedback)) => {
                sender.feedback(now, &feedback);
                Ok(())
            }
            Ok(datagram) => receiver.take(now, datagram, &mut |body: Bytes| {
                let Some(framed) = split_flow(body) else { return };
                *unread += u64::from(arrivals.try_send(framed).is_err());
            }),
            Err(malformed) => Err(malformed),
        };
        if let Err(malformed) = taken {
            self.malformed += 1;
            tracing::trace!(%malformed, "datagram of a link");
        }
    }
}

/// Class of a packet, and whether its frame ends with it.
fn classify(body: &Bytes) -> (Class, bool) {
    let Some((_, rtp)) = split_flow(body.clone()) else {
        return (Class::Video, true);
    };
    match rtp.get(1) {
        Some(&second) if second & 0x7f == PT_OPUS => (Class::Audio, false),
        Some(&second) => (Class::Video, second & 0x80 != 0),
        None => (Class::Video, true),
    }
}

//! The relay's one TCP port for media (RFC 6544): takes connections, reads the first frame of each, and gives the connection
//! to the worker whose leg that frame names.
//!
//! Nothing is answered here. Connections are bounded in number, and one that does not name a leg of ours in time is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use muster_webrtc::{FrameReader, stun_ufrag};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::worker::{Arrived, Command};

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a connection may take to name its leg.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// Serves until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, workers: Vec<mpsc::Sender<Command>>, metrics: Counters) {
    let workers: Arc<[mpsc::Sender<Command>]> = workers.into();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut greeting = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        while greeting.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                metrics.accepted.increment(1);
                let (workers, refused) = (workers.clone(), metrics.refused.clone());
                greeting.spawn(async move {
                    let named = tokio::time::timeout(FIRST_WITHIN, first_frame(stream, peer, permit)).await;
                    let placed = match named.ok().flatten() {
                        Some(arrived) => place(&workers, arrived).await,
                        None => false,
                    };
                    if !placed {
                        refused.increment(1);
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the TCP port for media");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What is counted here.
pub(crate) struct Counters {
    accepted: Counter,
    /// Connections that named no leg.
    refused: Counter,
}

impl Counters {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            accepted: metrics.tcp_connections(),
            refused: metrics.dropped("tcp_unknown"),
        }
    }
}

/// None if the peer closes, or begins with anything but a connectivity check.
async fn first_frame(
    mut stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) -> Option<Arrived> {
    let _ = stream.set_nodelay(true);
    let mut reader = FrameReader::default();
    loop {
        let length = stream
            .read(reader.space())
            .await
            .ok()
            .filter(|&length| length > 0)?;
        reader.filled(length);
        if let Some(frame) = reader.next_frame().ok()? {
            stun_ufrag(frame)?;
            let first = frame.to_vec();
            let stream = stream.into_std().ok()?;
            return Some(Arrived {
                stream,
                peer,
                reader,
                first,
                permit,
            });
        }
    }
}

/// Asks one worker after the other; false if the leg is none of theirs.
async fn place(workers: &[mpsc::Sender<Command>], mut arrived: Arrived) -> bool {
    for worker in workers {
        let (reply, answer) = oneshot::channel();
        let arrived_here = Box::new(arrived);
        let asked = worker
            .send(Command::Adopt {
                arrived: arrived_here,
                reply,
            })
            .await;
        match (asked, answer.await) {
            (Ok(()), Ok(Some(back))) => arrived = *back,
            (Ok(()), Ok(None)) => return true,
            // The worker has ended, and the connection with it.
            _ => return false,
        }
    }
    false
}

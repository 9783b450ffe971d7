//! Whether anything goes on in a connection: one that was opened and says nothing, or has had nothing to say for long, is
//! ended by who serves it.
//!
//! A request is under way from its head until the last of its answer was taken, so a stream that lives keeps its connection.

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

struct State {
    under_way: usize,
    any: bool,
    since: Instant,
}

/// The requests of one connection.
pub struct Requests {
    state: Mutex<State>,
    ended: Notify,
}

/// One that is under way.
pub struct UnderWay(Arc<Requests>);

impl Requests {
    pub fn new() -> Arc<Self> {
        let state = State {
            under_way: 0,
            any: false,
            since: Instant::now(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            ended: Notify::new(),
        })
    }

    pub fn begin(self: &Arc<Self>) -> UnderWay {
        let mut state = self.lock();
        state.under_way += 1;
        state.any = true;
        drop(state);
        UnderWay(self.clone())
    }

    /// Whether there was one at all.
    pub fn any(&self) -> bool {
        self.lock().any
    }

    /// Returns when there was no first request for so long, or no further one.
    pub async fn quiet(&self, first: Duration, further: Duration) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let until = {
                let state = self.lock();
                let limit = if state.any { further } else { first };
                (state.under_way == 0).then(|| state.since + limit)
            };
            match until {
                None => ended.await,
                Some(until) if Instant::now() >= until => return,
                Some(until) => tokio::select! {
                    () = sleep_until(until) => {}
                    () = ended => {}
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        state.since = Instant::now();
        let last = state.under_way == 0;
        drop(state);
        if last {
            self.0.ended.notify_waiters();
        }
    }
}

/// An answer whose request is under way until it was taken.
pub struct Answer {
    pub body: Body,
    pub _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const FURTHER: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_connection_is_quiet_without_a_first_request_and_long_after_the_last() {
        let start = Instant::now();
        let silent = Requests::new();
        silent.quiet(FIRST, FURTHER).await;
        assert!(start.elapsed() >= FIRST && !silent.any());

        let start = Instant::now();
        let requests = Requests::new();
        let streams = [requests.begin(), requests.begin()];
        let ending = async {
            for stream in streams {
                tokio::time::sleep(2 * FURTHER).await;
                drop(stream);
            }
        };
        tokio::join!(ending, requests.quiet(FIRST, FURTHER));
        assert!(start.elapsed() >= 5 * FURTHER, "not while a stream lives");
    }
}

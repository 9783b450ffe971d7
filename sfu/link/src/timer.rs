//! A timer that is exact to a tenth of a millisecond, where the runtime's own is rounded up to the next whole ones: a frame's packets
//! leave a millisecond apart, and a round trip more or less decides whether it is in time.
//!
//! A timerfd (Linux) that the runtime waits for as for a socket. Where none can be made, the runtime's own timer does.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Shorter waits are over at once.
const LEAST: Duration = Duration::from_micros(50);
/// What a wait that is longer than [`LONG`] may be cut short by, so that the timer need not be set for each.
const LONG: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Fd(TimerFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// One timer, for one task.
#[derive(Debug)]
pub(crate) struct Timer {
    exact: Option<AsyncFd<Fd>>,
    /// What the descriptor is set to.
    armed: Option<Instant>,
}

impl Timer {
    #[expect(
        deprecated,
        reason = "its successor is unsafe; the descriptor is owned and never exchanged"
    )]
    pub fn new() -> Self {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let exact = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)
            .ok()
            .and_then(|timer| AsyncFd::with_interest(Fd(timer), Interest::READABLE).ok());
        Self { exact, armed: None }
    }

    /// Waits until `at`, or a quarter less where that is long. Dropping the wait forgets it.
    pub async fn until(&mut self, at: Instant) {
        let now = Instant::now();
        let wait = at.saturating_duration_since(now);
        if wait < LEAST {
            return;
        }
        let early = if wait > LONG { wait / 4 } else { Duration::ZERO };
        let serves = |armed: Instant| armed > now && armed <= at + LEAST && armed + early >= at;
        let Some(timer) = &self.exact else {
            tokio::time::sleep_until(at.into()).await;
            return;
        };
        let until = match self.armed.filter(|&armed| serves(armed)) {
            Some(armed) => armed,
            None => {
                let expiration = Expiration::OneShot(TimeSpec::from(wait));
                let set = timer.get_ref().0.set(expiration, TimerSetTimeFlags::empty());
                if set.is_err() {
                    tokio::time::sleep_until(at.into()).await;
                    return;
                }
                at
            }
        };
        self.armed = Some(until);
        // The descriptor is never read: setting it anew clears it, and each expiry is told once. One of a wait that was dropped
        // may be told only now.
        while Instant::now() < until {
            let Ok(mut ready) = timer.readable().await else {
                return;
            };
            ready.clear_ready();
        }
    }
}

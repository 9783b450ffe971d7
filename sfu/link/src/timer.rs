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
        Self { exact }
    }

    /// Waits until `at`. Dropping the wait forgets it.
    pub async fn until(&self, at: Instant) {
        let wait = at.saturating_duration_since(Instant::now());
        if wait < LEAST {
            return;
        }
        let set = |timer: &AsyncFd<Fd>| {
            let expiration = Expiration::OneShot(TimeSpec::from(wait));
            timer
                .get_ref()
                .0
                .set(expiration, TimerSetTimeFlags::empty())
                .is_ok()
        };
        let Some(timer) = self.exact.as_ref().filter(|timer| set(timer)) else {
            tokio::time::sleep_until(at.into()).await;
            return;
        };
        // An expiry of a wait that was dropped may be there still: setting the timer anew has cleared it.
        loop {
            let Ok(mut ready) = timer.readable().await else {
                return;
            };
            let mut count = [0u8; 8];
            if nix::unistd::read(timer.get_ref().0.as_fd(), &mut count).is_ok() {
                return;
            }
            ready.clear_ready();
        }
    }
}

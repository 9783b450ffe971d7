//! CPU time of this thread, for what is measured here and in muster-webrtc's benches: other work on the machine is not in it,
//! though it disturbs single rounds; so the best of several is taken.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub const ROUNDS: usize = 15;

pub fn cpu_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock"))
}

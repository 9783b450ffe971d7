//! When a publisher's packets were sampled, by its sender reports (RFC 3550, 6.4.1).
//!
//! The publisher's wall clock is tied to ours by the arrival of its reports: once, then followed
//! slowly, and the same for all its streams. So sound and picture that were sampled together have
//! the same time, whatever the path and the encoders did to each. It is no measure of the delay:
//! what all streams share cannot be seen.

/// A report this far from where it was expected moves the time line at once, in microseconds.
const JUMP: i64 = 500_000;
/// A packet sampled further away than this has no sensible time, in microseconds.
const SENSIBLE: i64 = 5_000_000;

/// The publisher's wall clock in ours.
#[derive(Default)]
pub(super) struct WallClock {
    /// Ours less theirs, in microseconds.
    offset: Option<i64>,
}

/// One stream's time line: a wall-clock time in microseconds, and its RTP timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeLine {
    wall: i64,
    timestamp: u32,
}

impl WallClock {
    /// A sender report came `now`, in microseconds of any epoch of ours. None: it tells no time.
    pub(super) fn reported(&mut self, now: i64, ntp: u64, timestamp: u32) -> Option<TimeLine> {
        if ntp == 0 {
            return None;
        }
        let fraction = ((ntp & 0xffff_ffff) * 1_000_000) >> 32;
        let wall = (ntp >> 32) as i64 * 1_000_000 + fraction as i64; // below 2^52
        let heard = now - wall;
        let offset = self.offset.map_or(heard, |offset| {
            let error = heard - offset;
            if error.abs() > JUMP {
                heard
            } else {
                offset + error / 16
            }
        });
        self.offset = Some(offset);
        Some(TimeLine { wall, timestamp })
    }

    /// How long before `now` a packet was sampled, in microseconds; 0 where that is not known.
    pub(super) fn age(&self, now: i64, line: Option<TimeLine>, timestamp: u32, clock: u32) -> i32 {
        let (Some(line), Some(offset)) = (line, self.offset) else {
            return 0;
        };
        let ticks = i64::from(timestamp.wrapping_sub(line.timestamp) as i32);
        let sampled = line.wall + offset + ticks * 1_000_000 / i64::from(clock);
        let age = now - sampled;
        if age.abs() < SENSIBLE { age as i32 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    fn ntp(seconds: u64, milliseconds: u64) -> u64 {
        (seconds << 32) | ((milliseconds << 32) / 1000)
    }

    #[test]
    fn sound_and_picture_of_one_time_are_of_one_age() {
        let mut clock = WallClock::default();
        // Sampled together at 1000.5; the picture's report comes 40 ms after the sound's.
        let sound = clock.reported(10 * S, ntp(1000, 500), 48_000);
        let picture = clock.reported(10 * S + 40_000, ntp(1000, 500), 90_000);
        // A fifth of a second later, and the picture takes longer.
        let heard = clock.age(10 * S + 230_000, sound, 48_000 + 9_600, 48_000);
        let seen = clock.age(10 * S + 300_000, picture, 90_000 + 18_000, 90_000);
        assert_eq!(seen - heard, 70_000);
        assert!((27_000..=30_000).contains(&heard), "{heard}");
    }

    #[test]
    fn the_clocks_drift_is_followed_and_a_jump_taken_at_once() {
        let mut clock = WallClock::default();
        let mut line = None;
        for n in 0..600 {
            // Theirs is slow by 100 in a million.
            line = clock.reported(n * (S + 100), ntp(1000 + n as u64, 0), 0);
        }
        let now = 599 * (S + 100);
        assert!(clock.age(now, line, 0, 90_000).abs() < 2_000);
        let line = clock.reported(now, ntp(5, 0), 7);
        assert_eq!(clock.age(now, line, 7, 90_000), 0);
        assert_eq!(clock.age(now, line, 7 + 90_000, 90_000), -1_000_000);
    }

    #[test]
    fn what_is_not_sensible_is_not_known() {
        let mut clock = WallClock::default();
        assert_eq!(clock.reported(S, 0, 7), None);
        assert_eq!(clock.age(S, None, 7, 90_000), 0);
        let line = clock.reported(S, u64::MAX, 7);
        assert_eq!(clock.age(S, line, 7 + 90_000 * 6, 90_000), 0);
        assert_eq!(clock.age(S, line, 7 + 0x8000_0000, 1), 0);
    }
}

//! From a camera's own clock to the timestamps that are sent.
//!
//! All streams of an agent count from its first start, so that layers and sound agree however often a camera comes back.
//! Within a session the camera's steps are kept; one that has gone off by more than a second, and one after a break, is
//! set by the time of arrival.

use std::time::Duration;

/// A clock that is off by more than this, in milliseconds, is set anew.
const MOST_OFF_MS: i64 = 1000;

#[derive(Debug)]
pub struct Clock {
    rate: i64,
    /// What is added to the camera's ticks.
    offset: Option<i64>,
}

impl Clock {
    /// `rate` ticks a second, on both sides.
    pub fn new(rate: i64) -> Self {
        Self { rate, offset: None }
    }

    /// The camera's next ticks do not follow its last.
    pub fn lose(&mut self) {
        self.offset = None;
    }

    /// The ticks to send for the camera's `ticks` that came `since_start`, and whether the clock was set for it.
    pub fn map(&mut self, since_start: Duration, ticks: i64) -> (i64, bool) {
        let arrived = since_start.as_micros() as i64 * self.rate / 1_000_000;
        let kept = self.offset.filter(|offset| {
            let off = ticks.wrapping_add(*offset).wrapping_sub(arrived);
            off.saturating_abs() <= MOST_OFF_MS * self.rate / 1000
        });
        let offset = kept.unwrap_or_else(|| arrived.wrapping_sub(ticks));
        self.offset = Some(offset);
        (ticks.wrapping_add(offset), kept.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_the_cameras_and_jumps_are_not() {
        let mut clock = Clock::new(90_000);
        let at = Duration::from_millis;
        assert_eq!(clock.map(at(1000), -5), (90_000, true));
        // It came late, and keeps its distance.
        assert_eq!(clock.map(at(1300), 3595), (93_600, false));
        assert_eq!(clock.map(at(1400), i64::MAX), (126_000, true));
        assert_eq!(clock.map(at(1440), i64::MIN + 3599), (129_600, false));
        clock.lose();
        assert_eq!(clock.map(at(2000), 0), (180_000, true));
    }
}

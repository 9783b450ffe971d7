//! Whether the relay still answers, and whether media still comes: what makes an agent doubt its relay.
//!
//! Pure: time comes in. A link that has been quiet for 300 ms is pinged; one that is then quiet for 700 ms more is in
//! doubt, until something is heard again. So is one that answers but brings no media for 1.5 s although the relay says
//! that the stage's picture is live (a picture whose source has died is told as stale before that). Doubt ends nothing:
//! the agent asks the control plane where the meeting is. A clock that stood still makes no doubt, since only silence
//! after a ping counts.

use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_millis(300);
const ANSWERS: Duration = Duration::from_millis(700);
const MEDIA: Duration = Duration::from_millis(1500);

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Beat {
    /// Send a ping.
    Ping,
    /// Nothing; look again at this time.
    Wait(Instant),
}

/// The pulse of one link.
#[derive(Debug)]
pub struct Pulse {
    heard: Instant,
    pinged: Option<Instant>,
    /// Since when media is due: the last of it, or the relay's word that there is some.
    media: Option<Instant>,
}

impl Pulse {
    pub fn new(now: Instant) -> Self {
        Self {
            heard: now,
            pinged: None,
            media: None,
        }
    }

    /// Anything came.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// A packet of a slot came.
    pub fn heard_media(&mut self, now: Instant) {
        self.heard(now);
        if let Some(media) = &mut self.media {
            *media = now;
        }
    }

    /// Whether the relay says that it sends a picture.
    pub fn expect_media(&mut self, now: Instant, expected: bool) {
        self.media = expected.then(|| self.media.unwrap_or(now));
    }

    /// To be called until it says to wait.
    pub fn beat(&mut self, now: Instant) -> Beat {
        let next = match self.pinged {
            None if now >= self.heard + QUIET => {
                self.pinged = Some(now);
                return Beat::Ping;
            }
            None => self.heard + QUIET,
            Some(pinged) => pinged + ANSWERS,
        };
        let media = self.media.map(|media| media + MEDIA);
        let ahead = [Some(next), media].into_iter().flatten().filter(|at| *at > now);
        Beat::Wait(ahead.min().unwrap_or(now + QUIET))
    }

    /// Whether the relay is in doubt.
    pub fn is_in_doubt(&self, now: Instant) -> bool {
        let past = |since: Option<Instant>, limit| since.is_some_and(|since| now >= since + limit);
        past(self.pinged, ANSWERS) || past(self.media, MEDIA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs until something is in doubt; says after how long, and how many pings were sent.
    fn silence(mut pulse: Pulse, from: Instant) -> (u64, u32) {
        let (mut at, mut pings) = (from, 0);
        while !pulse.is_in_doubt(at) {
            match pulse.beat(at) {
                Beat::Ping => pings += 1,
                Beat::Wait(until) => {
                    assert!(until > at, "a wait that does not move on");
                    at = until;
                }
            }
        }
        (at.duration_since(from).as_millis() as u64, pings)
    }

    #[test]
    fn a_silent_link_is_in_doubt_after_a_second_and_one_ping() {
        let now = Instant::now();
        assert_eq!(silence(Pulse::new(now), now), (1000, 1));
    }

    #[test]
    fn an_answer_ends_the_doubt_and_a_link_with_traffic_is_never_pinged() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now);
        for step in 0..100 {
            let at = now + ms(step * 200);
            pulse.heard(at);
            assert_eq!(pulse.beat(at), Beat::Wait(at + QUIET));
        }
        let at = now + ms(30_000);
        assert_eq!(pulse.beat(at), Beat::Ping);
        assert!(!pulse.is_in_doubt(at + ms(699)) && pulse.is_in_doubt(at + ms(700)));
        pulse.heard(at + ms(900));
        assert!(!pulse.is_in_doubt(at + ms(900)));
    }

    #[test]
    fn a_clock_that_stood_still_makes_no_doubt() {
        let now = Instant::now();
        let pulse = Pulse::new(now);
        assert!(!pulse.is_in_doubt(now + ms(3_600_000)));
    }

    #[test]
    fn media_that_is_announced_and_does_not_come_makes_doubt_though_the_relay_answers() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now);
        pulse.expect_media(now, true);
        pulse.heard_media(now + ms(1000));
        pulse.expect_media(now + ms(1200), true);
        pulse.heard(now + ms(2400));
        assert!(!pulse.is_in_doubt(now + ms(2499)));
        pulse.heard(now + ms(2500));
        assert!(pulse.is_in_doubt(now + ms(2500)));
        pulse.expect_media(now + ms(2600), false);
        assert!(!pulse.is_in_doubt(now + ms(2600)));
    }
}

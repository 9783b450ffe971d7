//! A silent drill: the agent checks itself and tells what it found, and nobody at the site sees or hears of it.
//!
//! Pure: time and answers come in. The link is good if its relay answers a ping within 1.5 s, the clock if it is off by no
//! more than a second (the way of the call counts as part of it). Sources say for themselves whether they deliver; what is
//! in use for a meeting is left alone.

use std::time::{Duration, Instant};

use muster_proto::command::v1::{Check, DrillCall, DrillResult, SummonsReason};

use crate::publisher::{Checked, Fault};

const ANSWERS: Duration = Duration::from_millis(1500);
const CLOCK_OFF_MS: i64 = 1000;

/// A drill whose ping is under way.
#[derive(Debug)]
pub struct Drill {
    pub id: String,
    /// Of the ping that its pong brings back.
    pub nonce: u64,
    begun: Instant,
    result: DrillResult,
}

impl Drill {
    /// Begins with what is known at once; the times are milliseconds since the Unix epoch.
    pub fn begin(
        call: DrillCall,
        site: &str,
        (now, now_ms): (Instant, i64),
        sources: Checked,
        nonce: u64,
    ) -> Self {
        let off = now_ms.saturating_sub(call.server_time_ms);
        let check = |good: bool| if good { Check::Ok } else { Check::Failed }.into();
        let result = DrillResult {
            site: site.to_owned(),
            camera: check(sources.camera.is_ok()),
            camera_reason: sources
                .camera
                .err()
                .map_or(SummonsReason::Unspecified, Fault::reason)
                .into(),
            microphone: sources.microphone.map_or(Check::Unspecified.into(), check),
            clock: check(off.unsigned_abs() <= CLOCK_OFF_MS.unsigned_abs()),
            clock_off_ms: off,
            at_ms: now_ms,
            ..DrillResult::default()
        };
        Self {
            id: call.drill,
            nonce,
            begun: now,
            result,
        }
    }

    /// Until when the relay may answer.
    pub fn poll_timeout(&self) -> Instant {
        self.begun + ANSWERS
    }

    /// The relay has answered.
    pub fn answered(mut self, now: Instant) -> (String, DrillResult) {
        let millis = now.saturating_duration_since(self.begun).as_millis();
        self.result.set_link(Check::Ok);
        // 0 stands for unknown.
        self.result.rtt_ms = u32::try_from(millis).unwrap_or(u32::MAX).max(1);
        (self.id, self.result)
    }

    /// It has not, or there is no link to it.
    pub fn failed(mut self, why: &str) -> (String, DrillResult) {
        self.result.set_link(Check::Failed);
        self.result.detail = why.to_owned();
        (self.id, self.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(clock_off_ms: i64, sources: Checked) -> (Drill, Instant) {
        let now = Instant::now();
        let call = DrillCall {
            drill: "d".into(),
            server_time_ms: 1_000_000,
        };
        let at = (now, 1_000_000 + clock_off_ms);
        (Drill::begin(call, "s", at, sources, 7), now)
    }

    #[test]
    fn a_ready_site_says_so_with_its_round_trip() {
        let whole = Checked {
            camera: Ok(()),
            microphone: Some(true),
        };
        let (drill, now) = drill(-300, whole);
        let (id, result) = drill.answered(now + Duration::from_micros(200));
        let checks = [
            result.link(),
            result.camera(),
            result.microphone(),
            result.clock(),
        ];
        assert_eq!((id.as_str(), checks), ("d", [Check::Ok; 4]));
        assert_eq!((result.rtt_ms, result.clock_off_ms), (1, -300));
    }

    #[test]
    fn each_fault_is_told_for_itself() {
        let silent = Checked {
            camera: Err(Fault::Silent),
            microphone: None,
        };
        let (drill, _) = drill(1001, silent);
        let (_, result) = drill.failed("no link");
        let checks = [
            result.link(),
            result.camera(),
            result.microphone(),
            result.clock(),
        ];
        let expected = [Check::Failed, Check::Failed, Check::Unspecified, Check::Failed];
        assert_eq!(checks, expected);
        assert_eq!(result.camera_reason(), SummonsReason::CameraSilent);
        assert_eq!((result.detail.as_str(), result.rtt_ms), ("no link", 0));
    }
}

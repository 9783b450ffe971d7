//! A leg that is given its keys without a handshake, for `fuzzing` only.

use std::time::Instant;

use super::Leg;
use crate::event::LegEvent;
use crate::rtcp;
use crate::srtp::Srtp;

impl Leg {
    /// As if the handshake had ended with these keys.
    pub(crate) fn connect_with(&mut self, now: Instant, srtp: Srtp) {
        self.srtp = Some(Box::new(srtp));
        self.next_report = Some(now + rtcp::INTERVAL);
        self.event(LegEvent::Connected);
    }
}

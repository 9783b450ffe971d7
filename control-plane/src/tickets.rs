//! Join tickets: where to join, and a signed token that proves the right to.
//!
//! A token is made anew for every ticket, since a relay takes each once. Whether a site may join is asked before.

use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::status::Failure;
use muster_domain::Placement;
use muster_identity::{JoinClaims, TokenSigner, View};
use muster_proto::command::v1 as pb;
use std::sync::Arc;

/// Makes tickets for the relays of a fleet.
#[derive(Clone)]
pub struct Tickets {
    signer: TokenSigner,
    fleet: Arc<dyn Fleet>,
    clock: Clock,
}

impl Tickets {
    pub fn new(signer: TokenSigner, fleet: Arc<dyn Fleet>, clock: Clock) -> Self {
        Self { signer, fleet, clock }
    }

    /// A ticket for a site, or for a desk (`desk:ACCOUNT`); `chair` if it is the desk of the meeting's chair.
    /// It leads to the relay of the meeting's placement, where it has one.
    pub fn issue(
        &self,
        meeting: &str,
        placement: Option<&Placement>,
        site: &str,
        chair: bool,
    ) -> Result<pb::JoinTicket, Failure> {
        let place = match placement {
            Some(placement) => self.fleet.place_at(&placement.relay, site),
            None => self.fleet.place(site),
        };
        let place = place.ok_or(Failure::NoRelay)?;
        // Who runs the meeting sees any site; a site sees what everyone is made to see.
        let view = if site.starts_with("desk:") {
            View::All
        } else {
            View::Stage
        };
        let claims = JoinClaims::new(meeting, site, chair, true, self.clock.now_ms() / 1000)
            .at_relay(&place.relay)
            .viewing(view);
        let token = self.signer.sign(&claims).map_err(|error| {
            tracing::error!(%error, "cannot sign a join token");
            Failure::NoRelay
        })?;
        Ok(pb::JoinTicket {
            meeting: meeting.to_owned(),
            token,
            relay_url: place.http_url,
            relay_link: place.link,
            site: site.to_owned(),
            relay: place.relay,
            epoch: placement.map_or(0, |placement| placement.epoch),
        })
    }
}

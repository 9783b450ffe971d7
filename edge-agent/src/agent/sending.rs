//! What the site sends over the link as it is now: the ladder's rung, held by the valve, told to the relay and the status.

use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_link::Transport;
use muster_proto::media::v1::{LinkSends, LinkSource, SourceKind, link_up};

use super::{Agent, epoch_ms};
use crate::ladder::{Ladder, Rung, Sees};
use crate::publisher::CAMERA_FLOW;
use crate::status::Way;
use crate::valve::Valve;

/// How often the link is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The ladder and the valve of one leg.
#[derive(Debug)]
pub(super) struct Sending {
    ladder: Ladder,
    pub valve: Valve,
    rung: Rung,
    flows: Vec<u64>,
    dark_since_ms: i64,
    /// What the link leaves to sources, bits a second.
    source_bps: u64,
    next: Instant,
}

impl Sending {
    pub fn new(now: Instant, sources: &[LinkSource]) -> Self {
        let camera = sources
            .iter()
            .filter(|source| source.kind() == SourceKind::Camera);
        let layers: Vec<_> = camera.flat_map(|source| &source.layers).collect();
        let rates: Vec<u32> = layers.iter().map(|layer| layer.max_bps).collect();
        Self {
            ladder: Ladder::new(&rates),
            valve: Valve::default(),
            rung: Rung::Full,
            flows: layers.iter().map(|layer| layer.flow).collect(),
            dark_since_ms: 0,
            source_bps: 0,
            next: now,
        }
    }

    /// What leaves of a datagram.
    pub fn pass(&mut self, now: Instant, datagram: Bytes) -> Option<Bytes> {
        self.valve.pass(now, datagram)
    }
}

impl Agent {
    /// Looks at the link, in a meeting: says when to look again.
    pub(super) fn look_at_link(&mut self, now: Instant) -> Option<Instant> {
        self.status.warm_interfaces = self.uplink.warm();
        let transport = self.uplink.sender().map(|sender| sender.transport());
        self.status.transport = transport.map(|transport| match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        });
        let (Some(sending), Some(sender)) = (&mut self.sending, self.uplink.sender()) else {
            self.status.way = None;
            return None;
        };
        if now < sending.next {
            return Some(sending.next);
        }
        sending.next = now + LOOK;
        let next = Some(sending.next);
        let health = sender.health();
        self.status.interface = sender.interface();
        let returned = !health.dark && sending.dark_since_ms != 0;
        if !health.dark {
            sending.dark_since_ms = 0;
        } else if sending.dark_since_ms == 0 {
            sending.dark_since_ms = epoch_ms();
        }
        sending.source_bps = health.source_bps;
        self.status.way = Some(Way {
            rate_kbps: health.rate_bps / 1000,
            loss_permille: (health.loss * 1000.0) as u32,
            rtt_ms: health.rtt.as_millis() as u64,
            dark_since_ms: sending.dark_since_ms,
        });
        let (rung, why) = sending.ladder.look(
            now,
            Sees {
                source_bps: health.source_bps,
                limited: health.limited,
                dark: health.dark,
            },
        );
        (self.status.rung, self.status.rung_why) = (rung, why);
        self.send_so(now, rung, returned);
        next
    }

    fn send_so(&mut self, now: Instant, rung: Rung, returned: bool) {
        let (Some(sending), Some(publisher)) = (&mut self.sending, &mut self.publisher) else {
            return;
        };
        if sending.rung != rung {
            let (way, source_kbps) = (self.status.way.unwrap_or_default(), sending.source_bps / 1000);
            tracing::info!(?rung, was = ?sending.rung, source_kbps, ?way, "what the site sends");
            sending.rung = rung;
            for (flow, rests) in sending.valve.set(rung) {
                publisher.pause(now, flow, rests);
            }
            let sends = LinkSends {
                rung: wire(rung).into(),
            };
            self.uplink.send(link_up::Message::Sends(sends));
        }
        if returned {
            // What was lost meanwhile is not sent again: whoever watches begins anew.
            for &flow in &sending.flows {
                publisher.request_key_frame(now, flow);
            }
        } else if sending.valve.wants_still(now) {
            publisher.request_key_frame(now, CAMERA_FLOW);
        }
    }
}

fn wire(rung: Rung) -> muster_proto::media::v1::Rung {
    use muster_proto::media::v1::Rung as Wire;
    match rung {
        Rung::Full => Wire::Full,
        Rung::Small => Wire::Small,
        Rung::Stills => Wire::Stills,
        Rung::Audio => Wire::Audio,
        Rung::Text => Wire::Text,
    }
}

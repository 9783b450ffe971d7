//! The stage: what everyone is made to see.

use super::{corrupt, known_name, names, paired, text, texts};
use crate::store::StoreError;
use muster_domain::{Layout, Millis, Polling, PollingOrder, Stage};
use muster_proto::command::v1 as pb;

paired!(Layout, pb::Layout, layout_to_wire, layout_from_wire, {
    One = Layout1, OneAndSeven = Layout17, Four = Layout4, Nine = Layout9, Sixteen = Layout16,
    TwentyFive = Layout25, ThirtySix = Layout36, FortyNine = Layout49,
});

pub(super) fn stage_to_wire(stage: &Stage) -> pb::Stage {
    pb::Stage {
        broadcast_site: text(&stage.broadcast),
        muted_sites: texts(&stage.muted),
        layout: stage
            .layout
            .map_or(pb::Layout::Unspecified, layout_to_wire)
            .into(),
        polling: stage.polling.as_ref().map(polling_to_wire),
        voice_switching: stage.voice_switching,
        content_site: text(&stage.content),
        watched_site: text(&stage.watched),
    }
}

pub(super) fn stage_from_wire(wire: pb::Stage) -> Result<Stage, StoreError> {
    Ok(Stage {
        broadcast: known_name(&wire.broadcast_site)?,
        muted: names(&wire.muted_sites)?,
        layout: layout_from_wire(wire.layout),
        polling: wire.polling.map(polling_from_wire).transpose()?,
        voice_switching: wire.voice_switching,
        content: known_name(&wire.content_site)?,
        watched: known_name(&wire.watched_site)?,
    })
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn polling_to_wire(polling: &Polling) -> pb::Polling {
    pb::Polling {
        interval_s: u32::try_from(polling.interval_ms / 1_000).unwrap_or(u32::MAX),
        per_page: number(polling.per_page),
        page: number(polling.page),
        pages: number(polling.pages),
        sites: texts(&polling.sites),
        next: texts(&polling.next),
        turned_ms: polling.turned.0,
        paused: polling.paused,
    }
}

fn polling_from_wire(wire: pb::Polling) -> Result<Polling, StoreError> {
    let count = |number: u32| usize::try_from(number).map_err(corrupt);
    Ok(Polling {
        interval_ms: i64::from(wire.interval_s) * 1_000,
        per_page: count(wire.per_page)?,
        page: count(wire.page)?,
        pages: count(wire.pages)?,
        sites: names(&wire.sites)?,
        next: names(&wire.next)?,
        turned: Millis(wire.turned_ms),
        paused: wire.paused,
    })
}

/// What a person asks for; none stops the polling.
pub fn polling_order_from_wire(wire: &pb::SetPolling) -> Option<PollingOrder> {
    wire.on.then(|| PollingOrder {
        interval_ms: i64::from(wire.interval_s) * 1_000,
        per_page: usize::try_from(wire.per_page).unwrap_or(usize::MAX),
        paused: wire.paused,
    })
}

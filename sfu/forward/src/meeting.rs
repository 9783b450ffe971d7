//! The forwarding state of one meeting on one worker.

use crate::event::{Event, SlotState};
use crate::types::{Forwarded, LegId, Micros, Packet, SlotId, SlotSpec, SourceId, SourceSpec, Stage, Wish};

/// The forwarding state of one meeting on one worker: its slots are local, its sources local or of other workers.
#[derive(Debug, Default)]
pub struct Meeting {}

#[allow(unused_variables)]
impl Meeting {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn add_source(&mut self, now: Micros, spec: SourceSpec) {}
    pub fn remove_source(&mut self, now: Micros, id: SourceId) {}
    pub fn set_layer_size(&mut self, source: SourceId, layer: usize, width: u16, height: u16) {}
    pub fn set_paused(&mut self, source: SourceId, layer: usize, paused: bool) {}
    pub fn add_slot(&mut self, now: Micros, spec: SlotSpec) {}
    pub fn remove_leg(&mut self, now: Micros, leg: LegId) {}
    pub fn set_wishes(&mut self, now: Micros, leg: LegId, wishes: Vec<Wish>) {}
    pub fn set_stage(&mut self, now: Micros, stage: Stage) {}
    pub fn handle_packet(
        &mut self,
        now: Micros,
        source: SourceId,
        layer: usize,
        packet: &Packet<'_>,
        out: &mut Vec<Forwarded>,
    ) {
    }
    pub fn request_key_frame(&mut self, now: Micros, slot: SlotId) {}
    pub fn handle_timeout(&mut self, now: Micros) {}
    pub fn poll_timeout(&self) -> Option<Micros> {
        None
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
    pub fn slot_state(&self, slot: SlotId) -> Option<&SlotState> {
        None
    }
}

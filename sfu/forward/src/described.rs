//! A stream by its dependency descriptors: which step of it each packet is of, and where a viewer can step up.
//!
//! A decode target counts as the step of its highest layers, and a viewer at a step is sent all frames up to it. That
//! is at least what the target needs, so it can be lowered at any picture; it steps up where a frame that it is sent
//! bears the switch indication of a higher target (A.7). Invariant: the state follows the newest packet alone.

use crate::av1;
use crate::dependency::{Descriptor, Indication, Structure, parse};
use crate::frame::{KeyStart, Picture, Seen, step};
use crate::lane::Cap;
use crate::rate::STEPS;
use crate::spatial::Sizes;
use crate::types::Packet;
use crate::vp8::PictureId;

/// What must be kept of a stream from packet to packet.
#[derive(Debug)]
pub(crate) struct Described {
    structure: Structure,
    /// The frame that brought it.
    since: u16,
    /// The decode targets that the publisher sends.
    active: u16,
}

/// What a slot must know of a frame beside its step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// A bit for each step to which a viewer of this frame can step up.
    pub switches: u8,
    /// The highest step that there is.
    pub top: u8,
    /// Decode targets; 0 where the packet brings the structure, and so the targets.
    pub targets: u8,
    /// Those that a viewer up to each step has.
    pub active: [u16; STEPS],
}

impl Frame {
    /// How far up a viewer of this frame that is at `level` can go at it, where it may go up to `cap`.
    pub fn switched(&self, level: Cap, cap: Cap) -> Cap {
        let reached = (0..STEPS as u8)
            .rev()
            .find(|step| self.switches >> step & 1 == 1 && Cap::upto(*step) <= cap);
        match reached {
            // Above the highest there is nothing more to wait for.
            Some(step) if step == self.top => cap,
            Some(step) => level.max(Cap::upto(step)),
            None => level,
        }
    }
}

/// What a packet with a descriptor says. `None`: it is of a structure that never came, and nobody can decode it.
/// `newest`: no later packet of the stream has come.
pub(crate) fn inspect(packet: &Packet<'_>, newest: bool, state: &mut Option<Box<Described>>) -> Option<Seen> {
    let known = state.as_ref().map(|state| &state.structure);
    let descriptor = parse(packet.descriptor, known)?;
    let key = descriptor.structure.is_some() && descriptor.start && descriptor.layer.spatial == 0;
    let key_frame = av1::key_frame(packet.payload).filter(|_| key);
    let mut sizes = Sizes::default();
    if let Some(structure) = &descriptor.structure {
        sizes = Sizes::of(&structure.sizes);
        let later = |state: &Described| (descriptor.frame.wrapping_sub(state.since) as i16) > 0;
        if newest || state.as_deref().is_none_or(later) {
            *state = Some(Box::new(Described {
                structure: structure.clone(),
                since: descriptor.frame,
                active: structure.all_targets(),
            }));
        }
    }
    let state = state.as_mut()?;
    if let Some(active) = descriptor.active.filter(|_| newest) {
        state.active = active;
    }
    Some(Seen {
        key_start: if key_frame.is_some() {
            KeyStart::Yes
        } else {
            KeyStart::No
        },
        size: key_frame.and_then(|size| sizes.largest().or(size)),
        sizes,
        picture: state.picture(&descriptor),
    })
}

impl Described {
    fn picture(&self, descriptor: &Descriptor) -> Picture {
        let step_of = |layer: crate::dependency::LayerIds| step(layer.spatial, layer.temporal);
        let targets = self.structure.targets();
        let mut frame = Frame {
            switches: 0,
            top: 0,
            targets: if descriptor.structure.is_some() {
                0
            } else {
                targets.len() as u8
            },
            active: [0; STEPS],
        };
        for (target, layer) in targets.iter().enumerate() {
            let step = step_of(*layer);
            frame.top = frame.top.max(step);
            for active in &mut frame.active[usize::from(step)..] {
                *active |= 1 << target & self.active;
            }
            // Where temporal layers of a spatial one are targets of their own, all must be switched to.
            let switches = descriptor.indications.of(target) == Indication::Switch;
            let fewer_frames = targets
                .iter()
                .any(|other| step_of(*other) == step && other.temporal > layer.temporal);
            if switches && !fewer_frames {
                frame.switches |= 1 << step;
            }
        }
        Picture {
            start: descriptor.start,
            end: descriptor.end,
            step: step_of(descriptor.layer),
            id: Some(PictureId {
                value: descriptor.frame,
                bits: 16,
            }),
            frame: Some(frame),
            ..Picture::PLAIN
        }
    }
}

//! The dependency descriptor, a header extension that says what each frame of a stream needs (RTP payload format for
//! AV1, version 1.0, appendix A).
//!
//! A key frame's first packet carries the [`Structure`]: the stream's decode targets, and templates that later packets
//! name by number. Bytes are from the network: what is malformed, cut short or beyond the bounds below is `None`, never
//! a panic, and nothing grows with the input. It does not follow chains: what is lost is asked for by sequence numbers,
//! and a viewer is given all frames of the layers below its own, so every frame that it needs.

use crate::bits::Bits;

/// Decode targets of a structure; the largest that browsers send has nine. One with more is not understood.
pub const MAX_TARGETS: usize = 16;
/// Spatial layers that AV1 has.
pub const MAX_SPATIAL: usize = 4;
/// Templates that six bits tell apart.
const MAX_TEMPLATES: usize = 64;
const MAX_TEMPORAL_ID: u8 = 7;

/// How a frame stands to one decode target (table A.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indication {
    NotPresent,
    Discardable,
    /// Whoever can decode this frame can decode all that follow of the target.
    Switch,
    Required,
}

/// The indications of a frame, two bits for each decode target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indications(u32);

impl Indications {
    /// Of a decode target below [`MAX_TARGETS`].
    pub fn of(self, target: usize) -> Indication {
        match self.0 >> (2 * target.min(MAX_TARGETS - 1)) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    fn read(bits: &mut Bits<'_>, targets: usize) -> Option<Self> {
        let read = |all, target| Some(all | bits.take(2)? << (2 * target));
        (0..targets).try_fold(0, read).map(Self)
    }
}

/// A spatial and a temporal layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerIds {
    pub spatial: u8,
    pub temporal: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Template {
    layer: LayerIds,
    indications: Indications,
}

/// What a coded video sequence consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    offset: u8,
    templates: Vec<Template>,
    targets: Vec<LayerIds>,
    chains: u32,
    /// Width and height of each spatial layer, smallest first; empty where that is not said.
    pub sizes: Vec<(u16, u16)>,
}

impl Structure {
    /// The decode targets, each by the highest layers that it has; at most [`MAX_TARGETS`].
    pub fn targets(&self) -> &[LayerIds] {
        &self.targets
    }

    /// One bit for each decode target.
    pub fn all_targets(&self) -> u16 {
        ((1u32 << self.targets.len()) - 1) as u16 // at most sixteen
    }

    fn template(&self, id: u8) -> Option<&Template> {
        let index = (id + MAX_TEMPLATES as u8 - self.offset) % MAX_TEMPLATES as u8;
        self.templates.get(usize::from(index))
    }

    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let offset = bits.take(6)? as u8;
        let count = bits.take(5)? as usize + 1;
        if count > MAX_TARGETS {
            return None;
        }
        let mut templates = layers(bits)?;
        for template in &mut templates {
            template.indications = Indications::read(bits, count)?;
        }
        for _ in &templates {
            while bits.take(1)? == 1 {
                bits.take(4)?; // fdiff_minus_one
            }
        }
        let chains = bits.non_symmetric(count as u32 + 1)?;
        if chains > 0 {
            for _ in 0..count {
                bits.non_symmetric(chains)?; // decode_target_protected_by
            }
            for _ in 0..templates.len() as u32 * chains {
                bits.take(4)?; // template_chain_fdiff
            }
        }
        let mut sizes = Vec::new();
        if bits.take(1)? == 1 {
            let highest = templates.iter().map(|t| t.layer.spatial).max()?;
            for _ in 0..=highest {
                let side = |minus_one: u32| u16::try_from(minus_one + 1).ok();
                sizes.push((side(bits.take(16)?)?, side(bits.take(16)?)?));
            }
        }
        let targets = (0..count).map(|target| highest(&templates, target)).collect();
        Some(Structure {
            offset,
            templates,
            targets,
            chains,
            sizes,
        })
    }
}

/// The layers of the templates.
fn layers(bits: &mut Bits<'_>) -> Option<Vec<Template>> {
    let mut templates = Vec::new();
    let mut layer = LayerIds::default();
    loop {
        templates.push(Template {
            layer,
            ..Template::default()
        });
        match bits.take(2)? {
            0 => {}
            1 => layer.temporal += 1,
            2 => {
                layer.temporal = 0;
                layer.spatial += 1;
            }
            _ => return Some(templates),
        }
        let known = usize::from(layer.spatial) < MAX_SPATIAL && layer.temporal <= MAX_TEMPORAL_ID;
        if !known || templates.len() == MAX_TEMPLATES {
            return None;
        }
    }
}

/// The highest layers of the frames that belong to a decode target.
fn highest(templates: &[Template], target: usize) -> LayerIds {
    let of_target = |t: &&Template| t.indications.of(target) != Indication::NotPresent;
    templates
        .iter()
        .filter(of_target)
        .fold(LayerIds::default(), |highest, t| LayerIds {
            spatial: highest.spatial.max(t.layer.spatial),
            temporal: highest.temporal.max(t.layer.temporal),
        })
}

/// What one packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// First packet of the frame.
    pub start: bool,
    /// Last packet of the frame.
    pub end: bool,
    pub frame: u16,
    pub layer: LayerIds,
    pub indications: Indications,
    /// A bit for each decode target that is to be had from here on; `None`: as before.
    pub active: Option<u16>,
    /// A coded video sequence begins.
    pub structure: Option<Structure>,
}

/// Parses the extension's value. `known` is the structure of the sequence so far; without one only a packet that brings
/// one is understood.
pub fn parse(value: &[u8], known: Option<&Structure>) -> Option<Descriptor> {
    let mut bits = Bits::new(value);
    let (start, end) = (bits.take(1)? == 1, bits.take(1)? == 1);
    let template_id = bits.take(6)? as u8;
    let frame = bits.take(16)? as u16;
    let extended = value.len() > 3;
    let mut flag = || if extended { bits.take(1) } else { Some(0) };
    let [brings_structure, says_active, own_indications, ..] = [flag()?, flag()?, flag()?, flag()?, flag()?];
    let structure = if brings_structure == 1 {
        Some(Structure::read(&mut bits)?)
    } else {
        None
    };
    let in_force = structure.as_ref().or(known)?;
    let targets = in_force.targets.len();
    let active = match (says_active, &structure) {
        (1, _) => Some(bits.take(targets as u32)? as u16),
        (_, Some(structure)) => Some(structure.all_targets()),
        _ => None,
    };
    let template = in_force.template(template_id)?;
    let indications = if own_indications == 1 {
        Indications::read(&mut bits, targets)?
    } else {
        template.indications
    };
    Some(Descriptor {
        start,
        end,
        frame,
        layer: template.layer,
        indications,
        active,
        structure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of A.8.2: five values in two or three bits.
    #[test]
    fn values_that_are_no_power_of_two() {
        let bytes = [0b00_01_10_11, 0b0111_0000];
        let mut bits = Bits::new(&bytes);
        let read: Vec<_> = (0..5).map(|_| bits.non_symmetric(5)).collect();
        assert_eq!(read, [0, 1, 2, 3, 4].map(Some));
        assert_eq!(bits.non_symmetric(1), Some(0), "one value takes no bit");
    }
}

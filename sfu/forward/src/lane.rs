//! The hot half of a slot: all that a packet on its way into it touches, in two cache lines.
//!
//! `target` is what the slot is to show, `current` is whose packets go out. They differ while a switch is pending: the
//! old layer goes on until a key frame of the new one begins. `cap` is the highest step of it that may go out (see
//! `rate`): it is lowered between two pictures, and raised where the publisher lets a viewer step up (the Y bit of
//! RFC 7741, the U bit of RFC 9628, the switch indication of a dependency descriptor), so that every picture sent can be
//! decoded. A lane asks for nothing by itself: its answers say what the meeting must do.

use crate::described::Frame;
use crate::frame::Picture;
use crate::rate::{STEPS, TEMPORAL};
use crate::rewrite::Rewriter;
use crate::sequence::Accepted;
use crate::slot::Feed;
use crate::types::{Codec, Forwarded, FramePatch, Micros, Packet, SlotId};

/// Video at 30 frames a second, Opus at 20 ms (RFC 7587 section 4.2): the least step of time over a switch.
const VIDEO_FRAME_US: u64 = 33_334;
const AUDIO_FRAME_US: u64 = 20_000;

/// How much of a layer goes out: its steps up to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cap(i8);

impl Cap {
    /// Nothing at all: the picture stands until the switch is done.
    pub const NOTHING: Cap = Cap(-1);
    pub const ALL: Cap = Cap(i8::MAX);

    pub fn upto(step: u8) -> Cap {
        Cap(i8::try_from(step).unwrap_or(i8::MAX))
    }

    /// Up to a spatial layer, with all its frames.
    pub fn upto_spatial(layer: usize) -> Cap {
        Cap::upto((TEMPORAL - 1 + layer).min(STEPS) as u8)
    }

    /// The highest step that may go out; of nothing the lowest.
    pub fn step(self) -> u8 {
        self.0.max(0) as u8 // not negative
    }

    /// Spatial layers above the base.
    pub fn spatial(self) -> i8 {
        (self.0 - (TEMPORAL as i8 - 1)).max(0)
    }
}

/// A feed in one word, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    pub const NONE: Tag = Tag(u64::MAX);

    pub fn of(feed: Feed) -> Tag {
        Tag((feed.source as u64) << 16 | feed.layer as u64)
    }

    pub fn feed(self) -> Option<Feed> {
        (self != Tag::NONE).then_some(Feed {
            source: (self.0 >> 16) as usize,
            layer: (self.0 & 0xffff) as usize,
        })
    }
}

/// A packet on its way to the slots, with all that was found out once for all of them.
pub(crate) struct Incoming<'a> {
    pub now: Micros,
    pub tag: Tag,
    pub codec: Codec,
    pub packet: &'a Packet<'a>,
    pub accepted: Accepted,
    /// First number of the publisher's present run.
    pub run_start: i64,
    /// A viewer can begin with this packet.
    pub entry: bool,
    pub picture: Picture,
}

/// What the meeting must do after a slot took a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// The switch is done, or the picture is back: subscriptions and state are to be settled.
    Settle,
    KeyFrame,
    /// A layer that was missed delivers again.
    Refit,
}

#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Lane {
    id: SlotId,
    current: Tag,
    target: Tag,
    /// When the last packet went out to the viewer.
    pub last_packet: Option<Micros>,
    rewriter: Rewriter,
    /// Of the current layer.
    cap: Cap,
    /// Of the target, once it is shown.
    target_cap: Cap,
    /// What goes out of the current layer now: follows `cap` at the next occasion.
    level: Cap,
    audio: bool,
    /// The slot's state says that its picture stands still.
    pub stale: bool,
}

impl Lane {
    pub fn new(id: SlotId, audio: bool, seed: u64) -> Self {
        Lane {
            id,
            current: Tag::NONE,
            target: Tag::NONE,
            last_packet: None,
            rewriter: Rewriter::new(seed),
            cap: Cap::ALL,
            target_cap: Cap::ALL,
            level: Cap::ALL,
            audio,
            stale: false,
        }
    }

    pub fn current(&self) -> Option<Feed> {
        self.current.feed()
    }

    pub fn target(&self) -> Option<Feed> {
        self.target.feed()
    }

    /// How much of the current layer goes out now.
    pub fn level(&self) -> Cap {
        self.level
    }

    /// The key frame of the target has not come yet.
    pub fn is_switching(&self) -> bool {
        self.target != Tag::NONE && self.current != self.target
    }

    /// What the slot is to show from its next key frame on, and how much of it; `meanwhile` is how much of
    /// what it shows may go on until then; `top` is all that the target has. True if only a key frame brings what was not there
    /// before: more frames come without.
    pub fn aim(&mut self, target: Feed, target_cap: Cap, meanwhile: Cap, top: Cap) -> bool {
        let before = self.target;
        self.target = Tag::of(target);
        self.target_cap = target_cap;
        if self.current != self.target {
            // Once nothing of it has passed, it cannot go on without a key frame.
            self.cap = if self.cap == Cap::NOTHING {
                self.cap
            } else {
                meanwhile
            };
            return self.target != before;
        }
        if self.cap == Cap::NOTHING {
            self.current = Tag::NONE;
            return true;
        }
        let rises = target_cap.min(top).spatial() > self.cap.min(top).spatial();
        self.cap = target_cap;
        rises
    }

    /// Nothing is to be shown.
    pub fn clear(&mut self) {
        self.current = Tag::NONE;
        self.target = Tag::NONE;
    }

    /// Lets go of feeds of a source that is gone.
    pub fn forget(&mut self, gone: impl Fn(Feed) -> bool) {
        for tag in [&mut self.current, &mut self.target] {
            if tag.feed().is_some_and(&gone) {
                *tag = Tag::NONE;
            }
        }
    }

    /// The packet path of one slot. HOT: no allocation but by `out`, and once where thinning starts.
    pub fn take(&mut self, incoming: &Incoming<'_>, out: &mut Vec<Forwarded>) -> Then {
        let shown = self.current == incoming.tag;
        if !shown && self.target != incoming.tag {
            return Then::Refit;
        }
        let begins = !shown || !self.rewriter.began_since(incoming.run_start);
        if begins {
            if !(incoming.entry && incoming.accepted.newest) {
                // A key frame that cannot be used was asked for in vain; a new run of numbers needs one.
                return if incoming.entry || shown {
                    Then::KeyFrame
                } else {
                    Then::Nothing
                };
            }
            self.begin(incoming);
        }
        let size = self.level.spatial();
        if (self.level != self.cap || incoming.picture.step != 0) && !self.passes(incoming) {
            return Then::Nothing;
        }
        let rewritten = self.rewriter.rewrite(
            incoming.now,
            incoming.accepted.number,
            incoming.packet,
            &incoming.picture,
        );
        let Some(numbers) = rewritten else {
            return Then::Nothing;
        };
        self.last_packet = Some(incoming.now);
        let frame = incoming.picture.frame.as_ref().zip(numbers.patch);
        let frame = frame.map(|(frame, patch)| self.told(frame, patch.picture_id));
        out.push(Forwarded {
            slot: self.id,
            codec: incoming.codec,
            seq: numbers.seq,
            timestamp: numbers.timestamp,
            // Where a voice is cut in, its first packet begins a talkspurt (RFC 3551 section 4.1).
            marker: incoming.packet.marker || (self.audio && begins) || self.closes(&incoming.picture),
            patch: numbers.patch.filter(|_| frame.is_none()),
            frame,
        });
        if !shown || self.stale || size != self.level.spatial() {
            Then::Settle
        } else {
            Then::Nothing
        }
    }

    /// The last packet that goes out of a picture whose upper spatial layers are left out (RFC 9628 section 4.2).
    fn closes(&self, picture: &Picture) -> bool {
        picture.end && self.level != Cap::ALL && Cap::upto(picture.step).spatial() == self.level.spatial()
    }

    /// What the viewer is told of a frame. Once something was left out it is told in each packet what it can have (A.4);
    /// where a structure begins, which has all, in the packet after.
    fn told(&self, frame: &Frame, number: u16) -> FramePatch {
        let whole = self.level == Cap::ALL && !self.rewriter.has_left_out();
        let step = usize::from(self.level.step()).min(STEPS - 1);
        FramePatch {
            number,
            active: frame.active[step],
            targets: if whole { 0 } else { frame.targets },
        }
    }

    fn begin(&mut self, incoming: &Incoming<'_>) {
        let frame_us = if self.audio {
            AUDIO_FRAME_US
        } else {
            VIDEO_FRAME_US
        };
        self.rewriter.begin(
            incoming.now,
            incoming.codec.clock_rate(),
            frame_us,
            incoming.accepted.number,
            incoming.packet.timestamp,
        );
        if self.current != incoming.tag {
            self.current = incoming.tag;
            self.cap = self.target_cap;
        }
        self.level = self.cap;
    }

    /// Moves the level to the cap where this packet lets it, and says whether the packet passes; one that does
    /// not is taken out of the viewer's numbers.
    fn passes(&mut self, incoming: &Incoming<'_>) -> bool {
        if self.cap == Cap::NOTHING {
            return false;
        }
        let picture = &incoming.picture;
        let step = Cap::upto(picture.step);
        let new_picture =
            picture.start && picture.is_base() || !self.rewriter.within(incoming.packet.timestamp);
        if self.level > self.cap && new_picture {
            self.level = self.cap;
        } else if self.level < self.cap && incoming.accepted.newest && picture.start {
            if incoming.entry {
                self.level = self.cap;
            } else if let Some(frame) = &picture.frame {
                if step <= self.level {
                    self.level = frame.switched(self.level, self.cap);
                }
            } else if picture.sync && step > self.level && Cap::upto(picture.below) <= self.level {
                // Above the highest there is nothing more to wait for.
                self.level = if picture.top { self.cap } else { step.min(self.cap) };
            }
        }
        // What is late goes by where it belongs in the viewer's numbers, not by the level of now.
        if step <= self.level || !incoming.accepted.newest {
            return true;
        }
        self.rewriter
            .leave_out(incoming.accepted.number, incoming.packet, picture);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_packet_touches_is_two_cache_lines() {
        assert_eq!(size_of::<Lane>(), 128);
        assert!(size_of::<Forwarded>() <= 32);
    }
}
